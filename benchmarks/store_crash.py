"""Kill -9 while adding and while materializing, many times; two writers at once; a full disk. What is left is counted.

    .venv/bin/python benchmarks/store_crash.py                    # 60 kills of each kind
    .venv/bin/python benchmarks/store_crash.py --kills 10

The small disk is a tmpfs and needs the superuser; without him that line says so.
"""

import argparse
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]

import pandas as pd
import stores

from lensnb.batches import all_batches, read_rows
from lensnb.schema import InputError
from lensnb.store import Store, online_rows

children = get_context("forkserver")
children.set_forkserver_preload(["pandas", "pyarrow.parquet", "duckdb", "pandera.pandas", "lensnb.store", "stores"])
EYES, SEED = 150, 11


def killed(target, args, after: float, rng) -> bool:
    """Start a process, kill it at a random time within `after` seconds; whether it was still at work."""
    child = children.Process(target=target, args=args, daemon=True)
    child.start()
    child.join(rng.uniform(0.02, after))
    at_work = child.is_alive()
    if at_work:
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    return at_work


def sent_and_kept(folder: Path) -> tuple[int, int]:
    """Rows sent, and rows kept that were sent, as often as they were sent."""
    keys = ["eye_id", "exam_date", "surgery_date", "device", "vault_day", *stores.SPREAD]
    sent = stores.arrivals(EYES, SEED)[keys]
    kept = pd.concat([read_rows(p) for p in all_batches(folder)])[keys]
    count = [t.astype(object).where(t.notna(), None).value_counts(dropna=False) for t in (sent, kept)]
    both = pd.concat(count, axis=1).fillna(0)
    return len(sent), int(both.min(axis=1).sum()) - int((both.iloc[:, 1] - both.iloc[:, 0]).clip(lower=0).sum())


def while_adding(folder: Path, kills: int, rng) -> str:
    done, unlisted, unreadable = 0, 0, 0
    while done < kills:
        if not killed(stores.add_all, (str(folder), EYES, SEED), 1.5, rng):
            if sent_and_kept(folder)[0] == sent_and_kept(folder)[1]:
                shutil.rmtree(folder)  # finished before it was killed: from the start again
            continue
        done += 1
        if (folder / "store.json").is_file():
            try:
                store = Store(folder)
                unlisted += len(all_batches(folder)) - store.ledger.verify()
                store.eyes()
            except InputError:
                unreadable += 1
    stores.add_all(str(folder), EYES, SEED)
    sent, kept = sent_and_kept(folder)
    fine = Store(folder).verify()["ok"].all()
    drafts = len(list((folder / "batches").glob(".draft-*")))
    return (
        f"{done} kills: {unreadable} times unreadable, {unlisted} times a batch without its line; after the last run "
        f"{kept:,} of {sent:,} rows, {drafts} drafts left, verify {'ok' if fine else 'FAILED'}"
    )


def while_materializing(folder: Path, kills: int, rng) -> str:
    store, moments = stores.filled(folder, stores.arrivals(EYES, SEED), 60), ["2025-06-01", "2026-06-01"]
    store.materialize(moments[0])
    expected = {m: dict(online_rows(store, m)) for m in moments}
    mixtures = failures = done = 0
    reader, eye = Store(folder), min(expected[moments[0]])
    while done < kills:
        done += killed(stores.materialize_for_ever, (str(folder), moments), 0.6, rng)
        with closing(sqlite3.connect(folder / "online.sqlite")) as db:
            facts = dict(db.execute("SELECT name, value FROM facts"))
            mixtures += dict(db.execute("SELECT eye_id, cells FROM eyes")) != expected[facts["as_of"][1:11]]
        try:
            reader.online(eye)
        except InputError:
            failures += 1
    return f"{done} kills: {mixtures} mixtures of old and new rows, {failures} failed readings"


def two_writers(folder: Path) -> str:
    writers = [children.Process(target=stores.add_slice, args=(str(folder), EYES, SEED, i % 2, 2)) for i in range(4)]
    for w in writers:
        w.start()
    seen, shrunk, store = [0], 0, None
    while any(w.is_alive() for w in writers):
        if (folder / "store.json").is_file():
            store = store or Store(folder)
            seen.append(len(store.outcomes()))
            shrunk += seen[-1] < seen[-2]
        time.sleep(0.02)
    exits = [w.join() or w.exitcode for w in writers]
    sent, kept = sent_and_kept(folder)
    fine = Store(folder).verify()["ok"].all()
    return (
        f"4 writers of 2 halves, exit codes {exits}: {kept:,} of {sent:,} rows; {len(seen) - 1} readings meanwhile, "
        f"{shrunk} saw less than before; verify {'ok' if fine else 'FAILED'}"
    )


def full_disk(place: Path) -> str:
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", place]).returncode:
        return "not tried: no small disk can be mounted here"
    try:
        store, tables = (
            Store(place / "store", create=True),
            [t for _, t in stores.deliveries(stores.arrivals(60, 6), 30)],
        )
        added, refused = 0, ""
        for table in [*tables, *(t.assign(eye_id=t["eye_id"] + f"-{i}") for i in range(400) for t in tables)]:
            try:
                store.add(table, "2027-01-01")
                added += 1
            except InputError as e:
                refused = str(e).split(".")[0]
                break
        kept, report = len(all_batches(store.folder)), Store(store.folder).verify()
        drafts = len(list((store.folder / "batches").glob(".draft-*")))
        try:
            store.materialize("2027-01-01")
            online = "materialized"
        except InputError as e:
            online = str(e).split(".")[0]
        return (
            f"{added} batches, then: {refused}. {kept} batches kept, {drafts} drafts left, "
            f"{int((~report['ok']).sum())} findings; materialize: {online}; {len(store.eyes())} eyes are read"
        )
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    args = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        for label, work in (
            ("while adding", lambda: while_adding(place / "a", args.kills, rng)),
            ("while materializing", lambda: while_materializing(place / "b", args.kills, rng)),
            ("writers at once", lambda: two_writers(place / "c")),
            ("full disk", lambda: full_disk(place / "d")),
        ):
            print(f"{label:<22}{work()}", flush=True)


if __name__ == "__main__":
    main()
