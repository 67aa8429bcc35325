"""lensnb.intervals: CV+ against a plain loop and closed forms, coverage by simulation, risks, power, refusals."""

import json
import math
import time

import numpy as np
import pandas as pd
import pytest
from conftest import real_eyes
from hypothesis import given, settings
from hypothesis import strategies as st

from lensnb.intervals import (
    MIN_PATIENTS,
    CrossConformal,
    SplitConformal,
    brier_skill,
    coverage_power,
    coverage_table,
    lower_limit,
    reliability_table,
    upper_limit,
    wilson,
)
from lensnb.scale import LogScale
from lensnb.schema import InputError, NotEnoughData


class Line:
    """Least squares."""

    def fit(self, X, y, sample_weight=None):
        root = np.sqrt(np.ones(len(y)) if sample_weight is None else sample_weight)
        A = np.column_stack([np.ones(len(y)), X]) * root[:, None]
        self.coef = np.linalg.lstsq(A, y * root, rcond=None)[0]
        return self

    def predict(self, X):
        return self.coef[0] + sum(np.asarray(X)[:, j] * c for j, c in enumerate(self.coef[1:]))

    def to_dict(self):
        return {"coef": self.coef.tolist()}

    @classmethod
    def from_dict(cls, state):
        self = cls()
        self.coef = np.array(state["coef"])
        return self


class Mean:
    def fit(self, X, y, sample_weight=None):
        self.mean = np.mean(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.mean)


class Twin:
    """The nearest row: a model that recognises people."""

    def fit(self, X, y, sample_weight=None):
        self.X, self.y = np.asarray(X), np.asarray(y)
        return self

    def predict(self, X):
        return self.y[((np.asarray(X)[:, None] - self.X) ** 2).sum(axis=2).argmin(axis=1)]


