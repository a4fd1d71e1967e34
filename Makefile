# Everything a newcomer needs: `make demo` and `make test`. Only Python >= 3.11 and make are assumed.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
BIN := .venv/bin
SCENARIO ?=
BASE ?= docker.io/library/python:3.11-slim
BUILDER ?= docker
PACKAGES := agents policies sandbox service workflow_templates
LINKS := $(addprefix .links/tiphys/,$(PACKAGES))

.DEFAULT_GOAL := help
.PHONY: help demo test check bench fmt golden chart lock images mutants cluster-up cluster-test conform-cluster cluster-down clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# The locked dependencies, every one with its hash; pip does it alone where uv has no build.
.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tiphys needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	@echo "setting up .venv from requirements.lock ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@if $(BIN)/uv --version >/dev/null 2>&1 \
	    || $(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep -oE '^uv==[0-9.]+' requirements.lock)"; then \
	    VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install -q --compile-bytecode --require-hashes -r requirements.lock; \
	else \
	    $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock; \
	fi
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install -q --no-deps --no-build-isolation -e . 2>/dev/null \
	    || $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Type checker and import linter read the layout through links, as the wheel would place it.
.links/tiphys/%:
	@mkdir -p .links/tiphys && ln -sfn ../../$* $@

demo: .venv/.ready ## watch an incident being healed (SCENARIO=name for another)
	@$(BIN)/tiphys demo $(SCENARIO)

test: .venv/.ready ## every test that needs nothing but this machine's loopback
	@$(BIN)/pytest -q -n 2 --dist worksteal
	@# the catalogue mostly waits: more workers than processors
	@$(BIN)/pytest -q -n 6 --dist worksteal tests/conformance/test_catalogue.py

check: .venv/.ready $(LINKS) ## ruff, pyright strict, import layers, size limits
	@$(BIN)/ruff check . && $(BIN)/ruff format --check -q .
	@$(BIN)/pyright --warnings
	@$(BIN)/lint-imports --no-timings 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/python tools/size_limits.py

cluster-up: .venv/.ready ## start a real Kubernetes with Argo Workflows here (as root; docs/cluster.md)
	@$(BIN)/python -m tools.cluster up

cluster-test: cluster-up ## conformance, attacks, the chart and whole incidents on that cluster
	@$(BIN)/pytest -q -n 2 --dist worksteal tests/conformance --ignore=tests/conformance/test_catalogue.py
	@$(BIN)/pytest -q tests/conformance -m cluster
	@$(BIN)/pytest -q tests/cluster/attacks
	@$(BIN)/pytest -q tests/chart
	@$(BIN)/pytest -q tests/cluster/e2e
	@$(BIN)/pytest -q tests/cluster --ignore=tests/cluster/attacks --ignore=tests/cluster/e2e

conform-cluster: cluster-up ## every property of every action on that cluster; writes docs/conform
	@$(BIN)/python -m tools.conform --report docs/conform

mutants: .venv/.ready ## take each fence, check and rollback out of the actions; writes docs/mutants.md
	@$(BIN)/python -m tools.mutants

cluster-down: .venv/.ready ## stop it and leave nothing but its cache
	@$(BIN)/python -m tools.cluster down

bench: .venv/.ready ## ratios against a baseline of the same run
	@$(BIN)/python -m pytest --version >/dev/null && for b in bench/[a-z]*.py; do echo "== $$b"; $(BIN)/python $$b; done

fmt: .venv/.ready ## format and sort imports
	@$(BIN)/ruff check -q --fix . || true
	@$(BIN)/ruff format -q .

golden: chart ## rewrite all that is rendered from code: goldens, the chart's files, docs/actions.md, tables of docs/policies.md and docs/playbooks.md
	@$(BIN)/python -m tools.actions_page && $(BIN)/python -m tools.policies_page && $(BIN)/python -m tools.playbooks_page
	@TIPHYS_GOLDEN=write $(BIN)/pytest -q -k golden $$(grep -rl TIPHYS_GOLDEN tests/unit --include=*.py)

chart: .venv/.ready ## write what the Helm chart ships rendered
	@$(BIN)/python -m tools.chart

lock: ## resolve requirements*.lock again, all to the same versions
	@lock() { $(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 \
	        --no-emit-index-url --no-header "$$@"; }; \
	    lock --group dev pyproject.toml -o requirements.lock; \
	    lock -c requirements.lock pyproject.toml -o requirements-run.lock; \
	    lock -c requirements.lock --group step -o requirements-step.lock; \
	    lock - -o images/pip.lock <<< pip

images: .venv/.ready ## build the container images (BASE=image BUILDER=docker|podman|buildah)
	@$(BIN)/python -m tools.images --base "$(BASE)" --builder "$(BUILDER)"

clean: ## remove what make made
	@rm -rf .venv .links .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
