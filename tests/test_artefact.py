"""A model file: whole or not at all, the same bytes for the same model, no digit changed unseen, readable by others."""

import ast
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lensnb
from lensnb import artefact
from lensnb.artefact import (
    as_sum,
    check_golden,
    fold_up,
    layout,
    parse_strict,
    read_sealed,
    runs,
    seal,
    spelling,
    unfold,
    unrun,
    write_sealed,
)
from lensnb.clinics import synthetic_clinics
from lensnb.schema import InputError

ROOT = Path(__file__).parents[1]
SCORER = ROOT / "docs" / "score_without_lensnb.py"

numbers = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
plain = st.recursive(
    st.one_of(st.none(), numbers, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=12,
)


def same(a, b) -> bool:
    """Equal to the bit and to the type: 1 is not 1.0, 0.0 is not -0.0."""
    return spelling(a) == spelling(b)


@settings(max_examples=60, deadline=None)
@given(plain)
def test_layout_and_strict_reading_give_everything_back(content):
    assert same(parse_strict(layout(content)), content)


@settings(max_examples=60, deadline=None)
@given(st.lists(plain, min_size=1, max_size=4))
def test_folding_and_runs_lose_no_bit(values):
    assert same(unfold(json.loads(json.dumps(fold_up(values))), len(values)), values)
    assert same(unrun(json.loads(json.dumps(runs(values)))), values)
    assert same(unrun(runs(values * 9)), values * 9)


def test_ones_of_three_kinds_are_not_mixed_up():
    for values in ([1, 1.0, True], [0.0, -0.0], [{"a": 1}, {"a": 1.0}], [{"a": 1}, {"b": 1}], [{}, {}]):
        assert same(unfold(fold_up(values), len(values)), values) and same(unrun(runs(values * 20)), values * 20)


def test_every_single_digit_counts(tmp_path):
    path = write_sealed({"gam": {"slope": -330.52, "n": 7}, "name": "alder"}, tmp_path / "m.json", "kind", 2)
    text, start = path.read_text(), path.read_text().index('"gam"')
    changed = 0
    for i in range(start, len(text)):
        if text[i] in "0123456789":
            path.write_text(text[:i] + str((int(text[i]) + 1) % 10) + text[i + 1 :])
            with pytest.raises(InputError, match="changed after"):
                read_sealed(path, "kind", 2)
            changed += 1
    assert changed == 6
    path.write_text(text)
    assert read_sealed(path, "kind", 2)["gam"] == {"slope": -330.52, "n": 7}


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "no JSON"),
        ("[1, 2", "no JSON"),
        ("[" * 200_000, "no JSON"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"x": {"a": 1, "b": 2, "a": 1}}', "twice"),
        ('{"a": NaN}', "not finite"),
        ('{"a": -Infinity}', "not finite"),
        ('{"a": 1e400}', "not finite"),
        ('{"a": ' + "9" * 5000 + "}", "no JSON"),
        ('"text"', "no model of this format"),
        ('{"format": "kind"}', "another version"),
        ('{"format": "kind", "version": true}', "another version"),
        ('{"format": "kind", "version": 1}', "fit the model again"),
        ('{"format": "kind", "version": 3, "package": "9.9"}', "newer lensnb"),
        ('{"format": "kind", "version": 2}', "changed after"),
    ],
)
def test_what_is_no_such_model_is_refused_with_its_name(tmp_path, text, said):
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as e:
        read_sealed(path, "kind", 2)
    assert "m.json" in str(e.value)


