"""lensnb.hidden: worst cases against linear programs, coverage with a known hidden reason, breakdown values."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from test_intervals import Line, world

from lensnb.hidden import (
    Crowd,
    HiddenSelection,
    benchmark_gamma,
    breakdown_gamma,
    extreme_means,
    hidden_contrast,
    hidden_means,
)
from lensnb.intervals import CrossConformal
from lensnb.schema import AssumptionError, InputError, NotEnoughData
from lensnb.weighted import WeightedConformal

gammas, shares = st.floats(1, 20), st.floats(0.001, 0.999)

# The assumption


def test_shaped_like_a_rung():
    two = HiddenSelection(2, provenance="a guess")
    assert two.rung == "beside" and "factor of 2" in two.sentence and two.gamma == 2.0
    assert HiddenSelection.from_dict(json.loads(json.dumps(two.to_dict()))) == two
    assert HiddenSelection(3, words="up to {gamma:g}").sentence == "up to 3"
    with pytest.raises(InputError, match="not a HiddenSelection"):
        HiddenSelection.from_dict({"kind": "StepEffect"})


@pytest.mark.parametrize("gamma", [0.99, -1, np.inf, np.nan, "2", None])
def test_gamma_is_a_factor(gamma):
    with pytest.raises(InputError, match="factor between odds"):
        HiddenSelection(gamma)


# Risks


@given(gammas, shares)
@settings(max_examples=200)
def test_spending_and_probability_are_inverse(gamma, alpha):
    h = HiddenSelection(gamma)
    low, high = h.probability(alpha)
    assert 0 <= low <= alpha + 1e-12 and alpha - 1e-12 <= high <= 1
    assert h.probability(h.spend(alpha))[1] == pytest.approx(alpha, abs=1e-9)
    assert h.spend(alpha, sharp=False) <= h.spend(alpha) + 1e-12 <= alpha + 2e-12
    assert HiddenSelection(1).spend(alpha) == alpha == HiddenSelection(1).spend(alpha, sharp=False)


@given(shares, gammas, gammas)
@settings(max_examples=100)
def test_more_hidden_means_less_to_spend(alpha, a, b):
    small, large = (HiddenSelection(g) for g in sorted((a, b)))
    for sharp in (True, False):
        assert large.spend(alpha, sharp) <= small.spend(alpha, sharp) + 1e-12
    assert large.coverage(1 - alpha) <= small.coverage(1 - alpha) + 1e-12


@pytest.mark.parametrize("gamma", [1, 1.4, 3])
@pytest.mark.parametrize("missed", [3, 30, 70])
def test_the_worst_case_is_that_of_a_linear_program(gamma, missed):
    n = 100
    out = (np.arange(n) < missed).astype(float)
    best = linprog(-out / n, A_eq=np.full((1, n), 1 / n), b_eq=[1], bounds=[(1 / gamma, gamma)] * n)
    low, high = HiddenSelection(gamma).probability(missed / n)
    assert high == pytest.approx(-best.fun)
    least = linprog(out / n, A_eq=np.full((1, n), 1 / n), b_eq=[1], bounds=[(1 / gamma, gamma)] * n)
    assert low == pytest.approx(least.fun)


# Limits


@pytest.fixture(scope="module")
def machines():
    X, y, by, groups = world(300)
    machine = CrossConformal(Line).fit(X, y, by, groups)
    ratio = np.random.default_rng(0).uniform(0.5, 3, len(y))
    return X, by, machine, WeightedConformal(machine, by, groups, ratio), ratio


def test_gamma_one_is_the_plain_limit(machines):
    X, by, machine, tool, ratio = machines
    one = HiddenSelection(1)
    for sharp in (True, False):
        assert np.array_equal(one.lower(machine, X, by, 0.05, sharp), machine.lower(X, by, 0.05))
        assert np.array_equal(one.upper(tool, X, by, 0.05, sharp, ratio=ratio), tool.upper(X, by, 0.05, ratio))
        assert one.interval(machine, X, by, 0.1, sharp).equals(machine.interval(X, by, 0.1))
    plain, same = machine.probabilities(X, by, (-1, 1)), one.probabilities(machine, X, by, (-1, 1))
    for name in ("p_low", "p_zone", "p_high"):
        assert np.allclose(same[f"{name}_lower"], plain[name]) and np.allclose(same[f"{name}_upper"], plain[name])


def test_limits_widen_with_gamma_and_with_caution(machines):
    X, by, machine, tool, ratio = machines
    for kind, more in ((machine, {}), (tool, {"ratio": ratio})):
        before = None
        for gamma in (1, 1.2, 2, 3.5):
            h = HiddenSelection(gamma)
            band, cautious = (h.interval(kind, X, by, 0.1, sharp, **more) for sharp in (True, False))
            assert (cautious["lower"] <= band["lower"]).all() and (cautious["upper"] >= band["upper"]).all()
            if before is not None:
                assert (band["lower"] <= before["lower"]).all() and (band["upper"] >= before["upper"]).all()
            before = band
    few = HiddenSelection(50).interval(machine, X, by, 0.1)
    assert not few["calibrated"].any() and np.isinf(few["lower"]).all(), "a strong gamma needs many patients"


def test_the_cautious_limit_is_the_worst_assignment_of_weights():
    rng = np.random.default_rng(1)
    n, gamma, alpha = 60, 1.8, 0.2
    X, y = np.zeros((n, 0)), np.sort(rng.normal(size=n))
    machine = CrossConformal(Line, n_splits=None).fit(X, y, np.zeros(n), np.arange(n))
    low = HiddenSelection(gamma).lower(machine, np.zeros((1, 0)), 0, alpha, sharp=False)[0]
    errors = machine.out_of_fold
    center = np.array([machine.models[f].coef[0] for f in errors["fold"]])
    guesses = np.sort(center + errors["residual"].to_numpy())
    for i, v in enumerate(guesses):
        share = gamma * (i + 2) / (gamma * (i + 2) + (n - i - 1) / gamma)
        if share > alpha + 1e-12:
            assert low == pytest.approx(v)
            break


def selected(n, rng, gamma):
    """A hidden yes/no that multiplies the odds of the choice by gamma or 1 / gamma, whatever x is."""
    patient = np.repeat(np.arange(n), rng.choice([1, 2], n))
    x = rng.normal(size=n)[patient]
    has = rng.random(len(patient)) < 0.5
    hidden = rng.random(len(patient)) < np.where(has, gamma, 1) / (gamma + 1)
    y = x - 4 * hidden + rng.normal(size=len(patient))
    return x[:, None], y, has, patient


def test_hidden_knowledge_costs_coverage_and_the_true_gamma_buys_it_back():
    found = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        X, y, has, patient = selected(300, rng, 3.0)
        new_X, new_y, new_has, _ = selected(600, rng, 3.0)
        machine = CrossConformal(Line, interpolate=True).fit(X[has], y[has], np.zeros(has.sum()), patient[has])
        rows, out = machine.prepare(new_X[~new_has]), new_y[~new_has]
        row = []
        for gamma in (1.0, 1.25, 3.0):
            band = HiddenSelection(gamma).interval(machine, rows, 0, 0.1)
            row += [((band["lower"] <= out) & (out <= band["upper"])).mean(), (out > band["upper"]).mean()]
        found.append(row)
    plain, over, less, over_less, true, over_true = np.mean(found, axis=0)
    assert plain < 0.86 and less < 0.885 < true, "the shortfall, a smaller gamma, the true one"
    assert over == pytest.approx(0.15, abs=0.02) and over_less > 0.1 and over_true == pytest.approx(0.05, abs=0.012)


# Means


def program(y, fixed, free, gamma, balanced):
    n = len(y)
    up = np.column_stack([np.eye(n), -(fixed + gamma * free)])
    down = np.column_stack([-np.eye(n), fixed + free / gamma])
    equal, right = [np.r_[np.ones(n), 0]], [1]
    if balanced:
        equal, right = equal + [np.r_[np.zeros(n), (fixed + free).sum()]], [1, 1]
    fit = linprog(np.r_[-y, 0], np.vstack([up, down]), np.zeros(2 * n), np.array(equal), right, (0, None))
    return -fit.fun


@given(st.integers(0, 10_000), st.integers(2, 12), st.floats(1, 6), st.booleans())
@settings(max_examples=40, deadline=None)
def test_extreme_means_agree_with_a_linear_program(seed, n, gamma, balanced):
    rng = np.random.default_rng(seed)
    y, fixed, free = rng.normal(size=n).round(1), rng.choice([0, 1, 1.0], n), rng.exponential(size=n) + 0.01
    low, high = (v[0] for v in extreme_means(y, fixed, free, gamma, balanced))
    assert high == pytest.approx(program(y, fixed, free, gamma, balanced), abs=1e-6)
    assert low == pytest.approx(-program(-y, fixed, free, gamma, balanced), abs=1e-6)
    assert y.min() - 1e-9 <= low <= np.average(y, weights=fixed + free) + 1e-9 and low <= high + 1e-12


@given(st.integers(0, 10_000), st.floats(1, 6), st.floats(1, 6))
@settings(max_examples=40)
def test_extreme_means_are_nested_and_balanced_is_inside(seed, a, b):
    rng = np.random.default_rng(seed)
    y, free = rng.normal(size=20), rng.exponential(size=(3, 20))
    (small_low, small_high), (low, high) = (extreme_means(y, np.ones(20), free, g) for g in sorted((a, b)))
    assert (low <= small_low + 1e-9).all() and (high >= small_high - 1e-9).all()
    inner = extreme_means(y, np.ones(20), free, max(a, b), balanced=True)
    assert (inner[0] >= low - 1e-9).all() and (inner[1] <= high + 1e-9).all()
    one = extreme_means(y, np.ones(20), free, 1.0)
    assert np.allclose(one[0], one[1]) and np.allclose(one[0], ((1 + free) * y).sum(axis=1) / (1 + free).sum(axis=1))


def crowd(n=250, seed=0, hidden=1.0, effect=1.0):
    """Two levels; the hidden part raises the outcome and the odds of the high level."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n), rng.choice([1, 2], n))
    x = rng.normal(size=n)[patient]
    chance = 1 / (1 + np.exp(-0.5 * x))
    high = rng.random(len(patient)) < chance
    u = rng.random(len(patient)) < np.where(high, hidden, 1 / hidden) / (1 + np.where(high, hidden, 1 / hidden))
    y = x + u + effect * high + 0.5 * rng.normal(size=len(patient))
    table = pd.DataFrame(
        {
            "unit": np.repeat(np.arange(len(y)), 2),
            "level": np.tile([1, 2], len(y)),
            "propensity": np.column_stack([1 - chance, chance]).ravel(),
            "status": "supported",
        }
    )
    return table, y, np.where(high, 2, 1), patient


