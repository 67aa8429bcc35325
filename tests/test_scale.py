"""lensnb.scale: known truth, closed forms, scikit-learn, what a small sample may do, invariances, refusals."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensnb.scale import LogScale, clustered_covariance, fit_log_mean, read_axis, row_weights
from lensnb.schema import InputError


def world(n=300, seed=0, growth=0.5, rho=0.7, both=1.0):
    """Axis, error and patient of units of one or two a patient; log sd = log 250 + growth x."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(n), 1 + (rng.random(n) < both))
    x = 0.34 * rng.normal(size=n)[who] + 0.12 * rng.normal(size=len(who))
    noise = np.sqrt(rho) * rng.normal(size=n)[who] + np.sqrt(1 - rho) * rng.normal(size=len(who))
    return pd.DataFrame({"x": x, "z": rng.normal(size=len(x))}), 250 * np.exp(growth * x) * noise, who


# Known truth and closed forms


def test_the_growth_is_found_and_its_error_is_counted_by_patient():
    fits = [LogScale("x").fit(X, r, groups=who) for X, r, who in (world(seed=s) for s in range(150))]
    slope, error = (np.array([getattr(f, name)[0] for f in fits]) for name in ("slope", "slope_se"))
    by_eye = np.mean([LogScale("x").fit(*world(seed=s)[:2]).slope_se[0] for s in range(150)])
    assert slope.mean() == pytest.approx(0.485, abs=0.03), "0.5, less the 3 % of ten patients in 310"
    assert error.mean() == pytest.approx(slope.std(), rel=0.13)
    assert by_eye < 0.92 * error.mean(), "counting eyes promises too much"
    middle = np.mean([f.predict(pd.DataFrame({"x": [0.0]}))[0] for f in fits])
    assert middle == pytest.approx(250, rel=0.02)


def test_more_patients_come_closer():
    error = {}
    for n in (60, 960):
        error[n] = np.mean([abs(LogScale("x").fit(*world(n, s)[:2]).slope[0] - 0.5) for s in range(25)])
    assert error[960] < 0.45 * error[60]


@pytest.mark.parametrize("alpha", [1e-6, 0.05])
def test_agrees_with_scikit_learn(alpha):
    from sklearn.linear_model import GammaRegressor, TweedieRegressor

    rng = np.random.default_rng(1)
    Z, weight = rng.normal(size=(200, 3)), rng.uniform(0.2, 2, 200)
    u = np.exp(1 + Z @ [0.3, -0.2, 0]) * rng.exponential(size=200) + 1e-9
    ours = fit_log_mean(Z, u, weight, prior=alpha * weight.sum())
    for theirs in (GammaRegressor, lambda **k: TweedieRegressor(power=2, link="log", **k)):
        fit = theirs(alpha=alpha, tol=1e-10, max_iter=10_000).fit(Z, u, sample_weight=weight)
        assert np.allclose(ours, [fit.intercept_, *fit.coef_], atol=1e-6)


def test_two_groups_have_a_closed_form():
    rng = np.random.default_rng(0)
    x = np.repeat([0.0, 1.0], [7, 12])
    r = rng.normal(size=19)
    scale = LogScale([0], prior=1e-9).fit(x[:, None], r)
    sd = scale.predict(np.array([[0.0], [1.0]]))
    assert sd[1] / sd[0] == pytest.approx(np.abs(r[x == 1]).mean() / np.abs(r[x == 0]).mean(), rel=1e-6)
    assert np.mean((r / scale.predict(x[:, None])) ** 2) == pytest.approx(1), "a standard deviation"


