"""Batches: whole or not at all, the same file once, every byte accounted for."""

import errno
import json

import numpy as np
import pandas as pd
import pytest

from lensnb import batches as b
from lensnb.schema import FIELDS, InputError


def table(**columns):
    frame = pd.DataFrame(columns or {"eye_id": ["a", "b"], "ata_mm": [12.2, np.nan]})
    return frame


def with_facts(frame, **facts):
    frame.attrs = dict(intake=dict(sha256="ab" * 32, profile="canonical", quarantined=0, **facts))
    frame.attrs["intake"].setdefault("accepted", len(frame))
    frame.attrs["intake"].setdefault("received", len(frame))
    return frame


def test_rows_come_back_as_they_were(tmp_path):
    dates = pd.to_datetime(["2026-01-05", None])
    eyes = table(eye_id=["a", "b"], exam_date=dates, ata_mm=[12.2, np.nan], k_d=[np.nan, np.nan], eye=["OD", None])
    rows = b.read_rows(b.write_batch(tmp_path, eyes, {}, "2026-02-01T12:00:00").path)
    assert rows["ata_mm"].dtype == rows["k_d"].dtype == np.float64
    assert rows["ata_mm"][0] == 12.2 and rows["ata_mm"].isna().tolist() == [False, True]
    assert rows["event"].tolist() == [pd.Timestamp("2026-01-05"), pd.Timestamp("2026-02-01T12:00:00")]
    assert (rows["created"] == pd.Timestamp("2026-02-01T12:00:00")).all() and rows["row"].tolist() == [1, 2]


def test_every_field_has_a_type_whatever_it_holds(tmp_path):
    empty = pd.DataFrame({name: [None] for name in FIELDS}).assign(eye_id="a")
    values = {"date": pd.Timestamp("2026-01-01"), "number": 13.2}
    full = {f.name: 13.2 if f.unit else values.get(f.kind, "x") for f in FIELDS.values()}
    schemas = [b.arrow_table(b.stored_rows(f, 1, "2026-01-01")).schema for f in (empty, pd.DataFrame([full]))]
    assert schemas[0] == schemas[1]


@pytest.mark.parametrize("change", ["rows.parquet", "reasons.parquet", "held.parquet"])
def test_every_changed_byte_is_noticed(tmp_path, change):
    path = b.write_batch(tmp_path, table(), {}, "2026-01-01").path
    raw = (path / change).read_bytes()
    for i in np.linspace(0, len(raw) - 1, 12).astype(int):
        (path / change).write_bytes(raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :])
        with pytest.raises(InputError, match=f"`{change}`, its bytes were changed"):
            b.verify(path)
    (path / change).unlink()
    with pytest.raises(InputError, match="missing"):
        b.verify(path)
    (path / change).write_bytes(raw)
    (path / "more.parquet").write_bytes(raw)
    with pytest.raises(InputError, match="does not belong"):
        b.verify(path)


def test_a_renamed_or_cut_batch_is_noticed(tmp_path):
    path = b.write_batch(tmp_path, table(), {}, "2026-01-01").path
    other = path.rename(path.with_name("0" * 16))
    with pytest.raises(InputError, match="another batch"):
        b.verify(other)
    (other / "manifest.json").write_text('{"id": ')
    with pytest.raises(InputError, match="no readable manifest"):
        b.verify(other)


def test_the_same_source_is_the_same_batch(tmp_path):
    first = b.write_batch(tmp_path, with_facts(table()), {}, "2026-01-01")
    again = b.write_batch(tmp_path, with_facts(table()), {}, "2026-02-01")
    assert first.new and not again.new and again.manifest == first.manifest
    for change in (dict(profile="other"), dict(clinic="birch"), dict(sha256="cd" * 32), dict(parser="lensnb 9")):
        assert b.write_batch(tmp_path, with_facts(table()), change, "2026-02-01").new


def test_the_same_batch_has_the_same_bytes(tmp_path):
    paths = [b.write_batch(tmp_path / name, with_facts(table()), {}, "2026-01-01").path for name in "ab"]
    assert all((paths[1] / p.name).read_bytes() == p.read_bytes() for p in paths[0].iterdir())


