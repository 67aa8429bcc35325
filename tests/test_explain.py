"""Explanations: exactness against closed forms, brute force and shap; axioms; refusals, words, tables, figures."""

import json
import subprocess
import sys
from itertools import permutations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from scipy.interpolate import BSpline  # noqa: E402

from lensnb.explain import (  # noqa: E402
    Part,
    as_part,
    at_sizes,
    attributions,
    coalitions,
    cross_size,
    cross_size_figure,
    curve_figure,
    engineered_features,
    explain_eye,
    fast_curve,
    importance,
    importance_figure,
    label,
    sentence,
    shapley,
    shares,
    summary_figure,
    surface_means,
    surface_values,
    value_text,
    waterfall,
    what_to_notice,
)
from lensnb.schema import InputError  # noqa: E402
from lensnb.store import serve  # noqa: E402
from lensnb.vault import SizingGAM, term_values  # noqa: E402

SIZES = (12.1, 12.6, 13.2, 13.7)


@pytest.fixture(scope="module")
def data():
    r = np.random.default_rng(3)
    n = 120
    X = (
        pd.DataFrame(
            {
                "size_mm": r.choice([12.6, 13.2, 13.7], n),
                "ata_mm": r.normal(12.2, 0.45, n),
                "clr_um": r.normal(100, 200, n),
                "aca_deg": r.normal(42, 8, n),
            }
        )
        .round(2)
        .set_axis([f"e{i}" for i in range(n)])
    )
    y = (
        650
        + 500 * (X["size_mm"] - 13.2)
        - 300 * (X["ata_mm"] - 12.2)
        - 100 * np.tanh(X["clr_um"] / 100)
        - 8 * (X["aca_deg"] - 42)
    )
    return X, (y + r.normal(0, 60, n)).to_numpy()


@pytest.fixture(scope="module")
def model(data):
    return SizingGAM().fit(*data)


# Models by hand, and their prediction by somebody else


def straight(low, high, k=8):
    """Coefficients of f(x) = x."""
    step = (high - low) / (k - 3)
    return np.linspace(low - step, high + step, k)


def spline(low, high, coefs, below=0.0, above=0.0):
    return dict(
        kind="spline",
        low=low,
        high=high,
        typical=(low + high) / 2,
        coefs=list(map(float, coefs)),
        slope_below=below,
        slope_above=above,
    )


def surface(features, low, high, coefs):
    return dict(
        kind="surface",
        features=list(features),
        low=list(low),
        high=list(high),
        typical=[(a + b) / 2 for a, b in zip(low, high)],
        coefs=np.asarray(coefs, dtype=float).tolist(),
    )


class Plain:
    """A model that is nothing but its stored numbers."""

    def __init__(self, terms, intercept=500.0):
        self.model_ = {"terms": terms, "intercept": intercept}
        self.intercept_, self.spec_ = intercept, {n: {"monotone": 0} for n in terms}


def by_scipy(model, columns):
    """A function of an array of the raw `columns`: the prediction by SciPy's splines."""

    def basis(x, low, high, k):
        knots = low + (high - low) / (k - 3) * np.arange(-3, k + 1)
        return BSpline.design_matrix(np.clip(x, low, high), knots, 3).toarray()

    def predict(values):
        t = pd.DataFrame(values, columns=columns)
        if {"size_mm", "ata_mm"} <= set(columns):
            t["compression_mm"] = t["size_mm"] - t["ata_mm"]
        if {"a", "b", "c"} <= set(columns):
            t["mixed"] = t["a"] * t["b"] - t["c"] ** 2
        total = np.full(len(t), model.intercept_)
        for name, e in model.model_["terms"].items():
            if e["kind"] == "linear":
                total += e["slope"] * (t[name] - e["centre"])
            elif e["kind"] == "spline":
                x = t[name].to_numpy()
                total += basis(x, e["low"], e["high"], len(e["coefs"])) @ e["coefs"]
                total += e["slope_below"] * np.minimum(x - e["low"], 0)
                total += e["slope_above"] * np.maximum(x - e["high"], 0)
            else:
                u, v = (
                    basis(t[f].to_numpy(), e["low"][i], e["high"][i], np.shape(e["coefs"])[i])
                    for i, f in enumerate(e["features"])
                )
                total += np.einsum("ni,ij,nj->n", u, np.array(e["coefs"]), v)
        return total

    return predict


