"""Clean tables as clinics send them, and the faults that happen to them on the way.

A table is made from the synthetic clinics, damaged by injectors that know what they did (class, row, field, text before
and after), and written as CSV, TSV, spreadsheet, parquet or instrument file in one of the usual encodings, separators
and decimal marks. Then `examine` reads it and says what became of every fault and of every row that had none.

The rule of fairness
--------------------
* A change that leaves the meaning as it was is no fault and is never injected (a quoted decimal comma, 13.20 for 13.2).
* A fault is *decidable* when what stands in the file cannot be right, whatever the eye: a number outside the hard
  range of its field, or off the grid on which the field is printed (whole um, years and days; quarter dioptres of lens
  power), a size that is not made, a text that is no number or date of the announced form, a date before or after what
  is possible, two rows that contradict each other or repeat each other, a row with too many or too few cells.
  Every decidable fault must be caught.
* A fault that happens to stay inside the hard range and on the grid (a lost point in -2.0, 0 um in millimetres) is
  *undecidable* by its row alone. It is counted in a line of its own, and no line of defence that looks at single rows
  can be blamed for it; the benchmark names the second line that can see it.
* Exchanged eyes are decided by likelihood against earlier records; pairs that cannot be decided are counted apart.
* A class that is *readable* (a typesetter's minus, full-width digits, a glued unit) may be read as it was meant or be
  refused; it must never become another number. In all other classes reading the value "as it was meant" would be a
  guess, and counts as a miss.
"""

import inspect
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.schema import FIELDS, SIZES_MM, InputError

NOW = "2026-11-15"  # the day on which all files are read; the youngest clean date is older
KEY = bytes(range(32))  # any key serves; nothing secret is protected here
MM = ("acd_mm", "acd_ext_mm", "ata_mm", "acw_mm", "wtw_mm", "lt_mm", "sts_h_mm")
UM = ("cct_um", "clr_um", "vault_um")
NUMBERS = ("age_y", "icl_se_d", *MM, *UM, "aca_deg", "k_d", "vault_day")
MEASURED = ("acd_mm", "cct_um", "ata_mm", "clr_um", "aca_deg", "wtw_mm", "k_d", "lt_mm", "sts_h_mm")
DECIMALS = dict.fromkeys(("icl_se_d", "aca_deg", *MM), 2) | dict(wtw_mm=1, k_d=3, size_mm=1)
GRID = dict(age_y=1, vault_day=1, cct_um=1, clr_um=1, vault_um=1, icl_se_d=0.25)
DATES = ("exam_date", "surgery_date")


# Tables


class Raw(str):
    """A cell that is written exactly as it stands, whatever the decimal mark of the file."""


@dataclass
class Row:
    """One row of a table: canonical column -> text, with a decimal point and ISO dates."""

    cells: dict
    id: int
    lines: Callable | None = None  # what became of the line of text: (line, separator) -> physical lines
    file_row: int = 0  # where it came to stand in the file


@dataclass(frozen=True)
class Dialect:
    """How a table is written."""

    kind: str = "csv"  # csv | xlsx | parquet | ini (one section a scan)
    encoding: str = "utf-8"
    separator: str = ","
    decimal: str = "."
    quote_all: bool = False
    newline: str = "\n"
    text_cells: bool = False  # a spreadsheet or parquet file that keeps everything as text

    def __str__(self):
        if self.kind != "csv":
            ini = f", {self.encoding}, decimal {self.decimal}" if self.kind == "ini" else ""
            return self.kind + ini + (" (text)" if self.text_cells else "")
        names = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
        return f"csv, {self.encoding}, {names[self.separator]}, decimal {self.decimal}" + ", quoted" * self.quote_all


@dataclass
class Table:
    """Rows of one file, the clinic's earlier rows of the same patients, and how they are written."""

    columns: list
    rows: list
    dialect: Dialect
    earlier: "Table | None" = None
    headings: dict = field(default_factory=dict)  # canonical -> what the file says, where that differs
    preamble: tuple = ()  # lines above the heading row
    damage: Callable | None = None  # what became of the bytes
    secrets: frozenset = frozenset()  # what must leave the intake in no form

    def copy(self) -> "Table":
        """The same table, to be damaged."""
        rows = [Row(dict(r.cells), r.id) for r in self.rows]
        rest = dict(preamble=self.preamble, secrets=self.secrets)
        return Table(list(self.columns), rows, self.dialect, self.earlier, dict(self.headings), **rest)

    def new_id(self) -> int:
        """A number that no row bears yet."""
        return 1 + max(r.id for r in self.rows)


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "cp1252", "cp949")


def random_dialect(rng, plain: bool = False) -> Dialect:
    """One of the usual ways to write a table; `plain`: UTF-8 with commas, semicolons or tabs."""
    if plain:
        return Dialect(separator=str(rng.choice([",", ";", "\t"])))
    kind = rng.choice(["csv", "xlsx", "parquet", "ini"], p=[0.70, 0.15, 0.10, 0.05])
    if kind == "ini":
        encoding = str(rng.choice(["utf-8", "utf-8-sig", "cp1252"]))
        return Dialect("ini", encoding, "=", ",."[int(rng.random() < 0.7)], newline="\r\n")
    if kind != "csv":
        return Dialect(kind, text_cells=bool(rng.random() < 0.25))
    separator = str(rng.choice([",", ";", "\t", "|"], p=[0.4, 0.3, 0.2, 0.1]))
    quoted = bool(rng.random() < 0.2)
    comma = (separator != "," or quoted) and rng.random() < 0.5
    newline = "\r\n" if rng.random() < 0.4 else "\n"
    return Dialect("csv", str(rng.choice(ENCODINGS)), separator, "," if comma else ".", quoted, newline)


@lru_cache(maxsize=1)
def _network() -> dict:
    """Clinic -> its columns and its patients, each a list of rows."""
    from lensnb.clinics import synthetic_clinics

    found = {}
    for clinic, eyes in synthetic_clinics(seed=2026, months=24, end="2026-09").eyes.groupby("clinic_id"):
        eyes = eyes.dropna(axis=1, how="all").drop(columns=["eye_id", "clinic_id"])
        patients = {}
        for eye in eyes.to_dict("records"):
            patients.setdefault(eye["patient_id"], []).append(eye)
        found[clinic] = list(eyes.columns), list(patients.values())
    return found


DEVICES = {
    "cp1252": "Visante \u2013 Pr\u00e4zision",
    "cp949": "\uc804\uc548\ubd80 \ub2e8\uce35\ucd2c\uc601\uae30",
    "": "Anterion \u00b5-OCT \uc804\uc548\ubd80",
}
NOTES = {"cp1252": "Pr\u00fcfvermerk", "cp949": "\ube44\uace0", "": "\ube44\uace0"}


def clean_table(
    rng, patients: int = 14, dialect: Dialect | None = None, earlier: bool = False, people: bool = False
) -> Table:
    """A table of one synthetic clinic without a fault. With `earlier` it brings earlier rows of the patients, with
    `people` their (invented) names and dates of birth."""
    dialect = dialect or random_dialect(rng)
    style = "ini" if dialect.kind == "ini" else str(rng.choice(["fields", "labels", "casia2"], p=[0.7, 0.2, 0.1]))
    odds = [0.7, 0, 0, 0.3] if style in ("ini", "casia2") else [0.55, 0.15, 0.1, 0.2]
    columns, population = _network()[rng.choice(["alder", "birch", "cedar", "dogwood"], p=odds)]
    form = str(rng.choice(["{:d}", "MRN {:d}", "K-{:d}", "00{:d}"]))
    numbers = 10_000_000 + 4_000_003 * rng.permutation(22)[:patients] + int(rng.integers(4_000_000))
    eyes = []
    for number, i in zip(numbers, np.sort(rng.choice(len(population), patients, replace=False))):
        eyes += [eye | {"patient_id": form.format(number)} for eye in population[i]]
    eyes.sort(key=lambda eye: eye["surgery_date"])
    if style in ("ini", "casia2"):  # an instrument knows nothing of an exchange: one examination, one row
        eyes = list({(eye["patient_id"], eye["eye"]): eye for eye in reversed(eyes)}.values())[::-1]
    word = dialect.encoding if dialect.encoding in DEVICES else ""
    columns = list(columns) if style in ("fields", "labels") else [c for c in columns if c in LABELS[style]]
    if style == "fields" and rng.random() < 0.3:
        columns.insert(0, "eye_id")
        eyes = [eye | {"eye_id": f"{eye['patient_id']}/{eye['eye']}"} for eye in eyes]
    if rng.random() < 0.3:
        columns = [str(c) for c in rng.permutation(columns)]
    short = bool(rng.random() < 0.25)
    rows = []
    for i, eye in enumerate(eyes):
        cells = {c: say(c, eye[c], short) for c in columns}
        if cells.get("vault_device"):
            cells["vault_device"] = DEVICES[word]
        rows.append(Row(cells, i))
    _more_columns(columns, rows, rng, style)
    if style == "fields" and rng.random() < 0.5:
        columns.append(NOTES[word])
        for row in rows:
            row.cells[NOTES[word]] = "" if rng.random() < 0.6 else DEVICES[word]
    table = Table(columns, rows, dialect, headings=_labels(columns, style, word, dialect, rng))
    if style == "casia2" and dialect.kind in ("csv", "xlsx") and rng.random() < 0.5:
        table.preamble = ("CASIA2 Export", "Created: 2026-11-01")
    if people:
        _add_people(table, rng, foreign=word != "cp1252" and dialect.encoding != "cp1252")
    if earlier:
        table.earlier = _earlier(table, rng)
    return table