def world(n=150, seed=0, shares=(0.7, 0.3), sd=(1.0, 1.0), rho=0.7, both=0.5):
    """Units of one or two a patient; the level is the patient's; errors of a patient correlate by `rho`."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n), 1 + (rng.random(n) < both))
    by = rng.choice(len(shares), n, p=shares)[patient]
    person = rng.normal(size=(n, 2))[patient]
    X = person + 0.02 * rng.normal(size=person.shape)
    noise = np.sqrt(rho) * rng.normal(size=n)[patient] + np.sqrt(1 - rho) * rng.normal(size=len(patient))
    y = X @ [1.0, -0.5] + 0.3 * by + noise * np.array(sd)[by]
    return X, y, by, patient


def covered(band, y):
    return (band["lower"].to_numpy() <= y) & (y <= band["upper"].to_numpy())


# The weighted limit


def slow_lower(values, weights, alpha):
    n, mass = sum(weights), 1.0
    if 1 > alpha * (n + 1) + 1e-9:
        return -math.inf
    for v, w in sorted(zip(values, weights)):
        mass += w
        if mass > alpha * (n + 1) + 1e-9:
            return v


@given(
    st.lists(st.tuples(st.integers(-20, 20), st.sampled_from([1, 0.5, 1 / 3])), min_size=1, max_size=30),
    st.floats(0.01, 0.99),
)
@settings(max_examples=200)
def test_limits_agree_with_a_plain_loop(pairs, alpha):
    values, weights = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    assert lower_limit(values[None], weights, alpha)[0] == slow_lower(values, weights, alpha)
    assert upper_limit(values[None], weights, alpha)[0] == -slow_lower(-values, weights, alpha)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("units", [1, 2, 3])
def test_the_limit_is_finite_from_the_stated_number_of_patients(alpha, units):
    enough = math.ceil(1 / alpha - 1 - 1e-9)
    for n in (enough - 1, enough):
        values = np.repeat(np.arange(n), units)[None].astype(float)
        limit = lower_limit(values, np.full(n * units, 1 / units), alpha)[0]
        assert np.isfinite(limit) == (n == enough)


def test_exact_coverage_of_the_weighted_quantile():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(20_000, 40))
    inside = lower_limit(draws[:, 1:], np.ones(39), 0.1) <= draws[:, 0]
    assert inside.mean() == pytest.approx(0.9, abs=0.006), "the 4th of 39: 4 of 40 equally likely ranks lie below it"


# CV+ and jackknife+


def slow_band(make_model, X, y, by, groups, fold, x, level, alpha):
    """One-sided limits of one new unit, from the definition."""
    pairs = []
    for i in np.flatnonzero(by == level):
        model = make_model().fit(X[fold != fold[i]], y[fold != fold[i]])
        residual = y[i] - model.predict(X[i : i + 1])[0]
        pairs.append((model.predict(x[None])[0] + residual, 1 / np.sum((groups == groups[i]) & (by == level))))
    values, weights = zip(*pairs)
    return slow_lower(values, weights, alpha), -slow_lower([-v for v in values], weights, alpha)


@pytest.mark.parametrize("seed", range(3))
def test_cv_plus_agrees_with_a_plain_loop_on_40_rows(seed):
    X, y, by, groups = (a[:40] for a in world(40, seed))
    by = np.where(np.arange(40) % 7 == 0, 1 - by, by)  # fellow units of one patient at two levels
    machine = CrossConformal(Line, n_splits=4, seed=seed).fit(X, y, by, groups)
    fold = machine.out_of_fold["fold"].to_numpy()
    for alpha in (0.25, 0.4):
        fast = np.column_stack([machine.lower(X, by, alpha), machine.upper(X, by, alpha)])
        slow = [slow_band(Line, X, y, by, groups, fold, x, level, alpha) for x, level in zip(X, by)]
        assert np.abs(fast - slow).max() < 1e-9


@pytest.mark.parametrize("n", [19, 39, 50])
def test_jackknife_plus_of_the_mean_is_order_statistics(n):
    y = np.random.default_rng(n).exponential(size=n)
    band = CrossConformal(Mean, n_splits=None).fit(np.zeros((n, 1)), y, np.zeros(n), np.arange(n))
    rank = int(0.05 * (n + 1) + 1e-9)
    limits = band.interval(np.zeros((1, 1)), 0, 0.1)[["lower", "upper"]].to_numpy()[0]
    assert np.allclose(limits, [np.sort(y)[rank - 1], np.sort(y)[n - rank]], atol=1e-12)
    assert len(band.models) == n


def test_jackknife_plus_of_least_squares_has_a_closed_form():
    X, y, _, _ = world(40, 1, both=0)
    A = np.column_stack([np.ones(40), X])
    G = np.linalg.inv(A.T @ A)
    R = (y - A @ G @ A.T @ y) / (1 - np.diag(A @ G @ A.T))
    new = np.random.default_rng(0).normal(size=(5, 2))
    N = np.column_stack([np.ones(5), new])
    guesses = np.sort((N @ G @ A.T @ y)[:, None] - N @ G @ A.T * R + R, axis=1)
    machine = CrossConformal(Line, n_splits=None).fit(X, y, np.zeros(40), np.arange(40))
    assert np.allclose(machine.interval(new, 0, 0.1)[["lower", "upper"]], guesses[:, [1, -2]], atol=1e-9)


def test_out_of_fold_keeps_patients_whole_and_never_saw_them():
    X, y, by, groups = world()
    machine = CrossConformal(Line).fit(pd.DataFrame(X), y, by, groups)
    frame = machine.out_of_fold.assign(group=groups)
    assert frame.groupby("group")["fold"].nunique().max() == 1 and list(frame)[:3] == ["fold", "prediction", "residual"]
    assert np.allclose(frame["prediction"] + frame["residual"], y)
    out = frame["fold"] == 3
    again = Line().fit(X[~out], y[~out]).predict(X[out])
    assert np.allclose(again, frame.loc[out, "prediction"])


def test_sample_weight_reaches_the_models():
    X, y, by, groups = world(40)
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y))
    machine = CrossConformal(Line).fit(X, y, by, groups, sample_weight=weight)
    out = machine.out_of_fold["fold"].to_numpy() == 0
    expected = Line().fit(X[~out], y[~out], weight[~out]).predict(X[out])
    assert np.allclose(expected, machine.out_of_fold["prediction"][out])


def test_a_patient_weighs_one_however_many_units():
    X, y, by, groups = world(60, both=0)
    often = np.repeat(np.arange(60), 1 + np.arange(60) % 4)
    a = CrossConformal(Mean, n_splits=None).fit(X, y, np.zeros(60), groups)
    b = CrossConformal(Mean, n_splits=None).fit(X[often], y[often], np.zeros(len(often)), groups[often])
    assert a.patients([0]) == b.patients([0]) == 60
    shift = [m.mean for m in a.models][0] - [m.mean for m in b.models][0]
    assert abs(shift) < 0.2, "the model may differ; the weights may not"
    assert b.residuals["weight"].sum() == pytest.approx(60)


# Coverage


def coverage(make_model, seeds, n, alpha=0.1, grouped=True, pooled=False, kind=CrossConformal, **how):
    found = []
    for seed in range(seeds):
        X, y, by, groups = world(n, seed, **how)
        new_X, new_y, new_by, _ = world(200, 5000 + seed, **how)
        machine = kind(make_model)
        machine.fit(X, y, by * (not pooled), groups if grouped else np.arange(len(y)))
        inside = covered(machine.interval(new_X, new_by * (not pooled), alpha), new_y)
        found.append([inside[new_by == s].mean() for s in np.unique(new_by)])
    return np.mean(found, axis=0)


def test_coverage_with_correlated_fellow_units():
    share = coverage(Line, 40, 120, both=0.6)
    assert (np.abs(share - 0.9) < 0.03).all()


def test_folds_that_split_patients_undercover():
    settings = dict(seeds=15, n=100, shares=(1.0,), both=1.0)
    grouped, split = coverage(Twin, **settings), coverage(Twin, **settings, grouped=False)
    assert grouped > 0.88 and split < grouped - 0.08


def test_pooled_calibration_undercovers_a_rare_noisy_level():
    settings = dict(seeds=30, n=300, shares=(0.85, 0.15), sd=(1.0, 2.0))
    by_level, pooled = coverage(Line, **settings), coverage(Line, **settings, pooled=True)
    assert (np.abs(by_level - 0.9) < 0.03).all() and pooled[1] < 0.75


def test_split_conformal_covers_and_calibrates_on_unseen_patients_only():
    assert (coverage(Line, 40, 200, kind=SplitConformal, both=0.6) > 0.885).all()
    X, y, by, groups = world(200)
    machine = SplitConformal(Line, share=0.4).fit(X, y, by, groups)
    used = machine.out_of_fold["fold"].to_numpy() == 0
    assert len(machine.models) == 1 and set(groups[used]).isdisjoint(groups[~used])
    assert len(set(groups[used])) / 200 == pytest.approx(0.4, abs=0.05)
    assert np.allclose(machine.models[0].coef, Line().fit(X[~used], y[~used]).coef)
    assert machine.out_of_fold["residual"][~used].isna().all() and len(machine.residuals) == used.sum()


def test_signed_residuals_correct_a_biased_model():
    class Biased(Line):
        def predict(self, X):
            return super().predict(X) + 100

    X, y, by, groups = world()
    straight = CrossConformal(Line).fit(X, y, by, groups).interval(X, by)
    biased = CrossConformal(Biased).fit(X, y, by, groups).interval(X, by)
    assert np.allclose(straight[["lower", "upper"]], biased[["lower", "upper"]])


# The floor, the range, the flag


@pytest.mark.parametrize(("alpha", "floor"), [(0.2, 9), (0.1, 19), (0.05, 39)])
def test_the_floor(alpha, floor):
    for n in (floor - 1, floor):
        rng = np.random.default_rng(n)
        X, y, by = rng.normal(size=(n + 30, 2)), rng.normal(size=n + 30), np.array(["rare"] * n + ["usual"] * 30)
        machine = CrossConformal(Line, outcome_range=(-50, 50)).fit(X, y, by, np.arange(n + 30))
        row = machine.interval(X[:1], "rare", alpha).iloc[0]
        assert row["n_patients"] == n and bool(row["calibrated"]) == (n == floor)
        assert ([row["lower"], row["upper"]] == [-50, 50]) == (n < floor)


def test_unseen_levels_and_clipping():
    X, y, by, groups = world()
    machine = CrossConformal(Line, outcome_range=(-1, 1)).fit(X, y, by, groups)
    band = machine.interval(X, by)
    assert band["lower"].between(-1, 1).all() and band["upper"].between(-1, 1).all()
    assert machine.interval(X, "?")[["lower", "upper", "n_patients"]].drop_duplicates().to_numpy().tolist() == [
        [-1, 1, 0]
    ]
    assert machine.probabilities(X, "?", (0, 1))["p_zone"].isna().all()
    free = CrossConformal(Line).fit(X, y, by, groups).interval(X[:2], "?")
    assert free["lower"].eq(-np.inf).all() and free["upper"].eq(np.inf).all()
    assert len(machine.interval(X[:0], 0)) == 0


@given(st.integers(0, 3), st.floats(0.02, 0.9), st.floats(0.02, 0.9))
@settings(max_examples=25)
def test_limits_are_ordered_and_nested(seed, a, b):
    X, y, by, groups = world(60, seed)
    machine = CrossConformal(Line, n_splits=5, outcome_range=(-9, 9)).fit(X, y, by, groups)
    narrow, wide = machine.interval(X, by, max(a, b)), machine.interval(X, by, min(a, b))
    assert (narrow["lower"] <= narrow["upper"]).all()
    assert (wide["lower"] <= narrow["lower"]).all() and (narrow["upper"] <= wide["upper"]).all()
    assert (machine.lower(X, by, a / 2) == machine.interval(X, by, a)["lower"]).all()


# Risks


@given(st.integers(0, 3), st.lists(st.floats(-4, 4), min_size=4, max_size=4))
@settings(max_examples=40)
def test_risks_sum_to_one_and_are_monotone_in_the_cuts(seed, cuts):
    outer_low, low, high, outer_high = sorted(cuts)
    X, y, by, groups = world(80, seed, shares=(1.0,))
    machine = CrossConformal(Line, n_splits=5, outcome_range=(-20, 20)).fit(X, y, by, groups)
    inner, outer = machine.probabilities(X, 0, (low, high)), machine.probabilities(X, 0, (outer_low, outer_high))
    for p in (inner, outer):
        assert np.allclose(p[["p_low", "p_zone", "p_high"]].sum(axis=1), 1, atol=1e-12)
        assert (p[["p_low", "p_zone", "p_high"]] >= -1e-12).all(axis=None)
        assert p["p_low"].min() > 0 < p["p_high"].min(), "no risk is printed as zero"
    assert (outer["p_low"] <= inner["p_low"]).all() and (outer["p_high"] <= inner["p_high"]).all()
    assert (outer["p_zone"] >= inner["p_zone"] - 1e-12).all()


def test_risks_and_limits_tell_the_same_story():
    X, y, by, groups = world(99, 2, shares=(1.0,), both=0)
    machine = CrossConformal(Line, n_splits=None).fit(X, y, by, groups)
    low = machine.lower(X, 0, 0.1)
    risks = [machine.probabilities(X[[i]], 0, (low[i] - 1e-9, np.inf))["p_low"].iloc[0] for i in range(20)]
    assert np.allclose(risks, 9.5 / 100), "9 of 99 guesses lie below the 10th, and half of the new one"


def test_risks_are_calibrated_in_simulation():
    p, happened = [], []
    for seed in range(25):
        X, y, by, groups = world(150, seed, sd=(1.0, 2.0), shares=(0.6, 0.4))
        new_X, new_y, new_by, _ = world(60, 900 + seed, sd=(1.0, 2.0), shares=(0.6, 0.4))
        risk = CrossConformal(Line).fit(X, y, by, groups).probabilities(new_X, new_by, (-1, 1))
        p.append(risk[["p_low", "p_zone", "p_high"]].to_numpy())
        happened.append(np.column_stack([new_y < -1, (new_y >= -1) & (new_y <= 1), new_y > 1]))
    p, happened = np.concatenate(p), np.concatenate(happened)
    for j in range(3):
        table = reliability_table(p[:, j], happened[:, j], np.arange(len(p)), n_bins=6)
        assert (table["predicted"] - table["observed"]).abs().max() < 0.07
        assert brier_skill(p[:, j], happened[:, j]) > 0.05


def test_few_patients_get_no_risk():
    rng = np.random.default_rng(0)
    n = MIN_PATIENTS - 1
    by = np.array([0] * n + [1] * 40)
    machine = CrossConformal(Line).fit(rng.normal(size=(n + 40, 2)), rng.normal(size=n + 40), by, np.arange(n + 40))
    table = machine.probabilities(np.zeros((2, 2)), [0, 1], (-1, 1))
    assert table["calibrated"].tolist() == [False, True] and table["p_zone"].isna().tolist() == [True, False]


def test_brier_and_reliability_in_small():
    assert brier_skill([1, 0, 1], [True, False, True]) == 1
    assert brier_skill([0.5, 0.5], [True, False]) == 0
    with pytest.raises(NotEnoughData):
        brier_skill([0.5, 0.5], [True, True])
    table = reliability_table([0.1, 0.1, 0.9, 0.9], [0, 0, 1, 1], ["a", "a", "b", "c"], n_bins=2)
    assert table["observed"].tolist() == [0, 1] and table["n_patients"].tolist() == [1, 2]


# Coverage table


def test_wilson_and_power():
    assert np.allclose(wilson(0.5, 10), (0.2366, 0.7634), atol=1e-4), "Newcombe 1998"
    assert wilson(0.0, 0) == (0.0, 1.0) and wilson(1.0, 20)[1] == 1
    assert coverage_power(90) == pytest.approx(0.37, abs=0.015)
    assert coverage_power(0) == 0 and coverage_power(20, truth=0.9) < 0.1 < coverage_power(500)
    rng = np.random.default_rng(0)
    seen = [wilson(k / 90, 90)[1] < 0.9 for k in rng.binomial(90, 0.85, 4000)]
    assert np.mean(seen) == pytest.approx(coverage_power(90), abs=0.03)


def test_coverage_table_counts_patients():
    y = np.array([1.0, 1, 9, 1, 1])
    table = coverage_table(y, np.zeros(5), np.full(5, 2.0), ["a", "a", "a", "b", "b"], [1, 1, 2, 3, 4], nominal=0.9)
    assert table.loc["a", ["n_units", "n_patients", "coverage"]].tolist() == [3, 2, 0.5]
    assert table.loc["all", "coverage"] == 0.75 and table.loc["all", "width"] == 2 and table.loc["b", "holds"]
    assert list(table.index) == ["a", "b", "all"]
    with pytest.raises(InputError, match="`lower` must not have gaps"):
        coverage_table(y, [np.nan] * 5, y, ["a"] * 5, range(5))


# Normalized by a scale


class Fixed:
    """A scale that is `value` for everybody, or for each row by `rule`; remembers what it was given."""

    def __init__(self, value=1.0, rule=None):
        self.value, self.rule = value, rule

    def fit(self, X, residual, groups=None, sample_weight=None):
        self.seen = (np.asarray(X), np.asarray(residual), np.asarray(groups), sample_weight)
        return self

    def predict(self, X):
        return np.full(len(X), self.value) if self.rule is None else self.rule(np.asarray(X))

    def to_dict(self):
        return {"value": self.value}

    @classmethod
    def from_dict(cls, state):
        return cls(state["value"])


def growing(n=250, seed=0, growth=0.6, rho=0.7):
    """Errors grow with the first column; two levels; one or two units a patient."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n), rng.choice([1, 2], n))
    by = rng.choice(2, n, p=[0.7, 0.3])[patient]
    X = rng.normal(size=(n, 2))[patient] + 0.2 * rng.normal(size=(len(patient), 2))
    noise = np.sqrt(rho) * rng.normal(size=n)[patient] + np.sqrt(1 - rho) * rng.normal(size=len(patient))
    return X, X @ [1.0, -0.5] + 0.3 * by + np.exp(growth * X[:, 0]) * noise, by, patient


