"""Intake never crashes, never loses a row, and never repairs by guessing."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import lensnb
from lensnb.cohort import link_patients, mark_records, read_eyes, training_eyes
from lensnb.intake import MISSING, parse_cell, parse_number, read_table
from lensnb.schema import FIELDS, InputError, check_eyes, judge, suggest

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


# Files and cells as they arrive on a bad day


def read(tmp_path, text, encoding="utf-8"):
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    return read_table(tmp_path / "t.csv")


def read_parquet(tmp_path, frame):
    frame.to_parquet(tmp_path / "t.parquet")
    return read_table(tmp_path / "t.parquet")


def codes(eyes):
    return [(r["row"], r["code"]) for r in eyes.attrs["quarantine"]]


@pytest.mark.parametrize(
    "text, encoding, words",
    [
        ("eye_id,size_mm\na,13.2\n", "utf-16", "cannot be read as text"),
        ("eye_id,size_mm\na,13.2\n", "utf-16-le", "cannot be read as text"),
        ("eye_id,size_mm,nom\na,13.2,Pérez\n", "latin-1", "cannot be read as text"),
        ("\n\n  \n", "utf-8", "holds no rows"),
        ("", "utf-8", "holds no rows"),
        ("eye_id,ata_mm,ata_mm\na,12.2,12.3\n", "utf-8", "`ata_mm` stands twice"),
        ('eye_id,size_mm\na,13.2\n"b,13.2\nc,13.2\n', "utf-8", "cut into cells. In row 3"),
        ('eye_id,size_mm\na,"' + "1" * 140_000 + '"\n', "utf-8", "cut into cells. In row 2"),
    ],
)
def test_a_file_that_cannot_be_read_whole_is_refused_whole(tmp_path, text, encoding, words):
    with pytest.raises(InputError, match=words):
        read(tmp_path, text, encoding)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffeye_id,size_mm,ata_mm\na,13.20,12.2\nb,13.2,12.1\n",
        "\n\neye_id,size_mm,ata_mm\na,13.2,12.2\n\nb,13.2,12.1\n\n",
        "eye_id,size_mm,ata_mm\ra,13.2,12.2\rb,13.2,12.1\r",
        "eye_id;size_mm;ata_mm\ra;13,2;12,2\rb;13,2;12,1\r",
        "eye_id,size_mm,ata_mm,,\r\na,13.2,12.2,,\r\nb,13.2,12.1,,\r\n",
        'eye_id,size_mm,ata_mm,remark\na,13.2,12.2,"two\nlines, and a comma"\nb,13.2,12.1,5" screen\n',
    ],
)
def test_blank_lines_line_ends_and_empty_margins_change_nothing(tmp_path, text):
    eyes = read(tmp_path, text)
    assert eyes[["eye_id", "size_mm", "ata_mm"]].to_numpy().tolist() == [["a", 13.2, 12.2], ["b", 13.2, 12.1]]
    assert codes(eyes) == []


def test_an_empty_column_is_missing_and_nothing_else(tmp_path):
    eyes = read(tmp_path, "eye_id,size_mm,ata_mm,exam_date,eye\na,13.2,,,\nb,12.6,,,\n")
    assert eyes[["ata_mm", "exam_date", "eye"]].isna().all(axis=None) and len(eyes) == 2 and codes(eyes) == []


@pytest.mark.parametrize(
    "name, cell, value, code",
    [
        ("size_mm", "13.20", 13.2, "ok"),
        ("size_mm", "13,200", 13.2, "ok"),
        ("vault_um", "1,234", 1234.0, "ok"),
        ("vault_um", "1.234,5", None, "unreadable"),
        ("vault_um", "12,345,678", None, "unreadable"),
        ("clr_um", "0,120", None, "grid"),  # 0.12 mm, and not 120 um with a thousands separator
        ("cct_um", "0,545", None, "hard"),
        ("clr_um", "\u2013120", -120.0, "ok"),
        ("clr_um", "\u20119990", None, "hard"),
        ("clr_um", "\u22129999", None, "missing"),
        ("clr_um", "\u2013", None, "missing"),
        ("clr_um", "1e400", None, "hard"),
        ("exam_date", "2026-01-31T10:00", pd.Timestamp(2026, 1, 31), "ok"),
        ("exam_date", "2026-01-31 10:00:00+00:00", pd.Timestamp(2026, 1, 31), "ok"),
        ("exam_date", "2026-01-3199", None, "date"),
        ("exam_date", "2026-01-31 or so", None, "date"),
        ("exam_date", "2026-02-30", None, "date"),
        ("exam_date", "0001-01-01", None, "date"),
        ("exam_date", "9999-12-31", None, "date"),
        ("exam_date", "1899-12-30", None, "date"),
    ],
)
def test_odd_cells(tmp_path, name, cell, value, code):
    parsed = parse_cell(name, cell)
    assert (parsed.value, parsed.code) == (value, code)
    eyes = read(tmp_path, f"eye_id;{name}\na;{cell}\n")
    assert len(eyes) == (code in ("ok", "soft", "missing"))


def test_zero_has_no_sign(tmp_path):
    eyes = read(tmp_path, "eye_id,clr_um\na,-0\nb,-0.0\nc,0\n")
    assert not np.signbit(eyes["clr_um"]).any()


def test_a_copy_of_a_refused_row_is_no_copy(tmp_path):
    eyes = read(tmp_path, "eye_id,size_mm,vault_um\na,12.5,600\na,,600\n")
    assert codes(eyes) == [(2, "choice")] and len(eyes) == 1, "an unreadable size is not an empty one"


def test_eyes_without_a_name_are_different_eyes(tmp_path):
    read(tmp_path, "eye_id,patient_id,size_mm,ata_mm\n,p,13.2,12.2\n,,13.2,12.1\nc,,13.2,12.0\n")
    eyes = read_eyes(tmp_path / "t.csv")
    assert eyes["eye_id"].tolist() == ["t-00002", "t-00003", "c"] and (eyes["record"] == "eye").all()
    assert eyes["patient_id"].tolist() == ["p", "t-00003", "c"]


def test_parquet_columns_of_every_kind_say_what_they_said(tmp_path):
    frame = pd.DataFrame(
        {
            "patient_id": [12345678901234567, 12345678901234568],
            "size_mm": np.array([13.2, 12.6], dtype="float32"),
            "ata_mm": pd.array([12.21, None], dtype="Float32"),
            "age_y": pd.array([31, None], dtype="Int64"),
            "lt_mm": [None, None],
            "eye": pd.Categorical(["OD", "OS"]),
            "exam_date": [pd.Timestamp(2026, 1, 2).date()] * 2,
            "surgery_date": pd.to_datetime(["2026-02-03", None]).tz_localize("UTC"),
            "remark": [[1, 2], []],
        },
        index=pd.Index(["a", "b"], name="eye_id"),
    )
    eyes = read_parquet(tmp_path, frame)
    assert codes(eyes) == [] and eyes["eye_id"].tolist() == ["a", "b"]
    assert eyes["patient_id"].tolist() == ["12345678901234567", "12345678901234568"]
    assert eyes["size_mm"].tolist() == [13.2, 12.6] and eyes["ata_mm"].dropna().tolist() == [12.21]
    assert eyes["age_y"].dropna().tolist() == [31.0] and eyes["lt_mm"].isna().all()
    assert eyes["surgery_date"].dropna().tolist() == [pd.Timestamp(2026, 2, 3)] and eyes["exam_date"].notna().all()


def test_a_whole_number_is_the_same_name_in_csv_and_parquet(tmp_path):
    eyes = read_parquet(tmp_path, pd.DataFrame({"patient_id": [17, np.nan], "size_mm": 13.2, "ata_mm": [12.2, 12.3]}))
    assert eyes["patient_id"].dropna().tolist() == ["17"]


def test_truth_values_are_no_measurements(tmp_path):
    eyes = read_parquet(tmp_path, pd.DataFrame({"eye_id": ["a"], "vault_um": [True], "clr_um": [False]}))
    assert len(eyes) == 0 and codes(eyes) == [(2, "unreadable")] * 2


@pytest.mark.parametrize("text", ["03/04/2026", "31/12/2026", "soon"])
def test_a_date_of_a_frame_in_memory_is_not_guessed(text):
    with pytest.raises(InputError, match="year-month-day"):
        check_eyes(pd.DataFrame({"exam_date": ["2026-01-31", text]}))
    day = pd.Timestamp(2026, 1, 31)
    for written in ("2026-01-31", day, day.date(), day.to_datetime64()):
        assert check_eyes(pd.DataFrame({"exam_date": pd.Series([written, None], dtype=object)}))["exam_date"][0] == day


def test_two_right_eyes_are_neither_one_eye_nor_one_patient():
    eyes = pd.DataFrame({"eye_id": ["a", "b"], "age_y": 31.0, "wtw_mm": 11.8, "cct_um": 540.0, "acd_mm": 3.1})
    eyes = eyes.assign(ata_mm=12.2, k_d=44.0, size_mm=13.2)
    assert mark_records(eyes)["record"].tolist() == ["eye", "repeat"]
    assert mark_records(eyes.assign(eye=["OD", "OS"]))["record"].tolist() == ["eye", "eye"]
    other = eyes.assign(acd_mm=[3.1, 3.2])
    assert link_patients(other.assign(eye=["OD", "OS"]))["patient_id"].nunique() == 1
    assert link_patients(other.assign(eye=["OD", "OD"]))["patient_id"].nunique() == 2
    assert link_patients(other.assign(eye=[None, None]))["patient_id"].nunique() == 1, "an unknown side forbids nothing"
