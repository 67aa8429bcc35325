"""Offline as of a moment equals online at that moment, for every feature, size and eye; and how long one eye takes.

    .venv/bin/python benchmarks/store_parity.py                   # 10,000 eyes, about 45,000 rows
    .venv/bin/python benchmarks/store_parity.py --eyes 1000

The eyes are made up: several visits and instruments, late corrections, rows measured after surgery, gaps, strangers.
`differences` and `times_ms` take any feature source, so that another one can be measured in the same way.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]

import numpy as np
import pandas as pd
import stores

from lensnb.batches import all_batches, read_rows
from lensnb.features import FEATURES
from lensnb.schema import SIZES_MM, InputError
from lensnb.store import Store, ask_visits, online_rows, rows_of

NAMES = list(FEATURES)
COLUMNS = list(stores.SPREAD)


def differences(source, eyes, as_of, reference=None) -> tuple[int, int]:
    """Values compared and values that differ (missing equals missing) between `online` of `source`, materialized as of
    `as_of`, and `historical` of `reference` (default: the same source)."""
    online = np.array([[v[n] for n in NAMES] for v in map(source.online, eyes)])
    compared = wrong = 0
    for i, size in enumerate(SIZES_MM):
        asked = pd.DataFrame({"eye_id": eyes, "as_of": pd.Timestamp(as_of)})
        offline = (reference or source).historical(asked, NAMES, size_mm=size)[NAMES].to_numpy()
        same = (offline == online[:, :, i]) | (np.isnan(offline) & np.isnan(online[:, :, i]))
        compared, wrong = compared + same.size, wrong + int((~same).sum())
    return compared, wrong


def times_ms(source, eyes, calls: int = 20_000, seed: int = 0, **request) -> np.ndarray:
    """Milliseconds of single `online` calls for eyes drawn at random, after a warm-up."""
    rng, taken = np.random.default_rng(seed), []
    drawn = [eyes[i] for i in rng.integers(0, len(eyes), calls + 500)]
    for eye in drawn:
        start = time.perf_counter()
        source.online(eye, **request)
        taken.append(time.perf_counter() - start)
    return 1000 * np.array(taken[500:])


def second_opinions(store, rows, n: int) -> tuple[int, int]:
    """Values compared and differing between `historical` and plain Python, for `n` eyes and moments."""
    asked = stores.questions(rows, n, seed=1)
    kept = pd.concat([read_rows(p) for p in all_batches(store.folder)])
    kept = {e: p.to_dict("records") for e, p in kept[kept["eye_id"].isin(asked["eye_id"])].groupby("eye_id")}
    slow = [stores.slow_answer(kept.get(e, []), COLUMNS, t) for e, t in zip(asked["eye_id"], asked["as_of"])]
    fast, slow = store.historical(asked, COLUMNS)[COLUMNS].to_numpy(), pd.DataFrame(slow)[COLUMNS].to_numpy()
    return fast.size, int((~((fast == slow) | (np.isnan(fast) & np.isnan(slow)))).sum())


def seconds(label: str, work):
    """The result of `work()`; its time is printed."""
    start = time.perf_counter()
    result = work()
    print(f"  {label:<58}{time.perf_counter() - start:8.2f} s")
    return result


def corrections(store, rows, as_of, place: Path) -> tuple[int, int, int]:
    """Eyes whose answer as of `as_of` is another one today; values that differ from a store that was never told more;
    values that a store without the second time would have given otherwise."""
    early, moment = Store(place, create=True), pd.Timestamp(as_of)
    for now, table in stores.deliveries(rows):
        if now <= moment:
            early.add(table, now)
    eyes = [e for e, _ in online_rows(early, as_of)]
    then = pd.DataFrame({"eye_id": eyes, "as_of": moment})
    before, after = (s.historical(then, COLUMNS)[COLUMNS].to_numpy() for s in (early, store))
    limits = then.assign(event_limit=moment, known_limit=pd.Timestamp("2030-01-01"))
    leaky = ask_visits(rows_of(store), limits, COLUMNS)[COLUMNS].to_numpy()
    wrong, leaked = (~((x == before) | (np.isnan(x) & np.isnan(before))) for x in (after, leaky))
    return int(leaked.any(axis=1).sum()), int(wrong.sum()), int(leaked.sum())


def after_surgery(store, rows) -> tuple[int, int]:
    """Eyes with values that were only ever measured after surgery, and how many of these are served."""
    rows = rows.assign(first=rows.groupby("eye_id")["surgery_date"].transform("min"))
    depth = rows[rows["acd_mm"].notna()]
    late = depth["exam_date"] > depth["first"]
    own = set(zip(depth.loc[late, "eye_id"], depth.loc[late, "acd_mm"]))
    own -= set(zip(depth.loc[~late, "eye_id"], depth.loc[~late, "acd_mm"]))
    asked = pd.DataFrame({"eye_id": sorted({e for e, _ in own}), "as_of": rows["arrives"].max() + 30 * stores.DAY})
    got = store.historical(asked, ["acd_mm"])
    return len(asked), sum((e, v) in own for e, v in zip(got["eye_id"], got["acd_mm"]))


def strangers(store, n: int = 100) -> int:
    """How many of `n` unknown eyes got an answer."""
    answered = 0
    for i in range(n):
        try:
            store.online(f"stranger-{i}")
            answered += 1
        except InputError:
            pass
    return answered


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eyes", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=20_000)
    args = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        rows = stores.arrivals(args.eyes, seed=7)
        print(f"{args.eyes:,} eyes, {len(rows):,} rows")
        store = seconds("added, in batches of two weeks", lambda: stores.filled(Path(place) / "store", rows))
        for as_of in ("2025-05-01", "2025-09-15T12:00:00", "2026-06-01"):
            known = seconds(f"materialized as of {as_of}", lambda t=as_of: store.materialize(t))
            eyes = [eye for eye, _ in online_rows(store, as_of)]
            compared, wrong = differences(store, eyes, as_of)
            failed += wrong
            print(f"  {known:,} eyes known: {compared:,} values online and offline compared, {wrong} differ")
        changed, wrong, leaked = corrections(store, rows, "2025-09-15T12:00:00", Path(place) / "early")
        print(f"  {changed:,} eyes were corrected after 2025-09-15: {wrong} answers as of that day changed")
        print(f"    (looking at the event alone would have changed {leaked:,} values)")
        trapped, served = after_surgery(store, rows)
        print(f"  {trapped:,} eyes were measured again after surgery: {served} of those values are served")
        answered = strangers(store)
        print(f"  100 unknown eyes were asked for: {answered} got an answer")
        failed += wrong + served + answered
        compared, wrong = seconds("second opinion in plain Python", lambda: second_opinions(store, rows, 3000))
        failed += wrong
        print(f"  {compared:,} values compared with it, {wrong} differ")
        asked = stores.questions(rows, 10_000)
        seconds("historical, 10,000 questions, all features", lambda: store.historical(asked, NAMES))
        print(f"\n  {'one eye online, four sizes, all features':<62}{'p50':>9}{'p90':>9}{'p99':>9}   ms")
        asked = {"stored": {}, "stored, and a request of two values": dict(request=dict(ata_mm=12.0, icl_se_d=-9.0))}
        rounds = {label: [] for label in asked}
        for i in range(5):
            for label, request in asked.items():
                rounds[label].append(times_ms(store, eyes, args.calls // 5, seed=i, **request))
        for label, taken in rounds.items():
            quiet = min(taken, key=lambda t: np.percentile(t, 99))
            for words, t in ((f"{label}: all calls", np.concatenate(taken)), (f"{label}: quietest of 5 rounds", quiet)):
                print(f"  {words:<62}" + "".join(f"{v:9.3f}" for v in np.percentile(t, [50, 90, 99])))
        print(f"  (load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")
    print("all equal" if not failed else f"{failed} FAILURES")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
