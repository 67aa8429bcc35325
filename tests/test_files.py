"""Every table that can be written is read back; every row of a damaged one is counted; nothing crashes."""

import csv
import datetime
import io

import numpy as np
import openpyxl
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from lensnb.cells import parse_cell
from lensnb.files import cell_text, cut, decode, find_separator, read_cells
from lensnb.schema import InputError

FAST = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "cp949", "latin-1"]
WORDS = {
    "cp949": ["김민지", "전안부 [㎛]", "비고", "우안", "각막직경(WTW)"],
    "cp1252": ["José", "Präzision – 12 µm", "Größe", "Müller, Ö.", "ACA (180°)", "“a”"],
    "latin-1": ["José", "Präzision 12 µm", "Größe", "ACA (180°)"],
}


def put(tmp_path, raw, name="t.csv"):
    (tmp_path / name).write_bytes(raw)
    return tmp_path / name


# Whatever comes


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.one_of(
        st.binary(max_size=400),
        st.builds(
            bytes.__add__,
            st.sampled_from([b"PK\x03\x04", b"PAR1", b"[Test Data OD 0]\n", b"\xff\xfe", b"a;b\n", b"\xef\xbb\xbf"]),
            st.binary(max_size=200),
        ),
        st.text(alphabet='ab12;,|\t"\r\n =[]\x00é눈', max_size=80).map(lambda t: t.encode("utf-8")),
    ),
    st.sampled_from(["t.csv", "t.xlsx", "t.parquet", "t.ini"]),
)
def test_any_bytes_are_read_or_refused(tmp_path, raw, name):
    try:
        cells, torn = read_cells(put(tmp_path, raw, name))
    except InputError as e:
        assert str(e)
        return
    assert all(isinstance(c, str) for c in cells.to_numpy().ravel())
    assert not set(cells.index) & {t["row"] for t in torn} and cells.index.is_unique
    assert cells.attrs["kind"] in ("csv", "ini", "xlsx", "parquet")


@FAST
@given(st.integers(0, 3), st.floats(0, 1), st.binary(min_size=0, max_size=4))
def test_a_file_damaged_anywhere_is_read_or_refused(tmp_path, which, at, patch):
    frame = pd.DataFrame({"eye_id": ["a", "b"], "ata_mm": [12.2, 12.1], "눈": ["우", "좌"]})
    path = tmp_path / ("t.xlsx", "t.parquet", "t.csv", "t.tsv")[which]
    if which == 0:
        frame.to_excel(path, index=False)
    elif which == 1:
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, encoding="utf-16" if which == 3 else "utf-8")
    raw = path.read_bytes()
    i = int(at * len(raw))
    path.write_bytes(raw[:i] + patch + raw[i + len(patch) :] if patch else raw[:i])
    try:
        read_cells(path)
    except InputError:
        pass


# Round trips

CELL = st.one_of(
    st.sampled_from(["12.2", "12,2", "1,234", "-0,12", "−9999", "", "OD", 'say "ah"', "a;b,c|d", "x\ty", "=1+1", "0"]),
    st.text(alphabet="abcXYZ019.,;|-+ \t\"'=#%µ°é", max_size=10),
)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=6),
    st.sampled_from(ENCODINGS),
    st.sampled_from(";,\t|"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.data(),
)
def test_a_table_is_read_back_in_every_encoding_and_separator(tmp_path, rows, encoding, sep, quoting, newline, data):
    words = WORDS.get(encoding, ["눈", "José", "Größe", "김민지"])
    if encoding in WORDS:  # letters beyond ASCII as they occur in writing of this encoding
        rows = [[c.translate({ord(x): None for x in "µ°é−"}) for c in r] for r in rows]
    head = ["eye_id", "ata_mm", data.draw(st.sampled_from(words))]
    rows = [
        [f"e{i}", r[1], data.draw(st.sampled_from(words))] if i % 2 else [f"e{i}", *r[1:]] for i, r in enumerate(rows)
    ]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=sep, quoting=quoting, lineterminator=newline).writerows([head, *rows])
    cells, torn = read_cells(put(tmp_path, out.getvalue().encode(encoding)))
    assert list(cells) == head and not torn and cells.attrs["separator"] == sep
    assert cells.index.tolist() == list(range(2, len(rows) + 2))
    assert cells.to_numpy().tolist() == rows


