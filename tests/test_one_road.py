"""One road: features are computed by the store's `served` and by nothing else.

The source of every module, template and notebook is read, not run. Three things betray a second road: calling what
computes features, importing it, and arithmetic between two measurements, however it is written.
"""

import ast
import json
import re
import textwrap
from pathlib import Path

import pytest

from lensnb.schema import FIELDS

MEASURED = {f.name for f in FIELDS.values() if f.preop and f.unit}
COMPUTERS = {"compute", "feature_frame"}
ROAD = {"features", "store"}  # the definitions, and the one module that may ask for them
# Rooms below 10 lie before the road: rows come in (an internal depth from an external one), synthetic eyes are made.
# From 10 on these sums, and no others, are something else than a feature:
ALLOWED = {
    ("explore", "used['size_mm'] - views.size_table("): "implanted against the maker's table, described and not fed",
    ("explore", "used['ata_mm'] - used['wtw_mm']"): "two distances compared in a figure",
    ("explain", "650 + 500 * (X['size_mm'] - 13.2) - 330"): "the truth behind made-up eyes",
    ("overlap", "eyes['wtw_mm'] + 0.35 * (eyes['acd_mm'] - 3.3)"): "how a made-up surgeon chooses",
    ("intervals", "d['size_mm'] - d['ata_mm']"): "the truth behind made-up eyes",
    ("intervals", "620 + 520 * (d['size_mm'] - 13.1) - 330"): "the truth behind made-up eyes",
    ("traps", "clinic['size_mm'] - clinic['ata_mm']"): "the trap itself: a compression stored beforehand",
    ("choice", "(birch['age_y'] - 25) * (birch['lt_mm'] - 3.67)"): "an ablation that no model keeps",
    ("artefact", "eyes['size_mm'] * eyes['ata_mm']"): "an invented feature, to show that it is refused",
}
METHODS = {
    "add",
    "sub",
    "subtract",
    "mul",
    "multiply",
    "div",
    "divide",
    "truediv",
    "pow",
    "rsub",
    "radd",
    "hypot",
    "dot",
}


def fields_in(node: ast.AST, known: dict) -> set[str]:
    """The measurements that an expression is made of: columns by name or attribute, and variables that hold one."""
    found = set()
    for n in ast.walk(node):
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value in MEASURED:
            found.add(n.value)
        elif isinstance(n, ast.Attribute) and n.attr in MEASURED:
            found.add(n.attr)
        elif isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load):
            found |= known.get(n.id, set())
    return found


def is_number(node: ast.AST) -> bool:
    """Whether an operand can be a column of numbers: lists, tuples, dicts and texts are not."""
    return not isinstance(node, (ast.List, ast.Tuple, ast.Dict, ast.Set, ast.JoinedStr, ast.ListComp, ast.GeneratorExp))


def crossed(left: set, right: set) -> bool:
    return bool(left and right and len(left | right) > 1)


def one_column(value: ast.AST, known: dict) -> set[str]:
    """The measurement that a variable holds after `name = value`: only values that are one column, maybe converted."""
    while True:
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            value = value.func.value if not isinstance(value.func.value, ast.Name) else (value.args or [value.func])[0]
        elif isinstance(value, ast.Subscript) and not isinstance(value.slice, ast.Constant):
            value = value.value
        else:
            break
    column = (
        isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant) or isinstance(value, ast.Attribute)
    )
    return fields_in(value, known) if column or isinstance(value, ast.Name) else set()


