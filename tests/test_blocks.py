"""lensnb.blocks: cones that are exactly the shapes, penalties that are exactly pygam's, levels, surfaces, order."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pygam import LinearGAM, f, l, s, te

from lensnb.blocks import (cone_basis, coordinates, dense, has_level, in_order, make_blocks, shapes_of, spectrum,
                           unit_penalty, with_null_penalty)
from lensnb.schema import InputError

RISE, BEND = ("monotonic_inc", "monotonic_dec"), ("convex", "concave")
SHAPES = [(), *((c,) for c in RISE + BEND), *product(RISE, BEND), *product(BEND, RISE)]


def compiled(terms, n=80, seed=0):
    """pygam's compiled terms over three features, a factor of four values and one of two."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.uniform(size=(n, 3)), np.arange(n) % 4, np.arange(n) % 2])
    gam = LinearGAM(terms)
    gam._validate_params()
    gam._validate_data_dep_params(X)
    return list(gam.terms), X


def obeys(heights, shapes, tolerance=1e-9, axis=0):
    """Whether heights have the shapes."""
    orders = {"monotonic_inc": (1, 1), "monotonic_dec": (1, -1), "convex": (2, 1), "concave": (2, -1)}
    asked = [orders[c] for c in shapes]
    return all((sign * np.diff(heights, order, axis=axis) >= -tolerance).all() for order, sign in asked)


# Cones


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("k", [2, 3, 4, 9, 25])
def test_every_amount_makes_the_shape(k, shapes):
    T, signed = cone_basis(k, shapes)
    assert T.shape == (k, k - 1) and signed.shape == (k - 1,)
    assert np.linalg.matrix_rank(np.column_stack([np.ones(k), T])) == k, "with a level, every curve can be written"
    rng = np.random.default_rng(k)
    for _ in range(20):
        amounts = rng.exponential(size=k - 1) * (rng.random(k - 1) < 0.5)
        amounts[~signed] = rng.normal(size=(~signed).sum())
        assert obeys(T @ amounts + 5, shapes)


@given(st.sampled_from(SHAPES), st.integers(3, 15), st.integers(0, 10_000))
@settings(max_examples=120)
def test_every_curve_of_the_shape_is_in_the_cone_and_no_other(shapes, k, seed):
    T, signed = cone_basis(k, shapes)
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=k - 1)
    if any(c in BEND for c in shapes):
        steps = np.sort(steps) * (1 if "convex" in shapes else -1)
    if "monotonic_inc" in shapes:
        steps = steps - steps.min()
    if "monotonic_dec" in shapes:
        steps = steps - steps.max()
    heights = np.r_[0, np.cumsum(steps)]
    assert obeys(heights, shapes, 1e-12)
    inside = np.linalg.solve(np.column_stack([np.ones(k), T]), heights)[1:]
    assert (inside[signed] >= -1e-9).all()
    if shapes:
        turned = np.linalg.solve(np.column_stack([np.ones(k), T]), -heights)[1:]
        assert obeys(-heights, shapes, 1e-9) == bool((turned[signed] >= -1e-9).all())


def test_a_wrong_sign_in_the_cone_would_be_seen():
    T, signed = cone_basis(6, ("monotonic_inc",))
    assert not obeys(-T @ np.ones(5), ("monotonic_inc",)) and signed.all()
    assert not obeys(cone_basis(6, ("convex",))[0] @ np.arange(5.0), ("concave",))


def test_shapes_are_read_from_terms():
    assert shapes_of(s(0)) == () and shapes_of(s(0, constraints="convex")) == ("convex",)
    assert shapes_of(s(0, constraints=["monotonic_inc", "concave"])) == ("monotonic_inc", "concave")


# Penalties


UNITS = [lambda: s(0), lambda: s(0, n_splines=5), lambda: s(0, penalties="l2"), lambda: l(0), lambda: f(3),
         lambda: s(0, penalties=["derivative", "l2"], lam=[3, 5]), lambda: s(0, penalties=None),
         lambda: te(0, 1, n_splines=4), lambda: s(0, basis="cp")]


@pytest.mark.parametrize("make", UNITS)
def test_the_unit_penalty_is_pygams_at_price_one(make):
    (term, _), _ = compiled(make())
    unit, before = unit_penalty(term), np.array(term.lam, dtype=object).tolist()
    assert np.array(term.lam, dtype=object).tolist() == before, "the term keeps its price"
    term.lam = [1.0] * len(np.atleast_1d(term.lam)) if not term.istensor else term.lam
    if not term.istensor:
        assert np.allclose(unit, dense(term.build_penalties()))
    assert np.allclose(unit, unit.T) and np.linalg.eigvalsh(unit).min() > -1e-9