def test_weights_undo_measured_selection_and_bounds_hold_hidden_selection():
    told, naive = {1.0: [], 2.5: []}, []
    for seed in range(15):
        table, y, given_, patient = crowd(seed=seed, hidden=2.5)
        units = Crowd.of(table, y, given_, patient, [1, 2])
        for gamma in told:
            c = hidden_contrast(units, 2, 1, gamma, n_boot=100, seed=seed)
            told[gamma].append((c["ci_lower"] <= 1.0 <= c["ci_upper"], c["lower"], c["contrast"], c["upper"]))
        naive.append(y[given_ == 2].mean() - y[given_ == 1].mean())
    assert np.mean([t[0] for t in told[1.0]]) < 0.5 and np.mean([t[0] for t in told[2.5]]) > 0.9
    assert all(a <= b <= c for _, a, b, c in told[2.5]) and np.mean(naive) > np.mean([t[2] for t in told[1.0]]) > 1.2
    clean = []
    for seed in range(15):
        units = Crowd.of(*crowd(seed=seed), [1, 2])
        c = hidden_contrast(units, 2, 1, 1.0, n_boot=100, seed=seed)
        clean.append(c["ci_lower"] <= 1.0 <= c["ci_upper"])
    assert np.mean(clean) > 0.8, "nothing hidden: gamma 1 is enough"


