"""Vaults (um) of every size from a model file of lensnb, with numpy and json alone.

python score_without_lensnb.py model.json eyes.csv      eyes.csv: one row an eye, headings as in the model's `features`
"""

import csv
import json
import sys

import numpy as np


def hills(x, low, high, k):
    "The k cubic B-splines on equal knots over [low, high] at x, which is held inside."
    u = np.clip((np.asarray(x, float) - low) / (high - low), 0, 1)[:, None] * (k - 3)
    d = np.abs(u - np.arange(-1, k - 1))
    return np.where(d < 1, 2 / 3 - d**2 + d**3 / 2, np.maximum(2 - d, 0) ** 3 / 6)


def term(t, columns):
    "One term of the sum at its column, or at its two columns."
    x = columns[0]
    if t["kind"] == "linear":
        return t["slope"] * (x - t["centre"])
    low, high = t["low"], t["high"]
    if t["kind"] == "spline":
        beyond = t["slope_below"] * np.minimum(x - low, 0) + t["slope_above"] * np.maximum(x - high, 0)
        return hills(x, low, high, len(t["coefs"])) @ np.array(t["coefs"]) + beyond
    if t["kind"] != "surface":
        raise ValueError(f"this scorer knows no term of kind {t['kind']}")
    a, b = (hills(c, low[i], high[i], np.shape(t["coefs"])[i]) for i, c in enumerate(columns))
    return ((a @ np.array(t["coefs"])) * b).sum(axis=1)


def score(model, eyes):
    "Eyes x sizes, um. eyes: {column: numbers}."
    n, names = len(next(iter(eyes.values()))), model["features"]
    one_size = []
    for size in model["sizes"]:
        have = {**{c: np.asarray(v, float) for c, v in eyes.items()}, "size_mm": np.full(n, size)}
        x = {f: sum(w * have[c] for c, w in facts["sum"].items()) for f, facts in names.items()}
        terms = [term(t, [x[f] for f in name.split(":")]) for name, t in model["gam"]["terms"].items()]
        one_size.append(model["gam"]["intercept"] + sum(terms))
    return np.column_stack(one_size)


if __name__ == "__main__":
    model = json.load(open(sys.argv[1], encoding="utf-8"))
    rows = list(csv.DictReader(open(sys.argv[2], newline="", encoding="utf-8")))
    needed = {c for f in model["features"].values() for c in f["needs"]} - {"size_mm"}
    vaults = score(model, {c: [float(r[c]) for r in rows] for c in needed})
    print(json.dumps({"sizes": model["sizes"], "vault_um": vaults.tolist()}))
