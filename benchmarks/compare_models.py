"""Our model against the usual rivals on the same patient-grouped folds. Run by hand:

    .venv/bin/python benchmarks/compare_models.py [REPEATS] [--out TABLE.csv]

The full version of nbs/14_compare.ipynb: ten repeats of five folds, all models on the same folds and the same
measurements, errors with intervals by patient, and paired differences against our model, linear regression and tuned
boosting. Real eyes where they are on this machine (LENSNB_DATA_DIR), else synthetic ones, which the first line says.
About ten minutes on one core, with a progress bar; the tables go to the screen, the errors to a CSV on request.
"""

import argparse
import os
import sys

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pandas as pd

REFERENCES = ("SizingGAM", "linear", "boosting, tuned", "LightGBM, monotone, tuned")
MARGIN_UM = 1.0


def study():
    """The eyes, the specification of the model and the sentence that says which eyes they are."""
    from lensnb.cohort import training_eyes
    from lensnb.study import study_eyes
    from lensnb.vault import spec_for

    eyes, banner = study_eyes()
    used = training_eyes(eyes)
    spec = spec_for(used.columns)
    return used.dropna(subset=[*spec, "vault_um", "patient_id"]).reset_index(drop=True), spec, banner


def main(words=None) -> int:
    """Print the tables; 0 when every claim at the end holds."""
    from lensnb.compare import GroupMean, OnColumns, differences, errors, out_of_fold, rivals
    from lensnb.formulas import Trancon2020
    from lensnb.vault import SizingGAM

    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("repeats", nargs="?", type=int, default=10)
    ask.add_argument("--out", help="write the table of errors to this CSV")
    told = ask.parse_args(words)
    used, spec, banner = study()
    makers, left_out = rivals({name: entry["monotone"] for name, entry in spec.items()})
    models = {"SizingGAM": lambda: OnColumns(list(spec), SizingGAM), **makers}
    models["size mean"] = lambda: GroupMean("size_mm")
    if {"ata_mm", "clr_um", "icl_se_d", "age_y"} <= set(used.columns):
        models["Trancon 2020, published"] = Trancon2020
    print("synthetic eyes" if banner else "the public Badajoz cohort", f"{len(used)} eyes,", end=" ")
    print(f"{used['patient_id'].nunique()} patients, {told.repeats} x 5 folds, measurements: {', '.join(spec)}")
    for name, why in left_out.items():
        print(f"left out: {name}: {why}")
    table = out_of_fold(models, used, used["vault_um"], used["patient_id"], repeats=told.repeats, seed=2026)
    found = errors(table, resamples=2000).sort_values("mae")
    shown = ["n", "patients", "mae", "mae_lower", "mae_upper", "medae", "rmse", "r2", "bias", "skill", "sd_ratio"]
    print("\nErrors (um), 95 % by patient\n", found[shown].round(3).to_string(), sep="")
    against = {r: differences(table, r, resamples=4000, unit="um") for r in REFERENCES if r in models}
    for reference, frame in against.items():
        gaps = frame.sort_values("difference")[["n", "difference", "lower", "upper", "verdict"]]
        print(f"\nMean absolute error minus that of {reference} (um)\n", gaps.round(2).to_string(), sep="")
    tuned = table[table["chosen"] != ""]
    if len(tuned):
        picks = tuned.drop_duplicates(["model", "repeat", "fold"]).groupby("model")["chosen"].value_counts()
        print("\nSettings chosen inside the training folds\n", picks.to_string(), sep="")
    if told.out:
        found.to_csv(told.out)
    return verdicts(against)


def verdicts(against: dict[str, pd.DataFrame]) -> int:
    """Sentences that could be false, printed; 0 when all hold. They are about means; the intervals stand beside."""
    line = against["linear"].loc["SizingGAM"]
    claims = {f"no worse than linear regression by more than {MARGIN_UM:g} um": line["difference"] <= MARGIN_UM}
    for name in ("boosting, tuned", "LightGBM, monotone, tuned"):
        if name in against:
            row = against[name].loc["SizingGAM"]
            claims[f"no worse than {name}: {row['words']}"] = row["difference"] <= 0
    for name in ("boosting, default", "random forest"):
        row = against["SizingGAM"].loc[name]
        claims[f"better than {name}: it {row['words']}"] = row["verdict"] == "worse"
    print(f"\nSizingGAM against linear regression: {line['words']}")
    for claim, holds in claims.items():
        print("yes" if holds else "NO ", claim)
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