@pytest.mark.parametrize("k", [3, 4, 10, 25])
def test_the_spectrum_rebuilds_the_penalty_and_starts_with_the_level(k):
    P = np.diff(np.eye(k), 2, axis=0).T @ np.diff(np.eye(k), 2, axis=0)
    U, d, level = spectrum(P)
    assert level and np.allclose(U.T @ U, np.eye(k)) and np.allclose((U * d) @ U.T, P)
    assert np.allclose(abs(U[:, 0]), 1 / np.sqrt(k)) and np.isclose(d, 0, atol=1e-9).sum() == 2


def test_a_penalty_of_the_level_keeps_it_apart_where_it_can():
    U, d, level = spectrum(np.eye(4))
    assert level and np.allclose(d, 1) and np.allclose(U @ U.T, np.eye(4)) and np.allclose(abs(U[:, 0]), 0.5)
    odd = np.diag([1.0, 2.0, 3.0])
    U, d, level = spectrum(odd)
    assert not level and np.allclose((U * d) @ U.T, odd)


def test_the_second_penalty_covers_what_the_first_leaves_free():
    D = with_null_penalty(np.array([[0.0], [0.0], [2.0]]))
    assert D.tolist() == [[0, 1], [0, 1], [2, 0]]
    assert with_null_penalty(np.array([[1.0], [2.0]])).shape == (2, 1), "nothing is free"
    assert with_null_penalty(np.zeros((3, 1))).shape == (3, 0), "a term without penalty gets none"


# Blocks


