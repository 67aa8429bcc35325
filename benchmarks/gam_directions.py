"""Do declared directions hold, always and everywhere? Random problems made to break them, and the eyes at hand.

By hand: .venv/bin/python benchmarks/gam_directions.py [--problems N] [--pygam N] [--redraws N] [--seed N]

Each problem draws its rows (30 to 600), one to six terms of 5 to 25 splines (rising, falling, convex, concave, rising
and concave ...; free; straight; surfaces with one direction), the distribution of its columns (even, ties, far
outliers, large offsets), an outcome that contradicts the shapes, noise with outliers, weights (none, even, some 0, very
unequal), and its smoothing (REML, given). In many problems coefficients outnumber rows. What is checked:

* the coefficients: no step against the direction, not by a rounding error; bends within 1e-9 SD of the outcome,
* the curve on a fine grid from half a range below the training values to half a range above, tolerance 1e-9 SD,
* the conditions of a constrained minimum (Karush-Kuhn-Tucker), worst violation.

pygam fits the first `--pygam` of the same problems; its violations are printed beside ours, in SD of the outcome.
Then the eyes at hand (LENSNB_DATA_DIR names the folder of the real ones; else a synthetic clinic, named as such): the
model of the vault, and the same model on redraws of the patients, by `direction_check`.
5 to 10 minutes on one core. Exit code 1 when any direction is broken, or a fit fails.
"""

import argparse
import contextlib
import io
import os
import sys
import warnings

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import pandas as pd

SHAPES = [None, "monotonic_inc", "monotonic_dec", "convex", "concave",
          *([rise, bend] for rise in ("monotonic_inc", "monotonic_dec") for bend in ("convex", "concave"))]
TOLERANCE = 1e-9


def column(rng, n: int) -> np.ndarray:
    """One feature."""
    kind = rng.integers(5)
    x = (rng.uniform(size=n), rng.normal(size=n), np.round(rng.uniform(size=n) * rng.integers(2, 8)),
         rng.standard_t(2, size=n), 1e4 + rng.uniform(size=n))[kind]
    if np.ptp(x) == 0:
        x[0] += 1
    return x * 10.0 ** rng.integers(-2, 4)


def outcome(rng, X: np.ndarray) -> np.ndarray:
    """An outcome that goes up and down in every feature, with steps, flat parts, noise and a few outliers."""
    n, y = len(X), np.zeros(len(X))
    for x in X.T:
        u = (x - x.min()) / np.ptp(x)
        waves = (np.sin(rng.uniform(2, 12) * u), np.abs(u - 0.5), (u > 0.5).astype(float), np.clip(u, 0.3, 0.6), -u * u)
        y += rng.normal() * waves[rng.integers(len(waves))]
    y += rng.uniform(0.05, 2) * (rng.normal(size=n) if rng.random() < 0.5 else rng.standard_t(2, size=n))
    return y * 10.0 ** rng.integers(-1, 4)


def weights_of(rng, n: int) -> np.ndarray | None:
    """None, moderate weights, some of them 0, or very unequal ones."""
    unequal = 10.0 ** rng.uniform(-3, 3, n)
    w = (None, rng.uniform(0.5, 2, n), rng.integers(0, 4, n).astype(float), unequal)[rng.integers(4)]
    return None if w is not None and (w > 0).sum() < 10 else w


def problem(seed: int) -> tuple:
    """Features, outcome, weights, a function that makes fresh terms, and options of the model."""
    from pygam import l, s, te
    from pygam.terms import TermList

    rng = np.random.default_rng(seed)
    n, plans, features = int(rng.integers(30, 601)), [], 0
    for _ in range(rng.integers(1, 7)):
        kind = rng.choice(["s", "l", "te"], p=[0.8, 0.08, 0.12])
        of_curve = int(rng.integers(5, 26)), SHAPES[rng.integers(len(SHAPES))], 10.0 ** rng.uniform(-3, 3)
        of_surface = int(rng.integers(4, 8)), SHAPES[rng.integers(1, 3)], int(rng.integers(2))
        plans.append((kind, features, *of_curve, *of_surface))
        features += 1 + (kind == "te")
    X = np.column_stack([column(rng, n) for _ in range(features)])

    def term(kind, j, count, shape, lam, small, way, side):
        if kind == "l":
            return l(j)
        if kind == "s":
            return s(j, n_splines=count, constraints=shape, lam=lam)
        shapes = (way, None) if side == 0 else (None, way)
        return te(*(s(j + i, n_splines=small, constraints=c, lam=lam) for i, c in enumerate(shapes)))

    options = {"smoothing": "reml" if rng.random() < 0.5 else "given", "prior": float(rng.choice([0.0, 1.0, 2.0]))}
    return X, outcome(rng, X), weights_of(rng, n), lambda: TermList(*[term(*plan) for plan in plans]), options