def test_another_key_is_noticed(tmp_path):
    first, other = with_facts(table()), with_facts(table(eye_id=["a", "c"], ata_mm=[12.2, np.nan]))
    first.attrs["rows"] = other.attrs["rows"] = [2, 3]
    b.write_batch(tmp_path, first, {}, "2026-01-01")
    with pytest.raises(InputError, match="other pseudonyms.*row 3"):
        b.write_batch(tmp_path, other, {}, "2026-01-01")


@pytest.mark.parametrize("facts", [dict(accepted=1, received=1), dict(received=3)])
def test_lost_rows_are_noticed(tmp_path, facts):
    with pytest.raises(InputError, match="Rows were lost"):
        b.write_batch(tmp_path, with_facts(table(), **facts), {}, "2026-01-01")
    assert not list((tmp_path).rglob("*.parquet"))


def test_no_column_but_fields(tmp_path):
    with pytest.raises(InputError, match="`patient_name` is no field"):
        b.write_batch(tmp_path, table(eye_id=["a"], patient_name=["x"]), {}, "2026-01-01")


def test_reasons_held_rows_and_provenance_are_kept(tmp_path):
    eyes = with_facts(table(eye_id=["a"], ata_mm=[12.2]), accepted=1, received=2)
    eyes.attrs["intake"]["quarantined"] = 1
    words = "`ata_mm` must lie in ..."
    reasons = [dict(row=3, column="ata_mm", code="hard", value="119", message=words, severity="block", suggested=11.9)]
    eyes.attrs |= dict(quarantine=reasons, held=[dict(row=3, eye_id="b", ata_mm="119")], rows=[2])
    eyes.attrs["provenance"] = [dict(row=2, column="ata_mm", page=0, box=[1.5, 2, 3, 4], raw="12.2", confidence=0.98)]
    path = b.write_batch(tmp_path, eyes, {}, "2026-01-01").path
    assert b.read_reasons(path) == reasons and b.read_held(path) == eyes.attrs["held"]
    kept = pd.read_parquet(path / "provenance.parquet").iloc[0]
    assert json.loads(kept["box"]) == [1.5, 2, 3, 4] and kept["raw"] == "12.2"


def test_a_file_without_one_good_row_is_kept_too(tmp_path):
    eyes = with_facts(table(eye_id=[], ata_mm=[]), accepted=0, received=1)
    eyes.attrs["intake"]["quarantined"] = 1
    eyes.attrs["held"] = [dict(row=2, ata_mm="?")]
    batch = b.write_batch(tmp_path, eyes, {}, "2026-01-01")
    assert len(b.read_rows(batch.path)) == 0 and len(b.read_held(batch.path)) == 1


@pytest.mark.parametrize("step", ["_write_tables", "sync"])
def test_a_failing_disk_leaves_nothing(tmp_path, monkeypatch, step):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(b, step, full)
    with pytest.raises(InputError, match="cannot be written.*No space left"):
        b.write_batch(tmp_path, table(), {}, "2026-01-01")
    assert list((tmp_path / "batches").iterdir()) == []


def test_the_second_of_two_writers_leaves_no_trace(tmp_path, monkeypatch):
    real = b._write_tables

    def overtaken(draft, eyes, number, now):
        monkeypatch.setattr(b, "_write_tables", real)
        b.write_batch(tmp_path, eyes, {}, "2026-01-01")
        real(draft, eyes, number, now)

    monkeypatch.setattr(b, "_write_tables", overtaken)
    batch = b.write_batch(tmp_path, table(), {}, "2026-01-02")
    assert not batch.new and batch.manifest["created"].startswith("2026-01-01") and b.verify(batch.path)
    assert [p.name for p in (tmp_path / "batches").iterdir()] == [batch.id]


def test_only_dead_drafts_are_swept(tmp_path):
    (tmp_path / ".draft-dead").mkdir()
    with b.draft_folder(tmp_path, "batch") as draft:
        assert b.sweep(tmp_path) == 1 and draft.is_dir()
    assert [p.name for p in tmp_path.iterdir()] == ["batch"]
