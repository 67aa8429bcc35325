"""The notebooks and the library are the same thing, and the notebooks keep the rules of the house.

First every guard looks at this project. Then each is shown a small project that breaks its rule in one place.
"""

import json
import os
import textwrap

import guards
import notebooks
import pytest

ACD_ATA_CLR_ACA = (3.07, 11.85, 137, 38.25)  # made up


@pytest.mark.parametrize("guard", guards.GUARDS, ids=lambda g: g.__name__)
def test_this_project_keeps_the_rules(guard, root):
    if guard is guards.no_real_eyes and not os.environ.get("LENSNB_DATA_DIR"):
        pytest.skip("LENSNB_DATA_DIR is not set: no real cohort to compare with")
    faults = guard(root)
    if faults:
        pytest.fail(
            f"{guard.__doc__}\n{len(faults)} fault(s):\n" + "\n".join(f"  - {f}" for f in faults), pytrace=False
        )


def test_no_notebook_is_left_out(root):
    on_disk = {p.name for p in (root / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts}
    assert on_disk == {p.name for p in notebooks.notebooks(root)}


# A small project that keeps every rule


def md(text):
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code(text, shown=None, tags=None):
    outputs = (
        []
        if shown is None
        else [
            {"data": {"text/plain": [shown]}, "execution_count": None, "metadata": {}, "output_type": "execute_result"}
        ]
    )
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {"tags": tags} if tags else {},
        "outputs": outputs,
        "source": text,
    }


def notebook(root, name, *cells):
    """Write a notebook and clean it."""
    for i, cell in enumerate(cells):
        cell["id"] = f"c{i:03d}"
        cell["source"] = cell["source"].splitlines(keepends=True)
    kernel = {"display_name": "python3", "language": "python", "name": "python3"}
    path = root / "nbs" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        json.dumps({"cells": list(cells), "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})
    )
    path.write_text(notebooks.cleaned(path, root))


ONE = [
    md("# one\n> The first room.\n\nIt doubles."),
    code("#| default_exp one"),
    md("Twice a number."),
    code("#| export\ndef double(x):\n    return 2 * x"),
    code("assert double(2) == 4"),
    code("double(3) + 0", "6"),
]


def fresh(root):
    """Export the library, the templates and the README of a small project."""
    from nbdev.export import nb_export

    for path in notebooks.notebooks(root):
        nb_export(path, lib_path=str(root / "lensnb"))
    for path, data in {**notebooks.templates(root), **notebooks.readme(root)}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)


@pytest.fixture
def small(tmp_path):
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nallowed_cell_metadata_keys = tags\n")
    (tmp_path / "lensnb").mkdir()
    (tmp_path / "lensnb" / "__init__.py").write_text("")
    (tmp_path / "README.md").write_text("")
    notebook(tmp_path, "00_one", *json.loads(json.dumps(ONE)))
    notebook(
        tmp_path,
        "10_two",
        md("# two\n> The second room."),
        code("#| default_exp two"),
        md("What we need."),
        code("#| export\nfrom lensnb.one import double"),
        md("Four times."),
        code('#| export\ndef quadruple(x):\n    """Four times a number."""\n    return double(double(x))'),
        code("print(quadruple(1))", "4"),
    )
    notebook(
        tmp_path,
        "90_page",
        md("# page\n> A template."),
        code("month = '2026-10'", tags=["parameters"]),
        code("month[:4]", "'2026'"),
    )
    notebook(
        tmp_path, "index", md("# lensnb\n> The front door."), code("from lensnb import double\ndouble(2) + 0", "4")
    )
    fresh(tmp_path)
    return tmp_path


@pytest.mark.parametrize("guard", guards.GUARDS, ids=lambda g: g.__name__)
def test_a_good_project_passes(guard, small):
    assert guard(small) == []


# One broken rule each: guard -> (what the message says, how to break it)


def cell_source(i, source, name="00_one", refresh=True):
    """Replace the source of one cell."""

    def change(root):
        path = root / "nbs" / f"{name}.ipynb"
        nb = json.loads(path.read_text())
        nb["cells"][i]["source"] = textwrap.dedent(source).splitlines(keepends=True)
        path.write_text(json.dumps(nb))
        path.write_text(notebooks.cleaned(path, root))
        if refresh:
            fresh(root)

    return change