@given(st.integers(0, 20), st.sampled_from([0.25, 1.0, 2.0, 1024.0]), st.booleans(), st.booleans())
@settings(max_examples=15, deadline=None)
def test_a_constant_scale_changes_nothing_to_the_last_bit(seed, value, between, split):
    X, y, by, groups = world(80, seed)
    kind = SplitConformal if split else CrossConformal
    plain = kind(Line, outcome_range=(-4, 4), interpolate=between).fit(X, y, by, groups)
    same = kind(Line, outcome_range=(-4, 4), interpolate=between, make_scale=lambda: Fixed(value))
    same.fit(X, y, by, groups)
    assert same.interval(X, by).equals(plain.interval(X, by))
    assert same.probabilities(X, by, (-1, 1)).equals(plain.probabilities(X, by, (-1, 1)))


@pytest.mark.parametrize("seed", range(2))
def test_normalized_cv_plus_agrees_with_a_plain_loop(seed):
    X, y, by, groups = (a[:40] for a in growing(40, seed))
    machine = CrossConformal(Line, n_splits=4, seed=seed, make_scale=lambda: LogScale([0])).fit(X, y, by, groups)
    fold = machine.out_of_fold["fold"].to_numpy()
    for j in range(0, 40, 5):
        pairs = []
        for i in np.flatnonzero(by == by[j]):
            kept = fold != fold[i]
            model = Line().fit(X[kept], y[kept])
            scale = LogScale([0]).fit(X[kept], y[kept] - model.predict(X[kept]), groups[kept])
            error = (y[i] - model.predict(X[[i]])[0]) / scale.predict(X[[i]])[0]
            guess = model.predict(X[[j]])[0] + scale.predict(X[[j]])[0] * error
            pairs.append((guess, 1 / np.sum((groups == groups[i]) & (by == by[i]))))
        values, weights = zip(*pairs)
        for alpha in (0.2, 0.4):
            assert machine.lower(X[[j]], by[j], alpha)[0] == pytest.approx(slow_lower(values, weights, alpha), abs=1e-9)
            slow = -slow_lower([-v for v in values], weights, alpha)
            assert machine.upper(X[[j]], by[j], alpha)[0] == pytest.approx(slow, abs=1e-9)


