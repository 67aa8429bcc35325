"""Bulk scoring: tables against the model, files against tables, and what may never happen to a row or a file."""

import json
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lensnb import bulk
from lensnb.bulk import TOLERANCE_UM, score, score_parquet, term_tables
from lensnb.features import columns_of
from lensnb.schema import SIZES_MM, InputError
from lensnb.store import serve
from lensnb.vault import SizingGAM, spec_for, term_values

COLUMNS = ["ata_mm", "clr_um", "acd_mm", "age_y"]


def eyes_of(n: int, seed: int = 0) -> pd.DataFrame:
    """Invented eyes within the hard limits, some outside the ranges below."""
    rng = np.random.default_rng(seed)
    values = dict(
        ata_mm=rng.normal(11.8, 0.5, n).clip(9.5, 14.5).round(2),
        clr_um=rng.normal(150, 200, n).clip(-1000, 1000).round(),
        acd_mm=rng.normal(3.2, 0.3, n).clip(2.3, 4.5).round(2),
        age_y=rng.integers(17, 71, n).astype(float),
    )
    return pd.DataFrame(values).assign(eye_id=[f"e{i}" for i in range(n)])


def spline(low, high, coefs, below=0.0, above=0.0) -> dict:
    return dict(
        kind="spline",
        low=low,
        high=high,
        typical=(low + high) / 2,
        coefs=list(coefs),
        slope_below=below,
        slope_above=above,
    )


def linear(low, high, slope, centre) -> dict:
    return dict(kind="linear", low=low, high=high, typical=centre, slope=slope, centre=centre)


def plain(**terms) -> dict:
    """A model as plain data; `a__b` is the surface `a:b`."""
    return dict(intercept=512.5, terms={n.replace("__", ":"): t for n, t in terms.items()})


def small(seed: int = 0) -> dict:
    """A model of four columns and the size."""
    rng = np.random.default_rng(seed)
    return plain(
        size_mm=linear(12.1, 13.7, 400.0, 13.0),
        ata_mm=spline(10.8, 13.1, np.cumsum(rng.uniform(-80, 0, 10)), -150.0, -90.0),
        clr_um=spline(-300, 700, np.cumsum(rng.uniform(-60, 0, 12)), -0.3, -0.1),
        acd_mm=spline(2.7, 4.1, rng.normal(0, 20, 7), 10.0, 0.0),
        age_y=linear(21, 45, -2.0, 31.0),
    )


def moving(seed: int = 0) -> dict:
    """A model whose terms change with the size: compression as a curve, and a surface over it."""
    rng = np.random.default_rng(seed)
    surface = dict(
        kind="surface",
        features=["compression_mm", "age_y"],
        low=[-0.5, 21.0],
        high=[2.5, 45.0],
        typical=[1.0, 30.0],
        coefs=rng.normal(0, 40, (5, 6)).tolist(),
    )
    return plain(
        size_mm=linear(12.1, 13.7, 100.0, 13.0),
        compression_mm=spline(-0.5, 2.5, np.cumsum(rng.uniform(0, 90, 9)), 200.0, 150.0),
        clr_um=spline(-300, 700, rng.normal(0, 30, 8)),
        compression_mm__age_y=surface,
    )


def expected(model: dict, eyes: pd.DataFrame, sizes=SIZES_MM) -> np.ndarray:
    """Intercept and terms by the model's own `term_values`."""
    answer = []
    for s in sizes:
        total = np.full(len(eyes), model["intercept"])
        for name, t in model["terms"].items():
            X = serve(eyes, name.split(":"), size_mm=s).to_numpy()
            total += term_values(t, X if t["kind"] == "surface" else X[:, 0])
        answer.append(total)
    return np.column_stack(answer)