@pytest.fixture(scope="module")
def rich():
    r = np.random.default_rng(5)
    return Plain(
        {
            "size_mm": dict(kind="linear", low=12.1, high=13.7, typical=13.2, slope=240.0, centre=13.2),
            "compression_mm": spline(-0.5, 2.5, r.normal(0, 100, 9), 40.0, 120.0),
            "clr_um": spline(-300, 600, r.normal(0, 80, 7), -0.1, -0.3),
            "ata_mm:clr_um": surface(("ata_mm", "clr_um"), (11, -300), (13.5, 600), r.normal(0, 60, (6, 5))),
            "compression_mm:aca_deg": surface(
                ("compression_mm", "aca_deg"), (-0.5, 25), (2.5, 60), r.normal(0, 50, (5, 6))
            ),
        }
    )


# Exactness


def test_values_sum_to_the_prediction_also_outside_the_data(data, model):
    X = data[0] * 1.3
    e = shapley(model, X)
    assert np.abs(e.values.sum(1) + e.base_values - model.predict(X)).max() < 1e-9
    assert e.feature_names == list(X) and np.array_equal(e.data, X.to_numpy()) and e.values.shape == X.shape
    assert shapley(model, X, names={"clr_um": "rise"}).feature_names == ["size_mm", "ata_mm", "rise", "aca_deg"]


def exact(predict, eyes, rows):
    import shap

    masker = shap.maskers.Independent(rows, max_samples=len(rows))
    return shap.explainers.Exact(predict, masker)(eyes, silent=True)


# (values on a grid, as instruments print them: shap takes values within a relative 1e-5 of each other for equal)


def test_agrees_with_shaps_exact_explainer(data, model):
    X = data[0]
    predict = by_scipy(model, list(X))
    assert np.abs(predict(X.to_numpy()) - model.predict(X)).max() < 1e-9
    judge = exact(predict, X.iloc[:5].to_numpy(), X.to_numpy())
    for ours in (shapley(model, X.iloc[:5]), shapley(model, X.iloc[:5], background=X)):
        assert np.abs(judge.values - ours.values).max() < 1e-9
        assert np.abs(judge.base_values - ours.base_values).max() < 1e-9


def test_surfaces_and_engineered_terms_agree_with_shaps_exact_explainer(data, rich):
    """Two players, two players of a surface, and a surface on an engineered column: three."""
    X = data[0]
    rows, eyes = X.iloc[20:90], X.iloc[:12] * 1.02
    eyes = eyes.round(2)
    predict = by_scipy(rich, ["size_mm", "ata_mm", "clr_um", "aca_deg"])
    judge = exact(predict, eyes.to_numpy(), rows.to_numpy())
    ours = shapley(rich, eyes, rows)
    assert ours.feature_names == list(X)
    assert np.abs(judge.values - ours.values).max() < 1e-9
    assert np.abs(judge.base_values - ours.base_values).max() < 1e-9
    assert np.abs(ours.values.sum(axis=1) + ours.base_values - predict(eyes.to_numpy())).max() < 1e-9


