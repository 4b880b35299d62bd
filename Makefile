# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: quickstart test test-slow lint clean-venv
.DEFAULT_GOAL := quickstart

quickstart: $(VENV)/.installed ## Train, test and export a small model on generated images
	$(BIN)/anomalib-medical quickstart

test: $(VENV)/.installed ## The fast tests
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.installed ## The tests that need minutes, and real images under ANOMALIB_MEDICAL_DATA
	$(PYTEST) -m slow

lint: $(VENV)/.installed ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# pip runs again only when the package's requirements may have changed.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=/path/to/it" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e '.[dev]'
	touch $@

clean-venv:
	rm -rf $(VENV)
