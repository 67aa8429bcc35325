"""lensnb.gram: pygam's columns, sums that add and subtract, weights, whitening, chunks, reference points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pygam import LinearGAM, f, l, s, te

import lensnb.gram as room
from lensnb.gram import cells_of, design, gram, local_basis, make_rows, score_squares, standardized, whiten
from lensnb.schema import InputError

FIELDS = ("XtX", "Xty", "yty", "total", "weight", "log_weight", "n")


def compiled(terms, X):
    """pygam's compiled terms, the intercept last."""
    gam = LinearGAM(terms)
    gam._validate_params()
    gam._validate_data_dep_params(X)
    return list(gam.terms)


def world(n=60, seed=0, groups=False):
    """Five features (the fourth has four values, the fifth two), an outcome, weights, groups of 1 to 4."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.uniform(size=(n, 3)), rng.integers(0, 4, n), rng.integers(0, 2, n)])
    X[:4, 3] = range(4)
    who = np.sort(rng.integers(0, max(2, n // 3), n)) if groups else None
    return X, rng.normal(size=n) + X[:, 0], rng.uniform(0.5, 2, n), who


TERMS = {
    "spline": lambda: s(0), "quadratic": lambda: s(0, spline_order=2, n_splines=7),
    "steps": lambda: s(0, spline_order=0, n_splines=5), "line": lambda: l(1), "factor": lambda: f(3),
    "dummy": lambda: f(3, coding="dummy"), "by": lambda: s(0, by=1), "by, 0 or 1": lambda: s(0, by=4),
    "cyclic": lambda: s(2, basis="cp"), "surface": lambda: te(0, 1, n_splines=5),
    "surface of three": lambda: te(0, 1, 2, n_splines=4), "surface by": lambda: te(0, 1, n_splines=4, by=2),
    "spline and factor": lambda: te(s(0, n_splines=5), f(3)), "all": lambda: s(0) + l(1) + f(3) + te(1, 2, n_splines=4),
}


# Columns


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5])
def test_hills_are_positive_and_add_up_to_one(degree):
    hills = local_basis(np.linspace(0, 1, 101), degree)
    assert hills.shape == (degree + 1, 101) and (hills >= 0).all() and np.allclose(hills.sum(axis=0), 1, atol=1e-15)


def test_hills_of_a_cubic_have_a_closed_form():
    t = np.linspace(0, 1, 11)
    expected = np.array([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    assert np.allclose(local_basis(t, 3), expected, atol=1e-15)


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=2, max_size=30), st.integers(4, 30))
@settings(max_examples=60)
def test_every_value_lies_in_its_cell(values, count):
    X = np.array(values)[:, None]
    term = compiled(s(0, n_splines=count), X)[0]
    cell, t = cells_of(term, X[:, 0])
    assert ((0 <= cell) & (cell < count - 3)).all() and t.min() > -1e-9 and t.max() < 1 + 1e-9


@pytest.mark.parametrize("name", TERMS)
def test_columns_are_pygams(name):
    X, y, _, _ = world()
    terms, rows = compiled(TERMS[name](), X), make_rows(X, y)
    ours = design(terms, rows, 0, len(y))
    theirs = np.hstack([np.asarray(t.build_columns(X).toarray(), dtype=float) for t in terms])
    place = 0
    for t in terms:
        if type(t).__name__ == "LinearTerm":
            x = X[:, t.feature]
            theirs[:, place] = (x - x.mean()) / x.std()
        place += t.n_coefs
    assert np.allclose(ours, theirs, atol=1e-8)


def test_values_beyond_the_knots_are_pygams_too():
    X = np.linspace(-1, 2, 40)[:, None]
    terms = compiled(s(0, edge_knots=[0, 1], n_splines=8), X)
    ours = design(terms, make_rows(X, X[:, 0]), 0, 40)[:, :8]
    assert np.allclose(ours, terms[0].build_columns(X).toarray(), atol=1e-12)


# Sums


def equal(a, b, rtol=1e-10):
    """Whether two Grams are the same to rounding."""
    scale = {"XtX": abs(b.XtX).max(), "Xty": abs(b.Xty).max() + 1, "total": abs(b.total).max()}
    small = {k: rtol * scale.get(k, abs(b.yty) + 1) for k in FIELDS}
    return all(np.allclose(getattr(a, k), getattr(b, k), rtol=rtol, atol=small[k]) for k in FIELDS)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_are_the_products_of_the_columns(name, weighted):
    X, y, w, _ = world()
    w = w if weighted else np.ones(len(y))
    terms, rows = compiled(TERMS[name](), X), make_rows(X, y, w)
    D, sums, centred = design(terms, rows, 0, len(y)), gram(terms, rows), y - rows.y0
    assert np.allclose(sums.XtX, D.T @ (w[:, None] * D)) and np.allclose(sums.Xty, D.T @ (w * centred))
    assert np.isclose(sums.yty, w @ centred**2) and np.allclose(sums.total, w @ D) and sums.n == len(y)
    assert np.isclose(sums.weight, w.sum()) and np.isclose(sums.log_weight, np.log(w).sum())
    assert np.allclose(sums.means, np.average(D, axis=0, weights=w)) and np.array_equal(sums.XtX, sums.XtX.T)


@given(st.integers(0, 10_000), st.integers(10, 80), st.booleans())
@settings(max_examples=25)
def test_parts_add_up_and_can_be_taken_away(seed, n, grouped):
    X, y, w, who = world(n, seed, grouped)
    terms, rows = compiled(s(0, n_splines=6) + l(1), X), make_rows(X, y, w, who, 0.6 if grouped else 0.0)
    keep = (np.arange(n) % 3 > 0) if who is None else (rows.group_of_row() % 3 > 0)
    whole, part, rest = gram(terms, rows), gram(terms, rows.where(keep)), gram(terms, rows.where(~keep))
    assert equal(part + rest, whole) and equal(whole - rest, part)


@given(st.integers(0, 10_000), st.integers(6, 50))
@settings(max_examples=25)
def test_a_weight_is_a_repetition(seed, n):
    X, y, _, _ = world(n, seed)
    times = np.random.default_rng(seed).integers(0, 4, n)
    times[:2] = 1, 2
    again = np.repeat(np.arange(n), times)
    terms = compiled(s(0, n_splines=5) + l(1), X)
    ours, theirs = gram(terms, make_rows(X, y, times.astype(float))), gram(terms, make_rows(X[again], y[again]))
    assert np.allclose(ours.XtX, theirs.XtX) and np.allclose(ours.Xty, theirs.Xty) and np.isclose(ours.yty, theirs.yty)
    assert np.isclose(ours.weight, theirs.weight) and np.allclose(ours.means, theirs.means)
    assert ours.n == (times > 0).sum(), "but it is not counted as several rows: a weight is a precision"


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
@pytest.mark.parametrize("grouped", [False, True])
def test_chunks_do_not_matter(chunk, grouped, monkeypatch):
    X, y, w, who = world(groups=grouped)
    terms, rows = compiled(s(0) + te(1, 2, n_splines=4), X), make_rows(X, y, w, who, 0.5 if grouped else 0.0)
    whole = gram(terms, rows)
    bounds = room._chunks
    monkeypatch.setattr(room, "_chunks", lambda rows: bounds(rows, chunk))
    cuts = list(room._chunks(rows))
    assert len(cuts) > 3 or chunk == 1000
    assert equal(gram(terms, rows), whole)
    coef = np.linspace(-1, 1, len(whole.Xty))
    small = score_squares(terms, rows, coef)
    monkeypatch.setattr(room, "_chunks", bounds)
    assert np.allclose(small, score_squares(terms, rows, coef))


def test_groups_are_never_torn():
    who = np.repeat(np.arange(5), [1, 9, 1, 4, 2])
    rows = make_rows(np.zeros((17, 1)), np.zeros(17), None, who, 0.5)
    for chunk in range(1, 18):
        cuts = list(room._chunks(rows, chunk))
        assert cuts[0][0] == 0 and cuts[-1][1] == 17 and all(a[1] == b[0] for a, b in zip(cuts, cuts[1:]))
        assert {a for a, _ in cuts} <= set(rows.starts)


def test_the_order_of_rows_does_not_matter():
    X, y, w, who = world(groups=True)
    mixed = np.random.default_rng(1).permutation(len(y))
    terms = compiled(s(0) + l(1), X)
    other = gram(terms, make_rows(X[mixed], y[mixed], w[mixed], who[mixed], 0.7))
    assert equal(other, gram(terms, make_rows(X, y, w, who, 0.7)))


# Whitening


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.9])
def test_whitened_sums_are_those_of_explicit_generalized_least_squares(rho):
    X, y, w, _ = world(40)
    who = np.repeat(np.arange(16), [1, 2, 3, 4] * 4)
    terms, rows = compiled(s(0, n_splines=6) + l(1), X), make_rows(X, y, w, who, rho)
    D, e = design(terms, rows, 0, 40), rows.y - rows.y0
    same = who[:, None] == who[None, :]
    V = np.where(np.eye(40, dtype=bool), 1.0, rho * same) / np.sqrt(rows.w[:, None] * rows.w[None, :])
    sums, inverse = gram(terms, rows), np.linalg.inv(V)
    assert np.allclose(sums.XtX, D.T @ inverse @ D) and np.allclose(sums.Xty, D.T @ inverse @ e)
    assert np.isclose(sums.yty, e @ inverse @ e)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_whitened_rows_are_uncorrelated(size):
    V = np.full((size, size), 0.6)
    np.fill_diagonal(V, 1.0)
    root = np.eye(size)
    whiten(root, np.array([0]), 0.6)
    assert np.allclose(root @ V @ root.T, np.eye(size))


def test_a_wrong_correlation_is_seen():
    V, root = np.array([[1, 0.6], [0.6, 1]]), np.eye(2)
    whiten(root, np.array([0]), 0.3)
    assert not np.allclose(root @ V @ root.T, np.eye(2), atol=0.1)


def test_correlation_without_company_changes_nothing():
    X, y, w, _ = world()
    terms = compiled(s(0), X)
    alone = gram(terms, make_rows(X, y, w, np.arange(len(y)), 0.0))
    assert equal(alone, gram(terms, make_rows(X, y, w)))
    assert equal(gram(terms, make_rows(X, y, w, np.arange(len(y)), 0.8)), alone), "one row has nothing to share"


@pytest.mark.parametrize("rho", [-0.1, 1.0, 1.5, np.nan])
def test_impossible_correlations_are_refused(rho):
    with pytest.raises(InputError, match="correlation"):
        make_rows(np.zeros((2, 1)), np.zeros(2), None, np.zeros(2), rho)


# Reference points


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e9])
def test_far_straight_columns_lose_nothing(offset):
    x = np.random.default_rng(0).normal(size=200)
    X, y = (x + offset)[:, None], 3 * x
    terms, rows = compiled(l(0), X), make_rows(X, y)
    sums = gram(terms, rows)
    assert np.isclose(sums.XtX[0, 0], 200, rtol=1e-9) and abs(sums.total[0]) < 1e-4, "counted in SDs from the mean"
    assert np.isclose(sums.Xty[0] / sums.XtX[0, 0], 3 * x.std(), rtol=1e-6)


def test_the_outcome_is_counted_from_its_mean():
    X, y, _, _ = world()
    terms = compiled(s(0), X)
    far, near = gram(terms, make_rows(X, y + 1e9)), gram(terms, make_rows(X, y))
    assert np.allclose(far.Xty, near.Xty, atol=1e-4) and np.isclose(far.yty, near.yty, rtol=1e-6)


def test_rows_of_weight_zero_are_not_there():
    X, y, w, _ = world()
    w[::3] = 0
    X_odd, y_odd = X.copy(), y.copy()
    X_odd[::3], y_odd[::3] = 1e12, -1e12
    keep = w > 0
    terms = compiled(s(0), X[keep])
    for A, b in ((X, y), (X_odd, y_odd)):
        rows = make_rows(A, b, w)
        assert np.array_equal(rows.order, np.flatnonzero(keep))
        assert equal(gram(terms, rows), gram(terms, make_rows(X[keep], y[keep], w[keep])))


# The sandwich's middle


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_squares_of_scores_have_a_closed_form(rho):
    X, y, w, who = world(groups=True)
    terms, rows = compiled(s(0, n_splines=5) + l(1), X), make_rows(X, y, w, who, rho)
    coef = np.linspace(-1, 1, 7)
    D = design(terms, rows, 0, len(y))
    e = standardized(D, rows.y - rows.y0 - D @ coef, rows, 0, len(y))
    expected = np.zeros((7, 7))
    for group in range(len(rows.starts)):
        own = rows.group_of_row() == group
        u = D[own].T @ e[own]
        expected += np.outer(u, u)
    assert np.allclose(score_squares(terms, rows, coef), expected)


def test_where_keeps_reference_points_and_groups():
    X, y, w, who = world(groups=True)
    rows = make_rows(X, y, w, who, 0.5)
    some = rows.where(rows.group_of_row() % 2 == 0)
    assert np.array_equal(some.shift, rows.shift) and some.y0 == rows.y0
    assert np.array_equal(who[some.order], np.sort(who[some.order])) and len(some.starts) == len(set(who[some.order]))