@pytest.fixture
def files(tmp_path):
    """Writes a frame as parquet, returns its path."""

    def write(eyes, name="eyes.parquet", **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(eyes, pd.DataFrame):
            eyes = pa.Table.from_pandas(eyes, preserve_index=False)
        pq.write_table(eyes, path, **options)
        return path

    return write


@pytest.fixture
def run(tmp_path):
    """Scores a path; returns the report and the table that was written."""

    def scored(source, model=None, name="scored.parquet", **options):
        report = score_parquet(model or small(), source, tmp_path / name, progress=False, **options)
        assert report["scored"] + report["refused"] == report["rows"] == pq.read_metadata(tmp_path / name).num_rows
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
        return report, pd.read_parquet(tmp_path / name)

    return scored


# Tables against the model


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-2000, 2000), min_size=4, max_size=25),
    st.floats(-500, 500),
    st.floats(0.01, 2000),
    st.floats(-1000, 1000),
    st.floats(-1000, 1000),
    st.integers(0, 2**32 - 1),
)
def test_a_table_is_within_its_bound_of_any_curve(coefs, low, width, below, above, seed):
    t = spline(low, low + width, coefs, below, above)
    table = bulk.curve_table("ata_mm", t, 0.002)
    x = np.random.default_rng(seed).uniform(low - width, low + 2 * width, 3000)
    x[:4] = low, low + width, np.nextafter(low, -np.inf), np.nextafter(low + width, np.inf)
    off = np.abs(bulk.evaluate(table, [x]) - term_values(t, x)).max()
    assert table.error_um <= 0.002 + 1e-12
    assert off <= table.error_um + 1e-8


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 8), st.integers(4, 8), st.floats(0, 60))
def test_a_grid_is_within_its_bound_of_any_surface(seed, ka, kb, tall):
    rng = np.random.default_rng(seed)
    t = dict(kind="surface", features=["ata_mm", "age_y"], low=[10.0, 20.0], high=[13.0, 50.0], typical=[11.0, 30.0])
    t["coefs"] = rng.normal(0, tall, (ka, kb)).tolist()
    table = bulk.surface_table("ata_mm:age_y", t, 0.004)
    x = rng.uniform([8, 10], [15, 60], (3000, 2))
    x[:4] = [10, 20], [13, 50], [10, 50], [13, 20]
    assert np.abs(bulk.evaluate(table, list(x.T)) - term_values(t, x)).max() <= table.error_um + 1e-8 <= 0.004 + 2e-8


def test_the_bound_is_not_idle():
    """With half the steps that the bound asks for, a curve can miss by more than was allowed."""
    t = spline(0.0, 1.0, [0, 0, 1, 3, 6, 10])  # one sign of curvature: the remainder is attained
    fine, coarse = bulk.curve_table("ata_mm", t, 0.001), bulk.curve_table("ata_mm", t, 0.004)
    assert bulk.measured_error(fine) <= 0.001 < bulk.measured_error(coarse) <= 0.004


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_scores_are_the_models_in_and_outside_the_range(seed):
    for model in (small(seed), moving(seed)):
        eyes, tables = eyes_of(400, seed), term_tables(model)
        assert tables.error_um <= 0.8 * TOLERANCE_UM
        assert np.abs(score(tables, eyes) - expected(model, eyes)).max() <= tables.error_um + 1e-8


def test_straight_terms_and_continuations_are_exact():
    model = small()
    eyes = eyes_of(300).assign(ata_mm=14.2, clr_um=-900.0, acd_mm=2.4)  # all outside
    assert np.abs(score(term_tables(model), eyes) - expected(model, eyes)).max() < 1e-9


def test_a_term_too_long_for_a_table_is_evaluated_exactly(monkeypatch):
    monkeypatch.setattr(bulk, "LONGEST", 100)
    for model in (small(), moving()):
        tables, eyes = term_tables(model), eyes_of(200)
        assert "exact" in [t.kind for t in tables.terms] and tables.error_um == 0
        assert np.abs(score(tables, eyes) - expected(model, eyes)).max() < 1e-9


def test_a_wrong_table_is_noticed(monkeypatch):
    monkeypatch.setattr(bulk, "steps_for", lambda bend, tolerance: 1)
    with pytest.raises(InputError, match="misses its curve"):
        term_tables(small())


def test_missing_values_stay_missing_and_nothing_else_moves():
    eyes = eyes_of(50)
    for model in (small(), moving()):
        tables = term_tables(model)
        full = score(tables, eyes)
        for name in tables.columns:
            holed = score(tables, eyes.assign(**{name: eyes[name].where(eyes.index != 7)}))
            assert np.isnan(holed[7]).all() and np.array_equal(np.delete(holed, 7, 0), np.delete(full, 7, 0))