def _add_people(table: Table, rng, foreign: bool) -> None:
    """Names and dates of birth in the table, and what of them must not leave."""
    heads = dict(name=["Name", "Patient Name", "Last Name"], birth_date=["DOB", "Date of Birth"])
    if foreign:
        heads["name"].append("\ud658\uc790\uba85")
        heads["birth_date"].append("\uc0dd\ub144\uc6d4\uc77c")
    people, secrets = {}, set()
    for row in table.rows:
        patient = row.cells["patient_id"]
        if patient not in people:
            word = "".join(rng.choice(list("ghijklmnopqrstuvwxyz"), 7))
            name = f"{_one(rng, ('Minji', 'Hanna', 'Jorge', 'Elodie'))} {word.capitalize()}"
            exam, age = pd.Timestamp(row.cells["exam_date"]), int(float(row.cells.get("age_y") or 30))
            born = exam - pd.DateOffset(years=age) - pd.DateOffset(days=int(rng.integers(1, 330)))
            people[patient] = name, f"{born:%Y-%m-%d}"
            secrets |= {name, word.capitalize(), re.sub(r"\D", "", patient)}
        row.cells["name"], born = people[patient][0], row.cells.get("birth_date") or people[patient][1]
        row.cells["birth_date"] = born
        secrets |= {born, f"{pd.Timestamp(born):%d.%m.%Y}", f"{pd.Timestamp(born):%Y%m%d}"}
    for c in ("name", "birth_date"):
        if c not in table.columns:
            table.columns.insert(int(rng.integers(0, len(table.columns) + 1)), c)
        if table.dialect.kind != "ini" or c == "birth_date":
            table.headings[c] = _one(rng, heads[c])
        else:
            table.headings[c] = "Last Name"
    table.secrets = frozenset(secrets)


LABELS = {  # headings of other makes: printed labels with their unit, a table of an instrument, its file with sections
    "labels": dict(eye="OD/OS", exam_date="Exam Date", surgery_date="Surgery Date", wtw_mm="White to White (mm)",
                   ata_mm="Angle to Angle [mm]", clr_um="CLR [um]", acd_mm="ACD (Int.) [mm]", cct_um="CCT [um]",
                   size_mm="ICL Size [mm]", icl_se_d="ICL SE [D]", k_d="Mean K [D]", vault_um="ICL Vault [um]",
                   lt_mm="Lens Thickness (mm)", patient_id="Chart No", acd_ext_mm="ACD (Ext.) [mm]"),
    "korean": dict(eye="\uc88c\uc6b0", exam_date="\uac80\uc0ac\uc77c", surgery_date="\uc218\uc220\uc77c",
                   wtw_mm="\uac01\ub9c9\uc9c1\uacbd(WTW) [mm]", clr_um="\uc218\uc815\uccb4\uc735\uae30 CLR [um]",
                   cct_um="\uc911\uc2ec\uac01\ub9c9\ub450\uaed8 [um]", patient_id="\ud658\uc790\ubc88\ud638",
                   size_mm="\ub80c\uc988\ud06c\uae30 [mm]"),
    "casia2": dict(patient_id="Patient ID", eye="Eye", exam_date="Exam Date", ata_mm="ATA [mm]", acw_mm="ACW [mm]",
                   clr_um="CLR [\u00b5m]", acd_mm="ACD (Endo) [mm]", cct_um="CCT [\u00b5m]", wtw_mm="WTW [mm]",
                   acd_ext_mm="ACD (Epi) [mm]"),
    "ini": dict(patient_id="ID", eye="Eye", exam_date="Test Date", cct_um="Central Corneal Thickness",
                wtw_mm="Cornea Dia Horizontal", acd_mm="ACD (Int.) [mm]", acd_ext_mm="ACD external",
                aca_deg="ACA (180\u00b0) [\u00b0]"),
}  # fmt: skip


def _labels(columns: list, style: str, word: str, dialect: Dialect, rng) -> dict:
    """Canonical -> heading, for the columns that a table of this make heads otherwise."""
    said = dict(LABELS.get(style, {}))
    if style == "labels" and word != "cp1252" and rng.random() < 0.5:
        said |= LABELS["korean"]
    if dialect.encoding == "cp949":
        said = {c: h.replace("\u00b5", "u") for c, h in said.items()}
    return {c: h for c, h in said.items() if c in columns}


def _more_columns(columns: list, rows: list, rng, style: str) -> None:
    """In some tables also the depth from the front of the cornea, the instrument, and the date of birth."""
    if style == "casia2":
        columns.append("acw_mm")
        for r in rows:
            r.cells["acw_mm"] = f"{float(r.cells['ata_mm']) - 0.1:.2f}"
    if style in ("ini", "casia2"):
        columns.append("acd_ext_mm")
        for r in rows:
            r.cells["acd_ext_mm"] = outer(r.cells["acd_mm"], r.cells["cct_um"])
        return
    if "cct_um" in columns and rng.random() < 0.25:
        columns.append("acd_ext_mm")
        for r in rows:
            r.cells["acd_ext_mm"] = outer(r.cells["acd_mm"], r.cells["cct_um"])
    if rng.random() < 0.3:
        columns.append("device")
        for r in rows:
            r.cells["device"] = "AS-OCT 1"
    if rng.random() < 0.2:
        columns.insert(1, "birth_date")
        days = {}
        for r in rows:
            exam, years = pd.Timestamp(r.cells["exam_date"]), int(float(r.cells["age_y"]))
            born = days.setdefault(r.cells["patient_id"], exam - pd.DateOffset(years=years) - pd.DateOffset(days=40))
            r.cells["birth_date"] = f"{born:%Y-%m-%d}"


def outer(acd: str, cct: str) -> str:
    """The external depth that belongs to an internal depth and a corneal thickness."""
    return f"{float(acd) + float(cct) / 1000:.2f}" if acd and cct else ""


def say(name: str, value, short: bool = False) -> str:
    """A value as a clinic writes it; empty where it is missing."""
    if pd.isna(value):
        return ""
    if FIELDS[name].kind == "date":
        return f"{value:%Y-%m-%d}"
    if not isinstance(value, (int, float, np.number)):
        return str(value)
    text = f"{float(value):.{DECIMALS.get(name, 0)}f}"
    return text.rstrip("0").rstrip(".") if short and "." in text else text


REPEAT_SD = dict(wtw_mm=0.1, acd_mm=0.04, cct_um=6, k_d=0.12, ata_mm=0.1, lt_mm=0.05, sts_h_mm=0.15)


def _earlier(table: Table, rng) -> Table:
    """The same eyes at an earlier visit: measured again, with the noise of repeated measurement, not yet operated."""
    columns = [c for c in ("patient_id", "eye", "exam_date", "age_y", *REPEAT_SD) if c in table.columns]
    columns = (["eye_id"] if "eye_id" in table.columns else []) + columns
    rows, seen = [], set()
    for row in table.rows:
        if (row.cells["patient_id"], row.cells["eye"]) in seen:
            continue
        seen.add((row.cells["patient_id"], row.cells["eye"]))
        cells = {c: row.cells[c] for c in columns}
        day = pd.Timestamp(cells["exam_date"]) - pd.Timedelta(days=int(rng.integers(20, 200)))
        cells["exam_date"] = f"{day:%Y-%m-%d}"
        for name, sd in REPEAT_SD.items():
            if cells.get(name):
                value = float(cells[name]) + sd * rng.standard_normal()
                cells[name] = say(name, np.clip(value, *FIELDS[name].hard))
        rows.append(Row(cells, len(rows)))
    return Table(columns, rows, Dialect())


# Writing


