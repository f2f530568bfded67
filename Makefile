# Two commands do all the set-up: `make translate` and `make test`. Each makes .venv first if it is not there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: translate quick compare test lint types check docs bench clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

# Without these flags `accelerate launch` asks for a configuration, and gives one process one thread.
LAUNCH := $(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
	--num_cpu_threads_per_process $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)

translate: $(VENV)/installed
	$(LAUNCH) recipes/translate.py

quick: $(VENV)/installed
	$(LAUNCH) recipes/translate.py --quick

# Starts one process per core by itself.
compare: $(VENV)/installed
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no recipes/compare.py

# One process per core; a file of tests stays in one process.
test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

check: test lint types

# The site goes to site/; warnings are errors.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# docs/benchmarks.md says what is measured; the tables go there.
bench: $(VENV)/installed
	$(BIN)/python benchmarks/run_all.py

clean:
	rm -rf $(VENV) runs
