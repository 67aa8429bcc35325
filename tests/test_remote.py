"""The Feast adapter as far as it goes without Feast: what Feast is told and fed, and what is refused.

With Feast itself: tests/with_feast, run by `make test-feast` in an environment of its own."""

import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from histories import DAY, START, eventful_store, questions

from lensnb import remote
from lensnb.features import FEATURES, columns_of
from lensnb.ledger import moment
from lensnb.schema import FIELDS, InputError
from lensnb.store import FeatureSource


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return eventful_store(tmp_path_factory.mktemp("store") / "eyes", 60)


@pytest.fixture(scope="module")
def fed(store):
    return remote.states(store)


class Stand:
    """Feast's rule for the past, in pandas; without the question whether a row was known when `leaks`."""

    def __init__(self, rows, leaks=False, layout=None):
        self.states, self.leaks = rows.rename(columns=remote.feast_name), leaks
        self.tags = {"layout": layout or remote.layout()}
        self.feast, self.name, self.asked = self, remote.VIEW, None

    def list_feature_views(self):
        return [self]

    def get_historical_features(self, entity_df, features, **options):
        self.asked = options
        pairs = entity_df.merge(self.states, on="eye_id")
        known = pairs["event"] <= pairs["event_timestamp"]
        if not self.leaks:
            known &= pairs["created"] <= pairs["event_timestamp"]
        best = pairs[known].sort_values(["event", "created"]).groupby("ask").tail(1).drop(columns="eye_id")
        table = entity_df[["ask"]].merge(best, on="ask", how="left").sample(frac=1, random_state=0)
        return SimpleNamespace(to_df=lambda: table)


def test_the_definitions_are_those_of_the_registry():
    told = remote.definitions()
    names = [f["name"] for f in told["fields"]]
    assert names == [remote.feast_name(c) for c in (*columns_of(FEATURES), *remote.CHECKS)]
    assert len(set(names)) == len(names) and not any(n.endswith("_y") for n in names), "Feast drops such columns"
    assert all(FIELDS[c].preop for c in columns_of(FEATURES))
    assert [f["name"] for f in told["features"]] == list(FEATURES)
    assert {f["name"]: f["needs"] for f in told["features"]} == {f.name: f.needs for f in FEATURES.values()}


def test_a_new_feature_is_told_and_changes_the_layout(monkeypatch):
    before, extra = remote.layout(), FEATURES["ata_mm"]
    monkeypatch.setitem(FEATURES, "acw_new", type(extra)("acw_new", "mm", ("acw_mm",), 1, lambda e: e["acw_mm"]))
    try:
        told = remote.definitions()
    except (OSError, TypeError):  # a lambda has no source to hash; the columns are what matters here
        told = {"fields": [{"name": c} for c in columns_of(FEATURES)]}
    assert "acw_mm" in [f["name"] for f in told["fields"]] and remote.layout() != before


@pytest.mark.parametrize("how", [{}, {"ttl_days": 17.5}, {"ttl_days": 40}, {"size_mm": 12.6}], ids=str)
def test_the_simple_rule_on_states_answers_as_the_store(store, fed, how):
    asked, names = questions(store, 800), list(FEATURES)
    ours = store.historical(asked, names, **how)
    pd.testing.assert_frame_equal(remote.historical(Stand(fed), asked, names, **how), ours, check_exact=True)
    assert ours["ata_mm"].notna().any() and ours["ata_mm"].isna().any(), "both kinds were asked for"


@pytest.mark.parametrize("days", [0, -1, float("nan")])
def test_an_age_limit_is_above_zero(store, fed, days):
    for source in (store, SimpleNamespace(historical=lambda *a: remote.historical(Stand(fed), *a))):
        with pytest.raises(InputError, match="above 0"):
            source.historical(questions(store, 3), ["ata_mm"], days)


def test_the_question_when_a_row_was_known_is_always_asked(store, fed):
    stand = Stand(fed)
    remote.historical(stand, questions(store, 5), ["ata_mm"])
    assert stand.asked == {"filter_by_created_timestamp": True}


def test_a_leak_is_refused(store, fed):
    asked = pd.DataFrame({"eye_id": sorted(store.late), "as_of": START + 50 * DAY})
    with pytest.raises(InputError, match="row of later"):
        remote.historical(Stand(fed, leaks=True), asked, ["ata_mm"])


def test_the_trap_row_is_in_no_state(store, fed):
    with_lens = fed[fed["eye_id"].isin(store.trap) & (fed["event"] >= (START + 65 * DAY).tz_localize("UTC"))]
    known = with_lens[with_lens["created"] >= (START + 90 * DAY).tz_localize("UTC")]
    assert len(known) >= len(store.trap)
    limit = (START + 65 * DAY).value // 1000
    assert (known["seen_us"].dropna() <= limit).all(), "an examination after surgery feeds a feature"


