"""How many numbers of invented printouts are read, how many are left to a person, and whether one is wrong unnoticed.

By hand: .venv/bin/python benchmarks/ocr_pages.py [PAGES] [--first SEED] [--jobs N]

Each page is drawn with a truth of its own, damaged, and read like any file. A *silent error* is a number that was
accepted and is wrong, or that does not stand on the page: a wrong field or the other eye counts. What was not accepted
counts as abstained, whether the reader noticed it or not. Two sorts of pages are told apart from the readable ones,
because nothing may be accepted from them: faxes, and pictures whose labels are Korean only, which the shipped networks
cannot read. Exit code 1 when there is a silent error or when something was accepted from a fax.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import printouts  # noqa: E402


def upper_bound(errors: int, trials: int, level: float = 0.95) -> float:
    """One-sided upper bound of a share (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    return float(beta.ppf(level, errors + 1, trials - errors)) if trials > errors else 1.0


def group_of(printout) -> str:
    """The row of the table to which a page belongs."""
    korean = printout.language == 1 and printout.damage not in ("pdf text", "fax")
    return "Korean labels only" if korean else printout.damage


def marks_of(values, truth) -> Counter:
    """Per check: refused, and how many of those would have been wrong."""
    counted = Counter()
    for v in values:
        if not v.why:
            continue
        try:
            read = float((v.cell or v.raw).replace(",", "."))
        except ValueError:
            read = None
        right = read is not None and abs(truth.get((v.eye, v.field), float("nan")) - read) < 1e-9
        counted[v.code, "right" if right else "wrong"] += 1
    return counted


def read_one(seed: int) -> dict:
    """One page, drawn, damaged, read and marked."""
    from lensnb.ocr import page_facts, read_values
    from lensnb.scans import read_page
    from lensnb.schema import FIELDS

    printout = printouts.make(seed)
    truth = printouts.page_truth(printout, FIELDS)
    with tempfile.TemporaryDirectory() as folder:
        path = printout.write(folder)
        wall, cpu = time.perf_counter(), time.process_time()
        page = read_page(path)
        values, why = read_values(page)
        facts = page_facts(page)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    accepted = {(v.eye, v.field): float(v.cell) for v in values if not v.why}
    silent = [
        (key, value, truth.get(key))
        for key, value in accepted.items()
        if key not in truth or abs(truth[key] - value) > 1e-9
    ]
    expected = dict(patient=printout.patient, birth=printout.identity[2], exam=printout.exam_date)
    return dict(
        seed=seed,
        name=printout.name,
        group=group_of(printout),
        fields=len(truth),
        accepted=len(accepted) - len(silent),
        silent=silent,
        refused=bool(why),
        seconds=wall,
        cpu=cpu,
        checks=marks_of(values, truth),
        facts=sum(bool(v) for v in facts.values()),
        wrong_facts=[(k, v, expected[k]) for k, v in facts.items() if v and v != expected[k]],
    )


def results(seeds, jobs: int):
    """What `read_one` says of each seed, with a progress bar on standard error."""
    from tqdm import tqdm

    bar = dict(total=len(seeds), unit="page", file=sys.stderr, smoothing=0.05)
    if jobs <= 1:
        yield from tqdm(map(read_one, seeds), **bar)
        return
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(jobs) as pool:
        yield from tqdm(pool.map(read_one, seeds, chunksize=4), **bar)


def summary(pages: list[dict]) -> pd.DataFrame:
    """The table by damage, and a last row over all readable pages."""
    groups = defaultdict(list)
    for page in pages:
        groups[page["group"]].append(page)
        if page["group"] in printouts.READABLE:
            groups["all readable"].append(page)
    rows = {}
    for name in (*printouts.READABLE, "all readable", "Korean labels only", "fax"):
        mine = groups.get(name, [])
        if not mine:
            continue
        fields, silent = sum(p["fields"] for p in mine), sum(len(p["silent"]) for p in mine)
        accepted = sum(p["accepted"] for p in mine)
        rows[name] = dict(
            pages=len(mine),
            fields=fields,
            accepted=accepted,
            abstained_pct=round(100 * (fields - accepted - silent) / max(1, fields), 2),
            silent=silent,
            bound_pct=round(100 * upper_bound(silent, accepted + silent), 3) if accepted + silent else float("nan"),
            cpu_s_page=round(sum(p["cpu"] for p in mine) / len(mine), 2),
            wall_s_page=round(sum(p["seconds"] for p in mine) / len(mine), 2),
        )
    return pd.DataFrame(rows).T


def check_table(pages: list[dict]) -> pd.DataFrame:
    """What each check refused on readable pages: how much of it was wrong (caught) and right (the price)."""
    counted = Counter()
    for page in pages:
        if page["group"] in printouts.READABLE:
            counted.update(page["checks"])
    codes = sorted({code for code, _ in counted})
    rows = {c: dict(refused_wrong=counted[c, "wrong"], refused_right=counted[c, "right"]) for c in codes}
    return pd.DataFrame(rows).T if rows else pd.DataFrame(columns=["refused_wrong", "refused_right"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="?", type=int, default=1200)
    parser.add_argument("--first", type=int, default=10_000, help="first seed; development used seeds below 1,000")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    pages = list(results(range(options.first, options.first + options.pages), options.jobs))
    table = summary(pages)
    with pd.option_context("display.width", 160):
        whole = ["pages", "fields", "accepted", "silent"]
        print(table.astype({c: int for c in whole if c in table}).to_string(na_rep="-"))
        print(f"\nWhat each check refused on readable pages\n{check_table(pages).to_string()}")
    wrong = [(p["name"], *f) for p in pages for f in p["wrong_facts"]]
    print(f"\nPatient numbers and dates: {sum(p['facts'] for p in pages)} taken, {len(wrong)} wrong {wrong or ''}")
    silent = [(p["name"], *e) for p in pages for e in p["silent"]]
    for error in silent:
        print(f"SILENT ERROR {error}")
    from_fax = sum(p["accepted"] for p in pages if p["group"] in ("fax", "Korean labels only"))
    print(f"Accepted from faxes and from labels that cannot be read: {from_fax}")
    return int(bool(silent or wrong or from_fax))


if __name__ == "__main__":
    sys.exit(main())