def test_the_scale_never_sees_the_fold_it_serves():
    X, y, by, groups = world(60)
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y))
    machine = CrossConformal(Line, make_scale=Fixed).fit(X, y, by, groups, sample_weight=weight)
    fold = machine.out_of_fold["fold"].to_numpy()
    for f, (model, scale) in enumerate(zip(machine.models, machine.scales)):
        rows, residual, who, given_weight = scale.seen
        assert set(who).isdisjoint(groups[fold == f]) and len(rows) == (fold != f).sum()
        assert np.array_equal(residual, y[fold != f] - model.predict(X[fold != f]))
        assert np.array_equal(given_weight, weight[fold != f])


def test_out_of_fold_keeps_the_scale_and_the_raw_error():
    X, y, by, groups = growing(80)
    machine = CrossConformal(Line, make_scale=lambda: LogScale([0])).fit(X, y, by, groups)
    frame = machine.out_of_fold
    assert np.allclose(frame["prediction"] + frame["residual"], y) and (frame["scale"] > 0).all()
    pooled = np.sort(machine.residuals["residual"])
    assert np.allclose(pooled, np.sort(frame["residual"] / frame["scale"]))
    assert (CrossConformal(Line).fit(X, y, by, groups).out_of_fold["scale"] == 1).all()


