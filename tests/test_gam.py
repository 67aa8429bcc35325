"""lensnb.gam: pygam's answers where pygam is right, exact shapes, REML, groups, folds, grids, names, refusals."""

import contextlib
import io
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pygam import LinearGAM, f, l, s, te
from pygam.terms import TermList
from scipy.stats import t as student
from sklearn.base import clone

from lensnb.blocks import dense
from lensnb.gam import RIDGE, VaultGAM, fresh_terms
from lensnb.schema import LensnbError

GIVEN = {"smoothing": "given"}
TERMS = {
    "spline": lambda: s(0) + s(1), "prices": lambda: s(0, lam=0.01) + s(1, lam=50), "line": lambda: l(0) + s(1),
    "factor": lambda: f(3) + s(0), "dummy": lambda: f(3, coding="dummy") + s(0), "by": lambda: s(0, by=4) + s(0),
    "by a number": lambda: s(0, by=1), "surface": lambda: te(0, 1, n_splines=6) + s(2),
    "ridge": lambda: s(0, penalties="l2"), "surface of three": lambda: te(0, 1, 2, n_splines=4),
    "spline by line": lambda: te(s(0, n_splines=5), l(1)),
    "spline by factor": lambda: te(s(0, n_splines=5), f(3)), "surface by": lambda: te(0, 1, n_splines=5, by=2),
    "cyclic": lambda: s(0, basis="cp") + s(1), "order 1": lambda: s(0, spline_order=1) + s(1),
    "steps": lambda: s(0, spline_order=0) + s(1), "no penalty": lambda: s(0, penalties=None, n_splines=6) + s(1),
    "two penalties": lambda: s(0, penalties=["derivative", "l2"], lam=[0.1, 0.2]) + s(1),
}


def world(n=240, seed=0, noise=0.3):
    """Three numbers, a factor of four values, one of two; an outcome that bends with the first two; pairs of rows."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.uniform(size=(n, 3)), np.arange(n) % 4, rng.integers(0, 2, n)])
    y = np.sin(4 * X[:, 0]) + X[:, 1] + 0.3 * (X[:, 3] == 2) + rng.normal(0, noise, n)
    return X, y, np.arange(n) // 2


def theirs(terms, X, y, weights=None, **options):
    """pygam's fit, run to the end and without its words."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LinearGAM(terms, tol=1e-10, max_iter=300, **options).fit(X, y, weights=weights)


def single(values):
    """As pygam stores weights."""
    return np.asarray(values).astype("f").astype(float)


# pygam's answers


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", TERMS)
def test_agrees_with_pygam_at_equal_prices(name, weighted):
    X, y, _ = world()
    w = single(np.random.default_rng(1).uniform(0.5, 2, len(y))) if weighted else None
    ours, other = VaultGAM(TERMS[name](), **GIVEN).fit(X, y, weights=w), theirs(TERMS[name](), X, y, w)
    rows = X[::7]
    assert abs(ours.predict(rows) - other.predict(rows)).max() < 1e-5 * y.std()
    for key in ("edof", "scale", "GCV", "AIC"):
        if key != "AIC" or not weighted:                    # under weights pygam's likelihood is another, and wrong
            assert ours.statistics_[key] == pytest.approx(other.statistics_[key], rel=1e-4), key
    widths = [np.diff(g.confidence_intervals(rows))[:, 0] for g in (ours, other)]
    assert (widths[0] > (1 - 1e-6) * widths[1]).all(), "Bayesian bands hold the frequentist ones"


@pytest.mark.parametrize("name", ["spline", "line", "factor", "surface"])
def test_agreement_is_close_where_rows_are_plenty(name):
    X, y, _ = world(1500)
    gap = VaultGAM(TERMS[name](), **GIVEN).fit(X, y).predict(X) - theirs(TERMS[name](), X, y).predict(X)
    assert abs(gap).max() < 1e-6 * y.std()


@given(st.integers(0, 1000), st.integers(20, 60), st.floats(-3, 3))
@settings(max_examples=15)
def test_fewer_rows_than_coefficients_is_augmented_least_squares(seed, n, log_price):
    X, y, _ = world(n, seed)
    gam = VaultGAM(s(0, n_splines=30, lam=10**log_price) + s(1, n_splines=30) + s(2), **GIVEN).fit(X, y)
    B, P = gam.terms.build_columns(X).toarray(), dense(gam.terms.build_penalties())
    P[:-1, :-1] += RIDGE * np.eye(len(P) - 1)
    size, turn = np.linalg.eigh(P)
    below = np.sqrt(np.maximum(size, 0))[:, None] * turn.T
    right = B @ np.linalg.lstsq(np.vstack([B, below]), np.r_[y, np.zeros(len(P))], rcond=None)[0]
    assert abs(gam.predict(X) - right).max() < 1e-5 * y.std()


