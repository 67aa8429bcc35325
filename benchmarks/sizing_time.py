"""How long the whole answer takes, beside pygam's bare fits and predictions, and beside the same library before.

By hand: .venv/bin/python benchmarks/sizing_time.py [RUNS] [--before REVISION]

The answer holds more than predictions: support, intervals by size, carried bounds and reasons for every size. The first
table says what that costs, on synthetic eyes. With --before, an older revision of the package is unpacked into a
temporary folder and asked for the same work in its own process, in turns with this one, so that both feel the same
load. Times are processor seconds of one thread (the wall clock of a shared machine measures the neighbours).
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


def seconds(work, runs: int) -> list[float]:
    """Processor times of `work()`, after one run that loads what is loaded once."""
    work()
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return times


def measure(runs: int) -> dict:
    """The work of this benchmark with whichever `lensnb` is imported: name -> seconds, and the size of the file."""
    import pandas as pd

    import lensnb

    eyes = lensnb.synthetic_clinics().of("alder").eyes
    model = lensnb.SizingModel().fit(eyes)
    whole = eyes.dropna(subset=model.parts.features)
    many = pd.concat([whole] * 12, ignore_index=True).head(10_000)
    one = seconds(lambda: model.predict_sizes(many.head(1)), 20 * runs)
    with tempfile.TemporaryDirectory() as folder:
        path = model.save(Path(folder) / "model.json")
        size, load = path.stat().st_size, seconds(lambda: lensnb.SizingModel.load(path), runs)
    return {
        "fit, 796 eyes": statistics.median(seconds(lambda: lensnb.SizingModel().fit(eyes), runs)),
        "answer, 1 eye x 4 sizes, median": statistics.median(one),
        "answer, 1 eye x 4 sizes, 99 of 100": sorted(one)[int(0.99 * (len(one) - 1))],
        "answer, 10,000 eyes x 4 sizes": statistics.median(seconds(lambda: model.predict_sizes(many), runs)),
        "load": statistics.median(load),
        "file, KB": size / 1024,
    }


def measured_in(folder: Path, runs: int) -> dict:
    """`measure` in a process of its own that imports the package from `folder`."""
    code = "import sys, runpy; sys.path.insert(0, sys.argv[1]); m = runpy.run_path(sys.argv[2]); import json; "
    code += "print(json.dumps(m['measure'](int(sys.argv[3]))))"
    words = [sys.executable, "-c", code, str(folder), str(Path(__file__).resolve()), str(runs)]
    done = subprocess.run(
        words, cwd=tempfile.gettempdir(), capture_output=True, text=True, env={**os.environ, **ONE_THREAD}
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def against_pygam(runs: int):
    """The answer beside bare pygam: one smoothing, no constraint, no interval, no reason."""
    import pandas as pd
    from pygam import LinearGAM

    import lensnb
    from lensnb.cohort import training_eyes
    from lensnb.features import feature_frame

    eyes = lensnb.synthetic_clinics().of("alder").eyes
    model = lensnb.SizingModel().fit(eyes)
    used = training_eyes(eyes).dropna(subset=model.parts.features)
    X, y = feature_frame(used, model.parts.features).to_numpy(), used["vault_um"].to_numpy()
    many = pd.concat([eyes.dropna(subset=model.parts.features)] * 12, ignore_index=True).head(10_000)
    many_X, bare = feature_frame(many, model.parts.features).to_numpy(), LinearGAM(n_splines=10).fit(X, y)
    folds, sizes = range(1 + model.config.n_splits), model.config.sizes
    rows = [
        (
            f"fit, {len(used)} eyes",
            lambda: lensnb.SizingModel().fit(eyes),
            lambda: [LinearGAM(n_splines=10).fit(X, y) for _ in folds],
        ),
        (
            "answer, 1 eye x 4 sizes",
            lambda: model.predict_sizes(many.head(1)),
            lambda: [bare.predict(many_X[:1]) for _ in sizes],
        ),
        (
            f"answer, {len(many):,} eyes x 4 sizes",
            lambda: model.predict_sizes(many),
            lambda: [bare.predict(many_X) for _ in sizes],
        ),
    ]
    table = [(name, *(statistics.median(seconds(w, runs)) for w in work)) for name, *work in rows]
    frame = pd.DataFrame(table, columns=["work", "lensnb_s", "pygam_alone_s"]).set_index("work")
    return frame.assign(ratio=frame["lensnb_s"] / frame["pygam_alone_s"]).round(4)


def before_and_after(revision: str, runs: int, turns: int = 2):
    """The same work by an older revision and by this one, in turns; the better of the turns."""
    import pandas as pd

    packed = subprocess.run(["git", "archive", revision, "lensnb"], cwd=ROOT, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as old:
        tarfile.open(fileobj=io.BytesIO(packed)).extractall(old, filter="data")
        found = [(measured_in(Path(old), runs), measured_in(ROOT, runs)) for _ in range(turns)]
    table = {name: [min(pair[side][name] for pair in found) for side in (0, 1)] for name in found[0][0]}
    frame = pd.DataFrame.from_dict(table, orient="index", columns=["before", "now"])
    return frame.assign(times_faster=frame["before"] / frame["now"]).round(4)


def main() -> int:
    ask = argparse.ArgumentParser()
    ask.add_argument("runs", nargs="?", type=int, default=3)
    ask.add_argument("--before", help="a revision of this repository")
    given = ask.parse_args()
    print(against_pygam(given.runs).to_string())
    if given.before:
        print(before_and_after(given.before, given.runs).to_string())
    return 0


if __name__ == "__main__":
    os.environ.update(ONE_THREAD)
    sys.exit(main())
