"""Intake never crashes, never loses a row, and never repairs by guessing."""

import json
import re
import time
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import lensnb
from lensnb.cohort import link_patients, mark_records, read_eyes, training_eyes
from lensnb.cells import MISSING, parse_cell, parse_number
from lensnb.intake import read_table, row_check, write_quarantine
from lensnb.review import quarantine_csv, quarantine_page
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


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
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
        eyes = read_table(tmp_path / "t.csv")
        sent = {row: line.split(";")[0] for row, line in enumerate(order, 2)}
        seen.append(sorted(sent[row] for row in eyes.attrs["rows"]))
    assert seen[0] == seen[1] and len(seen[0]) > 10


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
        ("\n\n  \n", "utf-8", "holds no rows"),
        ("", "utf-8", "holds no rows"),
        ("eye_id,ata_mm,ata_mm\na,12.2,12.3\n", "utf-8", "`ata_mm` stands twice"),
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
    assert eyes[["size_mm", "ata_mm"]].to_numpy().tolist() == [[13.2, 12.2], [13.2, 12.1]]
    assert codes(eyes) == [] and eyes["eye_id"].nunique() == 2 and not set(eyes["eye_id"]) & {"a", "b"}


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


def test_an_open_quotation_mark_tears_its_row_and_swallows_no_other(tmp_path):
    eyes = read(tmp_path, 'eye_id,size_mm,ata_mm\na,13.2,12.2\n"b,13.2,12.2\nc,13.2,12.2\n')
    assert codes(eyes) == [(3, "torn_row")] and eyes.attrs["rows"] == [2, 4]
    eyes = read(tmp_path, 'eye_id,size_mm,ata_mm\na,"' + "1" * 140_000 + '",12.2\nb,13.2,12.2\n')
    assert [c[0] for c in codes(eyes)] == [2] and len(repr(eyes.attrs)) < 3000, "a monstrous cell is not repeated"


def test_zero_has_no_sign(tmp_path):
    eyes = read(tmp_path, "eye_id,clr_um\na,-0\nb,-0.0\nc,0\n")
    assert not np.signbit(eyes["clr_um"]).any()


def test_a_copy_of_a_refused_row_is_no_copy(tmp_path):
    eyes = read(tmp_path, "eye_id,size_mm,vault_um\na,12.5,600\na,,600\n")
    assert codes(eyes) == [(2, "choice")] and len(eyes) == 1, "an unreadable size is not an empty one"


def test_eyes_without_a_name_are_different_eyes(tmp_path):
    read(tmp_path, "eye_id,patient_id,size_mm,ata_mm\n,p,13.2,12.2\n,,13.2,12.1\nc,,13.2,12.0\n")
    eyes = read_eyes(tmp_path / "t.csv")
    assert eyes["eye_id"].tolist() == ["eye-00002", "eye-00003", "eye-00004"] and (eyes["record"] == "eye").all()
    assert eyes["patient_id"].tolist() == ["patient-00002", "eye-00003", "eye-00004"]


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
    assert codes(eyes) == [] and eyes["eye_id"].tolist() == ["patient-00002-OD", "patient-00003-OS"]
    assert eyes["patient_id"].tolist() == ["patient-00002", "patient-00003"], "two long numbers, two patients"
    assert eyes["size_mm"].tolist() == [13.2, 12.6] and eyes["ata_mm"].dropna().tolist() == [12.21]
    assert eyes["age_y"].dropna().tolist() == [31.0] and eyes["lt_mm"].isna().all()
    assert eyes["surgery_date"].dropna().tolist() == [pd.Timestamp(2026, 2, 3)] and eyes["exam_date"].notna().all()


def test_a_whole_number_is_the_same_name_in_csv_and_parquet(tmp_path):
    frame, key = pd.DataFrame({"patient_id": [17, np.nan], "size_mm": 13.2, "ata_mm": [12.2, 12.3]}), bytes(32)
    frame.to_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("patient_id,size_mm,ata_mm\n17,13.2,12.2\n,13.2,12.3\n")
    one, two = (read_table(tmp_path / f"t.{kind}", key=key, clinic="c") for kind in ("parquet", "csv"))
    assert one["patient_id"].dropna().tolist() == two["patient_id"].dropna().tolist() and len(one) == 2


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


