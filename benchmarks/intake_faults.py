"""How many faults does the intake see, and how many good rows does it stop?

By hand: .venv/bin/python benchmarks/intake_faults.py [--files 1000] [--seed 1] [--misses 20] [--plain]

At least a thousand tables of synthetic eyes are written in the usual encodings, separators, decimal marks and formats,
each with faults of one class, of several, or with none (see tests/faults.py for the classes and the rule of fairness).
Printed are, for every class, how many faults were injected and what became of them; the low rates too, with the line of
defence that has to see what a single row does not show. The exit code is 1 when a decidable fault became a number, a
file was lost or crashed, the counts of a file do not add up, or more than one clean row in a hundred was stopped.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import faults  # noqa: E402

CLEAN_LIMIT = 0.01


def run(files: int, seed: int, plain: bool = False, progress: bool = True) -> list:
    """The results of all files, in order; every file is written, read and thrown away."""
    from tqdm import tqdm

    read, results = faults.reader(), []
    with tempfile.TemporaryDirectory() as folder:
        for number in tqdm(range(files), unit="file", disable=not progress, mininterval=2):
            results.append(faults.examine(faults.make_case(seed, number, plain=plain), folder, read))
    return results


def table(results: list) -> pd.DataFrame:
    """One row a class (and one for the faults of the class that a row alone cannot show): what became of its faults."""
    counts = {}
    for outcome in (o for r in results for o in r.outcomes):
        f = outcome.fault
        counts.setdefault((f.kind, f.decidable), Counter())[outcome.result] += 1
        counts[f.kind, f.decidable]["good"] += outcome.good
    rows = []
    for (name, decidable), c in counts.items():
        n = sum(c.values()) - c["good"]
        row = dict(fault=name, decidable="yes" if decidable else "no", injected=n)
        row |= {k: c[k] for k in ("caught", "refused", "undecided", "missing", "as meant", "warned", "passed")}
        row["share"] = f"{c['good'] / n:.1%}" if decidable else f"{(c['caught'] + c['refused']) / n:.1%}"
        rows.append(row | {"miss": n - c["good"] if decidable else 0})
    return pd.DataFrame(rows).sort_values(["decidable", "fault"], ascending=[False, True], ignore_index=True)


def whole(result) -> bool:
    """True where the file itself was damaged, not some of its rows."""
    return any(faults.KINDS[f.kind].file for f in result.case.faults)


def summary(results: list) -> dict:
    """The figures of the whole run."""
    return {
        "files": len(results),
        "of these with faults": sum(bool(r.case.faults) for r in results),
        "rows": sum(r.rows for r in results),
        "faults": sum(len(r.case.faults) for r in results),
        "crashes": sum(bool(r.crash) for r in results),
        "files refused that are damaged as a whole": sum(bool(r.refused) and whole(r) for r in results),
        "files refused for the sake of rows": sum(bool(r.refused) and not whole(r) for r in results),
        "clean twins refused or crashed": sum(bool(r.twin) for r in results),
        "files whose counts do not add up": sum(bool(r.balance) for r in results),
        "clean rows in clean files": sum(r.twin_rows for r in results),
        "of these stopped": sum(len(r.twin_blocked) for r in results),
        "of these in pairs whose sides cannot be decided (apart)": sum(r.twin_undecided for r in results),
        "rows with an earlier record to compare, in clean files": sum(
            r.twin_rows + r.twin_undecided for r in results if r.case.table.earlier is not None
        ),
        "clean rows beside faults": sum(r.clean_rows for r in results),
        "of these stopped ": sum(len(r.clean_blocked) for r in results),
        "of these in pairs whose sides cannot be decided (apart) ": sum(r.clean_undecided for r in results),
        "clean rows with a warning": sum(r.clean_warned for r in results),
        "values of clean rows changed": sum(len(r.clean_changed) for r in results),
        "decidable faults missed": sum(o.fault.decidable and not o.good for r in results for o in r.outcomes),
    }


def stopped(figures: dict) -> float:
    """The share of clean rows that were stopped."""
    rows = figures["clean rows in clean files"] + figures["clean rows beside faults"]
    return (figures["of these stopped"] + figures["of these stopped "]) / max(rows, 1)


def failed(figures: dict) -> list[str]:
    """What makes the run a failure."""
    never = ("crashes", "files refused for the sake of rows", "clean twins refused or crashed",
             "files whose counts do not add up", "values of clean rows changed", "decidable faults missed")  # fmt: skip
    found = [f"{name}: {figures[name]}" for name in never if figures[name]]
    share = stopped(figures)
    return found + ([f"clean rows stopped: {share:.2%}, allowed {CLEAN_LIMIT:.0%}"] if share > CLEAN_LIMIT else [])


def misses(results: list) -> list[str]:
    """Everything that went wrong, as one line each that says how to do it again."""
    found = []
    for r in results:
        refused = "" if whole(r) else r.refused
        told = [("crash", r.crash), ("refused", refused), ("counts", r.balance), ("clean twin", r.twin)]
        told = [f"{word}: {text}" for word, text in told if text]
        told += [f"clean row {row} stopped {codes}: {text}" for row, codes, text in r.clean_blocked + r.twin_blocked]
        told += [f"clean row {row} changed: {what}" for row, what in r.clean_changed]
        for o in r.outcomes:
            f = o.fault
            if f.decidable and not o.good:
                told.append(f"{o.result}: {f.kind}, {f.field} {f.before!r} -> {f.after!r} {o.told}")
        found += [f"[{r.case}] {text}" for text in told]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--misses", type=int, default=20, help="how many misses to print")
    parser.add_argument("--plain", action="store_true", help="UTF-8 with comma, semicolon or tab only")
    options = parser.parse_args()
    start = time.perf_counter()
    results = run(options.files, options.seed, options.plain)
    seconds, figures, frame = time.perf_counter() - start, summary(results), table(results)
    print("Faults that the file itself shows: each must be caught (share: no wrong number went on)")
    print(frame[frame["decidable"] == "yes"].drop(columns="decidable").to_string(index=False))
    print("\nFaults that a row alone cannot show: what was caught all the same (share), and who else can see them")
    rest = frame[frame["decidable"] == "no"].drop(columns=["decidable", "miss", "missing"])
    defence = [faults.KINDS[k].defence or "soft range; double entry" for k in rest["fault"]]
    print(rest.assign(second_line=defence).to_string(index=False))
    print()
    for name, value in figures.items():
        print(f"{name:58} {value:>9,}")
    print(f"{'clean rows stopped, share of all':58} {stopped(figures):>9.2%}")
    read = sum(r.seconds for r in results)
    print(f"{'seconds (reading alone; in all)':58} {read:>9.1f}  ({seconds:.1f} in all)")
    found = misses(results)
    print("\n".join(["", f"Misses: {len(found)}", *found[: options.misses]]))
    wrong = failed(figures)
    print("\nFAILED: " + "; ".join(wrong) if wrong else "\nAll held.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