def test_means_table_and_contrast_are_consistent():
    units = Crowd.of(*crowd(), [1, 2])
    table = hidden_means(units, 1.5, n_boot=50)
    c = hidden_contrast(units, 2, 1, 1.5, n_boot=50)
    assert c["contrast"] == pytest.approx(table.loc[2, "mean"] - table.loc[1, "mean"])
    assert c["lower"] == pytest.approx(table.loc[2, "lower"] - table.loc[1, "upper"])
    assert (table["ci_lower"] <= table["lower"]).all() and (table["upper"] <= table["ci_upper"]).all()
    assert hidden_means(units, 1.5, n_boot=50).equals(table) and table["n_patients"].gt(50).all()
    point = hidden_means(units, 1.0, n_boot=0)
    assert np.allclose(point["lower"], point["upper"]) and np.allclose(point["lower"], point["mean"])


def test_crowds_are_supported_everywhere_and_refusals_say_why():
    table, y, given_, patient = crowd(200)
    table.loc[table["unit"] == 3, "status"] = ["supported", "unsupported"]
    assert len(Crowd.of(table, y, given_, patient, [1, 2]).y) == len(y) - 1
    assert len(Crowd.of(table, y, given_, patient, [1]).y) == len(y)
    with pytest.raises(InputError, match="lacks a level"):
        Crowd.of(table, y, given_, patient, [1, 7])
    with pytest.raises(NotEnoughData, match="No unit is supported"):
        Crowd.of(table.assign(status="unsupported"), y, given_, patient, [1])
    with pytest.raises(InputError, match="`y` must not have gaps"):
        Crowd.of(table, np.where(y > 1, np.nan, y), given_, patient, [1])
    few = Crowd.of(table, y, np.where(np.arange(len(y)) < 5, 2, 1), patient, [1, 2])
    with pytest.raises(NotEnoughData, match="Too few patients"):
        hidden_means(few, 2.0)
    rare = table.assign(propensity=np.where(table["unit"] == np.flatnonzero(given_ == 2)[0], 1e-4, table["propensity"]))
    with pytest.raises(AssumptionError, match="of the weight"):
        hidden_means(Crowd.of(rare, y, given_, patient, [1, 2], eps=1e-6), 2.0)
    assert (hidden_means(Crowd.of(rare, y, given_, patient, [1, 2]), 2.0, n_boot=20)["lower"] < 9).all(), "floored"


