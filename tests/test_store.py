"""The store: one answer for one moment, on both roads, whoever is killed meanwhile."""

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from multiprocessing import get_context
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import stores

from lensnb.batches import all_batches, read_rows
from lensnb.features import FEATURES, feature
from lensnb.ledger import connect
from lensnb.schema import SIZES_MM, InputError
from lensnb.store import FeatureSource, Store, online_rows, serve

NAMES = list(FEATURES)
COLUMNS = ["ata_mm", "clr_um", "lt_mm", "acd_mm", "cct_um", "k_d", "aca_deg", "wtw_mm"]
children = get_context("forkserver")
children.set_forkserver_preload(["pandas", "pyarrow.parquet", "duckdb", "pandera.pandas", "lensnb.store", "stores"])


def rows(*records, **attrs):
    frame = pd.DataFrame(records)
    for c in frame.columns.intersection(["exam_date", "surgery_date"]):
        frame[c] = pd.to_datetime(frame[c])
    frame.attrs = attrs
    return frame


def exam(day, **values):
    return dict(eye_id="e", exam_date=day, **values)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", create=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Three hundred eyes with everything that can happen, in a store, and their rows as a plain list."""
    arrivals = stores.arrivals(250, seed=5)
    store = stores.filled(tmp_path_factory.mktemp("world") / "store", arrivals, every_days=60)
    stored = pd.concat([read_rows(p) for p in all_batches(store.folder)])
    return store, arrivals, {eye: part.to_dict("records") for eye, part in stored.groupby("eye_id")}


def ask(store, *moments, names=("ata_mm",), eye="e", **options):
    entities = pd.DataFrame({"eye_id": eye, "as_of": list(moments)})
    return store.historical(entities, names, **options)[list(names)].squeeze("columns")


# What was known


def test_a_second_opinion_row_by_row(world):
    store, arrivals, stored = world
    asked = stores.questions(arrivals, 1500, seed=1)
    got = store.historical(asked, COLUMNS)
    expected = pd.DataFrame(
        [stores.slow_answer(stored.get(e, []), COLUMNS, t) for e, t in zip(asked["eye_id"], asked["as_of"])]
    )
    np.testing.assert_array_equal(got[COLUMNS].to_numpy(), expected[COLUMNS].to_numpy())
    assert 0.2 < expected["ata_mm"].notna().mean() < 0.9, "a test of nothing"


def test_the_second_opinion_notices_a_leak(world):
    """With everything known from the start the answers differ: the test above could have failed."""
    store, arrivals, stored = world
    asked = stores.questions(arrivals, 600, seed=1)
    got = store.historical(asked, COLUMNS)[COLUMNS].to_numpy()
    leaky = {e: [dict(r, created=r["event"]) for r in part] for e, part in stored.items()}
    answers = pd.DataFrame(
        [stores.slow_answer(leaky.get(e, []), COLUMNS, t) for e, t in zip(asked["eye_id"], asked["as_of"])]
    )
    assert (pd.DataFrame(got).ne(answers[COLUMNS].to_numpy()) & answers[COLUMNS].notna().to_numpy()).any(axis=None)


def test_a_late_correction_changes_no_earlier_answer(store):
    store.add(rows(exam("2026-01-10", ata_mm=12.2)), "2026-01-12")
    before = ask(store, "2026-02-01", "2026-04-01")
    store.add(rows(exam("2026-01-10", ata_mm=11.8)), "2026-03-20")
    after = ask(store, "2026-02-01", "2026-04-01")
    assert before.tolist() == [12.2, 12.2] and after.tolist() == [12.2, 11.8]


def test_an_examination_counts_when_it_happened_and_was_heard_of(store):
    store.add(rows(exam("2026-01-10", ata_mm=12.2)), "2026-01-12T08:00:00")
    known = ask(store, "2026-01-10", "2026-01-12T07:59:59", "2026-01-12T08:00:00")
    assert known.isna().tolist() == [True, True, False]
    store.add(rows(dict(eye_id="f", exam_date=pd.Timestamp("2026-06-01"), ata_mm=12.0)), "2026-01-13")
    assert ask(store, "2026-02-01", eye="f").isna().all(), "an examination of next June is not known in February"


