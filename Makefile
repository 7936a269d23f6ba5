# Two commands set everything up: `make run` and `make test`. Both build .venv from requirements.lock.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PYTEST_ARGS ?=

# The first interpreter that runs and is new enough; PYTHON=... overrides the search.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

.PHONY: help run test lint format types lock clean env benchmark
help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /\1\t/' | expand -t 10

run: $(VENV)/.ready  ## segment a synthetic audience (ARGS="--data PATH ..." for your own)
	@$(BIN)/python -m jobs.segment $(ARGS)

test: $(VENV)/.ready  ## all tests
	@# Three files at a time; two of tests that kill and time processes. Status 5: none selected.
	@$(BIN)/python -m pytest -n 3 --dist loadfile -m "not cluster" $(PYTEST_ARGS) || [ $$? = 5 ]
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m cluster $(PYTEST_ARGS) || [ $$? = 5 ]

lint: $(VENV)/.ready  ## formatting and lint
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: $(VENV)/.ready  ## static types
	@$(BIN)/mypy

format: $(VENV)/.ready  ## rewrite the sources in the house's format
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lock: $(VENV)/.ready  ## pin every version again, with hashes
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command 'make lock' --extra dashboard --extra remote --group dev --upgrade \
		--output-file requirements.lock pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command 'make lock' --extra peers --constraint requirements.lock --upgrade \
		--output-file requirements-peers.lock pyproject.toml

env: $(VENV)/.ready  ## only the environment

benchmark: $(VENV)/.peers  ## this program and its peers (ARGS="--data PATH ...")
	@$(BIN)/python -m jobs.benchmark $(ARGS)

clean:  ## remove the environment and caches, keep runs/
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/.ready: requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "error: no Python 3.11 or later with venv on the PATH: install one, or name it: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 2; fi
	@echo "setting up $(VENV) with $(PYTHON) (once; a few minutes) ..."
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.peers: $(VENV)/.ready requirements-peers.lock
	@echo "installing the peers (once; some 700 MB) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-peers.lock
	@touch $@
