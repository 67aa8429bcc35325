"""The field table says what the published limits say, and nothing passes it as something else."""

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from lensnb.schema import (
    FIELDS,
    SCHEMA_VERSION,
    SIZES_MM,
    YEARS,
    AssumptionError,
    Field,
    InputError,
    LensnbError,
    check_eyes,
    field_table,
    frame_schema,
    judge,
    lookalike,
    on_grid,
    reason,
    schema_hash,
    suggest,
)

MEASURED = [f for f in FIELDS.values() if f.kind == "number"]
LIMITS = {  # field: unit, hard, soft, as published with the calculators and labels in use
    "age_y": ("y", (17, 70), (21, 45)),
    "icl_se_d": ("D", (-25, 0), (-18, -3)),
    "acd_mm": ("mm", (2.3, 4.5), (2.8, 4.2)),
    "acd_ext_mm": ("mm", (2.6, 5.4), (3.2, 4.9)),
    "cct_um": ("um", (350, 750), (430, 690)),
    "ata_mm": ("mm", (9.5, 14.5), (10.7, 13.6)),
    "acw_mm": ("mm", (9.5, 14.5), (10.7, 13.6)),
    "sts_h_mm": ("mm", (9.5, 14.5), (10.7, 13.6)),
    "sts_v_mm": ("mm", (9.5, 14.5), (10.7, 13.6)),
    "clr_um": ("um", (-1000, 1000), (-500, 900)),
    "wtw_mm": ("mm", (9.5, 14.0), (10.5, 13.0)),
    "lt_mm": ("mm", (2.5, 5.5), (3.0, 4.6)),
    "k_d": ("D", (30, 55), (37, 49)),
    "aca_deg": ("deg", (15, 80), (20, 65)),
    "vault_um": ("um", (0, 2000), (50, 1600)),
}
AFTER_SURGERY = {"vault_um", "vault_day", "vault_device", "light", "record"}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_the_published_ones(name):
    f = FIELDS[name]
    assert (f.unit, tuple(f.hard), tuple(f.soft)) == LIMITS[name]


def test_every_number_has_a_unit_in_its_name_limits_a_grid_and_a_cause():
    endings = {"mm": "_mm", "um": "_um", "D": "_d", "deg": "_deg", "y": "_y", "d": "_day"}
    for f in MEASURED:
        assert f.name.endswith(endings[f.unit]) and f.resolution and f.cause, f.name
        assert f.hard[0] < f.hard[1] and (not f.soft or f.hard[0] <= f.soft[0] < f.soft[1] <= f.hard[1]), f.name
        assert round(f.resolution, f.decimals) == f.resolution or f.name in ("k_d", "aca_deg"), f.name


def test_only_what_is_known_after_surgery_is_marked_so():
    assert {f.name for f in FIELDS.values() if not f.preop} == AFTER_SURGERY
    assert FIELDS["size_mm"].choices == SIZES_MM == (12.1, 12.6, 13.2, 13.7)
    table = field_table()
    assert list(table.index) == list(FIELDS) and set(table.index[~table["before_surgery"]]) == AFTER_SURGERY


def test_internal_and_external_depth_share_no_name():
    inner, outer = FIELDS["acd_mm"], FIELDS["acd_ext_mm"]
    assert not {*inner.printed, *inner.aliases} & {*outer.printed, *outer.aliases}
    labels = [label.casefold() for f in FIELDS.values() for label in f.printed]
    assert len(labels) == len(set(labels)) and not {"acd", "se", "k", "size"} & set(labels)
    assert not {n.casefold() for n in FIELDS} & set(labels)


# The fingerprint


def test_the_fingerprint_is_about_values_and_not_about_words():
    fields = list(FIELDS.values())
    words = [replace(f, label=f.label.upper(), cause="x", printed=(), aliases=("y",)) for f in fields]
    assert schema_hash(words) == schema_hash() == schema_hash(fields)


@given(
    st.sampled_from(sorted(FIELDS)), st.sampled_from(["hard", "soft", "unit", "preop", "choices", "resolution", "name"])
)
def test_any_change_of_meaning_changes_the_fingerprint(name, part):
    changed = dict(
        hard=(0, 1), soft=(0, 1), unit="inch", preop=not FIELDS[name].preop, choices=("z",), resolution=7, name="z"
    )
    other = [replace(f, **{part: changed[part]}) if f.name == name else f for f in FIELDS.values()]
    assert schema_hash(other) != schema_hash()