@pytest.mark.parametrize("same_row", [True, False])
def test_a_row_measured_after_surgery_feeds_nothing(store, same_row):
    surgery = dict(surgery_date="2026-02-10", size_mm=13.2)
    first = exam("2026-01-10", acd_mm=3.2, **(surgery if same_row else {}))
    store.add(rows(first, *([] if same_row else [dict(eye_id="e", **surgery)])), "2026-02-11")
    store.add(rows(exam("2026-03-05", acd_mm=2.6, ata_mm=12.2, vault_um=640.0)), "2026-03-06")
    assert ask(store, "2026-03-10", names=["acd_mm"]).item() == 3.2
    assert np.isnan(ask(store, "2026-03-10", names=["ata_mm"]).item())
    store.materialize("2026-03-10")
    assert store.online("e", names=["acd_mm"])["acd_mm"].tolist() == [3.2] * 4
    assert store.eyes()["acd_mm"].tolist() == [3.2] and store.eyes()["vault_um"].tolist() == [640.0]


def test_a_batch_without_the_surgery_does_not_undo_it(store):
    store.add(rows(exam("2026-01-10", acd_mm=3.2, surgery_date="2026-02-10")), "2026-02-11")
    store.add(rows(exam("2026-01-10", acd_mm=3.3)), "2026-02-20")
    store.add(rows(exam("2026-03-05", acd_mm=2.6)), "2026-03-06")
    assert ask(store, "2026-03-10", names=["acd_mm"]).item() == 3.3


def test_only_the_plan_of_a_surgery_is_no_examination(store):
    store.add(rows(exam("2026-01-10", ata_mm=12.2, size_mm=12.6)), "2026-01-11")
    store.add(rows(dict(eye_id="e", surgery_date="2026-02-10", size_mm=13.2, icl_se_d=-9.0)), "2026-02-11")
    assert ask(store, "2026-03-01").item() == 12.2


def test_two_instruments_of_one_day_are_one_examination(store):
    store.add(rows(exam("2026-01-10", acd_mm=3.2, k_d=44.0, device="Pentacam")), "2026-01-11")
    store.add(rows(exam("2026-01-10", ata_mm=12.2, device="CASIA2")), "2026-01-12")
    both = ask(store, "2026-02-01", names=["acd_mm", "k_d", "ata_mm"])
    assert both.iloc[0].tolist() == [3.2, 44.0, 12.2]
    store.add(rows(exam("2026-01-10", acd_mm=3.1, device="Pentacam")), "2026-01-13")
    now = ask(store, "2026-02-01", names=["acd_mm", "k_d", "ata_mm"]).iloc[0]
    assert now.tolist()[::2] == [3.1, 12.2] and np.isnan(now["k_d"]), "a corrected row replaces the whole row"


def test_an_older_day_does_not_fill_the_gaps_of_a_newer_one(store):
    store.add(rows(exam("2025-01-10", acd_mm=3.2, ata_mm=12.2), exam("2026-01-10", acd_mm=3.1)), "2026-01-11")
    visit = ask(store, "2026-02-01", names=["acd_mm", "ata_mm"]).iloc[0]
    assert visit["acd_mm"] == 3.1 and np.isnan(visit["ata_mm"])


def test_ties_are_decided_by_batch_and_row_however_they_lie(tmp_path):
    same = [exam("2026-01-10", ata_mm=v) for v in (12.1, 12.2)]
    for name, tables, expected in (("a", [same], 12.2), ("b", [same[::-1]], 12.1), ("c", [same[1:], same[:1]], 12.1)):
        store = Store(tmp_path / name, create=True)
        for table in tables:
            store.add(rows(*table), "2026-01-11")
        assert {ask(Store(store.folder), "2026-01-11").item() for _ in range(3)} == {expected}


def test_what_is_too_old_is_missing_and_the_row_stays(store):
    store.add(rows(exam("2026-01-10", ata_mm=12.2)), "2026-01-11")
    moments = ["2026-01-20", "2026-02-09", "2026-02-09T00:00:01"]
    assert ask(store, *moments, ttl_days=30).notna().tolist() == [True, True, False]
    assert ask(store, *moments).notna().all()
    for ttl in (0, -1, float("nan")):
        with pytest.raises(InputError, match="ttl_days"):
            ask(store, *moments, ttl_days=ttl)


def test_every_question_is_answered_in_its_order(world):
    store, arrivals, _ = world
    asked = stores.questions(arrivals, 200, seed=3)
    asked.index = np.random.default_rng(0).permutation(200) + 1000
    twice = pd.concat([asked, asked])
    got = store.historical(twice, NAMES)
    assert list(got.index) == list(twice.index) and got["eye_id"].tolist() == twice["eye_id"].tolist()
    np.testing.assert_array_equal(got[NAMES].to_numpy()[:200], got[NAMES].to_numpy()[200:])
    assert got.loc[(got["eye_id"] == "p-nobody").to_numpy(), NAMES].isna().all(axis=None)
    assert store.historical(asked.iloc[:0], NAMES).shape == (0, 2 + len(NAMES))


