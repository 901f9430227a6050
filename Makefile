# Each target does the set-up it needs in .venv first; once that is done it takes a moment.
PYTHON ?= python3
RUN := .venv/bin/python
# The tests run in any environment, such as one with Detectron2: make test RUN=/path/to/python
TEST_SETUP := $(if $(filter .venv/bin/python,$(RUN)),setup)

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-slow lint format benchmark clean

help:
	@echo "make quickstart  generate a small data set, train a detector on it, evaluate, draw"
	@echo "make test        the test suite; RUN=/path/to/python tests another environment"
	@echo "make test-slow   what takes too long for the everyday suite"
	@echo "make lint        ruff: lint and format check"
	@echo "make format      ruff: fix and format"
	@echo "make benchmark   the figures of docs/benchmarks.md"
	@echo "make setup       only the environment in .venv"

setup:
	@command -v $(PYTHON) >/dev/null || { echo "set-up failed: there is no $(PYTHON): install Python 3.10 or newer, or run make PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) tools/setup_venv.py

quickstart: setup
	@$(RUN) tools/quickstart.py

test: $(TEST_SETUP)
	@$(RUN) -m pytest

test-slow: $(TEST_SETUP)
	@$(RUN) -m pytest -m slow

lint: setup
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

format: setup
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

benchmark: setup
	@$(RUN) tools/benchmark.py all

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache
