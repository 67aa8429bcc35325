"""Made-up eyes with everything that can happen to them on the way into a store, and a slow second opinion.

Used by the tests and the benchmarks of the store: several visits, several instruments, late corrections, surgeries,
rows measured after surgery, vaults, gaps. `slow_answer` answers the store's question again, row by row, in plain
Python, from the words of the contract and not from its queries.
"""

from pathlib import Path

import numpy as np
import pandas as pd

DAY = pd.Timedelta(days=1)
START = pd.Timestamp("2025-01-01")
PENTACAM = ("acd_mm", "cct_um", "k_d", "aca_deg", "wtw_mm")
CASIA = ("ata_mm", "clr_um", "lt_mm")
SPREAD = {
    "acd_mm": (3.2, 0.25, 2),
    "cct_um": (535, 30, 0),
    "k_d": (43.5, 1.4, 2),
    "aca_deg": (38, 6, 1),
    "wtw_mm": (11.6, 0.35, 1),
    "ata_mm": (11.9, 0.4, 2),
    "clr_um": (120, 180, -1),
    "lt_mm": (3.7, 0.2, 2),
}


def measured(rng, n: int, columns, gaps: float = 0.08) -> pd.DataFrame:
    """Plausible values with the devices' rounding, some of them missing."""
    values = {}
    for c in columns:
        mean, sd, digits = SPREAD[c]
        values[c] = np.round(mean + sd * np.clip(rng.standard_normal(n), -2.5, 2.5), digits)
    frame = pd.DataFrame(values)
    return frame.mask(rng.random(frame.shape) < gaps)


def visits(rng, who: np.ndarray, day, delay, device: str, columns) -> pd.DataFrame:
    """Rows of examinations on `day` (days after START) that arrive `delay` days later."""
    rows = measured(rng, len(who), columns)
    rows.insert(0, "eye_id", [f"p-{i // 2:06d}-{'OD' if i % 2 == 0 else 'OS'}" for i in who])
    exam = START + pd.to_timedelta(day, unit="D")
    return rows.assign(exam_date=exam, device=device, arrives=exam + pd.to_timedelta(delay, unit="D"))


def arrivals(n: int, seed: int = 0) -> pd.DataFrame:
    """All rows about `n` eyes, with the day on which each arrives."""
    rng = np.random.default_rng(seed)
    everyone, parts = np.arange(n), []
    first = rng.integers(0, 200, n)
    surgery = np.where(rng.random(n) < 0.7, first + rng.integers(5, 60, n), 10_000)
    for visit in range(3):
        there = rng.random(n) < (1.0, 0.5, 0.25)[visit]
        who, day = everyone[there], (first + visit * rng.integers(1, 90, n))[there]
        for device, columns in (("Pentacam", PENTACAM), ("CASIA2", CASIA)):
            used = rng.random(len(who)) < 0.85
            w, d = who[used], day[used]
            parts.append(visits(rng, w, d, rng.integers(0, 20, len(w)), device, columns))
            again = rng.random(len(w)) < 0.2
            parts.append(visits(rng, w[again], d[again], rng.integers(30, 150, again.sum()), device, columns))
    had = everyone[surgery < 10_000]
    trap = had[rng.random(len(had)) < 0.4]
    after = surgery[trap] + rng.integers(1, 120, len(trap))
    parts.append(visits(rng, trap, after, rng.integers(0, 20, len(trap)), "Pentacam", PENTACAM))
    parts.append(operations(rng, had, surgery[had]))
    rows = pd.concat(parts, ignore_index=True)
    return rows.iloc[rng.permutation(len(rows))].sort_values("arrives", kind="stable", ignore_index=True)


