# Both commands work alone in a fresh clone with Python ≥ 3.11, pip, git and make.
PYTHON ?= python3
CONFIG ?= config/config.yaml
CORES ?= all
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Prints the folder of CONFIG's results.
RESULTS = python -c 'import sys; from spatialmae.config import load_config; from spatialmae.layout import Layout; print(Layout.of(load_config(sys.argv[1])).root)' $(CONFIG)
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: reproduce test install lint format snakemake-report clean

reproduce: install  ## Make every result and the report of CONFIG
	snakemake --cores $(CORES) --configfile $(CONFIG)

test: install  ## Lint, types, tests, and the smoke configuration from a clean checkout
	$(MAKE) lint
	OMP_NUM_THREADS=1 pytest -n auto -m "not workflow"
	pytest -m workflow

lint: install
	ruff check .
	ruff format --check .
	snakefmt --check workflow
	mypy
	snakemake --lint

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