def test_the_parts_of_pygam_work_on_it(capsys):
    X, y, _ = world()
    gam = VaultGAM(s(0) + l(1) + f(3) + te(0, 2, n_splines=4)).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                                # pygam warns of its own p-values
        gam.summary()
    assert "Pseudo R-Squared" in capsys.readouterr().out
    assert gam.generate_X_grid(term=0).shape == (100, 5) and 0.5 < gam.score(X, y) < 1
    whole = sum(gam.partial_dependence(j, X=X) for j in range(4)) + gam.coef_[-1]
    assert np.allclose(whole, gam.predict(X))
    for j in (0, 2, 3):
        assert abs(gam.partial_dependence(j, X=X).mean()) < 1e-9, "terms are zero on average, but for straight ones"
    low, high = gam.prediction_intervals(X, width=0.9).T
    assert 0.8 < ((low < y) & (y < high)).mean() < 1
    assert gam.sample(X, y, quantity="mu", n_draws=3, n_bootstraps=1).shape == (3, len(y))
    assert np.isfinite(gam.loglikelihood(X, y)) and len(gam.statistics_["p_values"]) == 5


def test_terms_are_zero_on_average_under_weights_too():
    X, y, _ = world()
    w = np.random.default_rng(1).uniform(0.1, 3, len(y))
    gam = VaultGAM(s(0) + l(1) + f(3)).fit(X, y, weights=w)
    assert max(abs(np.average(gam.partial_dependence(j, X=X), weights=w)) for j in range(3) if j != 1) < 1e-9


def test_without_shapes_its_numbers_follow_from_its_covariance():
    X, y, _ = world()
    gam = VaultGAM(s(0) + s(1), **GIVEN).fit(X, y)
    residual = y - gam.predict(X)
    assert gam.statistics_["scale"] ** 2 == pytest.approx(residual @ residual / (len(y) - gam.statistics_["edof"]))
    assert np.allclose(gam.statistics_["se"] ** 2, np.diag(gam.statistics_["cov"]))
    assert np.linalg.eigvalsh(gam.statistics_["cov"]).min() > -1e-9
    B = gam.terms.build_columns(X).toarray()
    sd, width = np.sqrt(((B @ gam.statistics_["cov"]) * B).sum(axis=1)), np.diff(gam.confidence_intervals(X))[:, 0]
    assert np.allclose(width / sd, 2 * student.ppf(0.975, len(y) - gam.statistics_["edof"]))


def test_known_scale_is_used():
    X, y, _ = world()
    known, twice = (VaultGAM(s(0), scale=k, **GIVEN).fit(X, y) for k in (0.3, 0.6))
    assert np.allclose(twice.statistics_["cov"], 4 * known.statistics_["cov"]) and known.statistics_["GCV"] is None
    rss, edof, n = ((y - known.predict(X)) ** 2).sum(), known.statistics_["edof"], len(y)
    assert known.statistics_["UBRE"] == pytest.approx(rss / n + 2 * 1.4 / n * edof * 0.3**2)


# Shapes


SHAPES = ["monotonic_inc", "monotonic_dec", "convex", "concave", ["monotonic_inc", "convex"],
          ["monotonic_inc", "concave"], ["monotonic_dec", "convex"], ["monotonic_dec", "concave"]]
ORDER = {"monotonic_inc": (1, 1), "monotonic_dec": (1, -1), "convex": (2, 1), "concave": (2, -1)}


def worst_step(values, shapes):
    """Largest step against the shapes."""
    asked = [ORDER[c] for c in np.atleast_1d(shapes)]
    return max(float((-sign * np.diff(values, order)).max()) for order, sign in asked)