def test_questions_without_a_clear_moment_are_refused(store):
    store.add(rows(exam("2026-01-10", ata_mm=12.2)), "2026-01-11")
    zoned = pd.Series(pd.to_datetime(["2026-02-01"])).dt.tz_localize("Asia/Seoul")
    for as_of in (zoned, ["2026-02-01T00:00Z"], ["01/02/2026"], [None], [pd.NaT], [20260201]):
        with pytest.raises(InputError, match="as_of"):
            store.historical(pd.DataFrame({"eye_id": ["e"], "as_of": as_of}), ["ata_mm"])
    with pytest.raises(InputError, match="no column `eye_id`"):
        store.historical(pd.DataFrame({"as_of": ["2026-02-01"]}), ["ata_mm"])
    for call in (lambda t: store.add(rows(exam("2026-01-10")), t), store.materialize, store.eyes):
        with pytest.raises(InputError, match="UTC"):
            call("2026-02-01T00:00+01:00")


def test_the_states_answer_like_the_store(world):
    store, arrivals, _ = world
    states, columns = store.history(), COLUMNS
    asked = stores.questions(arrivals, 400, seed=9, strangers=0)
    joined = asked.reset_index().merge(states, on="eye_id")
    then = joined[(joined["event"] <= joined["as_of"]) & (joined["created"] <= joined["as_of"])]
    last = then.sort_values(["event", "created"]).drop_duplicates("index", keep="last").set_index("index")
    expected = last[columns].reindex(asked.index).to_numpy()
    np.testing.assert_array_equal(store.historical(asked, columns)[columns].to_numpy(), expected)


# Both roads


def test_both_roads_are_equal_to_the_last_bit(world):
    store, arrivals, _ = world
    for as_of in ("2025-04-01", "2025-07-15T12:00:00", "2026-06-01"):
        store.materialize(as_of)
        known = [eye for eye, _ in online_rows(store, as_of)]
        assert len(known) > 30
        online = {eye: store.online(eye) for eye in known}
        for i, size in enumerate(SIZES_MM):
            offline = store.historical(pd.DataFrame({"eye_id": known, "as_of": as_of}), NAMES, size_mm=size)
            at_once = np.array([[online[e][n][i] for n in NAMES] for e in known])
            np.testing.assert_array_equal(offline[NAMES].to_numpy(), at_once)


def test_a_feature_added_later_is_on_both_roads_or_on_none(world, monkeypatch):
    store = world[0]
    store.materialize("2026-06-01")
    for name in list(FEATURES):
        monkeypatch.setitem(FEATURES, name, FEATURES[name])

    def depth_share(eyes):
        return eyes["acd_mm"] / eyes["al_mm"]

    monkeypatch.setitem(FEATURES, "depth_share", None)
    feature("", ["acd_mm", "al_mm"])(depth_share)
    with pytest.raises(InputError, match="lack `al_mm`.*another release"):
        Store(store.folder).online("p-000001-OD")
    monkeypatch.delitem(FEATURES, "depth_share")


def test_rows_of_another_layout_are_noticed_on_an_open_connection(tmp_path, monkeypatch):
    store = Store(tmp_path / "store", create=True)
    store.add(rows(exam("2026-01-10", ata_mm=12.2)), "2026-01-11")
    store.materialize("2026-01-11")
    reader = Store(store.folder)
    assert reader.online("e", names=["ata_mm"])["ata_mm"][0] == 12.2
    monkeypatch.delitem(FEATURES, "k_d")
    monkeypatch.setitem(FEATURES, "k_d", FEATURES["cct_um"])  # another order of columns
    store.materialize("2026-01-11")
    assert reader.online("e", names=["ata_mm"])["ata_mm"][0] == 12.2, "looked once more"
    with closing(connect(store.folder / "online.sqlite")) as db:
        db.execute("UPDATE eyes SET cells = zeroblob(96)")
    with pytest.raises(InputError, match="does not fit its columns"):
        reader.online("e")


def test_an_unknown_eye_has_no_features_unless_described(store):
    for materialized in (False, True):
        if materialized:
            store.add(rows(exam("2026-01-10", ata_mm=12.2)), "2026-01-11")
            store.materialize("2026-01-11")
        for request in (None, {}):
            with pytest.raises(InputError, match="not in the store"):
                store.online("stranger", request)
        four = store.online(
            "stranger", dict(ata_mm=12.0, eye="OD", size_mm=13.2), ["compression_mm", "size_mm", "acd_mm"]
        )
        np.testing.assert_allclose(four["compression_mm"], np.array(SIZES_MM) - 12.0)
        assert four["size_mm"].tolist() == list(SIZES_MM) and np.isnan(four["acd_mm"]).all()


