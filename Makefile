# make run     serve chat, stream and health on http://127.0.0.1:8080 (PORT moves it)
# make test    the whole offline suite
# make check   what CI runs: format, lint, types, import rules, real third-party clients, tests
# make drill   the failover drill: kills a provider under load, no key needed (docs/failover.md)
# make faults  the sixteen failure scenarios at their real durations, as a table (a minute and a half)
# make bench   the benchmark (docs/performance.md says how to read it)
# make lock    renew the hashed locks from requirements*.in
# Every target sets up what it needs in .venv, with uv where it is installed, else with venv and pip.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := run
.PHONY: run test check lint clients drill faults bench lock clean

VENV := .venv
BIN := $(VENV)/bin
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"

run: $(VENV)/.runtime
	@exec $(BIN)/python -m functions.local

test: $(VENV)/.dev
	@$(BIN)/python -m pytest

check: lint clients
	@$(MAKE) --no-print-directory test

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

clients: $(VENV)/.dev
	@scripts/clients $(BIN)/python
	@$(BIN)/python -m pytest tests/clients

drill: $(VENV)/.runtime
	@$(BIN)/python -m drill

faults: $(VENV)/.dev
	@$(BIN)/python -m tests.faults.failover

bench: $(VENV)/.dev
	@$(BIN)/python -m bench

lock:
	$(LOCK) requirements.in -o requirements.txt
	$(LOCK) -c requirements.txt requirements-dev.in -o requirements-dev.txt
	scripts/clients lock

clean:
	rm -rf $(VENV) tests/clients/node/node_modules tests/clients/python/.venv-langchain .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.runtime: requirements.txt scripts/setup
	@scripts/setup $(VENV) requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	@scripts/setup $(VENV) requirements-dev.txt
	@touch $@
