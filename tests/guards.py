"""The guards of the house: each takes a project folder and returns what is wrong there, one sentence a fault.

They run twice in tests/test_sync.py: on this project, where they must find nothing, and on small broken projects,
where each must find its fault.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from notebooks import PACKAGE, cleaned, notebooks, read, readme, templates

# What nbdev understands and this house uses. nbdev ignores any other word silently; `eval: false` would leave a cell
# untested.
DIRECTIVES = {"default_exp", "export", "exporti", "exports", "hide", "slow"}
TEXT = {
    ".py",
    ".ipynb",
    ".md",
    ".txt",
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".html",
    ".svg",
    ".ini",
    ".toml",
    ".in",
    ".css",
    ".j2",
    ".yml",
    ".mplstyle",
    "",
}
MAX_CODE_LINES, MAX_WIDTH, MAX_CELLS, MAX_HIDDEN, MAX_UNSEEN, MIN_TEXT = 20, 120, 90, 1, 3, 1 / 4


# Helpers


def committed(root: Path) -> list[Path]:
    """Files that git would commit; everything when the folder is not a repository."""
    try:

        def git(*words):
            return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True).stdout

        top = git("rev-parse", "--show-toplevel").strip()
        if top and Path(top).resolve() == root.resolve():
            names = sorted(set(git("ls-files", "-coz", "--exclude-standard").split("\0")))
            return [root / n for n in names if n and (root / n).is_file()]
    except FileNotFoundError:
        pass
    return sorted(p for p in root.rglob("*") if p.is_file() and ".git" not in p.parts and ".venv" not in p.parts)


def texts(root: Path) -> dict[Path, str]:
    """The committed text files and what is in them."""
    return {p: p.read_text(encoding="utf-8", errors="replace") for p in committed(root) if p.suffix in TEXT}


def directives(source: str) -> list[str]:
    """The words after `#|` at the head of a cell, where nbdev reads them."""
    found = []
    for line in source.splitlines():
        if match := re.match(r"\s*#\s*\|\s*(.*)", line):
            found += match[1].split()[:1]
        elif line.strip():
            break
    return found


def module_of(nb: dict) -> str | None:
    """The module a notebook exports to, if any."""
    for cell in nb["cells"]:
        if cell["cell_type"] == "code" and (match := re.search(r"^#\|\s*default_exp\s+(\S+)", cell["source"], re.M)):
            return match[1]
    return None


def is_export(cell: dict) -> bool:
    return cell["cell_type"] == "code" and any(d.startswith("export") for d in directives(cell["source"]))


def parsed(source: str) -> ast.Module | None:
    """The syntax tree of a cell without IPython's own lines; None where it is not Python."""
    try:
        return ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.M))
    except SyntaxError:
        return None


def code_lines(source: str) -> int:
    """Lines of code in a cell: neither blank, nor a directive, nor part of a docstring."""
    lines = {i for i, line in enumerate(source.splitlines(), 1) if line.strip() and not re.match(r"\s*#\s*\|", line)}
    for node in ast.walk(parsed(source) or ast.Module([], [])):
        if (
            isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))
            and ast.get_docstring(node) is not None
        ):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def only_imports(source: str) -> bool:
    tree = parsed(source)
    return tree is not None and all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in tree.body)