def test_the_request_stands_above_the_store_and_is_checked(store):
    store.add(rows(exam("2026-01-10", ata_mm=12.2, acd_mm=3.2)), "2026-01-11")
    store.materialize("2026-01-11")
    four = store.online("e", dict(ata_mm=12.0, acd_mm=None), ["ata_mm", "acd_mm"])
    assert four["ata_mm"].tolist() == [12.0] * 4 and four["acd_mm"].tolist() == [3.2] * 4
    assert store.online("e", names=["ata_mm"])["ata_mm"].tolist() == [12.2] * 4, "nothing was kept of it"
    for bad in (dict(vault_um=600), dict(ata_mm=122.0), dict(ata_mm="12.0"), dict(ata_mm=True), dict(ata=12.0)):
        with pytest.raises(InputError):
            store.online("e", bad)


def test_serve_is_the_door_for_tables(world):
    store = world[0]
    table = store.eyes()
    served = serve(table, ["ata_mm", "compression_mm"], size_mm=13.2)
    np.testing.assert_array_equal(served["compression_mm"], 13.2 - table["ata_mm"])
    assert isinstance(store, FeatureSource)


def test_threads_and_forks_read_alike(world):
    store = world[0]
    store.materialize("2026-06-01")
    eye = online_rows(store, "2026-06-01")[0][0]
    expected, seen = store.online(eye)["acd_mm"], []

    def read():
        seen.extend(np.array_equal(store.online(eye)["acd_mm"], expected, equal_nan=True) for _ in range(50))

    readers = [Thread(target=read) for _ in range(4)]
    for r in readers:
        r.start()
    for r in readers:
        r.join()
    assert seen == [True] * 200


# What a model learns from


def test_a_file_comes_back_as_the_same_table(store):
    import lensnb

    sent = lensnb.synthetic_clinics().eyes
    sent = sent[sent["clinic_id"].isin(["alder", "birch"])].reset_index(drop=True)
    store.add(sent, "2027-01-01")
    got = store.eyes()
    assert len(got) == len(sent) and got.attrs["linkage"] == "given"
    shared = [c for c in sent if c in got]
    assert set(sent.columns) - set(shared) == {c for c in sent if sent[c].isna().all()}
    order = ["eye_id", "surgery_date"]
    left, right = (t.sort_values(order, ignore_index=True)[shared].astype(object) for t in (sent, got))
    assert (left.eq(right) | (left.isna() & right.isna())).all(axis=None)


def test_a_model_can_be_fitted_on_the_store(store):
    import lensnb
    from lensnb.cohort import link_patients
    from lensnb.sizing import teaching_eyes

    eyes = lensnb.synthetic_clinics().of("alder").eyes.reset_index(drop=True)
    late = ["vault_um", "vault_day", "vault_device"]
    store.add(eyes.drop(columns=late), "2027-01-01")
    store.add(eyes[["eye_id", "surgery_date", "size_mm", *late]].dropna(subset=["vault_um"]), "2027-02-01")
    whole, apart = teaching_eyes(link_patients(eyes)), teaching_eyes(store.eyes())
    assert whole.attrs["flow"] == apart.attrs["flow"]
    left, right = (
        t.sort_values("eye_id", ignore_index=True)[["eye_id", "vault_um", *COLUMNS[3:]]] for t in (whole, apart)
    )
    pd.testing.assert_frame_equal(left.astype(object), right.astype(object))
    assert lensnb.SizingModel(n_splits=2).fit(store.eyes()).parts.training["eyes"] == len(whole) > 100
    assert store.eyes("2027-01-15").get("vault_um") is None, "no vault had been heard of"


def test_two_lenses_of_one_eye_are_an_exchange(store):
    dated = [
        exam("2026-01-10", ata_mm=12.2, surgery_date=d, size_mm=s, vault_um=v, vault_day=40.0, patient_id="p")
        for d, s, v in (("2026-02-01", 13.7, 1300.0), ("2026-05-01", 13.2, 700.0))
    ]
    undated = [
        dict(eye_id="u", patient_id="q", ata_mm=12.0, size_mm=s, vault_um=v) for s, v in ((13.7, 1200.0), (13.2, 650.0))
    ]
    store.add(rows(*dated, *undated), "2026-07-01")
    got = store.eyes()
    assert got["record"].tolist() == ["exchange"] * 4 and got["size_mm"].tolist() == [13.7, 13.2, 13.2, 13.7]
    assert got["vault_um"].tolist() == [1300, 700, 650, 1200] and got["ata_mm"].tolist() == [12.2, 12.2, 12.0, 12.0]