def test_bytes_that_are_no_text_and_files_that_are_too_large(tmp_path):
    (tmp_path / "m.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(InputError, match="no lensnb model"):
        read_sealed(tmp_path / "m.json", "kind", 2)
    with open(tmp_path / "big.json", "wb") as f:
        f.truncate(artefact.LARGEST + 1)
    with pytest.raises(InputError, match="too large"):
        read_sealed(tmp_path / "big.json", "kind", 2)
    for absent in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(InputError, match="no model"):
            read_sealed(absent, "kind", 2)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = write_sealed({"a": 1}, tmp_path / "m.json", "kind", 2)
    before = path.read_bytes()
    for wrong in ({"a": float("nan")}, {"a": {1, 2}}, {"format": "other"}, {"sha256": "0"}, {"a": np.int64(1)}):
        with pytest.raises(InputError):
            write_sealed(wrong, path, "kind", 2)

    def no_room(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OSError):
        write_sealed({"a": 2}, path, "kind", 2)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["m.json"]


def test_no_pickle_and_no_evaluation():
    tree = ast.parse(Path(artefact.__file__).read_text())
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert not {"eval", "exec", "__import__"} & names and not {"pickle", "marshal", "shelve", "joblib"} & modules


def test_golden_rows_name_row_and_field():
    kept = [{"a": 1.0, "b": None, "c": True}, {"a": 2.0, "b": 3.0, "c": False}]
    check_golden(kept, [dict(r) for r in kept])
    check_golden([{"a": 1e6}], [{"a": 1e6 + 1e-4}])
    for change in ({"a": 2.1}, {"b": None}, {"c": True}, {"a": "2.0"}, {"d": 1}):
        with pytest.raises(InputError, match=f"`{next(iter(change))}`.*golden row 2"):
            check_golden(kept, [kept[0], {**kept[1], **change}])
    with pytest.raises(InputError, match="golden row 2"):
        check_golden(kept, kept[:1])


def test_sums_are_found_and_others_are_not():
    assert as_sum("compression_mm") == {"size_mm": 1.0, "ata_mm": -1.0}
    from lensnb.features import FEATURES, Feature

    try:
        for name, f in {
            "curve": lambda e: e["ata_mm"] ** 2,
            "offset": lambda e: e["ata_mm"] + 1.0,
            "steps": lambda e: np.floor(e["ata_mm"]),
        }.items():
            FEATURES[name] = Feature(name, "mm", ("ata_mm",), 1, f)
            assert as_sum(name) is None, name
    finally:
        for name in ("curve", "offset", "steps"):
            FEATURES.pop(name, None)


# The file of a sizing model, and the program that reads it without this library


@pytest.fixture(scope="module")
def model():
    return lensnb.SizingModel().fit(synthetic_clinics(seed=2026).of("alder").eyes)


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    return model.save(tmp_path_factory.mktemp("model") / "model.json")


def random_eyes(model, n: int, seed: int) -> pd.DataFrame:
    """Invented eyes, a third of each measurement outside the range of the training eyes."""
    rng, columns = np.random.default_rng(seed), {}
    for c in model.parts.columns:
        r = model.parts.ranges[c]
        low, high = r["low"] - r["sd"], r["high"] + r["sd"]
        hard = lensnb.schema.FIELDS[c].hard
        columns[c] = rng.uniform(max(low, hard[0]), min(high, hard[1]), n)
    columns["icl_se_d"] = np.minimum(columns["icl_se_d"], -0.5)  # a hyperopic lens gets no answer
    return pd.DataFrame(columns)


def run_scorer(path: Path, eyes: pd.DataFrame, folder: Path) -> np.ndarray:
    """Vaults by the program in the docs, in a Python that cannot import lensnb (and has nothing but numpy)."""
    table = folder / "eyes.csv"
    with open(table, "w", newline="") as f:
        csv.writer(f).writerows([list(eyes), *eyes.to_numpy().tolist()])
    blocked = "import sys\nfor m in ('lensnb', 'pandas', 'scipy', 'pygam'): sys.modules[m] = None\n"
    code = f"{blocked}import runpy\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(SCORER), str(path), str(table)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout)["vault_um"])


def test_the_program_in_the_docs_scores_the_model_without_us(model, path, tmp_path):
    eyes = random_eyes(model, 60, seed=1)
    ours = model.predict_sizes(eyes)
    assert ours["vault_um"].notna().all() and ours["reason"].str.contains("outside the range").any()
    there = run_scorer(path, eyes, tmp_path)
    assert np.abs(there.ravel() - ours["vault_um"].to_numpy()).max() < 1e-9


def test_the_program_scores_engineered_features_and_surfaces(path, tmp_path):
    rng, k = np.random.default_rng(3), (6, 5)
    surface = dict(kind="surface", features=["age_y", "acd_mm"], low=[20.0, 2.8], high=[50.0, 4.2], typical=[30.0, 3.3])
    content = json.loads(path.read_text())
    content["gam"]["terms"]["age_y:acd_mm"] = surface | {"coefs": rng.normal(0, 80, k).tolist()}
    content["gam"]["terms"]["compression_mm"] = dict(kind="linear", slope=25.0, centre=0.9)
    content["features"] |= artefact.feature_facts(["compression_mm"], {})
    (tmp_path / "model.json").write_text(json.dumps(content))
    eyes = pd.DataFrame({c: np.full(40, content["features"][c]["mean"]) for c in content["features"] if c in eyes_of()})
    eyes = eyes.assign(age_y=rng.uniform(15, 60, 40), acd_mm=rng.uniform(2.6, 4.5, 40))
    there = run_scorer(tmp_path / "model.json", eyes, tmp_path)
    plain_model = run_scorer(path, eyes, tmp_path)
    from scipy.interpolate import BSpline

    basis = []
    for i, x in enumerate((eyes["age_y"], eyes["acd_mm"])):
        low, high = surface["low"][i], surface["high"][i]
        knots = low + (high - low) * np.arange(-3, k[i] + 1) / (k[i] - 3)
        basis.append(BSpline.design_matrix(np.clip(x.to_numpy(), low, high), knots, 3).toarray())
    extra = ((basis[0] @ np.array(content["gam"]["terms"]["age_y:acd_mm"]["coefs"])) * basis[1]).sum(axis=1)
    squeeze = 25.0 * (np.array(content["sizes"]) - eyes["ata_mm"].to_numpy()[:, None] - 0.9)
    np.testing.assert_allclose(there, plain_model + extra[:, None] + squeeze, rtol=0, atol=1e-9)


def eyes_of() -> set:
    return {"ata_mm", "clr_um", "acd_mm", "aca_deg", "icl_se_d", "age_y", "wtw_mm"}


def test_the_notebook_shows_the_very_lines_of_the_program_and_they_are_few():
    text = SCORER.read_text()
    shown = text[text.index("def hills") : text.index("if __name__")].strip()
    cells = nbformat.read(ROOT / "nbs" / "29_artefact.ipynb", 4).cells
    assert any(c.source.strip() == shown for c in cells), "the cell and docs/score_without_lensnb.py differ"
    tree = ast.parse(shown)
    docs = sum(n.body[0].end_lineno - n.body[0].lineno + 1 for n in tree.body)
    assert len([line for line in shown.splitlines() if line.strip()]) - docs <= 30
    imported = {a.name for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import) for a in n.names}
    assert imported == {"csv", "json", "sys", "numpy"}


