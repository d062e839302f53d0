# Both commands work alone in a fresh clone with Python ≥ 3.11, pip, git and make.
PYTHON ?= python3
CONFIG ?= config/config.yaml
CORES ?= all
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Prints the folder of CONFIG's results.
RESULTS = python -c 'import sys; from spatialmae.config import load_config; from spatialmae.layout import Layout; print(Layout.of(load_config(sys.argv[1])).root)' $(CONFIG)
# A worker gets whole files of tests, which share fixtures.
PYTEST := OMP_NUM_THREADS=1 pytest -n auto --dist loadscope
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: reproduce check test test-install install lint types format snakemake-report clean

reproduce: install  ## Make every result and the report of CONFIG
	snakemake --cores $(CORES) --configfile $(CONFIG)

check: install  ## For every change, at most 3 minutes on 2 cores: lint, types and the fast tests
	$(MAKE) --jobs --output-sync=target lint types
	$(PYTEST) -m "not slow and not workflow and not install"

test: check  ## The gate, at most 12 minutes more: the slow tests, and the workflow from a clean checkout
	$(PYTEST) -m slow
	pytest -m workflow

test-install: install  ## A fresh environment, and what a wheel holds; with a network
	pytest -m install

lint: install
	ruff check .
	ruff format --check .
	snakefmt --check workflow
	snakemake --lint

types: install
	mypy

format: install
	ruff check --fix .
	ruff format .
	snakefmt workflow

snakemake-report: install  ## Snakemake's own report of CONFIG's results, beside them
	snakemake --cores 1 --configfile $(CONFIG) --report "$$($(RESULTS))/snakemake-report.html"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:  ## Remove the environment; results stay
	rm -rf $(VENV)
