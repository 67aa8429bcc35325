"""A question about one eye: three descriptions of it agree, and nothing enters that surgery told."""

import json
import math

import jsonschema
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings, strategies as st
from pandera.errors import SchemaErrors
from pydantic import ValidationError

from lensnb.features import FEATURES
from lensnb.request import (
    REQUEST_FIELDS,
    EyeRequest,
    accept,
    check_names,
    check_request,
    json_schema,
    read_request,
    request_frame,
)
from lensnb.schema import FIELDS, InputError, check_eyes, frame_schema

AFTER_SURGERY = ["vault_um", "vault_day", "vault_device", "light", "record"]
VALIDATOR = jsonschema.Draft202012Validator(json_schema())
GOOD = dict(age_y=31, icl_se_d=-10.5, acd_mm=3.2, ata_mm=12.2, clr_um=-120, wtw_mm=11.8, cct_um=540, k_d=43.5, eye="OD")


# What may be asked


def test_the_fields_are_the_numbers_and_choices_known_before_surgery():
    assert set(REQUEST_FIELDS) == set(EyeRequest.model_fields) == set(json_schema()["properties"])
    assert not set(AFTER_SURGERY) & set(REQUEST_FIELDS)
    assert {f.kind for n, f in FIELDS.items() if n in REQUEST_FIELDS} == {"number", "choice"}
    missing = {n for n, f in FIELDS.items() if f.preop and f.unit} - set(REQUEST_FIELDS)
    assert not missing, "a measurement from before surgery that nobody could ask with"


@pytest.mark.parametrize("name", AFTER_SURGERY)
def test_what_surgery_told_is_refused_at_every_door_with_its_reason(name):
    request = GOOD | {name: 650}
    with pytest.raises(InputError, match="known only after surgery"):
        check_request(request)
    with pytest.raises(ValidationError, match="known only after surgery"):
        EyeRequest(**request)
    with pytest.raises(InputError, match="known only after surgery"):
        request_frame([GOOD, request])
    assert not VALIDATOR.is_valid(request)


def test_no_feature_needs_what_a_request_cannot_say():
    for f in FEATURES.values():
        assert set(f.needs) <= set(REQUEST_FIELDS), f.name
        assert all(FIELDS[n].preop for n in f.needs), f.name


@given(st.text(max_size=20).filter(lambda t: t not in REQUEST_FIELDS))
@example("vault_um")
@example("patient_id")
@example("Ata_mm")
def test_no_other_name_enters(name):
    with pytest.raises(InputError):
        check_names([name])
    with pytest.raises(ValidationError):
        EyeRequest.model_validate({name: 1})
    assert not VALIDATOR.is_valid({name: 1})


@pytest.mark.parametrize(
    "name, meant", [("acd", "acd_mm"), ("ATA_mm", "ata_mm"), ("ata_um", "ata_mm"), ("icl_se", "icl_se_d")]
)
def test_a_near_miss_is_told_the_name(name, meant):
    with pytest.raises(InputError, match=f"`{meant}`"):
        check_request({name: 3})


# Three descriptions, one contract


def by_request(name, value):
    try:
        accept(name, value)
    except InputError:
        return False
    return True


def by_pydantic(name, value):
    try:
        EyeRequest(**{name: value})
    except ValidationError:
        return False
    return True


def by_pandera(name, values):
    """One answer a value; words and yes-or-no are asked alone, because the first of them ends the matter."""
    words = [isinstance(v, (str, bool)) and bool(FIELDS[name].unit) for v in values]
    for v, word in zip(values, words):
        if word:
            with pytest.raises(InputError):
                check_eyes(pd.DataFrame({name: [v]}, dtype=object))
    frame = pd.DataFrame({name: pd.Series([v for v, w in zip(values, words) if not w], dtype=object)})
    frame.index = [i for i, w in enumerate(words) if not w]
    try:
        frame_schema([name], whole=True).validate(frame, lazy=True)
        refused = set()
    except SchemaErrors as e:
        refused = set(e.failure_cases["index"])
    return [not w and i not in refused for i, w in enumerate(words)]


def values(name):
    """Values of a field as JSON can say them: near the limits, on and off the grid, words, true and false, null."""
    f = FIELDS[name]
    others = [
        st.none(),
        st.booleans(),
        st.text(max_size=6),
        st.integers(-(10**15), 10**15),
        st.just("12.2"),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from([0, 0.0, -0.0, 1, 1.0]),
    ]
    if f.choices:
        said = [*f.choices, *(str(c).upper() for c in f.choices)]
        near = [c + d for c in f.choices for d in (0.01, -0.1, 1e-9)] if f.unit else []
        return st.one_of(st.sampled_from(said + near), *others)
    lo, hi = f.hard
    edges = [
        lo,
        hi,
        math.nextafter(lo, -math.inf),
        math.nextafter(hi, math.inf),
        lo - 1,
        hi + 1,
        (lo + hi) / 2,
        lo + 0.5,
    ]
    return st.one_of(st.sampled_from(edges), st.floats(lo, hi), st.integers(math.ceil(lo), math.floor(hi)), *others)


@pytest.mark.parametrize("name", REQUEST_FIELDS)
def test_request_json_schema_and_pandera_accept_exactly_the_same_values(name):
    seen = {True: 0, False: 0}

    @settings(max_examples=8)
    @given(st.lists(values(name), min_size=30, max_size=60))
    def agree(many):
        for value, pandera in zip(many, by_pandera(name, many)):
            answers = {
                "accept": by_request(name, value),
                "pydantic": by_pydantic(name, value),
                "json schema": VALIDATOR.is_valid({name: value}),
                "pandera": pandera,
            }
            assert len(set(answers.values())) == 1, (name, value, answers)
            seen[pandera] += 1

    agree()
    assert min(seen.values()) >= 10, "the generator tried only one side"


