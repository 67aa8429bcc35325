"""Which first eye may speak: matched by patient, never the eye itself, never a result that training would not use."""

import numpy as np
import pandas as pd
import pytest

from lensnb.schema import InputError
from lensnb.second import first_results, match, too_late, why_silent

SIZES = (12.1, 12.6, 13.2, 13.7)


def results(**changes) -> pd.DataFrame:
    row = dict(eye_id="p-OD", patient_id="p", eye="OD", size_mm=13.2, vault_um=600.0, vault_day=60.0)
    return first_results(pd.DataFrame([{**row, **changes}]))


SECOND = pd.DataFrame({"eye_id": ["p-OS"], "patient_id": ["p"], "eye": ["OS"]})


def told(first, second=SECOND, **kwargs) -> str:
    found = match(second, first, why_silent(first, SIZES, **kwargs))
    assert (found["place"].iloc[0] >= 0) == (found["why"].iloc[0] == "") or second["patient_id"].iloc[0] != "p"
    return found["why"].iloc[0]


def test_a_good_result_speaks():
    assert told(results()) == "" and told(results(vault_day=28.0)) == "" and told(results(vault_day=np.nan)) == ""
    assert told(results(vault_device="Visante"), devices=("Visante",)) == ""


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(vault_um=None), "no vault"),
        (dict(size_mm=None), "lens size"),
        (dict(vault_day=27.0), "before day 28"),
        (dict(vault_device="Pentacam"), "another device"),
        (dict(record="exchange"), "exchanged"),
        (dict(eye="OS"), "this very eye"),
        (dict(eye_id="p-OS", eye=None), "this very eye"),
    ],
)
def test_a_result_that_may_not_speak_says_why(changes, said):
    assert said in told(results(**changes), devices=("Visante",))


def test_a_size_that_the_model_does_not_know():
    first = results(size_mm=12.1)
    assert "unknown to the model" in why_silent(first, (12.6, 13.2)).iloc[0] and why_silent(first, SIZES).iloc[0] == ""


def test_two_first_eyes_and_strangers():
    two = first_results(pd.concat([results(), results(eye_id="p-x")]))
    assert told(two) == "the patient has 2 first eyes"
    stranger = SECOND.assign(patient_id="q")
    found = match(stranger, results(), why_silent(results(), SIZES))
    assert found["place"].iloc[0] == -1 and found["why"].iloc[0] == ""
    nobody = SECOND.assign(patient_id=None)
    unnamed = first_results(results().assign(patient_id=None))
    assert match(nobody, unnamed, why_silent(unnamed, SIZES))["place"].iloc[0] == -1, "a missing name is nobody's name"


def test_dates_decide_when_they_are_known():
    first = results(surgery_date=pd.Timestamp("2026-03-02"), vault_day=60.0)
    day = lambda d: SECOND.assign(surgery_date=pd.Timestamp(d))
    assert told(first, day("2026-05-01")) == "" and "after this eye's surgery" in told(first, day("2026-04-30"))
    assert told(first) == "" and told(results(), day("2026-04-30")) == "", "unknown dates decide nothing"
    assert not too_late(first, SECOND.assign(surgery_date=pd.NaT)).any()


def test_rows_find_their_own_patient_in_any_order():
    first = pd.concat([results(eye_id=f"{p}-OD", patient_id=p) for p in "abcde"], ignore_index=True)
    second = pd.concat([SECOND.assign(eye_id=f"{p}-OS", patient_id=p) for p in "ecxad"], ignore_index=True)
    second.index = [11, 7, 5, 3, 2]
    found = match(second, first, why_silent(first, SIZES))
    assert found.index.tolist() == [11, 7, 5, 3, 2] and found["place"].tolist() == [4, 2, -1, 0, 3]


@pytest.mark.parametrize("lacks", ["patient_id", "size_mm", "vault_um", "ata_mm"])
def test_a_table_that_lacks_a_column_is_refused(lacks):
    with pytest.raises(InputError, match=lacks):
        first_results(results().assign(ata_mm=12.0).drop(columns=lacks), need=["ata_mm"])


def test_tables_that_are_none():
    with pytest.raises(InputError, match="DataFrame"):
        first_results([{"patient_id": "p"}])
    with pytest.raises(InputError, match="vault_um"):
        results(vault_um=9999.0)
    with pytest.raises(InputError, match="patient_id"):
        match(SECOND.drop(columns="patient_id"), results(), why_silent(results(), SIZES))