def test_a_fitted_model_in_every_form(tmp_path):
    rng = np.random.default_rng(0)
    eyes = eyes_of(300).assign(size_mm=rng.choice(SIZES_MM, 300))
    spec = spec_for(["size_mm", *COLUMNS])
    X = serve(eyes, spec)
    gam = SizingGAM(spec).fit(X, 500 + 300 * (X["size_mm"] - 13) - 200 * (X["ata_mm"] - 11.8) + rng.normal(0, 80, 300))
    forms = [gam, gam.to_dict(), gam.model_, json.loads(json.dumps(gam.to_dict()))]
    assert len({term_tables(f).sha256 for f in forms}) == 1
    model = np.column_stack([gam.predict(serve(eyes, spec, size_mm=s)) for s in SIZES_MM])
    for f in forms:
        assert np.abs(score(term_tables(f), eyes) - model).max() <= TOLERANCE_UM
    other = json.loads(json.dumps(gam.to_dict()))
    other["intercept"] += 1e-9
    assert term_tables(other).sha256 != term_tables(gam).sha256
    for wrong in (SizingGAM(), {}, 3, tmp_path / "none.json"):
        with pytest.raises(InputError):
            term_tables(wrong)


def test_a_sizing_model_and_its_file(tmp_path, files, run):
    import lensnb
    from lensnb.sizing import SizingModel

    eyes = lensnb.synthetic_clinics().of("alder").eyes
    model = SizingModel(n_splits=2, sizes=(12.6, 13.2)).fit(eyes)
    path = model.save(tmp_path / "model.json")
    many = eyes.dropna(subset=model.parts.columns).assign(eye_id=lambda t: [f"e{i}" for i in range(len(t))])
    source = files(many[["eye_id", *model.parts.columns]])
    report, table = run(source, path)
    assert report["sizes_mm"] == [12.6, 13.2] and report["model_sha256"] == term_tables(model).sha256
    facts = json.loads(pq.read_schema(tmp_path / "scored.parquet").metadata[b"lensnb"])
    assert len(facts["model_file_sha256"]) == 64 and term_tables(model).file_sha256 == ""
    answer = model.predict_sizes(many.drop(columns=["vault_um"])).set_index(["eye_id", "size_mm"])["vault_um"]
    kept = table[table["refused"].isna()].set_index("eye_id")
    assert len(kept) > 500
    for s, name in ((12.6, "vault_um_12_6"), (13.2, "vault_um_13_2")):
        assert np.abs(answer.xs(s, level="size_mm").loc[kept.index] - kept[name]).max() <= TOLERANCE_UM


# Files: every row, in order, with a number or a reason


@pytest.mark.parametrize("model", [small(), moving()], ids=["still", "moving"])
def test_a_file_holds_the_models_numbers_in_order(files, run, model):
    eyes = eyes_of(1000)
    report, table = run(files(eyes, row_group_size=97), model)
    assert report["scored"] == 1000 and (table["eye_id"] == eyes["eye_id"]).all()
    vaults = table[[f"vault_um_{str(s).replace('.', '_')}" for s in SIZES_MM]]
    assert (vaults.dtypes == "float32").all()
    assert np.abs(vaults.to_numpy(float) - expected(model, eyes)).max() <= TOLERANCE_UM


def test_the_flags_of_ranges(files, run):
    eyes = eyes_of(5).assign(ata_mm=[10.8, 13.1, 10.79, 13.11, 12.0], clr_um=0.0, acd_mm=3.0, age_y=30.0)
    report, table = run(files(eyes))
    assert table["outside_range"].tolist() == [False, False, True, True, False] and report["outside_range"] == 2
    assert not [c for c in table if c.startswith("outside_range_")]
    eyes = eyes.assign(ata_mm=[9.6, 11.0, 12.0, 12.65, 13.2])  # compression -0.5 to 2.5
    report, table = run(files(eyes), moving())
    found = table[[c for c in table if c.startswith("outside_range_")]].to_numpy(bool)
    compression = np.array(SIZES_MM)[None, :] - eyes[["ata_mm"]].to_numpy()
    assert np.array_equal(found, (compression < -0.5) | (compression > 2.5)) and found.any() and not found.all()


