# Two commands matter: `make demo` and `make test`. Everything else is a part of them.
SHELL := /bin/bash
PYTHON ?= python3.11
RUN := .venv/bin/python
ARGS ?=

export NUMBA_CACHE_DIR ?= $(CURDIR)/.numba_cache
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo test env tools lint bench docs clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make demo RECORDING=standx SPEED=60     a recorded market at sixty times its speed"
	@echo "  make demo ARGS='--until-fill'           stops at the first fill; ARGS='--help' lists the options"
	@echo "  make test ARGS='tests/test_policy.py'   some tests only"

demo: env  ## the whole desk on this machine: broker, market, services, flows, console; Ctrl-C stops it
	@$(if $(RECORDING),RECORDING='$(RECORDING)') $(if $(SPEED),SPEED='$(SPEED)') $(RUN) -m scripts.demo $(ARGS)

test: env tools  ## every test, two at a time
	@$(RUN) -m pytest -n 2 --dist loadgroup $(ARGS)

env:  ## .venv from requirements.lock, the broker's jars, compiled kernels; again only when the lock changes
	@bash scripts/bootstrap.sh env

tools:  ## prometheus and chromium for the tests that use them, where they may be installed
	@bash scripts/bootstrap.sh tools

lint: env  ## ruff and mypy
	@.venv/bin/ruff check .
	@$(RUN) -m mypy

bench: env  ## the figures, beside their alternatives
	@$(RUN) -m benchmarks $(ARGS)

docs: env  ## what is generated: alerts, dashboards, docs/metrics.md, docs/config.md
	@$(RUN) -m scripts.build_generated

clean:  ## environment, caches and run-time data; asks first, since data/ holds the ledger
	@read -r -p "remove .venv, caches, data/ and models/? [y/N] " yes && [ "$$yes" = y ]
	rm -rf .venv .numba_cache .mypy_cache .ruff_cache .pytest_cache .hypothesis data models