def test_growing_errors_undercover_the_top_quarter_unless_normalized():
    share = {}
    for kind, scale in {"constant": None, "normalized": lambda: LogScale([0])}.items():
        found, width = [], []
        for seed in range(12):
            X, y, by, groups = growing(250, seed)
            new_X, new_y, new_by, _ = growing(250, 5000 + seed)
            band = CrossConformal(Line, make_scale=scale).fit(X, y, by, groups).interval(new_X, new_by)
            top = new_X[:, 0] > np.quantile(new_X[:, 0], 0.75)
            inside = covered(band, new_y)
            found.append([inside[top].mean(), inside[~top].mean(), inside.mean()])
            width.append((band["upper"] - band["lower"]).mean())
        share[kind] = (*np.mean(found, axis=0), np.mean(width))
    assert share["constant"][0] < 0.8 and share["constant"][1] > 0.93, "the average is right, the top quarter is not"
    assert abs(share["normalized"][0] - 0.91) < 0.025 and abs(share["normalized"][1] - 0.91) < 0.025
    assert share["normalized"][3] < share["constant"][3]


def test_interpolation_is_nominal_on_average_and_inside_the_whole_ranks():
    rng = np.random.default_rng(0)
    draws = rng.random((20_000, 51))
    low, high = (rule(draws[:, 1:], np.ones(50), 0.05, True) for rule in (lower_limit, upper_limit))
    outer = [rule(draws[:, 1:], np.ones(50), 0.05) for rule in (lower_limit, upper_limit)]
    inside = (low <= draws[:, 0]) & (draws[:, 0] <= high)
    assert inside.mean() == pytest.approx(0.9, abs=0.007)
    assert ((outer[0] <= draws[:, 0]) & (draws[:, 0] <= outer[1])).mean() == pytest.approx(0.922, abs=0.007)
    assert (outer[0] <= low).all() and (high <= outer[1]).all()
    assert lower_limit(np.arange(18.0)[None], np.ones(18), 0.05, True) == -np.inf, "the floor stays"
    assert lower_limit(np.arange(19.0)[None], np.ones(19), 0.05, True) == 0


