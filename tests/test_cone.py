"""lensnb.cone: exact against other solvers, closed forms, the conditions of a minimum, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear, nnls
from sklearn.isotonic import IsotonicRegression

from lensnb.blocks import cone_basis
from lensnb.cone import TOLERANCE, NotSolved, kkt_error, solve_cone


def problem(seed, p=None, rows=None, ridge=1e-6):
    """A positive definite problem with some signed coordinates, and the rows behind it."""
    rng = np.random.default_rng(seed)
    p, rows = p or int(rng.integers(1, 30)), rows or int(rng.integers(1, 60))
    M, y = rng.normal(size=(rows, p)), rng.normal(size=rows)
    signed = rng.random(p) < 0.7
    return M.T @ M + ridge * np.eye(p), M.T @ y, signed, M, y


def cost(A, b, x):
    """The quadratic that is minimized."""
    return 0.5 * x @ A @ x - b @ x


@given(st.integers(0, 100_000))
@settings(max_examples=100)
def test_agrees_with_bounded_least_squares(seed):
    A, b, signed, _, _ = problem(seed)
    ours = solve_cone(A, b, signed)
    R = np.linalg.cholesky(A).T
    bounds = (np.where(signed, 0, -np.inf), np.inf)
    theirs = lsq_linear(R, np.linalg.solve(R.T, b), bounds=bounds, method="bvls", tol=1e-14)
    assert cost(A, b, ours.x) <= cost(A, b, theirs.x) + 1e-9 * (1 + abs(cost(A, b, theirs.x)))
    assert np.allclose(ours.x, theirs.x, atol=1e-4) and (ours.x[signed] >= 0).all()
    assert (ours.x[ours.held] == 0).all() and not ours.held[~signed].any() and ours.kkt <= TOLERANCE


@given(st.integers(0, 100_000), st.integers(2, 20))
@settings(max_examples=40)
def test_all_signed_is_non_negative_least_squares(seed, p):
    A, b, _, M, y = problem(seed, p, 3 * p, ridge=0)
    assert np.allclose(solve_cone(A, b, np.ones(p, bool)).x, nnls(M, y)[0], atol=1e-8)


@pytest.mark.parametrize("rising", [True, False])
def test_ordered_heights_are_isotonic_regression(rising):
    rng = np.random.default_rng(0)
    y, w = rng.normal(size=40), rng.uniform(0.2, 3, 40)
    T, signed = cone_basis(40, ("monotonic_inc" if rising else "monotonic_dec",))
    T, signed = np.column_stack([np.ones(40), T]), np.r_[False, signed]
    heights = T @ solve_cone(T.T @ (w[:, None] * T), T.T @ (w * y), signed).x
    expected = IsotonicRegression(increasing=rising).fit_transform(np.arange(40), y, sample_weight=w)
    assert np.allclose(heights, expected, atol=1e-9)


def test_a_convex_fit_obeys_and_beats_every_other_convex_curve():
    rng = np.random.default_rng(1)
    y = np.linspace(-1, 1, 25) ** 2 + rng.normal(0, 0.3, 25)
    T, signed = cone_basis(25, ("convex",))
    T, signed = np.column_stack([np.ones(25), T]), np.r_[False, signed]
    best = T @ solve_cone(T.T @ T, T.T @ y, signed).x
    assert (np.diff(best, 2) >= -1e-12).all()
    for _ in range(200):
        other = T @ np.where(signed, rng.exponential(size=25) * 0.02, rng.normal(size=25))
        mixed = 0.99 * best + 0.01 * other
        assert ((y - best) ** 2).sum() <= ((y - mixed) ** 2).sum() + 1e-12


def test_free_problems_are_linear_equations():
    A, b, _, _, _ = problem(3, 12, 40)
    solution = solve_cone(A, b, np.zeros(12, bool))
    assert np.allclose(solution.x, np.linalg.solve(A, b)) and not solution.held.any()


def test_small_closed_forms():
    one = np.array([[2.0]])
    assert solve_cone(one, np.array([4.0]), np.array([True])).x == pytest.approx(2)
    assert solve_cone(one, np.array([-4.0]), np.array([True])).x[0] == 0
    assert solve_cone(one, np.array([-4.0]), np.array([False])).x == pytest.approx(-2)
    A = np.array([[1.0, 0.5], [0.5, 1.0]])                                  # the held one releases the other
    assert np.allclose(solve_cone(A, np.array([-1.0, 0.2]), np.array([True, True])).x, [0, 0.2])
    assert solve_cone(A, np.zeros(2), np.array([True, True])).kkt == 0
    empty = solve_cone(np.zeros((0, 0)), np.zeros(0), np.zeros(0, bool))
    assert len(empty.x) == 0 and empty.kkt == 0


@given(st.integers(0, 10_000), st.floats(1e-6, 1e6))
@settings(max_examples=30)
def test_the_answer_scales_with_the_question(seed, k):
    A, b, signed, _, _ = problem(seed)
    x = solve_cone(A, b, signed).x
    assert np.allclose(solve_cone(A, k * b, signed).x, k * x, rtol=1e-6, atol=1e-6 * k)
    assert np.allclose(solve_cone(k * A, k * b, signed).x, x, rtol=1e-6, atol=1e-6)


# The conditions


def test_the_conditions_hold_at_the_minimum_and_nowhere_else():
    A, b, signed, _, _ = problem(5, 10, 30)
    signed[:5] = True
    x = solve_cone(A, b, signed).x
    assert kkt_error(A, b, x, signed) < 1e-12
    rng = np.random.default_rng(0)
    for _ in range(50):
        other = x + 0.01 * rng.normal(size=10)
        assert kkt_error(A, b, other, signed) > 1e-5
    assert (x == 0).any()
    forced = np.where(x == 0, 0.1, x)
    assert kkt_error(A, b, forced, signed) > 1e-3, "away from an edge it should lie on"
    stuck = np.zeros(10)
    assert kkt_error(A, b, stuck, signed) > 1e-3, "on edges it should leave"


def test_a_negative_signed_coordinate_breaks_the_conditions():
    A, b = np.eye(2), np.array([-1.0, 1.0])
    assert kkt_error(A, b, np.array([-1.0, 1.0]), np.array([False, False])) == 0
    assert kkt_error(A, b, np.array([-1.0, 1.0]), np.array([True, False])) >= 1


def test_what_is_not_a_solution_raises():
    A, b, signed, _, _ = problem(7, 15, 40)
    with pytest.raises(NotSolved, match="not a solution"):
        solve_cone(A, b, signed, tolerance=-1.0)


def test_a_solver_that_errs_is_noticed(monkeypatch):
    import lensnb.cone as room

    A, b, signed, _, _ = problem(9, 12, 40)
    signed[:] = True
    assert (solve_cone(A, b, signed).x == 0).any()
    monkeypatch.setattr(room, "_zeros", lambda A, b, signed: signed.copy())
    with pytest.raises(NotSolved):
        solve_cone(A, b, signed)


def test_the_wrong_sign_gives_another_answer():
    A, b, _, _, _ = problem(11, 8, 30)
    signed = np.ones(8, bool)
    right, wrong = solve_cone(A, b, signed).x, -solve_cone(A, -b, signed).x
    assert (wrong <= 0).all() and (right >= 0).all() and not np.allclose(right, wrong)
    assert kkt_error(A, b, wrong, signed) > 1e-3


def test_bad_numbers_are_refused():
    for A in (np.array([[np.nan]]), np.array([[-1.0]]), np.array([[0.0]])):
        with pytest.raises((NotSolved, ValueError, np.linalg.LinAlgError)):
            solve_cone(A, np.ones(1), np.array([True]))


@pytest.mark.parametrize("unequal", [1e-4, 1e4])
def test_coordinates_of_very_different_size(unequal):
    A, b, signed, _, _ = problem(13, 14, 60)
    scale = np.where(np.arange(14) % 2, unequal, 1.0)
    x = solve_cone(A, b, signed).x
    scaled = solve_cone(A * scale[:, None] * scale, b * scale, signed).x * scale
    assert np.allclose(scaled, x, atol=1e-5)
