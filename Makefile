# One command for each thing a contributor does.  Every target makes .venv by
# itself; nothing is needed but make and Python 3.11 or newer.

.DELETE_ON_ERROR:
.PHONY: demo test lint types docs bench clean

VENV := .venv
BIN := $(VENV)/bin
JOBS := 2
PYTHONS := python3.14 python3.13 python3.12 python3.11 python3

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_INPUT = 1
# Without kept bytecode each start of the proxy, and the tests make 160, would compile it anew,
# which is more than half of the time it takes.
unexport PYTHONDONTWRITEBYTECODE

# How far .venv is: each stamp adds to the one before it, so that the demo need
# not wait for test tools, and two targets of `make -j` never run pip at once.
RUN := $(VENV)/.installed-run
TEST := $(VENV)/.installed-test
DEV := $(VENV)/.installed-dev
PEERS := $(VENV)/.installed-peers

demo: $(RUN)
	@$(BIN)/twistd -n --pidfile= scalingo-proxy --demo

test: $(TEST)
	$(BIN)/python -m twisted.trial -j$(JOBS) tests

lint: $(DEV)
	$(BIN)/ruff check .

types: $(DEV)
	$(BIN)/mypy

docs: $(DEV)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html is ready"

bench: $(PEERS)
	$(BIN)/python -m tests.benchmarks --json build/bench.json --svg build/bench.svg $(BENCH)

clean:
	rm -rf $(VENV) build dist docs/_build _trial_temp* *.egg-info .mypy_cache .ruff_cache .hypothesis .coverage*
	find scalingo_proxy tests twisted -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache

$(RUN): setup.cfg pyproject.toml
	@python=; for candidate in $(PYTHONS); do \
		if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
		then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Python 3.11 or newer is needed; none of $(PYTHONS) is one (another: make PYTHONS=/path/to/python)." >&2; \
		exit 1; \
	fi; \
	if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$$python cannot make virtual environments (on Debian and Ubuntu: apt-get install python3-venv)." >&2; \
		exit 1; \
	fi; \
	echo "making $(VENV) with $$($$python --version)"; \
	$$python -m venv $(VENV)
	@echo "installing scalingo_proxy and what it needs"
	@$(BIN)/python -m pip install -q -e .
	@touch $@

$(TEST): $(RUN)
	@echo "installing what the tests need"
	@$(BIN)/python -m pip install -q -e '.[test]'
	@touch $@

$(PEERS): $(TEST)
	@echo "installing what the benchmarks compare with"
	@$(BIN)/python -m pip install -q -e '.[bench]'
	@touch $@

$(DEV): $(TEST)
	@echo "installing what lint, types and docs need"
	@$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@
