# `make run` sets everything up and runs the built-in session; `make test` sets everything up and passes all tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test quick fuzz static unit replay real simulation faults battery lint types floors format bench setup clean help

help:
	@echo "make run | test | quick | static | real | bench | format | clean"

setup: $(READY)

# Dependencies come from the lock by version and hash; the project itself is installed in place.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "evenkeel needs Python 3.11 or later, found " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

run: $(READY)
	$(BIN)/evenkeel backtest config/synthetic.toml --report

test: static unit replay real simulation faults

quick: $(READY) lint types floors
	$(BIN)/pytest tests/unit -m "not slow" -n 2

static: lint types floors

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

floors: $(READY)
	$(BIN)/lint-imports

unit: $(READY)
	$(BIN)/pytest tests/unit tests/property tests/contract tests/test_docs.py tests/test_imports.py -n 2

# New examples at every call: what it finds goes into a test of its own.
fuzz: $(READY)
	EVENKEEL_FUZZ=1 $(BIN)/pytest tests/property -n 2

replay: $(READY)
	$(BIN)/pytest tests/replay -n 2

# On recorded days, found through EVENKEEL_DATA or a data folder beside the project; skipped with a reason without them.
real: $(READY)
	$(BIN)/pytest tests/real -n 2 -rs

simulation: $(READY)
	$(BIN)/pytest tests/simulation -n 2

# Daemons and venues in processes of their own, killed and worried: seconds of waiting, little of work, so four at a time.
faults: $(READY)
	$(BIN)/pytest tests/faults -n 4

# Before a release: the same proofs in larger amounts, days of ticks, and an hour left alone. About four hours.
battery: $(READY)
	EVENKEEL_KILLS=2000 $(BIN)/pytest tests/faults -n 4
	EVENKEEL_SEEDS=20000 $(BIN)/pytest tests/simulation -n 2
	$(BIN)/python benchmarks/gate.py
	$(BIN)/python benchmarks/live.py --rate 500 --seconds 60
	$(BIN)/python benchmarks/days.py --hours 72
	$(BIN)/python benchmarks/soak.py --minutes 60

bench: $(READY)
	$(BIN)/python -m benchmarks.suite
	$(BIN)/python benchmarks/pricing.py
	$(BIN)/python benchmarks/pricing_american.py
	$(BIN)/python benchmarks/pricing_convertible.py
	$(BIN)/python benchmarks/exact.py
	$(BIN)/python benchmarks/lab.py
	$(BIN)/python benchmarks/yardstick.py

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
