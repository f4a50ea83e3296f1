# Everything runs in .venv, which is made on first use from what constraints.txt pins.
PYTHON ?= python3
BIN := .venv/bin
STUDY ?= --methods ls,si,famo,pcgrad,cagrad,fairgrad --tuned-weights 9 --seeds 3 --epochs 10 --folder results/quick
PYTEST_WORKERS ?= 3
# A checkout that may only be read is tested all the same.
WRITABLE := $(shell test -w . && echo yes)
NO_CACHE := $(if $(WRITABLE),,--no-cache)

.PHONY: help study test pytest lint types tables docs bench dist dist-test clean

help:
	@echo "make study   compare balancing methods on handwritten digits; prints the table and the report's place"
	@echo "make test    lint, types, tests, examples in docstrings and Markdown, of the library and of papers/"
	@echo "make tables  rewrites the lists of methods and recipes in guides and __init__.py from their registries"
	@echo "make bench   the speed benchmarks, side by side with other libraries (about ten minutes)"
	@echo "make docs    builds the site into build/site/html; warnings are errors"
	@echo "make dist    builds both distributions into dist/; make dist-test tries the wheels from outside the checkout"
	@echo "make clean   removes .venv and caches"

.venv/study: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("equipoise needs Python 3.11 or later, this is " + sys.version.split()[0] + "; say make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[study]'
	touch $@

.venv/dev: .venv/study papers/pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[study,dev]' -e ./papers
	touch $@

.venv/bench: .venv/dev
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[study,dev,bench]' -e ./papers
	touch $@

study: .venv/study
	$(BIN)/equipoise study digits $(STUDY) --jobs 2

lint: .venv/dev
	$(BIN)/ruff check $(NO_CACHE) .
	$(BIN)/ruff format $(NO_CACHE) --check .

types: .venv/dev
	$(BIN)/mypy $(if $(WRITABLE),,--cache-dir=/dev/null)

# mypy takes one core for half a minute, which it may as well do while the tests run.
test: lint
	@$(MAKE) --no-print-directory -j 2 types pytest

# A file goes to one worker: the blocks of a page of the guide build on each other, and tests of a file share fixtures. Compiled
# modules are kept even where the environment says not to: each worker, and each process that a test starts, would compile anew.
pytest: .venv/dev
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(if $(WRITABLE),,-p no:cacheprovider)

tables: .venv/dev
	$(BIN)/python docs/tables.py docs/choosing-a-method.md docs/preferences.md src/equipoise/__init__.py src/equipoise/balance/__init__.py
	$(BIN)/python docs/peers.py docs/peers.md
	$(BIN)/python -m website.tree
	$(BIN)/python -m equipoise_papers.reproduce.page papers/docs/reproducing.md

bench: .venv/bench
	$(BIN)/python -m benchmarks

.venv/docs: .venv/dev
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[study,dev,docs]' -e ./papers
	touch $@

docs: .venv/docs
	$(BIN)/python -m website.build

.venv/release: .venv/study
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt build twine
	touch $@

# A wheel is built from the source distribution, so what the latter lacks is missed here.
dist: .venv/release
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --outdir dist papers
	$(BIN)/twine check --strict dist/*

dist-test: dist
	$(BIN)/python release/outside.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
