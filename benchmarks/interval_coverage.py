"""Does a 90 % interval hold 90 %, for each lens size? In simulated cohorts, and on the eyes at hand.

By hand: .venv/bin/python benchmarks/interval_coverage.py [--runs N] [--model linear|gam] [--seed N]

Each run draws a new clinic calibrated on the published cohort (size given by the table, errors that grow with
compression, fellow eyes correlated by 0.7, about 480 eyes), fits every kind of interval on it and counts how often
the vaults of fresh eyes of the same clinic lie inside. The error behind each share is the Monte Carlo error over runs.
12.1 mm is too rare for an interval of its own: the outcome range is returned, and no coverage is claimed.

The second table is nested: the eyes of a tenth of the patients are judged by intervals whose models and calibration
never saw them. Set LENSNB_DATA_DIR to judge real eyes; without it a synthetic clinic takes their place, named as such.

"between" are limits between two ranks (`interpolate=True`); the others are whole ranks.
"""

import argparse
import sys
from dataclasses import replace

import numpy as np
import pandas as pd

from lensnb.clinics import ALDER, synthetic_clinics
from lensnb.cohort import training_eyes
from lensnb.features import feature_frame
from lensnb.folds import group_folds
from lensnb.intervals import CrossConformal, coverage_table
from lensnb.scale import LogScale
from lensnb.schema import OUTCOME_RANGE_UM
from lensnb.study import study_eyes
from lensnb.vault import SizingGAM, spec_for

NAMES = ["size_mm", "ata_mm", "clr_um", "acd_mm", "aca_deg", "icl_se_d", "age_y"]
SIZES = [12.6, 13.2, 13.7]
KINDS = {
    "constant, pooled": dict(pooled=True, scaled=False, interpolate=False),
    "constant, by size": dict(pooled=False, scaled=False, interpolate=False),
    "constant, by size, between": dict(pooled=False, scaled=False, interpolate=True),
    "normalized, pooled": dict(pooled=True, scaled=True, interpolate=False),
    "normalized, by size": dict(pooled=False, scaled=True, interpolate=False),
    "normalized, by size, between": dict(pooled=False, scaled=True, interpolate=True),
}
QUARTERS = ["lowest", "second", "third", "tightest"]


class Linear:
    """Least squares on the columns of a frame."""

    def fit(self, X, y, sample_weight=None):
        self.coef = np.linalg.lstsq(np.column_stack([np.ones(len(X)), X]), y, rcond=None)[0]
        return self

    def predict(self, X):
        return np.column_stack([np.ones(len(X)), X]) @ self.coef


MODELS = {"linear": Linear, "gam": lambda: SizingGAM(spec_for(NAMES))}


def make_scale():
    return LogScale({"compression": {"size_mm": 1, "ata_mm": -1}})


def table_of(eyes: pd.DataFrame) -> pd.DataFrame:
    """Features, vault, size, patient and compression of the eyes that may teach."""
    used = training_eyes(eyes).dropna(subset=[*NAMES, "vault_um", "patient_id"])
    frame = feature_frame(used, NAMES).assign(vault=used["vault_um"], patient=used["patient_id"])
    return frame.assign(compression=frame["size_mm"] - frame["ata_mm"]).reset_index(drop=True)


def intervals(past: pd.DataFrame, new: pd.DataFrame, make_model, seed: int, alpha: float) -> dict:
    """Kind -> interval of each new eye, learnt from the past ones; one fit for kinds that differ in rank only."""
    answer, fitted = {}, {}
    for kind, how in KINDS.items():
        by = pd.Series(0.0, past.index) if how["pooled"] else past["size_mm"]
        key = (how["pooled"], how["scaled"])
        if key not in fitted:
            scale = make_scale if how["scaled"] else None
            machine = CrossConformal(make_model, 10, seed, OUTCOME_RANGE_UM, make_scale=scale)
            fitted[key] = machine.fit(past[NAMES], past["vault"].to_numpy(), by.to_numpy(), past["patient"].to_numpy())
        machine = fitted[key]
        machine.interpolate = how["interpolate"]
        answer[kind] = machine.interval(new[NAMES], 0.0 if how["pooled"] else new["size_mm"], alpha)
    return answer


def one_clinic(seed: int, months: int) -> pd.DataFrame:
    """Eyes of one simulated clinic."""
    return table_of(synthetic_clinics(seed, months=months, clinics=(replace(ALDER, lost=0.0),)).eyes)


def one_run(seed: int, make_model, alpha: float) -> tuple[pd.DataFrame, int]:
    """Coverage and width on fresh eyes, by kind, and the number of eyes learnt from."""
    past, new = one_clinic(2 * seed, 16), one_clinic(2 * seed + 1, 24)
    new = new[new["size_mm"].isin(SIZES)]
    quarter = pd.qcut(new["compression"], 4, labels=QUARTERS)
    rows = {}
    for kind, band in intervals(past, new, make_model, seed, alpha).items():
        inside = new["vault"].between(band["lower"], band["upper"]).astype(float)
        width = band["upper"] - band["lower"]
        size, tightness = (inside.groupby(level, observed=True).mean() for level in (new["size_mm"], quarter))
        rows[kind] = {f"{s} mm": share for s, share in size.items()}
        rows[kind] |= {"lowest": tightness["lowest"], "tightest": tightness["tightest"], "all": inside.mean()}
        rows[kind] |= {"width_um": width.mean(), "width_13.7": width[new["size_mm"] == 13.7].mean()}
    return pd.DataFrame(rows).T, len(past)


