"""What `make` does with the notebooks: run and clean them, copy the report templates, write the README.

python tools/notebooks.py run [NAME ...]   execute in place and clean: all, or those whose name starts with NAME
python tools/notebooks.py clean            strip what varies from run to run, as nbdev_clean does
python tools/notebooks.py templates        copy notebooks with a `parameters` cell into the package, without outputs
python tools/notebooks.py readme           nbs/index.ipynb -> README.md and docs/readme_*.png
"""

import json
import os
import re
import sys
import tempfile
import time
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "lensnb"


def notebooks(root: Path) -> list[Path]:
    """All notebooks of the project, in the order in which data flows."""
    return sorted(p for p in (root / "nbs").glob("*.ipynb") if p.name[0] not in "._")


def read(path: Path) -> dict:
    """One notebook; the source of every cell as one string."""
    nb = json.loads(path.read_text(encoding="utf-8"))
    for cell in nb["cells"]:
        cell["source"] = "".join(cell["source"])
    return nb


def settings(root: Path) -> dict[str, str]:
    """settings.ini as plain text values."""
    config = ConfigParser(delimiters=["="], interpolation=None)
    config.read(root / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


def cleaned(path: Path, root: Path, outputs: bool = True) -> str:
    """The text that `nbdev_clean` would leave of a notebook; `outputs=False` drops the outputs too."""
    from execnb.nbio import nb2str, read_nb
    from nbdev.clean import clean_nb

    config, nb = settings(root), read_nb(path)
    keys = [config.get(name, "").split() for name in ("allowed_metadata_keys", "allowed_cell_metadata_keys")]
    clean_nb(nb, False, *keys, clean_ids=config.get("clean_ids", "True") == "True")
    for cell in nb.cells:
        if not outputs and cell.cell_type == "code":
            cell["outputs"] = []
    return nb2str(nb)


def is_template(path: Path) -> bool:
    """Whether papermill can fill this notebook in: one cell is tagged `parameters`."""
    return any("parameters" in cell["metadata"].get("tags", []) for cell in read(path)["cells"])


def templates(root: Path) -> dict[Path, str]:
    """The template notebooks as they are shipped inside the package: path -> text."""
    folder = root / PACKAGE / "templates"
    return {folder / p.name: cleaned(p, root, outputs=False) for p in notebooks(root) if is_template(p)}


def run(path: Path, root: Path) -> float:
    """Execute one notebook in place, from the folder it lives in, and clean it; the seconds it took."""
    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    start, nb = time.perf_counter(), nbformat.read(path, as_version=4)
    config, resources = Config(), {"metadata": {"path": str(path.parent)}}
    with tempfile.TemporaryDirectory() as sockets:  # no network ports; a full path, as the kernel starts elsewhere
        config.KernelManager.transport, config.KernelManager.ip = "ipc", f"{sockets}/kernel"
        NotebookClient(nb, timeout=1800, kernel_name="python3", resources=resources, config=config).execute()
    draft = path.with_name(f"_{path.name}")
    nbformat.write(nb, draft)
    draft.write_text(cleaned(draft, root), encoding="utf-8")
    os.replace(draft, path)
    return time.perf_counter() - start


def _alt_texts(nb: dict) -> list[str]:
    """What each picture shows, in order: the first comment of its cell, or else the heading above it."""
    heading, texts = "figure", []
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            heading = (re.findall(r"^#+ +(.+)$", cell["source"], re.M) or [heading])[-1]
        comment = re.search(r"^# +(.+)$", cell["source"], re.M)
        pictures = sum("image/png" in out.get("data", {}) for out in cell.get("outputs", []))
        texts += [comment[1] if comment else heading] * pictures
    return texts


def readme(root: Path) -> dict[Path, bytes]:
    """README.md and its figures, made from the committed outputs of nbs/index.ipynb: path -> bytes.

    Cells that start with `#| hide` stay out. So do the style sheets that pandas puts into its tables, which would
    show up as text. Links are turned to the place where the README lies.
    """
    import nbformat
    from nbconvert import MarkdownExporter
    from traitlets.config import Config

    path = root / "nbs" / "index.ipynb"
    nb = nbformat.read(path, as_version=4)
    nb.cells = [c for c in nb.cells if not re.match(r"\s*#\|\s*hide\b", c.source)]
    nb.metadata["language_info"] = {"name": "python"}
    config = Config()
    config.ExtractOutputPreprocessor.output_filename_template = "docs/readme_{cell_index}_{index}{extension}"
    text, resources = MarkdownExporter(config=config).from_notebook_node(nb)
    text = re.sub(r"<style scoped>.*?</style>\n*", "", text, flags=re.S)
    alts = iter(_alt_texts(nb))
    text = re.sub(r"!\[png\]\(", lambda _: f"![{next(alts)}](", text)
    text = re.sub(r"\]\((?=[\w-]+\.ipynb)", "](nbs/", text).replace("](../", "](")
    text = re.sub(r"[ \t]+$", "", text, flags=re.M)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    text = f"<!-- Made from nbs/index.ipynb by `make readme`; edit the notebook. -->\n\n{text}\n"
    figures = {root / name: data for name, data in resources["outputs"].items()}
    return {root / "README.md": text.encode(), **figures}


def write(files: dict[Path, bytes | str], stale: list[Path]) -> None:
    """Write the files; remove those of an earlier run that are no longer made."""
    for path in set(stale) - set(files):
        path.unlink()
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        print("wrote", path.relative_to(ROOT))


def main(command: str = "", *names: str) -> int:
    """Do what the first word of the command line says."""
    chosen = [p for p in notebooks(ROOT) if not names or p.name.startswith(names)]
    if command == "run" and chosen:
        for i, path in enumerate(chosen, 1):
            print(f"[{i}/{len(chosen)}] {path.name} ", end="", flush=True)
            print(f"{run(path, ROOT):.1f} s")
    elif command == "clean":
        for path in chosen:
            path.write_text(cleaned(path, ROOT), encoding="utf-8")
    elif command == "templates":
        write(templates(ROOT), list((ROOT / PACKAGE / "templates").glob("*.ipynb")))
    elif command == "readme":
        write(readme(ROOT), list((ROOT / "docs").glob("readme_*")))
    else:
        print(__doc__ if not command else f"No such command or notebook: {' '.join([command, *names])}\n\n{__doc__}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
