"""How fast exact Shapley values are beside the explainers of the shap library, and whether they agree with them.

By hand: .venv/bin/python benchmarks/shapley_time.py [RUNS]

1,000 synthetic eyes against 200 background eyes, three models: curves only; with a curve of the compression; with a
surface of lens rise and age besides. shap's additive explainer asks a prediction for each eye, so its time depends on
the prediction: three are timed, `model` (ours, as a user calls it), `pygam` (of the fitted engine, curves only) and
`bare` (SciPy splines on plain arrays, the fastest that was found, and written without lensnb). It is right for the
first model only; shap's exact explainer on `bare` is the judge for all three. All in one run, one thread.
"""

import os
import sys
import time

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import json

import numpy as np
import pandas as pd

RAW = ["size_mm", "ata_mm", "clr_um", "acd_mm", "aca_deg", "icl_se_d", "age_y"]
STEP = {"clr_um": 0, "age_y": 0, "icl_se_d": 1, "aca_deg": 1}


def quickest(work, runs: int) -> float:
    """The median time of `work()` in milliseconds, after one run that loads what is loaded once."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times))


def bent(function, low, high, k):
    """Coefficients of a cubic spline close to `function`."""
    step = (high - low) / (k - 3)
    return function(np.linspace(low - step, high + step, k))


def models(eyes):
    """Name -> model: a fitted sum of curves, and the same with terms that measurements share."""
    from lensnb.vault import SizingGAM

    fitted = SizingGAM().fit(eyes[RAW], eyes["vault_um"])
    stored = json.dumps(fitted.to_dict())
    shared = {
        "compression_mm": dict(kind="spline", low=-0.6, high=2.6, typical=1.0, slope_below=0.0, slope_above=120.0)
        | dict(coefs=bent(lambda c: 130 * np.tanh(1.5 * (c - 1)), -0.6, 2.6, 12).tolist()),
        "clr_um:age_y": dict(kind="surface", features=["clr_um", "age_y"], low=[-500, 18], high=[700, 54])
        | dict(typical=[100, 32])
        | dict(coefs=np.outer(bent(lambda v: (100 - v) / 200, -500, 700, 8), bent(lambda v: 6 * (v - 32), 18, 54, 8)))
    }
    shared["clr_um:age_y"]["coefs"] = shared["clr_um:age_y"]["coefs"].tolist()
    out, names = {"curves only": fitted}, []
    for title, name in (("with compression", "compression_mm"), ("and a surface", "clr_um:age_y")):
        names.append(name)
        data = json.loads(stored)
        for n in names:
            data["terms"][n] = shared[n]
            data["spec"][n] = {**data["spec"]["aca_deg"], "kind": shared[n]["kind"]}
        out[title] = SizingGAM.from_dict(data)
    return out


def bare(model):
    """The prediction of a model as a function of a plain array of raw measurements, written without lensnb."""
    from scipy.interpolate import BSpline

    def curve(low, high, coefs):
        k = len(coefs)
        knots = low + (high - low) / (k - 3) * np.arange(-3, k + 1)
        return BSpline(knots, np.asarray(coefs), 3)

    parts = []
    for name, t in model.model_["terms"].items():
        if t["kind"] == "linear":
            parts.append(lambda v, j=RAW.index(name), t=t: t["slope"] * (v[:, j] - t["centre"]))
        elif t["kind"] == "spline":

            def value(v, name=name, t=t, f=curve(t["low"], t["high"], t["coefs"])):
                x = v[:, 0] - v[:, 1] if name == "compression_mm" else v[:, RAW.index(name)]
                bend = t["slope_below"] * np.minimum(x - t["low"], 0) + t["slope_above"] * np.maximum(x - t["high"], 0)
                return f(np.clip(x, t["low"], t["high"])) + bend

            parts.append(value)
        else:
            i, j = (RAW.index(f) for f in t["features"])
            bases = [curve(t["low"][a], t["high"][a], np.eye(np.shape(t["coefs"])[a])) for a in (0, 1)]
            C = np.array(t["coefs"])

            def surface(v, i=i, j=j, t=t, C=C, bases=bases):
                one = bases[0](np.clip(v[:, i], t["low"][0], t["high"][0]))
                return ((one @ C) * bases[1](np.clip(v[:, j], t["low"][1], t["high"][1]))).sum(axis=1)

            parts.append(surface)
    return lambda v: model.intercept_ + sum(f(v) for f in parts)


def framed(values, model):
    """The columns that the model reads, from an array of raw measurements, by the library's own road."""
    from lensnb.explain import model_columns
    from lensnb.store import serve

    table = pd.DataFrame(values, columns=RAW)
    return serve(table, model_columns(model)) if "compression_mm" in model.model_["terms"] else table


def main(runs: int = 15) -> int:
    import shap

    import lensnb
    from lensnb.explain import attributions, shapley

    eyes = lensnb.synthetic_clinics().of("alder").eyes.dropna(subset=[*RAW, "vault_um"])
    eyes = eyes.assign(**{c: eyes[c].astype(float).round(STEP.get(c, 2)) for c in RAW})
    X = eyes[RAW].sample(1000, replace=True, random_state=1).reset_index(drop=True)
    background = eyes[RAW].sample(200, random_state=2).reset_index(drop=True)
    values, rows = X.to_numpy(), background.to_numpy()
    masker = shap.maskers.Independent(rows, max_samples=len(rows))
    additive_of = lambda f: shap.explainers.Additive(f, masker)  # noqa: E731
    few = values[:: len(values) // 10][:10]
    speed, agree = [], []
    for title, model in models(eyes).items():
        predict = bare(model)
        exact = shap.explainers.Exact(predict, masker)
        additive = additive_of(predict)
        ours = quickest(lambda: shapley(model, X, background), runs)
        theirs = {"bare": predict, "model": lambda v: model.predict(framed(v, model))}
        if title == "curves only":
            theirs["pygam"] = model.engine_.predict
        times = {n: quickest(lambda f=f: additive_of(f)(values, silent=True), 2) for n, f in theirs.items()}
        start = time.perf_counter()
        judge = exact(few, silent=True)
        judged = 1000 * (time.perf_counter() - start) * len(values) / len(few)
        ratios = {f"ratio_{n}": times.get(n, np.nan) / ours for n in ("model", "pygam", "bare")}
        speed.append({"model": title, "ours_ms": ours, **ratios, "ratio_exact": judged / ours})
        table = attributions(model, pd.DataFrame(few, columns=RAW), background)
        quick = additive(few, silent=True)
        sums = attributions(model, X, background)
        agree.append(
            (
                title,
                np.abs(judge.values - table.to_numpy()).max(),
                np.abs(judge.base_values - table.attrs["typical_um"]).max(),
                np.abs(sums.sum(axis=1) + sums.attrs["typical_um"] - predict(values)).max(),
                np.abs(quick.values - judge.values).max(),
                np.abs(quick.values.sum(axis=1) + quick.base_values - predict(few)).max(),
            )
        )
    print(f"1,000 eyes, {len(rows)} background eyes, {len(RAW)} raw measurements; median of {runs} runs")
    print("ratio: time of shap's additive explainer with that prediction / ours; of its exact explainer / ours")
    print(pd.DataFrame(speed).set_index("model").round(1).to_string())
    print("\nlargest differences (um), 10 eyes against shap's exact explainer; sums on all 1,000")
    names = ["model", "ours", "base", "sums", "additive", "additive_sums"]
    print(pd.DataFrame(agree, columns=names).set_index("model").map("{:.1e}".format).to_string())
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