def test_refused_rows_keep_their_place_and_their_reason(files, run):
    eyes = eyes_of(12).assign(history=None)
    eyes.loc[1, "ata_mm"] = np.nan
    eyes.loc[2, "ata_mm"] = 11800.0
    eyes.loc[3, "acd_mm"] = np.inf
    eyes.loc[4, "clr_um"] = -np.inf
    eyes.loc[5, "eye_id"] = None
    eyes.loc[6, ["ata_mm", "age_y"]] = [np.nan, 5]
    eyes.loc[7, "age_y"] = 71.0
    eyes.loc[8, "history"] = "ectasia"
    eyes.loc[9, "history"] = "none"
    report, table = run(files(eyes))
    told = {
        1: "ata_mm:missing",
        2: "ata_mm:impossible",
        3: "acd_mm:impossible",
        4: "clr_um:impossible",
        5: "eye_id:missing",
        6: "ata_mm:missing",
        7: "age_y:impossible",
        8: "history:outside use",
    }
    assert {i: r for i, r in table["refused"].dropna().items()} == told
    assert sum(report["reasons"].values()) == report["refused"] == 8
    columns = [c for c in table if c not in ("eye_id", "refused")]
    assert table.loc[list(told), columns].isna().all().all()
    assert table.drop(index=list(told))[columns].notna().all().all()
    assert table["eye_id"].drop(5).tolist() == eyes["eye_id"].drop(5).tolist()


@pytest.mark.parametrize(
    "column, reasons",
    [
        (pa.array(["31", None, "n/a"]), ["not a number", "missing", "not a number"]),
        (pa.array([True, None, False]), ["not a number", "missing", "not a number"]),
        (pa.array([None, None, None]), ["missing"] * 3),
        (pa.array([1, 2, None], pa.timestamp("us")), ["not a number", "not a number", "missing"]),
        (pa.array(["31", "x", None]).dictionary_encode(), ["not a number", "not a number", "missing"]),
        (pa.array([[31.0], None, []]), ["not a number", "missing", "not a number"]),
    ],
    ids=["words", "yes/no", "nothing", "dates", "categories", "lists"],
)
def test_columns_that_are_no_numbers_are_refused_row_by_row(files, run, column, reasons):
    table = pa.Table.from_pandas(eyes_of(3)).drop_columns(["age_y"]).append_column("age_y", column)
    report, scored = run(files(table))
    assert report["scored"] == 0 and scored["refused"].tolist() == [f"age_y:{r}" for r in reasons]


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint16(), pa.float32(), pa.decimal128(6, 2)], ids=str)
def test_numbers_of_every_type_are_read(files, run, kind):
    table = pa.Table.from_pandas(eyes_of(4).assign(age_y=[21.0, 30.0, 45.0, 46.0]), preserve_index=False)
    ages = pa.array([21.0, 30.0, None, 46.0]).cast(kind)
    table = table.set_column(table.schema.get_field_index("age_y"), "age_y", ages)
    report, scored = run(files(table))
    assert report["reasons"] == {"age_y:missing": 1}
    good = [0, 1, 3]
    truth = expected(small(), table.to_pandas().astype({"age_y": float}).iloc[good])
    assert np.abs(scored["vault_um_12_1"].to_numpy(float)[good] - truth[:, 0]).max() <= TOLERANCE_UM


def test_a_limit_means_the_same_in_32_bits(files, run):
    """2.3 mm is allowed and 10.8 mm is inside the range, also when a file has rounded them to 32 bits."""
    at_limits = eyes_of(3).assign(acd_mm=[2.3, 4.5, 3.0], ata_mm=[10.8, 13.1, 14.5], clr_um=0.0, age_y=30.0)
    assert float(np.float32(2.3)) < 2.3 and float(np.float32(13.1)) > 13.1
    double, single = run(files(at_limits)), run(files(at_limits.astype({"acd_mm": "float32", "ata_mm": "float32"})))
    assert double[0]["refused"] == single[0]["refused"] == 0
    ranges = [t["outside_range"].tolist() for _, t in (double, single)]
    assert ranges[0] == ranges[1] == [True, True, True]  # acd of 2.3 and 4.5, ata of 14.5
    edge = eyes_of(2).assign(ata_mm=np.float32([10.8, 13.1]), acd_mm=3.0, clr_um=0.0, age_y=30.0)
    assert edge["ata_mm"].dtype == "float32" and run(files(edge))[1]["outside_range"].tolist() == [False, False]
    beyond = eyes_of(2).assign(ata_mm=np.float32([10.79, 13.11]), acd_mm=3.0, clr_um=0.0, age_y=30.0)
    assert run(files(beyond))[1]["outside_range"].tolist() == [True, True]


def test_sums_that_are_not_finite_are_refused(files, run):
    model = small()
    model["terms"]["ata_mm"]["slope_above"] = 1e39  # a number, but none of 32 bits
    report, table = run(files(eyes_of(3).assign(ata_mm=[12.0, 14.5, 12.0])), model)
    assert table["refused"].tolist()[1] == "vault:not finite" and report["refused"] == 1