BLOCKS = {
    "spline": lambda: s(0), "few": lambda: s(0, n_splines=4), "rising": lambda: s(0, constraints="monotonic_inc"),
    "two shapes": lambda: s(0, constraints=["monotonic_dec", "convex"]), "line": lambda: l(0), "factor": lambda: f(3),
    "dummy": lambda: f(3, coding="dummy"), "by": lambda: s(0, by=1), "ridge": lambda: s(0, penalties="l2"),
    "both penalties": lambda: s(0, penalties=["derivative", "l2"]), "no penalty": lambda: s(0, penalties=None),
    "cyclic": lambda: s(0, basis="cp"), "surface": lambda: te(0, 1, n_splines=5),
    "surface, rising": lambda: te(s(0, n_splines=5, constraints="monotonic_inc"), s(1, n_splines=4)),
    "spline by line": lambda: te(s(0, n_splines=5), l(1)), "spline by factor": lambda: te(s(0, n_splines=5), f(3)),
    "spline by dummy": lambda: te(s(0, n_splines=5), f(3, coding="dummy")),
    "surface of three": lambda: te(0, 1, 2, n_splines=4),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_levels_are_taken_out_exactly_where_the_columns_add_up_to_one(name):
    (term, _), X = compiled(BLOCKS[name]())
    columns = term.build_columns(X)
    assert has_level(term) == np.allclose(np.asarray(columns.sum(axis=1)).ravel(), 1)
    block, = make_blocks([term])
    assert block.levels == has_level(term)


@pytest.mark.parametrize("name", BLOCKS)
def test_both_coordinates_reach_every_centred_curve(name):
    (term, intercept), X = compiled(BLOCKS[name]())
    block, = make_blocks([term, intercept])
    k = term.n_coefs
    free = k - block.levels
    assert block.T.shape == (k, free) and block.V.shape == (k, free) and block.D.shape[0] == free
    level = np.ones((k, 1)) if block.levels else np.zeros((k, 0))
    for M in (block.T, block.V):
        assert np.linalg.matrix_rank(np.column_stack([level, M])) == k
    columns = term.build_columns(X).toarray()
    both = [B - B.mean(axis=0) for B in (columns @ block.T, columns @ block.V)] if block.levels else [
        columns @ block.T, columns @ block.V]
    ranks = [np.linalg.matrix_rank(B, tol=1e-8) for B in (*both, np.column_stack(both))]
    assert ranks[0] == ranks[1] == ranks[2], "the same functions"


@pytest.mark.parametrize("name", [n for n in BLOCKS if n not in ("no penalty",)])
def test_parts_carry_the_penalty_of_the_term(name):
    (term, _), _ = compiled(BLOCKS[name]())
    block, = make_blocks([term])
    P = unit_penalty(term)
    if block.levels and P.sum() > 1e-9 * np.trace(P):
        P = P - np.outer(P.sum(axis=1), P.sum(axis=0)) / P.sum()              # at its best level
    count = len(term._terms) if term.istensor else 1
    assert np.allclose(block.V.T @ P @ block.V, np.diag(block.D[:, :count].sum(axis=1)), atol=1e-9)


def test_a_surface_has_a_price_along_each_feature():
    (term, _), _ = compiled(te(0, 1, n_splines=5))
    block, = make_blocks([term])
    assert block.D.shape == (24, 3)
    rough = np.kron(np.arange(5) ** 2, np.ones(5))                           # bends along the first feature only
    parts = np.linalg.lstsq(np.column_stack([np.ones(25), block.V]), rough, rcond=None)[0][1:]
    cost = (block.D * parts[:, None] ** 2).sum(axis=0)
    assert cost[0] > 1 and cost[1] < 1e-15


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", RISE + BEND)
def test_a_surface_obeys_along_its_feature(axis, shape):
    margins = [s(0, n_splines=5), s(1, n_splines=4)]
    margins[axis] = s(axis, n_splines=(5, 4)[axis], constraints=shape)
    (term, _), _ = compiled(te(*margins))
    block, = make_blocks([term])
    rng = np.random.default_rng(0)
    for _ in range(20):
        amounts = np.where(block.signed, rng.exponential(size=len(block.signed)), rng.normal(size=len(block.signed)))
        assert obeys((block.T @ amounts).reshape(5, 4), (shape,), axis=axis)
    assert 0 < block.signed.sum() < len(block.signed)


def test_what_cannot_be_declared_is_refused():
    both = te(s(0, n_splines=5, constraints="monotonic_inc"), s(1, n_splines=4, constraints="monotonic_inc"))
    with pytest.raises(InputError, match="one of its features"):
        make_blocks(compiled(both)[0])
    odd = s(0, constraints=lambda n, c: np.eye(n))
    with pytest.raises(InputError, match="shape is not known"):
        make_blocks(compiled(odd)[0])


# Order


@given(st.integers(0, 1000), st.sampled_from(RISE))
@settings(max_examples=30)
def test_order_is_made_exact_and_good_heights_stay(seed, shape):
    (term, _), _ = compiled(s(0, n_splines=12, constraints=shape))
    block, = make_blocks([term])
    sign = 1 if shape == "monotonic_inc" else -1
    good = sign * np.sort(np.random.default_rng(seed).normal(size=12))
    assert np.array_equal(in_order(block, good), good)
    shaken = good * (1 + 1e-16) + np.random.default_rng(seed).normal(size=12) * 1e-16
    ordered = in_order(block, shaken)
    assert (sign * np.diff(ordered) >= 0).all() and np.allclose(ordered, good, atol=1e-14)


@pytest.mark.parametrize("axis", [0, 1])
def test_order_of_a_surface_runs_along_its_feature(axis):
    margins = [s(0, n_splines=5), s(1, n_splines=4)]
    margins[axis] = s(axis, n_splines=(5, 4)[axis], constraints="monotonic_dec")
    (term, _), _ = compiled(te(*margins))
    block, = make_blocks([term])
    heights = np.random.default_rng(0).normal(size=20)
    ordered = in_order(block, heights).reshape(5, 4)
    assert (np.diff(ordered, axis=axis) <= 0).all() and (np.diff(ordered, axis=1 - axis) > 0).any()


def test_blocks_stand_side_by_side():
    terms, _ = compiled(s(0, n_splines=5, constraints="monotonic_inc") + l(1) + te(0, 2, n_splines=4))
    coords = coordinates(make_blocks(terms), 23)
    assert coords.T.shape == (23, 4 + 1 + 15) and coords.V.shape == (23, 20) and coords.D.shape[0] == 20
    assert coords.term.tolist() == [0] * 4 + [1] + [2] * 15 and coords.signed.sum() == 4
    assert not coords.T[-1].any() and not coords.V[-1].any(), "the intercept has no coordinates of its own"
    for k, where in enumerate((slice(0, 5), slice(5, 6), slice(6, 22))):
        others = np.ones(23, bool)
        others[where] = False
        assert not coords.T[np.ix_(others, coords.term == k)].any()
        assert not coords.D[np.ix_(coords.term != k, coords.penalty_term == k)].any()
