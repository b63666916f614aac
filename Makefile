# Everything a developer needs. `make help` lists it. Needs Python 3.11+, make and the package registries: no root, no
# Java, no docker.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=
N ?= 20
DIST ?= dist

.DEFAULT_GOAL := help
.PHONY: help setup demo test fuzz lint format bench faults docs devstack dist w3c clean

help: ## Show this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "spanbridge needs Python 3.11 or later: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing spanbridge and its development tools into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

setup: $(READY) ## Make the virtual environment and install everything into it

demo: $(READY) ## Run devices, both brokers, the gateway and a consumer; show their traces (ARGS="--keep")
	@$(BIN)/spanbridge demo $(ARGS)

test: lint ## Check style, types and layers, then run all tests on real brokers (ARGS="-k name")
	$(BIN)/python -m pytest $(ARGS)

fuzz: $(READY) ## Run the properties with other examples each time, N times as many (N=20 ARGS="tests/spool")
	FUZZ=$(N) $(BIN)/python -m pytest -m hypothesis -o timeout=7200 $(ARGS)

lint: $(READY) ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## Measure throughput and CPU against the bridge one would write today (ARGS="--quick")
	$(BIN)/python -m bench $(ARGS)

faults: $(READY) ## Break things under load and count messages: lost, twice, out of order (ARGS="--only NAME")
	$(BIN)/python -m bench.faults $(ARGS)

docs: $(READY) ## Generate the configuration reference, its JSON schema and the API page of the codec
	$(BIN)/python -m spanbridge.config.docs
	$(BIN)/python docs/generate_context_api.py

devstack: $(READY) ## Start RocketMQ and MQTT brokers on free ports until Ctrl-C
	@$(BIN)/spanbridge devstack up $(ARGS)

# A small environment of its own: neither brokers nor tools are needed to build.
build/venv/.ready:
	@$(PYTHON) -m venv build/venv
	@build/venv/bin/python -m pip install --quiet --disable-pip-version-check 'build>=1.2'
	@touch $@

dist: build/venv/.ready ## Build the wheel, and the sources it is built from, into dist/ (DIST=<folder>)
	@build/venv/bin/python -m build --outdir "$(DIST)" .

w3c: $(READY) ## Run W3C's Trace Context suite against the codec (DIR=<a clone of w3c/trace-context>)
	@test -n "$(DIR)" || { echo "say where the suite is: make w3c DIR=<a clone of w3c/trace-context>"; exit 2; }
	$(BIN)/python tests/context/w3c/run.py "$(DIR)"

clean: ## Remove what was built here (not the download cache)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find gateway context tests bench -name __pycache__ -prune -exec rm -rf {} +
