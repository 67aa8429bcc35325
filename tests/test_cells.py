"""A cell is read where it has one meaning, and refused with a reason everywhere else."""

import math
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from lensnb.cells import (
    DATE_ORDERS,
    MISSING,
    fits_grid,
    is_missing,
    parse_cell,
    parse_number,
    plain,
    read_day,
)
from lensnb.schema import FIELDS, SIZES_MM, InputError, judge

NUMBERS = [f for f in FIELDS.values() if f.kind == "number"]
REFUSED = {"hard", "choice", "grid", "unreadable", "ambiguous", "date"}
ODD = st.text(alphabet="0123456789.,-+−–—－１２３．，：oOlISB mµu°D@/eE<>'\u00a0\u202f#=", max_size=12)


@settings(max_examples=400)
@given(st.sampled_from(sorted(FIELDS)), st.one_of(st.text(max_size=14), ODD), st.sampled_from([None, ".", ","]))
def test_no_cell_crashes_and_what_is_read_is_possible(name, cell, decimal):
    f = FIELDS[name]
    for dates in DATE_ORDERS:
        parsed = parse_cell(name, cell, dates, decimal)
        assert parsed.code in REFUSED | {"ok", "soft", "missing"}
        if parsed.code in REFUSED:
            assert parsed.value is None and parsed.message and name in parsed.message
        if parsed.code in ("ok", "soft") and f.unit:
            assert judge(name, parsed.value)[0] in ("ok", "soft") and fits_grid(name, parsed.value)
        if parsed.suggested is not None:
            assert parsed.value is None, "a suggestion never stands beside a value"
            assert math.isfinite(parsed.suggested)


def _printed(field, value):
    text = f"{value:g}"
    yield from (text, f"  {text} ", text.replace(".", ","), f"{text} {field.unit}", f"{text}{field.unit}")
    yield text.replace("-", "−")
    yield text.translate({ord(c): chr(ord(c) + 0xFEE0) for c in "0123456789.-"})
    yield f"{text}\u202f{field.unit}"


@given(st.sampled_from(NUMBERS), st.data())
def test_a_printed_value_is_read_back_in_every_usual_dress(field, data):
    grid = field.resolution or 0.01
    lo, hi = (round(x / grid) for x in field.hard)
    value = round(data.draw(st.integers(int(lo) + 1, int(hi) - 1)) * grid, 6)
    for text in _printed(field, value):
        parsed = parse_cell(field.name, text)
        assert parsed.code in ("ok", "soft") and parsed.value == pytest.approx(value), (text, parsed)


@settings(max_examples=300)
@given(
    st.sampled_from(NUMBERS),
    st.floats(-3000, 3000).map(lambda v: round(v, 3)),
    st.tuples(st.floats(-3000, 1), st.floats(2, 3000)),
)
def test_an_ambiguous_comma_is_never_read(field, number, limits):
    """Whatever the limits of a field: two possible meanings are never decided, one is read, none is refused."""
    text = f"{abs(number):.3f}".replace(".", ",")
    wide = replace(field, hard=limits, soft=None)
    saved = FIELDS[field.name]
    try:
        FIELDS[field.name] = wide
        readings = parse_number(text, field.unit)
        possible = [v for v in readings if limits[0] <= v <= limits[1] and fits_grid(field.name, v)]
        parsed = parse_cell(field.name, text)
        stated = parse_cell(field.name, text, decimal=",")
    finally:
        FIELDS[field.name] = saved
    assert (parsed.value is None) == (len(possible) != 1)
    assert parsed.value is None or parsed.value == possible[0]
    assert (parsed.code == "ambiguous") == (len(possible) == 2)
    if stated.value is not None:
        assert stated.value == pytest.approx(float(text.replace(",", "."))), "a stated mark leaves one meaning"


def test_the_comma_check_would_notice_a_reader_that_prefers_the_decimal():
    wide = replace(FIELDS["ata_mm"], hard=(0, 5000), soft=None)
    saved = FIELDS["ata_mm"]
    try:
        FIELDS["ata_mm"] = wide
        assert parse_cell("ata_mm", "1,234").code == "ambiguous"
        assert parse_cell("ata_mm", "0,234").value == 0.234 and parse_cell("ata_mm", "1,23").value == 1.23
        assert parse_cell("ata_mm", "1,234", decimal=".").value == 1234
    finally:
        FIELDS["ata_mm"] = saved


