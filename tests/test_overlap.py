"""lensnb.overlap: the joint propensity, neighbours against a plain loop, reasons that are true, refusals."""

import json
import re
import time

import numpy as np
import pandas as pd
import pytest
from conftest import real_eyes
from hypothesis import given, settings
from hypothesis import strategies as st

from lensnb.overlap import (
    SupportEstimator,
    common_support,
    effective_sample_size,
    fit_logit,
    logit_propensity,
    propensity_calibration,
    sensitivity,
    standardized_differences,
    support_rule,
    support_target,
    support_weights,
)
from lensnb.schema import AssumptionError, InputError, NotEnoughData

LEVELS = [12.1, 12.6, 13.2, 13.7]
DRIVERS = ["a", "b"]
COLUMNS = ["unit", "level", "propensity", "n_similar", "novelty_p", "status", "reason"]


def clinic(n=120, seed=0, freedom=0.5, cuts=(-2.2, -0.6, 1.2)):
    """Units with two drivers, one or two a patient, given a level by a soft table on the first driver."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n), rng.integers(1, 3, n))
    X = rng.normal(size=(n, 2))[patient] + 0.2 * rng.normal(size=(len(patient), 2))
    level = np.digitize(X[:, 0] + freedom * rng.logistic(size=len(X)) / 1.8, cuts)
    frame = pd.DataFrame(X.round(2), columns=DRIVERS, index=[f"u{i}" for i in range(len(X))])
    return frame, np.array(LEVELS)[level], np.array([f"patient-{p}" for p in patient])


@pytest.fixture(scope="module")
def fitted():
    X, level, patient = clinic()
    return SupportEstimator(LEVELS).fit(X, level, patient)


# Propensity


@pytest.mark.parametrize("used", [[0, 1, 2, 3], [1, 2, 3], [1, 3], [2]])
def test_the_logit_is_sklearns(used):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(len(used))
    Z, code = rng.normal(size=(200, 3)), rng.choice(used, 200)
    p = logit_propensity(fit_logit(Z, code, 4), Z)
    assert np.allclose(p.sum(axis=1), 1) and (p[:, np.setdiff1d(range(4), used)] == 0).all()
    if len(used) > 1:
        theirs = LogisticRegression(C=1.0, max_iter=2000, tol=1e-8).fit(Z, code).predict_proba(Z)
        assert np.abs(p[:, used] - theirs).max() < 1e-12


def test_training_propensity_never_saw_the_patient():
    X, level, patient = clinic(50)
    mine = patient == patient[0]
    swapped = np.where(mine, np.where(level == 13.2, 12.6, 13.2), level)
    tables = [SupportEstimator(LEVELS, n_splits=50).fit(X, t, patient).predict_training() for t in (level, swapped)]
    same = tables[0]["unit"].isin(X.index[mine])
    gap = (tables[0]["propensity"] - tables[1]["propensity"]).abs()
    assert gap[same].max() < 1e-9 < gap[~same].max()


def test_calibration_in_simulation():
    X, level, patient = clinic(900, seed=5)
    table = propensity_calibration(SupportEstimator(LEVELS).fit(X, level, patient).predict_training())
    assert (table["propensity"] - table["observed"]).abs().max() < 0.08
    assert table.groupby("level")["n_units"].sum().eq(len(X)).all()


# Local evidence, against a plain loop


def by_hand(estimator, X, level, patient, x, level_asked, own=None):
    """n_similar and novelty p of one unit, slowly, from the definitions."""
    Z = ((X - X.mean()) / X.std(ddof=0)).round(3).to_numpy()
    z = ((x - X.mean()) / X.std(ddof=0)).round(3).to_numpy()

    def nearest(point, without):
        far = {}
        for i in range(len(Z)):
            if level[i] == level_asked and patient[i] not in without:
                d = float(np.sqrt(np.mean((point - Z[i]) ** 2)))
                far[patient[i]] = min(d, far.get(patient[i], np.inf))
        return sorted(far.values())

    members = [i for i in range(len(Z)) if level[i] == level_asked]
    k = min(estimator.k, len({patient[i] for i in members}) - 1)
    mine = nearest(z, {own})
    near = sum(d <= estimator.radius + 1e-12 for d in mine)
    if k < 1:
        return near, 1.0
    n = len({patient[i] for i in members} - {own})
    score = sum(
        1 / sum(patient[j] == patient[i] for j in members)
        for i in members
        if patient[i] != own and nearest(Z[i], {patient[i]})[k - 1] >= mine[k - 1] - 1e-12
    )
    return near, (1 + score) / (n + 1)


@pytest.mark.parametrize("k", [1, 4])
def test_neighbours_and_novelty_agree_with_a_plain_loop(k):
    X, level, patient = clinic(40, seed=3)
    estimator = SupportEstimator(LEVELS, k=k).fit(X, level, patient)
    new = pd.DataFrame(np.random.default_rng(1).normal(0, 1.5, (6, 2)).round(2), columns=DRIVERS)
    for table, frame, own in [(estimator.predict(new), new, None), (estimator.predict_training(), X, patient)]:
        for row in table.iloc[::3].itertuples():
            i = frame.index.get_loc(row.unit)
            without = None if own is None else own[i]
            want = by_hand(estimator, X, level, patient, frame.loc[row.unit], row.level, without)
            assert (row.n_similar, row.novelty_p) == (want[0], pytest.approx(want[1], abs=1e-9))


def test_fellow_units_are_one_witness():
    X, level, patient = clinic(60, seed=2)
    twice = pd.concat([X, X.add_suffix("")], keys=["right", "left"])
    twice.index = [f"{side}-{u}" for side, u in twice.index]
    once = SupportEstimator(LEVELS).fit(X, level, patient)
    double = SupportEstimator(LEVELS).fit(twice, np.tile(level, 2), np.tile(patient, 2))
    columns = ["n_similar", "novelty_p"]
    pd.testing.assert_frame_equal(once.predict(X)[columns], double.predict(X)[columns])


@pytest.mark.parametrize("k", [1, 5])
def test_novelty_is_a_p_value(k):
    rates = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(50), 2)
        X = rng.normal(size=(50, 2))[patient] + 0.3 * rng.normal(size=(100, 2))
        estimator = SupportEstimator(["one"], k=k).fit(pd.DataFrame(X, columns=DRIVERS), ["one"] * 100, patient)
        new = rng.normal(size=(40, 2)) + 0.3 * rng.normal(size=(40, 2))
        p = estimator.predict(pd.DataFrame(new, columns=DRIVERS))["novelty_p"]
        rates.append([(p <= a).mean() for a in (0.05, 0.1, 0.5)])
    assert (np.mean(rates, axis=0) <= [0.065, 0.12, 0.53]).all()


# The estimator


def test_columns_order_and_roundtrip(fitted):
    X, _, patient = clinic()
    table = fitted.predict(X)
    assert list(table) == COLUMNS and table["level"].tolist() == LEVELS * len(X)
    assert table["unit"].drop_duplicates().tolist() == X.index.tolist()
    text = json.dumps(fitted.to_dict(), allow_nan=False)
    again = SupportEstimator.from_dict(json.loads(text))
    pd.testing.assert_frame_equal(again.predict(X), table, check_exact=True)
    assert json.dumps(again.to_dict(), allow_nan=False) == text
    assert "patient-" not in text and '"u1"' not in text
    one = pd.concat([fitted.predict(X.iloc[[i]]) for i in range(30)], ignore_index=True)
    pd.testing.assert_frame_equal(one, table.iloc[:120], check_exact=True)


def test_what_is_saved_does_not_tell_the_order_of_arrival():
    X, level, patient = clinic()
    order = np.random.default_rng(0).permutation(len(X))
    a = SupportEstimator(LEVELS).fit(X, level, patient).to_dict()
    b = SupportEstimator(LEVELS).fit(X.iloc[order], level[order], patient[order]).to_dict()
    assert [p["points"] for p in a["pools"]] == [p["points"] for p in b["pools"]]
    assert [p["patient"] for p in a["pools"]] == [p["patient"] for p in b["pools"]]


@given(
    st.sampled_from([0.01, 0.05, 0.2]), st.sampled_from([1, 3, 6]), st.sampled_from([0.0, 0.05, 0.3]), st.integers(0, 3)
)
@settings(max_examples=15)
def test_stricter_is_fewer_and_the_status_is_its_definition(eps, k, novelty, seed):
    X, level, patient = clinic(60, seed)
    table = SupportEstimator(LEVELS, eps=eps, k=k, novelty=novelty).fit(X, level, patient).predict_training()
    yes = (table["propensity"] >= eps) & (table["novelty_p"] >= novelty) & (table["n_similar"] >= k)
    assert (yes == (table["status"] == "supported")).all()
    assert ((table["reason"] == "") == yes).all()
    stricter = SupportEstimator(LEVELS, eps=2 * eps, k=k, novelty=novelty).fit(X, level, patient).predict_training()
    assert not ((stricter["status"] == "supported") & ~yes).any()


def test_every_range_in_a_reason_is_true(fitted):
    X, level, _ = clinic()
    wild = pd.DataFrame(np.random.default_rng(4).normal(0, 2.5, (80, 2)), columns=DRIVERS)
    claims = 0
    for row in fitted.predict(wild).itertuples():
        head = row.reason.split(" was ever given")[0] if "was ever given" in row.reason else ""
        given = X[level == row.level]
        for driver, word, limit in re.findall(r"with (\w) (under|over) (\S+)", head):
            claims += 1
            unit = wild.loc[row.unit, driver]
            if word == "under":
                assert given[driver].min() == float(limit) and unit < float(limit)
            else:
                assert given[driver].max() == float(limit) and unit > float(limit)
    assert claims > 50


def test_a_level_with_one_patient_or_none():
    X, level, patient = clinic(40, seed=1, cuts=(-9, -0.6, 1.2))
    level[patient == patient[0]] = 12.1
    lonely = SupportEstimator(LEVELS).fit(X, level, patient)
    table = lonely.predict_training(noun="eye")
    cell = table[table["level"] == 12.1]
    assert (cell["status"] == "unsupported").all() and cell["reason"].ne("").all()
    assert (cell.loc[cell["observed"], "propensity"] == 0).all(), "its own fold never saw the level"
    assert (cell.loc[cell["observed"], "n_similar"] == 0).all(), "a patient is not his own witness"
    level[level == 12.1] = 12.6
    never = SupportEstimator(LEVELS).fit(X, level, patient)
    cell = never.predict(X, noun="eye").query("level == 12.1")
    assert (cell["propensity"] == 0).all() and (cell["reason"] == "no eye was ever given 12.1").all()
    again = SupportEstimator.from_dict(json.loads(json.dumps(never.to_dict(), allow_nan=False)))
    pd.testing.assert_frame_equal(again.predict(X), never.predict(X), check_exact=True)


def test_fewer_patients_than_folds():
    X, level, patient = clinic(3, seed=0)
    table = SupportEstimator(LEVELS).fit(X, level, patient).predict_training()
    assert len(table) == 4 * len(X) and (table["status"] == "unsupported").all()


def test_one_level_for_all_and_two_levels():
    X, _, patient = clinic(80)
    for levels in (["a"], ["a", "b"]):
        given_level = np.array(levels)[np.arange(len(X)) % len(levels)]
        table = SupportEstimator(levels).fit(X, given_level, patient).predict_training()
        assert (table.groupby("unit")["propensity"].sum() - 1).abs().max() < 1e-12
        assert (table["status"] == "supported").mean() > 0.7


def test_full_overlap_is_found_and_none_is_found():
    X, _, patient = clinic(400, seed=8)
    rng = np.random.default_rng(8)
    free = SupportEstimator(LEVELS).fit(X, rng.choice(LEVELS, len(X)), patient).predict_training()
    assert (free.loc[~free["observed"], "status"] == "supported").mean() > 0.85
    strict = np.array(LEVELS)[np.digitize(X["a"], [-1, 0, 1])]
    table = SupportEstimator(LEVELS).fit(X, strict, patient).predict_training()
    matrix = common_support(table)
    assert max(matrix.loc[12.1, 13.2], matrix.loc[12.1, 13.7], matrix.loc[12.6, 13.7]) < 0.005
    cells = table[~table["observed"] & (table["status"] == "supported")]
    low, high = (pd.Series(v, index=LEVELS)[cells["level"]].to_numpy() for v in ([-9, -1, 0, 1], [-1, 0, 1, 9]))
    driver = X["a"][cells["unit"]].to_numpy()
    beyond = np.maximum(low - driver, driver - high)
    assert len(cells) and beyond.max() < 0.7, "at a hard boundary only the nearest neighbours count as support"


def test_a_missing_driver_is_told_and_not_filled(fitted):
    X = pd.DataFrame({"a": [0.0, np.nan], "b": [np.nan, np.nan]})
    table = fitted.predict(X, names={"a": "ATA"}, noun="eye")
    assert table["reason"].drop_duplicates().tolist() == ["b missing", "ATA and b missing"]
    assert (table["status"] == "unsupported").all() and (table["n_similar"] == 0).all()
    assert len(fitted.predict(X.iloc[:0])) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, t, g: (X, np.where(t == 13.2, 13.3, t), g), "must be one of 12.1, 12.6, 13.2, 13.7"),
        (lambda X, t, g: (X, t, np.where(g == g[0], None, g)), "`groups` must not have gaps"),
        (lambda X, t, g: (X, t[:-1], g), "one value a row"),
        (lambda X, t, g: (X.assign(a=np.nan), t, g), "`a` must not have gaps"),
        (lambda X, t, g: (X.assign(a=1.0), t, g), "must vary"),
        (lambda X, t, g: (X.assign(a="wide"), t, g), "must be a number"),
        (lambda X, t, g: (X.set_axis([0] * len(X)), t, g), "must not repeat"),
        (lambda X, t, g: (X.to_numpy(), t, g), "DataFrame"),
        (lambda X, t, g: (X, t, np.zeros(len(X))), "at least two patients"),
    ],
)
def test_refusals_say_what_is_wrong(change, message):
    with pytest.raises((InputError, NotEnoughData), match=message):
        SupportEstimator(LEVELS).fit(*change(*clinic(30)))


@pytest.mark.parametrize("bad", [dict(eps=1.0), dict(novelty=-0.1), dict(k=0), dict(radius=0), dict(levels=[1, 1])])
def test_options_are_checked(bad):
    with pytest.raises(InputError):
        SupportEstimator(**{"levels": LEVELS, **bad})


# What is made from the status


def test_common_support_and_sensitivity(fitted):
    table = fitted.predict_training()
    matrix = common_support(table)
    yes = table.assign(yes=table["status"] == "supported").pivot(index="unit", columns="level", values="yes")
    assert np.allclose(matrix, [[(yes[a] & yes[b]).mean() for b in LEVELS] for a in LEVELS])
    grid = sensitivity(fitted, eps=(0.0, 0.05, 0.3), k=(1, 5, 20))
    counterfactual = table[~table["observed"]]
    assert grid.loc[0.05, 5] == (counterfactual["status"] == "supported").mean()
    assert (grid.diff().dropna() <= 0).all(axis=None)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=30))
def test_effective_sample_size_is_between_one_and_all(weights):
    groups = np.arange(len(weights)) // 2
    ess = effective_sample_size(weights, groups)
    n = len(set(groups))
    assert 0 <= ess <= n + 1e-9 and (ess == 0 or ess >= 1 - 1e-9)
    assert effective_sample_size(np.ones(len(weights)), np.arange(len(weights))) == pytest.approx(len(weights))


def test_weights_live_in_the_support_and_balance():
    X, level, patient = clinic(900, seed=11)
    table = SupportEstimator(LEVELS).fit(X, level, patient).predict_training()
    within = [12.6, 13.2]
    target = support_target(table, within)
    weights = {s: support_weights(table, patient, s, within) for s in within}
    for s, w in weights.items():
        assert w.sum() == pytest.approx(1) and (w[~target | (level != s)] == 0).all() and w.max() <= 0.1
        propensity = table[table["level"] == s].set_index("unit")["propensity"]
        ratio = (w * propensity)[w > 0]
        assert ratio.max() / ratio.min() == pytest.approx(1), "weights are one over the propensity"
    love = standardized_differences(X, level, weights, target)
    assert love["after"].abs().max() < 0.15 < love["before"].abs().max()


def test_weights_are_refused():
    X, level, patient = clinic(60, seed=0)
    table = SupportEstimator(LEVELS).fit(X, level, patient).predict_training()
    with pytest.raises(AssumptionError, match="hold .* of the weight"):
        support_weights(table, patient, 13.2, within=[12.6, 13.2], limit=0.001)
    with pytest.raises(NotEnoughData, match="No supported unit was given 12.1"):
        support_weights(table, patient, 12.1)


def test_the_floor_keeps_a_tiny_propensity_from_ruling():
    units = [f"u{i}" for i in range(30)]
    table = pd.DataFrame(
        dict(unit=np.repeat(units, 2), level=np.tile(["a", "b"], 30), status="supported", observed=[True, False] * 30)
    )
    table["propensity"] = np.tile([0.5, 0.5], 30)
    table.loc[0, "propensity"] = 1e-6
    assert support_weights(table, units, "a", limit=0.5).max() == pytest.approx(20 / (20 + 29 * 2))
    with pytest.raises(AssumptionError, match="100% of the weight"):
        support_weights(table, units, "a", eps=0.0)


def test_the_rule_is_a_partition(fitted):
    X, _, _ = clinic()
    table = fitted.predict_training()
    rule = support_rule(X, table, 13.2)
    assert rule["n_units"].sum() == len(X) and 1 < len(rule) <= 4
    assert (rule["n_units"] * rule["supported"]).sum() == pytest.approx(support_target(table, [13.2]).sum())
    for row in rule.itertuples():
        assert abs(len(X.query(row.rule)) - row.n_units) <= 2, "thresholds are printed with four digits"


def test_speed(fitted):
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(10_000, 2)), columns=DRIVERS)
    start = time.perf_counter()
    fitted.predict(X)
    assert time.perf_counter() - start < 10


# Real eyes: what is known about the published cohort


@pytest.mark.skipif(real_eyes() is None, reason="LENSNB_DATA_DIR is not set: no real cohort")
def test_overlap_of_the_real_cohort():
    d = pd.read_csv(real_eyes(), sep=";", encoding="utf-8-sig")
    new = (d["age"].diff() != 0) | (d["wtw"].diff().abs() > 0.3 + 1e-9) | (d["cct"].diff().abs() > 20)
    table = SupportEstimator(LEVELS).fit(d[["wtw", "acd", "ata"]], d["iclSize"], new.cumsum()).predict_training()
    matrix, counterfactual = common_support(table), table[~table["observed"]]
    assert (counterfactual["status"] == "supported").mean() == pytest.approx(0.28, abs=0.03)
    assert matrix.loc[12.6, 13.2] == pytest.approx(0.45, abs=0.04)
    assert matrix.loc[13.2, 13.7] == pytest.approx(0.36, abs=0.04)
    assert matrix.loc[12.6, 13.7] < 0.02 and matrix.loc[12.1].max() == 0
