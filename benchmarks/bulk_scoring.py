"""Millions of eyes at four sizes, parquet to parquet: seconds, processor seconds, peak memory, and against predictions.

By hand: .venv/bin/python benchmarks/bulk_scoring.py [MILLIONS ...] [--workers N] [--compare N] [--keep FOLDER]

Invented eyes (seven measurements, a name, one row in a thousand with a gap) are written to parquet files of 1, 3
and 10 million rows, or as many as are asked for. Each file is scored by `score_parquet` in a process of its own, which
tells its wall clock, its processor time and its peak memory (getrusage); the wall clock of a machine that others use is
longer than it would be alone, so the load is printed beside it. Then, on fewer eyes and in one thread, the same scores
by `SizingGAM.predict` and by bare pygam, one call a size: features, prediction and nothing else, without any file.
Two models: the eight terms that `spec_for` chooses, and the same with compression as a curve and a surface over it.
Exit code 1 when 10 million eyes take more than 20 s or 1.5 GB, or a score is off by more than 0.005 um.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import pandas as pd

SECONDS, PEAK_GB, OFF_UM = 20.0, 1.5, 0.005
CURVES = dict(  # column -> mean, SD, decimals
    ata_mm=(11.85, 0.4, 2),
    sts_h_mm=(12.1, 0.4, 2),
    clr_um=(150, 180, 0),
    lt_mm=(3.75, 0.3, 2),
    acd_mm=(3.2, 0.25, 2),
    aca_deg=(38, 6, 1),
    age_y=(31, 6, 0),
)
LIMITS = dict(
    ata_mm=(9.5, 14.5),
    sts_h_mm=(9.5, 14.5),
    clr_um=(-1000, 1000),
    lt_mm=(2.5, 5.5),
    acd_mm=(2.3, 4.5),
    aca_deg=(15, 80),
    age_y=(17, 70),
)


def invented(n: int, rng) -> pd.DataFrame:
    """Measurements of `n` invented eyes, on the grids on which devices print them."""
    return pd.DataFrame(
        {name: np.clip(rng.normal(mean, sd, n).round(d), *LIMITS[name]) for name, (mean, sd, d) in CURVES.items()}
    )


def write_source(path: Path, n: int, rows: int = 1_000_000) -> None:
    """A parquet file of `n` eyes as a data engineer would leave it: snappy, row groups of a million."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for start in range(0, n, rows):
        rng = np.random.default_rng((2026, start))
        eyes = invented(min(rows, n - start), rng)
        eyes.loc[rng.random(len(eyes)) < 0.001, "lt_mm"] = np.nan
        eyes.insert(0, "eye_id", [f"eye-{i:09d}" for i in range(start, start + len(eyes))])
        table = pa.Table.from_pandas(eyes, preserve_index=False)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()


def models():
    """Name -> fitted SizingGAM, on 3,000 invented operations."""
    from lensnb.store import serve
    from lensnb.vault import SizingGAM, spec_for

    rng = np.random.default_rng(7)
    eyes = invented(3000, rng).assign(size_mm=rng.choice([12.1, 12.6, 13.2, 13.7], 3000))
    plain = spec_for(eyes.columns)
    surface = {n: e for n, e in plain.items() if n not in ("age_y", "sts_h_mm")}
    surface |= {"compression_mm": {"monotone": 1}, "sulcus_compression_mm:age_y": {}}
    fitted = {}
    for name, spec in (("eight terms", plain), ("with a surface", surface)):
        columns = list(dict.fromkeys(c for n in spec for c in n.split(":")))
        X = serve(eyes, columns)
        y = 500 + 400 * (eyes["size_mm"] - 13) - 250 * np.tanh(eyes["ata_mm"] - 11.8) - 0.8 * eyes["clr_um"]
        fitted[name] = SizingGAM(spec).fit(X, y + rng.normal(0, 120, 3000))
    return fitted