def written(cell: str, name: str, dialect: Dialect) -> str:
    """The cell with the decimal mark of the file."""
    if isinstance(cell, Raw) or dialect.decimal == "." or not re.fullmatch(r"[+-]?\d*\.\d+", cell):
        return str(cell)
    return cell.replace(".", ",") if name in FIELDS and (name in NUMBERS or name == "size_mm") else str(cell)


def write(table: Table, path: Path) -> int:
    """Write the table; every row learns its place in the file. Returns the number of rows that the file holds."""
    rows = _write(table, path)
    if table.damage:
        path.write_bytes(table.damage(path.read_bytes()))
    return rows


def _write(table: Table, path: Path) -> int:
    if table.dialect.kind in ("csv", "ini"):
        return _write_csv(table, path) if table.dialect.kind == "csv" else _write_ini(table, path)
    above = len(table.preamble) if table.dialect.kind == "xlsx" else 0
    for i, row in enumerate(table.rows, 2 + above):
        row.file_row = i
    heads = [table.headings.get(c, c) for c in table.columns]
    if table.dialect.kind == "xlsx":
        import openpyxl

        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet("eyes")
        for line in table.preamble:
            sheet.append([line])
        sheet.append(heads)
        for row in table.rows:
            sheet.append([_stored(row.cells[c], c, table.dialect) for c in table.columns])
        book.save(path)
        return len(table.rows)
    columns = {}
    for head, c in zip(heads, table.columns):
        stored = [_stored(row.cells[c], c, table.dialect) for row in table.rows]
        kinds = {type(v) for v in stored if v is not None}
        numeric = kinds <= {int, float} or len(kinds) == 1
        columns[head] = stored if numeric else [None if v is None else _text(v) for v in stored]
    pd.DataFrame(columns).to_parquet(path)
    return len(table.rows)


def _text(v) -> str:
    return f"{v:%Y-%m-%d}" if hasattr(v, "strftime") else str(v)


def _stored(cell: str, name: str, dialect: Dialect):
    """What a spreadsheet or parquet file keeps: a number, a date, a truth value or a text."""
    if cell == "":
        return None
    if dialect.text_cells or name not in FIELDS or FIELDS[name].kind == "text" or name == "eye":
        return str(cell)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", cell):
        day = pd.to_datetime(cell, errors="coerce")
        return str(cell) if pd.isna(day) else day.to_pydatetime()
    if cell in ("TRUE", "FALSE"):
        return cell == "TRUE"
    if re.fullmatch(r"[+-]?\d*\.?\d+(e[+-]?\d+)?", cell, re.I):
        return float(cell) if re.search("[.e]", cell, re.I) else int(cell)
    return str(cell)


def _write_csv(table: Table, path: Path) -> int:
    d = table.dialect

    def cell(text: str) -> str:
        must = d.quote_all or any(m in text for m in (d.separator, '"', "\n")) and not isinstance(text, Bare)
        return '"' + text.replace('"', '""') + '"' if must and not isinstance(text, Bare) else text

    def line(row: Row) -> str:
        texts = [(row.cells[c], c) for c in table.columns]
        return d.separator.join(cell(t if isinstance(t, Bare) else written(t, c, d)) for t, c in texts)

    lines = [*table.preamble, d.separator.join(cell(table.headings.get(c, c)) for c in table.columns)]
    for row in table.rows:
        row.file_row = len(lines) + 1
        lines += row.lines(line(row), d.separator) if row.lines else [line(row)]
    text = d.newline.join(lines) + d.newline
    if d.encoding == "utf-16-le-bom":
        path.write_bytes(b"\xff\xfe" + text.encode("utf-16-le"))
    else:
        path.write_bytes(text.encode(d.encoding, errors="replace"))
    below = lines[1 + len(table.preamble) :]
    return sum(bool(line.strip(d.separator + '" ')) for line in below)  # a blank line is no row


def _write_ini(table: Table, path: Path) -> int:
    lines = []
    for i, row in enumerate(table.rows):
        cells = {c: written(row.cells[c], c, table.dialect) for c in table.columns}
        lines += ["[Patient Data]", f"{table.headings['patient_id']}={cells.pop('patient_id')}", ""]
        row.file_row = len(lines) + 1
        lines += [f"[Test Data {cells['eye']} {i % 2}]"]
        lines += [f"{table.headings[c]}={text or '-9999'}" for c, text in cells.items()]
        lines += ["BAD D=1.20", "", "[Examination Data]", "Examination=3D Scan", ""]
    path.write_bytes(table.dialect.newline.join(lines).encode(table.dialect.encoding, errors="replace"))
    return len(table.rows)


class Bare(Raw):
    """A cell that is written without the quotation marks it would need."""


# What can be right


def readings(text: str) -> list[float]:
    """All numbers that a text of digits can mean, decimal and thousands marks tried in turn; empty where it is none."""
    found = set()
    for t in {text, text.replace(",", "."), text.replace(",", "") if re.search(r"\d,\d{3}$", text) else text}:
        if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", t):
            found.add(float(t))
    return sorted(found)


def possible(name: str, value: float) -> bool:
    """True where the value lies in the hard range and on the grid of its field."""
    f = FIELDS[name]
    if name == "size_mm":
        return value in SIZES_MM
    if f.hard and not f.hard[0] <= value <= f.hard[1]:
        return False
    grid = GRID.get(name)
    return grid is None or abs(value / grid - round(value / grid)) < 1e-6


def impossible(name: str, text: str) -> bool:
    """True where no reading of the text can be a value of the field."""
    return not any(possible(name, v) for v in readings(text))


def contradicts(cells: dict) -> bool:
    """True where both chamber depths and the corneal thickness of one row cannot belong together."""
    parts = [readings(cells.get(c) or "") for c in ("acd_ext_mm", "cct_um", "acd_mm")]
    if not all(len(p) == 1 for p in parts):
        return False
    (outside, cornea, inside) = (p[0] for p in parts)
    return abs(outside - cornea / 1000 - inside) > 0.05 + 1e-9


# Faults


@dataclass
class Fault:
    """What was done to a table: its class, the row (and all rows that it concerns), field, texts, and whether the file
    itself shows that it is wrong."""

    kind: str
    row: int
    field: str
    before: str
    after: str
    decidable: bool
    rows: tuple = ()
    readable: bool = False  # may be read as it was meant
    hidden: bool = False  # may become a missing value


@dataclass(frozen=True)
class Kind:
    """A class of faults: the injector, and who else can see what a single row does not show."""

    name: str
    inject: Callable
    defence: str = ""
    earlier: bool = False  # needs earlier rows of the same patients
    file: bool = False  # damages the whole file


KINDS: dict[str, Kind] = {}


def kind(name: str, defence: str = "", **how):
    """Register an injector `(table, row, rng) -> Fault | None`; None where the class does not apply to the row."""

    def keep(f):
        KINDS[name] = Kind(name, f, defence, **how)
        return f

    return keep


def _one(rng, options):
    options = list(options)
    return options[int(rng.integers(len(options)))] if options else None


def _field(t: Table, row: Row, rng, among=NUMBERS):
    return _one(rng, [c for c in among if c in t.columns and row.cells.get(c) and not isinstance(row.cells[c], Raw)])


def _put(t: Table, row: Row, name: str, text: str, kind_: str, decidable: bool | None = None, **how) -> Fault | None:
    """Replace a cell; None where that would change nothing in what it means."""
    before = row.cells[name]
    same = [v for v in readings(text) if possible(name, v)] if name in (*NUMBERS, "size_mm") else []
    if text == before or (before and same and same == readings(before) and not how.get("readable")):
        return None
    row.cells[name] = text
    decidable = impossible(name, text) or contradicts(row.cells) if decidable is None else decidable
    return Fault(kind_, row.id, name, before, text, decidable, (row.id,), **how)


def _plain(x: float) -> str:
    return np.format_float_positional(round(x, 6), trim="-")


@kind("unit", "conditional residuals of the monthly monitor")
def unit(t, row, rng):
    """Millimetres for micrometres and the like; a radius for a power, radians for degrees, months for years."""
    name = _field(t, row, rng, (*MM, *UM, "k_d", "aca_deg", "age_y"))
    if not name:
        return None
    x = float(row.cells[name])
    if name in MM:
        text = _plain(x * _one(rng, (1000, 0.1, 0.001, 1000)))
    elif name in UM:
        k = _one(rng, (0.001, 0.001, 1000))
        text = f"{x * k:.{_one(rng, (2, 3))}f}" if k < 1 else _plain(x * k)
        if k < 1 and float(text) * 1000 != x:
            text = f"{x * k:.3f}"
    else:
        text = {"k_d": f"{337.5 / x:.2f}", "aca_deg": f"{np.deg2rad(x):.3f}", "age_y": f"{x * 12:.0f}"}[name]
    return None if float(text) == x else _put(t, row, name, text, "unit")