def test_the_file_says_what_its_numbers_are(model, path):
    content = json.loads(path.read_text())
    assert (content["format"], content["version"], content["package"]) == ("lensnb sizing model", 2, lensnb.__version__)
    for name in {*model.parts.features, *model.parts.columns}:
        facts = content["features"][name]
        assert facts["unit"] and facts["low"] < facts["mean"] < facts["high"] and facts["needs"]
    assert path.stat().st_size < 130_000  # before the folds were folded up: 163,000 without half of this


def test_golden_eyes_are_invented(path):
    content = json.loads(path.read_text())
    golden = content["golden"]
    invented = pd.DataFrame(unfold(golden["eyes"], golden["eyes"]["count"]))
    real = synthetic_clinics(seed=2026).of("alder").eyes
    columns = [c for c in invented if c in real and pd.api.types.is_numeric_dtype(real[c])]
    assert len(columns) >= 6 and invented[columns].merge(real[columns].astype(float), on=columns).empty


def test_a_resealed_edit_is_caught_by_the_golden_rows(path, tmp_path):
    edits = {
        "gam": lambda c: c["gam"]["terms"]["ata_mm"]["coefs"].__setitem__(
            2, c["gam"]["terms"]["ata_mm"]["coefs"][2] + 1
        ),
        "intercept": lambda c: c["gam"].__setitem__("intercept", c["gam"]["intercept"] * (1 + 1e-8)),
        "golden": lambda c: c["golden"]["rows"]["keys"]["vault_um"]["each"].__setitem__(0, 500.0),
        "folds": lambda c: c["conformal"]["models"]["keys"]["intercept"]["each"].__setitem__(
            slice(None), [v + 40 for v in c["conformal"]["models"]["keys"]["intercept"]["each"]]
        ),
    }
    for name, edit in edits.items():
        content = json.loads(path.read_text())
        content.pop("sha256")
        edit(content)
        changed = tmp_path / f"{name}.json"
        changed.write_text(json.dumps(content | {"sha256": seal(content)}))
        with pytest.raises(InputError, match="golden row"):
            lensnb.SizingModel.load(changed)