def test_a_corrected_surgery_date_is_one_surgery(store):
    for day, now in (("2026-02-01", "2026-02-02"), ("2026-02-03", "2026-02-09")):
        store.add(rows(exam("2026-01-10", ata_mm=12.2, surgery_date=day, size_mm=13.2)), now)
    assert store.eyes()["surgery_date"].tolist() == [pd.Timestamp("2026-02-03")]
    assert store.eyes("2026-02-05")["surgery_date"].tolist() == [pd.Timestamp("2026-02-01")]


def test_vaults_of_other_weeks_are_kept_and_one_is_chosen(store):
    store.add(rows(exam("2026-01-10", ata_mm=12.2, surgery_date="2026-02-01", size_mm=13.2)), "2026-02-02")
    for day, vault, now in (
        (1.0, 800.0, "2026-02-03"),
        (7.0, 700.0, "2026-02-09"),
        (35.0, 600.0, "2026-03-09"),
        (90.0, 500.0, "2026-05-09"),
        (35.0, 610.0, "2026-06-01"),
    ):
        store.add(rows(dict(eye_id="e", surgery_date="2026-02-01", vault_um=vault, vault_day=day)), now)
    assert sorted(store.outcomes()["vault_um"]) == [500, 610, 700, 800], "the corrected one once"
    chosen = {t: store.eyes(t)["vault_um"].item() for t in ("2026-02-05", "2026-02-20", "2026-03-20", "2026-07-01")}
    assert list(chosen.values()) == [800, 700, 600, 610]


def anonymous(frame, sha256="12" * 32):
    frame.attrs = dict(
        intake=dict(sha256=sha256, received=len(frame), accepted=len(frame), quarantined=0, anonymous=True),
        rows=[*range(2, len(frame) + 2)],
    )
    return frame


def nameless(n, seed=0):
    """Rows of a source without patients: neighbours with the same age are fellow eyes."""
    rng = np.random.default_rng(seed)
    eyes = stores.measured(rng, n, [*stores.PENTACAM, *stores.CASIA], gaps=0)
    pair = np.arange(n) // 2
    eyes[["wtw_mm", "cct_um"]] = eyes.loc[pair * 2, ["wtw_mm", "cct_um"]].to_numpy()
    eyes["age_y"] = (21.0 + pair % 25).astype(float)
    eyes["size_mm"], eyes["vault_um"] = rng.choice([12.6, 13.2], n), np.round(rng.uniform(200, 900, n), -1)
    eyes.insert(0, "eye_id", [f"eye-{i:05d}" for i in range(2, n + 2)])
    return eyes


def test_an_anonymous_file_is_linked_as_if_it_had_been_read(store):
    from lensnb.cohort import link_patients

    sent = anonymous(nameless(40))
    store.add(sent.copy(), "2026-01-11")
    read, got = link_patients(sent.drop(columns=[])), store.eyes()
    assert got.attrs["linkage"] == "inferred" and read["patient_id"].nunique() == 20
    assert got["patient_id"].tolist() == ["12121212-" + p for p in read["patient_id"]]
    for c in (*COLUMNS, "vault_um", "record"):
        assert got[c].tolist() == read[c].tolist()


def test_linked_eyes_of_an_anonymous_file_are_stored_unlinked(store):
    from lensnb.cohort import link_patients

    linked = link_patients(anonymous(nameless(10)))
    store.add(linked, "2026-01-11")
    assert "patient_id" not in read_rows(all_batches(store.folder)[0])
    assert store.eyes()["patient_id"].nunique() == 5


def test_an_exchanged_lens_in_an_anonymous_file_is_found_again(store):
    from lensnb.cohort import link_patients

    frame = nameless(6)
    frame.loc[5, ["age_y", *COLUMNS]] = frame.loc[0, ["age_y", *COLUMNS]]
    frame.loc[[0, 5], "size_mm"] = [13.7, 13.2]
    sent = anonymous(frame)
    store.add(sent.copy(), "2026-01-11")
    got = store.eyes()
    assert got["record"].tolist() == link_patients(sent.copy())["record"].tolist()
    assert (got["record"] == "exchange").sum() == 2 and got["eye_id"].nunique() == 5
    assert not store.add(link_patients(sent.copy()), "2026-01-12").new, "the same file, linked before"