@given(
    st.lists(
        st.tuples(st.integers(-20, 20), st.sampled_from([1, 0.5, 1 / 3])),
        min_size=1,
        max_size=30,
        unique_by=lambda p: p[0],
    ),
    st.floats(0.01, 0.99),
    st.floats(0.01, 0.99),
)
@settings(max_examples=60)
def test_interpolated_limits_are_monotone_and_mirrored(pairs, a, b):
    values, weights = np.array([[p[0] for p in pairs]], float), np.array([p[1] for p in pairs])
    low, high = (lower_limit(values, weights, risk, True)[0] for risk in (min(a, b), max(a, b)))
    assert low <= high <= values.max()
    mirrored = -lower_limit(-values, weights, a, True)
    assert upper_limit(values, weights, a, True) == pytest.approx(mirrored, abs=1e-9)
    if a < 0.5:
        assert lower_limit(values, weights, a, True) <= upper_limit(values, weights, a, True) + 1e-9


def test_interpolated_one_sided_limits_miss_as_often_as_asked():
    missed = []
    for seed in range(25):
        X, y, by, groups = world(70, seed, shares=(1.0,), both=0.3)
        new_X, new_y, _, _ = world(300, 700 + seed, shares=(1.0,))
        machine = CrossConformal(Line, interpolate=True).fit(X, y, np.zeros(len(y)), groups)
        rows = machine.prepare(new_X)
        missed.append([(new_y < machine.lower(rows, 0, 0.1)).mean(), (new_y > machine.upper(rows, 0, 0.1)).mean()])
    assert np.abs(np.mean(missed, axis=0) - 0.1).max() < 0.03


# Prepared rows


def test_prepared_rows_give_the_same_answers_and_ask_the_models_once():
    class Counting(Line):
        asked = 0

        def predict(self, X):
            Counting.asked += 1
            return super().predict(X)

    X, y, by, groups = growing(80)
    frame = pd.DataFrame(X, columns=["a", "b"], index=[f"u{i}" for i in range(len(X))])
    machine = CrossConformal(Counting, make_scale=lambda: LogScale("a")).fit(frame, y, by, groups)
    expected = [machine.interval(frame, by), machine.probabilities(frame, by, (-1, 1)), machine.lower(frame, 1, 0.2)]
    Counting.asked = 0
    rows = machine.prepare(frame)
    answers = [machine.interval(rows, by), machine.probabilities(rows, by, (-1, 1)), machine.lower(rows, 1, 0.2)]
    assert Counting.asked == len(machine.models) and len(rows) == len(frame)
    assert answers[0].equals(expected[0]) and answers[1].equals(expected[1]) and (answers[2] == expected[2]).all()
    assert answers[0].index.equals(frame.index) and machine.prepare(rows) is rows
    assert (machine.lower(rows, by, 0.05) == expected[0]["lower"]).all(), "other levels in between do no harm"


def test_many_rows_are_not_remembered(monkeypatch):
    X, y, by, groups = world(80)
    machine = CrossConformal(Line).fit(X, y, by, groups)
    kept = machine.interval(X, by)
    monkeypatch.setattr("lensnb.intervals.MEMORY", 10)
    rows = machine.prepare(X)
    assert machine.interval(rows, by).equals(kept) and not rows.memory


def test_pass_groups_hands_the_patients_to_the_models():
    class Grouped(Line):
        def fit(self, X, y, sample_weight=None, groups=None):
            self.groups = groups
            return super().fit(X, y, sample_weight)

    X, y, by, groups = world(40)
    machine = CrossConformal(Grouped, pass_groups=True).fit(X, y, by, groups)
    fold = machine.out_of_fold["fold"].to_numpy()
    assert all(np.array_equal(m.groups, groups[fold != f]) for f, m in enumerate(machine.models))
    assert CrossConformal(Grouped).fit(X, y, by, groups).models[0].groups is None


# Independent libraries, on ungrouped data