def test_a_new_table_needs_a_new_version():
    """Whoever changes the table changes the version, so that stored rows can say under which table they were read."""
    known = {"2": "d63c7a169cdbb17554fc69032aa3ccded86568c39df907facfca88ccd77a7105"}
    assert known[SCHEMA_VERSION] == schema_hash()


# Judging one value


@given(st.sampled_from(sorted(f.name for f in FIELDS.values() if f.unit)), st.floats(-1e7, 1e7))
def test_a_suggestion_is_an_ordinary_value_one_slip_away(name, value):
    meant = suggest(name, value)
    if meant is None:
        return
    f = FIELDS[name]
    assert (
        judge(name, meant)[0] in ("ok",)
        if f.choices
        else (f.soft or f.hard)[0] - 0.01 <= meant <= (f.soft or f.hard)[1] + 0.01
    )
    slips = (
        [value * k for k in (1000, 1e-3, 10, 0.1, 100, 0.01, -1)]
        + [np.degrees(value)]
        + ([337.5 / value] if value else [])
    )
    assert min(abs(s - meant) for s in slips) <= 0.006


@given(st.sampled_from(MEASURED), st.floats(-1e6, 1e6))
def test_hard_limits_are_closed_and_soft_ones_warn(f, value):
    code = judge(f.name, value)[0]
    assert (code == "hard") == (not f.hard[0] <= value <= f.hard[1])
    assert (code == "soft") == (
        f.soft is not None and f.hard[0] <= value <= f.hard[1] and not f.soft[0] <= value <= f.soft[1]
    )
    for limit in f.hard:
        assert judge(f.name, limit)[0] in ("ok", "soft")


@given(
    st.sampled_from(
        ["acd_mm", "acd_ext_mm", "ata_mm", "acw_mm", "sts_h_mm", "sts_v_mm", "wtw_mm", "lt_mm", "al_mm", "k_d"]
    ),
    st.floats(0, 1),
)
def test_a_lost_decimal_point_is_always_outside(name, at):
    lo, hi = FIELDS[name].soft
    value = round(lo + at * (hi - lo), 2)
    for power in (10, 100):
        assert judge(name, value * power)[0] == "hard"
    assert suggest(name, round(value * 100)) == pytest.approx(value) or suggest(name, round(value * 100)) is None


@pytest.mark.parametrize(
    "value, meant", [(132, 13.2), (-12.6, 12.6), (1210, 12.1), (12.5, None), (12.0, None), (13.7001, None)]
)
def test_a_size_is_made_or_it_is_not(value, meant):
    assert judge("size_mm", value)[::2] == ("choice", meant)


def test_units_that_differ_by_no_power_of_ten():
    assert suggest("k_d", 7.8) == 43.27 and suggest("aca_deg", 0.73) == 41.83
    assert suggest("k_d", 0) is None and suggest("k_d", float("nan")) is None and suggest("eye", "od") is None


def test_millimetres_in_a_field_of_whole_micrometres_are_off_its_grid():
    for name, value in [("clr_um", 0.12), ("vault_um", 0.62), ("clr_um", -0.47)]:
        assert judge(name, value)[0] != "hard" and not on_grid(name, value)
    assert on_grid("clr_um", 0) and on_grid("ata_mm", 12.213) and on_grid("k_d", 43.12)


# Errors and reasons


def test_an_error_is_a_sentence_for_a_person_and_data_for_a_program():
    e = InputError(
        "`ata_mm` is odd",
        field="ata_mm",
        row=3,
        value=np.float64(122.0),
        unit="mm",
        limit="9.5 to 14.5",
        cause="a slip",
        remedy="look",
        suggested=12.2,
    )
    assert str(e) == (
        "`ata_mm` is odd. Received 122.0 mm in row 3. Limit: 9.5 to 14.5. Likely cause: a slip. "
        "Perhaps 12.2 was meant. What to do: look."
    )
    assert (e.suggested, e.row, type(e.value)) == (12.2, 3, float) and isinstance(e, LensnbError)
    assert issubclass(AssumptionError, ValueError) and str(InputError("plain")) == "plain."


def test_a_reason_is_a_plain_record():
    r = reason(np.int64(5), "ata_mm", "hard", 122.0, "words", suggested=12.2)
    assert r == dict(
        row=5, column="ata_mm", code="hard", value="122.0", message="words", severity="block", suggested=12.2
    )
    assert type(r["row"]) is int and reason(1, "", "x", "", "", "warn")["severity"] == "warn"