def test_the_covariance_is_the_plain_formula():
    rng = np.random.default_rng(2)
    Z, u, w, who = rng.normal(size=(30, 2)), rng.exponential(size=30), rng.uniform(0.5, 1, 30), np.arange(30) // 2
    b = fit_log_mean(Z, u, w, prior=3)
    D = np.column_stack([np.ones(30), Z])
    bread, meat = np.diag([0.0, 3, 3]), np.zeros((3, 3))
    for i in range(30):
        bread += w[i] * u[i] * np.exp(-D[i] @ b) * np.outer(D[i], D[i])
    for p in range(15):
        score = sum(w[i] * D[i] * (1 - u[i] * np.exp(-D[i] @ b)) for i in (2 * p, 2 * p + 1))
        meat += np.outer(score, score)
    slow = np.linalg.inv(bread) @ meat @ np.linalg.inv(bread) * 15 / 14
    assert np.allclose(clustered_covariance(Z, u, w, b, who, prior=3), slow)


def test_a_combination_is_the_column_it_describes():
    X, r, who = world(80)
    X["d"] = X["x"] - 2 * X["z"]
    one = LogScale("d").fit(X, r, who)
    for axis in ({"x": 1, "z": -2}, {"d": {"x": 1, "z": -2}}):
        assert np.allclose(LogScale(axis).fit(X, r, who).predict(X), one.predict(X), rtol=1e-12)
    assert np.allclose(LogScale({0: 1, 1: -2}).fit(X.to_numpy(), r, who).predict(X.to_numpy()), one.predict(X))
    two = LogScale(["x", "z"]).fit(X, r, who)
    assert list(two.table().index) == ["x", "z"] and len(two.slope) == 2
    assert abs(two.slope[1]) < 3 * two.slope_se[1], "z carries no growth"


# A small sample, an outlier, an edge