# Breakdown and scale


@given(st.floats(1.01, 40))
@settings(max_examples=40)
def test_breakdown_finds_the_place(place):
    found = breakdown_gamma(lambda g: g < place)
    assert place <= found <= place + 0.001
    assert breakdown_gamma(lambda g: False) == 1.0 and breakdown_gamma(lambda g: True) == np.inf


def test_breakdown_of_coverage_is_the_closed_form():
    for nominal, least in ((0.9, 0.85), (0.9, 0.8), (0.95, 0.9)):
        found = breakdown_gamma(lambda g: HiddenSelection(g).coverage(nominal) >= least)
        assert found == pytest.approx((1 - least) / (1 - nominal), abs=0.002)


def test_a_stronger_effect_breaks_later():
    breaks = []
    for effect in (0.3, 1.0, 2.0):
        units = Crowd.of(*crowd(effect=effect), [1, 2])
        breaks.append(breakdown_gamma(lambda g: hidden_contrast(units, 2, 1, g, n_boot=0)["lower"] > 0))
    assert 1 < breaks[0] < breaks[1] < breaks[2] < np.inf


def test_benchmark_finds_what_moved_the_choice():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(600, 3)), columns=["strong", "weak", "idle"])
    score = 1.5 * X["strong"] + 0.4 * X["weak"] + rng.logistic(size=600)
    level = np.digitize(score, [-1, 1])
    table = benchmark_gamma(X, level)
    for s in (0, 1, 2):
        q90 = table.loc[s, "q90"]
        assert q90["strong"] > q90["weak"] >= 1 and q90["idle"] < 1.35
        assert (table.loc[s, "median"] <= q90).all() and (q90 <= table.loc[s, "largest"]).all()
    assert table.loc[(2, "strong"), "q90"] > 3
    near = pd.DataFrame({s: X["strong"].abs() < 0.3 for s in (0, 1, 2)})
    inside = benchmark_gamma(X, level, near)
    assert inside.loc[(2, "strong"), "q90"] < table.loc[(2, "strong"), "q90"]
    assert (inside["n_units"] == near[0].sum()).all()
    none = benchmark_gamma(X, level, near & False)
    assert none["q90"].isna().all() and (none["n_units"] == 0).all()
    with pytest.raises(InputError, match="must vary"):
        benchmark_gamma(X.assign(idle=1.0), level)
