"""How fast is our additive model beside pygam's, how much memory does it take, and is the answer the same?

By hand: .venv/bin/python benchmarks/gam_speed.py [--rows 500 50000 500000] [--without-largest-pygam] [--threads N]

Nine rising curves of 20 splines each, additive truth and noise of SD 1, both models on the same rows in one run:

* one fit at a given smoothing (VaultGAM(smoothing="given") against LinearGAM, lam 0.6),
* a fit with its smoothing chosen (VaultGAM by REML, nine pairs of prices; LinearGAM.gridsearch, one price, its default
  11 candidates), at 500 and 50,000 rows,
* the peak memory of a fresh process that imports, makes the rows and fits (ours and pygam's, the largest --rows),
* agreement: without shapes and with more rows than coefficients both must give the same answer; with fewer rows than
  coefficients the answer is that of least squares with the penalty as extra rows; with shapes, the error to the truth
  and the largest step in the wrong direction are printed for both.

Times are medians, ours and pygam's taken in turns (so that other work on the machine slows both); the second ratio is
that of processor times. pygam's slow fits are run once. It needs some 6 GB and two minutes for one fit to 500,000 rows:
that is run once, in its own process, where so much memory is free. 10 to 15 minutes in all on one quiet core.
Exit code 1 when a target is missed.
"""

import argparse
import contextlib
import gc
import io
import json
import os
import statistics
import subprocess
import sys
import time
import warnings

FIT_TARGETS = {500: 10, 50_000: 65, 500_000: 90}
CHOICE_TARGETS = {500: 28, 50_000: 350}
MEMORY_TARGET_GB = 0.35
PYGAM_BYTES_A_ROW = 13_000
TERMS, SPLINES = 9, 20


def rows(n: int, seed: int):
    """Features (n, 9), the true mean (n,) and the outcome: nine rising curves, noise of SD 1."""
    import numpy as np

    rng = np.random.default_rng((seed, n))
    X = rng.uniform(size=(n, TERMS))
    curves = (lambda x: 2 * x, lambda x: np.sqrt(x), lambda x: np.exp(2 * x) / 4, lambda x: np.tanh(6 * (x - 0.5)))
    truth = sum(curves[j % 4](X[:, j]) for j in range(TERMS - 1))              # the ninth says nothing
    return X, truth, truth + rng.normal(size=n)


def model(kind: str, shape: str | None = "monotonic_inc"):
    """An unfitted model: `ours`, `ours, chosen`, `pygam`."""
    from pygam import LinearGAM, s
    from pygam.terms import TermList

    terms = TermList(*[s(j, n_splines=SPLINES, constraints=shape) for j in range(TERMS)])
    if kind == "pygam":
        return LinearGAM(terms)
    from lensnb.gam import VaultGAM

    return VaultGAM(terms, smoothing="reml" if kind == "ours, chosen" else "given")


def fit(kind: str, X, y):
    """A fitted model; `pygam, chosen` by its grid."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():      # pygam prints "did not converge"
        warnings.simplefilter("ignore")
        if kind == "pygam, chosen":
            return model("pygam").gridsearch(X, y, progress=False)
        return model(kind).fit(X, y)


def timed(plan: dict[str, int], X, y) -> dict[str, tuple]:
    """Kind -> median seconds, median processor seconds, last model; `plan` says how often each is fitted, in turns."""
    if len(y) <= 1000:
        for kind in plan:
            fit(kind, X, y)                                  # once before the clock starts
    clocks, models = {kind: [] for kind in plan}, {}
    for turn in range(max(plan.values())):
        for kind, repeats in plan.items():
            if turn < repeats:
                models.pop(kind, None)
                gc.collect()
                start, used = time.perf_counter(), time.process_time()
                models[kind] = fit(kind, X, y)
                clocks[kind].append((time.perf_counter() - start, time.process_time() - used))
    return {kind: (*(statistics.median(c) for c in zip(*clocks[kind])), models[kind]) for kind in plan}


def quality(gam, truth, X) -> dict:
    """RMSE to the truth and the largest fall of a height (all curves were declared to rise)."""
    import numpy as np

    steps = np.diff(gam.coef_[:-1].reshape(TERMS, SPLINES), axis=1)
    error = gam.predict(X[:20_000]) - truth[:20_000]
    return {"rmse": float(np.sqrt(np.mean(error ** 2))), "fall": float(max(0, -steps.min()))}


def measure(kind: str, n: int, seed: int) -> dict:
    """What this (fresh) process needed for one fit: seconds, and its peak memory in GB with imports and rows."""
    X, truth, y = rows(n, seed)
    seconds, used, gam = timed({kind: 1}, X, y)[kind]
    return {"seconds": seconds, "cpu": used, "gb": peak_bytes() / 1e9, **quality(gam, truth, X)}


def peak_bytes() -> int:
    """This process's own peak. Linux hands the parent's ru_maxrss down to a child, so VmHWM is read where it exists."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_own_process(kind: str, n: int, seed: int) -> dict:
    """`measure` in a fresh process."""
    words = [sys.executable, os.path.abspath(__file__), "--measure", kind, "--rows", str(n), "--seed", str(seed)]
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    if told.returncode:
        raise SystemExit(f"the process that measures {kind} at {n} rows failed:\n{told.stderr[-2000:]}")
    return json.loads(told.stdout.splitlines()[-1])