# Identities: what comes in must not come out

KEY = bytes(range(32))
HEAD = ["patient_id", "name", "birth_date", "eye", "exam_date", "surgery_date", "age_y", "size_mm", "ata_mm", "cct_um"]
HEAD += ["vault_um", "vault_device", "clinic_id"]
NAMES = [
    "Kim Minji",
    "Ana Pérez",
    "Grünwald, Käthe",
    "O'Brien Seán",
    "Li Xiaolong",
    "이영희수",
    "Nguyen Thi Hoa",
    "Zoltan Kovacs",
]
LETTERS = "ghijklmnopqrstuvwxyz"


@st.composite
def people(draw):
    """Lines of a table with identities, some of them torn, shifted or with cells exchanged; and every secret in it."""
    number = draw(st.sampled_from(["{}", "MRN-{}", "{}/A", "ch {}"]))
    count, rows, secrets = draw(st.integers(4, 9)), [], set()
    for i in range(count):
        name = draw(st.sampled_from(NAMES)) + " " + draw(st.text(LETTERS, min_size=6, max_size=8))
        birth = date(1960, 1, 1) + timedelta(days=draw(st.integers(0, 15_000)))
        mrn = number.format(draw(st.integers(10_000, 99_999) | st.integers(100_000, 9_999_999)))
        secrets |= {
            name,
            birth.isoformat(),
            re.sub(r"\D", "", mrn),
            *(w for w in re.findall(r"\w+", name) if len(w) > 4),
        }
        exam = date(2025, 6, 1) + timedelta(days=draw(st.integers(0, 200)))
        for side in draw(st.sampled_from([("OD",), ("OS",), ("OD", "OS")])):
            known = draw(st.booleans())
            rows.append(
                [
                    mrn,
                    name,
                    birth.isoformat(),
                    side,
                    exam.isoformat(),
                    (exam + timedelta(days=20)).isoformat(),
                    str((exam - birth).days // 366) if known else "",
                    draw(st.sampled_from(["12.6", "13.2", "12.5"])),
                    f"{draw(st.integers(1150, 1270)) / 100}",
                    str(draw(st.integers(500, 580))),
                    str(draw(st.integers(20, 90)) * 10),
                    "Visante",
                    "alder",
                ]
            )
    order = draw(st.permutations(range(len(HEAD))))
    head, rows = [HEAD[j] for j in order], [[row[j] for j in order] for row in rows]
    for i in draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=max(1, len(rows) // 4), unique=True)):
        harm = draw(st.sampled_from([slip, slip_back, tear, join, cross, cross, put, put]))
        rows[i] = harm(rows[i], head, draw)
    return head, rows, secrets


def slip(row, head, draw):
    k = draw(st.integers(1, 4))
    return [""] * k + row[:-k]


def slip_back(row, head, draw):
    k = draw(st.integers(1, 4))
    return row[k:] + [""] * k


def tear(row, head, draw):
    k = draw(st.integers(0, len(row) - 1))
    return row[:k] + [row[k][:2], row[k][2:]] + row[k + 1 :]


def join(row, head, draw):
    k = draw(st.integers(0, len(row) - 2))
    return row[:k] + [row[k] + " " + row[k + 1]] + row[k + 2 :]


def two_places(head, draw):
    """An identity column and another column."""
    mine = draw(st.sampled_from(["patient_id", "name", "birth_date"]))
    return head.index(mine), head.index(draw(st.sampled_from([h for h in HEAD if h != mine])))


def cross(row, head, draw):
    i, j = two_places(head, draw)
    row[i], row[j] = row[j], row[i]
    return row


def put(row, head, draw):
    i, j = two_places(head, draw)
    row[j] = row[i]
    return row


def everything_said(eyes, folder):
    """All that can leave: frames, attributes, CSV, page, parquet; without the hashes, whose digits mean nothing."""
    write_quarantine(eyes, folder / "q.csv")
    quarantine_csv(eyes, folder / "r.csv")
    quarantine_page(eyes, folder / "p.html")
    frame = eyes.copy()
    frame.attrs = {}
    frame.to_parquet(folder / "e.parquet")
    files = [(folder / f).read_text(encoding="utf-8") for f in ("q.csv", "r.csv", "p.html")]
    said = "\n".join([eyes.to_csv(), repr(eyes.attrs), json.dumps(eyes.attrs["held"], ensure_ascii=False), *files])
    said += pd.read_parquet(folder / "e.parquet").to_string()
    return re.sub(r"\b[0-9a-f]{64}\b|\b[pe]-[0-9a-f]{16}\b|source-[0-9a-f]{8}", "", said)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(people(), st.booleans(), st.sampled_from([";", ",", "\t"]))
def test_no_name_number_or_birth_of_the_input_is_in_any_output(tmp_path, table, keyed, separator):
    head, rows, secrets = table
    quoted = [[f'"{c}"' if separator in c else c for c in row] for row in rows]
    path = tmp_path / "Kim Minji 1990.csv"
    path.write_text("\n".join(separator.join(r) for r in [head, *quoted]) + "\n", encoding="utf-8")
    eyes = read_table(path, key=KEY if keyed else None, clinic="alder" if keyed else None, strict=keyed)
    facts = eyes.attrs["intake"]
    assert facts["received"] == len(rows) == facts["accepted"] + facts["quarantined"]
    assert [h["row"] for h in eyes.attrs["held"]] == sorted(
        {r["row"] for r in eyes.attrs["quarantine"] if r["severity"] == "block"}
    )
    said = everything_said(eyes, tmp_path)
    assert "Kim Minji 1990" not in said and "birth_date" not in eyes and "name" not in eyes
    for secret in secrets:
        assert secret not in said, secret


SOUND = ["4071101;A Bx;1994-05-02;OD;2026-01-10;540;Visante", "4071102;C Dx;1990-05-02;OD;2026-01-10;541;Visante"]


@pytest.mark.parametrize(
    "row, secret, defence",
    [
        ("4071103;E Fx;1985-03-09;OD;2026-01-10;4071101;Visante", "4071101", "long numbers"),
        ("40713;E Fx;1985-03-09;OD;2026-01-10;40713;Visante", "40713", "the file's own identifiers"),
        (";E Fx;1985-03-09;OD;2026-01-10;51822;Visante", "51822", "a blank identity cell"),
        ("540;E Fx;1985-03-09;OD;2026-01-10;4071555;Visante", "4071555", "numbers as long as record numbers"),
        ("4071103;E Fx;;OD;1992-03-09;540;Visante", "1992-03-09", "a date where the births lie"),
        ("4071103;E Fx;2026-01-10;OD;1985-03-09;540;Visante", "1985-03-09", "an examination before the birth"),
        ("4071103;E Fx;1985-03-09;OD;1985-03-09;540;Visante", "1985-03-09", "a date that is a birth"),
        ("4071103;E Fx;1985-03-09;OD;2026-01-10;540;Jo Smithson", "Smithson", "words by allow-list"),
        ("4071103;Visante;1985-03-09;OD;2026-01-10;540;Jo Smithson", "Smithson", "words by allow-list"),
        ("Jo Smithson;1985-03-09;OD;2026-01-10;540;Visante;", "Smithson", "a pseudonym of whatever stands there"),
        ("Jo Smithson;1985-03-09;OD;2026-01-10;540;Visante;", "1985-03-09", "a slipped row"),
        ("4071103;E Fx;1985-03-09;19850309;2026-01-10;540;Visante", "19850309", "a choice is masked"),
    ],
)
def test_each_line_of_defence_holds_alone(tmp_path, row, secret, defence):
    head = "patient_id;name;birth_date;eye;exam_date;cct_um;vault_device"
    eyes = read(tmp_path, "\n".join([head, *SOUND, row]) + "\n")
    assert secret not in everything_said(eyes, tmp_path), defence


def test_the_search_above_would_find_a_leak(tmp_path):
    eyes = read(tmp_path, "patient_id,name,eye,size_mm,ata_mm\n4711007,Kim Minji,OD,13.2,12.2\n")
    assert "Kim Minji" not in everything_said(eyes, tmp_path)
    assert "Kim Minji" in everything_said(eyes.assign(vault_device="Kim Minji"), tmp_path)


def test_identities_are_pseudonyms_ages_are_counted_and_births_forgotten(tmp_path):
    text = (
        "patient_id;name;birth_date;eye;exam_date;size_mm;ata_mm\n"
        "P-1;Ann Example;1994-05-02;OD;2026-05-01;13.2;12.21\n"
        "p-1 ;Ann Example;1994-05-02;left;2026-05-02;13.2;12.20\n"
        "P-2;Bob Example;1980-01-01;OD;;13.2;12.30\n"
    )
    eyes = read(tmp_path, text)
    assert eyes["patient_id"].tolist() == ["patient-00002", "patient-00002", "patient-00004"]
    assert eyes["eye_id"].tolist() == ["patient-00002-OD", "patient-00002-OS", "patient-00004-OD"]
    assert eyes["age_y"].tolist()[:2] == [31, 32] and np.isnan(eyes["age_y"][2]), "no examination, no age of today"
    one, two = (read_table(tmp_path / "t.csv", key=k, clinic="alder") for k in (KEY, KEY[::-1]))
    assert one["patient_id"].str.fullmatch("p-[0-9a-f]{16}").all() and not set(one["patient_id"]) & set(
        two["patient_id"]
    )
    assert read_table(tmp_path / "t.csv", key=KEY, clinic="birch")["patient_id"][0] != one["patient_id"][0]


def test_an_age_that_contradicts_the_birth_is_refused(tmp_path):
    text = "patient_id,birth_date,exam_date,eye,age_y,ata_mm\n"
    rows = [
        "1,1994-05-02,2026-05-01,OD,31,12.2",
        "2,1994-05-02,2026-05-01,OD,36,12.2",
        "3,1994-05-02,1990-05-01,OD,,12.2",
    ]
    eyes = read(tmp_path, text + "\n".join(rows))
    assert codes(eyes) == [(3, "age"), (4, "age")] and eyes.attrs["quarantine"][0]["suggested"] == 31
    assert "1990" not in json.dumps(eyes.attrs["held"]), "a date of a doubtful row is not held"


def test_the_stores_road_wants_patient_and_side(tmp_path):
    text = "patient_id,eye,size_mm,ata_mm\n1,OD,13.2,12.2\n,OD,13.2,12.1\n2,,13.2,12.0\n3,OU,13.2,12.3\n"
    read(tmp_path, text)
    strict = read_table(tmp_path / "t.csv", key=KEY, clinic="c", strict=True)
    assert codes(strict) == [(3, "patient_missing"), (4, "eye_missing"), (5, "choice")] and len(strict) == 1
    assert len(read_table(tmp_path / "t.csv")) == 3, "a table in memory may lack them"


def test_a_word_is_kept_only_where_it_is_known(tmp_path):
    rows = ["1,OD,Visante,1.28r4,12.2", "1,OS,Dr Kim,Kim,12.1", "2,OD,Dr Kim,,12.3"]
    eyes = read(tmp_path, "patient_id,eye,vault_device,software,ata_mm\n" + "\n".join(rows))
    assert eyes["vault_device"].tolist() == ["Visante", "device-00003", "device-00003"]
    assert eyes["software"].tolist()[:2] == ["1.28r4", "software-00003"] and len(eyes) == 3
    assert [r["code"] for r in eyes.attrs["quarantine"]] == ["text", "text"] and "Kim" not in repr(eyes.attrs)


@pytest.mark.parametrize(
    "rows, found",
    [
        (["1,OD,2026-01-02,2026-02-01,600", "1,OD,2026-01-02,2026-02-01,600"], [(3, "copy")]),
        (["1,OD,2026-01-02,2026-02-01,600", "1,OD,2026-01-02,2026-02-01,700"], [(2, "conflict"), (3, "conflict")]),
        (["1,OD,2026-01-02,,", "1,right,2026-01-02,,"], [(3, "copy")]),
        (["1,OD,2026-01-02,,", "1,OS,2026-01-02,,"], []),
        (["1,OD,2026-01-02,2026-02-01,600", "1,OD,2026-01-02,2026-05-01,500"], []),
        (["1,OD,2026-03-02,2026-02-01,600"], [(2, "order")]),
        (["1,OD,2026-01-02,2026-02-01,600", "2,OD,2026-01-02,,600"], [(3, "postop")]),
    ],
)
def test_rows_that_contradict_each_other_or_the_calendar(tmp_path, rows, found):
    eyes = read(tmp_path, "patient_id,eye,exam_date,surgery_date,vault_um\n" + "\n".join(rows) + "\n")
    assert [c for c in codes(eyes) if c[1] != "twins"] == found


def test_no_date_lies_after_the_day_of_the_export(tmp_path):
    read(tmp_path, "patient_id,eye,exam_date,ata_mm\n1,OD,2026-01-02,12.2\n2,OD,2026-02-02,12.2\n")
    assert codes(read_table(tmp_path / "t.csv", today="2026-01-15")) == [(3, "future")]
    assert codes(read_table(tmp_path / "t.csv")) == [], "the library has no clock of its own"


def test_a_file_sent_again_counts_once_and_a_changed_row_is_a_correction(tmp_path):
    text = "patient_id,eye,exam_date,ata_mm\n1,OD,2026-01-02,12.2\n1,OS,2026-01-02,12.1\n"
    first = read(tmp_path, text)
    (tmp_path / "u.csv").write_text(text.replace("12.1", "12.3"))
    first, again = (read_table(tmp_path / f, key=KEY, clinic="c") for f in ("t.csv", "u.csv"))
    again = read_table(tmp_path / "u.csv", key=KEY, clinic="c", known=first)
    assert codes(again) == [(2, "reimport"), (3, "correction")] and again.attrs["intake"]["reimported"] == 1
    assert again["ata_mm"].tolist() == [12.3]


def test_the_depth_is_derived_only_where_both_parts_are_known(tmp_path):
    text = "patient_id,eye,acd_ext_mm,cct_um,ata_mm\n1,OD,3.75,550,12.2\n2,OD,3.75,,12.2\n3,OD,2.65,560,12.2\n"
    eyes = read(tmp_path, text)
    assert eyes["acd_mm"].tolist()[:1] == [3.2] and np.isnan(eyes["acd_mm"][1]) and (4, "hard") in codes(eyes)
    assert eyes["acd_ext_mm"].tolist() == [3.75, 3.75] and (2, "derived") in codes(eyes)


def test_the_files_name_is_nowhere_and_a_heading_may_be_masked(tmp_path):
    (tmp_path / "Kim Minji.csv").write_text("patient_id,eye,ata_mm,Kim Minji 19940502,remark\n1,OD,12.2,x,y\n")
    eyes = read_table(tmp_path / "Kim Minji.csv")
    assert eyes.attrs["intake"]["ignored"] == ["[heading, 18 characters]", "remark"] and "Kim" not in repr(eyes.attrs)
    assert re.fullmatch("source-[0-9a-f]{8}", eyes.attrs["intake"]["source"])


def test_a_file_without_headings_is_refused_without_quoting_it(tmp_path):
    with pytest.raises(InputError) as e:
        read(tmp_path, "Kim Minji;1994-05-02;13.2;12.2\nAnn Example;1990-01-01;12.6;12.0\n")
    assert "Kim" not in str(e.value) and "1994" not in str(e.value)


def test_held_rows_say_what_was_sent_and_only_in_canonical_columns(tmp_path):
    eyes = read(tmp_path, "eye_id,patient_id,size_mm,ata_mm,remark\na,4711007,13.2,122,4711007\nb,2,12,5,x,y\n")
    assert eyes.attrs["held"][0] == dict(
        row=2, eye_id="eye-00002", patient_id="patient-00002", size_mm="13.2", ata_mm="122"
    )
    assert eyes.attrs["held"][1]["row"] == 3 and "ata_mm" not in eyes.attrs["held"][1], (
        "nobody knows a torn row's cells"
    )


def test_row_check_without_dates_or_eyes_finds_nothing():
    assert row_check(pd.DataFrame({"ata_mm": [12.2, 12.2]})) == []


def test_ten_thousand_rows_take_seconds(tmp_path):
    rng = np.random.default_rng(0)
    n = 10_000
    exam = pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 300, n), unit="D")
    frame = pd.DataFrame({"patient_id": np.arange(n) // 2 + 4_000_000, "name": [f"Person {i // 2}" for i in range(n)]})
    frame = frame.assign(
        birth_date=[f"{y}-03-0{d}" for y, d in zip(rng.integers(1970, 2004, n), rng.integers(1, 9, n))]
    )
    frame = frame.assign(eye=np.tile(["OD", "OS"], n // 2), exam_date=exam.strftime("%Y-%m-%d"))
    frame = frame.assign(size_mm=rng.choice([12.6, 13.2], n), vault_device="CASIA2")
    for name, mean, sd, digits in [
        ("ata_mm", 12, 0.3, 2),
        ("acd_mm", 3.3, 0.2, 2),
        ("wtw_mm", 11.8, 0.3, 1),
        ("k_d", 44, 1.2, 2),
    ]:
        frame[name] = rng.normal(mean, sd, n).round(digits)
    for name, mean, sd in [("cct_um", 54, 2), ("clr_um", 5, 10), ("vault_um", 60, 12)]:
        frame[name] = rng.normal(mean, sd, n).astype(int) * 10
    frame.to_csv(tmp_path / "big.csv", index=False)
    start = time.perf_counter()
    eyes = read_table(tmp_path / "big.csv", key=KEY, clinic="c", strict=True)
    took = time.perf_counter() - start
    assert eyes.attrs["intake"]["received"] == n and len(eyes) > 0.95 * n and took < 20, took


def test_a_record_that_calls_itself_preoperative_holds_no_outcome(tmp_path):
    eyes = read(
        tmp_path, "patient_id,eye,visit,ata_mm,vault_um\n1,OD,pre-op,12.2,600\n1,OS,pre-op,12.1,\n2,OD,1 month,12,610\n"
    )
    assert codes(eyes) == [(2, "postop")] and len(eyes) == 2


def test_rows_numbered_by_their_place_are_never_compared_with_another_file(tmp_path):
    first = read(tmp_path, "patient_id,eye,exam_date,ata_mm\n1,OD,2026-01-02,12.2\n")
    with pytest.raises(InputError, match="numbered by their place"):
        read_table(tmp_path / "t.csv", known=first)


def test_a_device_of_a_clinics_own_profile_is_no_person(tmp_path):
    (tmp_path / "own.toml").write_text(
        'name = "own"\nextends = "canonical"\nrequire = ["our id"]\ninstruments = ["MyScan"]\n'
        '[identity]\npatient_id = ["our id"]\n'
    )
    read(tmp_path, "our id,eye,vault_device,ata_mm,vault_um\n40711,OD,MyScan 3,12.2,600\n40712,OD,Kim,12.2,600\n")
    eyes = read_table(tmp_path / "t.csv", profiles=tmp_path / "own.toml")
    assert eyes["vault_device"].tolist() == ["MyScan 3", "device-00003"] and "40711" not in repr(eyes.attrs)
    assert eyes["patient_id"].tolist() == ["patient-00002", "patient-00003"]