def test_the_agreement_would_notice_a_difference():
    wider = json_schema()
    wider["properties"]["ata_mm"]["maximum"] = 15
    assert jsonschema.Draft202012Validator(wider).is_valid({"ata_mm": 14.8})
    assert by_pandera("ata_mm", [14.8, 12.2]) == [False, True]


def test_the_json_schema_is_one_and_says_what_a_form_needs():
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json.loads(json.dumps(json_schema(), allow_nan=False)) == json_schema()
    assert json_schema()["properties"] == EyeRequest.model_json_schema()["properties"]
    for name, told in json_schema()["properties"].items():
        f = FIELDS[name]
        assert told["label"] == f.label and told.get("unit", "") == f.unit
        if f.kind == "number":
            assert (told["minimum"], told["maximum"]) == tuple(told["hard"]) == f.hard
            assert tuple(told["soft"]) == (f.soft or f.hard) and told["resolution"] == f.resolution
        else:
            assert told["enum"] == [*f.choices, None]


# Values and messages


def test_values_come_out_as_they_are_used_and_rare_ones_are_warned_about():
    known, warnings = check_request(GOOD | dict(lt_mm=None, k_d=50))
    assert (
        known == {n: float(v) if n != "eye" else v for n, v in (GOOD | dict(k_d=50)).items()} and "lt_mm" not in known
    )
    assert list(known) == [n for n in REQUEST_FIELDS if n in known], "in the order of the field table"
    assert len(warnings) == 1 and "k_d" in warnings[0]
    assert check_request({}) == ({}, [])
    assert math.copysign(1, check_request(dict(clr_um=-0.0))[0]["clr_um"]) == 1, "a zero has no sign"


@pytest.mark.parametrize(
    "name, value, meant",
    [
        ("ata_mm", 122.0, 12.2),
        ("cct_um", 0.535, 535.0),
        ("icl_se_d", 10.5, -10.5),
        ("k_d", 7.8, 43.27),
        ("size_mm", 132, 13.2),
        ("clr_um", 0.12, 120.0),
        ("ata_mm", "12,2 mm", 12.2),
        ("eye", "od", "OD"),
        ("history", "None", "none"),
        ("size_mm", 12.5, None),
        ("ata_mm", True, None),
        ("ata_mm", "l2.2", None),
    ],
)
def test_the_error_names_field_value_limit_and_suggestion(name, value, meant):
    with pytest.raises(InputError) as e:
        check_request(GOOD | {name: value})
    e = e.value
    assert (
        e.field == name and e.value == value and (e.suggested == pytest.approx(meant) if meant else e.suggested is None)
    )
    assert f"`{name}`" in str(e) and (meant is None or f"Perhaps {e.suggested} was meant" in str(e))
    if isinstance(value, float):
        assert e.unit == FIELDS[name].unit and e.limit and e.cause


@given(st.sampled_from([n for n in REQUEST_FIELDS if FIELDS[n].unit]), st.floats(allow_nan=True) | st.integers())
def test_a_suggestion_is_never_applied(name, value):
    try:
        known, _ = check_request({name: value})
    except InputError:
        return
    assert known == {name: value} and type(known[name]) is float


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 10**400, [12.2], {"v": 12.2}, 1 + 2j, b"12"]
)
def test_what_is_not_one_finite_number_is_refused(value):
    with pytest.raises(InputError, match="ata_mm"):
        check_request({"ata_mm": value})


@pytest.mark.parametrize("request_", [None, [12.2], "ata_mm", 12.2, [("ata_mm", 12.2)]])
def test_a_request_is_a_mapping(request_):
    with pytest.raises(InputError, match="mapping"):
        check_request(request_)


def test_a_record_cannot_be_changed_afterwards():
    record = EyeRequest(**GOOD)
    with pytest.raises(ValidationError):
        record.ata_mm = 99.0


def test_numbers_of_numpy_are_numbers():
    known, _ = check_request(dict(ata_mm=np.float64(12.2), age_y=np.int64(31)))
    assert known == dict(age_y=31.0, ata_mm=12.2) and all(type(v) is float for v in known.values())


# JSON text and tables


@pytest.mark.parametrize(
    "text",
    [
        '{"ata_mm": 12.2, "ata_mm": 11.9}',
        '{"ata_mm": NaN}',
        '{"ata_mm": -Infinity}',
        "{",
        "[1]",
        "12.2",
        "",
        '{"ata_mm": 12,2}',
        b"\xff\xfe",
    ],
)
def test_text_that_is_no_request(text):
    with pytest.raises(InputError):
        read_request(text)


@given(st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=5)))
def test_any_json_object_is_read_back(request_):
    assert read_request(json.dumps(request_)) == request_


def test_requests_make_a_canonical_frame():
    eyes = request_frame([GOOD, dict(ata_mm=12.0, lt_mm=3.7)])
    assert list(eyes) == [n for n in REQUEST_FIELDS if n in {*GOOD, "lt_mm"}]
    pd.testing.assert_frame_equal(check_eyes(eyes), eyes)
    assert eyes["lt_mm"].isna().tolist() == [True, False] and eyes["eye"].tolist()[0] == "OD"
    assert request_frame([]).shape == (0, 0) and request_frame([{}, {}]).shape == (2, 0)


def test_the_row_of_a_bad_request_is_named():
    with pytest.raises(InputError) as e:
        request_frame([GOOD, GOOD, dict(ata_mm=122)])
    assert e.value.row == 2 and e.value.suggested == 12.2 and "row 2" in str(e.value)