@kind("unit word")
def unit_word(t, row, rng):
    """The number with a unit that is not the field's: 0.11 mm under micrometres, 3310 um under millimetres."""
    name = _field(t, row, rng, (*MM, *UM))
    if not name:
        return None
    x, mm = float(row.cells[name]), name in MM
    if not x:
        return None
    text = Raw(_one(rng, (f"{_plain(x * 1000 if mm else x / 1000)}", row.cells[name])) + _one(rng, (" ", "")))
    return _put(t, row, name, Raw(text + ("\u00b5m" if mm and _safe(t) else "um" if mm else "mm")), "unit word", True)


def _safe(t: Table) -> bool:
    """True where the file can hold any letter."""
    return t.dialect.kind in ("xlsx", "parquet") or t.dialect.encoding.startswith("utf")


@kind("comma")
def comma(t, row, rng):
    """A decimal comma where commas separate, doubled marks, a thousands point, a semicolon for a point."""
    d, name = t.dialect, _field(t, row, rng)
    if not name:
        return None
    text = row.cells[name]
    ways = [text.replace(".", m) for m in (",,", ".,", "..", ",.") if "." in text]
    ways += [text[:-1] + m + text[-1] for m in (",.", "'", ";") if "." not in text and len(text) > 2]
    if "." in text:
        ways += [text + _one(rng, (",0", ".0"))]
    if d.kind == "csv" and d.separator == "," and not d.quote_all and "." in text:
        return _put(t, row, name, Bare(text.replace(".", ",")), "comma", True)
    if d.kind == "csv" and d.separator in ";|" and not d.quote_all and "." in text and rng.random() < 0.3:
        return _put(t, row, name, Bare(text.replace(".", d.separator)), "comma", True)
    if name in ("vault_um",) and float(text) >= 1000 and rng.random() < 0.5:
        return _put(t, row, name, Raw(f"{text[:-3]}.{text[-3:]}"), "comma")
    return _put(t, row, name, Raw(_one(rng, ways)), "comma", True) if ways else None


@kind("size typed")
def size_typed(t, row, rng):
    """12.5, -12.6, 132, 1.32, a word with the number, two sizes in one cell, a size of an older lens."""
    if not row.cells.get("size_mm"):
        return None
    s = f"{float(row.cells['size_mm']):.1f}"
    ways = ["12.5", "-" + s, s.replace(".", ""), f"{float(s) / 10:g}", f"{float(s) * 100:g}", "11.5", "12.0", "13.0"]
    ways += ["13.3", "12.7", "13.8", "12.2", s[0] + " " + s[1:], s + "/12.6", "VICMO " + s, s.replace(".", ".."), "0"]
    ways += [s.replace("1", "l", 1), s.replace(".", ":"), s[0] + s[2:], f"{s}{s[-1]}"]
    if t.dialect.kind == "csv" and t.dialect.separator == "," and not t.dialect.quote_all:
        ways += [Bare(s.replace(".", ","))] * 6
    text = _one(rng, ways)
    text = text if isinstance(text, Bare) else Raw(text)
    return _put(t, row, "size_mm", text, "size typed", True)


@kind("size of another eye", "agreement of size with white to white; monthly monitor")
def size_other(t, row, rng):
    """A size that is made, but was not implanted."""
    if not row.cells.get("size_mm"):
        return None
    other = [f"{s:.1f}" for s in SIZES_MM if s != float(row.cells["size_mm"])]
    return _put(t, row, "size_mm", _one(rng, other), "size of another eye", False)


def _add(t: Table, after: Row, cells: dict, rng, far: bool) -> Row:
    new = Row(cells, t.new_id())
    place = t.rows.index(after) + 1
    t.rows.insert(int(rng.integers(place, len(t.rows) + 1)) if far else place, new)
    return new


@kind("duplicate")
def duplicate(t, row, rng):
    """The row once more: at once or later, in the same or another way of writing."""
    cells = dict(row.cells)
    if rng.random() < 0.4:
        for name in NUMBERS:
            if re.fullmatch(r"-?\d+\.\d+", cells.get(name, "")):
                cells[name] = cells[name] + "0"
    new = _add(t, row, cells, rng, rng.random() < 0.5)
    return Fault("duplicate", new.id, "", "", "the row once more", True, (new.id,))


@kind("conflict")
def conflict(t, row, rng):
    """The same eye and surgery a second time, with another value."""
    name = _field(t, row, rng, MEASURED)
    if not name or not row.cells.get("surgery_date" if "surgery_date" in t.columns else "exam_date"):
        return None
    cells, sd = dict(row.cells), REPEAT_SD.get(name, 40 if name == "clr_um" else 3)
    cells[name] = say(name, np.clip(float(cells[name]) + sd * _one(rng, (3, 4, -3)), *FIELDS[name].hard))
    if float(cells[name]) == float(row.cells[name]):
        return None
    new = _add(t, row, cells, rng, rng.random() < 0.5)
    return Fault("conflict", new.id, name, row.cells[name], cells[name], True, (new.id, row.id))


@kind("impossible zero", "conditional residuals of the monthly monitor")
def zero(t, row, rng):
    """0 where nothing can be 0: an empty cell counted as a number."""
    name = _field(t, row, rng, ("age_y", *MM, "cct_um", "aca_deg", "k_d", "size_mm"))
    text = _one(rng, ("0", "0.0", "0.00", "00", "-0", "+0"))
    return _put(t, row, name, text, "impossible zero", True) if name else None


@kind("zero lens power", "soft range; monthly monitor")
def zero_power(t, row, rng):
    """A lens of 0 D: inside the hard range, but hardly a lens."""
    return _put(t, row, "icl_se_d", _one(rng, ("0", "0.00")), "zero lens power") if row.cells.get("icl_se_d") else None


SENTINELS = ("-9999", "-9999.00", "-9999.0", "9999", "-999", "999", "99999", "-1", "N/A", "n/a", "#N/A", "NaN", "NULL")
SENTINELS += ("---", "--", "**", "***", "?", "inf", "-inf", "1e30", "999.9", "-999.99", "n.a.", "#DIV/0!", "#VALUE!")
SENTINELS += ("missing", "TRUE", "FALSE", "not measured", "-32768", "65535", "1.7976931348623157e308", "\u2014", "_")


@kind("sentinel", "soft range; monthly monitor (heaps of one value)")
def sentinel(t, row, rng):
    """A code for "not measured" in a number cell: missing or refused, never a number."""
    name = _field(t, row, rng, (*NUMBERS, "size_mm"))
    text = _one(rng, SENTINELS)
    if not name or text == "\u2014" and not _safe(t):
        return None
    return _put(t, row, name, Raw(text), "sentinel", hidden=True)


@kind("sentinel for a date")
def sentinel_date(t, row, rng):
    """A code for "no date"."""
    ways = ("0000-00-00", "1900-01-01", "9999-12-31", "1899-12-30", "-9999", "0", "00.00.0000", "1970-01-01", "N/A")
    name = _field(t, row, rng, DATES)
    return _put(t, row, name, Raw(_one(rng, ways)), "sentinel for a date", True, hidden=True) if name else None


@kind("dates in the wrong order")
def date_order(t, row, rng):
    """The surgery before the examination."""
    if not all(row.cells.get(c) for c in DATES):
        return None
    exam = pd.Timestamp(row.cells["exam_date"])
    if rng.random() < 0.5:
        day = exam - pd.Timedelta(days=int(rng.integers(1, 2000)))
        return _put(t, row, "surgery_date", f"{day:%Y-%m-%d}", "dates in the wrong order", True)
    day = pd.Timestamp(row.cells["surgery_date"]) + pd.Timedelta(days=int(rng.integers(1, 60)))
    return _put(t, row, "exam_date", f"{day:%Y-%m-%d}", "dates in the wrong order", True)


