"""From damaged files with names in them to a store: no name, number or birth date is in any file that was written."""

import re
from pathlib import Path

import faults
import pandas as pd
import pytest
from click.testing import CliRunner

from lensnb.cli import main

FILES, SEED = 14, 11
ARRIVED = "2026-11-15T12:00:00"


def said(path: Path) -> str:
    """What a file says to whoever opens it, whatever its make; hashes mean nothing and are left out."""
    raw = path.read_bytes()
    texts = [raw.decode("utf-8", errors="replace"), raw.decode("utf-16-le", errors="replace")]
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        texts += [frame.to_csv(), repr(frame.attrs)]
    return re.sub(r"[0-9a-f]{16,64}", "", "\n".join(texts))


def leaks(folder: Path, secrets) -> list[str]:
    """`file: secret` for all that must not be there."""
    texts = {p.relative_to(folder): said(p) + p.name for p in sorted(folder.rglob("*")) if p.is_file()}
    return [f"{name}: {s}" for name, text in texts.items() for s in secrets if s in text]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Damaged files of all makes, taken in, made ready, looked at, one row released; and what was said meanwhile."""
    folder, secrets, paths = tmp_path_factory.mktemp("people"), set(), []
    key, store = tmp_path_factory.mktemp("key") / "key", folder / "store"
    for i in range(FILES):
        case = faults.make_case(SEED, i * 7, people=True)
        path = folder / "in" / f"{i:02d}{faults.suffix(case.table.dialect)}"
        path.parent.mkdir(exist_ok=True)
        faults.write(case.table, path)
        secrets |= case.table.secrets
        paths.append(str(path))
    run, words = CliRunner(), []
    common = ["--clinic", "clinic-a", "--key", str(key), "--received", ARRIVED]
    for step in (
        ["intake", *paths, "--out", str(store), *common],
        ["store", "materialize", str(store), "--as-of", ARRIVED],
        ["store", "show", str(store), "--json"],
        ["store", "verify", str(store)],
    ):
        done = run.invoke(main, step)
        assert done.exception is None or isinstance(done.exception, SystemExit), (step[:2], done.exception)
        words.append(done.output)
    return folder, store, secrets, words


def test_something_was_taken_in_and_something_refused(pipeline):
    _, store, secrets, words = pipeline
    assert len(secrets) > 300 and len(list(store.rglob("rows.parquet"))) > FILES / 2
    assert any("quarantine" in w for w in words)


def test_no_identity_is_in_any_file_of_the_store(pipeline):
    _, store, secrets, _ = pipeline
    assert leaks(store, secrets) == []


def test_no_identity_was_said(pipeline):
    _, _, secrets, words = pipeline
    assert [s for s in secrets for w in words if s in w] == []


def test_the_search_finds_what_was_sent(pipeline):
    """The same search finds the secrets in the input, and in a store in which one was hidden."""
    folder, store, secrets, _ = pipeline
    texts = [p for p in (folder / "in").iterdir() if p.suffix in (".csv", ".tsv", ".INI", ".parquet")]
    found = {s for text in map(said, texts) for s in secrets if s in text}
    assert len(found) > 100
    name = sorted(s for s in secrets if " " in s)[0]
    pd.DataFrame({"device": [name]}).to_parquet(folder / "hidden.parquet")
    hidden = [leak for leak in leaks(folder, [name]) if leak.startswith("hidden.parquet")]
    assert hidden == [f"hidden.parquet: {name}"]
