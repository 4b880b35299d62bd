# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
LOWEST ?= .venv-lowest
BIN := $(VENV)/bin
# A process a core, each of one thread; a file's tests share its models, and files of few long tests come first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

.PHONY: quickstart test test-slow test-nightly test-lowest lint docs figures build clean-venv
.DEFAULT_GOAL := quickstart

quickstart: $(VENV)/.installed ## Train, test and export a small model on generated images
	$(BIN)/anomalib-medical quickstart

test: $(VENV)/.installed ## The fast tests
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.installed ## The tests that need minutes, and real images under ANOMALIB_MEDICAL_DATA
	$(PYTEST) -m "slow and not nightly"

test-nightly: $(VENV)/.installed ## The slow tests that are too many for every change
	$(PYTEST) -m nightly

test-lowest: $(LOWEST)/.installed ## The unit tests with the lowest versions that pyproject.toml allows
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n auto --maxprocesses 4 --max-worker-restart 0 tests/unit -m "not slow"

lint: $(VENV)/.installed ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed ## The manual, into docs/_build/html: without a network, and any warning is an error
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet docs docs/_build/html

figures: quickstart ## The manual's pictures, from what the quickstart scored
	$(BIN)/python docs/figures.py

build: $(VENV)/.installed ## The wheel and the source archive, into dist/
	$(BIN)/python -m build

# pip runs again only when the package's requirements may have changed.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=/path/to/it" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e '.[dev]'
	touch $@

$(LOWEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install uv
	$(LOWEST)/bin/uv pip install --python $(LOWEST)/bin/python --no-cache --resolution lowest-direct -e '.[dev]'
	touch $@

clean-venv:
	rm -rf $(VENV) $(LOWEST)
