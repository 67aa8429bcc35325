"""Feast answers as the store does, in the past and now; each safeguard is seen to fail when it should."""

import os
import subprocess
import sys
from pathlib import Path

import feast
import numpy as np
import pandas as pd
import pytest
from histories import DAY, END, START, questions, visits

from lensnb import remote
from lensnb.features import FEATURES
from lensnb.remote import VIEW, FeastSource
from lensnb.schema import SIZES_MM, InputError
from lensnb.store import FeatureSource, Store

NAMES = list(FEATURES)


def same(ours: dict, theirs: dict) -> None:
    assert list(ours) == list(theirs)
    for name in ours:
        assert theirs[name].dtype == np.float64 and ours[name].tobytes() == theirs[name].tobytes(), name


# The past


@pytest.mark.parametrize("how", [{}, {"ttl_days": 30}, {"size_mm": 13.2}], ids=str)
def test_offline_is_exactly_the_store(store, source, how):
    asked = questions(store, 3000)
    ours = store.historical(asked, NAMES, **how)
    pd.testing.assert_frame_equal(source.historical(asked, NAMES, **how), ours, check_exact=True)
    assert 0 < ours["ata_mm"].isna().sum() < len(asked)


def test_no_row_is_lost_and_none_doubled(store, sqlite):
    """Eyes without an answer, unknown eyes and questions asked twice all come back, in their order."""
    asked = pd.DataFrame({"eye_id": ["nobody", store.blank, "eye-00001-x", "nobody", "eye-00001-x"],
                          "as_of": [START + 99 * DAY] * 5}, index=[4, 9, 1, 0, 2])
    found = sqlite.historical(asked, ["ata_mm"])
    assert found.index.tolist() == asked.index.tolist() and found["eye_id"].tolist() == asked["eye_id"].tolist()
    assert found["ata_mm"].isna().tolist()[:2] == [True, True]
    assert len(sqlite.historical(asked.iloc[:0], ["ata_mm"])) == 0


def test_the_default_offline_store_loses_rows_and_is_refused(store, tmp_path, monkeypatch):
    """Why duckdb is forced. When Feast's default (dask) keeps every row, this fails, and the reason is gone."""
    plain = remote.settings
    monkeypatch.setattr(remote, "settings", lambda *a: {**plain(*a), "offline_store": {"type": "dask"}})
    source = FeastSource(tmp_path)
    source.publish(store)
    names = sorted(store.history()["eye_id"].unique())
    asked = pd.DataFrame({"eye_id": names, "as_of": START + 10 * DAY})
    with pytest.raises(InputError, match="lost rows"):
        source.historical(asked, ["ata_mm"])


def test_the_join_drops_columns_that_end_in_y(store, tmp_path, monkeypatch):
    """Why `age_y` has another name in Feast. When this fails, it can have its own again."""
    monkeypatch.setattr(remote, "feast_name", lambda column: column)
    source = FeastSource(tmp_path)
    source.publish(store)
    with pytest.raises(Exception, match="age_y"):
        source.historical(questions(store, 3), ["age_y"])


# A late correction


def raw_answer(source, asked: pd.DataFrame, **options) -> pd.DataFrame:
    """What Feast says without the adapter."""
    entities = asked.assign(event_timestamp=asked["as_of"].dt.tz_localize("UTC")).drop(columns="as_of")
    refs = [f"{VIEW}:{c}" for c in ("ata_mm", "known_us")]
    table = source.feast.get_historical_features(entity_df=entities, features=refs, **options).to_df()
    return table.set_index("eye_id").loc[asked["eye_id"]]


def test_a_late_correction_leaks_unless_feast_is_asked_not_to(store, sqlite):
    asked = pd.DataFrame({"eye_id": sorted(store.late), "as_of": START + 50 * DAY})
    limit = (START + 50 * DAY).value // 1000
    leaky, honest = raw_answer(sqlite, asked), raw_answer(sqlite, asked, filter_by_created_timestamp=True)
    assert (leaky["known_us"] > limit).all(), "Feast asks by itself now: the option can go"
    assert (honest["known_us"] <= limit).all()
    ours = store.historical(asked, ["ata_mm"])["ata_mm"].to_numpy()
    assert honest["ata_mm"].to_numpy().tobytes() == ours.tobytes() != leaky["ata_mm"].to_numpy().tobytes()


def test_the_adapter_notices_the_leak(store, sqlite, monkeypatch):
    """The option is taken away behind the adapter's back."""
    ask = sqlite.feast.get_historical_features
    monkeypatch.setattr(sqlite.feast, "get_historical_features",
                        lambda filter_by_created_timestamp, **rest: ask(**rest))
    asked = pd.DataFrame({"eye_id": sorted(store.late), "as_of": START + 50 * DAY})
    with pytest.raises(InputError, match="row of later"):
        sqlite.historical(asked, ["ata_mm"])