def free_bytes() -> float:
    """Memory that is free now; 0 where nobody says."""
    try:
        with open("/proc/meminfo") as file:
            return next(1024 * float(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 0.0


def say(text: str) -> None:
    """A line on the screen now; progress, not a result."""
    print(f"  ... {text}", file=sys.stderr, flush=True)


class Claims:
    """Sentences that could be false."""

    def __init__(self):
        self.failed = 0

    def check(self, holds: bool, words: str) -> None:
        self.failed += not holds
        print(f"{'pass' if holds else 'FAIL'}: {words}", flush=True)


def race(told, claims: Claims, chosen: bool) -> None:
    """Times of both, and their quotient, for each number of rows."""
    name, targets = (", chosen", CHOICE_TARGETS) if chosen else ("", FIT_TARGETS)
    print(f"\n{'With the smoothing chosen' if chosen else 'One fit, smoothing given'}: seconds, median", flush=True)
    print("    rows      ours     pygam   ratio     CPU  RMSE ours   pygam  falls ours    pygam")
    for n in told.rows:
        if chosen and n > 50_000:
            continue
        ours, theirs = lap(told, n, name)
        text = f"{n:8,} {ours['seconds']:9.4f}"
        if theirs is None:
            print(f"{text}   skipped                 {ours['rmse']:10.4f}         {ours['fall']:11.1e}", flush=True)
        else:
            ratio, cpu = (theirs[key] / ours[key] for key in ("seconds", "cpu"))
            print(f"{text} {theirs['seconds']:9.3f} {ratio:7.1f} {cpu:7.1f} {ours['rmse']:10.4f} {theirs['rmse']:7.4f} "
                  f"{ours['fall']:11.1e} {theirs['fall']:8.1e}", flush=True)
            if n in targets:
                claims.check(ratio >= targets[n], f"{ratio:.1f} times as fast at {n:,} rows (target {targets[n]})")
        claims.check(ours["fall"] == 0, f"all directions exact at {n:,} rows")


def lap(told, n: int, name: str) -> tuple[dict, dict | None]:
    """Ours and pygam's at one number of rows; pygam's largest in its own process, or None where it is left out."""
    X, truth, y = rows(n, told.seed)
    mine, his = "ours" + name, "pygam" + name
    small, large = n <= 1000, n >= 200_000
    say(f"{mine}{'' if large else ' and ' + his}, {n:,} rows")
    plan = {mine: 15 if small else 3} | ({} if large else {his: (3 if name else 7) if small else 1})
    found = {}
    for kind, (seconds, used, gam) in timed(plan, X, y).items():
        found[kind] = {"seconds": seconds, "cpu": used, **quality(gam, truth, X)}
    if not large:
        return found[mine], found[his]
    if told.without_largest_pygam or free_bytes() < n * PYGAM_BYTES_A_ROW:
        say(f"pygam at {n:,} rows is left out ({free_bytes() / 1e9:.1f} GB free)")
        return found[mine], None
    say(f"pygam, {n:,} rows, in its own process (minutes)")
    told.pygam_peak = in_own_process("pygam", n, told.seed)
    return found[mine], told.pygam_peak


def memory(told, claims: Claims) -> None:
    """Peak memory of fresh processes at the largest number of rows."""
    n = max(told.rows)
    say(f"memory, {n:,} rows")
    ours = in_own_process("ours", n, told.seed)
    ours_chosen = in_own_process("ours, chosen", n, told.seed)
    theirs = getattr(told, "pygam_peak", None) or (in_own_process("pygam", n, told.seed) if n <= 50_000 else None)
    print(f"\nPeak memory of a fresh process, {n:,} rows, with imports and data: ours {ours['gb']:.3f} GB, "
          f"with the smoothing chosen {ours_chosen['gb']:.3f} GB"
          + (f", pygam {theirs['gb']:.2f} GB" if theirs else ""), flush=True)
    worst = max(ours["gb"], ours_chosen["gb"])
    claims.check(worst <= MEMORY_TARGET_GB, f"{worst:.3f} GB at {n:,} rows (target {MEMORY_TARGET_GB} GB at 500,000)")


def augmented(gam, X, y):
    """Predictions of the same penalized problem by a library's least squares: the penalty's root as extra rows."""
    import numpy as np

    from lensnb.blocks import dense
    from lensnb.gam import RIDGE

    B, P = gam.terms.build_columns(X).toarray(), dense(gam.terms.build_penalties())
    P[:-1, :-1] += RIDGE * np.eye(len(P) - 1)
    size, turn = np.linalg.eigh(P)
    root = np.sqrt(np.maximum(size, 0))[:, None] * turn.T
    return B @ np.linalg.lstsq(np.vstack([B, root]), np.r_[y, np.zeros(len(P))], rcond=None)[0]


def agreement(told, claims: Claims) -> None:
    """Without shapes: ours, pygam's and least squares on the same penalized problem."""
    import numpy as np

    print("\nWithout shapes, equal penalties: largest difference of a prediction, in SD of the outcome")
    for n in (2000, 120):
        X, _, y = rows(n, told.seed)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours, theirs = (model(kind, None).fit(X, y) for kind in ("ours", "pygam"))
        right = augmented(ours, X, y)
        mine, his = ours.predict(X), theirs.predict(X)
        gaps = [abs(a - b).max() / y.std() for a, b in ((mine, his), (mine, right), (his, right))]
        print(f"{n:,} rows, {len(ours.coef_)} coefficients: ours and pygam {gaps[0]:.1e}, "
              f"ours and least squares {gaps[1]:.1e}, pygam and least squares {gaps[2]:.1e}", flush=True)
        if n > len(ours.coef_):
            claims.check(gaps[0] <= 1e-6, "agrees with pygam within 1e-6 where rows outnumber coefficients")
        claims.check(bool(np.isfinite(gaps[1]) and gaps[1] <= 1e-5), f"equal to augmented least squares at {n:,} rows")


def main(words=None) -> int:
    """Print all tables; 0 when every target holds."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rows", type=int, nargs="+", default=[500, 50_000, 500_000])
    ask.add_argument("--without-largest-pygam", action="store_true", help="leave out pygam from 200,000 rows on")
    ask.add_argument("--without-choice", action="store_true", help="leave out the choice of the smoothing")
    ask.add_argument("--threads", type=int, default=1, help="threads of the linear algebra, for both")
    ask.add_argument("--seed", type=int, default=2026)
    ask.add_argument("--measure", help=argparse.SUPPRESS)
    told = ask.parse_args(words)
    if "numpy" not in sys.modules and told.measure is None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(told.threads)
    if told.measure:
        print(json.dumps(measure(told.measure, told.rows[0], told.seed)))
        return 0
    claims, start = Claims(), time.perf_counter()
    print(f"{TERMS} rising terms of {SPLINES} splines, {told.threads} thread(s), seed {told.seed}", flush=True)
    race(told, claims, chosen=False)
    if not told.without_choice:
        race(told, claims, chosen=True)
    memory(told, claims)
    agreement(told, claims)
    print(f"\n{time.perf_counter() - start:.0f} s; {claims.failed} target(s) missed")
    return int(claims.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
