"""Every notebook runs from top to bottom, in this process, as `nbdev_test` would run it."""

import contextlib
import os
import sys
import warnings
from pathlib import Path

import matplotlib
import pytest
from notebooks import notebooks, settings

ROOT = Path(__file__).resolve().parents[1]
SLOW = settings(ROOT).get("tst_flags", "").split()  # cells flagged `#| slow` are left to `make notebooks`


@contextlib.contextmanager
def untouched():
    """Put back what a notebook may change in this process: path, folder, environment, main module, figures, style."""
    import matplotlib.pyplot as plt

    path, folder, environment, main = list(sys.path), os.getcwd(), dict(os.environ), sys.modules["__main__"]
    try:
        with matplotlib.rc_context(), warnings.catch_warnings():
            yield
    finally:
        plt.close("all")
        plt.switch_backend("Agg")
        plt.uninstall_repl_displayhook()  # it hangs on this notebook's shell: `plt.ioff` fails in the next one
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = path
        sys.modules["__main__"] = main


def run(path: Path, capsys) -> str:
    """Run a notebook; the report of the cell that failed, or nothing."""
    from nbdev.test import test_nb as run_notebook

    with untouched():
        good, _ = run_notebook(path, skip_flags=SLOW, basepath=str(ROOT))
    said = capsys.readouterr().err
    return "" if good else said or f"{path.name} failed without a word"


@pytest.mark.parametrize("path", notebooks(ROOT), ids=lambda p: p.stem)
def test_notebook_runs(path, capsys):
    before = set(path.parent.iterdir())
    if fault := run(path, capsys):
        pytest.fail(fault, pytrace=False)
    left = {p.name for p in set(path.parent.iterdir()) - before}
    assert not left, f"{path.name} leaves files behind: {sorted(left)}"


@pytest.mark.parametrize(
    "cell, says",
    [("assert 1 + 1 == 3, 'sums'", "sums"), ("import nowhere_at_all", "nowhere_at_all"), ("def f(:", "SyntaxError")],
)
def test_a_failing_cell_fails_the_notebook(cell, says, tmp_path, capsys):
    """The error and the number of the cell are told."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    path = tmp_path / "00_bad.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("x = 0"), new_code_cell("x = 1"), new_code_cell(cell)]), path)
    fault = run(path, capsys)
    assert says in fault and "Cell #3" in fault


def test_a_notebook_may_switch_interactive_drawing_off_after_another_drew(tmp_path, capsys):
    """pyplot hooks itself onto the shell of the first notebook; the next one has a shell of its own."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    for name, code in {"00_draws": "import matplotlib.pyplot as plt; plt.plot([1])", "01_off": "plt.ioff()"}.items():
        cells = [new_code_cell("import matplotlib.pyplot as plt"), new_code_cell(code)]
        nbformat.write(new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
        assert run(tmp_path / f"{name}.ipynb", capsys) == ""


def test_cells_flagged_slow_are_the_only_ones_skipped():
    assert SLOW == ["slow"]
