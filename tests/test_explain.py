"""Explanations: exactness against brute force and shap, words, tables, figures."""

import subprocess
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402

from lensnb.explain import explain_eye, importance, label, sentence, shapley, value_text, waterfall, what_to_notice  # noqa: E402
from lensnb.vault import SizingGAM  # noqa: E402
from lensnb.schema import InputError  # noqa: E402


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
    return SizingGAM(lam=1.0).fit(*data)


def test_values_sum_to_the_prediction_also_outside_the_data(data, model):
    X = data[0] * 1.3
    e = shapley(model, X)
    assert np.abs(e.values.sum(1) + e.base_values - model.predict(X)).max() < 1e-9
    assert e.feature_names == list(X) and np.array_equal(e.data, X.to_numpy()) and e.values.shape == X.shape
    assert shapley(model, X, {"clr_um": "rise"}).feature_names == ["size_mm", "ata_mm", "rise", "aca_deg"]


def test_agrees_with_shaps_exact_explainer(data, model):
    # (values on a grid, as instruments print them: shap takes values within a relative 1e-5 of each other for equal)
    import shap

    X = data[0]
    ask = lambda v: model.predict(pd.DataFrame(v, columns=list(X)))  # noqa: E731
    exact = shap.explainers.Exact(ask, shap.maskers.Independent(X.to_numpy(), max_samples=len(X)))(
        X.iloc[:5].to_numpy()
    )
    ours = shapley(model, X.iloc[:5])
    assert np.abs(exact.values - ours.values).max() < 1e-6
    assert np.abs(exact.base_values - ours.base_values).max() < 1e-6


def test_sentences_say_direction_value_unit_and_amount():
    row = pd.Series({"size_mm": 400.0, "clr_um": -92.0, "ata_mm": 20.0})
    x = pd.Series({"size_mm": 13.7, "clr_um": 310.0, "ata_mm": 12.1})
    assert sentence(row, x) == f"High {label('clr_um')} (310 um): 92 um lower than the typical eye."
    assert sentence(-row, x).startswith("Low ") and "92 um higher" in sentence(-row, x)
    assert sentence(row * 0.1, x).startswith("Close to the typical eye")
    assert sentence(pd.Series({"aca_deg": -80.0}), pd.Series({"aca_deg": 55.0})).startswith("Chamber angle (55.0 deg)")
    with pytest.raises(InputError):
        sentence(pd.Series({"size_mm": 400.0}), x)


def test_the_words_follow_the_models_own_declarations(data, model):
    X = data[0]
    parts = model.contributions(X)
    assert sentence(parts.loc["e0", ["aca_deg"]] * 0 - 90, pd.Series({"aca_deg": 60.0}), model).startswith(
        "High chamber angle"
    )
    rising = SizingGAM(spec={"clr_um": {"monotone": 1}}).fit(X, data[1] + 2 * X["clr_um"])
    i = int(X["clr_um"].to_numpy().argmax())
    text = sentence(rising.contributions(X).iloc[i], X.iloc[i], rising)
    assert text.startswith("High") and "higher than" in text


def test_what_to_notice_flags_what_was_never_seen(data, model):
    X = data[0].iloc[:3].assign(clr_um=[100.0, 950.0, -900.0])
    notes = what_to_notice(model, X)
    assert notes.index.equals(X.index) and notes.str.contains("Beyond").tolist() == [False, True, True]
    assert "950 um" in notes.iloc[1]
    assert what_to_notice(model, X.iloc[:0]).empty


def test_explain_eye_adds_up_and_takes_one_eye(data, model):
    one = data[0].iloc[[4]]
    t = explain_eye(model, one)
    assert abs(t["contribution_um"].sum() + t.attrs["typical_um"] - model.predict(one)[0]) < 1e-9
    assert set(t["feature"]) == set(data[0]) and t["contribution_um"].abs().is_monotonic_decreasing
    with pytest.raises(InputError, match="one row"):
        explain_eye(model, data[0])
    assert value_text("ata_mm", 12.204) == "12.20 mm" and label("clr_um") == "crystalline lens rise"


def test_waterfall_labels_every_number_it_draws(data, model):
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
    ax = waterfall(model, one.assign(clr_um=1500.0), sizes=(12.6, 13.2, 13.7), zone=(250, 750))
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names[-3:] == ["with 12.6 mm", "with 13.2 mm", "with 13.7 mm"] and not any("lens size" in n for n in names)
    for s in (12.6, 13.2, 13.7):
        assert f"{model.predict(one.assign(clr_um=1500.0, size_mm=s))[0]:.0f} um" in [t.get_text() for t in ax.texts]
    assert sum(bool(p.get_hatch()) for p in ax.patches) == 1
    plt.close(ax.figure)


def test_importance_is_the_mean_size_of_the_contributions(data, model):
    t = importance(model, data[0])
    assert np.allclose(t["mean_abs_um"], model.contributions(data[0]).abs().mean()[t.index]) and (t["n"] == 120).all()


def test_import_is_light():
    heavy = "('shap', 'matplotlib', 'seaborn', 'pygam', 'sklearn')"
    code = f"import sys, lensnb.explain; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