def operations(rng, who: np.ndarray, day) -> pd.DataFrame:
    """Rows of surgeries, and of their vaults some weeks later."""
    when = START + pd.to_timedelta(day, unit="D")
    eyes = [f"p-{i // 2:06d}-{'OD' if i % 2 == 0 else 'OS'}" for i in who]
    lens = dict(
        size_mm=rng.choice([12.1, 12.6, 13.2, 13.7], len(who)), icl_se_d=-np.round(rng.uniform(3, 18, len(who)) * 4) / 4
    )
    ages = rng.integers(21, 46, len(who)).astype(float)
    done = pd.DataFrame(dict(eye_id=eyes, surgery_date=when, age_y=ages, **lens))
    late = done.assign(
        vault_um=np.round(rng.uniform(100, 1000, len(who)), -1), vault_day=rng.integers(1, 90, len(who)).astype(float)
    )
    done["arrives"] = when + pd.to_timedelta(rng.integers(0, 10, len(who)), unit="D")
    late["arrives"] = when + pd.to_timedelta(late["vault_day"] + rng.integers(0, 20, len(who)), unit="D")
    return pd.concat([done, late], ignore_index=True)


def deliveries(rows: pd.DataFrame, every_days: int = 14):
    """(moment, table) of the batches in which the rows arrive."""
    number = ((rows["arrives"] - START) / DAY // every_days).astype(int)
    for i, part in rows.groupby(number):
        yield START + (i + 1) * every_days * DAY, part.drop(columns="arrives").reset_index(drop=True)


def filled(folder: Path, rows: pd.DataFrame, every_days: int = 14):
    """A new store that got all deliveries."""
    from lensnb.store import Store

    store = Store(folder, create=True)
    for now, table in deliveries(rows, every_days):
        store.add(table, now)
    return store


def questions(rows: pd.DataFrame, n: int, seed: int = 0, strangers: float = 0.05) -> pd.DataFrame:
    """Eyes and moments to ask about, some eyes unknown."""
    rng = np.random.default_rng(seed)
    eyes = rows["eye_id"].unique()
    who = np.where(rng.random(n) < strangers, "p-nobody", rng.choice(eyes, n))
    when = START + pd.to_timedelta(rng.integers(0, 500 * 24, n), unit="h")
    return pd.DataFrame({"eye_id": who, "as_of": when})


def slow_answer(stored: list[dict], columns, as_of) -> dict:
    """What was known about one eye: `stored` are its rows as batches keep them (number, row, event, created)."""
    known = [r for r in stored if r["created"] <= as_of]

    def newest(rows):
        best = {}
        for r in rows:
            key = (r["event"], r.get("device") or "")
            best[key] = max(best.get(key, 0), r["number"])
        return [r for r in rows if r["number"] == best[r["event"], r.get("device") or ""]]

    def has(row, name):
        return row.get(name) is not None and row[name] == row[name]

    operated = [r["surgery_date"] for r in newest([r for r in known if has(r, "surgery_date")])]
    usable = [r for r in known if r["event"] <= as_of and any(has(r, c) for c in SPREAD)]
    usable = newest([r for r in usable if not operated or r["event"] <= min(operated)])
    if not usable:
        return dict.fromkeys(columns, np.nan)
    day = max(r["event"] for r in usable)
    order = sorted((r for r in usable if r["event"] == day), key=lambda r: (r["number"], r["row"]))
    return {c: next((r[c] for r in reversed(order) if has(r, c)), np.nan) for c in columns}


# What a process does until it is killed: these functions run in children.


def add_all(folder: str, n: int, seed: int) -> None:
    """Add every delivery; those that are there already are left alone."""
    from lensnb.store import Store

    store = Store(folder, create=True)
    for now, table in deliveries(arrivals(n, seed), 30):
        store.add(table, pd.Timestamp("2027-01-01"))


def materialize_for_ever(folder: str, moments: list[str]) -> None:
    """Materialize as of one moment after the other, again and again."""
    from lensnb.store import Store

    store = Store(folder)
    while True:
        for moment in moments:
            store.materialize(moment)


def add_slice(folder: str, n: int, seed: int, which: int, of: int) -> None:
    """One of several writers: every `of`-th delivery."""
    from lensnb.store import Store

    store = Store(folder, create=True)
    for i, (_, table) in enumerate(deliveries(arrivals(n, seed), 30)):
        if i % of == which:
            store.add(table, pd.Timestamp("2027-01-01"))