@given(st.integers(2, 12), st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_a_small_sample_cannot_explode(n, seed):
    rng = np.random.default_rng(seed)
    X, r = rng.normal(size=(n, 1)), rng.standard_cauchy(n)
    r[rng.integers(n)] = 0
    if not r.any():
        r[0] = 1
    sd = LogScale([0]).fit(X, r).predict(X)
    assert (sd > 0).all() and np.isfinite(sd).all() and sd.max() / sd.min() < 40


def test_the_prior_is_needed():
    ratio = {}
    for prior in (1e-9, 10):
        sds = [LogScale([0], prior).fit(*(v for v in _few(s))) for s in range(200)]
        ratio[prior] = max(np.exp(np.abs(f.slope * (f.high - f.low)).max()) for f in sds)
    assert ratio[10] < 8 < 20 < ratio[1e-9]


def _few(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(8, 1)), rng.normal(size=8)


def test_held_beyond_the_range_and_an_outlier_does_not_reach():
    X, r, who = world()
    scale = LogScale("x").fit(X, r, who)
    far = scale.predict(pd.DataFrame({"x": [-99.0, 99.0]}))
    assert np.allclose(far, [scale.predict(X).min(), scale.predict(X).max()]), "the growth is upwards"
    typo = X.assign(x=X["x"].where(X.index != 5, 40.0))
    held = LogScale("x").fit(typo, r, who)
    assert held.predict(typo).max() < 1.2 * scale.predict(X).max()
    assert held.high[0] < 2


def test_a_constant_axis_and_one_row_give_a_constant():
    for n in (1, 5):
        scale = LogScale([0]).fit(np.ones((n, 1)), np.arange(1.0, n + 1))
        assert scale.slope[0] == 0 and np.ptp(scale.predict(np.array([[0.0], [1.0], [7.0]]))) == 0
        assert scale.predict(np.ones((1, 1)))[0] == pytest.approx(np.sqrt(np.mean(np.arange(1.0, n + 1) ** 2)))
        again = LogScale.from_dict(json.loads(json.dumps(scale.to_dict(), allow_nan=False)))
        assert again.predict(np.ones((1, 1))) == scale.predict(np.ones((1, 1)))


# Invariances


@given(st.integers(0, 50), st.floats(1e-3, 1e3), st.floats(-50, 50), st.floats(0.01, 100))
@settings(max_examples=40, deadline=None)
def test_equivariant_in_the_unit_of_the_errors_and_of_the_axis(seed, unit, shift, stretch):
    X, r, who = world(40, seed)
    plain = LogScale("x").fit(X, r, who).predict(X)
    assert np.allclose(LogScale("x").fit(X, r * unit, who).predict(X), plain * unit, rtol=1e-8)
    moved = X.assign(x=shift + stretch * X["x"])
    assert np.allclose(LogScale("x").fit(moved, r, who).predict(moved), plain, rtol=1e-6)
    assert (plain > 0).all()


@given(st.integers(0, 50), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_rows_and_the_names_of_patients_do_not_matter(seed, random):
    X, r, who = world(40, seed)
    order = list(range(len(X)))
    random.shuffle(order)
    a = LogScale("x").fit(X, r, who)
    b = LogScale("x").fit(X.iloc[order], r[order], np.array([f"p{900 - w}" for w in who])[order])
    assert np.allclose(a.predict(X), b.predict(X), rtol=1e-9) and a.slope_se == pytest.approx(b.slope_se, rel=1e-6)
    assert np.allclose(LogScale("x").fit(X, -r, who).predict(X), a.predict(X), rtol=1e-12), "the sign is not used"


def test_a_patient_weighs_one_however_many_rows():
    X, r, who = world(60, both=0)
    often = np.repeat(np.arange(60), 1 + np.arange(60) % 3)
    a, b = LogScale("x").fit(X, r, who), LogScale("x").fit(X.iloc[often], r[often], who[often])
    assert np.allclose(a.predict(X), b.predict(X)) and a.n_patients == b.n_patients == 60
    weighted = LogScale("x").fit(X, r, who, sample_weight=np.arange(60) % 2)
    halved = LogScale("x").fit(X[1::2], r[1::2], who[1::2])
    assert np.allclose(weighted.predict(X), halved.predict(X)), "a weight of nought is absence"
    assert np.allclose(row_weights(60, who, np.full(60, 7.0))[0], 1)


@given(st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_json_keeps_every_bit(seed):
    X, r, who = world(30, seed)
    for axis in ("x", ["x", "z"], {"x": 1, "z": -1}):
        scale = LogScale(axis).fit(X, r, who)
        text = json.dumps(scale.to_dict(), allow_nan=False)
        again = LogScale.from_dict(json.loads(text))
        assert (again.predict(X) == scale.predict(X)).all() and json.dumps(again.to_dict()) == text
        assert again.table().equals(scale.table())
    array = LogScale([0, 1]).fit(X.to_numpy(), r, who)
    again = LogScale.from_dict(json.loads(json.dumps(array.to_dict())))
    assert (again.predict(X.to_numpy()) == array.predict(X.to_numpy())).all(), "columns by number"


# Refusals


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda X, r, g: LogScale([]), "at least one column"),
        (lambda X, r, g: LogScale({"x": "1mm"}), "must be numbers"),
        (lambda X, r, g: LogScale("x", prior=0), "above 0"),
        (lambda X, r, g: LogScale("w").fit(X, r, g), "not there.*`w`.*x, z"),
        (lambda X, r, g: LogScale("x").fit(X, r * 0, g), "Every residual is 0"),
        (lambda X, r, g: LogScale("x").fit(X, np.where(r > 300, np.nan, r), g), "missing or infinite.*residual"),
        (lambda X, r, g: LogScale("x").fit(X, r[1:], g), "one value"),
        (lambda X, r, g: LogScale("x").fit(X, r, g[1:]), "its patient"),
        (lambda X, r, g: LogScale("x").fit(X, r, g, sample_weight=-np.ones(len(r))), "negative"),
        (lambda X, r, g: LogScale("x").fit(X, r, g).predict(X * np.inf), "missing or infinite"),
        (lambda X, r, g: LogScale.from_dict({"kind": "Line"}), "not a saved LogScale"),
        (lambda X, r, g: read_axis(3.5), "at least one column"),
    ],
)
def test_refusals_say_what_is_wrong(act, message):
    with pytest.raises(InputError, match=message):
        act(*world(30))