def flattened(shapes) -> list[str]:
    """The declared shapes as a list of names."""
    return [c for c in (shapes or []) if c not in (None, "none")]


def against(values: np.ndarray, shapes: list[str], axis: int = 0) -> float:
    """The largest step (or change of steps) against the shapes; 0 where all hold."""
    worst = 0.0
    for shape in shapes:
        order, sign = {"monotonic_inc": (1, 1), "monotonic_dec": (1, -1), "convex": (2, 1), "concave": (2, -1)}[shape]
        worst = max(worst, float((-sign * np.diff(values, n=order, axis=axis)).max(initial=0)))
    return worst


def reach(x: np.ndarray, points: int, beyond: float) -> np.ndarray:
    """A fine grid over the range and `beyond` ranges to both sides."""
    return np.linspace(x.min() - beyond * np.ptp(x), x.max() + beyond * np.ptp(x), points)


def examine(gam, X: np.ndarray) -> list[tuple]:
    """Lines (kind, worst of the coefficients, worst on the grid) of every term with a shape."""
    lines, start = [], 0
    for j, term in enumerate(gam.terms):
        coef, start = gam.coef_[start:start + term.n_coefs], start + term.n_coefs
        if type(term).__name__ == "TensorTerm":
            lines += surface(gam, j, term, coef, X)
        elif shapes := flattened(term.constraints):
            table = np.tile(X.mean(axis=0), (1501, 1))
            table[:, term.feature] = reach(X[:, term.feature], 1501, 0.5)
            kind = "both" if len(shapes) > 1 else "rising or falling" if "mono" in shapes[0] else "convex or concave"
            lines.append((kind, against(coef, shapes), against(gam.partial_dependence(j, X=table), shapes)))
    return lines


def surface(gam, j: int, term, coef: np.ndarray, X: np.ndarray) -> list[tuple]:
    """Lines of a surface: along its direction at places of the other feature, inside and outside the training range."""
    margins, lines = term._terms, []
    axis = next(i for i, m in enumerate(margins) if flattened(m.constraints))
    shapes, grid = flattened(margins[axis].constraints), tuple(m.n_coefs for m in margins)
    along, other = margins[axis].feature, margins[1 - axis].feature
    for kind, low, high in (("surface, inside", 0.0, 1.0), ("surface, outside", -0.5, 1.5)):
        a, b = reach(X[:, along], 301, 0.5), X[:, other].min() + np.ptp(X[:, other]) * np.linspace(low, high, 9)
        table = np.tile(X.mean(axis=0), (301 * 9, 1))
        table[:, along], table[:, other] = np.tile(a, 9), np.repeat(b, 301)
        values = gam.partial_dependence(j, X=table).reshape(9, 301)
        lines.append((kind, against(coef.reshape(grid), shapes, axis), against(values, shapes, axis=1)))
    return lines


def trial(seed: int, with_pygam: bool) -> tuple[list[tuple], list[str], float]:
    """Lines (seed, model, kind, worst of coefficients, worst on the grid) in SD of y; failures; worst KKT violation."""
    from lensnb.gam import VaultGAM
    from pygam import LinearGAM

    X, y, w, terms, options = problem(seed)
    lines, failures, kkt, sd = [], [], 0.0, y.std()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):      # pygam prints "did not converge"
        warnings.simplefilter("ignore")
        for name in ("VaultGAM", "pygam") if with_pygam else ("VaultGAM",):
            gam = VaultGAM(terms(), **options) if name == "VaultGAM" else LinearGAM(terms())
            try:
                gam.fit(X, y, weights=w)
            except Exception as e:
                failures.append(f"{name}, problem {seed} (n = {len(y)}): {type(e).__name__}: {e}")
                continue
            lines += [(seed, name, kind, a / sd, b / sd) for kind, a, b in examine(gam, X)]
            if name == "VaultGAM":
                kkt = gam.fit_.solution.kkt
                if not (np.isfinite(gam.coef_).all() and np.isfinite(gam.predict(X)).all()):
                    failures.append(f"{name}, problem {seed}: coefficients or predictions are not finite")
    return lines, failures, kkt