def test_lost_doubled_and_foreign_answers_are_refused(fed):
    asked = pd.DataFrame({"eye_id": ["eye-00001-x", "nobody"], "as_of": [START + 99 * DAY] * 2}, index=[7, 3])
    us = [np.nan, 1e15]
    answer = pd.DataFrame({"ask": [1, 0], "ata_mm": [np.nan, 11.9], "seen_us": us, "known_us": us})
    assert remote.whole(asked, answer)["ata_mm"].to_dict() == pytest.approx({7: 11.9, 3: np.nan}, nan_ok=True)
    for broken in (answer.iloc[:1], answer.iloc[[0, 1, 1]], answer.assign(ask=[0, 2])):
        with pytest.raises(InputError, match="lost rows"):
            remote.whole(asked, broken)
    for check in ("seen_us", "known_us"):
        limit = float((START + 99 * DAY).value // 1000)
        assert len(remote.whole(asked, answer.assign(**{check: [np.nan, limit]}))) == 2, "the moment itself is allowed"
        with pytest.raises(InputError, match="row of later.*row 7"):
            remote.whole(asked, answer.assign(**{check: [np.nan, limit + 1]}))


def test_another_release_is_refused(store, fed):
    with pytest.raises(InputError, match="Another release published"):
        remote.historical(Stand(fed, layout="0" * 16), questions(store, 3), ["ata_mm"])


def test_the_file_keeps_types_and_values_and_replaces_in_one_step(tmp_path, fed, monkeypatch):
    path = tmp_path / "rows.parquet"
    remote.write_states(fed, path)
    before = path.read_bytes()
    kept = pd.read_parquet(path).rename(columns={remote.feast_name(c): c for c in columns_of(FEATURES)})
    pd.testing.assert_frame_equal(kept[columns_of(FEATURES)], fed[columns_of(FEATURES)], check_exact=True)
    monkeypatch.setattr(remote.os, "replace", lambda *a: (_ for _ in ()).throw(OSError("No space left on device")))
    with pytest.raises(OSError):
        remote.write_states(fed.iloc[:3], path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]
    monkeypatch.undo()
    remote.write_states(fed.iloc[:0], path)
    assert str(pd.read_parquet(path).dtypes["ata_mm"]) == "float64", "an empty file has the types too"


def test_unknown_and_blank_eyes_differ():
    columns = ["ata_mm", "acd_mm"]
    none = {c: [None] for c in columns}
    assert remote.cells_of({**none, "layout": [None]}, columns) is None
    assert np.isnan(remote.cells_of({**none, "layout": [remote.layout()]}, columns)).all()
    with pytest.raises(InputError, match="Another release"):
        remote.cells_of({**none, "layout": ["0" * 16]}, columns)


def test_the_past_is_not_put_over_the_present(fed, tmp_path):
    last = pd.Timestamp("2026-05-01", tz="UTC")
    stand = Stand(fed)
    stand.get_feature_view = lambda name: SimpleNamespace(most_recent_end_time=last)
    with pytest.raises(InputError, match="Later rows are online"):
        remote.materialize(stand, "2026-04-30T23:59:59")
    assert remote.last_materialized(stand) == moment("2026-05-01")


def test_redis_writes_corrections_too():
    """Feast skips a row with a known event time on Redis unless it is told not to."""
    kept = remote.settings("x", {"type": "redis", "connection_string": "127.0.0.1:1", "skip_dedup": False})
    assert kept["online_store"]["skip_dedup"] is True
    assert kept["offline_store"] == remote.settings("x")["offline_store"] == {"type": "duckdb"}


def test_the_adapter_is_a_feature_source():
    assert issubclass(remote.FeastSource, FeatureSource)


def test_without_feast_the_extra_is_named(root):
    code = """if True:
        import sys
        sys.modules["feast"] = None
        from lensnb.remote import FeastSource
        from lensnb.schema import InputError
        try: FeastSource("never-made")
        except InputError as e: print(e)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert "lensnb[feast]" in done.stdout and "tools/feast_env.sh" in done.stdout, done.stderr
    assert not (root / "never-made").exists()


def test_importing_the_module_loads_no_feast(root):
    code = "import sys, lensnb.remote; print('feast' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True).stdout == "False\n"


def test_the_environment_of_feast_is_ignored_by_git(root, tmp_path):
    """By our own .gitignore, not only by the one that uv puts into a new environment."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    shutil.copy(root / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True, capture_output=True)
    for name, code in ((".venv-feast/", 0), ("tools/feast_env.sh", 1)):
        assert subprocess.run(["git", "check-ignore", "--quiet", name], cwd=tmp_path).returncode == code, name


def test_the_tests_of_feast_are_not_collected_here(root):
    command = [sys.executable, "-m", "pytest", "-c", "pytest.ini", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "tests/with_feast"], cwd=root, capture_output=True, text=True)
    assert "test_feast" not in done.stdout and "error" not in done.stdout.lower().replace("0 error", ""), done.stdout
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, (done.returncode, done.stdout, done.stderr)


def test_the_pins_of_feast_agree_with_its_extra(root):
    lines = (root / "constraints-feast.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split(" ;")[0].split("==") for line in lines)
    assert pins["feast"].startswith("0.67.") and pins["pandas"].startswith("2.") and {"redis", "pytest"} <= set(pins)