def test_agrees_with_crepes_normalized_by_level():
    crepes = pytest.importorskip("crepes")
    for seed in (0, 1):
        X, y, by, groups = growing(400, seed)
        first = np.unique(groups, return_index=True)[1]
        X, y, by, groups = X[first], y[first], by[first], groups[first]
        machine = SplitConformal(Line, make_scale=lambda: LogScale([0])).fit(X, y, by, groups)
        held = machine.out_of_fold["fold"].to_numpy() == 0
        errors, new = machine.out_of_fold[held], np.random.default_rng(9).normal(size=(50, 2))
        system = crepes.ConformalPredictiveSystem()
        system.fit(errors["residual"].to_numpy(), sigmas=errors["scale"].to_numpy(), bins=by[held])
        rows, level = machine.prepare(new), np.arange(50) % 2
        theirs = system.predict_int(rows.prediction[:, 0], sigmas=rows.scale[:, 0], bins=level, confidence=0.87)
        assert np.allclose(machine.interval(new, level, 0.13)[["lower", "upper"]], theirs, atol=1e-9)


@pytest.mark.parametrize("n", [99, 120])
def test_agrees_with_mapie_cv_plus(n):
    from mapie import conformity_scores as scores
    from mapie import regression
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import PredefinedSplit

    X, y, _, groups = world(n, 3, both=0)
    machine = CrossConformal(Line, n_splits=5).fit(X, y, np.zeros(n), groups)
    theirs = regression.CrossConformalRegressor(
        LinearRegression(),
        confidence_level=0.9,
        conformity_score=scores.AbsoluteConformityScore(sym=False),
        method="plus",
        cv=PredefinedSplit(machine.out_of_fold["fold"].to_numpy()),
    ).fit_conformalize(X, y)
    new = np.random.default_rng(0).normal(size=(40, 2))
    limits = theirs.predict_interval(new)[1][:, :, 0]
    assert np.allclose(machine.interval(new, 0, 0.1)[["lower", "upper"]], limits, atol=1e-9)


def test_agrees_with_mapie_jackknife_plus():
    regression, scores = pytest.importorskip("mapie.regression"), pytest.importorskip("mapie.conformity_scores")
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import LeaveOneOut

    # at n = 59 the rank 0.05 x 60 is the whole number 3; MAPIE's 1 - 0.9 lies a hair under 0.1: one rank wider
    for n, alpha, asked in ((60, 0.1, 0.1), (99, 0.1, 0.1), (80, 0.2, 0.2), (59, 0.1, 0.1 - 1e-6)):
        X, y, _, groups = world(n, 4, both=0)
        machine = CrossConformal(Line, n_splits=None).fit(X, y, np.zeros(n), groups)
        theirs = regression.CrossConformalRegressor(
            LinearRegression(),
            confidence_level=1 - alpha,
            conformity_score=scores.AbsoluteConformityScore(sym=False),
            method="plus",
            cv=LeaveOneOut(),
        ).fit_conformalize(X, y)
        new = np.random.default_rng(1).normal(size=(30, 2))
        limits = theirs.predict_interval(new)[1][:, :, 0]
        ours = machine.interval(new, 0, asked)
        assert len(machine.models) == n and np.allclose(ours[["lower", "upper"]], limits, atol=1e-9)


# Keeping, refusing, speed


@pytest.mark.parametrize("kind", [CrossConformal, SplitConformal])
def test_roundtrip_is_bit_equal(kind):
    X, y, by, groups = world(80)
    frame = pd.DataFrame(X, columns=["a", "b"], index=[f"unit-{i}" for i in range(len(X))])
    machine = kind(Line, seed=4, outcome_range=(-np.inf, 3)).fit(frame, y, by, groups)
    text = json.dumps(machine.to_dict(), allow_nan=False)
    again = kind.from_dict(json.loads(text), Line.from_dict)
    pd.testing.assert_frame_equal(again.interval(frame, by), machine.interval(frame, by), check_exact=True)
    cuts = (-1.0, 1.0)
    pd.testing.assert_frame_equal(
        again.probabilities(frame, by, cuts), machine.probabilities(frame, by, cuts), check_exact=True
    )
    assert json.dumps(again.to_dict(), allow_nan=False) == text and "unit-" not in text
    assert machine.interval(frame, by).index.equals(frame.index)
    one = pd.concat([machine.interval(frame.iloc[[i]], by[i]) for i in range(10)])
    pd.testing.assert_frame_equal(one, machine.interval(frame, by).iloc[:10], check_exact=True)


@pytest.mark.parametrize("kind", [CrossConformal, SplitConformal])
def test_roundtrip_keeps_the_scale_and_the_ranks(kind):
    X, y, by, groups = growing(80)
    machine = kind(Line, make_scale=lambda: LogScale([0]), interpolate=True).fit(X, y, by, groups)
    text = json.dumps(machine.to_dict(), allow_nan=False)
    again = kind.from_dict(json.loads(text), Line.from_dict, LogScale.from_dict)
    assert again.interval(X, by).equals(machine.interval(X, by)) and json.dumps(again.to_dict()) == text
    old = json.loads(json.dumps(kind(Line).fit(X, y, by, groups).to_dict()))
    whole = kind.from_dict({k: v for k, v in old.items() if k not in ("scales", "interpolate")}, Line.from_dict)
    assert whole.scales == [] and not whole.interpolate, "states of version 1 had neither"