def test_an_own_engineered_column_of_three_measurements_agrees_with_shap():
    r = np.random.default_rng(8)
    X = pd.DataFrame(r.normal(size=(40, 3)).round(1), columns=["a", "b", "c"])
    m = Plain({"mixed": spline(-4, 4, r.normal(0, 100, 8), 10, -10), "b": spline(-2, 2, r.normal(0, 50, 6))})
    own = {"mixed": (("a", "b", "c"), lambda t: t["a"] * t["b"] - t["c"] ** 2)}
    ours = attributions(m, X.iloc[:8], X, engineered=own)
    judge = exact(by_scipy(m, ["a", "b", "c"]), X.iloc[:8].to_numpy(), X.to_numpy())
    assert list(ours) == ["a", "b", "c"] and np.abs(judge.values - ours.to_numpy()).max() < 1e-9


def test_shaps_additive_explainer_is_wrong_with_a_surface_and_does_not_say_so(data):
    import shap

    X = data[0][["ata_mm", "clr_um"]]
    grid = np.outer(straight(11, 13.5) - 12.2, 100 - straight(-300, 600)) / 2
    curves = {"clr_um": spline(-300, 600, -0.4 * straight(-300, 600))}
    joint = {**curves, "ata_mm:clr_um": surface(X, (11, -300), (13.5, 600), grid)}
    masker = shap.maskers.Independent(X.to_numpy(), max_samples=len(X))
    for terms, right in (({**curves, "ata_mm": spline(11, 13.5, straight(11, 13.5))}, True), (joint, False)):
        m = Plain(terms)
        predict = by_scipy(m, list(X))
        quick = shap.explainers.Additive(predict, masker)(X.to_numpy()[:30], silent=True)
        short = np.abs(quick.values.sum(axis=1) + quick.base_values - predict(X.to_numpy()[:30])).max()
        off = np.abs(quick.values - attributions(m, X.iloc[:30], X)[list(X)].to_numpy()).max()
        assert (off < 1e-8 and short < 1e-8) if right else (off > 20 and short > 20)
        assert np.isfinite(quick.values).all(), "nothing in its answer tells"


def test_the_product_of_two_measurements_has_a_closed_form():
    r = np.random.default_rng(1)
    a, b, x, y = r.uniform(0, 10, (4, 30))
    term = surface(("a", "b"), (0, 0), (10, 10), np.outer(straight(0, 10), straight(0, 10)))
    m = Plain({"a:b": term})
    t = attributions(m, pd.DataFrame({"a": x, "b": y}), pd.DataFrame({"a": a, "b": b}))
    share = 0.5 * (x * b.mean() - (a * b).mean() + x * y - a.mean() * y)
    assert np.allclose(t["a"], share, atol=1e-9) and np.isclose(t.attrs["typical_um"], 500 + (a * b).mean())
    assert not np.isclose((a * b).mean(), a.mean() * b.mean(), atol=0.1), "the rows must have stayed together"


def test_main_effects_inside_a_surface_go_to_their_owner():
    """A surface f(a) + g(b) divides as two curves would."""
    f, g = straight(0, 10) ** 2, -3 * straight(0, 10)
    m = Plain({"a:b": surface(("a", "b"), (0, 0), (10, 10), f[:, None] + g[None, :])})
    two = Plain({"a": spline(0, 10, f), "b": spline(0, 10, g)})
    r = np.random.default_rng(2)
    X, rows = (pd.DataFrame(r.uniform(0, 10, (n, 2)), columns=["a", "b"]) for n in (20, 15))
    assert np.abs(attributions(m, X, rows) - attributions(two, X, rows)).max(axis=None) < 1e-9


@given(st.integers(0, 10**6), st.integers(1, 3))
@settings(max_examples=40)
def test_shares_are_the_mean_over_all_orders(seed, k):
    r = np.random.default_rng(seed)
    players = ("a", "b", "c")[:k]
    weights = r.normal(size=8)
    part = Part("t", players, lambda t: np.sin(sum(w * t[p] for w, p in zip(weights, players))) + t["a"] ** 2)
    eyes, rows = ({p: r.normal(size=n).round(1) for p in players} for n in (5, 7))
    v = coalitions(part, eyes, rows)

    def mean(known, i):
        return np.mean([part.value({p: np.array([eyes[p][i] if p in known else rows[p][j]]) for p in players})
                        for j in range(7)])  # fmt: skip

    for i in range(5):
        gains = {p: [] for p in players}
        for order in permutations(players):
            for n, p in enumerate(order):
                gains[p].append(mean(order[: n + 1], i) - mean(order[:n], i))
        for p in players:
            assert abs(np.mean(gains[p]) - np.broadcast_to(shares(v, players)[p], 5)[i]) < 1e-9


