"""lensnb.reml: the restricted likelihood, its slopes, the minimum against scipy, the ceiling, what few rows may do."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from lensnb.reml import (ABOVE, BELOW, Problem, choice_covariance, choose, criterion, degrees, slopes, start, stiffen)
from lensnb.schema import InputError, NotEnoughData


def world(seed=0, n=80, q=14, k=3, noise=1.0):
    """Rows M (n, q), outcome and penalties: two random ones that overlap, and one of what they leave free."""
    rng = np.random.default_rng(seed)
    M = rng.normal(size=(n, q))
    D = np.zeros((q, k))
    D[: q // 2, 0], D[q // 3: q - 2, 1] = rng.exponential(size=q // 2), rng.exponential(size=q - 2 - q // 3)
    D[q - 2:, 2] = 1
    truth = rng.normal(size=q) * np.where(np.arange(q) < q // 2, 0.5, 0.1)
    return M, M @ truth + rng.normal(0, noise, n), D


def posed(M, y, D, prior=1.0, unpenalized=0):
    """The problem of those rows."""
    more = {"null": np.arange(D.shape[1]) == D.shape[1] - 1} if "null" in inspect.signature(Problem).parameters else {}
    return Problem(M.T @ M, M.T @ y, y @ y, len(y) - unpenalized, D, prior=prior, **more)


def by_covariance(M, y, D, rho, fixed=None):
    """Half of minus twice the restricted log-likelihood from the n x n covariance; `fixed` (n, f) has no penalty."""
    V = np.eye(len(y)) + M @ np.diag(1 / (D @ np.exp(rho))) @ M.T
    logdet = np.linalg.slogdet(V)[1]
    if fixed is None:
        return 0.5 * (len(y) * np.log(y @ np.linalg.solve(V, y)) + logdet)
    inner = fixed.T @ np.linalg.solve(V, fixed)
    r = y - fixed @ np.linalg.solve(inner, fixed.T @ np.linalg.solve(V, y))
    free = len(y) - fixed.shape[1]
    return 0.5 * (free * np.log(r @ np.linalg.solve(V, r)) + logdet + np.linalg.slogdet(inner)[1])


PLACES = [np.array(r, float) for r in ((0, 0, 0), (2, -1, 1), (-3, 3, 0), (5, 5, 5), (-4, -4, -4))]


# The criterion


def test_it_is_the_restricted_likelihood_of_the_covariance():
    M, y, D = world()
    problem = posed(M, y, D, prior=0)
    gaps = [criterion(problem, rho).value - by_covariance(M, y, D, rho) for rho in PLACES]
    assert np.ptp(gaps) < 1e-8


def test_coefficients_without_a_penalty_are_counted_as_fixed_effects():
    M, y, D = world()
    fixed = np.random.default_rng(1).normal(size=(len(y), 2))
    both, wide = np.column_stack([M, fixed]), np.vstack([D, np.zeros((2, 3))])
    problem = posed(both, y, wide, prior=0, unpenalized=2)
    gaps = [criterion(problem, rho).value - by_covariance(M, y, D, rho, fixed) for rho in PLACES]
    assert np.ptp(gaps) < 1e-8
    wrong = posed(both, y, wide, prior=0, unpenalized=0)
    assert np.ptp([criterion(wrong, rho).value - by_covariance(M, y, D, rho, fixed) for rho in PLACES]) > 1e-3


def test_its_parts_solve_the_penalized_equations():
    M, y, D = world(1)
    state = criterion(posed(M, y, D), np.array([1.0, -1.0, 0.5]))
    s = D @ np.exp([1.0, -1.0, 0.5])
    beta = np.linalg.solve(M.T @ M + np.diag(s), M.T @ y)
    assert np.allclose(state.beta, beta) and np.allclose(state.s, s)
    assert np.isclose(state.dev, ((y - M @ beta) ** 2).sum() + s @ beta**2)
    assert np.allclose(state.inverse @ (M.T @ M + np.diag(s)), np.eye(14), atol=1e-9)


@given(st.integers(0, 10_000), st.floats(0, 3))
@settings(max_examples=25)
def test_slopes_are_the_slopes(seed, prior):
    M, y, D = world(seed)
    problem, rho = posed(M, y, D, prior), np.random.default_rng(seed).uniform(-2, 3, 3)
    gradient, hessian = slopes(problem, criterion(problem, rho))
    for k in range(3):
        e = np.eye(3)[k] * 1e-4
        up, down = criterion(problem, rho + e), criterion(problem, rho - e)
        assert np.isclose((up.value - down.value) / 2e-4, gradient[k], rtol=1e-5, atol=1e-5)
        assert np.allclose((slopes(problem, up)[0] - slopes(problem, down)[0]) / 2e-4, hessian[k], rtol=1e-4, atol=1e-4)


@given(st.integers(0, 1000), st.floats(1e-6, 1e6))
@settings(max_examples=20)
def test_the_unit_of_the_outcome_does_not_matter(seed, k):
    M, y, D = world(seed)
    ours, theirs = choose(posed(M, y, D)), choose(posed(M, k * y, D))
    assert np.allclose(ours.state.rho, theirs.state.rho, atol=0.02)
    assert np.isclose(criterion(posed(M, y, D), theirs.state.rho).value, ours.state.value, atol=1e-5)


def test_an_indefinite_problem_says_so():
    problem = posed(np.ones((5, 2)), np.ones(5), np.zeros((2, 1)), prior=0)
    with pytest.raises(np.linalg.LinAlgError):
        criterion(problem, np.zeros(1))


# The choice


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("prior", [0.5, 1.0, 2.0])
def test_newton_finds_what_scipy_finds(seed, prior):
    M, y, D = world(seed, noise=(0.3, 1.0, 3.0)[seed % 3])
    problem = posed(M, y, D, prior)
    chosen, middle = choose(problem), start(problem)
    box = list(zip(middle - BELOW, middle + ABOVE))
    found = [minimize(lambda r: criterion(problem, r).value, begin, bounds=box, method="L-BFGS-B",
                      jac=lambda r: slopes(problem, criterion(problem, r))[0]) for begin in (middle, middle + 2)]
    assert chosen.state.value <= min(f.fun for f in found) + 1e-4 and chosen.steps < 60


def test_the_choice_is_a_place_without_slope():
    M, y, D = world(3)
    problem = posed(M, y, D)
    chosen = choose(problem)
    gradient, hessian = slopes(problem, chosen.state)
    assert abs(gradient).max() < 1e-2 and np.allclose(hessian, chosen.hessian) and np.linalg.eigvalsh(hessian).min() > 0


def test_more_noise_more_smoothing_and_with_the_prior_never_infinite():
    M, _, D = world(4, n=200)
    rng = np.random.default_rng(0)
    truth, noise = M @ np.r_[np.full(7, 0.5), np.zeros(7)], rng.normal(size=200)
    df = [degrees(p, choose(p).state) for p in (posed(M, truth + sd * noise, D) for sd in (0.1, 1, 10))]
    assert df[0] > df[1] > df[2] > 0
    nothing = posed(M, noise, D)
    free, held = (choose(posed(M, noise, D, prior)).state.rho - start(nothing) for prior in (0.0, 1.0))
    assert held.max() < ABOVE - 1 and (held <= free + 1e-6).all()


@pytest.mark.parametrize("n", [4, 8, 12, 20])
def test_few_rows_are_not_interpolated(n):
    """More coefficients than rows: a price of zero would explain everything, and must not win at once."""
    for seed in range(5):
        M, y, D = world(seed, n=n, q=30)
        chosen = choose(posed(M, y, D))
        assert np.isfinite(chosen.state.value) and (chosen.state.rho >= start(posed(M, y, D)) - BELOW).all()


def test_a_term_without_information_does_no_harm():
    M, y, D = world(5)
    M[:, :7] = 0                                               # the first penalty holds nothing that the rows see
    chosen = choose(posed(M, y, D))
    assert np.isfinite(chosen.state.rho).all() and np.allclose(chosen.state.beta[:4], 0)


def test_no_row_left_is_not_enough_data():
    M, y, D = world(0, n=3)
    with pytest.raises(NotEnoughData, match="No row"):
        choose(posed(M, y, D, unpenalized=3))


def test_it_gives_up_in_words():
    M, y, D = world(6)
    with pytest.raises(InputError, match="did not settle"):
        choose(posed(M, y, D), most=1)


# The ceiling


def test_degrees_of_freedom_have_their_ends():
    M, y, D = world(7)
    problem = posed(M, y, D)
    assert degrees(problem, criterion(problem, np.full(3, -25.0))) == pytest.approx(14, abs=1e-3)
    assert degrees(problem, criterion(problem, np.full(3, 25.0))) == pytest.approx(0, abs=1e-3)
    hat = M @ criterion(problem, np.zeros(3)).inverse @ M.T
    assert degrees(problem, criterion(problem, np.zeros(3))) == pytest.approx(np.trace(hat))


@pytest.mark.parametrize("most", [2.0, 5.0, 8.0])
def test_the_ceiling_is_kept_by_one_common_factor(most):
    M, y, D = world(8, noise=0.1)
    problem = posed(M, y, D)
    chosen = choose(problem)
    stiff = stiffen(problem, chosen, most)
    assert degrees(problem, chosen.state) > most
    assert most - 1e-3 < degrees(problem, stiff.state) <= most + 1e-9
    assert np.ptp(stiff.state.rho - chosen.state.rho) < 1e-9
    assert stiffen(problem, chosen, 14.0) is chosen


def test_a_ceiling_below_the_unpenalized_is_refused():
    M, y, D = world(9)
    D[-2:] = 0
    D[-2:, 0] = 0
    problem = posed(M, y, D[:, :2], unpenalized=2)
    with pytest.raises(InputError, match="ceiling"):
        stiffen(problem, choose(problem), 1.0)


# The price of having chosen


def test_the_covariance_of_the_choice_is_positive_and_follows_the_slopes():
    M, y, D = world(10)
    problem = posed(M, y, D)
    chosen = choose(problem)
    extra = choice_covariance(problem, chosen)
    assert np.allclose(extra, extra.T) and np.linalg.eigvalsh(extra).min() > -1e-12 and np.trace(extra) > 0
    rho, small = chosen.state.rho, np.eye(3) * 1e-4
    pairs = [(criterion(problem, rho + e).beta, criterion(problem, rho - e).beta) for e in small]
    moves = np.column_stack([(up - down) / 2e-4 for up, down in pairs])
    size, turn = np.linalg.eigh(chosen.hessian)
    expected = moves @ (turn / np.maximum(size, 0.1)) @ turn.T @ moves.T
    assert np.allclose(extra, expected, rtol=1e-4, atol=1e-10)


def test_it_fades_as_rows_come_in():
    share = []
    for n in (60, 2000):
        M, y, D = world(11, n=n)
        problem = posed(M, y, D)
        chosen = choose(problem)
        given = chosen.state.inverse * chosen.state.dev / n
        share.append(np.trace(choice_covariance(problem, chosen)) / np.trace(given))
    assert share[1] < 0.5 * share[0]