def corrected_store(folder) -> Store:
    store = Store(folder, create=True)
    row = visits(np.random.default_rng(0), ["eye-1-x"], 0)
    store.add(row.assign(ata_mm=11.4), START + 20 * DAY)
    store.add(row.assign(ata_mm=11.9), START + 60 * DAY)
    return store


def test_feasts_own_materialize_leaks_and_ours_does_not(tmp_path):
    store, source = corrected_store(tmp_path / "eyes"), FeastSource(tmp_path / "feast")
    source.publish(store)
    before = START + 50 * DAY
    source.feast.materialize(pd.Timestamp("2000-01-01").to_pydatetime(), before.tz_localize("UTC").to_pydatetime())
    assert source.online("eye-1-x")["ata_mm"][0] == 11.9, "Feast asks by itself now: its materialize could be used"
    source.materialize(before)
    assert source.online("eye-1-x")["ata_mm"][0] == 11.4


@pytest.mark.parametrize("online", ["sqlite", "redis"])
def test_a_correction_arrives_online(online, tmp_path, request):
    where = None
    if online == "redis":
        where = {"type": "redis", "connection_string": f"127.0.0.1:{request.getfixturevalue('redis_port')},db=1"}
    store, source = corrected_store(tmp_path / "eyes"), FeastSource(tmp_path / "feast", where)
    source.publish(store)
    for day, value in ((50, 11.4), (70, 11.9)):
        assert source.materialize(START + day * DAY) == store.materialize(START + day * DAY) == 1
        assert source.online("eye-1-x")["ata_mm"][0] == store.online("eye-1-x")["ata_mm"][0] == value
    with pytest.raises(InputError, match="Later rows are online"):
        source.materialize(START + 50 * DAY)


def test_redis_skips_a_correction_of_the_same_day_unless_told(tmp_path, redis_port, monkeypatch):
    """Why `skip_dedup` is set: the event time of a corrected examination is the one it had before."""
    plain, where = remote.settings, {"type": "redis", "connection_string": f"127.0.0.1:{redis_port},db=2"}
    store, seen = corrected_store(tmp_path / "eyes"), {}
    rows = remote.states(store).query("event == event.min()").sort_values("created")
    for skip in (False, True):
        def chosen(*a, skip=skip):
            return {**plain(*a), "online_store": {**plain(*a)["online_store"], "skip_dedup": skip}}
        monkeypatch.setattr(remote, "settings", chosen)
        source = FeastSource(tmp_path / f"feast-{skip}", where)
        source.publish(store)
        for _, row in rows.iterrows():
            table = row.to_frame().T.infer_objects().rename(columns=remote.feast_name)
            source.feast.write_to_online_store(VIEW, df=table)
        seen[skip] = source.online("eye-1-x")["ata_mm"][0]
    assert seen == {False: 11.4, True: 11.9}


# Now


def test_online_is_exactly_the_store_and_offline(store, source):
    eyes = sorted(store.history()["eye_id"].unique())
    past = source.historical(pd.DataFrame({"eye_id": eyes, "as_of": END}), NAMES, size_mm=SIZES_MM[1])
    for eye, row in zip(eyes, past[NAMES].to_numpy()):
        ours, theirs = store.online(eye), source.online(eye)
        same(ours, theirs)
        assert np.array([theirs[n][1] for n in NAMES]).tobytes() == row.tobytes()


def test_an_examination_after_surgery_feeds_nothing(store, source):
    first = START + 65 * DAY
    eyes = sorted(store.trap)
    late = source.historical(pd.DataFrame({"eye_id": eyes, "as_of": END}), NAMES)
    before = source.historical(pd.DataFrame({"eye_id": eyes, "as_of": first + 0.5 * DAY}), NAMES)
    pd.testing.assert_frame_equal(late[NAMES], before[NAMES])
    assert late["ata_mm"].notna().any()
    for i, eye in enumerate(eyes[:20]):
        assert source.online(eye, names=["ata_mm"])["ata_mm"][0] == pytest.approx(late["ata_mm"].iloc[i], nan_ok=True)


def test_an_unknown_eye_is_not_a_blank_one(store, source):
    for asked in (store, source):
        with pytest.raises(InputError, match="not in the store"):
            asked.online("nobody")
        assert np.isnan(asked.online(store.blank)["ata_mm"]).all()
    request = {"ata_mm": 11.7, "acd_mm": 3.1}
    same(store.online("nobody", request), source.online("nobody", request))
    assert source.online("nobody", request)["compression_mm"].round(2).tolist() == [0.4, 0.9, 1.5, 2.0]