def random_model(r, scale=1.0):
    return Plain(
        {
            "size_mm": dict(kind="linear", low=12.1, high=13.7, typical=13.2, slope=float(scale * 300), centre=13.2),
            "compression_mm": spline(-0.5, 2.5, scale * r.normal(0, 100, 7), 5.0, -5.0),
            "ata_mm:clr_um": surface(
                ("ata_mm", "clr_um"), (11, -300), (13.5, 600), scale * r.normal(0, 60, (5, 5))
            ),
        },
        500.0 * scale,
    )


def random_eyes(r, n):
    return pd.DataFrame(
        {"size_mm": r.choice(SIZES, n), "ata_mm": r.normal(12.2, 0.6, n), "clr_um": r.normal(100, 300, n)}
    )


@given(st.integers(0, 10**6), st.integers(1, 30))
@settings(max_examples=30)
def test_the_axioms_hold(seed, n_rows):
    """Efficiency, linearity, dummy and symmetry, in and outside of the training range."""
    r = np.random.default_rng(seed)
    X, rows = random_eyes(r, 6), random_eyes(r, n_rows)
    one, two = random_model(r), random_model(r, -0.5)
    t = attributions(one, X, rows)
    predict = by_scipy(one, list(X))
    assert np.abs(t.sum(axis=1) + t.attrs["typical_um"] - predict(X.to_numpy())).max() < 1e-9
    assert abs(t.attrs["typical_um"] - predict(rows.to_numpy()).mean()) < 1e-9
    both = json.loads(json.dumps(one.model_["terms"]))
    both["size_mm"]["slope"] += two.model_["terms"]["size_mm"]["slope"]
    for name in ("compression_mm", "ata_mm:clr_um"):
        other = two.model_["terms"][name]
        both[name]["coefs"] = (np.array(both[name]["coefs"]) + np.array(other["coefs"])).tolist()
        for end in {"slope_below", "slope_above"} & set(other):
            both[name][end] += other[end]
    added = attributions(Plain(both, one.intercept_ + two.intercept_), X, rows)
    assert np.abs(added - t - attributions(two, X, rows)).max(axis=None) < 1e-9
    flat = {**one.model_["terms"], "aca_deg": spline(20, 60, np.zeros(6))}
    told = attributions(Plain(flat), X.assign(aca_deg=30.0), rows.assign(aca_deg=50.0))
    assert (told["aca_deg"] == 0).all() and np.abs(told[list(t)] - t).max(axis=None) == 0


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_twins_get_the_same(seed):
    r = np.random.default_rng(seed)
    coefs = r.normal(0, 100, (6, 6))
    m = Plain({"a:b": surface(("a", "b"), (0, 0), (1, 1), coefs + coefs.T)})
    x, b = r.uniform(-0.2, 1.2, 8), r.uniform(0, 1, 9)
    t = attributions(m, pd.DataFrame({"a": x, "b": x}), pd.DataFrame({"a": b, "b": b}))
    assert np.abs(t["a"] - t["b"]).max() < 1e-9
    part = Part("s", ("a", "b", "c"), lambda z: np.cos(z["a"] + z["b"] + z["c"]))
    v = coalitions(part, dict.fromkeys("abc", x), dict.fromkeys("abc", b))
    three = shares(v, part.players)
    assert np.abs(three["a"] - three["c"]).max() < 1e-9


