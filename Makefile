# `make demo` and `make test` prepare what they need (scripts/bootstrap) and are quick when nothing changed.

VENV := .venv
BIN := $(VENV)/bin
# What is compiled: the data plane, and what setup.py lists in UNTORN and OBJECTS.
LISTED := $(shell grep -o '^    "[a-z_/]*",$$' setup.py | tr -d ' ",')
COMPILED := $(wildcard src/uzswap/core/*.pxd src/uzswap/core/*/*.py src/uzswap/core/*/*.pxd src/uzswap/core/*/*.[ch] \
	src/uzswap/store/*.pxd src/uzswap/store/*.h) \
	$(LISTED:%=src/uzswap/%.py)
BENCHES := store load writeback scale idle objects rss arrays cliffs fork codecs control neighbours agent dask
# of `make replay`
export TRACES ?=
BENCH_ARGS ?=
# Empty is unset: where no bytecode may be kept, each process of a test compiles what it imports.
export PYTHONDONTWRITEBYTECODE =
# of `make test-vm`: a test that takes longer hangs.  Emulation is slow, and slower beside others.
VM_TEST_SECONDS ?= 240
VM_TEST := $(BIN)/python -m pytest -p no:cacheprovider -v --durations=5 \
	-o faulthandler_timeout=$(VM_TEST_SECONDS) -o faulthandler_exit_on_timeout=true
# A worker each CPU; who has no tests left takes over half of another's.
PARALLEL := --numprocesses=logical --maxprocesses=16 --dist=worksteal --durations=10
# On a kernel without UFFDIO_MOVE and POISON: requests to memory.reclaim, and the pager's contents.
VM_OLD := tests/vm/test_reclaim.py tests/arrays/test_arrays.py

.PHONY: venv demo test quick test-vm soak sanitize audit compat lint bench replay wheel wheel-test pythons clean

venv: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml setup.py scripts/bootstrap $(COMPILED)
	@scripts/bootstrap $(VENV) dev,fuse
	@touch $@

$(VENV)/.bench: $(VENV)/.ready
	@scripts/bootstrap $(VENV) dev,fuse,bench
	@touch $@

$(VENV)/.wheel: $(VENV)/.ready
	@scripts/bootstrap $(VENV) dev,fuse,wheel
	@touch $@

$(VENV)/.sanitize: $(VENV)/.ready
	@scripts/bootstrap $(VENV) dev,fuse,sanitize
	@touch $@

$(VENV)/.compat: $(VENV)/.ready
	@scripts/bootstrap $(VENV) dev,fuse,compat
	@touch $@

demo: venv
	@$(BIN)/uzswap demo

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

test: lint
	@scripts/browser
	$(BIN)/python -m pytest $(PARALLEL)

# The tests of what has changed since the main branch, without those that take seconds.
quick: lint
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow" $$($(BIN)/python scripts/tests_of_change)

# Known vulnerabilities of what is installed; needs the network.
audit: venv
	$(BIN)/python -m pip install -q pip-audit
	UZSWAP_AUDIT=1 $(BIN)/python -m pytest -q tests/test_supply.py

# What fails on purpose at every position, storms, 1,000 kills, and 10**10 bytes that are compared: ten minutes.  With
# ALL=1 all tests, random ones as long as it takes to meet what is seldom wrong, and other people's suites: an hour.
soak: $(VENV)/.compat
	UZSWAP_SOAK=1 $(BIN)/python -m pytest $(PARALLEL) $(if $(ALL),,tests/faults)

# The data plane under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer: see scripts/sanitize.
sanitize: $(VENV)/.sanitize
	$(BIN)/python scripts/sanitize address
	$(BIN)/python scripts/sanitize thread

# The test suites of numpy, and of a module each of pandas and scikit-learn, in 16 MiB: an hour.  `make test` has a part.
compat: $(VENV)/.compat
	$(BIN)/python -m tests.compat.compare $(SUITES)

# The agent on a kernel's own cgroups, and the pager on an old kernel: Debian's 6.12 and 6.1, in qemu by software
# emulation (scripts/vm).  Within ten minutes on a quiet machine.
test-vm: venv
	scripts/vm 6.12 $(VM_TEST) -s tests/vm
	scripts/vm 6.1. $(VM_TEST) $(VM_OLD)

bench: $(VENV)/.bench
	@for bench in $(BENCHES); do $(BIN)/python -m benchmarks.bench_$$bench $(BENCH_ARGS) || exit 1; done

# The plot in README.md: every policy of the agent on public traces, which are fetched, or taken from TRACES=DIRECTORY.
replay: venv
	@scripts/traces build/traces
	$(BIN)/uzswap replay build/traces/sprite.trace build/traces/cloudPhysicsIO.csv build/traces/mooncake_conversation.jsonl \
		--policy twostage,senpai,tmo,refault,farmem,idle --plot docs/replay.svg

# A source distribution, and a wheel made from it that has liblz4, libzstd and libxxhash inside: dist/.
wheel: $(VENV)/.wheel
	rm -rf dist build/wheel
	$(BIN)/python -m build --outdir build/wheel .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --strip --wheel-dir dist build/wheel/*.whl
	mv build/wheel/*.tar.gz dist/

wheel-test: wheel
	UZSWAP_WHEEL=$$(echo dist/*.whl) $(BIN)/python -m pytest tests/test_wheel.py

# Build and test on every Python from 3.11 on that this machine has, a virtual environment each in .pythons/.
pythons:
	@scripts/pythons $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) .pythons build dist src/uzswap.egg-info src/uzswap/*.so src/uzswap/*/*.so src/uzswap/*/*/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
