# `make` lists the targets. Everything happens in this folder: the environment is .venv, results go to runs/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# pip says nothing but errors, and each step says what it does; a new pip is no news to whoever runs this.
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -q
STAMP := $(VENV)/.setup-done

.PHONY: help setup demo test lint format typecheck pytest coverage docs faults speed speed-quick gpu clean

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(STAMP)  ## make .venv with everything that the other targets need (once; minutes)

# The stamp comes last, so that a setup that was interrupted is taken up again.
# --use-pep517: older pips otherwise build seqeval with the environment's setuptools, which fails when that is recent.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "error: pemeta needs Python 3.10 to 3.13, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true);" \
	    "choose another: make setup PYTHON=python3.11" >&2; exit 1; }
	@echo "==> [1/4] environment: $(VENV), $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "==> [2/4] torch (the largest download)"
	@$(PIP) -c constraints.txt torch
	@echo "==> [3/4] pemeta, editable, with what tests and docs need"
	@$(PIP) -c constraints.txt --use-pep517 -e '.[dev,docs]'
	@echo "==> [4/4] learn2learn"
	@$(BIN)/python -m pemeta.utils.learn2learn_setup -c constraints.txt
	@touch $@
	@echo "==> ready: $(BIN)/pemeta --help"

demo: setup  ## the main job on a small made-up world; ends with the table
	@echo "==> running benchmarks/demo.yaml"
	@$(BIN)/pemeta run benchmarks/demo.yaml

test: lint  ## everything that must hold: lint, typecheck, tests, docs
	@$(MAKE) --no-print-directory -j2 typecheck docs  # side by side, since each takes one core
	@$(MAKE) --no-print-directory pytest
	@echo "==> all checks passed"

lint: setup  ## ruff: rules and formatting
	@echo "==> ruff check"
	@$(BIN)/ruff check
	@echo "==> ruff format --check"
	@$(BIN)/ruff format --check

format: setup  ## let ruff repair and format the code
	@echo "==> ruff check --fix, ruff format"
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

typecheck: setup  ## mypy --strict
	@echo "==> mypy"
	@$(BIN)/mypy

pytest: setup  ## the tests, and the examples in the docstrings
	@echo "==> pytest: tests and doctests"
	@$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal

coverage: setup  ## the tests, and which lines of pemeta they run: a table, and htmlcov/index.html
	@echo "==> pytest: tests, doctests and coverage"
	@$(BIN)/pytest --cov --cov-report=term:skip-covered --cov-report=html

docs: setup  ## build the documentation into docs/_build/html; a warning is an error
	@echo "==> sphinx: docs/_build/html"
	@$(BIN)/python -m sphinx -q -W --keep-going -n -b html docs docs/_build/html

faults: setup  ## kill runs, feed them broken input, compare gradients with the oracle; prints figures (a quarter of an hour)
	@echo "==> pytest: fault injection, and tests that take long"
	@$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal -m "faults or long" tests

speed: setup  ## measure time and memory against other libraries (about 70 minutes)
	@echo "==> running benchmarks/speed; the rivals that it compares with: $(BIN)/pip install -e '.[speed]'"
	@$(BIN)/python benchmarks/speed/run.py

speed-quick: setup  ## the same on a small model, into runs/speed-quick (under five minutes)
	@echo "==> running benchmarks/speed --quick"
	@$(BIN)/python benchmarks/speed/run.py --quick

gpu: setup  ## ten checks of a machine's GPU, with a report (eight minutes); without one, of the script itself (one)
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
	  echo "==> running benchmarks/gpu"; $(BIN)/python benchmarks/gpu/run.py; \
	else \
	  echo "==> no GPU here: running benchmarks/gpu in small on the processor"; \
	  $(BIN)/python benchmarks/gpu/run.py --small --device cpu; \
	fi

clean:  ## remove what was built or cached; keeps .venv and runs/
	@echo "==> removing build products and caches"
	@rm -rf build dist ./*.egg-info docs/_build docs/tutorials/generated docs/sg_execution_times.rst \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