@kind("date form")
def date_form(t, row, rng):
    """Two-digit years, day and month that look alike, days that do not exist, spreadsheet serials, words."""
    name = _field(t, row, rng, DATES)
    if not name:
        return None
    day = pd.Timestamp(row.cells[name])
    serial = (day - pd.Timestamp(1899, 12, 30)).days
    ways = [f"{day:%y-%m-%d}", f"{day:%d.%m.%y}", f"{day:%m/%d/%y}", f"{day:%d/%m/%Y}", f"{day:%m/%d/%Y}", str(serial)]
    ways += [f"{serial}.5", f"{day:%Y}-13-{day:%d}", f"{day:%Y}-02-30", f"{day:%d.%m.%Y}", f"{day:%Y%m%d}", "soon"]
    ways += [f"{day:%d-%b-%Y}", f"0{day:%y}-{day:%m-%d}", f"{day:%Y-%m}", f"{day:%Y}", f"2{day:%Y-%m-%d}"]
    ways += [f"{day:%Y-%m-%d}".replace("0", "O", 1), f"1{day:%y}-{day:%m-%d}", f"{day:%Y-%m}-00"]
    return _put(t, row, name, Raw(_one(rng, ways)), "date form", True)


@kind("future date")
def date_future(t, row, rng):
    """A day that has not come yet when the file is read."""
    if not row.cells.get("surgery_date"):
        return None
    day = pd.Timestamp(row.cells["surgery_date"])
    year = int(rng.integers(2027, 2090))
    return _put(t, row, "surgery_date", f"{year}-{day:%m}-{min(day.day, 28):02d}", "future date", True)


@kind("plausible date", "age at exam; gaps between examination and surgery; double entry")
def date_plausible(t, row, rng):
    """Day and month exchanged, another year: still in order."""
    if not all(row.cells.get(c) for c in DATES):
        return None
    day = pd.Timestamp(row.cells["exam_date"])
    ways = [day - pd.DateOffset(years=1)]
    if day.day <= 12 and day.day != day.month and f"{day:%Y}-{day.day:02d}-{day.month:02d}" < row.cells["surgery_date"]:
        ways.append(pd.Timestamp(day.year, day.day, day.month))
    return _put(t, row, "exam_date", f"{_one(rng, ways):%Y-%m-%d}", "plausible date", False)


@kind("lost point", "soft range; monthly monitor")
def point_lost(t, row, rng):
    """A decimal point that was not read."""
    name = _field(t, row, rng)
    if not name or "." not in row.cells[name]:
        return None
    text = row.cells[name].replace(".", "")
    sign = "-" if text.startswith("-") else ""
    text = sign + (text.lstrip("-").lstrip("0") or "0")
    return _put(t, row, name, text, "lost point")


@kind("moved point", "soft range; monthly monitor")
def point_moved(t, row, rng):
    """A decimal point one place to the left or right."""
    name = _field(t, row, rng, (*MM, "icl_se_d", "icl_se_d", "k_d", "aca_deg", "cct_um", "vault_um", "clr_um", "age_y"))
    if not name or not float(row.cells[name]):
        return None
    return _put(t, row, name, _plain(float(row.cells[name]) * _one(rng, (0.1, 10))), "moved point")


@kind("lost sign of the lens power")
def sign_power(t, row, rng):
    """-10.75 read as 10.75."""
    if not row.cells.get("icl_se_d", "").startswith("-"):
        return None
    return _put(t, row, "icl_se_d", row.cells["icl_se_d"][1:], "lost sign of the lens power", True)


@kind("lost sign of the lens rise", "geometry of depth, angle distance and keratometry; a person beside the crop")
def sign_rise(t, row, rng):
    """-120 read as 120."""
    if not row.cells.get("clr_um", "").startswith("-"):
        return None
    return _put(t, row, "clr_um", row.cells["clr_um"][1:], "lost sign of the lens rise", False)


@kind("exotic minus and full-width digits")
def exotic(t, row, rng):
    """What typesetters and East Asian keyboards make of a number: the same meaning, another code."""
    if not _safe(t):
        return None
    name = _field(t, row, rng)
    if not name:
        return None
    text = row.cells[name]
    wide = {ord(c): chr(ord(c) + 0xFEE0) for c in "0123456789.-"}
    if text.startswith("-"):
        text = _one(rng, "\u2212\u2013\u2014\uff0d\u2010\u2011\ufe63") + text[1:]
    if not row.cells[name].startswith("-") or rng.random() < 0.3:
        text = row.cells[name].translate(wide)
    kind_ = "exotic minus and full-width digits"
    return _put(t, row, name, Raw(text), kind_, True, readable=True)


@kind("glued unit")
def glued(t, row, rng):
    """11.8mm, 42.60/7.92@ 14, WTW: 11.8, 545 um: readable or refused, never another number."""
    name = _field(t, row, rng, (*MM, *UM, "k_d", "aca_deg"))
    if not name:
        return None
    x = row.cells[name]
    u = {"D": "D", "deg": "deg"}.get(FIELDS[name].unit, FIELDS[name].unit)
    ways = [f"{x}{u}", f"{x} {u}", f" {x} ", f"{x}  {u} "]
    if name == "k_d":
        ways += [f"{x}/{337.5 / float(x):.2f}@ 14", f"{x} D @ 12", f"{x}/{337.5 / float(x):.2f}"]
    if name == "wtw_mm":
        ways += [f"W-T-W: {x}", f"WTW={x}mm", f"HVID {x}"]
    if _safe(t):
        ways += [f"{x}\u00a0{u}", f"{x}\u202f{u}"]
    return _put(t, row, name, Raw(_one(rng, ways)), "glued unit", True, readable=True)


@kind("letters in a number")
def letters(t, row, rng):
    """O for 0, l for 1, S for 5, B for 8: rejected, not guessed."""
    name = _field(t, row, rng, (*NUMBERS, "size_mm"))
    if not name:
        return None
    swaps = {"0": "Oo", "1": "lI|" if t.dialect.separator != "|" else "lI", "5": "S", "8": "B", "2": "Z", "6": "G"}
    at = _one(rng, [i for i, c in enumerate(row.cells[name]) if c in swaps])
    if at is None:
        return None
    text = row.cells[name]
    text = text[:at] + _one(rng, swaps[text[at]]) + text[at + 1 :]
    return _put(t, row, name, Raw(text), "letters in a number", True)


@kind("inserted digit", "repeated scans; double entry; monthly monitor")
def inserted(t, row, rng):
    """7901 for 701."""
    name = _field(t, row, rng)
    if not name:
        return None
    text, at = row.cells[name], int(rng.integers(1, len(row.cells[name]) + 1))
    text = text[:at] + str(rng.integers(1, 10)) + text[at:]
    return _put(t, row, name, text, "inserted digit")


@kind("wrong last digit", "double entry; repeated scans")
def last_digit(t, row, rng):
    """12.21 typed as 12.27."""
    name = _field(t, row, rng)
    if not name:
        return None
    text = row.cells[name]
    other = _one(rng, [c for c in "0123456789" if c != text[-1]])
    return _put(t, row, name, text[:-1] + other, "wrong last digit")


@kind("exchanged digits", "double entry; conditional residuals")
def exchanged_digits(t, row, rng):
    """3.31 typed as 3.13."""
    name = _field(t, row, rng)
    if not name:
        return None
    text = row.cells[name]
    at = _one(rng, [i for i in range(len(text) - 1) if text[i : i + 2].isdigit() and text[i] != text[i + 1]])
    if at is None:
        return None
    return _put(t, row, name, text[:at] + text[at + 1] + text[at] + text[at + 2 :], "exchanged digits")


@kind("external depth for internal", "corneal thickness beside both depths; conditional residuals; profile")
def external(t, row, rng):
    """The depth measured from the front of the cornea."""
    if not row.cells.get("acd_mm") or not row.cells.get("cct_um"):
        return None
    x = float(row.cells["acd_mm"]) + float(row.cells["cct_um"]) / 1000
    return _put(t, row, "acd_mm", f"{x:.2f}", "external depth for internal")


@kind("angle distance and white to white exchanged", "second document; conditional residuals of the monitor")
def ata_wtw(t, row, rng):
    """Two widths in each other's column."""
    if not row.cells.get("ata_mm") or not row.cells.get("wtw_mm"):
        return None
    ata, wtw = row.cells["ata_mm"], row.cells["wtw_mm"]
    if float(ata) == float(wtw):
        return None
    row.cells["ata_mm"], row.cells["wtw_mm"] = wtw, ata
    name = "angle distance and white to white exchanged"
    return Fault(name, row.id, "ata_mm", ata, wtw, impossible("ata_mm", wtw) or impossible("wtw_mm", ata), (row.id,))


@kind("another patient's page", "second document; fellow eye; earlier record; conditional residuals")
def wrong_page(t, row, rng):
    """All measurements of an eye that is not in this file."""
    eyes = [eye for columns, people in _network().values() if set(MEASURED) & set(t.columns) <= set(columns)
            for eye in people[int(rng.integers(len(people)))]]  # fmt: skip
    other, before = _one(rng, eyes), dict(row.cells)
    row.cells.update({c: say(c, other[c]) for c in MEASURED if c in t.columns})
    if "acd_ext_mm" in t.columns:
        row.cells["acd_ext_mm"] = outer(row.cells["acd_mm"], row.cells["cct_um"])
    if row.cells == before:
        return None
    return Fault("another patient's page", row.id, "acd_mm", before["acd_mm"], row.cells["acd_mm"], False, (row.id,))


