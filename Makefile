# Two commands are enough: `make demo` and `make test`. Both do all their own set-up and can be run again.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help demo test lint unit referee bench failover crds image packages setup lab-up lab-down clean

VENV := .venv
PYTHON := $(VENV)/bin/python
BASE_PYTHON ?= python3
NAME ?= all
STORIES ?= 10000
SEED ?= 1

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: setup  ## The main job on real parts: grow, shrink, replace (KEEP=1 leaves the lab up)
	$(PYTHON) -m lab.demo $(if $(KEEP),--keep)

test: setup  ## All tests: unit, contract, integration, end-to-end, browser (CI runs lint too)
	$(PYTHON) -m lab.prepare
	$(PYTHON) -m lab.beside

lint: $(VENV)/.done  ## ruff, mypy --strict, import layers, drift of CRDs and generated pages
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy operator/luban app/luban_app lab bench
	PYTHONPATH=operator:app:. $(VENV)/bin/lint-imports
	$(PYTHON) -m luban.api.crd --check crds
	$(PYTHON) -m luban.api.reference --check docs/api.md docs/reasons.md
	$(PYTHON) -m luban.cli.metrics_page --check docs/metrics.md

unit: $(VENV)/.done  ## Unit tests alone, in seconds
	$(PYTHON) -m pytest tests/unit

referee: $(VENV)/.done  ## STORIES=10000 random stories of a data centre against the decisions: about 12 minutes on two free cores (SEED=1)
	$(PYTHON) -m tests.referee --stories $(STORIES) --seed $(SEED) --jobs $$(nproc)

bench: setup  ## Benchmarks: NAME=membership, names, reaction, stats, scale, bond, links, app, rest, writes, warmstart; each prints one line of JSON
	@$(PYTHON) -m bench $(NAME)

failover: setup  ## Pull the cables of a bond on a real kernel, in four modes; writes plots to bonds-output/
	$(PYTHON) -m lab.bonds

crds: $(VENV)/.done  ## Write crds/*.yaml, docs/api.md, reasons.md and metrics.md from the code
	$(PYTHON) -m luban.api.crd crds
	$(PYTHON) -m luban.api.reference docs/api.md docs/reasons.md
	$(PYTHON) -m luban.cli.metrics_page docs/metrics.md

image: setup  ## Build the guest image of the lab
	$(PYTHON) -m lab.image.build

lab-up: setup  ## Bring the lab up: control plane, KVM hosts, operator, httpd, Prometheus
	$(PYTHON) -m lab up

lab-down:  ## Stop the lab; its objects stay for the next lab-up
	$(PYTHON) -m lab down

clean:  ## Stop the lab and remove all that was made (CACHE=1: also built binaries and images); not while other labs run
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m lab destroy --last $(if $(CACHE),--cache); fi
	rm -rf $(VENV) build demo-output bonds-output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf operator/*.egg-info *.egg-info operator/luban/adapters/apache_httpd/_slot_names*.so

setup: packages $(VENV)/.done

packages:
	@lab/install-packages

# libvirt-python compiles against libvirt-dev: the packages come first.
$(VENV)/.done: pyproject.toml setup.py operator/luban/adapters/apache_httpd/slot_names.c constraints.txt | packages
	@echo "Python packages: installing into $(VENV) (about a minute)"
	$(BASE_PYTHON) -m venv $(VENV)
	$(PYTHON) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[app,lab,dev]'
	@touch $@