class Roads(ast.NodeVisitor):
    """Collects what looks like a feature computed here."""

    def __init__(self, calls: bool, sums: bool):
        self.calls, self.sums, self.known, self.found = calls, sums, {}, []

    def tell(self, node, what):
        self.found.append((node.lineno, what))

    def visit_FunctionDef(self, node):
        outside, self.known = self.known, dict(self.known)
        self.generic_visit(node)
        self.known = outside

    def visit_Assign(self, node):
        self.generic_visit(node)
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts))
            for name, value in pairs:
                if isinstance(name, ast.Name):
                    self.known[name.id] = one_column(value, self.known)

    def visit_ImportFrom(self, node):
        if self.calls and (node.module or "").split(".")[-1] in ROAD:
            for a in node.names:
                if a.name in COMPUTERS:
                    self.tell(node, f"imports `{a.name}`")

    def visit_BinOp(self, node):
        arithmetic = isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.FloorDiv, ast.Mod))
        if self.sums and arithmetic and is_number(node.left) and is_number(node.right):
            if crossed(fields_in(node.left, self.known), fields_in(node.right, self.known)):
                self.tell(node, f"combines measurements: {ast.unparse(node)}")
        self.generic_visit(node)

    def visit_Call(self, node):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if self.calls and name in COMPUTERS and (isinstance(node.func, ast.Attribute) or name == "feature_frame"):
            self.tell(node, f"calls `{name}`")
        if self.sums and name in METHODS:
            parts = [*node.args, *([node.func.value] if isinstance(node.func, ast.Attribute) else [])]
            sets = [s for s in (fields_in(p, self.known) for p in parts if is_number(p)) if s]
            if len(sets) > 1 and len(set().union(*sets)) > 1:
                self.tell(node, f"combines measurements: {ast.unparse(node)}")
        if self.sums and name in {"eval", "diff"}:
            texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            if any(len(MEASURED & set(re.findall(r"\w+", t))) > 1 for t in texts):
                self.tell(node, f"combines measurements: {ast.unparse(node)}")
            columns = fields_in(node.func, self.known)
            if name == "diff" and len(columns) > 1 and any(k.arg == "axis" for k in node.keywords):
                self.tell(node, f"combines measurements: {ast.unparse(node)}")
        self.generic_visit(node)


def off_the_road(source: str, calls: bool = True, sums: bool = True) -> list[tuple[int, str]]:
    """(line, what) of everything in a source that computes a feature by itself."""
    roads = Roads(calls, sums)
    roads.visit(ast.parse(source))
    return sorted(set(roads.found))


def rooms(root: Path) -> dict[str, str]:
    """Room -> the name of its notebook, which begins with its number."""
    return {re.sub(r"^\d+[a-z]?_", "", p.stem): p.stem for p in (root / "nbs").glob("[0-9]*.ipynb")}


def sources(root: Path) -> dict[str, tuple[str, str]]:
    """Where -> (name of the room, source): modules, templates, and notebooks from 10 upwards."""
    found = {
        f"lensnb/{p.name}": (p.stem, p.read_text(encoding="utf-8")) for p in sorted((root / "lensnb").glob("*.py"))
    }
    books = [p for p in sorted((root / "nbs").glob("*.ipynb")) if p.stem >= "10"]
    for path in [*books, *sorted((root / "lensnb" / "templates").glob("*.ipynb"))]:
        cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        for i, cell in enumerate(cells):
            source = re.sub(r"^\s*[%!].*$", "", "".join(cell["source"]), flags=re.M)
            where = f"{path.parent.name}/{path.name} code cell {i}"
            found[where] = (re.sub(r"^\d+[a-z]?_", "", path.stem), source)
    return found


def faults(root: Path) -> list[str]:
    """One sentence for each place that is off the road."""
    told, number = [], rooms(root)
    for where, (room, source) in sources(root).items():
        calls = room not in ROAD
        sums = number.get(room, "99") >= "10" or room == "remote"
        for line, what in off_the_road(source, calls, sums):
            if not any(room == r and what.startswith(f"combines measurements: {s}") for r, s in ALLOWED):
                told.append(f"{where}:{line}: {what[:110]}; ask `lensnb.store.serve` for a registered feature")
    return told


def test_nothing_leaves_the_road(root):
    found = faults(root)
    if found:
        pytest.fail(f"{len(found)} place(s) compute a feature by themselves:\n" + "\n".join(f"  - {f}" for f in found))


