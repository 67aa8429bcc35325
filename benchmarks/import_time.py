"""How long imports take, each in a fresh Python, beside `import pandas`.

By hand: .venv/bin/python benchmarks/import_time.py [RUNS]

The median of some runs, in seconds above an empty Python. `import lensnb` should stay under 0.2 s: its modules are
loaded when they are first used.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 0.2


def seconds(code: str, runs: int) -> float:
    """Median wall time of a fresh Python that runs `code`."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main(runs: int = 5) -> int:
    modules = [f"lensnb.{p.stem}" for p in sorted((ROOT / "lensnb").glob("[a-z]*.py"))]
    empty = seconds("pass", runs)
    pandas = seconds("import pandas", runs) - empty
    print(f"{'import':24}{'seconds':>9}{'/ pandas':>10}    (median of {runs}; an empty Python takes {empty:.3f} s)")
    taken = {}
    for name in ["pandas", "lensnb", *modules, "sklearn.ensemble", "pygam", "seaborn", "shap"]:
        taken[name] = pandas if name == "pandas" else seconds(f"import {name}", runs) - empty
        print(f"{name:24}{taken[name]:9.3f}{taken[name] / pandas:10.2f}", flush=True)
    good = taken["lensnb"] < LIMIT_S
    print(f"import lensnb: {taken['lensnb']:.3f} s, {'under' if good else 'NOT under'} {LIMIT_S} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
