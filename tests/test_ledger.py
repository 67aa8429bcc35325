"""The ledger: no line can be changed unseen, and no writer is lost."""

import shutil
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta, timezone
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensnb.ledger import Ledger, canonical, connect, moment
from lensnb.schema import InputError


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite", create=True)
    for i in range(6):
        ledger.append("release" if i % 2 else "batch", {"i": i, "who": f"person {i}"}, f"2026-10-0{i + 1}")
    return ledger


def forge(ledger, command, *values):
    """Change the file behind the library's back."""
    with closing(connect(ledger.path)) as db:
        db.executescript("DROP TRIGGER no_update; DROP TRIGGER no_delete;")
        db.execute(command, values)


@pytest.mark.parametrize("column", ["at", "kind", "payload", "previous", "hash"])
@pytest.mark.parametrize("number", [1, 3, 6])
def test_any_changed_cell_is_noticed_at_its_line(ledger, column, number):
    assert ledger.verify() == 6
    forge(ledger, f"UPDATE entries SET {column} = {column} || ' ' WHERE number = ?", number)
    with pytest.raises(InputError, match=f"broken at entry {number}"):
        ledger.verify()


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_removed_line_is_named(ledger, number):
    forge(ledger, "DELETE FROM entries WHERE number = ?", number)
    with pytest.raises(InputError, match=f"broken at entry {number}: it is missing"):
        ledger.verify()


def test_a_cut_end_is_seen_by_the_noted_head_only(ledger):
    head = ledger.head()
    assert ledger.verify(head) == 6
    forge(ledger, "DELETE FROM entries WHERE number > 4")
    assert ledger.verify() == 4
    with pytest.raises(InputError, match="not the entry that was noted"):
        ledger.verify(head)


def test_lines_cannot_be_changed_by_mistake(ledger):
    with closing(connect(ledger.path)) as db:
        for command in ("UPDATE entries SET kind = 'x'", "DELETE FROM entries"):
            with pytest.raises(sqlite3.IntegrityError, match="final"):
                db.execute(command)
    assert ledger.verify() == 6


def test_reading_by_kind_and_from_a_number(ledger):
    assert [e.payload["i"] for e in ledger.entries("release")] == [1, 3, 5]
    assert [e.number for e in ledger.entries(after=4)] == [5, 6]


def test_the_same_entries_give_the_same_chain(tmp_path):
    heads = set()
    for name in "ab":
        ledger = Ledger(tmp_path / name, create=True)
        ledger.append("batch", {"b": 1, "a": np.float64(2.5)}, "2026-10-01")
        heads.add(ledger.append("batch", {"x": [np.nan, None]}, pd.Timestamp("2026-10-02")).hash)
    assert len(heads) == 1


def test_many_writers_make_one_chain(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite", create=True)

    def write(who):
        for i in range(20):
            ledger.append("prediction", {"who": who, "i": i}, "2026-10-31")

    writers = [Thread(target=write, args=(w,)) for w in range(4)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    assert ledger.verify() == 80
    assert sorted((e.payload["who"], e.payload["i"]) for e in ledger.entries()) == [
        (w, i) for w in range(4) for i in range(20)
    ]


def test_a_ledger_is_not_made_by_looking(tmp_path):
    with pytest.raises(InputError, match="no ledger"):
        Ledger(tmp_path / "ledger.sqlite")
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_written_down_is_refused(ledger):
    with pytest.raises(InputError, match="written down"):
        ledger.append("batch", {"frame": pd.DataFrame()}, "2026-10-31")
    assert ledger.verify() == 6


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(), json))
def test_one_content_has_one_spelling(content):
    import json

    text = canonical(content)
    assert canonical(dict(reversed(content.items()))) == text
    assert canonical(json.loads(text)) == text


@given(st.datetimes(datetime(1990, 1, 1), datetime(2099, 1, 1)))
def test_moments_keep_their_microseconds(when):
    assert moment(when) == moment(when.isoformat()) == pd.Timestamp(when)


@pytest.mark.parametrize(
    "given",
    ["today", "2026-10-31Z", "2026-10-31T10:00+01:00", "1/2/2026", "2026-13-01", 20261031, 1.5, None, pd.NaT, True]
    + [datetime.now(timezone.utc), datetime.now(timezone(timedelta(hours=9)))],
)
def test_no_clock_no_zone_no_doubt(given):
    with pytest.raises(InputError, match="moment in UTC"):
        moment(given)


def test_a_copy_is_a_ledger_too(ledger, tmp_path):
    copy = Ledger(shutil.copy(ledger.path, tmp_path / "copy.sqlite"))
    assert copy.verify(ledger.head()) == 6