@FAST
@given(
    st.lists(st.floats(9.5, 14.5).map(lambda v: round(v, 2)), min_size=1, max_size=5),
    st.sampled_from(ENCODINGS),
    st.sampled_from([(",", "."), (";", ","), (";", "."), ("\t", ","), ("|", ","), (",", ",")]),
)
def test_numbers_survive_encoding_separator_and_decimal_mark(tmp_path, values, encoding, dialect):
    sep, decimal = dialect
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=sep)
    writer.writerows(
        [["eye_id", "ata_mm"], *([f"e{i}", f"{v:.2f}".replace(".", decimal)] for i, v in enumerate(values))]
    )
    cells, _ = read_cells(put(tmp_path, out.getvalue().encode(encoding)))
    assert [parse_cell("ata_mm", c).value for c in cells["ata_mm"]] == values


@FAST
@given(
    st.lists(st.text(alphabet="ab ;,.\"'", min_size=1, max_size=8), min_size=2, max_size=4), st.sampled_from(";,\t|")
)
def test_a_cell_of_several_lines_is_one_row(tmp_path, parts, sep):
    parts = [p.replace(sep, "") for p in parts]
    assume(all(p.strip() for p in parts))
    out = io.StringIO(newline="")
    remark = "\n".join(parts)
    csv.writer(out, delimiter=sep, lineterminator="\n").writerows(
        [["id", "ata", "remark"], ["a", "12", remark], ["b", "13", ""]]
    )
    cells, torn = read_cells(put(tmp_path, out.getvalue().encode()))
    assert cells["remark"].tolist() == [remark, ""] and cells.index.tolist() == [2, 3] and not torn


STORED = st.one_of(
    st.none(),
    st.integers(-(10**6), 10**6),
    st.floats(-1000, 1000).map(lambda v: round(v, 3)),
    st.text(alphabet="abc눈é ;,\"'", min_size=1, max_size=8).filter(lambda t: t.strip()),
    st.dates(min_value=datetime.date(1950, 1, 1), max_value=datetime.date(2090, 1, 1)),
    st.booleans(),
)


def as_text(v):
    if v is None:
        return ""
    if isinstance(v, float) and v.is_integer():
        return str(int(v))
    return str(v)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(STORED, min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_spreadsheet_is_read_back_as_it_was_typed(tmp_path, rows):
    assume(all(any(v is not None for v in r) for r in rows))
    book = openpyxl.Workbook()
    for row in [["eye_id", "a", "b"], *rows]:
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    cells, torn = read_cells(tmp_path / "t.xlsx")
    assert cells.to_numpy().tolist() == [[as_text(v) for v in r] for r in rows] and not torn
    assert cells.index.tolist() == list(range(2, len(rows) + 2)) and cells.attrs["kind"] == "xlsx"


@FAST
@given(st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=5), st.sampled_from(["float32", "float64"]))
def test_parquet_numbers_are_written_as_printed(tmp_path, values, dtype):
    frame = pd.DataFrame({"a": np.array(values, dtype=dtype), "b": "x"})
    frame.to_parquet(tmp_path / "t.parquet")
    cells, _ = read_cells(tmp_path / "t.parquet")
    assert (np.array(cells["a"], dtype=dtype) == frame["a"].to_numpy()).all()


# Encodings


def test_the_encoding_is_told_and_can_be_stated(tmp_path):
    for text, encoding in [
        ("환자명;b\n김민지;1\n", "cp949"),
        ("Größe;b\nJosé;1\n", "cp1252"),
        ("눈;b\n우;1\n", "utf-8"),
    ]:
        cells, _ = read_cells(put(tmp_path, text.encode(encoding)))
        assert cells.attrs["encoding"] == encoding and cells.columns[0] == text.split(";")[0]
    cells, _ = read_cells(put(tmp_path, "имя;b\nИван;1\n".encode("cp1251")), encoding="cp1251")
    assert cells.iloc[0, 0] == "Иван"
    with pytest.raises(InputError, match="encoding is unknown"):
        read_cells(put(tmp_path, b"a;b\n1;2\n"), encoding="latin-99")