def rel(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def cells(root: Path, kind: str = "code"):
    """(notebook name, cell number, cell) of every cell of a kind."""
    for path in notebooks(root):
        for i, cell in enumerate(read(path)["cells"]):
            if cell["cell_type"] == kind:
                yield f"{rel(path, root)} cell {i}", cell


# The notebooks and the library are the same thing


def library_is_fresh(root: Path) -> list[str]:
    """A fresh export of all notebooks equals the committed modules, byte for byte."""
    from nbdev.export import nb_export

    faults, wanted = [], {}
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp).resolve()
        shutil.copytree(
            root / "nbs", tmp / "nbs", ignore=lambda _, names: [n for n in names if not n.endswith(".ipynb")]
        )
        for path in notebooks(tmp):
            nb_export(path, lib_path=str(tmp / PACKAGE))
        wanted = {p.relative_to(tmp).as_posix(): p.read_bytes() for p in sorted((tmp / PACKAGE).rglob("*.py"))}
    by_hand = {f"{PACKAGE}/__init__.py", f"{PACKAGE}/_modidx.py"}  # the second is nbdev's index, not committed
    present = {rel(p, root) for p in (root / PACKAGE).rglob("*.py")} - by_hand
    for name, data in wanted.items():
        if name not in present:
            faults.append(f"{name} is missing: run `make export`")
        elif (root / name).read_bytes() != data:
            faults.append(
                f"{name} differs from its notebook: run `make export` (or `nbdev_update` if you edited the module)"
            )
    faults += [f"{name} has no notebook: delete it, or restore the notebook" for name in sorted(present - set(wanted))]
    return faults


def modules_are_valid(root: Path) -> list[str]:
    """Every module parses; nbdev exports a syntax error without a word."""
    faults = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        try:
            ast.parse(path.read_text(encoding="utf-8"))
        except SyntaxError as error:
            faults.append(f"{rel(path, root)}:{error.lineno}: {error.msg}")
    return faults


def names_match(root: Path) -> list[str]:
    """A notebook 12_word.ipynb exports to the module `word`, and to nothing else."""
    faults = []
    for path in notebooks(root):
        nb, word = read(path), re.sub(r"^\d+[a-z]?_", "", path.stem)
        module = module_of(nb)
        if module not in (None, word):
            faults.append(f"{rel(path, root)}: exports to `{module}`; its name says `{word}`")
        if module is None and any(is_export(c) for c in nb["cells"]):
            faults.append(f"{rel(path, root)}: has export cells but no `default_exp`")
    return faults


def known_directives(root: Path) -> list[str]:
    """Only words that nbdev knows stand after `#|`, at the head of a code cell; no notebook opts out of the tests."""
    faults = []
    for where, cell in cells(root):
        head = directives(cell["source"])
        everywhere = re.findall(r"^\s*#\s*\|\s*(\S*)", cell["source"], re.M)
        faults += [f"{where}: unknown directive `#| {d}`" for d in head if d not in DIRECTIVES]
        faults += [
            f"{where}: directive `#| {d}` below the first line of code is ignored" for d in everywhere[len(head) :]
        ]
    for kind in ("markdown", "raw"):
        for where, cell in cells(root, kind):
            if re.search(r"^\s*#\s*\|\s*\w", cell["source"], re.M):
                faults.append(f"{where}: a directive in a {kind} cell is ignored")
            if re.search(r"skip_exec|skip_showdoc", cell["source"]):
                faults.append(f"{where}: front matter takes this notebook out of the tests")
    return faults


def notebooks_are_clean(root: Path) -> list[str]:
    """`nbdev_clean` would change nothing."""
    return [
        f"{rel(p, root)}: not clean: run `make notebooks` or `nbdev_clean`"
        for p in notebooks(root)
        if cleaned(p, root) != p.read_text(encoding="utf-8")
    ]


def templates_are_whole(root: Path) -> list[str]:
    """Report templates keep their one `parameters` cell, also when cleaned; their copies in the package are fresh."""
    faults = []
    for path in notebooks(root):
        tagged = [c for c in read(path)["cells"] if "parameters" in c["metadata"].get("tags", [])]
        after = [c for c in json.loads(cleaned(path, root))["cells"] if "parameters" in c["metadata"].get("tags", [])]
        if len(after) != len(tagged):
            faults.append(
                f"{rel(path, root)}: cleaning strips the `parameters` tag: "
                "allowed_cell_metadata_keys of settings.ini must say `tags`"
            )
        if len(tagged) > 1 or any(c["cell_type"] != "code" for c in tagged):
            faults.append(f"{rel(path, root)}: needs exactly one code cell tagged `parameters`, has {len(tagged)}")
    wanted, folder = templates(root), root / PACKAGE / "templates"
    faults += [
        f"{rel(p, root)}: missing or stale: run `make export`"
        for p, text in wanted.items()
        if not p.exists() or p.read_text(encoding="utf-8") != text
    ]
    for path in sorted(set(folder.glob("*.ipynb")) - set(wanted)):
        source = root / "nbs" / path.name
        faults.append(
            f"{rel(path, root)}: "
            + (f"{rel(source, root)} lost its `parameters` tag" if source.exists() else "has no notebook in nbs/")
        )
    return faults