@pytest.mark.parametrize("token", [*sorted(MISSING), "-9999.000", "−9999", "-9,999.00", "  ", "N/A", "—"])
@pytest.mark.parametrize("name", ["clr_um", "size_mm", "exam_date", "eye", "device"])
def test_missing_is_missing_and_never_zero(name, token):
    assert parse_cell(name, token).value is None and parse_cell(name, token).code == "missing"


@pytest.mark.parametrize(
    "token", ["0", "0.0", "9999", "-999", "999.9", "65535", "-1", "inf", "1e30", "TRUE", "#DIV/0!"]
)
def test_what_may_be_a_number_is_not_called_missing(token):
    assert not is_missing(token)
    for name in ("acd_mm", "cct_um", "wtw_mm", "k_d"):
        assert parse_cell(name, token).value is None and parse_cell(name, token).code in REFUSED


def test_zero_is_legal_for_rise_and_vault_and_told_elsewhere():
    for name in ("clr_um", "vault_um", "vault_day"):
        assert parse_cell(name, "0").value == 0
    for name in ("acd_mm", "ata_mm", "cct_um", "age_y", "k_d", "lt_mm", "wtw_mm", "size_mm"):
        parsed = parse_cell(name, "0.00")
        assert parsed.value is None and "empty cell" in parsed.message and parsed.suggested is None


@pytest.mark.parametrize(
    "cell, code, suggested",
    [
        ("12.5", "choice", None),
        ("-12.6", "choice", 12.6),
        ("12,6", "ok", None),
        ("13.20 mm", "ok", None),
        ("132", "choice", 13.2),
        ("1.32", "choice", 13.2),
        ("l3.2", "unreadable", 13.2),
        ("1S.2", "unreadable", None),
        ("13 2", "unreadable", None),
        ("13.2/12.6", "unreadable", None),
        ("13..2", "unreadable", None),
        ("13:2", "unreadable", None),
    ],
)
def test_typed_sizes(cell, code, suggested):
    parsed = parse_cell("size_mm", cell)
    assert (parsed.code, parsed.suggested) == (code, suggested)
    assert (parsed.value in SIZES_MM) if code == "ok" else parsed.value is None


@pytest.mark.parametrize(
    "name, cell, words, suggested",
    [
        ("ata_mm", "12,O1", "letter", 12.01),
        ("clr_um", "0.11 mm", "in mm, the column in um", 110),
        ("acd_mm", "3310um", "in um, the column in mm", 3.31),
        ("k_d", "7.85 mm", "in mm, the column in D", None),
        ("wtw_mm", "2026-08-11", "date", 11.8),
        ("wtw_mm", "11-Aug", "date", 11.8),
        ("acd_mm", "2026-03-03", "date", 3.3),
        ("acd_mm", "11:30", "date", None),
        ("lt_mm", "2026-04-03", "date", None),
        ("k_d", "42.60/7.92@ 14", "axis", None),
        ("k_d", "43.25 D @ 12°", "axis", None),
        ("cct_um", "#DIV/0!", "formula", None),
        ("cct_um", "=A1*2", "formula", None),
        ("vault_um", "True", "tick box", None),
        ("acd_mm", "<2.8", "limit", None),
        ("acd_mm", "3.1 / 3.2", "two numbers", None),
        ("acd_mm", "3.1±0.1", "two numbers", None),
        ("ata_mm", "not clear", "words", None),
    ],
)
def test_an_unreadable_number_says_why(name, cell, words, suggested):
    parsed = parse_cell(name, cell)
    assert parsed.code == "unreadable" and words in parsed.message and parsed.value is None
    assert parsed.suggested == suggested


