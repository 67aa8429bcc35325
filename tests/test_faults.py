"""The generator of faults is fair, and the intake sees what a file itself shows."""

import re

import faults
import numpy as np
import pandas as pd
import pytest

FILES, SEED = 60, 7


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder, read = tmp_path_factory.mktemp("faults"), faults.reader()
    return [faults.examine(faults.make_case(SEED, i), folder, read, twin=i % 3 == 0) for i in range(FILES)]


def whole(result) -> bool:
    return any(faults.KINDS[f.kind].file for f in result.case.faults)


def test_nothing_crashes_and_no_file_is_refused_for_the_sake_of_a_row(results):
    assert [f"{r.case}: {r.crash}" for r in results if r.crash] == []
    assert [f"{r.case}: {r.refused}" for r in results if r.refused and not whole(r)] == []


def test_received_is_accepted_and_quarantined(results):
    assert [f"{r.case}: {r.balance} {r.twin}" for r in results if r.balance or r.twin] == []


def test_every_fault_that_the_file_shows_is_caught(results):
    missed = [f"{r.case}: {o}" for r in results for o in r.outcomes if o.fault.decidable and not o.good]
    assert missed == [] and sum(o.fault.decidable for r in results for o in r.outcomes) > FILES / 2


def test_clean_rows_go_through_unchanged(results):
    assert [f"{r.case}: {c}" for r in results for c in r.clean_changed] == []
    rows = sum(r.clean_rows + r.twin_rows for r in results)
    assert rows > 600
    assert sum(len(r.clean_blocked) + len(r.twin_blocked) for r in results) <= 0.01 * rows


def test_the_judge_sees_an_intake_that_believes_everything(tmp_path):
    """Where nothing is checked, no decidable fault is good: the measure itself can fail."""

    def believes(path):
        cells = pd.read_csv(path, sep=None, engine="python", dtype=str, keep_default_na=False)
        eyes = cells.apply(lambda c: pd.to_numeric(c, errors="coerce") if c.name in faults.NUMBERS else c)
        facts = dict(received=len(eyes), accepted=len(eyes), quarantined=0)
        eyes.attrs = {"quarantine": [], "intake": facts, "rows": list(range(2, len(eyes) + 2))}
        return eyes

    for name in ("unit", "impossible zero", "lost sign of the lens power", "dates in the wrong order", "duplicate"):
        case = faults.make_case(SEED, 0, kinds=(name,), plain=True)
        result = faults.examine(case, tmp_path, faults.reader(believes))
        assert [o.good for o in result.outcomes if o.fault.decidable] == [False], name


def test_an_intake_that_repairs_by_guessing_is_not_good(tmp_path):
    """A value out of range that comes back as it was meant was guessed."""
    case = faults.make_case(SEED, 1, kinds=("impossible zero",), plain=True)
    f = case.faults[0]
    assert not faults.Outcome(f, "as meant").good and not faults.Outcome(f, "missing").good
    assert faults.Outcome(f, "caught").good


@pytest.mark.parametrize("name", sorted(faults.KINDS))
def test_every_class_is_injected_and_is_a_fault(name):
    """Each class occurs, changes the file, and says truly whether its value can be right."""
    seen = 0
    for i in range(12):
        case = faults.make_case(SEED, i, kinds=(name,))
        if not case.faults or case.table.damage or case.table.headings:
            seen += len(case.faults)
            continue
        seen, f = seen + 1, case.faults[0]
        before = {r.id: r.cells for r in case.clean.rows}
        now = {r.id: r for r in case.table.rows}
        assert now.keys() != before.keys() or any(now[k].lines or now[k].cells != before[k] for k in before)
        whole_row = name in ("conflict", "outcome on a record before surgery", "age at today")
        if f.field not in faults.NUMBERS or f.row not in before or whole_row or f.readable:
            continue
        if re.fullmatch(r"-?[\d.]+", f.after):
            shown = faults.impossible(f.field, f.after) or faults.contradicts(now[f.row].cells)
            assert f.decidable == shown, (name, f)
    assert seen >= 4, f"{name} was injected {seen} times in 12 files"


def test_the_same_seed_gives_the_same_file(tmp_path):
    for i in range(8):
        files = []
        for k in "ab":
            case, path = faults.make_case(SEED, i), tmp_path / f"{i}{k}"
            faults.write(case.table, path)
            files.append(path.read_bytes())
        assert files[0] == files[1] or case.table.dialect.kind == "xlsx", "a spreadsheet holds its time of making"


def test_a_clean_table_is_clean():
    rng = np.random.default_rng(SEED)
    for _ in range(10):
        table = faults.clean_table(rng, earlier=True)
        for row in (*table.rows, *table.earlier.rows):
            bad = [(c, v) for c, v in row.cells.items() if v and faults._unreadable(c, v)]
            assert bad == []
            assert not row.cells.get("surgery_date") or row.cells["exam_date"] <= row.cells["surgery_date"]
