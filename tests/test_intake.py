"""Intake never crashes, never loses a row, and never repairs by guessing."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import lensnb
from lensnb.cohort import link_patients, mark_records, read_eyes, training_eyes
from lensnb.intake import MISSING, parse_cell, parse_number, read_table
from lensnb.schema import FIELDS, InputError, judge, suggest

NUMBERS = [f for f in FIELDS.values() if f.kind == "number"]


@given(st.sampled_from(sorted(FIELDS)), st.text(max_size=12))
def test_no_cell_crashes_and_a_value_is_always_possible(name, cell):
    parsed = parse_cell(name, cell)
    if parsed.value is not None and FIELDS[name].hard:
        lo, hi = FIELDS[name].hard
        assert lo <= parsed.value <= hi
    if parsed.code not in ("ok", "missing", "soft"):
        assert parsed.message and (parsed.value is None or FIELDS[name].kind == "choice")


@given(st.sampled_from(NUMBERS), st.data())
def test_a_printed_value_is_read_back(field, data):
    grid = field.resolution or 0.01
    lo, hi = (round(x / grid) for x in field.hard)
    value = round(data.draw(st.integers(int(lo) + 1, int(hi) - 1)) * grid, 6)
    for text in (
        f"{value:g}",
        f"{value:g}".replace(".", ","),
        f" {value:g} {field.unit}",
        f"{value:g}".replace("-", "−"),
    ):
        parsed = parse_cell(field.name, text)
        assert parsed.code in ("ok", "soft") and parsed.value == pytest.approx(value), (text, parsed)


@given(st.floats(9.6, 14.4).map(lambda v: round(v, 2)))
def test_a_lost_decimal_point_is_caught_and_suggested_but_not_applied(ata):
    parsed = parse_cell("ata_mm", f"{ata * 100:.0f}")
    assert parsed.code == "hard" and parsed.value is None
    assert parsed.suggested is None or parsed.suggested == pytest.approx(ata)


@pytest.mark.parametrize("token", sorted(MISSING))
def test_missing_is_missing_and_never_zero(token):
    assert parse_cell("clr_um", token).value is None and parse_cell("clr_um", token).code == "missing"


def test_units_other_than_the_fields_are_not_read_away():
    assert parse_number("12200 um", "mm") == [] and parse_number("545 µm", "um") == [545.0]
    assert suggest("cct_um", 544000) == 544.0 and judge("cct_um", 544000)[0] == "hard"


CELL = st.one_of(
    st.sampled_from(["12.2", "12,2", "0", "-9999", "", "13.2", "650", "OD", "p1", "x", "1,234", "2026-01-31"]),
    st.text(alphabet="0123456789.,-−mu ;", max_size=8),
)
TABLE = st.lists(st.lists(CELL, min_size=3, max_size=7), min_size=1, max_size=12)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(TABLE)
def test_received_is_accepted_plus_quarantined_whatever_is_sent(tmp_path, rows):
    path = tmp_path / "eyes.csv"
    lines = ["|".join(r).replace(";", "").split("|") for r in rows]
    path.write_text(
        "eye_id;size_mm;ata_mm;vault_um;eye\n" + "\n".join(";".join(r) for r in lines) + "\n", encoding="utf-8"
    )
    received = sum(any(c.strip() for c in r) for r in lines)
    if not received:
        with pytest.raises(InputError):
            read_table(path)
        return
    eyes = read_table(path)
    facts = eyes.attrs["intake"]
    assert facts["received"] == received == facts["accepted"] + facts["quarantined"] and facts["accepted"] == len(eyes)
    blocked = {r["row"] for r in eyes.attrs["quarantine"] if r["severity"] == "block"}
    assert len(blocked) == facts["quarantined"], "each quarantined row has a reason"


def test_a_row_order_does_not_change_what_is_accepted(tmp_path):
    rng = np.random.default_rng(3)
    rows = [
        f"e{i};{rng.choice(['13.2', '12.6', '12.5'])};{rng.normal(12.2, 1.2):.2f};{rng.integers(0, 230) * 10}"
        for i in range(80)
    ]
    seen = []
    for order in (rows, rows[::-1]):
        (tmp_path / "t.csv").write_text("eye_id;size_mm;ata_mm;vault_um\n" + "\n".join(order))
        seen.append(sorted(read_table(tmp_path / "t.csv")["eye_id"]))
    assert seen[0] == seen[1]


def test_quarantine_is_a_table_and_written_whole(tmp_path):
    (tmp_path / "t.csv").write_text("eye_id,size_mm,ata_mm\na,13.2,122\nb,13.2,12.2\n")
    eyes = lensnb.read_eyes(tmp_path / "t.csv")
    out = lensnb.write_quarantine(eyes, tmp_path / "q" / "quarantine.csv")
    assert pd.read_csv(out).loc[0, ["row", "column", "code", "suggested"]].tolist() == [2, "ata_mm", "hard", 12.2]
    assert list(out.parent.iterdir()) == [out], "no half-written file stays"


def test_unreadable_and_doubtful_files_are_refused_with_a_reason(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "b.csv").write_text("eye_id,ATA,size_mm\na,12.2,13.2\n")
    for name, words in [("a.parquet", "parquet"), ("b.csv", "ata_mm"), ("c.csv", "no file")]:
        with pytest.raises(InputError, match=words):
            read_eyes(tmp_path / name)


def test_linkage_is_invariant_to_ids_and_exchanges_never_train():
    rng = np.random.default_rng(0)
    n = 60
    eyes = pd.DataFrame(
        {
            "eye_id": [f"r{i}" for i in range(n)],
            "age_y": rng.integers(20, 50, n).astype(float),
            "wtw_mm": rng.normal(11.8, 0.4, n).round(1),
            "cct_um": rng.integers(48, 60, n) * 10.0,
            "acd_mm": rng.normal(3.3, 0.2, n).round(2),
            "ata_mm": rng.normal(12.2, 0.4, n).round(2),
            "k_d": rng.normal(44, 1.5, n).round(2),
            "size_mm": 13.2,
            "vault_um": 600.0,
        }
    )
    eyes.loc[11, eyes.columns[1:7]] = eyes.loc[10, eyes.columns[1:7]]
    eyes.loc[11, "size_mm"] = 12.6
    a, b = link_patients(eyes), link_patients(eyes.assign(eye_id=[f"z{i:03d}" for i in range(n)]))
    assert (pd.factorize(a["patient_id"])[0] == pd.factorize(b["patient_id"])[0]).all()
    assert a.loc[[10, 11], "record"].eq("exchange").all() and a.loc[10, "patient_id"] == a.loc[11, "patient_id"]
    assert not training_eyes(a)["eye_id"].isin(a.loc[[10, 11], "eye_id"]).any()
    assert mark_records(eyes)["record"].value_counts()["exchange"] == 2


def test_the_flow_of_training_eyes_adds_up_and_is_ordered():
    eyes = pd.DataFrame(
        {
            "eye_id": list("abcdef"),
            "record": ["eye", "exchange", "repeat", "eye", "eye", "eye"],
            "size_mm": 13.2,
            "vault_um": [600, 600, 600, np.nan, 600, 600],
            "vault_day": [90, 90, 90, np.nan, 5, 90],
            "orientation": ["horizontal"] * 5 + ["vertical"],
        }
    )
    flow = training_eyes(eyes).attrs["flow"]
    assert [f["eyes"] for f in flow] == [6, -1, -1, -1, -1, -1, 1]