def test_anonymous_files_do_not_mix(store):
    sent = [nameless(20, seed=s) for s in range(2)]
    for i, frame in enumerate(sent):
        store.add(anonymous(frame, f"{i + 1}0" * 32), "2026-01-11")
    store.add(rows(exam("2026-01-10", ata_mm=12.2, patient_id="p", vault_um=500.0)), "2026-01-12")
    extract = pd.concat([sent[0].iloc[4:8], nameless(4, seed=9)], ignore_index=True)
    extract["eye_id"] = [f"eye-{i:05d}" for i in range(2, 10)]
    store.add(anonymous(extract, "30" * 32), "2026-01-13")
    got = store.eyes()
    assert len(got) == 45 and got["eye_id"].is_unique and got.attrs["linkage"] == "mixed"
    assert (got.groupby("patient_id").size() == 2).sum() == 22


def test_a_table_whose_eyes_are_numbered_by_row_is_refused(store):
    for eye in ("patient-00002-OD", "eye-00007", "patient-00012"):
        facts = dict(sha256="ab" * 32, received=1, accepted=1, quarantined=0, anonymous=False)
        with pytest.raises(InputError, match="numbered by their rows.*key"):
            store.add(rows(dict(eye_id=eye, ata_mm=12.0), intake=facts), "2026-01-11")
    with pytest.raises(InputError, match="no eye"):
        store.add(rows(dict(eye_id=None, ata_mm=12.0), dict(eye_id="a", ata_mm=12.0)), "2026-01-11")
    with pytest.raises(InputError, match="eye_id"):
        store.add(pd.DataFrame({"ata_mm": [12.0]}), "2026-01-11")
    assert not all_batches(store.folder) and store.ledger.verify() == 0


def test_nothing_is_dated_back(store):
    store.add(rows(exam("2026-01-10", ata_mm=12.2)), "2026-02-01")
    with pytest.raises(InputError, match="heard of later things"):
        store.add(rows(exam("2026-01-10", ata_mm=11.8)), "2026-01-15")
    store.add(rows(exam("2026-01-10", ata_mm=11.8)), "2026-02-01")


# Quarantine, ledger, tampering


def refused(store, now="2026-01-11"):
    good = rows(exam("2026-01-10", ata_mm=12.2, patient_id="p", eye="OD"))
    reasons = [dict(row=3, column="ata_mm", code="hard", value="119", message="...", severity="block", suggested=11.9)]
    good.attrs = dict(
        intake=dict(sha256="ab" * 32, profile="canonical", received=2, accepted=1, quarantined=1, anonymous=False),
        rows=[2],
        quarantine=reasons,
        held=[dict(row=3, eye_id="f", patient_id="p", eye="OS", ata_mm="119")],
    )
    return store.add(good, now)


def test_a_released_row_is_known_from_its_release_on(store):
    batch = refused(store)
    released = store.release(batch.id[:6], 3, {"ata_mm": "11.9"}, "dr a", "seen on the print-out", "2026-02-01")
    assert ask(store, "2026-01-31", "2026-02-01", eye="f").isna().tolist() == [True, False]
    line = list(store.ledger.entries("release"))[-1].payload
    assert line["id"] == released.id and line["release"]["who"] == "dr a" and line["release"]["batch"] == batch.id
    assert store.show()["released"].tolist() == [1, 0] and store.verify()["ok"].all()
    with pytest.raises(InputError, match="released before"):
        store.release(batch.id, 3, {"ata_mm": "11.9"}, "dr a", "seen on the print-out", "2026-02-02")
    for row, corrections, who in ((2, {}, "dr a"), (99, {}, "dr a")):
        with pytest.raises(InputError, match="no quarantined row"):
            store.release(batch.id, row, corrections, who, "seen on the print-out", "2026-02-02")
    with pytest.raises(InputError, match="no such batch"):
        store.release("zzzz", 3, {}, "dr a", "seen on the print-out", "2026-02-02")


def test_an_uncorrected_or_anonymous_release_changes_nothing(store):
    batch = refused(store)
    for corrections, who, why in (
        ({}, "dr a", "it is right, I think"),
        ({"ata_mm": "11.9"}, "", "seen on the print-out"),
    ):
        with pytest.raises(InputError):
            store.release(batch.id, 3, corrections, who, why, "2026-02-01")
    assert len(all_batches(store.folder)) == 1 and store.ledger.verify() == 1


