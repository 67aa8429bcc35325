# lensnb: `make` lists what can be done. Needs Python 3.11 or newer (with venv), git and make.
#
# Everything is installed into .venv beside this file, pinned by constraints.txt, the first time it is needed.
# With uv on the machine that takes a minute, with pip a few. `make UV= test` does without uv;
# `make PYTHON=/path/to/python3.12 test` chooses the Python.

PY    := .venv/bin/python
READY := .venv/.ready
UV    := $(shell uv --version >/dev/null 2>&1 && command -v uv)
OUT   := reports

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup report test test-feast lab export templates notebooks readme constraints clean

help:             ## list these targets
	@echo "lensnb: which ICL size, and how far that can be trusted"
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22
	@echo
	@echo "  make report DATA=eyes.csv MONTH=2026-10    your own eyes, one month, into reports/"
	@echo "                                             (also CLINIC=name and OUT=folder)"

setup: $(READY)   ## install everything into .venv (the other targets do this when needed)

report: $(READY)  ## the monthly report of every synthetic clinic, and the network page, into reports/
	@.venv/bin/lensnb report --out "$(OUT)" $(if $(DATA),--data "$(DATA)") $(if $(MONTH),--month "$(MONTH)") \
	    $(if $(CLINIC),--clinic "$(CLINIC)") || { code=$$?; [ $$code -eq 3 ] || exit $$code; }  # 3: done, some rows were quarantined

test: $(READY)    ## all tests: the library, the notebooks, and that both are the same
	$(PY) -m pytest

test-feast:       ## the same features through Feast (own environment .venv-feast; Redis when it is installed)
	@UV="$(UV)" PYTHON="$(PYTHON)" tools/feast_env.sh
	.venv-feast/bin/python -m pytest tests/with_feast

lab: $(READY)     ## open JupyterLab on the notebooks
	$(PY) -m jupyterlab nbs

export: templates ## notebooks -> library (lensnb/*.py) and report templates
	.venv/bin/nbdev_export

templates: $(READY)
	$(PY) tools/notebooks.py templates

notebooks: export ## run every notebook in place and clean it; `make notebooks ONLY=12` for one
	$(PY) tools/notebooks.py run $(ONLY)

readme: $(READY)  ## README.md and docs/readme_*.png from the outputs of nbs/index.ipynb
	$(PY) tools/notebooks.py readme

constraints:      ## pin every dependency anew in constraints.txt (needs uv)
	uv pip compile setup.py --extra lab --extra ocr --extra dicom --extra dev --universal --python-version 3.11 --upgrade \
	    --no-header --no-annotate --quiet --output-file constraints.txt

clean:            ## remove .venv, caches and build leftovers; reports stay
	rm -rf .venv .venv-feast build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +

# The stamp is written last: an interrupted set-up is repeated, a complete one is not.
$(READY): settings.ini setup.py constraints.txt
	@set -e; \
	python=; \
	for p in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11); do \
	    if "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$p; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "lensnb needs Python 3.11 or newer$(if $(PYTHON),; $(PYTHON) is not,, and found none among python3, python3.13 to python3.11)." >&2; \
	    echo "Install one (Debian: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12 ..." >&2; \
	    exit 1; \
	fi; \
	if [ -d .venv ] && ! $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then rm -rf .venv; fi; \
	rm -f $(READY); \
	echo "Setting up .venv with $(if $(UV),uv,pip) ($$("$$python" --version)), once; this takes a minute or more."; \
	if [ -n "$(UV)" ]; then \
	    [ -x $(PY) ] || uv venv --quiet --allow-existing --python "$$(command -v "$$python")" .venv; \
	    uv pip install --python $(PY) --constraint constraints.txt --editable '.[lab,ocr,dicom,dev]'; \
	else \
	    [ -x $(PY) ] && $(PY) -m pip --version >/dev/null 2>&1 || "$$python" -m venv .venv; \
	    $(PY) -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[lab,ocr,dicom,dev]'; \
	fi; \
	touch $(READY)
