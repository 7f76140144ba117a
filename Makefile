# `make demo` and `make test` prepare what they need (scripts/bootstrap) and are quick when nothing changed.

VENV := .venv
BIN := $(VENV)/bin
CORE := $(wildcard src/uzswap/core/*.py src/uzswap/core/*.pxd)
BENCHES := store load writeback scale arrays
BENCH_ARGS ?=

.PHONY: venv demo test lint bench clean

venv: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml setup.py scripts/bootstrap $(CORE)
	@scripts/bootstrap $(VENV) dev,fuse
	@touch $@

$(VENV)/.bench: $(VENV)/.ready
	@scripts/bootstrap $(VENV) dev,fuse,bench
	@touch $@

demo: venv
	@$(BIN)/uzswap demo

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

bench: $(VENV)/.bench
	@for bench in $(BENCHES); do $(BIN)/python -m benchmarks.bench_$$bench $(BENCH_ARGS) || exit 1; done

clean:
	rm -rf $(VENV) build dist src/uzswap.egg-info src/uzswap/core/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
