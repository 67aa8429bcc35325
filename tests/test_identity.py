"""Nothing that names a person leaves the door: pseudonyms, ages, masks."""

import hashlib
import hmac
import os
import stat
from datetime import date

import pandas as pd
import pytest
from hypothesis import given, strategies as st

from lensnb.identity import (
    PSEUDONYM,
    age_at,
    birth_day,
    eye_pseudonym,
    file_secrets,
    identifying,
    load_key,
    mask,
    mask_heading,
    name_eyes,
    name_patients,
    plain_id,
    pseudonym,
)
from lensnb.schema import InputError

KEY = bytes(range(32))
IDS = st.text(min_size=1, max_size=20).filter(lambda s: plain_id(s))


@given(IDS, IDS)
def test_a_pseudonym_depends_on_key_clinic_and_patient_and_on_nothing_else(clinic, patient):
    p = pseudonym(KEY, clinic, patient)
    assert (
        PSEUDONYM.fullmatch(p)
        and p == pseudonym(KEY, f" {clinic} ", patient.upper().lower())
        or patient != (patient.upper().lower())
    )
    assert p != pseudonym(KEY[::-1], clinic, patient) and p != pseudonym(KEY, clinic + "x", patient)
    assert p != pseudonym(KEY, clinic, patient + "x")


def test_a_pseudonym_is_the_standard_keyed_hash():
    said = "\x1f".join(["patient", "alder", "p-0017"]).encode()
    expected = hmac.new(KEY, said, hashlib.sha256).hexdigest()[:16]
    assert pseudonym(KEY, " Alder", "P-0017") == "p-" + expected


def test_parts_cannot_be_moved_from_the_clinic_to_the_patient():
    assert pseudonym(KEY, "alder1", "7") != pseudonym(KEY, "alder", "17")
    assert pseudonym(KEY, "a\x1fb", "c") != pseudonym(KEY, "a", "b\x1fc"), "the separator is dropped from ids"


@given(st.text(max_size=20))
def test_one_form_of_an_id_is_stable(text):
    assert plain_id(plain_id(text)) == plain_id(text)
    assert plain_id(f"\u200b {text}\t") == plain_id(text)


@pytest.mark.parametrize(
    "patient, key", [("", KEY), (" \u200b", KEY), ("17", b""), ("17", b"x" * 15), ("17", "secret")]
)
def test_an_empty_id_or_a_weak_key_has_no_pseudonym(patient, key):
    with pytest.raises(InputError):
        pseudonym(key, "alder", patient)


@pytest.mark.parametrize("side", ["", "OU", "od", "R", None])
def test_an_eye_has_a_side(side):
    with pytest.raises(InputError, match="OD, OS"):
        eye_pseudonym("p-0", side)


def test_a_key_is_made_once_closed_and_never_replaced(tmp_path):
    path = tmp_path / "keys" / "clinic.key"
    with pytest.raises(InputError, match="no key"):
        load_key(path)
    key = load_key(path, create=True)
    assert load_key(path) == load_key(path, create=True) == key and len(key) == 32
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(InputError, match="0600"):
        load_key(path)
    path.chmod(0o600)
    path.write_text("not a key")
    with pytest.raises(InputError, match="not a key") as e:
        load_key(path)
    assert "not a key at all" not in str(e.value)


@pytest.mark.parametrize("inside", [".git", "batches"])
def test_a_key_beside_the_data_or_in_a_repository_is_refused(tmp_path, inside):
    (tmp_path / inside).mkdir()
    (tmp_path / "a" / "b").mkdir(parents=True)
    for create in (True, False):
        with pytest.raises(InputError, match="lies inside"):
            load_key(tmp_path / "a" / "b" / "clinic.key", create=create)
    assert not list((tmp_path / "a" / "b").iterdir()), "refused before anything was written"


def test_a_link_to_a_key_inside_a_store_is_refused(tmp_path):
    (tmp_path / "store" / "batches").mkdir(parents=True)
    hidden = tmp_path / "store" / "clinic.key"
    hidden.write_text("0" * 64)
    hidden.chmod(0o600)
    (tmp_path / "link.key").symlink_to(hidden)
    with pytest.raises(InputError, match="inside a store"):
        load_key(tmp_path / "link.key")


NAMED = st.lists(st.sampled_from(["17", "17 ", "A-4", "a\u20114", "99", None]), min_size=1, max_size=12)


