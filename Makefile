# `make demo` and `make test` prepare what they need (scripts/bootstrap) and are quick when nothing changed.

VENV := .venv
BIN := $(VENV)/bin
# What is compiled, or may be: setup.py says.
COMPILED := $(wildcard src/uzswap/core/*.py src/uzswap/core/*.pxd src/uzswap/*.py src/uzswap/cgroup/*.py src/uzswap/memory/*.py)
BENCHES := store load writeback scale arrays control
BENCH_ARGS ?=

.PHONY: venv demo test compat lint bench clean

venv: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml setup.py scripts/bootstrap $(COMPILED)
	@scripts/bootstrap $(VENV) dev,fuse
	@touch $@

$(VENV)/.bench: $(VENV)/.ready
	@scripts/bootstrap $(VENV) dev,fuse,bench
	@touch $@

$(VENV)/.compat: $(VENV)/.ready
	@scripts/bootstrap $(VENV) dev,fuse,compat
	@touch $@

demo: venv
	@$(BIN)/uzswap demo

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

# The test suites of numpy, and of a module each of pandas and scikit-learn, in 16 MiB: an hour.  `make test` has a part.
compat: $(VENV)/.compat
	$(BIN)/python -m tests.compat.compare $(SUITES)

bench: $(VENV)/.bench
	@for bench in $(BENCHES); do $(BIN)/python -m benchmarks.bench_$$bench $(BENCH_ARGS) || exit 1; done

clean:
	rm -rf $(VENV) build dist src/uzswap.egg-info src/uzswap/*.so src/uzswap/*/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