@pytest.mark.parametrize(
    "heading",
    [
        "surname",
        "Name",
        "remark",
        "score",
        "right",
        "left",
        "weight",
        "height",
        "lens",
        "model",
        "surgeon",
        "resource",
        "notes",
        "telephone",
        "sex",
        "iop",
        "cyl",
    ],
)
def test_a_heading_without_consequence_is_not_taken_for_a_quantity(heading):
    assert lookalike(heading) is None


@pytest.mark.parametrize(
    "heading, field",
    [
        ("ata", "ata_mm"),
        ("ACD", "acd_mm"),
        ("wtw (mm)", "wtw_mm"),
        ("vault", "vault_um"),
        ("clr", "clr_um"),
        ("lt", "lt_mm"),
        ("size", "size_mm"),
        ("cct", "cct_um"),
    ],
)
def test_a_heading_without_a_unit_is_noticed(heading, field):
    assert lookalike(heading) == field and lookalike(heading, named=FIELDS) is None


# Frames


@pytest.mark.parametrize("column", ["vault_um", "size_mm", "age_y", "clr_um"])
@pytest.mark.parametrize("value", [True, "12", "12,2", np.bool_(False)])
def test_words_and_yes_or_no_are_no_numbers(column, value):
    good = 13.2 if column == "size_mm" else 30
    for cells in ([good, value], [value, value]):
        with pytest.raises(InputError) as e:
            check_eyes(pd.DataFrame({column: cells}))
        assert e.value.field == column and e.value.row == cells.index(value)


@pytest.mark.parametrize("dtype", ["bool", "boolean", "string"])
def test_also_not_in_columns_of_their_own_type(dtype):
    with pytest.raises(InputError):
        check_eyes(pd.DataFrame({"clr_um": pd.Series(["1", "0"] if dtype == "string" else [True, False], dtype=dtype)}))


@pytest.mark.parametrize("dtype", ["int64", "float64", "Int64", "Float64", "object"])
def test_numbers_pass_in_any_type_and_become_floats(dtype):
    eyes = check_eyes(pd.DataFrame({"cct_um": pd.Series([540, 530], dtype=dtype)}))
    assert eyes["cct_um"].dtype == float and eyes["cct_um"].tolist() == [540.0, 530.0]


def test_missing_values_pass_and_stay_missing():
    eyes = check_eyes(pd.DataFrame({"ata_mm": [None, 12.2], "eye": [None, "OD"], "exam_date": [None, "2026-01-31"]}))
    assert eyes["ata_mm"].isna().tolist() == [True, False] and pd.isna(eyes["exam_date"][0])


@pytest.mark.parametrize(
    "day",
    [
        "1989-12-31",
        "2100-01-01",
        "1899-12-30",
        "0001-01-01",
        "9999-12-31",
        "31/12/2026",
        "03.04.2026",
        "20260403x",
        pd.Timestamp("1970-01-01"),
    ],
)
def test_a_date_of_another_century_or_form_is_refused(day):
    with pytest.raises(InputError) as e:
        check_eyes(pd.DataFrame({"surgery_date": ["2026-01-31", day]}, dtype=object))
    assert e.value.row == 1 and e.value.field == "surgery_date"


@given(st.dates(date(YEARS[0], 1, 1), date(YEARS[1], 12, 31)))
def test_a_date_of_these_years_is_read_back(day):
    for written in (day.isoformat(), pd.Timestamp(day)):
        assert check_eyes(pd.DataFrame({"exam_date": [written]}))["exam_date"][0] == pd.Timestamp(day)


@pytest.mark.parametrize(
    "column, value",
    [
        ("toric", True),
        ("history", "LASIK"),
        ("light", "dark"),
        ("lens_model", "EVO++"),
        ("source", "fax"),
        ("eye", "right"),
        ("orientation", "oblique"),
    ],
)
def test_choices_are_compared_exactly(column, value):
    with pytest.raises(InputError, match=column):
        check_eyes(pd.DataFrame({column: [value]}))


def test_whole_numbers_are_asked_for_only_when_wanted():
    frame = pd.DataFrame({"clr_um": [115.5], "ata_mm": [12.213]})
    frame_schema(frame).validate(frame)
    with pytest.raises(Exception, match="clr_um"):
        frame_schema(frame, whole=True).validate(frame)
    frame_schema(["ata_mm"], whole=True).validate(frame)


def test_other_columns_are_left_alone():
    eyes = pd.DataFrame({"remark": ["x"], "ata_mm": [12.2]})
    assert check_eyes(eyes)["remark"].tolist() == ["x"] and isinstance(FIELDS["ata_mm"], Field)