@pytest.mark.parametrize("columns", [COLUMNS, ["extra", *COLUMNS]])
def test_empty_and_extra(files, run, columns):
    eyes = eyes_of(20).assign(extra="x", vault_um=500.0, size_mm=13.2)
    plain_run = run(files(eyes[["eye_id", *COLUMNS]]))[1]
    assert run(files(eyes[["eye_id", *columns, "vault_um", "size_mm"]]))[1].equals(plain_run)
    report, table = run(files(eyes[["eye_id", *columns]].head(0)))
    assert report["rows"] == 0 and list(table) == list(plain_run)


def test_all_refused(files, run):
    report, table = run(files(eyes_of(30).assign(ata_mm=np.nan)))
    assert report["reasons"] == {"ata_mm:missing": 30} and table["vault_um_13_2"].isna().all()


def test_duplicates(files, run):
    table = pa.Table.from_pandas(eyes_of(3), preserve_index=False)
    twice = table.append_column("ata_mm", table["ata_mm"])
    with pytest.raises(InputError, match="`ata_mm` 2 times"):
        run(files(twice))
    ignored = table.append_column("note", table["eye_id"]).append_column("note", table["eye_id"])
    assert run(files(ignored))[0]["scored"] == 3  # not a column that is read
    two = pd.concat([eyes_of(3), eyes_of(3)])
    assert run(files(two))[1]["eye_id"].tolist() == ["e0", "e1", "e2"] * 2  # rows are never merged


@pytest.mark.parametrize("name", ["eye_id", *COLUMNS])
def test_a_missing_column_is_named(files, run, name):
    with pytest.raises(InputError, match=f"no column `{name}`") as e:
        run(files(eyes_of(3).drop(columns=name)))
    assert e.value.field == name
    with pytest.raises(InputError, match=f"`{name.upper()}` may be meant"):
        run(files(eyes_of(3).rename(columns={name: name.upper()})))


@pytest.mark.parametrize("sizes", [[], [13], ["large"], None, 13.2, [float("nan")]], ids=str)
def test_sizes_are_checked(sizes):
    with pytest.raises(InputError, match="sizes"):
        bulk.check_sizes(sizes)
    assert bulk.check_sizes([13.2, "12.1", 13.2]) == (12.1, 13.2)


@pytest.mark.parametrize("workers", [0, -1, True, 1.5, "2", 1000])
def test_workers_are_checked(files, run, workers):
    with pytest.raises(InputError, match="workers"):
        run(files(eyes_of(3)), workers=workers)


# Order, bytes, failure