def one_run(model: str, source: str, target: str, workers: int) -> dict:
    """One run in this process; what it took. Called in a process of its own."""
    from lensnb.bulk import score_parquet

    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    report = score_parquet(
        json.loads(Path(model).read_text(encoding="utf-8")), source, target, progress=False, workers=workers
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return dict(rows=report["rows"], refused=report["refused"], wall_s=wall, cpu_s=cpu, peak_gb=after.ru_maxrss / 2**20)


def in_a_process(*words) -> dict:
    """`one_run` in a fresh process."""
    done = subprocess.run([sys.executable, __file__, "--one", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def off_in_file(gam, source: Path, target: Path, n: int = 20_000) -> float:
    """Largest difference (um) between the numbers of the written file and `SizingGAM.predict`, in its last rows."""
    import pyarrow.parquet as pq
    from lensnb.schema import SIZES_MM
    from lensnb.store import serve

    read, written = pq.ParquetFile(source), pq.ParquetFile(target)
    eyes = read.read_row_group(read.num_row_groups - 1).to_pandas().tail(n).reset_index(drop=True)
    last = written.metadata.num_row_groups
    scored = written.read_row_groups(range(max(last - 2, 0), last)).to_pandas().tail(len(eyes)).reset_index(drop=True)
    assert (scored["eye_id"] == eyes["eye_id"]).all(), "rows out of order"
    kept = scored["refused"].isna()
    assert (kept == eyes["lt_mm"].notna()).all(), "a row with a gap was scored, or one without was refused"
    features = list(dict.fromkeys(c for name in gam.spec_ for c in name.split(":")))
    columns = {size: scored[f"vault_um_{size}".replace(".", "_")][kept] for size in SIZES_MM}
    return max(np.abs(v - gam.predict(serve(eyes[kept], features, size_mm=size))).max() for size, v in columns.items())


def against(gam, n: int) -> pd.DataFrame:
    """Microseconds an eye (four sizes) in one thread: by tables, by SizingGAM.predict, by bare pygam."""
    from lensnb.bulk import score, term_tables
    from lensnb.schema import SIZES_MM
    from lensnb.store import serve
    from pygam import LinearGAM, s

    eyes = invented(n, np.random.default_rng(1))
    tables, names = term_tables(gam), list(gam.spec_)
    features = list(dict.fromkeys(c for name in names for c in name.split(":")))
    train = serve(invented(2000, np.random.default_rng(2)).assign(size_mm=13.2), features)
    train["size_mm"] = np.random.default_rng(3).choice(SIZES_MM, 2000)
    terms = s(0)
    for j in range(1, len(features)):
        terms += s(j)
    bare = LinearGAM(terms).fit(train.to_numpy(), np.random.default_rng(4).normal(500, 200, 2000))

    def by_gam():
        return np.column_stack([gam.predict(serve(eyes, features, size_mm=size)) for size in SIZES_MM])

    def by_pygam():
        return np.column_stack([bare.predict(serve(eyes, features, size_mm=size).to_numpy()) for size in SIZES_MM])

    found = {}
    ways = {"tables (`score`)": lambda: score(tables, eyes), "SizingGAM.predict": by_gam, "pygam predict": by_pygam}
    for way, work in ways.items():
        times = []
        for _ in range(3):
            start = time.process_time()
            answer = work()
            times.append(time.process_time() - start)
            found.setdefault(way, {})["off_um"] = np.nan
        found[way]["us_per_eye"] = min(times) / n * 1e6
        if way == "tables (`score`)":
            ours = answer
        elif way == "SizingGAM.predict":
            found["tables (`score`)"]["off_um"] = np.abs(ours - answer).max()
    table = pd.DataFrame(found).T[["us_per_eye", "off_um"]]
    return table.assign(times_slower=table["us_per_eye"] / table["us_per_eye"].iloc[0])


def main() -> int:
    ask = argparse.ArgumentParser()
    ask.add_argument("millions", nargs="*", type=float, default=[1, 3, 10])
    ask.add_argument("--workers", type=int, default=2)
    ask.add_argument("--compare", type=int, default=100_000, help="eyes for the comparison with predict")
    ask.add_argument("--keep", type=Path, help="folder for the invented files, kept for the next run")
    ask.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = ask.parse_args()
    if given.one:
        print(json.dumps(one_run(*given.one[:3], int(given.one[3]))))
        return 0
    fine = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name, gam in models().items():
            model = Path(temporary) / "model.json"
            model.write_text(json.dumps(gam.to_dict()), encoding="utf-8")
            print(f"{name}: {', '.join(gam.spec_)}")
            for m in given.millions:
                source, target = folder / f"eyes_{m:g}m.parquet", Path(temporary) / "scored.parquet"
                if not source.is_file():
                    write_source(source, int(m * 1e6))
                load = os.getloadavg()[0]
                r = in_a_process(model, source, target, given.workers)
                print(
                    f"  {r['rows']:>10,} eyes x 4: {r['wall_s']:6.2f} s wall, {r['cpu_s']:6.2f} s processor, "
                    f"{r['wall_s'] / m:5.2f} s (processor {r['cpu_s'] / m:5.2f} s) per million, "
                    f"peak {r['peak_gb']:4.2f} GB, {r['refused']:,} refused, "
                    f"{source.stat().st_size / 1e6:,.0f} -> {target.stat().st_size / 1e6:,.0f} MB "
                    f"(load before: {load:.1f} on {os.cpu_count()} cores)",
                    flush=True,
                )
                off = off_in_file(gam, source, target)
                print(f"             the file's last eyes beside SizingGAM.predict: off by {off:.4f} um at most")
                fine &= off <= OFF_UM
                fine &= m != 10 or (r["wall_s"] <= SECONDS and r["peak_gb"] <= PEAK_GB)
            table = against(gam, given.compare)
            print(table.round(5).to_string())
            fine &= bool(table["off_um"].iloc[0] <= OFF_UM)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