def random_problems(told) -> tuple[pd.DataFrame, list[str], float]:
    """All trials, with a progress bar."""
    from tqdm import tqdm

    lines, failures, kkt = [], [], 0.0
    for k in tqdm(range(told.problems), unit="problem", file=sys.stderr, disable=told.quiet, mininterval=2):
        some, failed, violation = trial(told.seed + k, k < told.pygam)
        lines, failures, kkt = lines + some, failures + failed, max(kkt, violation)
    return pd.DataFrame(lines, columns=["seed", "model", "kind", "coefficients", "grid"]), failures, kkt


def summary(lines: pd.DataFrame) -> pd.DataFrame:
    """Terms, problems with a violation, and worst values in SD of the outcome, by model and kind."""
    rows = []
    for (model, kind), some in lines.groupby(["model", "kind"], sort=False):
        allowed = 0.0 if kind.startswith(("rising", "surface")) else TOLERANCE
        broken = (some["coefficients"] > allowed) | (some["grid"] > TOLERANCE)
        rows.append({"model": model, "kind": kind, "terms": len(some), "broken terms": int(broken.sum()),
                     "in problems": some.loc[broken, "seed"].nunique(), "beyond 1e-6": int((some["grid"] > 1e-6).sum()),
                     "worst coefficient, SD": some["coefficients"].max(), "worst on grid, SD": some["grid"].max()})
    return pd.DataFrame(rows).set_index(["model", "kind"]).sort_index(level=0, ascending=False, sort_remaining=False)


def eyes_at_hand(redraws: int, seed: int, quiet: bool) -> bool:
    """The model of the vault on the eyes at hand and on redraws of their patients; whether every direction holds."""
    from tqdm import tqdm

    from lensnb.cohort import training_eyes
    from lensnb.study import study_eyes
    from lensnb.vault import SizingGAM, direction_check, spec_for

    eyes, banner = study_eyes()
    used = training_eyes(eyes)
    spec = spec_for(used.columns)
    used = used.dropna(subset=[*spec, "vault_um", "patient_id"]).reset_index(drop=True)
    patients, rng = used["patient_id"].to_numpy(), np.random.default_rng(seed)
    print(f"\n{banner or 'The public Badajoz cohort.'} {len(used)} eyes of {len(set(patients))} patients")
    first = direction_check(SizingGAM(spec).fit(used[list(spec)], used["vault_um"], groups=patients), points=4001)
    print(first.round(12).to_string())
    by_patient, worst, held = used.groupby("patient_id", sort=True).indices, 0.0, bool(first["holds"].all())
    names = list(by_patient)
    for _ in tqdm(range(redraws), unit="redraw", file=sys.stderr, disable=quiet, mininterval=2):
        drawn = [by_patient[names[k]] for k in rng.integers(len(names), size=len(names))]
        rows, group = np.concatenate(drawn), np.repeat(np.arange(len(drawn)), [len(d) for d in drawn])
        model = SizingGAM(spec).fit(used.loc[rows, list(spec)], used.loc[rows, "vault_um"], groups=group)
        table = direction_check(model, points=1001)
        worst, held = max(worst, table["worst_um"].max()), held and bool(table["holds"].all())
    print(f"{redraws} redraws of the patients: largest step against a direction {worst:.1e} um")
    return held


def main(words=None) -> int:
    """Print the tables; 0 when no direction is broken and no fit failed."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--problems", type=int, default=500)
    ask.add_argument("--pygam", type=int, default=500, help="the first so many also by pygam")
    ask.add_argument("--redraws", type=int, default=30, help="redraws of the patients at hand")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--quiet", action="store_true", help="no progress bar")
    told = ask.parse_args(words)
    lines, failures, kkt = random_problems(told)
    table = summary(lines)
    print(f"{told.problems} random problems, {min(told.pygam, told.problems)} of them also by pygam, seed {told.seed}")
    print(table.to_string(float_format="{:.1e}".format))
    for text in failures:
        print(text)
    ours = table.loc[["VaultGAM"]]
    failed = [text for text in failures if text.startswith("VaultGAM")]
    claims = {
        f"no declared direction broken in {told.problems} problems": ours["broken terms"].sum() == 0,
        f"every fit succeeded ({len(failed)} did not)": not failed,
        f"conditions of the minimum hold, worst violation {kkt:.1e}": kkt <= 1e-7,
        "on the eyes at hand and their redraws": eyes_at_hand(told.redraws, told.seed, told.quiet),
    }
    print()
    for words, holds in claims.items():
        print(f"{'pass' if holds else 'FAIL'}: {words}")
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