def test_a_release_that_was_interrupted_is_finished(store, monkeypatch):
    batch = refused(store)
    monkeypatch.setattr(type(store.ledger), "append", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
    arguments = (batch.id, 3, {"ata_mm": "11.9"}, "dr a", "seen on the print-out", "2026-02-01")
    with pytest.raises(KeyboardInterrupt):
        store.release(*arguments)
    monkeypatch.undo()
    assert not store.verify()["ok"].all()
    store.release(*arguments)
    assert store.verify()["ok"].all() and len(all_batches(store.folder)) == 2


def test_predictions_are_written_down_with_their_definitions(store):
    store.add(rows(exam("2026-01-10", ata_mm=12.2)), "2026-01-11")
    store.materialize("2026-01-11")
    four = store.online("e")
    store.log_prediction("e", four, {"answer": "toss-up"}, "model 1", "2026-01-12")
    payload = list(store.ledger.entries("prediction"))[0].payload
    assert payload["features"]["ata_mm"] == [12.2] * 4 and payload["features"]["k_d"] == [None] * 4
    assert payload["definitions"].keys() == four.keys()


@pytest.mark.parametrize("name", ["rows.parquet", "reasons.parquet", "held.parquet", "manifest.json"])
def test_a_changed_batch_feeds_nobody(store, name):
    batch = refused(store)
    store.materialize("2026-01-11")
    raw = (batch.path / name).read_bytes()
    (batch.path / name).write_bytes(
        raw.replace(b'"received":2', b'"received":3') if name == "manifest.json" else raw[:-1]
    )
    report = Store(store.folder).verify()
    assert not report["ok"].all() and any(batch.id in f for f in report.loc[~report["ok"], "finding"])
    if name != "manifest.json":
        for call in (lambda s: s.eyes(), lambda s: s.materialize("2026-02-01"), lambda s: ask(s, "2026-02-01")):
            with pytest.raises(InputError, match="cannot be trusted"):
                call(Store(store.folder))


def test_a_removed_batch_and_a_foreign_one_are_noticed(store, tmp_path):
    batch = refused(store)
    other = Store(tmp_path / "other", create=True)
    foreign = other.add(rows(exam("2026-01-10", ata_mm=11.0)), "2026-01-11")
    shutil.copytree(foreign.path, store.folder / "batches" / foreign.id)
    shutil.rmtree(batch.path)
    words = " ".join(store.verify()["finding"])
    assert f"Batch `{batch.id}` stands in the ledger, its folder is gone" in words
    assert f"Batch `{foreign.id}` is not in the ledger" in words


def test_a_stale_or_edited_online_row_is_noticed(store):
    store.add(rows(exam("2026-01-10", ata_mm=12.2)), "2026-01-11")
    store.materialize("2026-01-11")
    assert store.verify()["ok"].all()
    store.add(rows(exam("2026-01-10", ata_mm=11.8)), "2026-01-11")
    report = store.verify()
    assert report.loc[~report["ok"], "check"].tolist() == ["online"]
    store.materialize("2026-01-11")
    assert store.verify()["ok"].all()


def test_other_folders_are_left_alone(tmp_path):
    with pytest.raises(InputError, match="no store"):
        Store(tmp_path / "none")
    (tmp_path / "letter.txt").touch()
    with pytest.raises(InputError, match="holds other files"):
        Store(tmp_path, create=True)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "batches").mkdir()
    assert Store(tmp_path / "half", create=True).show().empty, "an interrupted making is made up for"


# Killed, out of room, two at once


def finished(store, n, seed):
    """Whether the store holds exactly the rows that were sent."""
    sent = stores.arrivals(n, seed).drop(columns="arrives")
    kept = pd.concat([read_rows(p) for p in all_batches(store.folder)])
    keys = ["eye_id", "exam_date", "surgery_date", "device", "vault_day", *COLUMNS]
    left, right = (t[keys].sort_values(keys, ignore_index=True).astype(object) for t in (sent, kept))
    return len(sent) == len(kept) and (left.eq(right) | (left.isna() & right.isna())).all(axis=None)


def killed(target, args, after, rng):
    """Start a process, kill it at a random time within `after` seconds; whether it was still running."""
    child = children.Process(target=target, args=args, daemon=True)
    child.start()
    child.join(rng.uniform(0.05, after))
    running = child.is_alive()
    if running:
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    return running


def test_killed_while_adding(tmp_path):
    rng, folder, kills = random.Random(1), tmp_path / "store", 0
    while kills < 10 and killed(stores.add_all, (str(folder), 60, 2), 0.2 + 0.1 * kills, rng):
        kills += 1
        if (folder / "store.json").is_file():
            store = Store(folder)
            assert store.ledger.verify() <= len(all_batches(folder)) <= store.ledger.verify() + 1
            store.eyes()
    assert kills >= 5
    stores.add_all(str(folder), 60, 2)
    store = Store(folder)
    assert finished(store, 60, 2) and store.verify()["ok"].all()
    assert not list((folder / "batches").glob(".draft-*")), "the drafts of the dead are gone"


