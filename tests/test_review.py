"""The list says what to do, the page can be handed around, and the way back is signed."""

import re

import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from lensnb.intake import quarantine, read_table
from lensnb.review import CHECKS, WAIVABLE, check_for, quarantine_csv, quarantine_page, release, review_list
from lensnb.schema import FIELDS, InputError, reason

KEY = bytes(range(32))
SIGNED = dict(who="dr a", why="compared with the printout")
TABLE = """patient_id;name;birth_date;eye;exam_date;size_mm;ata_mm;acd_mm;vault_um;vault_device
407110;Kim Minji;1994-05-02;OD;2026-01-10;13.2;122.1;3.1;640;Visante
407110;Kim Minji;1994-05-02;OS;2026-01-10;13.2;12.18;3.2;610;Visante
407110;Kim Minji;1994-05-02;OS;2026-01-10;13.2;12.18;3.2;610;Visante
511822;Ana Roe;1988-11-30;OD;2026-01-12;12.5;11.90;3.0;;Visante
620933;Jo Example;1985-07-09;OD;2026-01-15;12.6;12.40;3;480;3.3;Visante
733044;Li Na;1990-02-28;OD;2026-01-16;13.7;11.2;3.2;700;Visante
"""


@pytest.fixture
def eyes(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE, encoding="utf-8")
    return read_table(tmp_path / "t.csv", key=KEY, clinic="alder", strict=True)


def held_row(eyes, row):
    return next(h for h in eyes.attrs["held"] if h["row"] == row)


def test_every_code_of_intake_has_its_check(eyes, root):
    sources = [(root / "lensnb" / f"{m}.py").read_text() for m in ("intake", "checks", "files", "cells", "schema")]
    text = "\n".join(sources)
    codes = set(re.findall(r'reason\(\s*\w+, [^,]+, "(\w+)"', text)) | set(re.findall(r'Parsed\(None, "(\w+)"', text))
    assert {"hard", "copy", "torn_row", "identity", "unreadable"} - {"hard"} <= codes, "the search finds codes"
    unknown = codes - set(CHECKS) - {"missing"}
    assert not unknown, unknown
    assert check_for("no such code").endswith("."), "an unknown code still gets a sentence"


def test_the_list_puts_refused_rows_first_and_loses_no_reason(eyes):
    table, given_reasons = review_list(eyes), quarantine(eyes)
    assert len(table) == len(given_reasons) and (table["check"].str.len() > 10).all()
    held = table["row"].isin({h["row"] for h in eyes.attrs["held"]})
    assert held.iloc[: held.sum()].all() and not held.iloc[held.sum() :].any()
    assert review_list(given_reasons)["code"].tolist() == review_list(eyes.attrs["quarantine"])["code"].tolist()