@given(NAMED, st.lists(st.sampled_from(["alder", "birch"]), min_size=12, max_size=12), st.booleans())
def test_numbered_and_keyed_names_split_the_rows_alike(ids, clinics, shuffled):
    index = range(2, 2 + len(ids))
    ids, clinics = pd.Series(ids, index=index, dtype=object), pd.Series(clinics[: len(ids)], index=index)
    rows, keyed = name_patients(ids, clinics), name_patients(ids, clinics, KEY)
    assert [i is None for i in ids] == [r is None for r in rows] == [k is None for k in keyed]
    there = ids.notna()
    assert (pd.factorize(rows[there])[0] == pd.factorize(keyed[there])[0]).all()
    for row, name in rows[there].items():
        assert int(name.split("-")[1]) <= row, "numbered by the first row"
    again = name_patients(keyed, clinics, KEY)
    assert again[there].tolist() == keyed[there].tolist(), "a pseudonym is not hashed again"


def test_eyes_are_named_by_patient_and_side_else_by_their_own_id():
    index = [2, 3, 4, 5]
    ids = pd.Series(["x", "y", None, "y"], index=index, dtype=object)
    patients = pd.Series(["p-1", None, "p-1", "p-2"], index=index, dtype=object)
    sides = pd.Series(["OD", "OD", None, None], index=index, dtype=object)
    clinics = pd.Series("", index=index)
    assert name_eyes(ids, patients, sides, clinics).tolist() == ["p-1-OD", "eye-00003", None, "eye-00003"]
    keyed = name_eyes(ids, patients, sides, clinics, KEY)
    assert keyed[3] == keyed[5] and PSEUDONYM.fullmatch(keyed[3]) and "y" not in keyed[3]


@given(st.dates(date(1900, 1, 1), date(2026, 1, 1)), st.integers(0, 36500))
def test_age_counts_birthdays(birth, days):
    exam = date.fromordinal(min(birth.toordinal() + days, date(2099, 12, 31).toordinal()))
    age = age_at(birth, exam)

    def birthday(k):
        try:
            return birth.replace(year=birth.year + k)
        except ValueError:
            return date(birth.year + k, 3, 1)

    assert birthday(age) <= exam < birthday(age + 1)


@given(st.dates(date(1900, 1, 1), date(2099, 12, 31)))
def test_a_birth_date_is_read_in_the_stated_order_only(day):
    assert birth_day(day.isoformat()) == birth_day(f"{day:%Y-%m-%d} 00:00:00") == day
    assert birth_day(f"{day:%d.%m.%Y}", "dmy") == birth_day(f"{day:%m/%d/%Y}", "mdy") == day
    assert birth_day(f"{day:%d.%m.%Y}") is None and birth_day(f"{day:%d.%m.%y}", "dmy") is None


def test_an_examination_before_the_birth_is_refused_without_telling_the_birth():
    with pytest.raises(InputError) as e:
        age_at(date(2026, 5, 2), date(1994, 5, 2))
    assert "2026" not in str(e.value) and "1994" not in str(e.value)


LETTERS = st.text(alphabet="abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZéüñ김민지 -'", min_size=4, max_size=24)


@given(LETTERS.filter(lambda s: len(plain_id(s)) >= 4), st.text(alphabet="0123456789.,-", max_size=4))
def test_a_name_is_never_shown(name, around):
    shown = mask(around + name + around)
    assert name.strip() not in shown or name.strip().lower() in (
        "none",
        "null",
        "left",
        "right",
        "true",
        "false",
        "text",
    )


@given(st.integers(100_001, 10**12), st.integers(0, 6))
def test_a_long_number_is_never_shown(number, point):
    digits = str(number)
    for text in (digits, digits[:point] + "." + digits[point:], f"{digits} mm", f"-{digits}"):
        shown = mask(text)
        assert digits not in shown.replace(".", "") or (len(digits) == 6 and "000" in digits)


@given(st.integers(10_000, 99_999_999), st.sampled_from(["{}", "0{}", "{}.0", "-{} um", "{} mm"]))
def test_an_identifier_of_the_file_is_never_shown(number, form):
    secrets = file_secrets([f"MRN {number}"])
    assert str(number) not in mask(form.format(number), secrets)
    split = f"{str(number)[:-2]},{str(number)[-2:]}"
    assert mask(split, secrets) != split, "a separator inside does not help"


@given(
    st.dates(date(1900, 1, 1), date(2099, 12, 31)),
    st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%d/%m/%y", "%Y%m%d", "%d %m %Y"]),
)
def test_a_date_is_never_shown(day, form):
    assert f"{day:{form}}" not in mask(f"{day:{form}}")


@pytest.mark.parametrize(
    "text", ["12.2", "-12,6", "122.1 mm", "0.12", "1,234", "3.l2", "545 µm", "544000", "-9999", "OD", "7901"]
)
def test_a_measurement_is_shown_as_it_stands(text):
    assert mask(text) == text


def test_headings():
    assert identifying("Patient_Name") and identifying("dateOfBirth") and not identifying("acd_mm")
    assert mask_heading("remark") == "remark" and mask_heading("Kim 19940502").startswith("[heading")
    assert mask_heading("Kim", file_secrets(["kim"])) == "[heading, 3 characters]"