@pytest.mark.parametrize(
    "raw, words",
    [
        ("눈;ata\n우;12.2\n".encode() + b"\xff;1\n", "In row 3"),
        (b"eye;ata\nOD;12.2\nOS;12\xff1\n", "cannot be read as text"),
        (b"eye;ata\nOD;12.2\nOS;1\xc32.1\n", "cannot be read as text"),
        (b"eye;ata\nOD;12.2\nOS;12.\x00\n", "zero byte"),
        ("eye;ata\nOD;12.2\n".encode("utf-16")[:-1], "utf-16"),
        ("имя;b\nИван;1\nОльга;2\n".encode("cp1251"), "cannot be read as text"),
        (b"a;b\n\x81\x8d;2\n", "cannot be read as text"),
        (bytes(range(256)) * 3, "cannot be read as text"),
    ],
)
def test_damaged_and_foreign_letters_are_refused(tmp_path, raw, words):
    with pytest.raises(InputError, match=words):
        read_cells(put(tmp_path, raw))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 2349), min_size=1, max_size=8))
def test_korean_is_never_taken_for_another_writing(numbers):
    syllables = [bytes([0xB0 + n // 94, 0xA1 + n % 94]).decode("euc_kr") for n in numbers]
    assume(set(syllables) - set("짠짬짰째짹짼쨀쨉쨌쨔쨘쨩쩌쩍첨"))  # alone, the bytes of these are § « ® ° ± µ in UTF-8
    text = "id;wtw_mm;x\n" + "".join(f"1;11.8;{s}\n" for s in syllables)
    try:
        assert decode(text.encode("cp949"), "t")[0] == text
    except InputError:
        pass
    assert decode(text.encode("utf-8"), "t")[0] == text


def test_the_check_of_writing_is_what_refuses():
    """Without it Cyrillic bytes would be read as Western letters: the decoder alone accepts them."""
    raw = "имя;b\nИван;1\n".encode("cp1251")
    assert raw.decode("cp1252") and not raw.decode("cp1252").isascii()
    with pytest.raises(InputError):
        decode(raw, "t")


# Torn rows


@pytest.mark.parametrize(
    "text, rows, torn",
    [
        ('id,a,b\n1,x,y\n"2,x,y\n3,x,y\n', ["1", "3"], [3]),
        ('id,a,b\n1,"x,y\n2,x",y\n3,x,y\n', ["2", "3"], [2]),
        ('id,a,b\n1,"x,y\n2,x,y\n3,x",y\n', ["2", "3"], [2]),
        ('id,a,b\n1,x,"y"z\n2,x,y\n', ["2"], [2]),
        ("id,a,b\n1,12,2,y\n2,x,y\n3,x\n", ["2"], [2, 4]),
        ('"id","a","b"\n"1","x,"y"\n"2","x","y"\n', ["2"], [2]),
        ('"id","a","b"\n"1","x","y\n"2","x","y"\n', ["2"], [2]),
        ("id,a,b\n\n1,x,y\n,,\n2,x\n", ["1"], [5]),
    ],
)
def test_a_torn_row_tears_nothing_else(tmp_path, text, rows, torn):
    cells, reasons = read_cells(put(tmp_path, text.encode()))
    assert cells["id"].tolist() == rows and [r["row"] for r in reasons] == torn
    assert all(r["code"] == "torn_row" and r["severity"] == "block" and r["message"] for r in reasons)


def test_an_ordinary_reader_swallows_what_is_torn_here():
    text = 'id,a,b\n1,"x,y\n2,x,y\n3,x",y\n'
    assert len(list(csv.reader(io.StringIO(text), strict=True))) == 2, "three rows became one, without a word"


@FAST
@given(
    st.lists(
        st.sampled_from(["1,x,y", '1,"x,y', '1,x",y', '"1,x,y', "1,x", "1,x,y,z", '"1","x","y"', '"1","x"y,z']),
        min_size=1,
    )
)
def test_every_line_is_a_row_or_torn(tmp_path, lines):
    cells, torn = read_cells(put(tmp_path, "\n".join(["id,a,b", *lines, ""]).encode()))
    assert sorted([*cells.index, *(t["row"] for t in torn)]) == list(range(2, len(lines) + 2))


# Headings, separators, preambles


def test_blank_lines_line_ends_and_margins_change_nothing(tmp_path):
    for text in [
        "\n\nid;a\n\n1;x\n",
        "id;a;;\n1;x;;\n",
        "sep=;\nid;a\n1;x\n",
        "id;a\r1;x\r",
        "id;a\r\n1;x\r\n\x1a",
        ' id ;"a"\n1;x\n',
    ]:
        cells, torn = read_cells(put(tmp_path, text.encode()))
        assert list(cells) == ["id", "a"] and cells.to_numpy().tolist() == [["1", "x"]] and not torn, text


def test_a_separator_inside_headings_is_not_taken():
    assert find_separator("id;depth (a, b, c)", ["1;3,3", "2;3,4"]) == ";"
    assert find_separator("id\tdepth, external", ["1\t3,3"]) == "\t"
    assert cut('"a;b";c', ";") == ["a;b", "c"]


def test_a_heading_below_a_preamble_is_found_only_when_asked(tmp_path):
    path = put(tmp_path, b'Clinic;X;;\nDate;2026-01-01;;\n\nPatient;"ATA\n[mm]";CLR;WTW\n1;12,2;100;11,8\n')
    cells, _ = read_cells(path, heading=lambda c: "Patient" in c)
    assert list(cells) == ["Patient", "ATA [mm]", "CLR", "WTW"] and cells.index.tolist() == [5]
    assert list(read_cells(path)[0])[:2] == ["Clinic", "X"], "nobody asked: the first row is the heading"


def test_a_column_without_heading_is_kept_and_named(tmp_path):
    cells, _ = read_cells(put(tmp_path, b"id,,a,\n1,y,x,\n"))
    assert list(cells) == ["id", "column 2", "a"]


@pytest.mark.parametrize("raw", [b"", b"\n \n", b"id;a\n", b"\xef\xbb\xbf", b";;;\n;;\n", b"PAR1", b"PK\x03\x04"])
def test_nothing_in_a_file_is_told(tmp_path, raw):
    with pytest.raises(InputError):
        read_cells(put(tmp_path, raw))


@pytest.mark.parametrize(
    "raw, words",
    [(b"%PDF-1.7 ", "PDF"), (b"\x89PNG\r\n", "picture"), (b"\xd0\xcf\x11\xe0", "password"), (b"\x1f\x8b", "packed")],
)
def test_other_documents_are_sent_to_their_door(tmp_path, raw, words):
    with pytest.raises(InputError, match=words):
        read_cells(put(tmp_path, raw))
    with pytest.raises(InputError, match="no file"):
        read_cells(tmp_path / "absent.csv")


# Spreadsheets


def book(tmp_path, *sheets, name="t.xlsx"):
    made = openpyxl.Workbook()
    made.remove(made.active)
    for title, rows in sheets:
        ws = made.create_sheet(title)
        for row in rows:
            ws.append(row)
    made.save(tmp_path / name)
    return tmp_path / name


def test_a_number_that_became_a_date_is_still_a_date(tmp_path):
    path = book(tmp_path, ("a", [["id", "wtw_mm"], ["1", datetime.datetime(2026, 8, 11)]]))
    cell = read_cells(path)[0].loc[2, "wtw_mm"]
    assert cell == "2026-08-11" and parse_cell("wtw_mm", cell).suggested == 11.8


def test_sheets_are_chosen_by_a_person(tmp_path):
    rows = [["id", "a"], [1, 2]]
    path = book(tmp_path, ("may", rows), ("june", [["id", "a"], [3, 4]]), ("notes", []))
    with pytest.raises(InputError, match="2 sheets"):
        read_cells(path)
    assert read_cells(path, sheet="june")[0]["id"].tolist() == ["3"]
    with pytest.raises(InputError, match="no sheet"):
        read_cells(path, sheet="july")
    hidden = openpyxl.load_workbook(path)
    hidden["june"].sheet_state = "hidden"
    hidden.save(path)
    assert read_cells(path)[0]["id"].tolist() == ["1"], "a hidden sheet is no rival"


def test_a_formula_without_a_result_is_not_an_empty_cell(tmp_path):
    path = book(tmp_path, ("a", [["id", "ata_mm"], [1, "=12+0.2"], [2, 12.2]]))
    cells, _ = read_cells(path)
    assert cells["ata_mm"].tolist() == ["=12+0.2", "12.2"] and parse_cell("ata_mm", "=12+0.2").value is None


def test_rows_keep_the_numbers_of_the_sheet(tmp_path):
    path = book(tmp_path, ("a", [["Clinic"], [], ["id", "a"], [1, 2], [], [3, None, "margin"]]))
    cells, _ = read_cells(path, heading=lambda c: "id" in c)
    assert cells.index.tolist() == [4, 6] and list(cells) == ["id", "a", "column 3"]


def test_a_swollen_spreadsheet_is_refused(tmp_path, monkeypatch):
    path = book(tmp_path, ("a", [["id", "a"], *([i, "x" * 40] for i in range(300))]))
    assert len(read_cells(path)[0]) == 300
    monkeypatch.setattr("lensnb.files.MAX_BYTES", path.stat().st_size)
    with pytest.raises(InputError, match="cannot be read as xlsx"):
        read_cells(path)
    monkeypatch.setattr("lensnb.files.MAX_BYTES", 100)
    with pytest.raises(InputError, match="too large"):
        read_cells(path)


def test_values_become_text_as_they_were_typed():
    values = [17.0, 13.2, np.float32(13.2), 1e20, float("nan"), True, datetime.time(9, 30), pd.NaT, [1], 0.1 + 0.2]
    texts = ["17", "13.2", "13.2", "1e+20", "", "True", "09:30:00", "", "[1]", "0.30000000000000004"]
    assert [cell_text(v) for v in values] == texts


# Instrument files

INI = """[Patient Data]
ID = 4711
[Examination Data]
Test Date = 2026-09-01
[Test Data OD 0]
ACD (Int.) [mm] = 3.21
acd (int.) [mm] = 9
[Test Data OS 1]
ACD (Int.) [mm] = -9999.00
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_sections_become_rows(tmp_path, encoding, newline):
    text = INI.replace("ID = 4711", "ID = Jörg").replace("\n", newline)
    cells, torn = read_cells(put(tmp_path, text.encode(encoding), "t.ini"))
    assert cells.index.tolist() == [5, 8] and not torn and cells.attrs["kind"] == "ini"
    assert cells["[side]"].tolist() == ["OD", "OS"] and set(cells["ID"]) == {"Jörg"}
    assert cells["ACD (Int.) [mm]"].tolist() == ["3.21", "-9999.00"]
    assert cells["acd (int.) [mm]"].tolist() == ["9", ""], "capitals make another key"


def test_patients_of_one_file_are_kept_apart(tmp_path):
    two = INI + INI.replace("4711", "4712").replace("[Examination Data]\nTest Date = 2026-09-01\n", "")
    cells, _ = read_cells(put(tmp_path, two.encode(), "t.ini"))
    assert cells["ID"].tolist() == ["4711", "4711", "4712", "4712"]
    assert cells["Test Date"].tolist() == ["2026-09-01"] * 2 + [""] * 2, "a date of the first is not the second's"


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("acd (int.) [mm] = 9", "Eye = OS", "section says OD"),
        ("acd (int.) [mm] = 9", "ACD (Int.) [mm] = 3.31", "stands twice"),
        ("acd (int.) [mm] = 9", "Test Date = 2026-09-02", "differs between the sections"),
        ("acd (int.) [mm] = 9", "3.21", "no `key = value`"),
    ],
)
def test_a_contradiction_tears_its_scan(tmp_path, old, new, words):
    cells, torn = read_cells(put(tmp_path, INI.replace(old, new).encode(), "t.ini"))
    assert cells.index.tolist() == [8] and [t["row"] for t in torn] == [5] and words in torn[0]["message"]


def test_a_file_of_sections_without_a_scan_is_refused(tmp_path):
    with pytest.raises(InputError, match="no scan"):
        read_cells(put(tmp_path, b"[Patient Data]\nID = 1\n", "t.ini"))