@given(st.integers(0, 10**6), st.integers(4, 25))
@settings(max_examples=40)
def test_cubic_pieces_are_the_spline(seed, k):
    r = np.random.default_rng(seed)
    low = float(r.normal(0, 50))
    term = spline(low, low + float(r.uniform(0.1, 500)), r.normal(0, 200, k), float(r.normal()), float(r.normal()))
    x = np.concatenate([np.linspace(2 * low - term["high"], 2 * term["high"] - low, 300), [low, term["high"]]])
    assert np.abs(fast_curve(term)(x) - term_values(term, x)).max() < 1e-9


def test_a_surface_is_held_at_its_edge_and_its_means_are_means():
    r = np.random.default_rng(4)
    term = surface(("a", "b"), (0, -1), (2, 1), r.normal(0, 50, (5, 7)))
    assert np.isclose(*surface_values(term, np.array([2.0, 9.0]), np.array([-1.0, -5.0])))
    x, y, a, b = (r.normal(size=n) for n in (6, 6, 40, 40))
    nothing, first, second, both = surface_means(term, (x, y), (a, b))
    assert np.isclose(nothing, surface_values(term, a, b).mean())
    for i in range(6):
        assert np.isclose(first[i], surface_values(term, np.full(40, x[i]), b).mean())
        assert np.isclose(second[i], surface_values(term, a, np.full(40, y[i])).mean())
    assert np.allclose(both, surface_values(term, x, y))


def test_blocks_do_not_change_the_answer(monkeypatch, data, rich):
    import lensnb.explain as room

    whole = attributions(rich, data[0], data[0])
    monkeypatch.setattr(room, "_BLOCK", 7)
    assert np.abs(attributions(rich, data[0].iloc[:20], data[0]) - whole.iloc[:20]).max(axis=None) < 1e-9


def test_a_fitted_surface_is_divided_and_adds_up(data):
    X, y = data
    y = y - 0.3 * (X["ata_mm"] - 12.2) * X["clr_um"]
    spec = {n: {} for n in ("size_mm", "ata_mm", "clr_um")} | {"ata_mm:clr_um": {}}
    spec["size_mm"] = {"kind": "linear", "monotone": 1}
    fitted = SizingGAM(spec=spec).fit(X, y)
    again = SizingGAM.from_dict(json.loads(json.dumps(fitted.to_dict())))
    for m in (fitted, again):
        t = attributions(m, X * 1.1, X)
        assert list(t) == ["size_mm", "ata_mm", "clr_um"]
        assert np.abs(t.sum(axis=1) + t.attrs["typical_um"] - m.predict(X * 1.1)).max() < 1e-9
    with pytest.raises(InputError, match="background"):
        shapley(fitted, X)
    cross = cross_size(fitted, X.iloc[[0]], SIZES, X)
    assert np.ptp(cross.loc["ata_mm"]) < 1e-9, "this surface does not hold the size"


# What stands for what