def readme_is_fresh(root: Path) -> list[str]:
    """README.md and its figures are what `make readme` writes."""
    if not (root / "nbs" / "index.ipynb").exists():
        return ["nbs/index.ipynb is missing: README.md is made from it"]
    wanted = readme(root)
    faults = [
        f"{rel(p, root)}: run `make readme`" for p, data in wanted.items() if not p.exists() or p.read_bytes() != data
    ]
    return faults + [
        f"{rel(p, root)}: no longer part of the README"
        for p in sorted(set((root / "docs").glob("readme_*")) - set(wanted))
    ]


# The notebooks read as essays


def essays(root: Path) -> list[str]:
    """Title, subtitle, enough text, not too long, nothing hidden; exports are introduced, and then seen or asserted."""
    faults = []
    for path in notebooks(root):
        nb, name = read(path)["cells"], rel(path, root)
        code = [i for i, c in enumerate(nb) if c["cell_type"] != "markdown"] + [len(nb)]
        opening = "\n".join(c["source"] for c in nb[: code[0]])
        if not re.match(r"# \S", opening):
            faults.append(f"{name}: does not begin with a title (`# ...`)")
        if not re.search(r"^> \S", opening, re.M):
            faults.append(f"{name}: has no one-line subtitle (`> ...`) under the title")
        text = sum(c["cell_type"] == "markdown" for c in nb)
        if text < len(nb) * MIN_TEXT:
            faults.append(f"{name}: {text} text cells of {len(nb)}; at least a quarter should explain")
        if len(nb) > MAX_CELLS:
            faults.append(f"{name}: {len(nb)} cells; split it (at most {MAX_CELLS})")
        hidden = sum("hide" in directives(c["source"]) for c in nb if c["cell_type"] == "code")
        if hidden > MAX_HIDDEN:
            faults.append(f"{name}: {hidden} hidden cells (at most {MAX_HIDDEN})")
        unseen = 0
        for i, cell in enumerate(nb):
            if is_export(cell) and not only_imports(cell["source"]):
                unseen += 1
                what = "".join(
                    (re.findall(r"^(?:class|def)\s+(\w+)|^(\w+)\s*[:=]", cell["source"], re.M) or [("?", "")])[0]
                )
                if i == 0 or nb[i - 1]["cell_type"] != "markdown":
                    faults.append(f"{name} cell {i} (`{what}`): exported without a sentence before it")
                if unseen > MAX_UNSEEN:
                    faults.append(
                        f"{name} cell {i} (`{what}`): export number {unseen} in a row; "
                        f"show or assert something first (at most {MAX_UNSEEN})"
                    )
            elif cell["cell_type"] == "code":
                unseen = 0
        if unseen:
            faults.append(f"{name}: nothing is shown or asserted after the last export (`{what}`)")
    return faults


def small_exports(root: Path) -> list[str]:
    """An export cell has at most 20 lines of code, docstrings excluded, of at most 120 characters."""
    faults = []
    for where, cell in cells(root):
        if is_export(cell):
            lines, widest = code_lines(cell["source"]), max(map(len, cell["source"].splitlines()))
            if lines > MAX_CODE_LINES:
                faults.append(f"{where}: {lines} lines of code in an export cell (at most {MAX_CODE_LINES})")
            if widest > MAX_WIDTH:
                faults.append(f"{where}: a line of {widest} characters in an export cell (at most {MAX_WIDTH})")
    return faults