def test_the_page_is_whole_in_itself_and_names_nobody(eyes, tmp_path):
    page = quarantine_page(eyes, tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    for word in ("<script", "http", "src=", "@import", "url(", "407110", "Kim", "Minji", "1994", "Roe", "t.csv"):
        assert word not in page, word
    for row in {h["row"] for h in eyes.attrs["held"]}:
        assert f'rowspan="{(review_list(eyes)["row"] == row).sum()}">{row}<' in page
    assert "12.21 mm" in page and eyes.attrs["intake"]["source"] in page
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["page.html"], "no draft stays"
    again = quarantine_page(eyes, tmp_path / "again.html").read_bytes()
    assert again == (tmp_path / "out" / "page.html").read_bytes(), "same input, same bytes"


def test_the_numbers_on_top_add_up(eyes, tmp_path):
    page = quarantine_page(eyes, tmp_path / "page.html").read_text(encoding="utf-8")
    numbers = dict(re.findall(r"<span>([^<]+)</span><b>([\d,]+)</b>", page))
    facts = eyes.attrs["intake"]
    assert int(numbers["rows received"]) == int(numbers["accepted"]) + int(numbers["held back"]) == facts["received"]


def test_an_exchange_of_sides_suggests_the_other_side(tmp_path):
    found = [
        reason(r, "eye", "laterality", s, "look exchanged", suggested=o)
        for r, s, o in [(2, "OD", "OS"), (3, "OS", "OD")]
    ]
    page = quarantine_page(found, tmp_path / "p.html").read_text()
    assert "<td>OS</td></tr>" in page and "<td>OD</td></tr>" in page
    assert pd.read_csv(quarantine_csv(found, tmp_path / "p.csv"))["suggested"].tolist() == ["OS", "OD"]


def test_an_empty_quarantine_says_so_and_a_long_one_is_cut_with_a_word(tmp_path):
    assert "Nothing to look at" in quarantine_page([], tmp_path / "a.html").read_text()
    many = [reason(i, "ata_mm", "hard", "122", "far off", suggested=12.2) for i in range(2, 60)]
    page = quarantine_page(many, tmp_path / "b.html", most=50).read_text()
    assert "8 more stand in the CSV" in page and page.count('scope="rowgroup"') == 50
    assert len(pd.read_csv(quarantine_csv(many, tmp_path / "b.csv"))) == 58


@settings(max_examples=30)
@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_a_cell_says_stays_text(value, message):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        hostile = [reason(2, "ata_mm", "hard", f"<img src=x>{value}", f"<i>{message}</i>")]
        page = quarantine_page(hostile, Path(folder) / "p.html").read_text(encoding="utf-8")
        assert "<img" not in page and "<i>" not in page


# The way back


def test_a_hard_value_comes_back_corrected_and_only_corrected(eyes):
    held = held_row(eyes, 2)
    for corrections in ({}, {"ata_mm": "122.1"}, {"ata_mm": "1,221"}, {"acd_mm": "3.1"}):
        with pytest.raises(InputError, match="ata_mm"):
            release(held, corrections, **SIGNED, reasons=eyes.attrs["quarantine"])
    row, record = release(held, {"ata_mm": "12.21"}, **SIGNED, reasons=eyes.attrs["quarantine"])
    assert row["ata_mm"] == 12.21 and row["size_mm"] == 13.2 and row["exam_date"] == pd.Timestamp(2026, 1, 10)
    assert row["eye_id"] == held["eye_id"] and row["patient_id"] == eyes["patient_id"][0], "still the same patient"
    assert record == dict(
        row=2, who="dr a", why=SIGNED["why"], waived=[], corrections={"ata_mm": ["122.1", "12.21"]}, warnings=[]
    )


def test_a_value_may_be_declared_unknown(eyes):
    row, record = release(held_row(eyes, 2), {"ata_mm": ""}, **SIGNED)
    assert row["ata_mm"] is None and record["corrections"]["ata_mm"] == ["122.1", ""]


@pytest.mark.parametrize(
    "who, why", [("", "a good reason"), ("  ", "a good reason"), ("dr a", ""), ("dr a", "ok"), (None, None)]
)
def test_nobody_releases_without_a_name_and_a_reason(eyes, who, why):
    with pytest.raises(InputError, match="release needs"):
        release(held_row(eyes, 2), {"ata_mm": "12.21"}, who, why)


@pytest.mark.parametrize("code", sorted(WAIVABLE))
def test_what_a_person_may_know_better_is_waived_and_recorded(eyes, code):
    found = [reason(2, "", code, "", "two rows, one eye")]
    row, record = release({**held_row(eyes, 2), "ata_mm": "12.21"}, {}, **SIGNED, reasons=found)
    assert record["waived"] == [code] and row["ata_mm"] == 12.21


def test_a_copy_is_released_by_saying_why(eyes):
    row, record = release(held_row(eyes, 4), {}, **SIGNED, reasons=eyes.attrs["quarantine"])
    assert record["waived"] == ["copy"] and row["vault_um"] == 610


def test_a_size_that_no_factory_makes_is_never_waived(eyes):
    with pytest.raises(InputError, match="size_mm"):
        release(held_row(eyes, 5), {}, **SIGNED, reasons=eyes.attrs["quarantine"])
    assert (
        release(held_row(eyes, 5), {"size_mm": "12.6"}, **SIGNED, reasons=eyes.attrs["quarantine"])[0]["size_mm"]
        == 12.6
    )


def test_a_torn_row_is_typed_anew_or_not_at_all(eyes):
    held = held_row(eyes, 6)
    with pytest.raises(InputError, match="without a single value|eye"):
        release(held, {}, **SIGNED, reasons=eyes.attrs["quarantine"])
    typed = dict(patient_id=eyes["patient_id"][0], eye="OD", size_mm="12.6", ata_mm="12.4", vault_um="480")
    row, record = release(held, typed, **SIGNED, reasons=eyes.attrs["quarantine"])
    assert row["eye_id"] == eyes["patient_id"][0] + "-OD" and record["corrections"]["ata_mm"] == ["", "12.4"]
    with pytest.raises(InputError, match="eye"):
        release(held, dict(size_mm="12.6", ata_mm="12.4"), **SIGNED, reasons=eyes.attrs["quarantine"])


@pytest.mark.parametrize(
    "name, value", [("patient_id", "407110"), ("eye_id", "Kim Minji"), ("name", "Kim"), ("ata", "12.2")]
)
def test_a_correction_brings_no_identity_and_no_unknown_column(eyes, name, value):
    with pytest.raises(InputError) as e:
        release(held_row(eyes, 2), {"ata_mm": "12.21", name: value}, **SIGNED)
    assert "407110" not in str(e.value) and "Kim" not in str(e.value)


def test_a_masked_cell_has_no_value_until_somebody_gives_one(eyes):
    held = {**held_row(eyes, 2), "ata_mm": "[text, 9 characters]", "exam_date": "[date, 10 characters]"}
    with pytest.raises(InputError, match="hidden at intake"):
        release(held, {"ata_mm": "12.21"}, **SIGNED)
    row, _ = release(held, {"ata_mm": "12.21", "exam_date": ""}, **SIGNED)
    assert row["exam_date"] is None


@pytest.mark.parametrize("hidden", ["vault_device", "eye_id", "clinic_id"])
def test_not_even_a_masked_word_passes(eyes, hidden):
    with pytest.raises(InputError, match="hidden at intake"):
        release({**held_row(eyes, 4), hidden: "[text, 9 characters]"}, {}, **SIGNED)


def test_the_rules_are_asked_again_after_the_correction(eyes):
    with pytest.raises(InputError, match="before the examination"):
        release(held_row(eyes, 2), {"ata_mm": "12.21", "surgery_date": "2025-12-01"}, **SIGNED)


def test_a_missing_patient_is_named_before_the_row_is_released():
    held = dict(row=3, patient_id="", eye_id="", eye="OD", ata_mm="12.2")
    found = [reason(3, "patient_id", "patient_missing", "", "The row does not say whose eye this is.")]
    with pytest.raises(InputError, match="whose eye"):
        release(held, {}, **SIGNED, reasons=found)
    row, record = release(held, {"patient_id": "p-" + "0" * 16}, **SIGNED, reasons=found)
    assert row["eye_id"] == "p-" + "0" * 16 + "-OD" and record["waived"] == []


@given(st.sampled_from(sorted(f for f in FIELDS if FIELDS[f].hard)), st.floats(-1e6, 1e6))
def test_no_correction_gets_past_the_hard_limits(name, value):
    lo, hi = FIELDS[name].hard
    held = dict(row=2, eye_id="eye-00002", size_mm="13.2")
    try:
        row, _ = release(held, {name: f"{value:g}"}, **SIGNED)
    except InputError:
        return
    assert lo <= row[name] <= hi