def test_engineered_columns_stay_whole_where_nothing_can_be_averaged(data, rich):
    X = data[0]
    curves = Plain({n: t for n, t in rich.model_["terms"].items() if t["kind"] != "surface"})
    served = serve(X, ["size_mm", "clr_um", "ata_mm", "compression_mm"])
    whole = attributions(curves, served)
    assert list(whole) == ["size_mm", "compression_mm", "clr_um"] and whole.attrs["typical_um"] == curves.intercept_
    assert attributions(curves, X).equals(whole), "the column is worked out where it is lacking"
    kept = attributions(curves, served.drop(columns="ata_mm"), served, raw=False)
    divided = attributions(curves, served, served)
    assert list(kept) == list(whole) and list(divided) == ["size_mm", "ata_mm", "clr_um"]
    assert kept.attrs["typical_um"] == pytest.approx(divided.attrs["typical_um"], abs=1e-9)
    assert np.allclose(kept.sum(axis=1), divided.sum(axis=1), atol=1e-9)
    assert np.allclose(kept["clr_um"], divided["clr_um"], atol=1e-9)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda X, m: attributions(m, X), "background"),
        (lambda X, m: attributions(m, X.drop(columns="ata_mm"), X), "ata_mm.*made of size_mm"),
        (lambda X, m: attributions(m, X, X.drop(columns="aca_deg")), "aca_deg"),
        (lambda X, m: attributions(m, X, X.iloc[:0]), "at least one eye"),
        (lambda X, m: attributions(m, X, {"clr_um": "rise"}), "dict"),
        (lambda X, m: attributions(m, X.to_numpy(), X), "ndarray"),
        (lambda X, m: attributions(m, X.assign(clr_um=np.nan), X), "clr_um.*e0"),
        (lambda X, m: attributions(m, X.assign(clr_um="wide"), X), "wide"),
        (lambda X, m: attributions(m, X.assign(compression_mm=1.0), X), "not what its raw measurements give"),
        (lambda X, m: attributions(SizingGAM(), X), "not been fitted"),
        (lambda X, m: attributions(Plain({"site": {"kind": "factor"}}), X.assign(site=1), X.assign(site=1)), "factor"),
        (lambda X, m: attributions(Plain({"compression_mm": spline(-1, 3, range(5))}), X, raw=True), "table"),
        (lambda X, m: cross_size(m, X, SIZES, X), "one row"),
        (lambda X, m: summary_figure(m, X.iloc[:4], X), "Limit: 5"),
        (lambda X, m: curve_figure(m, ["shoe_size"]), "no such curve"),
    ],
)
def test_what_cannot_be_exact_is_refused(data, rich, change, words):
    with pytest.raises(InputError, match=words):
        change(data[0], rich)


def test_four_measurements_in_a_term_are_refused_and_named():
    four = {"sum_mm": (("ata_mm", "acd_mm", "lt_mm", "wtw_mm"), lambda t: sum(t.values()))}
    with pytest.raises(InputError, match="lt_mm.*raw=False"):
        as_part("sum_mm", spline(0, 1, range(5)), four)
    assert list(engineered_features(["clr_um", "compression_mm"])) == ["compression_mm"]


# Words


def test_sentences_say_direction_value_unit_and_amount():
    row = pd.Series({"size_mm": 400.0, "clr_um": -92.0, "ata_mm": 20.0})
    x = pd.Series({"size_mm": 13.7, "clr_um": 480.0, "ata_mm": 12.1})
    assert sentence(row, x) == "High lens rise (480 um): 92 um lower than the typical eye."
    assert sentence(-row, x).startswith("Low ") and "92 um higher" in sentence(-row, x)
    assert sentence(row * 0.1, x).startswith("Close to the typical eye")
    assert sentence(pd.Series({"aca_deg": -80.0}), pd.Series({"aca_deg": 55.0})).startswith("Chamber angle (55.0 deg)")
    with pytest.raises(InputError):
        sentence(pd.Series({"size_mm": 400.0}), x)


@pytest.mark.parametrize(
    "second, told",
    [
        (-80.0, "; nearly as much: wide angle to angle (12.90 mm): 80 um lower."),
        (80.0, "; nearly as much: narrow angle to angle (12.90 mm): 80 um higher."),
        (-60.0, "typical eye."),
    ],
)
def test_a_second_reason_is_named_when_it_is_close(second, told):
    x = pd.Series({"clr_um": 480.0, "ata_mm": 12.9})
    assert sentence(pd.Series({"clr_um": -92.0, "ata_mm": second}), x).endswith(told)


def test_the_typical_value_tells_high_from_low_before_the_direction_does():
    """In a surface a high lens rise may raise the vault; it stays high."""
    row, x = pd.Series({"clr_um": 92.0}), pd.Series({"clr_um": 480.0})
    assert sentence(row, x).startswith("Low")
    assert sentence(row, x, typical={"clr_um": 100.0}).startswith("High lens rise (480 um): 92 um higher")