@kind("a field of the next row", "conditional residuals of the monthly monitor; fellow eye")
def joined_wrong(t, row, rng):
    """One quantity joined to the wrong row of the same file."""
    name = _field(t, row, rng, ("ata_mm", "clr_um", "sts_h_mm", "lt_mm", "vault_um"))
    others = [r for r in t.rows if r.cells["patient_id"] != row.cells["patient_id"] and r.cells.get(name or "")]
    if not others:
        return None
    return _put(t, row, name, str(_one(rng, others).cells[name]), "a field of the next row")


@kind("age at today", "age computed from birth and examination by the intake itself")
def age_today(t, row, rng):
    """The age on the day of the export instead of the examination."""
    if not row.cells.get("age_y"):
        return None
    years = int(rng.integers(1, 6))
    seen = years > 1 and bool(row.cells.get("birth_date"))
    return _put(t, row, "age_y", f"{float(row.cells['age_y']) + years:.0f}", "age at today", seen)


@kind("birth year for age")
def birth_year(t, row, rng):
    """1994 under age."""
    if not row.cells.get("age_y"):
        return None
    return _put(t, row, "age_y", str(rng.integers(1955, 2009)), "birth year for age", True)


@kind("spreadsheet date for a number")
def excel_date(t, row, rng):
    """11.8 turned into the 11th of August by a spreadsheet."""
    name = _field(t, row, rng, (*MM, "size_mm", "icl_se_d", "aca_deg", "k_d"))
    if not name:
        return None
    a, b = (row.cells[name].lstrip("-").split(".") + ["1"])[:2]
    a, b = max(1, min(28, int(a))), max(1, min(12, int(b[:2] or 1)))
    months = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
    ways = (f"2026-{b:02d}-{a:02d}", f"{a:02d}.{months[b - 1]}", f"{a}-{months[b - 1]}", f"{a:02d}.{b:02d}.2026")
    serial = (pd.Timestamp(2026, b, a) - pd.Timestamp(1899, 12, 30)).days
    return _put(t, row, name, Raw(_one(rng, (*ways, str(serial)))), "spreadsheet date for a number", True)


def _pair(t: Table, row: Row) -> tuple[Row, Row] | None:
    mine = [r for r in t.rows if r.cells["patient_id"] == row.cells["patient_id"]]
    if len(mine) != 2 or {r.cells.get("eye") for r in mine} != {"OD", "OS"}:
        return None
    same = all(mine[0].cells.get(c) == mine[1].cells.get(c) for c in ("acd_mm", "cct_um", "wtw_mm", "k_d"))
    return None if same else tuple(mine)


def _swap(t, row, name):
    pair = _pair(t, row)
    if not pair:
        return None
    for c in ("eye", "eye_id"):
        if c in t.columns:
            pair[0].cells[c], pair[1].cells[c] = pair[1].cells[c], pair[0].cells[c]
    return Fault(name, row.id, "eye", "", "right and left exchanged", False, tuple(r.id for r in pair))


@kind("right and left exchanged, earlier record", "likelihood against the earlier record", earlier=True)
def swap_known(t, row, rng):
    """Both eyes of a patient whose eyes were measured before."""
    return _swap(t, row, "right and left exchanged, earlier record")


@kind("right and left exchanged, new patient", "second document; a person who chooses the side")
def swap_new(t, row, rng):
    """Both eyes of a patient who was never seen before."""
    return None if t.earlier else _swap(t, row, "right and left exchanged, new patient")


@kind("right and left exchanged, second examination", "likelihood against the other examination in the file")
def swap_second(t, row, rng):
    """A second examination of both eyes in the same file, with the sides exchanged."""
    pair = _pair(t, row)
    if not pair:
        return None
    new = []
    for r, side_ in zip(pair, (pair[1].cells["eye"], pair[0].cells["eye"])):
        cells = _again(r.cells, rng, 5)
        cells["eye"] = side_
        if "eye_id" in cells:
            cells["eye_id"] = f"{cells['patient_id']}/{side_}"
        new.append(_add(t, t.rows[-1], cells, rng, False))
    ids = tuple(r.id for r in (*new, *pair))
    name = "right and left exchanged, second examination"
    return Fault(name, new[0].id, "eye", "", "right and left exchanged", False, ids)


@kind("second examination, no fault", "none needed: a control that should pass")
def second_exam(t, row, rng):
    """The eyes measured once more before surgery, sides as before: no fault, both rows stay or are asked about."""
    pair = _pair(t, row)
    if not pair:
        return None
    new = [_add(t, t.rows[-1], _again(r.cells, rng, 5), rng, False) for r in pair]
    ids = tuple(r.id for r in (*new, *pair))
    return Fault("second examination, no fault", new[0].id, "", "", "measured again", False, ids)


def _again(cells: dict, rng, days: int) -> dict:
    """Another examination of the eye: measured again some days before, no surgery, no outcome."""
    keep = ("patient_id", "eye", "eye_id", "age_y", "device", *REPEAT_SD)
    new = {c: text if c in keep else "" for c, text in cells.items()}
    new["exam_date"] = f"{pd.Timestamp(cells['exam_date']) - pd.Timedelta(days=days):%Y-%m-%d}"
    for name, sd in REPEAT_SD.items():
        if new.get(name):
            value = float(new[name]) + sd * rng.standard_normal()
            new[name] = say(name, np.clip(value, *FIELDS[name].hard))
    return new


@kind("two instruments disagree", "a person who confirms; conditional residuals of the monthly monitor")
def instruments(t, row, rng):
    """The same examination by another instrument, more than half a dioptre apart in keratometry."""
    if "device" not in t.columns or not row.cells.get("k_d"):
        return None
    keep = ("patient_id", "eye", "eye_id", "exam_date", "age_y")
    cells = {c: text if c in keep else "" for c, text in row.cells.items()}
    cells["device"], gap = "AS-OCT 2", float(_one(rng, (-1.2, -0.8, 0.8, 1.2)))
    cells["k_d"] = say("k_d", np.clip(float(row.cells["k_d"]) + gap, 32, 53))
    new = _add(t, row, cells, rng, False)
    return Fault("two instruments disagree", new.id, "k_d", row.cells["k_d"], cells["k_d"], False, (new.id, row.id))


@kind("one field of the other eye", "fellow eye; earlier record; conditional residuals")
def crossed(t, row, rng):
    """One quantity registered under the other eye."""
    pair, name = _pair(t, row), _field(t, row, rng, MEASURED)
    if not pair or not name or not all(r.cells.get(name) for r in pair):
        return None
    a, b = (r.cells[name] for r in pair)
    if a == b:
        return None
    pair[0].cells[name], pair[1].cells[name] = b, a
    before, after = (a, b) if pair[0] is row else (b, a)
    both, seen = tuple(r.id for r in pair), contradicts(row.cells)
    return Fault("one field of the other eye", row.id, name, before, after, seen, both)


@kind("one eye copied to the other", "warning of the intake; fellow eye")
def twins(t, row, rng):
    """All measurements of one eye under both eyes."""
    pair = _pair(t, row)
    if not pair:
        return None
    other = pair[0] if pair[1] is row else pair[1]
    before, both = row.cells["acd_mm"], (row.id, other.id)
    row.cells.update({c: other.cells[c] for c in (*MEASURED, "acd_ext_mm", "icl_se_d") if c in t.columns})
    return Fault("one eye copied to the other", row.id, "acd_mm", before, row.cells["acd_mm"], False, both)


@kind("outcome on a record before surgery")
def postop(t, row, rng):
    """A vault on the record of an eye that was not operated on yet."""
    if not {"vault_um", "surgery_date"} <= set(t.columns) or not row.cells.get("vault_um"):
        return None
    for c in ("surgery_date", "vault_day"):
        if c in t.columns:
            row.cells[c] = ""
    return Fault("outcome on a record before surgery", row.id, "vault_um", "", row.cells["vault_um"], True, (row.id,))


@kind("side missing or unknown")
def side(t, row, rng):
    """No side, both sides, or a word for the side that nobody knows."""
    return _put(t, row, "eye", Raw(_one(rng, ("", "OU", "both", "X", "0", "OD/OS", "O", "R/L", "-"))),
                "side missing or unknown", True)  # fmt: skip


