"""lensnb.compare: folds by patient, closed forms, ties called ties, intervals that cover, no skill without signal."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensnb.compare import (
    LEAST,
    GroupMean,
    Nested,
    OnColumns,
    bands,
    calibration,
    calibration_bins,
    differences,
    errors,
    fit_with_groups,
    grouped_folds,
    out_of_fold,
    rivals,
    signed_errors,
)
from lensnb.schema import InputError, NotEnoughData


class Line:
    """Least squares on some columns (none: the mean)."""

    def __init__(self, *names):
        self.names = list(names)

    def _matrix(self, X):
        return np.column_stack([np.ones(len(X)), X[self.names]])

    def fit(self, X, y):
        self.coef = np.linalg.lstsq(self._matrix(X), y, rcond=None)[0]
        return self

    def predict(self, X):
        return self._matrix(X) @ self.coef


class Nearest:
    """One nearest neighbour: remembers everything."""

    def fit(self, X, y):
        self.X, self.y = X.to_numpy(), np.asarray(y)
        return self

    def predict(self, X):
        return self.y[((X.to_numpy()[:, None] - self.X[None]) ** 2).sum(axis=2).argmin(axis=1)]


def pairs(patients=120, seed=0, signal=130.0, shared=0.7, sd=240.0):
    """Two units a patient, two columns, an outcome whose unexplained part is shared."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), 2)
    X = rng.normal(size=(patients, 2))[who] + 0.1 * rng.normal(size=(len(who), 2))
    noise = np.sqrt(shared) * rng.normal(size=patients)[who] + np.sqrt(1 - shared) * rng.normal(size=len(who))
    return pd.DataFrame(X, columns=["a", "b"]), 650 + signal * X[:, 0] + sd * noise, who


def fixed(outcome, prediction, group, model="m"):
    """A table of predictions as `out_of_fold` returns it, from given numbers."""
    n = len(outcome)
    baseline = float(np.mean(outcome))
    return pd.DataFrame(
        {"unit": np.arange(n), "group": group, "repeat": 0, "fold": 0, "model": model, "outcome": outcome,
         "baseline": baseline, "prediction": prediction, "chosen": ""}
    )  # fmt: skip


# Folds


@given(st.lists(st.integers(0, 15), min_size=2, max_size=60), st.integers(2, 6), st.integers(0, 9))
@settings(max_examples=80)
def test_folds_never_split_a_patient(groups, splits, seed):
    groups = np.array(groups)
    if len(set(groups)) < splits:
        with pytest.raises(NotEnoughData):
            grouped_folds(groups, splits, seed)
        return
    fold = grouped_folds(groups, splits, seed)
    assert set(fold) == set(range(splits)), "no fold is empty"
    assert pd.Series(fold).groupby(groups).nunique().max() == 1
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    assert (grouped_folds(groups[shuffled], splits, seed) == fold[shuffled]).all(), "row order must not matter"


def test_no_model_ever_sees_the_patient_it_predicts():
    X, y, who = pairs(30)
    trained = []

    class Spy(Line):
        def fit(self, X, y, groups):
            trained.append(set(groups))
            return super().fit(X, y)

    table = out_of_fold({"spy": lambda: Spy("a")}, X, y, who, repeats=2, splits=3, progress=False)
    for seen, (_, part) in zip(trained, table.groupby(["repeat", "fold"], sort=False)):
        assert not seen & set(part["group"]) and seen | set(part["group"]) == set(who)


def test_every_unit_once_a_repeat_on_the_same_folds_and_the_same_bytes():
    X, y, who = pairs(25)
    models = {"line": lambda: Line("a"), "constant": lambda: Line()}
    table = out_of_fold(models, X, y, who, repeats=3, progress=False)
    assert table.groupby(["model", "repeat"])["unit"].apply(lambda u: sorted(u) == list(range(50))).all()
    assert table.groupby(["repeat", "unit"])["fold"].nunique().eq(1).all()
    assert table.groupby("unit")["fold"].nunique().max() > 1, "repeats use other folds"
    pd.testing.assert_frame_equal(table, out_of_fold(models, X, y, who, repeats=3, progress=False))