def test_same_seed_same_bytes_other_seed_other_folds():
    X, y, by, groups = world(80)
    texts = [json.dumps(CrossConformal(Line, seed=s).fit(X, y, by, groups).to_dict()) for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda X, y, by, g: CrossConformal(Line).fit(X, y, by, np.where(g == 0, None, g)),
            "`groups` must not have gaps",
        ),
        (lambda X, y, by, g: CrossConformal(Line).fit(X, y[1:], by, g), "one value a row"),
        (lambda X, y, by, g: CrossConformal(Line).fit(X, np.where(y > 1, np.nan, y), by, g), "`y` must not have gaps"),
        (lambda X, y, by, g: CrossConformal(Line).fit(X, y, by, np.zeros(len(X))), "at least two patients"),
        (lambda X, y, by, g: CrossConformal(Line).fit(X, y, by, g).interval(X, by, 90), "is a risk"),
        (
            lambda X, y, by, g: CrossConformal(Line).fit(X, y, by, g).probabilities(X, by, (1, -1)),
            "two ends of the zone",
        ),
        (lambda X, y, by, g: CrossConformal(Mean).fit(X, y, by, g).to_dict(), "cannot be saved"),
        (lambda X, y, by, g: CrossConformal.from_dict({"kind": "?"}, Line.from_dict), "not a saved CrossConformal"),
        (lambda X, y, by, g: CrossConformal(Line, outcome_range=(1, 0)), "low, high"),
        (lambda X, y, by, g: SplitConformal(Line, share=1.0), "between 0 and 1"),
        (
            lambda X, y, by, g: CrossConformal(Line, make_scale=lambda: Fixed(0.0)).fit(X, y, by, g),
            "scale must be a positive number.*row 0",
        ),
        (
            lambda X, y, by, g: CrossConformal(Line, make_scale=lambda: Fixed(np.nan)).fit(X, y, by, g),
            "scale must be a positive number",
        ),
        (lambda X, y, by, g: CrossConformal(Twin, make_scale=lambda: LogScale([0])).fit(X, y, by, g), "residual is 0"),
        (
            lambda X, y, by, g: CrossConformal.from_dict(
                CrossConformal(Line, make_scale=Fixed).fit(X, y, by, g).to_dict(), Line.from_dict
            ),
            "have a scale",
        ),
        (
            lambda X, y, by, g: (
                CrossConformal(Line).fit(X, y, by, g).interval(CrossConformal(Line).fit(X, y, by, g).prepare(X), by)
            ),
            "another machine",
        ),
    ],
)
def test_refusals_say_what_is_wrong(act, message):
    with pytest.raises((InputError, NotEnoughData), match=message):
        act(*world(30))


def test_speed():
    X, y, by, groups = world(300, shares=(0.25,) * 4, sd=(1.0,) * 4, both=0.65)
    machine = CrossConformal(Line).fit(X, y, by, groups)
    many = np.random.default_rng(0).normal(size=(40_000, 2))
    start = time.perf_counter()
    machine.interval(many, np.arange(40_000) % 4)
    machine.probabilities(many, np.arange(40_000) % 4, (-1, 1))
    assert time.perf_counter() - start < 10


# Real eyes: what is known about the published cohort


@pytest.mark.skipif(real_eyes() is None, reason="LENSNB_DATA_DIR is not set: no real cohort")
def test_the_largest_size_of_the_real_cohort_needs_its_own_calibration():
    d = pd.read_csv(real_eyes(), sep=";", encoding="utf-8-sig")
    patient = ((d["age"].diff() != 0) | (d["wtw"].diff().abs() > 0.3 + 1e-9) | (d["cct"].diff().abs() > 20)).cumsum()
    X = d[["iclSize", "ata", "clr", "acd", "avePreOpAcaNasal", "iclSe", "age"]]
    share = {}
    for name, by in {"by level": d["iclSize"], "pooled": pd.Series(0, d.index)}.items():
        inside = []
        for seed in range(5):
            fold = np.random.default_rng(seed).integers(0, 5, patient.max() + 1)[patient]
            for f in range(5):
                out = fold == f
                machine = CrossConformal(Line, outcome_range=(0, 2000), seed=seed)
                machine.fit(X[~out], d["vault"][~out], by[~out], patient[~out])
                big = out & (d["iclSize"] == 13.7)
                inside.append(covered(machine.interval(X[big], by[big].to_numpy()), d["vault"][big].to_numpy()))
        share[name] = np.concatenate(inside).mean()
    assert share["by level"] > 0.87 and share["pooled"] < 0.87 and share["by level"] - share["pooled"] > 0.05