def shows_its_value(source: str) -> bool:
    """Whether a cell surely prints or displays something when it is run."""
    body = getattr(parsed(source), "body", [])
    names = {
        n.value.func.id
        for n in body
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call) and isinstance(n.value.func, ast.Name)
    }
    ends_in_value = (
        bool(body)
        and isinstance(body[-1], ast.Expr)
        and not source.rstrip().endswith(";")
        and isinstance(
            body[-1].value,
            (
                ast.Name,
                ast.Subscript,
                ast.Attribute,
                ast.Compare,
                ast.BinOp,
                ast.List,
                ast.Dict,
                ast.Tuple,
                ast.JoinedStr,
            ),
        )
    )
    return bool(names & {"print", "display"}) or ends_in_value


def outputs_are_committed(root: Path) -> list[str]:
    """Notebooks were executed to the end: outputs where there should be some, no errors, no warnings."""
    faults = []
    for where, cell in cells(root):
        for out in cell["outputs"]:
            if out["output_type"] == "error":
                faults.append(f"{where}: a committed error: {out.get('ename')}: {str(out.get('evalue'))[:80]}")
            if out["output_type"] == "stream" and out.get("name") == "stderr":
                faults.append(f"{where}: a committed warning or progress bar: {''.join(out['text'])[:80]!r}")
        if not cell["outputs"] and not is_export(cell) and shows_its_value(cell["source"]):
            faults.append(f"{where}: was not executed: run `make notebooks`")
    return faults


# The direction of flow


def imported(source: str) -> list[str]:
    """Modules of the package that a cell imports; "" stands for the package itself."""
    found = []
    for node in ast.walk(parsed(source) or ast.Module([], [])):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] == PACKAGE]
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == PACKAGE:
            found += [f"{PACKAGE}.{a.name}" for a in node.names] if node.module == PACKAGE else [node.module]
    return [name.removeprefix(PACKAGE).removeprefix(".") for name in found]