def cell_field(i, field, value, name="00_one"):
    """Replace one field of one cell, as it would be saved by hand."""

    def change(root):
        path = root / "nbs" / f"{name}.ipynb"
        nb = json.loads(path.read_text())
        nb["cells"][i][field] = value
        path.write_text(json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + "\n")

    return change


def file(name, text):
    """Write one more file."""

    def change(root):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    return change


def extra_cells(*cells, name="00_one"):
    def change(root):
        nb = json.loads((root / "nbs" / f"{name}.ipynb").read_text())
        old = [{**c, "source": "".join(c["source"])} for c in nb["cells"]]
        notebook(root, name, *old, *json.loads(json.dumps(cells)))
        fresh(root)

    return change


LONG = "#| export\ndef long(x):\n" + "    x = x + 1\n" * 20 + "    return x"
DOCUMENTED = '#| export\ndef long(x):\n    """' + "A line of explanation.\n    " * 30 + '"""\n    return x'
IMAGE = {"data": {"image/png": "iVBORw0KGgo="}, "metadata": {}, "output_type": "display_data"}
ERROR = {"ename": "ValueError", "evalue": "no", "output_type": "error", "traceback": []}
STDERR = {"name": "stderr", "output_type": "stream", "text": ["FutureWarning: soon\n"]}
ROW = "eye 17: acd 3.07 mm, ata 11.85 mm, clr -137 um, aca 38.25 deg, age 31, size 12.6"
TABLE = "<table>\n<tr>\n" + "".join(f"<td>{v}</td>\n" for v in (31, 12.6, 3.07, 11.85, -137, 38.25)) + "</tr>\n</table>"
BROKEN = {
    "stale module": (
        guards.library_is_fresh,
        "lensnb/one.py differs",
        file("lensnb/one.py", "def double(x):\n    return 3 * x\n"),
    ),
    "one blank more": (
        guards.library_is_fresh,
        "differs",
        cell_source(3, "#| export\ndef double(x):\n    return 2  * x", refresh=False),
    ),
    "module without notebook": (
        guards.library_is_fresh,
        "lensnb/old.py has no notebook",
        file("lensnb/old.py", "x = 1\n"),
    ),
    "notebook not exported": (
        guards.library_is_fresh,
        "lensnb/two.py is missing",
        lambda root: (root / "lensnb/two.py").unlink(),
    ),
    "notebook renamed": (
        guards.names_match,
        "exports to `one`",
        lambda root: (root / "nbs/00_one.ipynb").rename(root / "nbs/00_first.ipynb"),
    ),
    "no default_exp": (guards.names_match, "no `default_exp`", cell_source(1, "x = 1", refresh=False)),
    "syntax error": (
        guards.modules_are_valid,
        "lensnb/one.py:",
        cell_source(3, "#| export\ndef double(x:\n    return 2 * x"),
    ),
    "misspelt directive": (
        guards.known_directives,
        "unknown directive `#| exprot`",
        cell_source(3, "#| exprot\ndef double(x):\n    return 2 * x"),
    ),
    "cell never evaluated": (
        guards.known_directives,
        "unknown directive `#| eval:`",
        cell_source(4, "#| eval: false\nassert False"),
    ),
    "late directive": (guards.known_directives, "below the first line", cell_source(4, "x = 1\n#| export\ny = 2")),
    "directive in text": (guards.known_directives, "markdown cell", cell_source(2, "Twice.\n#| export")),
    "skipped notebook": (
        guards.known_directives,
        "out of the tests",
        cell_source(0, "# one\n> The first room.\n- skip_exec: true"),
    ),
    "execution count": (guards.notebooks_are_clean, "00_one.ipynb: not clean", cell_field(4, "execution_count", 7)),
    "editor's metadata": (guards.notebooks_are_clean, "not clean", cell_field(4, "metadata", {"scrolled": True})),
    "address in output": (
        guards.notebooks_are_clean,
        "not clean",
        cell_field(
            5,
            "outputs",
            [
                {
                    "data": {"text/plain": ["<object at 0x7f00>"]},
                    "execution_count": None,
                    "metadata": {},
                    "output_type": "execute_result",
                }
            ],
        ),
    ),
    "tags not allowed": (
        guards.templates_are_whole,
        "strips the `parameters` tag",
        file("settings.ini", "[DEFAULT]\nallowed_cell_metadata_keys =\n"),
    ),
    "stripped tag": (guards.templates_are_whole, "lost its `parameters` tag", cell_field(1, "metadata", {}, "90_page")),
    "two parameter cells": (
        guards.templates_are_whole,
        "exactly one",
        cell_field(2, "metadata", {"tags": ["parameters"]}, "90_page"),
    ),
    "stale template": (
        guards.templates_are_whole,
        "missing or stale",
        cell_source(2, "month[5:]", "90_page", refresh=False),
    ),
    "template without notebook": (
        guards.templates_are_whole,
        "no notebook",
        file("lensnb/templates/91_gone.ipynb", "{}"),
    ),
    "README edited by hand": (guards.readme_is_fresh, "README.md: run", file("README.md", "# lensnb, improved\n")),
    "index changed": (
        guards.readme_is_fresh,
        "README.md: run",
        cell_source(0, "# lensnb\n> The back door.", "index", refresh=False),
    ),
    "figure missing": (guards.readme_is_fresh, "docs/readme_1_0.png: run", cell_field(1, "outputs", [IMAGE], "index")),
    "figure left behind": (guards.readme_is_fresh, "no longer part", file("docs/readme_9_0.png", "")),
    "no title": (guards.essays, "does not begin with a title", cell_source(0, "One.\n> The first room.")),
    "no subtitle": (guards.essays, "no one-line subtitle", cell_source(0, "# one\n\nThe first room.")),
    "only code": (guards.essays, "at least a quarter", extra_cells(*[code("x = 1")] * 6)),
    "endless": (guards.essays, "split it", extra_cells(*[md("More.")] * 90)),
    "hidden cells": (guards.essays, "2 hidden cells", extra_cells(*[code("#| hide\nx = 1")] * 2)),
    "no sentence before": (
        guards.essays,
        "without a sentence before",
        extra_cells(code("#| export\nx = 1"), code("assert x")),
    ),
    "nothing seen after": (
        guards.essays,
        "nothing is shown or asserted after",
        extra_cells(md("A number."), code("#| export\nx = 1")),
    ),
    "exports in a row": (
        guards.essays,
        "export number 4 in a row",
        extra_cells(*[md("A number."), code("#| export\nx = 1")] * 4, code("assert x")),
    ),
    "long export": (
        guards.small_exports,
        "22 lines of code",
        extra_cells(md("Long."), code(LONG), code("assert long(0) == 20")),
    ),
    "wide export": (
        guards.small_exports,
        "a line of 129 characters",
        extra_cells(md("Wide."), code("#| export\nx = " + " + ".join(["1"] * 32)), code("assert x")),
    ),
    "error in output": (guards.outputs_are_committed, "committed error: ValueError", cell_field(4, "outputs", [ERROR])),
    "warning in output": (guards.outputs_are_committed, "warning or progress bar", cell_field(4, "outputs", [STDERR])),
    "never executed": (guards.outputs_are_committed, "not executed", cell_field(5, "outputs", [])),
    "print without output": (guards.outputs_are_committed, "not executed", cell_field(6, "outputs", [], "10_two")),
    "upstream import": (
        guards.flow,
        "imports `two`, which comes later",
        cell_source(4, "from lensnb.two import quadruple"),
    ),
    "own module": (guards.flow, "imports `one`, which comes later", cell_source(4, "import lensnb.one")),
    "public name": (
        guards.flow,
        "imports `two`, which comes later",
        lambda root: (
            file("lensnb/__init__.py", '_PUBLIC = {"two": ("quadruple",)}\n')(root),
            notebook(root, "05_look", md("# look\n> A page."), code("from lensnb import quadruple")),
        ),
    ),
    "whole package": (guards.flow, "name the module", cell_source(4, "from lensnb import double")),
    "star import": (guards.flow, "star import", cell_source(3, "#| export\nfrom lensnb.one import *", "10_two")),
    "unused import": (guards.lint, "lensnb/one.py:", file("lensnb/one.py", "import os\n")),
    "undefined name": (guards.lint, "Undefined name `numpi`", file("lensnb/one.py", "x = numpi.array(1)\n")),
    "nbdev at run time": (
        guards.no_development_imports,
        "lensnb/two.py:",
        file("lensnb/two.py", "def f():\n    from fastcore.basics import patch\n"),
    ),
    "path of a machine": (
        guards.no_machine_paths,
        "names a path of a machine",
        file("notes.md", "see " + "/ho" + "me/ana/eyes.csv/"),
    ),
    "path in an output": (
        guards.no_machine_paths,
        "names a path of a machine",
        cell_source(2, "In " + "/ro" + "ot/lensnb/nbs."),
    ),
    "package host": (
        guards.no_machine_paths,
        "packages are downloaded",
        file("constraints.txt", "--index" + "-url https://example.org\n"),
    ),
    "outside folder": (
        guards.no_machine_paths,
        "outside the repository",
        file("Makefile", "DATA = .." + "/shared/data\n"),
    ),
    "unknown document": (
        guards.no_machine_paths,
        "a document that readers do not have",
        file("notes.md", "as METHOD" + ".md says\n"),
    ),
    "row in a text": (guards.no_real_eyes, "notes.md: 1 row", file("notes.md", ROW)),
    "row in an HTML table": (guards.no_real_eyes, "page.html: 1 row", file("page.html", TABLE)),
    "row in an output": (
        guards.no_real_eyes,
        "00_one.ipynb:",
        cell_field(
            4,
            "outputs",
            [{"data": {"text/html": TABLE.splitlines(keepends=True)}, "metadata": {}, "output_type": "display_data"}],
        ),
    ),
    "row in JSON": (
        guards.no_real_eyes,
        "model.json:",
        file(
            "model.json",
            json.dumps(
                {"rows": [{"age_y": 31, "size_mm": 12.6, "acd": 3.07, "ata": 11.85, "clr": -137, "aca": 38.25}]},
                indent=1,
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_project_is_found(name, small, monkeypatch):
    guard, says, break_it = BROKEN[name]
    if guard is guards.no_real_eyes:
        assert guard(small, keys={ACD_ATA_CLR_ACA}) == []
    break_it(small)
    faults = guard(small, keys={ACD_ATA_CLR_ACA}) if guard is guards.no_real_eyes else guard(small)
    assert any(says in f for f in faults), faults


def test_every_guard_has_been_broken():
    assert {guard for guard, _, _ in BROKEN.values()} == set(guards.GUARDS)


def test_docstrings_do_not_count_as_code():
    assert guards.code_lines(DOCUMENTED) == 2
    assert guards.code_lines(LONG) == 22


def test_real_rows_are_read_from_the_upstream_format(small, tmp_path, monkeypatch):
    header = "age;iclSize;iclSe;acd;cct;ata;clr;avePreOpAcaNasal;vault;wtw;keratometry"
    folder = tmp_path / "eyes"
    folder.mkdir()
    (folder / "icl_eyes_dev.csv").write_text(
        "\ufeff" + header + "\n31;12.6;-9;3.07;540;11.85;-137;38.25;500;11.6;43.5\n", encoding="utf-8"
    )
    monkeypatch.setenv("LENSNB_DATA_DIR", str(folder))
    project = small / "project"
    project.mkdir()
    (project / "notes.md").write_text(ROW)
    assert guards.no_real_eyes(project) == [
        "notes.md: 1 row(s) look like eyes of the real cohort; rows are never committed, outputs included"
    ]


def test_readme_shows_what_the_index_shows(small):
    """Figures get words, tables lose their style sheets, links fit, hidden cells stay away."""
    style = "<div>\n<style scoped>\n  th {}\n</style>\n<table></table>\n</div>"
    table = {"data": {"text/html": [style]}, "metadata": {}, "output_type": "display_data"}
    look = [md("## See [bounds](22_bounds.ipynb) and [how](../CONTRIBUTING.md)"), code("# One eye, four sizes\nplot()")]
    look += [code("table()"), code("#| hide\nsecret = 1")]
    look[1]["outputs"], look[2]["outputs"] = [IMAGE], [table]
    notebook(small, "index", md("# lensnb\n> The front door."), *look)
    made = notebooks.readme(small)
    text = made.pop(small / "README.md").decode()
    assert [p.name for p in made] == ["readme_2_0.png"]
    assert "![One eye, four sizes](docs/readme_2_0.png)" in text and "```python\n# One eye" in text
    assert "(nbs/22_bounds.ipynb)" in text and "(CONTRIBUTING.md)" in text
    assert "<table>" in text and "<style" not in text and "secret" not in text