def test_killed_while_materializing_reading_goes_on(tmp_path):
    rng, moments = random.Random(2), ["2025-06-01", "2026-06-01"]
    store = stores.filled(tmp_path / "store", stores.arrivals(200, 3), every_days=90)
    store.materialize(moments[0])
    expected = {m: dict(online_rows(store, m)) for m in moments}
    reader, eye = Store(store.folder), "p-000001-OD"
    for _ in range(6):
        assert killed(stores.materialize_for_ever, (str(store.folder), moments), 0.8, rng)
        with closing(sqlite3.connect(store.folder / "online.sqlite")) as db:
            facts = dict(db.execute("SELECT name, value FROM facts"))
            found = dict(db.execute("SELECT eye_id, cells FROM eyes"))
        assert found == expected[facts["as_of"][1:11]], "one moment or the other, never a mixture"
        reader.online(eye)
    store.materialize(moments[1])
    assert store.verify()["ok"].all()


def test_two_writers_at_once(tmp_path):
    folder = tmp_path / "store"
    writers = [children.Process(target=stores.add_slice, args=(str(folder), 60, 4, i, 2)) for i in range(2)]
    same = children.Process(target=stores.add_slice, args=(str(folder), 60, 4, 0, 2))
    for w in (*writers, same):
        w.start()
    seen, store = [], None
    while any(w.is_alive() for w in (*writers, same)):
        if (folder / "store.json").is_file():
            store = store or Store(folder)
            seen.append(len(store.outcomes()))
        time.sleep(0.02)
    for w in (*writers, same):
        w.join()
        assert w.exitcode == 0
    store = Store(folder)
    assert finished(store, 60, 4) and store.verify()["ok"].all()
    numbers = [read_rows(p)["number"].iloc[0] for p in all_batches(folder)]
    assert numbers == [*range(1, len(numbers) + 1)] and store.ledger.verify() == len(numbers)
    assert seen == sorted(seen), "whoever reads meanwhile sees more and more, and never less"


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own with very little room; only the superuser can make one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = shutil.which("mount") and os.geteuid() == 0
    if (
        not made
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", place], capture_output=True).returncode
    ):
        pytest.skip("no small disk can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_loses_nothing(small_disk):
    store = Store(small_disk / "store", create=True)
    tables = [t for _, t in stores.deliveries(stores.arrivals(60, 6), 14)]
    store.add(tables[0], "2027-01-01")
    assert store.materialize("2027-01-01") > 0
    before, answer = store.eyes(), store.online(tables[0]["eye_id"].iloc[0])
    with pytest.raises(OSError, match="No space"), open(small_disk / "ballast", "wb", buffering=0) as ballast:
        while True:
            ballast.write(b"0" * 4096)
    for call in (lambda: store.add(tables[1], "2027-01-02"), lambda: store.materialize("2027-01-02")):
        with pytest.raises(InputError, match="(?i)no space|full|disk"):
            call()
    reopened = Store(store.folder)
    pd.testing.assert_frame_equal(reopened.eyes(), before)
    again = reopened.online(tables[0]["eye_id"].iloc[0])
    assert all(np.array_equal(again[n], answer[n], equal_nan=True) for n in NAMES)
    assert reopened.verify()["ok"].all() and len(reopened.show()) == 1
    assert not list((store.folder / "batches").glob(".draft-*"))
    (small_disk / "ballast").unlink()
    assert store.add(tables[1], "2027-01-02").new and store.verify()["ok"].all()
    store.add(rows(dict(eye_id="fresh", exam_date="2026-12-01", lt_mm=3.33)), "2027-01-03")
    store.materialize("2027-01-03")
    assert reopened.online("fresh", names=["lt_mm"])["lt_mm"][0] == 3.33, "nobody keeps looking at the full disk's rows"


def limited(folder, table):
    """A process that may write no file longer than two kilobytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    try:
        Store(folder).add(table, "2027-01-02")
    except InputError:
        os._exit(7)
    os._exit(0)


def test_a_write_that_fails_half_way_leaves_nothing(store):
    tables = [t for _, t in stores.deliveries(stores.arrivals(60, 6), 30)]
    store.add(tables[0], "2027-01-01")
    child = children.Process(target=limited, args=(store.folder, tables[1]))
    child.start()
    child.join()
    assert child.exitcode == 7 and store.verify()["ok"].all()
    assert len(list((store.folder / "batches").iterdir())) == 1