def test_the_lens_is_never_told_as_a_finding(data, rich):
    """Neither its size nor the half of a compression that is the choice."""
    by = pd.Series({"size_mm": 300.0, "compression_mm": -400.0, "clr_um": 12.0})
    assert sentence(by, by) == (
        "Apart from the room for the lens, close to the typical eye: no single measurement moves the prediction by "
        "50 um."
    )
    with pytest.raises(InputError, match="joint"):
        sentence(pd.Series({"ata_mm:clr_um": 90.0}), by)
    assert "compression" not in " ".join(what_to_notice(rich, data[0].iloc[:40], data[0])).lower()


def test_the_words_follow_the_model(data, model):
    X = data[0]
    parts = model.contributions(X)
    assert sentence(parts.loc["e0", ["aca_deg"]] * 0 - 90, pd.Series({"aca_deg": 60.0}), model).startswith(
        "High chamber angle"
    )
    rising = SizingGAM(spec={"clr_um": {"monotone": 1}}).fit(X, data[1] + 2 * X["clr_um"])
    i = int(X["clr_um"].to_numpy().argmax())
    text = sentence(rising.contributions(X).iloc[i], X.iloc[i], rising)
    assert text.startswith("High") and "higher than" in text


def test_what_to_notice_flags_what_was_never_seen(data, model, rich):
    X = data[0].iloc[:3].assign(clr_um=[100.0, 950.0, -900.0])
    notes = what_to_notice(model, X)
    assert notes.index.equals(X.index) and notes.str.contains("Beyond").tolist() == [False, True, True]
    assert "950 um" in notes.iloc[1]
    assert what_to_notice(model, X.iloc[:0]).empty
    tight = what_to_notice(rich, data[0].iloc[[0]].assign(size_mm=13.7, ata_mm=11.0), data[0]).iloc[0]
    assert "seen: lens size minus angle to angle 2.70 mm (training eyes -0.50 mm to 2.50 mm)" in tight


# One eye, tables and figures


def test_explain_eye_adds_up_and_takes_one_eye(data, model, rich):
    one = data[0].iloc[[4]]
    t = explain_eye(model, one)
    assert abs(t["contribution_um"].sum() + t.attrs["typical_um"] - model.predict(one)[0]) < 1e-9
    assert set(t["feature"]) == set(data[0]) and t["contribution_um"].abs().is_monotonic_decreasing
    with pytest.raises(InputError, match="one row"):
        explain_eye(model, data[0])
    assert value_text("ata_mm", 12.204) == "12.20 mm" and label("clr_um") == "lens rise"
    t = explain_eye(rich, one.assign(size_mm=13.7, ata_mm=10.9), data[0]).set_index("feature")
    assert set(t.index) == set(data[0]) and t["outside_range"].to_dict() == {
        "size_mm": True, "ata_mm": True, "clr_um": False, "aca_deg": False}  # fmt: skip
    assert t.loc["clr_um", "typical"] == data[0]["clr_um"].mean()


def test_across_sizes_each_column_is_that_size(data, model, rich):
    one, X = data[0].iloc[[4]], data[0]
    t = cross_size(rich, one.assign(compression_mm=7.0), SIZES, X)
    for s in SIZES:
        alone = attributions(rich, one.assign(size_mm=s), X).iloc[0]
        assert np.abs(t[s] - alone[t.index]).max() < 1e-9
        predicted = by_scipy(rich, list(X))(one.assign(size_mm=s).to_numpy())[0]
        assert abs(t.attrs["vault_um"][s] - predicted) < 1e-9
    assert np.ptp(t.loc["ata_mm"]) > 1 and np.ptp(t.loc["clr_um"]) < 1e-9
    plain = cross_size(model, one, SIZES)
    assert plain.index[0] == "size_mm" and (plain.iloc[1:].max(axis=1) == plain.iloc[1:].min(axis=1)).all()
    assert list(at_sizes(one, (13.7, 12.1)).index) == [12.1, 13.7]