def simulated(runs: int, seed: int, make_model, alpha: float, quiet: bool) -> None:
    """Print coverage by kind and size over `runs` clinics, with Monte Carlo errors."""
    from tqdm import tqdm

    bar = tqdm(range(runs), unit="clinic", file=sys.stderr, disable=quiet, mininterval=2)
    tables, sizes = zip(*(one_run(seed * 100_000 + run, make_model, alpha) for run in bar))
    stack = np.stack([t.to_numpy(float) for t in tables])
    mean, error = stack.mean(axis=0), stack.std(axis=0, ddof=1) / np.sqrt(runs)
    text = pd.DataFrame(index=tables[0].index, columns=tables[0].columns)
    for j, name in enumerate(tables[0].columns):
        unit = (1, "{:.0f} +-{:.0f}") if name.startswith("width") else (100, "{:.1f} +-{:.1f}")
        text[name] = [unit[1].format(m * unit[0], e * unit[0]) for m, e in zip(mean[:, j], error[:, j])]
    print(f"{runs} simulated clinics of {min(sizes)} to {max(sizes)} eyes, fresh eyes; nominal {1 - alpha:.0%}")
    print(text.to_string())
    print("12.1 mm: fewer than 19 patients in a cohort, no interval of its own; the outcome range is returned")
    shares = pd.DataFrame(mean, index=text.index, columns=text.columns)[[f"{s} mm" for s in SIZES]]
    for kind, row in shares.iterrows():
        worst = (row - (1 - alpha)).abs().max()
        print(f"{kind:30s} worst size {100 * worst:.1f} points from nominal: {'pass' if worst <= 0.015 else 'fail'}")


def nested(frame: pd.DataFrame, seed: int, make_model, alpha: float, folds: int, bar) -> dict:
    """Kind -> interval of every eye, from machines that never saw its patient."""
    outer, parts = group_folds(frame["patient"], folds, seed, by=frame["size_mm"]), {kind: [] for kind in KINDS}
    for f in range(folds):
        for kind, band in intervals(frame[outer != f], frame[outer == f], make_model, seed, alpha).items():
            parts[kind].append(band)
        bar.update()
    return {kind: pd.concat(bands).sort_index() for kind, bands in parts.items()}


def at_hand(seeds: int, make_model, alpha: float, quiet: bool, folds: int = 10) -> None:
    """Print coverage on the study's eyes by nested folds of patients, averaged over `seeds` ways to cut them."""
    from tqdm import tqdm

    eyes, banner = study_eyes()
    frame = table_of(eyes)
    print(f"\n{banner or 'Real eyes.'} {len(frame)} eyes of {frame['patient'].nunique()} patients, nested folds")
    with tqdm(total=seeds * folds, unit="fold", file=sys.stderr, disable=quiet, mininterval=2) as bar:
        cuts = [nested(frame, seed, make_model, alpha, folds, bar) for seed in range(seeds)]
    known = frame["size_mm"].isin(SIZES)
    quarter = pd.qcut(frame.loc[known, "compression"], 4, labels=QUARTERS)
    for level in (frame.loc[known, "size_mm"], quarter):
        print_coverage(frame[known], level, [{kind: b[known] for kind, b in cut.items()} for cut in cuts], alpha)
    print("holds: in how many of the ways to cut the folds Wilson's interval (by patient) contains the nominal level")
    print("power: chance that such a check would have caught a true coverage five points lower")


def print_coverage(eyes: pd.DataFrame, level: pd.Series, cuts: list, alpha: float) -> None:
    """Print the coverage table of every kind, averaged over the cuts."""
    rows = {}
    for kind in KINDS:
        bands = [cut[kind] for cut in cuts]
        tables = [
            coverage_table(eyes["vault"], b["lower"], b["upper"], level, eyes["patient"], 1 - alpha) for b in bands
        ]
        rows[kind] = sum(t.astype(float) for t in tables) / len(tables)
        rows[kind]["holds"] = [f"{round(share * len(cuts))}/{len(cuts)}" for share in rows[kind]["holds"]]
    table = pd.concat(rows, names=["kind"]).astype({"n_units": int, "n_patients": int})
    print(table.round({"coverage": 3, "wilson_low": 3, "wilson_high": 3, "power": 2, "width": 0}).to_string())


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="simulated clinics (default 200)")
    parser.add_argument("--seeds", type=int, default=5, help="ways to cut the eyes at hand into folds (default 5)")
    parser.add_argument("--model", choices=MODELS, default="linear")
    parser.add_argument("--alpha", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    given = parser.parse_args(argv)
    if given.runs:
        simulated(given.runs, given.seed, MODELS[given.model], given.alpha, given.quiet)
    if given.seeds:
        at_hand(given.seeds, MODELS[given.model], given.alpha, given.quiet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