def test_the_bytes_do_not_depend_on_workers_or_on_the_layout(files, run, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk, "CHUNK", 64)
    monkeypatch.setattr(bulk.recut, "__defaults__", (64,))
    eyes = eyes_of(1000).assign(acd_mm=lambda t: t["acd_mm"].where(t.index % 13 != 0))
    source, found = files(eyes, row_group_size=50), []
    for workers in (1, 2, 5):
        run(source, moving(), workers=workers)
        found.append((tmp_path / "scored.parquet").read_bytes())
    for k, start in enumerate(range(0, 1000, 250)):
        files(eyes.iloc[start : start + 250], f"parts/year={k}/p.parquet", compression="zstd")
    report, table = run(tmp_path / "parts", moving())
    found.append((tmp_path / "scored.parquet").read_bytes())
    assert len(set(found)) == 1 and report["files"] == 4
    assert pq.read_metadata(tmp_path / "scored.parquet").num_row_groups == -(-1000 // 64)


def test_slow_chunks_do_not_change_the_order():
    import time

    def work(k):
        time.sleep(0.004 * (k % 3 == 0))
        return k

    assert list(bulk.in_order(iter(range(40)), work, 4)) == list(range(40))


def test_few_chunks_are_held():
    read, done = [], []

    def chunks():
        for k in range(50):
            read.append(k)
            yield k

    for k in bulk.in_order(chunks(), lambda k: k, 2):
        done.append(k)
        assert len(read) - len(done) <= 3


def test_files_of_different_types_are_one_table(files, run, tmp_path):
    files(eyes_of(40), "mixed/a.parquet")
    files(eyes_of(40).astype({"ata_mm": "float32", "age_y": "int16"}), "mixed/b.parquet")
    large = pa.Table.from_pandas(eyes_of(40), preserve_index=False)
    large = large.set_column(large.schema.get_field_index("eye_id"), "eye_id", large["eye_id"].cast(pa.string()))
    files(large, "mixed/c.parquet")
    files(eyes_of(40), "mixed/.hidden/x.parquet")
    report, table = run(tmp_path / "mixed")
    assert report["files"] == 3 and table["eye_id"].tolist() == eyes_of(40)["eye_id"].tolist() * 3
    assert table["vault_um_12_1"][:40].sub(table["vault_um_12_1"][40:80].to_numpy()).abs().max() < 0.001
    files(eyes_of(3).assign(eye_id=[1, 2, 3]), "mixed/d.parquet")
    with pytest.raises(InputError, match="one type in all files"):
        run(tmp_path / "mixed")
    assert run(tmp_path / "mixed" / "d.parquet")[1]["eye_id"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("when", ["scoring", "writing", "replacing", "interrupted"])
def test_a_failed_run_leaves_the_last_good_file(files, run, tmp_path, monkeypatch, when):
    monkeypatch.setattr(bulk.recut, "__defaults__", (50,))
    source, error = files(eyes_of(300)), KeyboardInterrupt if when == "interrupted" else RuntimeError
    run(source)
    before, calls = (tmp_path / "scored.parquet").read_bytes(), []

    def fails(real, after):
        def wrapped(*words, **options):
            calls.append(1)
            if len(calls) > after:
                raise error("injected")
            return real(*words, **options)

        return wrapped

    place, name, after = {
        "writing": (pq.ParquetWriter, "write_table", 3),
        "replacing": (os, "replace", 0),
    }.get(when, (bulk, "score_chunk", 3))
    monkeypatch.setattr(place, name, fails(getattr(place, name), after))
    with pytest.raises(error, match="injected"):
        run(source, small(1))
    assert len(calls) > after
    assert (tmp_path / "scored.parquet").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["eyes.parquet", "scored.parquet"]


def test_rows_that_appear_while_reading_fail_the_run(files, run, tmp_path, monkeypatch):
    source, real = files(eyes_of(30)), bulk.batches_of
    monkeypatch.setattr(bulk, "batches_of", lambda *words: list(real(*words)) * 2)
    with pytest.raises(InputError, match="lost or added"):
        run(source)
    assert not (tmp_path / "scored.parquet").exists()


def test_a_target_that_is_read_is_refused(files, run, tmp_path):
    source = files(eyes_of(3), "in/eyes.parquet")
    for given_source, target in (
        (source, source),
        (source.parent, source.parent / "scored.parquet"),
        (source.parent, source.parent / "deep" / "scored.parquet"),
        (source, source.parent),
    ):
        with pytest.raises(InputError):
            score_parquet(small(), given_source, target, progress=False)
    assert [p.name for p in source.parent.iterdir()] == ["eyes.parquet"]
    (tmp_path / "empty").mkdir()
    for missing in (tmp_path / "none.parquet", tmp_path / "empty"):
        with pytest.raises(InputError, match="no parquet file"):
            run(missing)
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(InputError, match="is no parquet file"):
        run(tmp_path / "text.parquet")


def test_the_file_says_what_it_is(files, run, tmp_path):
    run(files(eyes_of(3)), sizes=[12.6, 13.2])
    schema = pq.read_schema(tmp_path / "scored.parquet")
    facts = json.loads(schema.metadata[b"lensnb"])
    assert facts["notice"] == bulk.NOTICE and "predict_sizes" in bulk.NOTICE and facts["sizes_mm"] == [12.6, 13.2]
    assert facts["model_sha256"] == term_tables(small()).sha256 and facts["units"] == {"vault": "um", "size": "mm"}
    assert facts["package"].startswith("lensnb ") and schema.field("vault_um_12_6").metadata[b"unit"] == b"um"
    assert [c for c in schema.names if c.startswith("vault")] == ["vault_um_12_6", "vault_um_13_2"]


def test_the_report_in_words(files, run):
    model = small()
    model["terms"]["size_mm"]["low"] = 12.6
    report, _ = run(files(eyes_of(1500).assign(acd_mm=lambda t: t["acd_mm"].where(t.index > 0))), model)
    words = bulk.in_words(report)
    for part in ("1,500 eyes: 1,499 scored", "acd_mm:missing 1.", "as extreme as 12.1 mm", bulk.NOTICE):
        assert part in words
    assert json.loads(json.dumps(report)) == report


def test_only_needed_columns_are_asked_for():
    assert term_tables(moving()).columns == columns_of(["ata_mm", "clr_um", "age_y"])