def test_waterfall_labels_every_number_it_draws(data, model, rich):
    one = data[0].iloc[[4]]
    ax = waterfall(model, one)
    texts = [t.get_text() for t in ax.texts]
    assert [f"{v:+.0f}" in texts for v in model.contributions(one).iloc[0]] == [True] * 4
    assert (
        f"{model.predict(one)[0]:.0f} um" in texts
        and f"{model.intercept_:.0f} um" in texts
        and "(um)" in ax.get_xlabel()
    )
    plt.close(ax.figure)
    ax = waterfall(model, one.assign(clr_um=1500.0), sizes=SIZES[1:], zone=(250, 750))
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names[-4:] == ["lens size", "with 12.6 mm", "with 13.2 mm", "with 13.7 mm"]
    for s in SIZES[1:]:
        assert f"{model.predict(one.assign(clr_um=1500.0, size_mm=s))[0]:.0f} um" in [t.get_text() for t in ax.texts]
    assert sum(bool(p.get_hatch()) for p in ax.patches) == 1
    plt.close(ax.figure)
    ax = waterfall(rich, one, sizes=SIZES, background=data[0])
    t = cross_size(rich, one, SIZES, data[0])
    texts = [t.get_text() for t in ax.texts]
    assert all(f"{v:.0f} um" in texts for v in t.attrs["vault_um"].values())
    assert all(f"{v:+.0f}" in texts for v in t.loc[["size_mm", "ata_mm"]].to_numpy().ravel())
    plt.close(ax.figure)


def test_cohort_figures_carry_units_and_n_and_no_single_eye(data, model, rich):
    t = importance(model, data[0])
    assert np.allclose(t["mean_abs_um"], model.contributions(data[0]).abs().mean()[t.index]) and (t["n"] == 120).all()
    assert set(importance(rich, data[0], data[0]).index) == set(data[0])
    for ax in (importance_figure(model, data[0]), summary_figure(rich, data[0], data[0])):
        assert "(um)" in ax.get_xlabel() and "n = 120 eyes" in ax.get_xlabel()
        assert not ax.collections and all(len(line.get_xdata()) <= 2 for line in ax.lines)
        plt.close(ax.figure)
    plt.close(curve_figure(model, ["clr_um"], level=0.9))
    fig = curve_figure(model, X=data[0])
    assert [ax.get_xlabel() for ax in fig.axes[:3]] == ["lens size (mm)", "angle to angle (mm)", "lens rise (um)"]
    assert max(len(line.get_xdata()) for ax in fig.axes for line in ax.lines) == 101
    plt.close(fig)
    ax = cross_size_figure(rich, data[0].iloc[[4]], SIZES, data[0])
    assert len(ax.texts) == 16 and [t.get_text()[:7] for t in ax.get_xticklabels()] == [f"{s:g} mm" for s in SIZES]
    plt.close(ax.figure)


def test_shaps_own_waterfall_takes_the_explanation(data, rich):
    import shap

    ax = shap.plots.waterfall(shapley(rich, data[0].iloc[:2], data[0])[0], show=False)
    assert any("clr_um" in t.get_text() for t in ax.get_yticklabels())
    plt.close("all")


def test_import_is_light():
    heavy = "('shap', 'matplotlib', 'seaborn', 'pygam', 'sklearn')"
    code = f"import sys, lensnb.explain; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_sentences_and_tables_do_without_shap():
    code = (
        "import sys, numpy as np, pandas as pd\nfrom types import SimpleNamespace\n"
        "from lensnb.explain import what_to_notice, explain_eye\n"
        "t = dict(kind='linear', low=0, high=60, typical=30, centre=30, slope=-1)\n"
        "m = SimpleNamespace(model_={'terms': {'clr_um': t}}, intercept_=500.0)\n"
        "X = pd.DataFrame({'clr_um': np.arange(60.0)})\n"
        "what_to_notice(m, X, X); explain_eye(m, X.iloc[[1]])\nprint('shap' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
