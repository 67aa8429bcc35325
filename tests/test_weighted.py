"""lensnb.weighted: the plain limits under equal weights, a plain loop, coverage under a shift, floors and refusals."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_intervals import Line, growing, world

from lensnb.intervals import CrossConformal, SplitConformal
from lensnb.scale import LogScale
from lensnb.schema import AssumptionError, InputError, NotEnoughData
from lensnb.weighted import WeightedConformal, side_by_side, support_ratio, weighted_lower


def slow_lower(values, weights, own, alpha):
    """The definition, guess by guess."""
    allowed, mass = alpha * (sum(weights) + own), own
    if own > allowed + 1e-9:
        return -math.inf
    for v, w in sorted(zip(values, weights)):
        mass += w
        if mass > allowed + 1e-9:
            return v


# The weighted limit


@given(
    st.lists(st.tuples(st.integers(-20, 20), st.sampled_from([0.2, 1, 3])), min_size=1, max_size=25),
    st.floats(0.01, 0.99),
    st.sampled_from([0.1, 1, 4]),
)
@settings(max_examples=150)
def test_limit_agrees_with_a_plain_loop(pairs, alpha, own):
    values, weights = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    assert weighted_lower(values[None], weights, np.array([own]), alpha)[0] == slow_lower(values, weights, own, alpha)


@given(st.floats(0.02, 0.49), st.floats(0.02, 0.49), st.integers(0, 10_000))
@settings(max_examples=50)
def test_limit_is_monotone_in_the_risk_and_in_the_own_mass(a, b, seed):
    rng = np.random.default_rng(seed)
    values, weights = rng.normal(size=(1, 40)), rng.exponential(size=40)
    for interpolate in (False, True):
        low, high = (weighted_lower(values, weights, np.ones(1), r, interpolate)[0] for r in sorted((a, b)))
        assert low <= high
        heavy = weighted_lower(values, weights, np.full(1, 3.0), a, interpolate)[0]
        assert heavy <= weighted_lower(values, weights, np.ones(1), a, interpolate)[0]


# Equal weights


@pytest.mark.parametrize("splits", [10, None])
@pytest.mark.parametrize("constant", [1.0, 0.1, 7.3])
def test_equal_weights_are_the_plain_limits_exactly(splits, constant):
    X, y, by, groups = world(60)
    machine = CrossConformal(Line, n_splits=splits).fit(X, y, by, groups)
    tool = WeightedConformal(machine, by, groups, np.full(len(y), constant))
    for alpha in (0.02, 0.05, 0.1, 0.3, 0.5):
        for side in ("lower", "upper"):
            mine = getattr(tool, side)(X, by, alpha, ratio=constant)
            assert np.array_equal(mine, getattr(machine, side)(X, by, alpha))
    band, plain = tool.interval(X, by, 0.1, constant), machine.interval(X, by, 0.1)
    pd.testing.assert_frame_equal(band[plain.columns], plain, check_exact=True)
    assert tool.evidence["n_eff"].to_numpy() == pytest.approx(tool.evidence["n_patients"].to_numpy(float))


@pytest.mark.parametrize("options", [{"make_scale": lambda: LogScale([0])}, {"interpolate": True}])
def test_equal_weights_with_a_scale_or_between_ranks(options):
    X, y, by, groups = growing(80)
    for machine in (CrossConformal(Line, **options), SplitConformal(Line, **options)):
        machine.fit(X, y, by, groups)
        tool = WeightedConformal(machine, by, groups, 1.0)
        plain, mine = machine.interval(X, by), tool.interval(X, by)
        assert np.allclose(mine[["lower", "upper"]], plain[["lower", "upper"]], rtol=0, atol=1e-9)
        assert (mine["n_patients"] == plain["n_patients"]).all()


def test_row_order_and_the_unit_of_the_ratio_do_not_matter():
    X, y, by, groups = world(70)
    ratio = np.random.default_rng(1).uniform(1, 6, len(y))
    machine = CrossConformal(Line).fit(X, y, by, groups)
    again = np.random.default_rng(2).permutation(len(y))
    shuffled = CrossConformal(Line).fit(X[again], y[again], by[again], groups[again])
    first = WeightedConformal(machine, by, groups, ratio).interval(X, by, 0.1, ratio)
    other = WeightedConformal(shuffled, by[again], groups[again], 9 * ratio[again]).interval(X, by, 0.1, 9 * ratio)
    assert np.allclose(first[["lower", "upper"]], other[["lower", "upper"]], atol=1e-9)


def test_agrees_with_a_plain_loop_over_models_and_units():
    X, y, by, groups = world(40)
    ratio = np.random.default_rng(3).uniform(0.5, 2, len(y))
    machine = CrossConformal(Line).fit(X, y, by, groups)
    tool, fold = WeightedConformal(machine, by, groups, ratio, largest=0.5), machine.out_of_fold["fold"].to_numpy()
    for j in range(5):
        mine = [i for i in range(len(y)) if by[i] == by[j]]
        error = [y[i] - machine.models[fold[i]].predict(X[[i]])[0] for i in mine]
        guess = [machine.models[fold[i]].predict(X[[j]])[0] + e for i, e in zip(mine, error)]
        weight = [ratio[i] / sum(groups[k] == groups[i] for k in mine) for i in mine]
        low = tool.lower(X[[j]], by[j], 0.2, ratio=ratio[[j]])[0]
        average = sum(weight) / len({groups[i] for i in mine})
        scaled = [w / average for w in weight]
        assert low == pytest.approx(slow_lower(guess, scaled, ratio[j] / average, 0.2), abs=1e-9)


# Support, floors, refusals


def status(chance, levels=("a", "b"), supported=None):
    chance = np.asarray(chance, float)
    yes = chance >= 0.05 if supported is None else supported
    return pd.DataFrame(
        {
            "unit": np.repeat(np.arange(len(chance)), len(levels)),
            "level": np.tile(levels, len(chance)),
            "propensity": chance.ravel(),
            "status": np.where(yes.ravel(), "supported", "unsupported"),
        }
    )


def test_support_ratio_is_one_over_the_floored_propensity_inside_support():
    table = status([[0.5, 0.5], [0.01, 0.99], [0.9, 0.1]], supported=np.array([[1, 1], [1, 1], [1, 0]], bool))
    everyone, others = support_ratio(table), support_ratio(table, "others")
    assert everyone["a"].tolist() == pytest.approx([2, 20, 1 / 0.9]) and everyone["b"].tolist()[2] == 0
    assert others["a"].tolist() == pytest.approx([1, 0.99 * 20, 0.1 / 0.9])
    assert everyone.index.tolist() == [0, 1, 2] and list(everyone.columns) == ["a", "b"]
    with pytest.raises(InputError, match="every unit at every level"):
        support_ratio(table.iloc[1:])


def test_no_support_no_limit_and_no_voice():
    X, y, by, groups = world(120)
    machine = CrossConformal(Line).fit(X, y, by, groups)
    silent = np.where(X[:, 0] > 0.5, 0.0, 1.0)
    tool = WeightedConformal(machine, by, groups, silent)
    loud = y + np.where(silent == 0, 1e6, 0)
    assert len(tool.pool) == (silent > 0).sum() and tool.pool["residual"].abs().max() < 1e3 < loud.max()
    band = tool.interval(X, by, 0.1, np.where(silent == 0, np.nan, 1.0))
    out = silent == 0
    assert np.isneginf(band.loc[out, "lower"]).all() and np.isposinf(band.loc[out, "upper"]).all()
    assert not band.loc[out, ["supported", "calibrated"]].any(axis=None) and band.loc[~out, "supported"].all()
    clipped = CrossConformal(Line, outcome_range=(-9, 9)).fit(X, y, by, groups)
    band = WeightedConformal(clipped, by, groups, silent).interval(X, by, 0.1, 0.0)
    assert (band["lower"] == -9).all() and (band["upper"] == 9).all(), "the outcome range"
    assert (tool.lower(X, "unseen", 0.1) == -np.inf).all() and np.isfinite(tool.lower(X, by, 0.1)).all()


def test_one_unit_may_not_speak_for_all():
    X, y, by, groups = world(100, shares=(1.0,))
    machine, ratio = CrossConformal(Line).fit(X, y, by, groups), np.ones(len(y))
    ratio[3] = 40.0
    tool = WeightedConformal(machine, by, groups, ratio)
    with pytest.raises(AssumptionError, match="One unit would hold"):
        tool.lower(X, by, 0.1)
    assert (tool.lower(X, by, 0.1, ratio=0.0) == -np.inf).all(), "nobody is asked about: nothing to refuse"
    assert np.isfinite(WeightedConformal(machine, by, groups, ratio.clip(max=5)).lower(X, by, 0.1)).all()


def test_a_refused_level_does_not_stop_the_others():
    X, y, by, groups = world(120)
    machine = CrossConformal(Line).fit(X, y, by, groups)
    ratio = np.where((by == 1) & (np.arange(len(y)) == np.flatnonzero(by == 1)[0]), 60.0, 1.0)
    tool = WeightedConformal(machine, by, groups, ratio)
    assert tool.evidence["refused"].tolist() == [False, True]
    assert np.isfinite(tool.upper(X, 0, 0.1)).all()
    with pytest.raises(AssumptionError, match="level 1"):
        tool.upper(X, by, 0.1)


def test_the_effective_number_decides():
    X, y, by, groups = world(40, shares=(1.0,), both=0)
    machine = CrossConformal(Line).fit(X, y, by, groups)
    ratio = np.where(np.arange(40) < 5, 4.0, 0.5)
    tool = WeightedConformal(machine, by, groups, ratio, largest=0.2)
    n_eff = tool.evidence["n_eff"].iloc[0]
    assert n_eff == pytest.approx((20 + 17.5) ** 2 / (80 + 35 * 0.25)) and n_eff < 19 < 40
    assert not tool.interval(X, 0, 0.1)["calibrated"].any() and machine.interval(X, 0, 0.1)["calibrated"].all()
    enough = 2 / (n_eff + 1) + 1e-6
    assert tool.interval(X, 0, enough, 0.5)["calibrated"].all()
    assert np.isfinite(tool.interval(X, 0, enough, 0.5)[["lower", "upper"]]).all(axis=None)
    assert np.isinf(tool.interval(X, 0, 0.9 * enough, 0.5)[["lower", "upper"]]).all(axis=None)


def test_calibrated_says_exactly_whether_there_are_limits():
    X, y, by, groups = world(60)
    rng = np.random.default_rng(5)
    ratio = rng.uniform(0.5, 3, len(y))
    tool = WeightedConformal(CrossConformal(Line).fit(X, y, by, groups), by, groups, ratio, largest=0.5)
    asked = rng.choice([0.0, 0.5, 3.0, 30.0], len(y))
    band = tool.interval(X, by, 0.12, asked)
    assert (np.isfinite(band[["lower", "upper"]]).all(axis=1) == band["calibrated"]).all()
    assert band["calibrated"].any() and not band["calibrated"].all()


@pytest.mark.parametrize(
    ("ratio", "message"),
    [
        ([-1.0], "0 or more"),
        ([np.inf], "0 or more"),
        ([1.0, 2.0], "one value a row"),
        (pd.DataFrame({0: [1]}), "one row"),
    ],
)
def test_ratios_that_are_refused(ratio, message):
    X, y, by, groups = world(40)
    machine = CrossConformal(Line).fit(X, y, by, groups)
    if len(ratio) == 1 and not isinstance(ratio, pd.DataFrame):
        ratio = np.full(len(y), ratio[0])
    with pytest.raises(InputError, match=message):
        WeightedConformal(machine, by, groups, ratio)


def test_a_saved_machine_does_not_hold_its_units():
    X, y, by, groups = world(40)
    state = CrossConformal(Line).fit(X, y, by, groups).to_dict()
    with pytest.raises(InputError, match="does not hold its units"):
        WeightedConformal(CrossConformal.from_dict(state, Line.from_dict), by, groups, 1.0)


# Coverage with the truth known


def shifted(n, rng):
    """Small errors where the level is usual, large ones where it is rare; the outcome is known for all."""
    patient = np.repeat(np.arange(n), rng.choice([1, 2], n))
    x = rng.normal(size=n)[patient]
    chance = 1 / (1 + np.exp(-1.6 * x))
    y = x + np.exp(-0.7 * x) * rng.normal(size=len(patient))
    return x[:, None], y, chance, rng.random(len(patient)) < chance, patient


def test_weights_restore_what_a_shift_costs_and_wrong_weights_do_not():
    found = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        X, y, chance, has, patient = shifted(400, rng)
        new_X, new_y, new_chance, new_has, _ = shifted(400, rng)
        machine = CrossConformal(Line).fit(X[has], y[has], np.zeros(has.sum()), patient[has])
        asked = ~new_has & (new_chance >= 0.05)
        rows, row = machine.prepare(new_X[asked]), []
        odds = {"right": (1 - chance) / chance.clip(0.05), "none": np.ones(len(y)), "wrong": chance}
        new = {"right": (1 - new_chance) / new_chance.clip(0.05), "none": np.ones(len(new_y)), "wrong": new_chance}
        for kind in odds:
            ratio = np.where(chance >= 0.05, odds[kind], 0)[has]
            tool = WeightedConformal(machine, np.zeros(has.sum()), patient[has], ratio, largest=0.3)
            low, high = (side(rows, 0, 0.05, new[kind][asked]) for side in (tool.lower, tool.upper))
            row.append(((low <= new_y[asked]) & (new_y[asked] <= high)).mean())
        found.append(row)
    right, none, wrong = np.mean(found, axis=0)
    assert right > 0.885 and none < 0.8 and wrong < none


# Patients


def test_weighing_is_the_average_of_keeping_one_eye_a_patient():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), rng.integers(1, 4, 8))
    values = rng.normal(size=len(groups))
    weights = 1 / np.bincount(groups)[groups]
    at = np.linspace(-3, 3, 25)
    kept = []
    for _ in range(4000):
        order = rng.permutation(len(groups))
        keep = order[np.unique(groups[order], return_index=True)[1]]
        kept.append((values[keep][:, None] <= at).mean(axis=0))
    weighed = (weights[:, None] * (values[:, None] <= at)).sum(axis=0) / 8
    assert np.abs(np.mean(kept, axis=0) - weighed).max() < 0.02
    flat = (values[:, None] <= at).mean(axis=0)
    assert np.abs(flat - weighed).max() > 0.02, "counting eyes is something else"


def test_counting_eyes_misses_patients_with_one_eye_weighing_does_not():
    share = {"patients": [], "eyes": []}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        eyes = rng.choice([1, 6], 200)
        patient = np.repeat(np.arange(200), eyes)
        wide = np.where(eyes == 1, 3.0, 1.0)
        y = (wide[patient]) * (0.8 * rng.normal(size=200)[patient] + 0.6 * rng.normal(size=len(patient)))
        new = np.where(rng.random(2000) < 0.5, 3.0, 1.0) * rng.normal(size=2000)
        X, zeros = np.zeros((len(y), 0)), np.zeros(len(y))
        for kind, groups in (("patients", patient), ("eyes", np.arange(len(y)))):
            machine = SplitConformal(Line, seed=seed).fit(X, y, zeros, groups)
            low, high = machine.interval(np.zeros((1, 0)), 0, 0.1)[["lower", "upper"]].iloc[0]
            share[kind].append(((low <= new) & (new <= high)).mean())
    assert np.mean(share["patients"]) > 0.89 and np.mean(share["eyes"]) < 0.85


def test_side_by_side_keeps_every_promise_on_friendly_data():
    X, y, by, groups = world(160, 2)
    table = side_by_side(Line, X, y, by, groups, folds=3, least=40)
    assert table["guarantee"].iloc[:4].tolist() == pytest.approx([0.9, 0.9, 0.8, 0.8])
    assert np.isnan(table["guarantee"].iloc[4]) and table["n_units"].nunique() == 1
    assert (table["wilson_high"].iloc[:4] >= table["guarantee"].iloc[:4]).all()
    assert table.loc["CV+", "width"] < table.loc["one eye a patient, split", "width"]
    again = side_by_side(Line, X, y, by, groups, folds=3, least=40, ways=["CV+"])
    assert again.loc["CV+", "coverage"] == table.loc["CV+", "coverage"]
    with pytest.raises(NotEnoughData, match="No level"):
        side_by_side(Line, X, y, by, groups, least=1000)
