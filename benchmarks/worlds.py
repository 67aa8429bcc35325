"""Do certified bounds hold in worlds of any shape, and does the model fail where it must?

By hand: .venv/bin/python benchmarks/worlds.py [--runs 30] [--model line|gam] [--worlds NAME ...]

Real covariates, sizes and patients (the public cohort where LENSNB_DATA_DIR names it, else a synthetic clinic) and
invented vaults at every size (lensnb.worlds). In each run every eye is answered by a fit that saw neither it nor its
fellow, at all sizes, at 90 %. Printed: mean coverage over the runs with its Monte-Carlo error, patients weighing one,
and the median width. In the world of hidden knowledge the supported intervals fall short; the last table widens them
as `HiddenSelection(gamma)` asks (each tail spends less of its risk) until they hold again. The monotone bounds promise
90 % and are asked for 97.5 %. Most unsupported cells have support on one side only, and the one limit that is carried
spends all of the 10 %: where a larger lens hardly lifts anything, 95 % is all that can be left, by arithmetic. So the
same bounds are also judged with a lone limit that spends half, 5 %, and both are printed. Exit code 1 when a target is
missed.
"""

import argparse
import os
import sys
import time
import warnings
from dataclasses import replace

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
import pandas as pd

from lensnb.hidden import HiddenSelection
from lensnb.overlap import SupportEstimator
from lensnb.schema import SIZES_MM
from lensnb.study import study_eyes
from lensnb.validate import KINDS, Recipe, in_world
from lensnb.vault import SizingGAM, spec_for
from lensnb.worlds import LAWS, make_world

FEATURES = ["size_mm", "ata_mm", "clr_um", "acd_mm", "aca_deg", "icl_se_d", "age_y"]
DRIVERS = ("wtw_mm", "acd_mm", "ata_mm")
MONOTONE, SUPPORTED, MODEL = 0.975, 0.885, 0.80
MUST_FAIL = ("buffer", "hidden knowledge")


class Line:
    """Least squares on the features."""

    def fit(self, X, y, sample_weight=None):
        A = np.column_stack([np.ones(len(X)), X[FEATURES].to_numpy(float)])
        self.coef = np.linalg.lstsq(A, y, rcond=None)[0]
        return self

    def predict(self, X):
        return np.column_stack([np.ones(len(X)), X[FEATURES].to_numpy(float)]) @ self.coef


class Additive:
    """The additive model on the features."""

    def fit(self, X, y, sample_weight=None):
        self.gam = SizingGAM(spec_for(FEATURES), bands=False).fit(X[FEATURES], y)
        return self

    def predict(self, X):
        return self.gam.predict(X[FEATURES])


def judged(recipe, whole, X, name, seed):
    """One run in one world."""
    w = make_world(whole, name, seed)
    given = X.assign(size_mm=w.eyes["size_mm"].to_numpy())
    return in_world(recipe, given, w.eyes["vault_um"], whole["patient_id"].to_numpy(), w.truth)


def summary(runs: list[pd.DataFrame]) -> pd.DataFrame:
    """Mean coverage, its Monte-Carlo error and the mean of the median widths, by kind."""
    cover = pd.DataFrame([r["coverage"] for r in runs])
    width = pd.DataFrame([r["width"] for r in runs]).mean()
    error = cover.std() / np.sqrt(len(runs))
    return pd.DataFrame({"coverage": cover.mean(), "error": error, "width": width}).loc[list(KINDS)]


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--runs", type=int, default=30)
    ask.add_argument("--model", choices=["line", "gam"], default="line")
    ask.add_argument("--worlds", nargs="+", default=list(LAWS), choices=list(LAWS))
    told, start, failed = ask.parse_args(), time.perf_counter(), 0
    warnings.filterwarnings("ignore")
    eyes, banner = study_eyes()
    whole = eyes.dropna(subset=[*FEATURES, *DRIVERS, "vault_um"]).reset_index(drop=True)
    whole.attrs = {}
    X, make = whole[[*FEATURES, "wtw_mm"]], {"line": Line, "gam": Additive}[told.model]
    recipe = Recipe(SIZES_MM, make, SupportEstimator, "size_mm", DRIVERS)
    source = "synthetic" if banner else "real measurements"
    print(f"{len(whole)} eyes ({source}), {told.runs} runs a world, {told.model}\n")

    def check(good: bool, words: str) -> None:
        nonlocal failed
        failed += not good
        print(f"  {'pass' if good else 'FAIL'}: {words}", flush=True)

    def say(kind: str, r: pd.Series) -> None:
        print(f"  {kind:<28} {r['coverage']:.3f} +/- {r['error']:.3f}   median width {r['width']:5.0f} um", flush=True)

    half = replace(recipe, alone=0.5)
    for name in told.worlds:
        table = summary([judged(recipe, whole, X, name, seed) for seed in range(told.runs)])
        lone = summary([judged(half, whole, X, name, seed) for seed in range(told.runs)]).loc["unsupported, monotone"]
        print(f"{name}: {LAWS[name].sentence}")
        for kind, r in table.iterrows():
            say(kind, r)
        say("monotone, alone at 5 %", lone)
        cover = table["coverage"]
        check(cover["unsupported, monotone"] >= MONOTONE, f"monotone bounds hold in at least {MONOTONE:.1%}")
        check(lone["coverage"] >= MONOTONE, f"the same where a lone limit spends 5 %: at least {MONOTONE:.1%}")
        if LAWS[name].hidden:
            print(f"  shortfall where supported: {cover['supported, not given'] - 0.9:+.3f}")
        else:
            check(cover["supported, not given"] >= SUPPORTED, f"supported, not given: at least {SUPPORTED:.1%}")
        if name in MUST_FAIL:
            check(cover["unsupported, model"] < MODEL, f"the model alone fails: under {MODEL:.0%}")
    if "hidden knowledge" in told.worlds:
        print("hidden knowledge, supported intervals under HiddenSelection(gamma)")
        at = {}
        for gamma in (1, 1.5, 2, 3, 4):
            wider = replace(recipe, alpha=2 * HiddenSelection(gamma).spend(recipe.alpha / 2))
            runs = [judged(wider, whole, X, "hidden knowledge", seed) for seed in range(told.runs)]
            r = summary(runs).loc["supported, not given"]
            say(f"gamma {gamma}", r)
            at[gamma] = r["coverage"]
        print(f"  smallest of these that restores 90 %: {min((g for g in at if at[g] >= 0.9), default='none')}")
        check(at[4] >= 0.9, "restored to 90 % at gamma 4, with which the world was made")
    print(f"\n{time.perf_counter() - start:.0f} s; {failed} target(s) missed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
