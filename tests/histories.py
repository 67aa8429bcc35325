"""Stores whose eyes have a past: late files, corrections, second visits, visits after surgery. Invented values only."""

import numpy as np
import pandas as pd

from lensnb.features import FEATURES, columns_of
from lensnb.schema import FIELDS
from lensnb.store import Store

DAY = pd.Timedelta(days=1)
START = pd.Timestamp("2026-01-01")
END = "2026-04-30"


def measured(rng, n: int) -> pd.DataFrame:
    """Every column behind a feature, uniform in its usual range at full precision; one value in ten is missing."""
    table = {}
    for name in columns_of(FEATURES):
        if name == "size_mm":
            table[name] = rng.choice(np.array(FIELDS[name].choices, float), n)
        else:
            table[name] = rng.uniform(*FIELDS[name].soft, n)
            table[name][rng.random(n) < 0.1] = np.nan
    return pd.DataFrame(table)


def visits(rng, names, first_day: int) -> pd.DataFrame:
    """One examination of each eye in `names`, somewhere in the twenty days from `first_day`."""
    day = START + DAY * pd.Series(rng.integers(first_day, first_day + 20, len(names)))
    return measured(rng, len(names)).assign(eye_id=list(names), exam_date=day, surgery_date=pd.NaT)


def eventful_store(folder, eyes: int, seed: int = 0) -> Store:
    """A store of `eyes` eyes in five batches; `late`, `trap` and `blank` among its attributes name the special ones."""
    rng = np.random.default_rng(seed)
    store, names = Store(folder, create=True), np.array([f"eye-{i:05d}-x" for i in range(eyes)])
    first = visits(rng, names, 0)
    store.add(first, START + 20 * DAY)
    again = rng.choice(eyes, eyes // 4, replace=False)
    store.add(visits(rng, names[again], 25), START + 45 * DAY)  # a second visit
    late = rng.choice(eyes, eyes // 4, replace=False)
    corrected = first.iloc[late].assign(ata_mm=rng.uniform(*FIELDS["ata_mm"].soft, len(late)))
    store.add(corrected.reset_index(drop=True), START + 60 * DAY)  # the first visit, corrected
    trap = rng.choice(eyes, eyes // 4, replace=False)
    after = visits(rng, names[trap], 70).assign(surgery_date=START + 65 * DAY)
    store.add(after, START + 90 * DAY)  # examined with the lens in place
    blank = pd.DataFrame({"eye_id": ["eye-blank-x"], "surgery_date": [START + 91 * DAY], "size_mm": [12.6]})
    store.add(blank, START + 95 * DAY)  # an eye of which nothing was measured
    store.late, store.trap, store.blank = set(names[late]), set(names[trap]), "eye-blank-x"
    return store


def questions(store: Store, n: int, seed: int = 1) -> pd.DataFrame:
    """Entities: known and unknown eyes, some twice, at moments before, within and after the store's past."""
    rng = np.random.default_rng(seed)
    names = np.array([*store.history()["eye_id"].unique(), "nobody", "eye-00000"])
    hours = rng.integers(-24, 110 * 24, n)
    hours[: n // 3] = 24 * rng.choice([0, 20, 45, 60, 90, 95], n // 3)  # exactly when something changed
    return pd.DataFrame(
        {"eye_id": rng.choice(names, n), "as_of": START + pd.to_timedelta(hours, unit="h")},
        index=rng.permutation(n) + 100,
    )