@kind("patient missing")
def nobody(t, row, rng):
    """A row of nobody: the eyes of two people without a name must not become one patient."""
    return _put(t, row, "patient_id", Raw(_one(rng, ("", " ", "N/A", "-9999", "--"))), "patient missing", True)


@kind("torn row")
def torn(t, row, rng):
    """A cut line, a line broken in two, one cell too many."""
    if t.dialect.kind != "csv" or row.lines:
        return None
    way, at = str(_one(rng, ("cut", "cut in a cell", "broken", "extra", "extra"))), float(rng.random())

    def tear(line: str, separator: str) -> list[str]:
        places = [i for i, c in enumerate(line) if c == separator]
        place = places[int(at * len(places))]
        if way == "extra":
            return [line[:place] + separator + line[place:]]
        if way == "broken":
            return [line[:place], line[place + 1 :]]
        return [line[: place if way == "cut" else max(1, place - 1)]]

    if t.dialect.quote_all and way != "cut":
        return None
    row.lines = tear
    return Fault("torn row", row.id, "", "", way, True, (row.id,))


@kind("quotation mark not closed")
def quote(t, row, rng):
    """A quotation mark that opens and never closes."""
    if t.dialect.kind != "csv" or row.lines:
        return None
    at = float(rng.random())

    def tear(line: str, separator: str) -> list[str]:
        ends = [m.start() for m in re.finditer(f'(?<=[^"{re.escape(separator)}])"(?={re.escape(separator)}|$)', line)]
        if ends:
            end = ends[int(at * len(ends))]
            return [line[:end] + line[end + 1 :]]
        starts = [0] + [i + 1 for i, c in enumerate(line) if c == separator]
        start = starts[int(at * len(starts))]
        return [line[:start] + '"' + line[start:]]

    row.lines = tear
    return Fault("quotation mark not closed", row.id, "", "", f"at {at:.2f} of the line", True, (row.id,))


@kind("shifted columns", "schema of the feed; monthly monitor")
def shifted(t, row, rng):
    """One cell lost or one too many in the middle, the rest of the row moved by one column."""
    if t.dialect.kind == "ini":
        return None
    at = int(rng.integers(0, len(t.columns) - 2))
    texts = [row.cells[c] for c in t.columns]
    moved = texts[:at] + texts[at + 1 :] + [""] if rng.random() < 0.5 else texts[:at] + [""] + texts[at:-1]
    if moved == texts:
        return None
    row.cells = dict(zip(t.columns, moved))
    bad = [c for c, text in row.cells.items() if text and _unreadable(c, text)]
    lost = f"from `{t.columns[at]}`"
    return Fault("shifted columns", row.id, "", lost, ", ".join(bad), bool(bad), (row.id,))


def _unreadable(name: str, text: str) -> bool:
    if name in NUMBERS or name == "size_mm":
        return impossible(name, text)
    if name in DATES:
        return not re.fullmatch(r"\d{4}-\d\d-\d\d", text)
    return name in FIELDS and bool(FIELDS[name].choices) and text not in FIELDS[name].choices


# Whole files


@kind("rows sent twice")
def reimport(t, row, rng):
    """A part of the table once more at its end, as when two exports overlap."""
    n = int(rng.integers(2, min(8, len(t.rows)) + 1))
    first = int(rng.integers(0, len(t.rows) - n + 1))
    copies = [r for r in t.rows[first : first + n]]
    if any(r.lines or any(isinstance(c, Raw) for c in r.cells.values()) for r in copies):
        return None
    ids = []
    for r in copies:
        new = Row(dict(r.cells), t.new_id())
        t.rows.append(new)
        ids.append(new.id)
    return Fault("rows sent twice", ids[0], "", "", f"{n} rows once more", True, tuple(ids))


def _broken(t: Table, name: str, damage: Callable | None = None, after: str = "") -> Fault:
    t.damage = damage
    return Fault(name, t.rows[0].id, "", "", after, True, tuple(r.id for r in t.rows))


def _letters(t: Table) -> bool:
    """True where the text holds letters beyond ASCII, so that its encoding can be known."""
    texts = (*t.headings.values(), *(c for r in t.rows for c in r.cells.values()))
    return t.dialect.kind in ("csv", "ini") and any(not text.isascii() for text in texts)


@kind("broken bytes", file=True)
def broken_bytes(t, row, rng):
    """A byte that the encoding does not know, zero bytes, half of a UTF-16 letter."""
    if t.dialect.encoding not in ("utf-8", "utf-8-sig", "utf-16") or not _letters(t):
        return None
    at = float(rng.uniform(0.3, 0.9))
    wide = t.dialect.encoding == "utf-16"
    bad = bytes([0xDC]) if wide else _one(rng, (b"\xff", b"\x00", b"\xc3"))
    return _broken(t, "broken bytes", lambda b: b[: int(at * len(b))] + bad + b[int(at * len(b)) :], repr(bad))


@kind("cut file", file=True)
def cut_file(t, row, rng):
    """A spreadsheet or parquet file of which the end is missing; a file of no bytes."""
    if t.dialect.kind in ("csv", "ini"):
        return _broken(t, "cut file", lambda b: b"", "no bytes") if rng.random() < 0.3 else None
    at = float(rng.uniform(0.1, 0.95))
    return _broken(t, "cut file", lambda b: b[: int(at * len(b))], f"{at:.0%} of the bytes")


@kind("doubtful heading", file=True)
def heading(t, row, rng):
    """A heading without its unit, with another unit, or twice."""
    name = _one(rng, [c for c in (*MM, *UM) if c in t.columns])
    if t.dialect.kind == "ini":
        return None
    bare = name.rsplit("_", 1)[0]
    other = _one(rng, [c for c in (*MM, *UM, "k_d") if c in t.columns and c != name])
    ways = (bare, bare + "_cm") if t.dialect.kind == "parquet" else (bare, bare + "_cm", other)
    t.headings[name] = _one(rng, ways)
    return _broken(t, "doubtful heading", after=f"{name} -> {t.headings[name]}")


# Cases


@dataclass
class Case:
    """A damaged file, its clean twin, and what was done."""

    seed: tuple
    name: str
    table: Table
    clean: Table
    faults: list

    def __str__(self):
        return f"case {self.seed}, {self.table.dialect}"


def make_case(
    seed: int, number: int, kinds: tuple | None = None, plain: bool = False, people: bool = False
) -> Case:
    """Case `number` of a run: one class alone (several rows), two to five classes mixed, or clean. `kinds` chooses the
    classes (empty: a clean file), `plain` a file in UTF-8 with separators only, `people` one with names and births."""
    rng = np.random.default_rng([seed, number])
    names = sorted(k for k in KINDS if not KINDS[k].file)
    if kinds is None:
        alone = sorted(KINDS)[number % len(KINDS)]
        mixed = int(rng.integers(2, 6))
        way = number // len(KINDS) % 4
        times = 1 if KINDS[alone].file else int(rng.integers(1, 4))
        kinds = (alone,) * times if way < 2 else tuple(rng.choice(names, mixed, replace=False))
        kinds = () if way == 3 and rng.random() < 0.25 else kinds
    need = any(KINDS[k].earlier for k in kinds) or (kinds and rng.random() < 0.1)
    for _ in range(20):
        clean = clean_table(rng, int(rng.integers(8, 20)), random_dialect(rng, plain), need, people)
        table, done = clean.copy(), []
        for k in kinds:
            done += _damage(table, k, rng, done)
        if done or not kinds:
            break
    return Case((seed, number), "+".join(dict.fromkeys(f.kind for f in done)) or "clean", table, clean, done)


def _damage(table: Table, name: str, rng, before: list) -> list:
    """One fault of a class in a row that no other fault concerns."""
    taken = {i for f in before for i in f.rows}
    patients = {r.cells["patient_id"] for r in table.rows if r.id in taken}
    free = [r for r in table.rows if r.id not in taken and r.cells["patient_id"] not in patients]
    for i in rng.permutation(len(free))[:12]:
        fault = KINDS[name].inject(table, free[i], rng)
        if fault:
            return [fault]
    return []


# Reading, and what became of it


@dataclass
class Outcome:
    """What became of one fault: caught, refused (the whole file), undecided, missing, as meant, warned or passed."""

    fault: Fault
    result: str
    told: str = ""

    @property
    def good(self) -> bool:
        """True where no wrong number went on."""
        f = self.fault
        return (self.result in ("caught", "refused", "undecided") or self.result == "missing" and f.hidden
                or self.result == "as meant" and (f.readable or f.hidden))  # fmt: skip