@pytest.mark.parametrize(
    "name, cell, code",
    [
        ("icl_se_d", "-10.80", "grid"),
        ("icl_se_d", "-10.75", "ok"),
        ("clr_um", "0.12", "grid"),
        ("cct_um", "53.5", "hard"),
        ("age_y", "31.5", "grid"),
        ("k_d", "43.877", "ok"),
        ("wtw_mm", "11.83", "ok"),
        ("vault_um", "1.234", "grid"),
        ("cct_um", "544000", "hard"),
        ("cct_um", "0.535", "hard"),
        ("vault_um", "7901", "hard"),
        ("icl_se_d", "10.75", "hard"),
        ("wtw_mm", "46245", "hard"),
    ],
)
def test_units_points_and_signs_are_caught_by_range_and_grid(name, cell, code):
    assert parse_cell(name, cell).code == code


def test_the_same_sign_in_other_clothes_and_no_other_sign():
    assert plain("－１２．２\u00a0㎜：\u200b") == "-12.2 mm:"
    for other in ("12²", "١٢", "½", "①2.2", "12̲"):
        assert parse_cell("ata_mm", other).code == "unreadable", other


DAYS = st.dates(min_value=pd.Timestamp("1990-01-01").date(), max_value=pd.Timestamp("2099-12-31").date())


@given(DAYS, st.sampled_from("-./"), st.sampled_from(["", " 09:30", "T09:30:00Z"]))
def test_a_date_is_read_in_its_stated_order_only(day, mark, time):
    year_first = f"{day:%Y}{mark}{day:%m}{mark}{day:%d}{time}"
    day_first, month_first = (
        f"{day:%d}{mark}{day:%m}{mark}{day:%Y}{time}",
        f"{day:%m}{mark}{day:%d}{mark}{day:%Y}{time}",
    )
    assert parse_cell("exam_date", year_first).value == pd.Timestamp(day)
    assert parse_cell("exam_date", day_first).code == parse_cell("exam_date", month_first).code == "date"
    assert parse_cell("exam_date", day_first, "dmy").value == pd.Timestamp(day)
    assert parse_cell("exam_date", month_first, "mdy").value == pd.Timestamp(day)
    wrong = parse_cell("exam_date", month_first, "dmy")
    assert wrong.code == ("ok" if day.day <= 12 else "date")


@pytest.mark.parametrize(
    "cell",
    ["1899-12-30", "1970-01-01", "0000-00-00", "9999-12-31", "46245", "46245.5", "2026-13-01", "2026-02-30", "20260811"]
    + ["11.08.26", "2026-08", "2026", "11-Aug-2026", "soon", "2O26-08-11", "12026-08-11", "2026-08.11", "-2026-08-11"],
)
def test_other_dates_are_refused(cell):
    parsed = parse_cell("exam_date", cell)
    assert parsed.code == "date" and parsed.value is None and "exam_date" in parsed.message


def test_korean_dates_and_unknown_orders():
    assert read_day("2026년 8월 11일") == read_day("2026. 8. 11.") == pd.Timestamp("2026-08-11").date()
    with pytest.raises(InputError, match="order of dates"):
        read_day("2026-08-11", "ymd")


@pytest.mark.parametrize(
    "cell, value",
    [
        ("od", "OD"),
        ("R", "OD"),
        ("right eye", "OD"),
        ("우안", "OD"),
        ("O.D.", "OD"),
        ("OI", "OS"),
        ("OG", "OS"),
        ("좌", "OS"),
    ],
)
def test_sides(cell, value):
    assert parse_cell("eye", cell).value == value


@pytest.mark.parametrize("cell", ["OU", "both", "OD/OS", "R/L", "양안", "X", "0", "O", "1"])
def test_a_side_is_never_guessed(cell):
    assert parse_cell("eye", cell).value is None and parse_cell("eye", cell).code == "choice"


def test_other_choices():
    assert parse_cell("toric", "TRUE").value == "yes" and parse_cell("toric", "1").code == "choice"
    assert (
        parse_cell("lens_model", "evo+").value == "EVO+"
        and parse_cell("orientation", "Horizontal").value == "horizontal"
    )
    assert parse_cell("device", " Visante OCT ").value == "Visante OCT"


@pytest.mark.parametrize(
    "cell", ["1" * 200_000, "1," * 100_000, "a" * 200_000, "9/" * 5_000, "(" * 50_000, " " * 99_999 + "x"]
)
def test_a_huge_cell_is_refused_at_once(cell):
    for name in ("ata_mm", "exam_date", "eye", "size_mm"):
        assert parse_cell(name, cell).value is None
