"""One eye online: Feast on sqlite against the store, same eyes, same run, same answers.

Needs Feast's environment:  tools/feast_env.sh && .venv-feast/bin/python benchmarks/feast_online.py --eyes 10000
"""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import pandas as pd
from histories import eventful_store, questions

from lensnb.features import FEATURES
from lensnb.remote import FeastSource

AS_OF = "2026-04-30"


def seconds(work) -> float:
    """How long `work()` takes, s."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def times_ms(source, eyes) -> np.ndarray:
    """Milliseconds of each `online` answer."""
    return 1000 * np.array([seconds(lambda eye=eye: source.online(eye)) for eye in eyes])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eyes", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=2000, help="calls of each, in turns of 100")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        store = eventful_store(Path(place) / "eyes", args.eyes)
        remote = FeastSource(Path(place) / "feast")
        warnings.simplefilter("ignore")  # Feast, when it is imported, turns the warnings of its parts on
        fed = seconds(lambda: remote.publish(store))
        both = (("lensnb", store), ("Feast", remote))
        kept = {name: seconds(lambda s=source: s.materialize(AS_OF)) for name, source in both}
        names = np.array(sorted(store.history()["eye_id"].unique()))
        asked, parity = questions(store, args.eyes), 0
        ours = store.historical(asked, list(FEATURES))
        pd.testing.assert_frame_equal(remote.historical(asked, list(FEATURES)), ours, check_exact=True)
        for eye in names:
            a, b = store.online(eye), remote.online(eye)
            assert all(a[n].tobytes() == b[n].tobytes() for n in FEATURES), eye
            parity += 1
        rng, taken = np.random.default_rng(0), {"lensnb": [], "Feast": []}
        for _ in range(max(1, args.calls // 100)):
            turn = rng.choice(names, 100)
            for name, source in both:
                taken[name].append(times_ms(source, turn))
        past = {name: seconds(lambda s=source: s.historical(asked, list(FEATURES))) for name, source in both}
    report(args, taken, kept, past, fed, parity, len(asked))


def report(args, taken, kept, past, fed, parity, asked) -> None:
    """The table, and that the answers were the same."""
    p50, p99 = ({n: np.percentile(np.concatenate(t), q) for n, t in taken.items()} for q in (50, 99))
    calls = sum(map(len, taken["Feast"]))
    print(f"{args.eyes:,} eyes, {len(FEATURES)} features at 4 sizes, {calls:,} calls each\n")
    print(f"{'':34}{'lensnb':>9}{'Feast':>9}{'ratio':>8}")
    for label, row in (
        ("online p50, ms", p50),
        ("online p99, ms", p99),
        (f"{asked:,} questions about the past, s", past),
        ("materialize all eyes, s", kept),
    ):
        print(f"{label:34}{row['lensnb']:9.3f}{row['Feast']:9.3f}{row['Feast'] / row['lensnb']:8.1f}")
    print(f"\npublishing to Feast, once a batch: {fed:.1f} s; the same bytes online for {parity:,} of {parity:,} eyes,")
    print(f"and offline for {asked:,} of {asked:,} questions")


if __name__ == "__main__":
    main()