def test_a_request_stands_above_the_stored_row(store, source):
    eye = "eye-00003-x"
    same(store.online(eye, {"ata_mm": 11.11}, ["compression_mm", "acd_mm"]),
         source.online(eye, {"ata_mm": 11.11}, ["compression_mm", "acd_mm"]))
    for asked in (store, source):
        for bad in ({"ata_mm": 11700.0}, {"ata_mm": "11.7"}, {"vault_um": 500.0}):
            with pytest.raises(InputError):
                asked.online(eye, bad)


# The definitions


def test_the_registry_says_what_the_definitions_say(sqlite):
    told, view = remote.definitions(), sqlite.feast.get_feature_view(VIEW)
    types = {f["name"]: f["dtype"].lower() for f in told["fields"]}
    assert {f.name: str(f.dtype).lower() for f in view.features} == types
    assert {f.name: f.tags["unit"] for f in view.features} == {f["name"]: f["unit"] for f in told["fields"]}
    tags = {k.removeprefix("feature."): v for k, v in view.tags.items() if k.startswith("feature.")}
    assert tags == {f["name"]: f["fingerprint"] for f in told["features"]}
    assert [e.name for e in sqlite.feast.list_entities() if e.name != "__dummy"] == [told["entity"]]
    assert isinstance(sqlite, FeatureSource)


def test_a_new_feature_needs_publishing_again(store, tmp_path, monkeypatch):
    source = FeastSource(tmp_path)
    source.publish(store)
    source.materialize(END)
    source.publish(store)
    assert remote.last_materialized(source) == pd.Timestamp(END), "publishing forgets what was materialized"
    monkeypatch.setattr(remote, "layout", lambda: "0123456789abcdef")
    with pytest.raises(InputError, match="Another release published"):
        source.historical(questions(store, 3), ["ata_mm"])
    with pytest.raises(InputError, match="Another release materialized"):
        source.online("eye-00003-x")
    source.publish(store)
    source.materialize(END)
    assert len(source.online("eye-00003-x")) == len(FEATURES)


def test_nothing_published_and_nothing_materialized_say_so(store, tmp_path):
    source = FeastSource(tmp_path)
    for ask in (lambda: source.historical(questions(store, 3), ["ata_mm"]), lambda: source.materialize(END)):
        with pytest.raises(InputError, match="Nothing was published"):
            ask()
    source.publish(store)
    with pytest.raises(InputError, match="not in the store"):
        source.online("eye-00003-x")


def test_an_empty_store_has_no_answers(tmp_path):
    empty, source = Store(tmp_path / "eyes", create=True), FeastSource(tmp_path / "feast")
    assert source.publish(empty) == 0 and source.materialize(END) == 0
    found = source.historical(pd.DataFrame({"eye_id": ["nobody"], "as_of": [END]}), NAMES)
    assert len(found) == 1 and found[NAMES].isna().all(axis=None)


# The machine


def test_the_time_zone_of_the_machine_changes_nothing(tmp_path):
    """A machine in Seoul, asked an hour before the correction arrived, at that moment, and an hour later."""
    code = """if True:
        import sys, pandas as pd
        from pathlib import Path
        from test_feast import corrected_store
        from histories import DAY, START
        from lensnb.remote import FeastSource
        here = Path(sys.argv[1])
        source = FeastSource(here / "feast")
        source.publish(corrected_store(here / "eyes"))
        hours = [START + 60 * DAY + pd.Timedelta(hours=h) for h in (-1, 0, 1)]
        asked = pd.DataFrame({"eye_id": "eye-1-x", "as_of": hours})
        print(source.historical(asked, ["ata_mm"])["ata_mm"].tolist())
        source.materialize(hours[0])
        print(source.online("eye-1-x")["ata_mm"][0])"""
    here = Path(__file__).parent
    paths = [str(here.parent), str(here), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "TZ": "Asia/Seoul", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], env=env, capture_output=True,
                          text=True)
    assert done.stdout.split("\n")[:2] == ["[11.4, 11.9, 11.9]", "11.4"], (done.stdout, done.stderr[-2000:])


def test_nothing_private_is_in_what_feast_keeps(sqlite):
    """Feast gets pseudonyms, numbers and moments: no patient, no clinic, no vault."""
    rows = pd.read_parquet(sqlite.rows)
    assert not {"patient_id", "clinic_id", "vault_um", "surgery_date"} & set(rows.columns)
    assert set(rows.columns) == {"eye_id", "event", "created", *(f["name"] for f in remote.definitions()["fields"])}


def test_no_network_guard_works():
    import socket
    with pytest.raises(AssertionError, match="was tried"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    assert os.environ["FEAST_USAGE"] == "False" and feast.__version__.startswith("0.67.")