@pytest.mark.parametrize("smoothing", ["reml", "given"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_is_exact_inside_and_outside(shape, smoothing):
    for seed in range(3):
        X, _, _ = world(70, seed)
        rng = np.random.default_rng(seed)
        y = np.sin(7 * X[:, 0]) + rng.standard_t(2, 70)
        gam = VaultGAM(s(0, constraints=shape) + s(1), smoothing=smoothing).fit(X, y)
        allowed = 0.0 if isinstance(shape, str) and "mono" in shape else 1e-12
        assert worst_step(gam.coef_[:20], shape) <= allowed * abs(gam.coef_).max()
        grid = np.tile(X[:1], (2001, 1))
        grid[:, 0] = np.linspace(-1, 2, 2001)
        assert worst_step(gam.predict(grid), shape) < 1e-9 * y.std()


def test_without_a_declaration_the_curve_turns():
    X, _, _ = world(70)
    y = np.sin(7 * X[:, 0])
    assert worst_step(VaultGAM(s(0)).fit(X, y).coef_[:20], "monotonic_inc") > 0.1
    assert worst_step(VaultGAM(s(0, constraints="monotonic_dec")).fit(X, y).coef_[:20], "monotonic_inc") > 0.1


@pytest.mark.parametrize("axis", [0, 1])
def test_a_surface_keeps_its_direction(axis):
    rng = np.random.default_rng(axis)
    X = rng.uniform(size=(120, 2))
    y = np.cos(5 * X[:, axis]) * X[:, 1 - axis] + rng.normal(0, 0.3, 120)
    margins = [s(j, n_splines=5, constraints="monotonic_inc" if j == axis else None) for j in range(2)]
    gam = VaultGAM(te(*margins)).fit(X, y)
    assert (np.diff(gam.coef_[:25].reshape(5, 5), axis=axis) >= 0).all()
    low, high = X.min(axis=0), X.max(axis=0)
    for place in np.linspace(low[1 - axis], high[1 - axis], 11):
        grid = np.full((301, 2), place)
        grid[:, axis] = np.linspace(low[axis] - 0.5, high[axis] + 0.5, 301)
        assert np.diff(gam.predict(grid)).min() > -1e-10


@pytest.mark.parametrize("seed", range(6))
def test_a_surface_keeps_its_direction_beyond_the_other_feature(seed):
    rng = np.random.default_rng(seed)
    X = rng.uniform(size=(80, 2))
    y = np.sin(6 * X[:, 1]) * X[:, 0] + rng.normal(0, 0.5, 80)
    gam = VaultGAM(te(s(0, n_splines=5, constraints="monotonic_inc"), s(1, n_splines=5))).fit(X, y)
    for place in np.linspace(-0.5, 1.5, 21):
        grid = np.column_stack([np.linspace(-0.5, 1.5, 201), np.full(201, place)])
        assert np.diff(gam.predict(grid)).min() > -1e-9


def test_shapes_that_the_data_obey_change_nothing():
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(300, 1))
    y = 3 * X[:, 0] + rng.normal(0, 0.05, 300)
    free, held = (VaultGAM(s(0, constraints=c, lam=100), **GIVEN).fit(X, y) for c in (None, "monotonic_inc"))
    assert np.allclose(free.predict(X), held.predict(X), atol=1e-9) and not held.fit_.solution.held.any()


def test_the_constrained_fit_is_the_best_of_its_shape():
    X, y, _ = world(80)
    gam = VaultGAM(s(0, constraints="monotonic_inc", n_splines=8), **GIVEN).fit(X, y)
    B, P = gam.terms.build_columns(X).toarray(), dense(gam.terms.build_penalties())
    def cost(c): return ((y - B @ c) ** 2).sum() + c @ P @ c
    rng, best = np.random.default_rng(0), cost(gam.coef_)
    for _ in range(300):
        other = np.r_[np.cumsum(np.r_[rng.normal(), rng.exponential(size=7)]), rng.normal()]
        assert cost(0.99 * gam.coef_ + 0.01 * other) > best - 1e-6


def test_a_fit_that_is_no_solution_raises(monkeypatch):
    import lensnb.cone as cone

    X, _, _ = world(80)
    monkeypatch.setattr(cone, "_zeros", lambda A, b, signed: signed.copy())
    with pytest.raises(cone.NotSolved):
        VaultGAM(s(0, constraints="monotonic_inc"), **GIVEN).fit(X, np.abs(X[:, 0] - 0.5))


# Smoothing chosen


def test_reml_finds_the_curve_and_leaves_the_rest():
    X, y, _ = world(400)
    gam = VaultGAM(s(0) + s(1) + s(2)).fit(X, y)
    edf = [gam.statistics_["edof_per_coef"][20 * j:20 * j + 20].sum() for j in range(3)]
    assert edf[0] > 4 > edf[1] > 0.7 and edf[2] < 4
    assert abs(gam.partial_dependence(2, X=X)).max() < 0.15
    rough, stiff = (VaultGAM(s(0, lam=k) + s(1, lam=k) + s(2, lam=k), **GIVEN).fit(X, y) for k in (1e-4, 1e5))
    truth = np.sin(4 * X[:, 0]) + X[:, 1] + 0.3 * (X[:, 3] == 2)
    error = [((g.predict(X) - truth) ** 2).mean() for g in (gam, rough, stiff)]
    assert error[0] < min(error[1:])


def test_the_chosen_prices_are_written_into_the_terms_and_reproduce_the_fit():
    X, y, _ = world()
    gam = VaultGAM(s(0) + s(1)).fit(X, y)
    prices = np.exp(gam.fit_.chosen.state.rho)
    assert gam.terms[0].lam[0] == pytest.approx(prices[gam._layout.coords.penalty_term == 0][0])
    assert gam.fit(X, y).terms[0].lam == pytest.approx(gam.terms[0].lam), "and are not the start of the next fit"


def test_a_ceiling_on_the_degrees_of_freedom_is_kept():
    X, y, _ = world()
    free = VaultGAM(s(0) + s(1)).fit(X, y).statistics_["edof"]
    for most in (3.0, 5.0):
        held = VaultGAM(s(0) + s(1), max_edf=most).fit(X, y).statistics_["edof"]
        assert most < free and held == pytest.approx(most, abs=0.01)
    with pytest.raises(LensnbError, match="ceiling"):
        VaultGAM(s(0), max_edf=0.5).fit(X, y)


@pytest.mark.parametrize("n", [5, 8, 12, 20, 30])
def test_few_rows_are_not_interpolated(n):
    """More coefficients than rows: a fit that goes through every point knows nothing about its error."""
    for seed in range(6):
        rng = np.random.default_rng((seed, n))
        X = rng.uniform(size=(n, 4))
        y = X[:, 0] + rng.normal(0, 0.5, n)
        gam = VaultGAM(s(0) + s(1) + s(2) + s(3)).fit(X, y)
        assert gam.statistics_["edof"] < 0.75 * n + 1 and gam.statistics_["scale"] > 0.02
        assert np.isfinite(gam.confidence_intervals(X)).all()


def test_bands_hold_what_they_promise():
    held = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        X = rng.uniform(size=(150, 2))
        truth = np.sin(5 * X[:, 0]) + 2 * X[:, 1]
        gam = VaultGAM(s(0) + s(1, constraints="monotonic_inc")).fit(X, truth + rng.normal(0, 1, 150))
        low, high = gam.confidence_intervals(X).T
        held.append(((low <= truth) & (truth <= high)).mean())
    assert np.mean(held) > 0.93


def test_bands_carry_the_choice_of_the_smoothing(monkeypatch):
    import lensnb.gam as room

    X, y, _ = world(100, noise=1.0)
    with_it = np.diff(VaultGAM(s(0) + s(1)).fit(X, y).confidence_intervals(X))
    monkeypatch.setattr(room, "choice_covariance", lambda problem, chosen: np.zeros_like(problem.G))
    without = np.diff(VaultGAM(s(0) + s(1)).fit(X, y).confidence_intervals(X))
    assert (with_it > without - 1e-9).all() and (with_it / without).mean() > 1.01


# Units, names, order


@given(st.integers(0, 100), st.floats(-6, 6), st.floats(-100, 100))
@settings(max_examples=15)
def test_the_unit_and_zero_of_a_curved_feature_do_not_matter(seed, log_k, shift):
    X, y, _ = world(80, seed)
    other = X.copy()
    other[:, 0] = 10**log_k * (X[:, 0] + shift)
    ours, moved = (VaultGAM(s(0, constraints="monotonic_inc") + s(1)).fit(A, y) for A in (X, other))
    assert np.allclose(ours.predict(X), moved.predict(other), atol=1e-6)


@pytest.mark.parametrize("k", [1e-3, 0.1, 1e3])
def test_the_unit_of_a_straight_feature_does_not_matter(k):
    X, y, _ = world()
    other = X * np.array([k, 1, 1, 1, 1]) + np.array([5 * k, 0, 0, 0, 0])
    ours, moved = (VaultGAM(l(0) + s(1)).fit(A, y) for A in (X, other))
    assert np.allclose(ours.predict(X), moved.predict(other), atol=2e-3)


@given(st.integers(0, 100), st.floats(-3, 3), st.floats(-1e3, 1e3))
@settings(max_examples=15)
def test_predictions_follow_the_unit_and_zero_of_the_outcome(seed, log_k, shift):
    X, y, _ = world(80, seed)
    ours = VaultGAM(s(0, constraints="monotonic_dec") + s(1)).fit(X, y)
    moved = VaultGAM(s(0, constraints="monotonic_dec") + s(1)).fit(X, 10**log_k * y + shift)
    assert np.allclose(moved.predict(X), 10**log_k * ours.predict(X) + shift, atol=1e-4 * 10**log_k + 1e-9 * abs(shift))


@pytest.mark.parametrize("k", [0.01, 100.0])
def test_the_unit_of_the_weights_does_not_matter(k):
    X, y, _ = world()
    w = np.random.default_rng(0).uniform(0.5, 2, len(y))
    ours, other = (VaultGAM(s(0) + s(1)).fit(X, y, weights=c * w) for c in (1, k))
    assert np.allclose(ours.predict(X), other.predict(X), atol=1e-5)


def test_rows_in_another_order_give_the_same_curve():
    X, y, who = world()
    mixed = np.random.default_rng(0).permutation(len(y))
    ours = VaultGAM(s(0) + l(1), correlation=0.5).fit(X, y, groups=who)
    other = VaultGAM(s(0) + l(1), correlation=0.5).fit(X[mixed], y[mixed], groups=who[mixed])
    assert np.allclose(ours.predict(X), other.predict(X), atol=1e-8)


def named():
    """A fitted model over a table, the table with its columns exchanged, and the outcome."""
    X, y, who = world()
    table = pd.DataFrame(X[:, :2], columns=["ata_mm", "clr_um"])
    return VaultGAM(s(0) + s(1)).fit(table, y), table, table[["clr_um", "ata_mm"]].assign(more=1.0), y, who


def test_columns_go_by_name_everywhere():
    gam, table, other, y, who = named()
    for ask in (gam.predict, gam.predict_mu, gam.confidence_intervals, gam.prediction_intervals,
                lambda X: gam.partial_dependence(0, X=X), lambda X: gam.partial_dependence(1, X=X, width=0.9)[1],
                lambda X: gam.score(X, y), lambda X: gam.deviance_residuals(X, y), lambda X: gam.loglikelihood(X, y),
                lambda X: gam.sandwich(X, y, who), lambda X: gam.bootstrap(X, y, who, n_boot=2)):
        assert np.array_equal(ask(table), ask(other))
    assert np.array_equal(gam.predict(table), gam.predict(table.to_numpy())), "an array goes by position"
    with pytest.raises(LensnbError, match="clr_um"):
        gam.predict(table[["ata_mm"]])


def test_a_fit_to_an_array_forgets_names():
    gam, table, _, y, _ = named()
    gam.fit(table.to_numpy(), y)
    assert not hasattr(gam, "feature_names_in_") and np.isfinite(gam.predict(table)).all()


def test_a_refused_fit_leaves_the_model_as_it_was():
    gam, table, other, y, _ = named()
    before = gam.predict(table)
    with pytest.raises((LensnbError, ValueError)):
        gam.fit(table.to_numpy(), np.ones(len(y)))
    assert np.array_equal(gam.predict(table), before) and np.array_equal(gam.predict(other), before)


# Copies


def test_a_clone_keeps_terms_and_options_and_nothing_learned():
    X, y, _ = world()
    gam = VaultGAM(s(0, n_splines=7, constraints="convex") + l(1), prior=0.5, correlation=0.3, max_edf=9.0)
    for original in (gam, VaultGAM(s(0, n_splines=7, constraints="convex") + l(1), prior=0.5, max_edf=9.0).fit(X, y)):
        copy = clone(original)
        assert copy.terms[0].n_splines == 7 and list(np.atleast_1d(copy.terms[0].constraints)) == ["convex"]
        assert (copy.prior, copy.max_edf, copy.smoothing) == (0.5, 9.0, "reml")
        assert not hasattr(copy, "coef_") and not hasattr(copy.terms[0], "edge_knots_")
    assert clone(gam).correlation == 0.3


CLONED = {"terms": lambda: s(0) + l(1), "surface": lambda: te(0, 1, n_splines=4), "auto": lambda: "auto",
          "knots": lambda: s(0, edge_knots=[0, 1]), "factor": lambda: f(3) + s(0)}


@pytest.mark.parametrize("make", CLONED.values(), ids=CLONED)
def test_a_clone_can_be_fitted(make):
    X, y, _ = world()
    X = X[:, :4]
    fitted, far = VaultGAM(make()).fit(X, y), VaultGAM(make(), lam=0.6, **GIVEN).fit(10 * X, y)
    for original in (VaultGAM(make()), fitted, clone(fitted), far):
        again = clone(original).set_params(smoothing="reml").fit(X, y)
        assert np.allclose(again.predict(X), fitted.predict(X), atol=1e-9)


def test_a_model_does_not_learn_the_knots_of_its_neighbour_or_its_past():
    X, y, _ = world()
    shared = s(0, n_splines=6)
    near, far = VaultGAM(shared).fit(X, y), VaultGAM(shared).fit(10 * X, y)
    assert near.terms[0].edge_knots_[1] < 2 < far.terms[0].edge_knots_[1] and not hasattr(shared, "edge_knots_")
    again = VaultGAM(s(0) + l(1)).fit(10 * X, y).fit(X, y)
    assert np.array_equal(again.predict(X), VaultGAM(s(0) + l(1)).fit(X, y).predict(X))
    fixed = VaultGAM(s(0, edge_knots=[-1, 2])).fit(X, y).fit(X[:100], y[:100])
    assert list(fixed.terms[0].edge_knots_) == [-1, 2], "knots that a person gave stay"
    surface = VaultGAM(te(0, 1, n_splines=4)).fit(10 * X, y).fit(X, y)
    assert np.array_equal(surface.predict(X), VaultGAM(te(0, 1, n_splines=4)).fit(X, y).predict(X))


def test_fresh_terms_leaves_the_terms_alone():
    terms = s(0) + te(0, 1)
    X, y, _ = world()
    VaultGAM(terms).fit(X, y)
    assert not hasattr(terms[0], "edge_knots_") and fresh_terms("auto") == "auto" and fresh_terms(None) is None


def test_the_same_input_gives_the_same_bytes():
    X, y, who = world()
    a, b = (VaultGAM(s(0, constraints="monotonic_inc") + te(1, 2, n_splines=4)).fit(X, y) for _ in range(2))
    assert a.coef_.tobytes() == b.coef_.tobytes() and a.statistics_["cov"].tobytes() == b.statistics_["cov"].tobytes()
    boots = [VaultGAM(s(0)).fit(X, y).bootstrap(X, y, who, n_boot=3, seed=k) for k in (1, 1, 2)]
    assert boots[0].tobytes() == boots[1].tobytes() != boots[2].tobytes()


def test_auto_terms_are_one_curve_for_each_feature():
    X, y, _ = world()
    assert len(VaultGAM().fit(X[:, :3], y).terms) == 4


# Groups


def test_no_correlation_is_ordinary_least_squares():
    X, y, who = world()
    plain, grouped = VaultGAM(s(0) + s(1)).fit(X, y), VaultGAM(s(0) + s(1), correlation=0.0).fit(X, y, groups=who)
    assert np.allclose(plain.predict(X), grouped.predict(X), atol=1e-10)
    alone = VaultGAM(s(0) + s(1), correlation=0.7).fit(X, y, groups=np.arange(len(y)))
    assert np.allclose(plain.predict(X), alone.predict(X), atol=1e-8), "groups of one share nothing"


@pytest.mark.parametrize("rho", [0.3, 0.9])
def test_straight_terms_are_explicit_generalized_least_squares(rho):
    X, y, _ = world(60)
    w, who = np.random.default_rng(2).uniform(0.5, 2, 60), np.repeat(np.arange(24), [1, 2, 3, 4] * 6)
    lines = l(0, penalties=None) + l(1, penalties=None)
    gam = VaultGAM(lines, correlation=rho, **GIVEN).fit(X, y, weights=w, groups=who)
    same = who[:, None] == who[None, :]
    V = np.where(np.eye(60, dtype=bool), 1, rho * same) / np.sqrt(np.outer(w, w))
    D = np.column_stack([X[:, :2], np.ones(60)])
    bread = np.linalg.inv(D.T @ np.linalg.solve(V, D))
    beta = bread @ D.T @ np.linalg.solve(V, y)
    assert np.allclose(gam.coef_, beta, atol=1e-5)
    r = y - D @ beta
    s2 = r @ np.linalg.solve(V, r) / (60 - 3)
    assert np.allclose(gam.statistics_["cov"], s2 * bread, rtol=1e-4, atol=1e-8)


def test_weights_of_whole_numbers_are_repeated_rows_for_the_curve():
    X, y, _ = world(100)
    times = np.random.default_rng(0).integers(0, 4, 100)
    times[:4] = 1
    again = np.repeat(np.arange(100), times)
    knots = [[X[:, j].min(), X[:, j].max()] for j in range(2)]
    make = lambda: s(0, edge_knots=knots[0]) + s(1, edge_knots=knots[1])
    weighted = VaultGAM(make(), **GIVEN).fit(X, y, weights=times)
    repeated = VaultGAM(make(), **GIVEN).fit(X[again], y[again])
    assert np.allclose(weighted.predict(X), repeated.predict(X), atol=1e-8)


def test_the_sandwich_of_single_rows_has_a_closed_form():
    X, y, _ = world(120)
    w = np.random.default_rng(3).uniform(0.5, 2, 120)
    for weights in (None, w):
        gam = VaultGAM(l(0, penalties=None) + l(1, penalties=None), **GIVEN).fit(X, y, weights=weights)
        D, v = np.column_stack([X[:, :2], np.ones(120)]), np.ones(120) if weights is None else w
        bread, r = np.linalg.inv(D.T @ (v[:, None] * D)), y - gam.predict(X)
        meat = D.T @ ((v * r)[:, None] ** 2 * D)
        expected = bread @ meat @ bread * 120 / 119
        assert np.allclose(gam.sandwich(X, y, np.arange(120), weights), expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("rho", [0.0, 0.5])
@pytest.mark.parametrize("make", [lambda: s(0, n_splines=7) + l(1), lambda: te(0, 1, n_splines=4)])
def test_the_sandwich_is_the_sum_of_squared_influences(make, rho):
    X, y, who = world(80)
    gam = VaultGAM(make(), correlation=rho, **GIVEN).fit(X, y, groups=who)
    B, step, influence = gam.terms.build_columns(X).toarray(), 1e-4, []
    for k in range(40):
        w = np.where(who == k, 1 + step, 1.0)
        other = VaultGAM(make(), correlation=rho, **GIVEN).fit(X, y, weights=w, groups=who)
        influence.append((other.predict(X) - gam.predict(X)) / step)
    expected = np.sqrt((np.array(influence) ** 2).sum(axis=0) * 40 / 39)
    assert np.allclose(np.sqrt(np.diag(B @ gam.sandwich(X, y, who) @ B.T)), expected, rtol=1e-3)


def test_a_bootstrap_refits_to_repeated_rows():
    """A patient drawn twice counts twice: for the curve, for the error variance and so for the smoothing."""
    X, y, who = world(120)
    gam = VaultGAM(s(0) + s(1)).fit(X, y)
    ours, rng = gam.bootstrap(X, y, who, n_boot=6, seed=3), np.random.default_rng(3)
    B = gam.terms.build_columns(X).toarray()
    knots = [list(gam.terms[j].edge_knots_) for j in range(2)]
    for coef in ours:
        rows = np.repeat(np.arange(120), rng.multinomial(60, np.full(60, 1 / 60))[who])
        other = VaultGAM(s(0, edge_knots=knots[0]) + s(1, edge_knots=knots[1])).fit(X[rows], y[rows])
        assert np.allclose(B @ coef, other.predict(X), atol=2e-3)


def test_the_bootstrap_finds_the_error_of_patients():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(150), 2)
    x = np.repeat(rng.uniform(size=150), 2)[:, None]
    y = 2 * x[:, 0] + np.repeat(rng.normal(size=150), 2) + 0.3 * rng.normal(size=300)
    gam = VaultGAM(l(0, penalties=None), **GIVEN).fit(x, y)
    by_patient, by_eye = (gam.bootstrap(x, y, g, n_boot=200)[:, 0].std() for g in (who, np.arange(300)))
    assert by_patient == pytest.approx(gam.sandwich(x, y, who)[0, 0] ** 0.5, rel=0.15) and by_eye < 0.85 * by_patient


def test_one_group_has_no_sandwich():
    X, y, _ = world()
    with pytest.raises(LensnbError):
        VaultGAM(s(0)).fit(X, y).sandwich(X, y, np.zeros(len(y)))


# Folds


@pytest.mark.parametrize("smoothing", ["reml", "given"])
@pytest.mark.parametrize("rho", [0.0, 0.6])
@pytest.mark.parametrize("weighted", [False, True])
def test_folds_by_subtraction_are_refits(smoothing, rho, weighted):
    X, y, who = world(150)
    folds, w = who % 5, np.random.default_rng(0).uniform(0.5, 2, 150) if weighted else np.ones(150)
    knots = [[X[:, j].min(), X[:, j].max()] for j in range(3)]
    def make():
        terms = TermList(s(0, edge_knots=knots[0], constraints="monotonic_inc"), l(1), s(2, edge_knots=knots[2]))
        return VaultGAM(terms, smoothing=smoothing, correlation=rho)
    fast, slow = make().cross_predict(X, y, folds, who, weights=w), np.full(150, np.nan)
    for k in range(5):
        one = make().fit(X[folds != k], y[folds != k], weights=w[folds != k], groups=who[folds != k])
        slow[folds == k] = one.predict(X[folds == k])
    assert np.allclose(fast, slow, atol=2e-4 if smoothing == "reml" else 1e-6)


def test_folds_that_tear_a_patient_are_refused():
    X, y, who = world()
    with pytest.raises(LensnbError):
        VaultGAM(s(0)).cross_predict(X, y, np.arange(len(y)) % 5, who)


def test_leaving_rows_out_changes_their_prediction():
    X, y, who = world(100)
    y[:2] += 50
    gam = VaultGAM(s(0) + s(1))
    out = gam.cross_predict(X, y, who % 10, who)
    assert abs(out[0] - y[0]) > abs(gam.predict(X[:1])[0] - y[0])


# Grids


def searched(model, X, y, **grids):
    """Scores of a grid search."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.gridsearch(X, y, progress=False, return_scores=True, **grids)


@pytest.mark.parametrize("objective", ["auto", "GCV", "AIC", "AICc"])
@pytest.mark.parametrize("grid", [np.logspace(-2, 3, 6), [[0.1, 10], [1.0, 100.0, 1000.0]],
                                  np.array([[0.1, 3.0], [5.0, 5.0]]), None], ids=str)
def test_a_grid_of_prices_has_pygams_scores_and_winner(grid, objective):
    X, y, _ = world()
    grids = {} if grid is None else {"lam": grid}
    w = single(np.random.default_rng(1).uniform(0.5, 2, len(y))) if objective == "GCV" else None
    ours = searched(VaultGAM(s(0, n_splines=10) + s(1)), X, y, objective=objective, weights=w, **grids)
    other = searched(LinearGAM(s(0, n_splines=10) + s(1)), X, y, objective=objective, weights=w, **grids)
    assert np.allclose(list(ours.values()), list(other.values()), rtol=1e-5)
    best = [min(m, key=m.get).terms[0].lam for m in (ours, other)]
    assert np.allclose(*best)


def test_the_winner_is_kept_and_predicts():
    X, y, _ = world()
    ours = VaultGAM(s(0) + s(1)).gridsearch(X, y, progress=False)
    other = LinearGAM(s(0) + s(1)).gridsearch(X, y, progress=False)
    assert np.allclose(ours.predict(X), other.predict(X), atol=1e-5) and ours.lam == other.lam


def test_without_keeping_the_best_the_model_stays_as_it_was():
    X, y, _ = world()
    gam = VaultGAM(s(0) + s(1))
    searched(gam, X, y, lam=[0.1, 10.0], keep_best=False)
    assert gam.smoothing == "reml" and not gam._is_fitted
    gam.fit(X, y)
    before = gam.predict(X)
    searched(gam, X, y, lam=[0.1, 10.0], keep_best=False)
    assert gam.smoothing == "reml" and np.array_equal(gam.predict(X), before)


def test_a_grid_of_something_else_goes_pygams_way():
    X, y, _ = world()
    ours = searched(VaultGAM(s(0) + s(1), **GIVEN), X, y, n_splines=[5, 10, 15])
    other = searched(LinearGAM(s(0) + s(1)), X, y, n_splines=[5, 10, 15])
    assert np.allclose(list(ours.values()), list(other.values()), rtol=1e-5)
    assert all(type(g) is VaultGAM for g in ours)


@pytest.mark.parametrize("words", [{"objective": "best"}, {"objective": "UBRE"}, {"lam": [[1, 2], [3], [4]]},
                                   {"lam": np.ones((3, 5))}])
def test_impossible_grids_are_refused(words):
    X, y, _ = world()
    gam = VaultGAM(s(0) + s(1))
    with pytest.raises((LensnbError, ValueError)):
        gam.gridsearch(X, y, progress=False, **words)
    assert gam.smoothing == "reml"


# Odd tables and refusals


FLAT = [lambda: s(0) + s(2), lambda: s(0, constraints="monotonic_inc") + s(2), lambda: s(0) + l(2),
        lambda: s(0) + te(1, 2, n_splines=4)]


@pytest.mark.parametrize("terms", FLAT)
def test_a_constant_feature_says_nothing_and_does_no_harm(terms):
    X, y, _ = world()
    X[:, 2] = 5.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gam = VaultGAM(terms()).fit(X, y)
        bands = gam.confidence_intervals(X)
    assert np.isfinite(bands).all() and np.ptp(bands, axis=1).mean() < 2
    assert np.allclose(gam.predict(X).mean(), y.mean(), atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_hardly_any_rows(n):
    X, y, _ = world()
    try:
        gam = VaultGAM(s(0)).fit(X[:n], y[:n])
    except LensnbError as e:
        assert n == 1 and "row" in str(e).lower() or "value" in str(e).lower()
    else:
        assert n > 1 and np.isfinite(gam.predict(X)).all()


def spoiled(X, y, who, what):
    """Arguments of a fit with one fault."""
    X, y, words = X.copy(), y.copy(), {}
    if what == "a gap in X": X[3, 0] = np.nan
    if what == "a gap in y": y[3] = np.nan
    if what == "an infinite y": y[3] = np.inf
    if what == "a constant y": y[:] = 1.0
    if what == "too few y": y = y[:-1]
    if what == "too few weights": words["weights"] = np.ones(len(y) - 1)
    if what == "a negative weight": words["weights"] = np.r_[-1.0, np.ones(len(y) - 1)]
    if what == "a weight that is no number": words["weights"] = np.r_[np.nan, np.ones(len(y) - 1)]
    if what == "no weight at all": words["weights"] = np.zeros(len(y))
    if what == "too few groups": words["groups"] = who[:-1]
    if what == "too many groups": words["groups"] = np.r_[who, 0]
    if what == "a missing group": words["groups"] = np.r_[np.nan, who[1:]]
    return X, y, words


FAULTS = ["a gap in X", "a gap in y", "an infinite y", "a constant y", "too few y", "too few weights",
          "a negative weight", "a weight that is no number", "no weight at all", "too few groups", "too many groups",
          "a missing group"]


@pytest.mark.parametrize("what", FAULTS)
def test_faults_are_refused_in_words(what):
    X, y, words = spoiled(*world(), what)
    with pytest.raises((LensnbError, ValueError)) as told:
        VaultGAM(s(0) + s(1), correlation=0.5 if "group" in what else 0.0).fit(X, y, **words)
    assert len(str(told.value)) > 20


@pytest.mark.parametrize("make", [
    lambda: VaultGAM(s(0), fit_intercept=False), lambda: VaultGAM(None), lambda: VaultGAM(s(0), smoothing="best"),
    lambda: VaultGAM(s(0, constraints=lambda n, c: np.eye(n))), lambda: VaultGAM(s(9)),
    lambda: VaultGAM(te(s(0, constraints="convex"), s(1, constraints="convex"))),
    lambda: VaultGAM(s(0), correlation=1.0)])
def test_models_that_cannot_be_are_refused(make):
    X, y, who = world()
    with pytest.raises((LensnbError, ValueError)) as told:
        make().fit(X, y, groups=who)
    assert len(str(told.value)) > 20


def test_repeated_columns_are_shared_or_refused_in_words():
    X, y, _ = world()
    twice = np.column_stack([X[:, 0], X[:, 0], X[:, 1]])
    shared = VaultGAM(s(0) + s(1) + s(2)).fit(twice, y)
    assert np.isfinite(shared.predict(twice)).all() and shared.score(twice, y) > 0.5
    for k in (1.0, 1e3, 1e6):
        far, pair = k * twice, l(0, penalties=None) + l(1, penalties=None)
        try:
            both = VaultGAM(pair, **GIVEN).fit(far, y).predict(far)
        except LensnbError as e:
            assert "repeat" in str(e)
        else:
            assert np.allclose(both, VaultGAM(l(0, penalties=None), **GIVEN).fit(far, y).predict(far), atol=1e-4)


def test_gaps_in_a_column_that_no_term_uses_are_still_refused():
    X, y, _ = world()
    X[0, 4] = np.nan
    with pytest.raises(ValueError):
        VaultGAM(s(0)).fit(X, y)


def test_outcomes_without_noise_are_found():
    X, _, _ = world()
    y = 2 * X[:, 0] - X[:, 1]
    gam = VaultGAM(s(0, constraints="monotonic_inc") + s(1)).fit(X, y)
    assert abs(gam.predict(X) - y).max() < 1e-3