@pytest.mark.parametrize(
    "change",
    [
        lambda X, y, g: (X, y[1:], g),
        lambda X, y, g: (X, y, np.where(np.arange(len(g)) == 3, None, g.astype(object))),
        lambda X, y, g: (X, np.where(np.arange(len(y)) == 2, np.nan, y), g),
        lambda X, y, g: (X.set_axis([0] * len(X)), y, g),
    ],
)
def test_what_does_not_fit_together_is_refused(change):
    with pytest.raises(InputError):
        out_of_fold({"line": lambda: Line("a")}, *change(*pairs(10)), progress=False)


# Closed forms


def test_two_constant_models_have_the_known_difference():
    y, who = np.linspace(50, 90, 40), np.repeat(np.arange(20), 2)
    table = pd.concat([fixed(y, np.zeros(40), who, "zero"), fixed(y, np.full(40, 10.0), who, "ten")])
    row = differences(table, "zero", unit="um").loc["ten"]
    assert np.allclose([row["difference"], row["lower"], row["upper"]], -10) and row["verdict"] == "better"
    assert row["words"] == "errs less by 10.0 um (10.0 to 10.0)" and row["n"] == 40 and row["patients"] == 20
    back = differences(table, "ten").loc["zero"]
    assert np.isclose(back["difference"], 10) and back["verdict"] == "worse"


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_measures_equal_their_definitions(seed):
    rng = np.random.default_rng(seed)
    y, p, who = 1e3 + 200 * rng.normal(size=60), 1e3 + 150 * rng.normal(size=60), rng.integers(0, 25, 60)
    row, e = errors(fixed(y, p, who), resamples=20).loc["m"], y - p
    wanted = {"mae": abs(e).mean(), "medae": np.median(abs(e)), "rmse": np.sqrt((e**2).mean()), "bias": e.mean(),
              "sd": e.std(), "r2": 1 - (e**2).sum() / ((y - y.mean()) ** 2).sum(), "sd_ratio": p.std() / y.std(),
              "skill": 1 - abs(e).mean() / abs(y - y.mean()).mean()}  # fmt: skip
    for name, value in wanted.items():
        assert np.isclose(row[name], value), name
    slope, intercept = np.polyfit(p, y, 1)
    line = calibration(fixed(y, p, who), resamples=20).loc["m"]
    assert np.allclose([line["slope"], line["intercept"]], [slope, intercept])


