"""Bounds for population means: closed forms against linear programs, constants of the intervals, properties."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensnb.means import (
    RUNGS,
    MonotoneSelection,
    both_below,
    contrast_bounds,
    imbens_manski_constant,
    limits_of,
    population_bounds,
    resampled,
    seen,
    stoye_constants,
)
from lensnb.schema import InputError, NotEnoughData

GRID, LEVELS = np.array([0.0, 1.0, 2.0]), 3


def program(p, m, rung, direction, t, sense):
    """Extreme of E[Y(t)] over all laws of (Y(0), Y(1), Y(2)) given S on a grid that fit means and assumption."""
    from scipy.optimize import linprog

    paths = list(itertools.product(GRID, repeat=LEVELS))
    if rung in ("R1", "R1 and R1s"):
        paths = [q for q in paths if list(q) == sorted(q)]
    Y, k = np.array(paths), len(paths)
    cost = np.concatenate([p[s] * Y[:, t] for s in range(LEVELS)])
    equal, right = [], []
    for s in range(LEVELS):
        one, mean = np.zeros(LEVELS * k), np.zeros(LEVELS * k)
        one[s * k : (s + 1) * k], mean[s * k : (s + 1) * k] = 1, Y[:, s]
        equal += [one, mean]
        right += [1, m[s]]
    below = []
    if rung in ("R1s", "R1 and R1s"):
        for u, s in itertools.product(range(LEVELS), range(LEVELS - 1)):
            row = np.zeros(LEVELS * k)
            row[s * k : (s + 1) * k], row[(s + 1) * k : (s + 2) * k] = direction * Y[:, u], -direction * Y[:, u]
            below.append(row)
    answer = linprog(
        sense * cost, A_eq=equal, b_eq=right, A_ub=below or None, b_ub=np.zeros(len(below)) if below else None
    )
    return sense * answer.fun if answer.status == 0 else None


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("direction", [-1, 1])
def test_closed_forms_are_the_answers_of_linear_programs(rung, direction):
    rng = np.random.default_rng(3)
    for _ in range(6):
        p, m = rng.dirichlet(np.ones(LEVELS)), rng.uniform(0.1, 1.9, LEVELS)
        if direction > 0 and rung == "R1 and R1s":
            m = np.sort(m)  # else the two assumptions contradict the data
        low, high = limits_of(p, m, rung, (0, 2), direction)
        for t in range(LEVELS):
            assert program(p, m, rung, direction, t, 1) == pytest.approx(low[t], abs=1e-7)
            assert program(p, m, rung, direction, t, -1) == pytest.approx(high[t], abs=1e-7)


def test_the_bound_would_not_be_sharp_without_the_sizes_between():
    p, m = np.array([0.4, 0.2, 0.4]), np.array([0.5, 1.6, 1.0])
    low = limits_of(p, m, "R1 and R1s", (0, 2))[0][2]
    ends_only = p[0] * max(m[0], m[2]) + p[1] * max(m[1], m[2]) + p[2] * m[2]
    assert low > ends_only + 0.1 and program(p, m, "R1 and R1s", -1, 2, 1) == pytest.approx(low, abs=1e-7)


def test_a_contradiction_is_found_by_both():
    p, m = np.full(3, 1 / 3), np.array([1.5, 1.0, 0.5])
    low, high = limits_of(p, m, "R1 and R1s", (0, 2), direction=1)
    assert (low > high).any() and program(p, m, "R1 and R1s", 1, 0, 1) is None
    y, s, g = np.repeat(m, 20), np.repeat([0, 1, 2], 20), np.arange(60)
    table = population_bounds(y, s, [0, 1, 2], g, (0, 2), direction=1, runs=20)
    bad = table[table["status"] == "contradiction"]
    assert set(bad["rung"]) == {"R1 and R1s"} and (bad["lower"] <= bad["upper"]).all()


@given(st.integers(0, 10_000))
@settings(max_examples=40)
def test_rungs_are_nested_and_monotone_in_level(seed):
    rng = np.random.default_rng(seed)
    p, m = rng.dirichlet(np.ones(4)), rng.uniform(0, 1, 4)
    sets = {r: limits_of(p, m, r, (0, 1)) for r in RUNGS}
    for inner, outer in (("R1", "R0"), ("R1s", "R0"), ("R1 and R1s", "R1"), ("R1 and R1s", "R1s")):
        assert (sets[inner][0] >= sets[outer][0] - 1e-12).all() and (sets[inner][1] <= sets[outer][1] + 1e-12).all()
    for r in ("R1", "R1 and R1s"):
        assert (np.diff(sets[r][0]) >= -1e-12).all() and (np.diff(sets[r][1]) >= -1e-12).all()


def test_units_and_order_do_not_matter():
    rng = np.random.default_rng(1)
    y, s, g = rng.uniform(0, 900, 80), rng.choice([1.0, 2.0, 3.0], 80), np.repeat(np.arange(40), 2)
    a = population_bounds(y, s, [1.0, 2.0, 3.0], g, (0, 1000), runs=30)
    b = population_bounds(y / 1000, s, [1.0, 2.0, 3.0], g, (0, 1), runs=30)
    numbers = ["lower", "upper", "ci_lower", "ci_upper"]
    assert np.allclose(a[numbers], 1000 * b[numbers])
    order = rng.permutation(80)
    c = population_bounds(y[order], s[order], [1.0, 2.0, 3.0], g[order], (0, 1000), runs=30)
    assert np.allclose(a[["lower", "upper"]], c[["lower", "upper"]])


def test_two_normals_agree_with_scipy():
    from scipy.stats import multivariate_normal

    for h, k, rho in [(0.3, 1.2, 0.5), (1.6, 2.0, -0.8), (2.5, 0.1, 0.0)]:
        theirs = multivariate_normal.cdf([h, k], cov=[[1, rho], [rho, 1]])
        assert both_below(h, k, rho) == pytest.approx(theirs, abs=1e-5)


def test_constants_at_the_limits():
    assert imbens_manski_constant(60) == pytest.approx(1.6449, abs=1e-3)
    assert imbens_manski_constant(0) == pytest.approx(1.9600, abs=1e-3)
    assert 1.645 < imbens_manski_constant(0.8) < 1.96
    assert np.allclose(stoye_constants(60, (2, 1), -0.4), 1.645, atol=3e-3)
    assert np.allclose(stoye_constants(0, (1, 1), 0.999), 1.96, atol=0.04)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    """Truth at the lower end of the set, the hardest place; patients with two units each."""
    rng, held, runs = np.random.default_rng(5), 0, 150
    for i in range(runs):
        who = np.repeat(np.arange(60), 2)
        own = np.clip(0.5 + 0.15 * rng.normal(size=60), 0, 1)[who]
        s = rng.choice([0, 1], size=60)[who]
        table = population_bounds(own, s, [0, 1], who, (0, 1), runs=100, seed=i).set_index(["level", "rung"])
        r = table.loc[(1, "R0")]
        held += r["ci_lower"] <= 0.25 <= r["ci_upper"]  # 0.5 * 0.5 + 0.5 * 0: the lower end
    assert held / runs > 0.89


def test_contrasts_are_joint():
    y, s = np.array([0.2, 0.4, 0.9]), np.array([1.0, 2.0, 3.0])
    table = contrast_bounds(y, s, 1.0, 2.0, (0, 1))
    assert table.loc["R1", "lower"] == 0
    assert table.loc["R1", "upper"] == pytest.approx((0.8 + 0.4 + 0.9) / 3)
    assert table.loc["R0", "upper"] == pytest.approx((0.8 + 0.4 + 1.0) / 3)
    with pytest.raises(InputError):
        contrast_bounds(y, s, 2.0, 1.0, (0, 1))


def test_resampling_is_by_group_and_seeded():
    w = resampled(["a", "a", "b", "c"], 50, 1)
    assert (w[:, 0] == w[:, 1]).all() and (w == resampled(["a", "a", "b", "c"], 50, 1)).all()
    with pytest.raises(NotEnoughData):
        resampled(["a", "a"], 5, 1)


def test_a_level_nobody_got_and_words():
    p, m = seen([1.0, 2.0], [0, 0], [0, 1])
    assert p[1] == 0 and np.isnan(m[1])
    low, high = limits_of(p, m, "R1", (0, 5))
    assert np.isfinite(low).all() and np.isfinite(high).all()
    with pytest.raises(InputError, match="levels"):
        seen([1.0], [7], [0, 1])
    assert "lower mean" in MonotoneSelection().sentence and "higher" in MonotoneSelection(direction=1).sentence
    with pytest.raises(InputError):
        MonotoneSelection(direction=0)
