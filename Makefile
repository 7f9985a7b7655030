# make demo        set up, then run the demo and print where its report is
# make test        the gate: format, lint, types, layering, tests
# make test-all    the gate with the slow tests
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all gate format clean

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) $(PYTEST_ARGS)

help:
	@sed -n 's/^# make/make/p' Makefile

setup: $(STAMP)
	@:

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing evengrad and its tools into $(VENV) (minutes, the first time)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev,lab]'
	@$(BIN)/python -c "from importlib.metadata import version as v; print('evengrad', v('evengrad'), 'with torch', v('torch'))"
	@touch $@

demo: setup
	@$(BIN)/evengrad demo

gate: setup
	@scripts/system_packages.sh
	@echo "format"; $(BIN)/ruff format --quiet --check . || { echo "run: make format"; $(BIN)/ruff format --check .; }
	@echo "lint";   $(BIN)/ruff check --quiet .
	@echo "types";  $(BIN)/mypy
	@echo "layers"; $(BIN)/lint-imports --no-logo --no-cache

test: gate
	@$(PYTEST) -m "not slow"

test-all: gate
	@$(PYTEST)

format: setup
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
