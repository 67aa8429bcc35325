"""What all tests share: one thread, no window, no clock, no leftovers."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("lensnb", deadline=None, derandomize=True, database=None)
settings.load_profile("lensnb")
ROOT = Path(__file__).resolve().parents[1]


def real_eyes() -> Path | None:
    """The real cohort, where LENSNB_DATA_DIR says that it lies."""
    path = Path(os.environ.get("LENSNB_DATA_DIR", "")) / "icl_eyes_dev.csv"
    return path if os.environ.get("LENSNB_DATA_DIR") and path.is_file() else None


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the project."""
    return ROOT


def pytest_report_header():
    return "eyes: synthetic clinics " + (
        "and the real cohort" if real_eyes() else "only (LENSNB_DATA_DIR names no folder with the real cohort)"
    )


def pytest_terminal_summary(terminalreporter):
    """One last line for a person: how many notebooks and tests, on which eyes."""
    passed = terminalreporter.stats.get("passed", [])
    notebooks = [r for r in passed if "::test_notebook_runs[" in r.nodeid]
    failed = [r for kind in ("failed", "error") for r in terminalreporter.stats.get(kind, [])]
    terminalreporter.write_line(
        f"{len(notebooks)} notebooks and {len(passed) - len(notebooks)} other tests passed, "
        f"{len(failed)} failed; {pytest_report_header()}"
    )