def public_names(root: Path) -> dict[str, str]:
    """Public name -> the module it lives in, from the table `_PUBLIC` of the package."""
    for node in ast.parse((root / PACKAGE / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_PUBLIC":
            return {name: module for module, names in ast.literal_eval(node.value).items() for name in names}
    return {}


def flow(root: Path) -> list[str]:
    """A notebook imports only from notebooks with a lower number; one that exports names the module it needs."""
    rank = {re.sub(r"^\d+[a-z]?_", "", p.stem): p.stem for p in notebooks(root) if p.stem[0].isdigit()}
    home, faults = public_names(root), []
    for path in notebooks(root):
        nb = read(path)
        exports = module_of(nb) is not None
        for i, cell in enumerate(nb["cells"]):
            where = f"{rel(path, root)} cell {i}"
            for name in imported(cell["source"]) if cell["cell_type"] == "code" else []:
                name = name if exports else home.get(name, name)
                if name in rank and path.stem[0].isdigit() and rank[name] >= path.stem:
                    faults.append(f"{where}: imports `{name}`, which comes later ({rank[name]})")
                elif name not in rank and exports:
                    faults.append(f"{where}: imports `{name or PACKAGE}` from the package; name the module it lives in")
            if is_export(cell) and re.search(r"^\s*from\s+\S+\s+import\s+\*", cell["source"], re.M):
                faults.append(f"{where}: star import")
    return faults


def no_development_imports(root: Path) -> list[str]:
    """The library runs without the tools that made it."""
    faults = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            faults += [
                f"{rel(path, root)}:{node.lineno}: imports {n}"
                for n in names
                if n.split(".")[0] in {"nbdev", "fastcore", "execnb", "pytest", "hypothesis"}
            ]
    return faults


def lint(root: Path) -> list[str]:
    """No unused import, undefined name or endless line (ruff, with the settings of this project)."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "--quiet"]
    config = Path(__file__).resolve().parents[1] / "ruff.toml"
    done = subprocess.run([*command, "--config", str(config), "."], cwd=root, capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


# Nothing private is committed

MACHINE = [
    (r"(?<![\w.])/(?:work|root|tmp|home|Users)/[\w.-]+/", "names a path of a machine"),
    (r"\b[A-Z]:\\\\?Users\\", "names a path of a machine"),
    (
        r"index[-]url|/simpl[e]/|\"resolved\":\s*\"http|pythonhosted\.org|find[-]links",
        "names where packages are downloaded from",
    ),
    (r"\.\./shared", "names a folder outside the repository"),
    (r"\b(?:DESIGN|METHOD|DOMAIN|PLAN)\.md\b", "refers to a document that readers do not have"),
    (r"(?i)\bissue[ _]#?\d", "refers to an issue by number"),
]


def no_machine_paths(root: Path) -> list[str]:
    """No machine's paths, no package hosts, no folder outside the repository (but for .ci/run)."""
    faults = []
    for path, text in texts(root).items():
        if rel(path, root) == ".ci/run":
            continue
        for pattern, fault in MACHINE:
            if match := re.search(pattern, re.sub(r"\"image/png\": \"[^\"]*\"", "", text)):
                line = text[: text.find(match[0])].count("\n") + 1
                faults.append(f"{rel(path, root)}:{line}: {fault}: {match[0]!r}")
    return faults


NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def _records(value):
    """Every row-like thing inside JSON: the plain numbers of one dict or one list; texts of a notebook as a whole."""
    if isinstance(value, dict):
        yield [str(v) for v in value.values() if isinstance(v, (int, float, str))]
        for inner in value.values():
            yield from _records(inner)
    elif isinstance(value, list):
        if all(isinstance(v, str) for v in value):
            yield from _rows("".join(value))
        else:
            yield [str(v) for v in value if isinstance(v, (int, float, str))]
            for inner in value:
                yield from _records(inner)
    elif isinstance(value, str):
        yield from _rows(value)


def _rows(text: str):
    """Every row-like thing in text: a line, or a row of an HTML table spread over several lines."""
    yield from ([line] for line in text.splitlines())
    yield from ([row] for row in re.findall(r"<tr\b.*?</tr>", text, re.S))


def eye_keys(lines: list[str]) -> set[tuple[float, ...]]:
    """(acd, ata, clr, aca) of each row of the real cohort: enough to name an eye."""
    rows = (line.split(";") for line in lines[1:] if line.strip())
    return {tuple(abs(float(row[i])) for i in (3, 5, 6, 7)) for row in rows}


def no_real_eyes(root: Path, keys: set[tuple[float, ...]] | None = None) -> list[str]:
    """No committed text holds a row of the real cohort; without the real file there is nothing to compare."""
    if keys is None:
        source = Path(os.environ.get("LENSNB_DATA_DIR", "")) / "icl_eyes_dev.csv"
        keys = eye_keys(source.read_text(encoding="utf-8-sig").splitlines()) if source.is_file() else set()
    faults, by_acd = [], {}
    for key in keys:
        by_acd.setdefault(key[0], []).append(key)
    for path, text in texts(root).items():
        found = list(_rows(text))
        if path.suffix in {".json", ".ipynb"}:
            try:
                found += list(_records(json.loads(text)))
            except ValueError:
                pass
        hits = 0
        for row in found:
            seen = (
                {abs(float(x)) for part in row if len(part) < 20_000 for x in NUMBER.findall(part)[:60]}
                if row
                else set()
            )
            hits += len(seen) >= 6 and any(set(key) <= seen for acd in seen & set(by_acd) for key in by_acd[acd])
        if hits:
            faults.append(
                f"{rel(path, root)}: {hits} row(s) look like eyes of the real cohort; "
                "rows are never committed, outputs included"
            )
    return faults


GUARDS = [
    library_is_fresh,
    modules_are_valid,
    names_match,
    known_directives,
    notebooks_are_clean,
    templates_are_whole,
    readme_is_fresh,
    essays,
    small_exports,
    outputs_are_committed,
    flow,
    lint,
    no_development_imports,
    no_machine_paths,
    no_real_eyes,
]