def test_the_road_itself_is_seen(root):
    """The reader of sources finds the one call that is allowed, so it would find another."""
    text = (root / "lensnb" / "store.py").read_text(encoding="utf-8")
    assert [what for _, what in off_the_road(text)].count("imports `compute`") == 1
    assert len(re.findall(r"(?<![\w.])compute\(", text)) == 1, "called once"
    assert sum("combines" in what for _, what in off_the_road((root / "lensnb" / "features.py").read_text())) == 2


PLANTED = {
    "a call": "from lensnb import features\nX = features.feature_frame(eyes, names)",
    "an import": "from lensnb.features import compute as c",
    "a relative import": "from .features import feature_frame",
    "a registered function": 'x = FEATURES["compression_mm"].compute(columns)',
    "a difference": 'eyes["c"] = eyes["size_mm"] - eyes["ata_mm"]',
    "attributes": "c = eyes.size_mm - eyes.ata_mm",
    "a scaled difference": 'c = (eyes["acd_ext_mm"] - eyes["cct_um"] / 1000).round(2)',
    "a keyword": 'eyes = eyes.assign(c=eyes["size_mm"] - eyes["wtw_mm"])',
    "a lambda": 'eyes = eyes.assign(c=lambda t: t["size_mm"] - t["wtw_mm"])',
    "variables": 'size = eyes["size_mm"].to_numpy()\nata = eyes["ata_mm"].astype(float)\nc = size - ata',
    "two at once": 'size, ata = eyes["size_mm"], eyes["ata_mm"]\nc = size - ata',
    "numpy": 'c = np.subtract(eyes["size_mm"], eyes["ata_mm"])',
    "a converted column": 'size = np.asarray(eyes["size_mm"])\nc = size / eyes["ata_mm"].to_numpy()',
    "a method": 'c = eyes["size_mm"].sub(eyes["ata_mm"])',
    "a text": 'c = eyes.eval("size_mm - ata_mm")',
    "inside a function": 'def f(r):\n    a = r["acd_mm"]\n    return a * r["k_d"] + 1',
    "one number": "c = 13.2 - row.ata_mm * row.k_d",
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_second_road_is_seen(name):
    assert off_the_road(PLANTED[name]), PLANTED[name]


INNOCENT = {
    "units": 'eyes["cct_um"] / 1000',
    "a residual": 'gap = eyes["vault_um"] - predicted',
    "a z-score": 'z = (eyes["ata_mm"] - eyes["ata_mm"].mean()) / eyes["ata_mm"].std()',
    "lists of columns": 'names = ["size_mm"] + ["ata_mm", "k_d"]',
    "a sentence": 'text = f"{row.size_mm} mm" + f"{row.ata_mm}"',
    "a mask": 'both = eyes["size_mm"].notna() & eyes["ata_mm"].notna()',
    "the road": 'X = store.serve(eyes, ["compression_mm"], size_mm=13.2)',
    "a picture": 'ax.plot(eyes["ata_mm"], eyes["vault_um"])',
    "another function": 'def f(r):\n    a = r["acd_mm"]\ndef g(a, r):\n    return a - r["k_d"]',
}


@pytest.mark.parametrize("name", INNOCENT)
def test_what_is_no_feature_is_left_alone(name):
    assert not off_the_road(INNOCENT[name]), INNOCENT[name]


def test_planted_places_are_found_in_a_project(tmp_path):
    """In a small project with one violation in a module, a notebook and a template, all three are told."""
    for folder in ("lensnb/templates", "nbs"):
        (tmp_path / folder).mkdir(parents=True)
    bad = PLANTED["a difference"]
    (tmp_path / "lensnb" / "card.py").write_text(textwrap.dedent(bad))
    (tmp_path / "lensnb" / "features.py").write_text(bad)
    book = json.dumps({"cells": [{"cell_type": "code", "source": [bad]}]})
    for place in ("nbs/31_card.ipynb", "nbs/04_features.ipynb", "lensnb/templates/91_eye.ipynb"):
        (tmp_path / place).write_text(book)
    told = faults(tmp_path)
    assert [t.split(":")[0] for t in told] == [
        "lensnb/card.py",
        "nbs/31_card.ipynb code cell 0",
        "templates/91_eye.ipynb code cell 0",
    ]