def test_bootstrap_limits_equal_a_plain_loop():
    rng = np.random.default_rng(3)
    y, p, who = rng.normal(size=50), rng.normal(size=50), np.repeat(np.arange(20), [1, 2, 3, 4] * 5)
    table, found = fixed(y, p, who), errors(fixed(y, p, who), resamples=200, seed=4).loc["m"]
    draws = np.random.default_rng(4).multinomial(20, np.full(20, 1 / 20), size=200)
    plain = {"mae": [], "medae": [], "r2": []}
    for counts in draws:
        rows = np.repeat(np.arange(50), counts[who])
        e, dev = y[rows] - p[rows], y[rows] - y[rows].mean()
        plain["mae"].append(abs(e).mean())
        plain["r2"].append(1 - (e**2).sum() / (dev**2).sum())
        plain["medae"].append(np.sort(abs(e))[(len(e) - 1) // 2])
    for name, values in plain.items():
        assert np.allclose([found[f"{name}_lower"], found[f"{name}_upper"]], np.quantile(values, [0.025, 0.975])), name
    assert len(table) == 50


# Ties, clusters, coverage


def test_a_tie_is_called_a_tie_and_says_how_much_worse_it_could_be():
    rng = np.random.default_rng(0)
    y, who = rng.normal(0, 240, 200), np.repeat(np.arange(100), 2)
    near = [fixed(y, rng.normal(0, 20, 200), who, name) for name in ("one", "two")]
    row = differences(pd.concat(near), "one", unit="um").loc["two"]
    assert row["lower"] < 0 < row["upper"] and row["verdict"] == "tie"
    assert f"no worse than by more than {row['upper']:.1f} um" in row["words"]
    assert differences(pd.concat([near[0], near[0].assign(model="copy")]), "one").loc["copy", "verdict"] == "tie"


@given(st.integers(0, 500))
@settings(max_examples=30)
def test_the_verdict_follows_from_the_interval_alone(seed):
    rng = np.random.default_rng(seed)
    y, who = rng.normal(size=40), np.repeat(np.arange(20), 2)
    parts = [fixed(y, rng.normal(0, rng.uniform(0, 3), 40), who, name) for name in "abc"]
    for row in differences(pd.concat(parts), "a", resamples=60, seed=seed).itertuples():
        holds_zero = row.lower <= 0 <= row.upper
        assert (row.verdict == "tie") == holds_zero
        assert holds_zero or (row.verdict == "better") == (row.difference < 0)


def test_intervals_by_patient_are_wider_only_when_fellow_eyes_share_errors():
    def width(shared, by_patient):
        _, y, who = pairs(150, seed=1, signal=0, shared=shared)
        table = fixed(y, np.full(len(y), 650.0), who if by_patient else np.arange(len(y)))
        row = errors(table, measures=["bias"]).loc["m"]
        return row["bias_upper"] - row["bias_lower"]

    assert width(0.9, True) > 1.2 * width(0.9, False), "sqrt(1 + 0.9) = 1.38 is expected"
    assert width(0.0, True) < 1.15 * width(0.0, False), "independent eyes: nothing to widen"


def test_the_clustered_interval_of_a_difference_covers_and_the_naive_one_does_not():
    """Two fixed predictors, 0 and d: the true difference of mean absolute error is a formula of the folded normal."""
    from math import erf, exp, pi, sqrt

    sd, d = 240.0, 120.0

    def folded(mean):
        return sd * sqrt(2 / pi) * exp(-(mean**2) / (2 * sd**2)) + mean * erf(mean / (sd * sqrt(2)))

    truth, hits = folded(d) - folded(0.0), {"patient": 0, "unit": 0}
    runs = 150
    for seed in range(runs):
        _, y, who = pairs(80, seed=seed, signal=0, shared=0.95, sd=sd)
        y = y - 650
        for by, group in (("patient", who), ("unit", np.arange(len(y)))):
            table = pd.concat([fixed(y, np.full(len(y), v), group, name) for name, v in (("zero", 0.0), ("off", d))])
            row = differences(table, "zero", resamples=200, seed=seed).loc["off"]
            hits[by] += row["lower"] <= truth <= row["upper"]
    assert hits["patient"] / runs >= 0.90, hits
    assert hits["unit"] / runs <= hits["patient"] / runs - 0.03, hits


# No signal, no skill; leakage is seen


def test_shuffled_outcomes_have_no_skill_and_real_ones_do():
    X, y, who = pairs(150, seed=2, signal=250.0)
    models = {"line": lambda: Line("a", "b"), "nearest": Nearest}
    rng = np.random.default_rng(0)
    runs = [out_of_fold(models, X, rng.permutation(y), who, repeats=1, seed=s, progress=False) for s in range(5)]
    none = pd.concat([t.assign(unit=t["unit"] + 1000 * i) for i, t in enumerate(runs)])
    assert errors(none, resamples=50)["r2"].le(0.0).all() and errors(none, resamples=50)["skill"].le(0.01).all()
    real = errors(out_of_fold(models, X, y, who, repeats=1, progress=False), resamples=50)
    assert real.loc["line", "skill"] > 0.1


def test_folds_by_eye_flatter_the_model_that_remembers():
    X, y, who = pairs(150, seed=5)
    maker = {"nearest": Nearest, "line": lambda: Line("a", "b")}
    honest = errors(out_of_fold(maker, X, y, who, repeats=2, progress=False), resamples=20)["mae"]
    leaky = errors(out_of_fold(maker, X, y, np.arange(len(y)), repeats=2, progress=False), resamples=20)["mae"]
    assert leaky["nearest"] < honest["nearest"] - 15 and abs(leaky["line"] - honest["line"]) < 10


# Classes, bands, abstaining models


def test_small_classes_are_counted_but_not_described():
    X, y, who = pairs(40)
    table = fixed(y, y + 5, who)
    kind = pd.Series(np.where(np.arange(80) < LEAST - 1, "few", "many"), name="kind")
    found = errors(table, by=kind, resamples=20)
    assert found.loc[("m", "few"), "n"] == LEAST - 1 and np.isnan(found.loc[("m", "few"), "mae"])
    assert np.isclose(found.loc[("m", "many"), "mae"], 5)
    few = calibration_bins(table[table["unit"] < 10], bins=4, resamples=20)
    assert few.loc[few["n"] < LEAST, ["prediction", "outcome", "lower"]].isna().all(axis=None)


def test_bands_are_closed_below_and_signed_errors_are_achieved_minus_predicted():
    values = pd.Series([249.0, 250, 499, 500, 1000, 2000])
    names = ["under 250", "250 to under 500", "250 to under 500", "500 to under 1000", "1000 and more", "1000 and more"]
    assert bands(values, [250, 500, 1000]).tolist() == names
    y = np.repeat([100.0, 300.0, 700.0], 10)
    found = signed_errors(fixed(y, np.full(30, 400.0), np.arange(30)), [250, 500], resamples=20).loc["m"]
    assert found["bias"].tolist() == [-300, -100, 300] and found["n"].tolist() == [10, 10, 10]


def test_a_model_may_abstain_and_is_compared_where_it_spoke():
    X, y, who = pairs(40)
    p = np.where(np.arange(80) < 30, np.nan, y + 3)
    table = pd.concat([fixed(y, y + 1, who, "all"), fixed(y, p, who, "some")])
    assert errors(table, resamples=20)["n"].to_dict() == {"all": 80, "some": 50}
    row = differences(table, "all").loc["some"]
    assert row["n"] == 50 and row["patients"] == 25 and np.isclose(row["difference"], 2)
    silent = pd.concat([fixed(y, y, who, "all"), fixed(y, np.full(80, np.nan), who, "silent")])
    assert differences(silent, "all").loc["silent", "verdict"] == "not known"
    with pytest.raises(InputError, match="all, some"):
        differences(table, "none")


# Models that choose, and the rivals


def test_nested_chooses_inside_and_by_patient():
    X, y, who = pairs(80)
    chooser = Nested({"noise": lambda: Line("b"), "signal": lambda: Line("a")}).fit(X, y, who)
    assert chooser.chosen_ == "signal" and np.allclose(chooser.predict(X), Line("a").fit(X, y).predict(X))
    table = out_of_fold({"n": lambda: Nested({"signal": lambda: Line("a")})}, X, y, who, repeats=1, progress=False)
    assert set(table["chosen"]) == {"signal"}
    with pytest.raises(TypeError):
        Nested({"signal": lambda: Line("a")}).fit(X, y)


def test_group_mean_and_columns():
    X = pd.DataFrame({"size": [1] * 10 + [2] * 3, "other": 0.0})
    y = np.r_[np.full(10, 5.0), np.full(3, 9.0)]
    assert GroupMean("size").fit(X, y).predict(X)[[0, 12]].tolist() == [5.0, y.mean()], "few: the overall mean"
    X, y, who = pairs(20)
    model = fit_with_groups(OnColumns(["a"], lambda: Line("a")), X, y, who)
    assert np.allclose(model.predict(X.assign(b=99.0)), model.predict(X)), "other columns are not seen"


def test_rivals_fit_and_name_what_is_left_out(monkeypatch):
    import sys

    X, y, who = pairs(40)
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    monkeypatch.setitem(sys.modules, "interpret.glassbox", None)
    makers, left_out = rivals({"a": 1, "b": 0})
    assert set(left_out) == {"EBM", "LightGBM, monotone, tuned"} and "lensnb[dev]" in left_out["EBM"]
    for name in ("mean", "linear", "boosting, default", "random forest"):
        assert np.isfinite(makers[name]().fit(X, y, who).predict(X)).all()
