"""`import lensnb` is light, and the library runs without the tools that made it."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "pandas",
    "numpy",
    "scipy",
    "sklearn",
    "pygam",
    "matplotlib",
    "seaborn",
    "shap",
    "pyarrow",
    "pandera",
    "papermill",
    "nbconvert",
    "nbdev",
    "fastcore",
    "execnb",
}


def python(code: str, root) -> str:
    """What a fresh Python prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy(root):
    loaded = json.loads(
        python(
            "import sys; before = set(sys.modules); import lensnb, json; "
            "print(json.dumps(sorted(set(sys.modules) - before)))",
            root,
        )
    )
    assert "lensnb" in loaded
    assert not HEAVY & {name.split(".")[0] for name in loaded}
    assert [name for name in loaded if name.startswith("lensnb.")] == [], "the modules are loaded when they are used"


@pytest.fixture(scope="module")
def first_to_load(root):
    """Top-level package -> the first module of the library whose import loads it; the tools of development are away."""
    return json.loads(
        python(
            """if True:
        import importlib, json, pathlib, sys
        for name in ("nbdev", "fastcore", "execnb"):
            sys.modules[name] = None        # importing these fails from here on
        first = {}
        for path in sorted(pathlib.Path("lensnb").glob("[a-z]*.py")):
            if path.stem == "gam": continue             # a subclass of pygam's class cannot be had without pygam
            importlib.import_module(f"lensnb.{path.stem}")
            for name in {module.split(".")[0] for module in sys.modules}:
                first.setdefault(name, path.stem)
        print(json.dumps(first))""",
            root,
        )
    )


@pytest.mark.parametrize("module", ["seaborn", "shap", "sklearn", "pygam", "matplotlib"])
def test_no_module_loads_a_slow_one(module, first_to_load):
    """The slow ones (seaborn and shap take seconds) are imported inside the functions that use them."""
    assert module not in first_to_load, f"importing lensnb.{first_to_load[module]} imports {module}"


def test_every_public_name_resolves(root):
    code = """if True:
        import json, lensnb
        names = list(lensnb.__all__)
        print(json.dumps({"names": names, "missing": [n for n in names if getattr(lensnb, n, None) is None],
                          "unlisted": [n for n in names if n not in dir(lensnb)]}))"""
    said = json.loads(python(code, root))
    assert said["names"] and len(said["names"]) == len(set(said["names"]))
    assert said["missing"] == [] and said["unlisted"] == []


def test_an_unknown_name_is_an_attribute_error(root):
    assert (
        python("import lensnb\ntry: lensnb.no_such_thing\nexcept AttributeError as e: print(e)", root).count(
            "no_such_thing"
        )
        == 1
    )
    assert python("print(__import__('lensnb').__version__)", root).strip()