@dataclass
class Result:
    """What became of one file."""

    case: Case
    outcomes: list = field(default_factory=list)
    crash: str = ""
    refused: str = ""
    balance: str = ""  # what is wrong with the counts
    clean_rows: int = 0
    clean_blocked: list = field(default_factory=list)
    clean_undecided: int = 0
    clean_warned: int = 0
    twin_rows: int = 0
    twin_blocked: list = field(default_factory=list)
    twin_undecided: int = 0
    twin: str = ""  # what went wrong with the clean twin as a whole
    clean_changed: list = field(default_factory=list)
    rows: int = 0
    seconds: float = 0.0


def reader(read=None) -> Callable:
    """`read_table` with those of clinic, key, known, strict and today that it understands."""
    if read is None:
        from lensnb.intake import read_table as read
    known = inspect.signature(read).parameters
    fixed = {k: v for k, v in dict(clinic="clinic-a", key=KEY, now=NOW, today=NOW, strict=True).items() if k in known}

    def one(path, earlier=None):
        more = {"known": earlier} if earlier is not None and "known" in known else {}
        return read(path, **fixed, **more)

    return one


def suffix(dialect: Dialect) -> str:
    """The ending of a file's name."""
    text = ".tsv" if dialect.separator == "\t" else ".csv"
    return {"xlsx": ".xlsx", "parquet": ".parquet", "ini": ".INI"}.get(dialect.kind, text)


def examine(case: Case, folder: Path, read: Callable | None = None, twin: bool = True) -> Result:
    """Write the case, read it, and say what became of every fault and of every row without one. With `twin` the same
    file without its faults is read too: it must pass, and its warnings are no answer to the faults."""
    read, result = read or reader(), Result(case)
    path = Path(folder) / f"case{suffix(case.table.dialect)}"
    earlier = None
    if case.table.earlier is not None:
        before = path.with_name("earlier.csv")
        write(case.table.earlier, before)
        earlier = read(before)
    result.rows = write(case.table, path)
    eyes = _read(read, path, earlier, result)
    if result.crash:
        return result
    if eyes is None:
        result.outcomes = [Outcome(f, "refused", result.refused) for f in case.faults]
        return result
    quiet = {}
    if case.faults and twin:
        quiet = _twin(case, path, earlier, read, result)
    at = {r.id: r.file_row for r in case.clean.rows}
    _judge(case, eyes, result, {i: quiet.get(row, set()) for i, row in at.items()})
    return result


def _twin(case: Case, path: Path, earlier, read: Callable, result: Result) -> dict:
    """Read the file as it was before the faults; returns its warnings."""
    twin = Result(case)
    twin.rows = write(case.clean, path)
    calm = _read(read, path, earlier, twin)
    result.seconds += twin.seconds
    result.twin = twin.crash or twin.refused
    if calm is None:
        return {}
    _judge(Case(case.seed, "clean", case.clean, case.clean, []), calm, twin, {})
    result.twin = twin.balance
    result.twin_rows, result.twin_blocked, result.twin_undecided = (
        twin.clean_rows, twin.clean_blocked, twin.clean_undecided)  # fmt: skip
    result.clean_changed += [(row, f"{what} (in the clean twin)") for row, what in twin.clean_changed]
    return _warnings(calm)


def _read(read: Callable, path: Path, earlier, result: Result):
    start = time.perf_counter()
    try:
        return read(path, earlier)
    except InputError as e:
        result.refused = str(e)
    except Exception as e:
        result.crash = f"{type(e).__name__}: {e}"
    finally:
        result.seconds += time.perf_counter() - start


def _warnings(eyes: pd.DataFrame) -> dict:
    found = {}
    for r in eyes.attrs["quarantine"]:
        if r["severity"] != "block":
            found.setdefault(r["row"], set()).add((r["column"], r["code"]))
    return found


def _judge(case: Case, eyes: pd.DataFrame, result: Result, quiet: dict) -> None:
    reasons, blocking = eyes.attrs["quarantine"], {}
    for r in reasons:
        if r["severity"] == "block":
            blocking.setdefault(r["row"], set()).add(r["code"])
    warned = _warnings(eyes)
    accepted = eyes.attrs.get("rows")
    if accepted is None:
        accepted = sorted({r.file_row for r in case.table.rows} - set(blocking))
    accepted = [int(i) for i in accepted]
    result.balance = _balance(eyes.attrs["intake"], eyes, accepted, blocking, result.rows)
    if len(accepted) != len(eyes):
        return
    values = dict(zip(accepted, eyes.to_dict("records")))
    at = {r.id: r for r in case.table.rows}
    meant = {r.id: r.cells for r in case.clean.rows}
    for f in case.faults:
        new = warned.get(at[f.row].file_row, set()) - quiet.get(f.row, set())
        result.outcomes.append(_outcome(f, at, meant, blocking, ", ".join(sorted({code for _, code in new})), values))
    _judge_clean(case, reasons, blocking, warned, values, result)


def _judge_clean(case, reasons, blocking, warned, values, result) -> None:
    touched = {i for f in case.faults for i in f.rows}
    partners = {r.cells.get("patient_id") for r in (*case.table.rows, *case.clean.rows) if r.id in touched}
    meant = {r.id: r.cells for r in case.clean.rows}
    for row in case.table.rows:
        if row.id in touched:
            continue
        codes = blocking.get(row.file_row, set())
        if codes and all("laterality" in c for c in codes):
            result.clean_undecided += 1
            continue
        result.clean_rows += 1
        if codes:
            near = " (a fault in another row of the patient)" if row.cells.get("patient_id") in partners else ""
            told = [r for r in reasons if r["row"] == row.file_row and r["severity"] == "block"]
            result.clean_blocked.append((row.file_row, sorted(codes), told[0]["message"] + near))
        elif row.file_row not in values:
            result.clean_changed.append((row.file_row, "the row is neither accepted nor quarantined"))
        else:
            result.clean_warned += row.file_row in warned
            result.clean_changed += [(row.file_row, c) for c in _changed(values[row.file_row], meant[row.id])]


def _balance(facts: dict, eyes, accepted: list, blocking: dict, rows: int) -> str:
    if facts["received"] != facts["accepted"] + facts["quarantined"]:
        return f"received {facts['received']} = {facts['accepted']} + {facts['quarantined']}?"
    if facts["accepted"] != len(eyes) or len(accepted) != len(eyes):
        return f"accepted {facts['accepted']}, {len(eyes)} rows, {len(accepted)} row numbers"
    if facts["quarantined"] != len(blocking):
        return f"quarantined {facts['quarantined']}, rows with blocking reasons {len(blocking)}"
    if set(accepted) & set(blocking):
        return f"rows {sorted(set(accepted) & set(blocking))} are accepted and quarantined"
    return "" if facts["received"] == rows else f"the file holds {rows} rows, {facts['received']} were received"


def _outcome(f: Fault, at: dict, meant: dict, blocking: dict, told: str, values: dict) -> Outcome:
    places = [at[i].file_row for i in f.rows if i in at]
    mine = at[f.row].file_row
    if f.kind == "rows sent twice":
        free = [p for p in places if p not in blocking]
        return Outcome(f, "passed" if free else "caught", f"rows {free} accepted" if free else "")
    stopped = blocking.get(mine)
    if stopped:
        return Outcome(f, "undecided" if stopped == {"laterality_undecided"} else "caught", ", ".join(sorted(stopped)))
    if f.field and mine in values and f.field in FIELDS and f.row in meant:
        got = values[mine].get(f.field)
        if got is None or pd.isna(got) or f.hidden and told == "derived":  # computed from other cells of the row
            return Outcome(f, "missing", told)
        if _same(f.field, got, meant[f.row].get(f.field, "")) and f.kind != "outcome on a record before surgery":
            return Outcome(f, "as meant" if f.field != "eye" else "passed", told)
    return Outcome(f, "warned" if told else "passed", told)


def _same(name: str, got, meant: str) -> bool:
    if FIELDS[name].kind == "date":
        return f"{pd.Timestamp(got):%Y-%m-%d}" == meant
    try:
        return abs(float(got) - float(meant)) < 1e-9
    except ValueError:
        return str(got) == str(meant) or FIELDS[name].kind == "text" and re.fullmatch(r"device-[0-9a-f]+", str(got))


def _changed(got: dict, meant: dict) -> list[str]:
    """Fields of an accepted row that do not say what was written."""
    found = []
    for name, text in meant.items():
        if name not in FIELDS or name in ("patient_id", "eye_id", "clinic_id"):
            continue
        value = got.get(name)
        missing = value is None or pd.isna(value)
        if missing != (text == "") or not missing and not _same(name, value, text):
            found.append(f"{name}: {text!r} became {value!r}")
    return found
