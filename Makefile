# Everything a checkout needs. `make demo` and `make test` set up what they use.
# What needs root is only `make system`: an OpenSSH server, screen, rsync, git, shellcheck.
#
# Settings: PYTHON (the interpreter to make .venv with).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
DIGITS := examples/digits
SCRIPTS := .ci/run $(wildcard .ci/*.sh)

# uv looks at certificates of its own; behind a company's proxy only the system's will do.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= 1
endif

# What the sandbox's machines download serves here as well, and the other way round: the files are
# linked. Not for root, whose machines run as another user and may not share files with it.
DATA := $(or $(CLOUDTRAIN_HOME:%=%/data),$(or $(XDG_DATA_HOME),$(HOME)/.local/share)/cloudtrain)
ifneq ($(shell id -u),0)
export UV_CACHE_DIR ?= $(DATA)/sandbox/home/.cache/uv
endif

# A command starts in half the time when Python may keep what it compiled, and the tests start thousands.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup setup-train system demo data test test-all crash-sweep fault-sweep soak lint format bench docs clean

help: ## Show this.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# The system's own packages.

system: ## Install the system packages that are missing (root), or say which and how.
	@.ci/system.sh

# Python. A stamp is newer than pyproject.toml when the environment has what that asks for.

.venv/bin/uv:
	@$(PYTHON) -m venv .venv || { echo 'hint: this Python has no venv: apt-get install python3-venv' >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet uv

.venv/.setup: pyproject.toml | .venv/bin/uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[sandbox,dev]'
	@touch $@

# torch and ultralytics (AGPL-3.0): 3 GB to download, 6 GB on disk. Only the demo needs them here,
# to evaluate the checkpoint that came home.
.venv/.setup-train: .venv/.setup
	@echo 'installing torch and ultralytics (AGPL-3.0) to evaluate with: about 3 GB the first time'
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[sandbox,dev,train]'
	@touch $@

setup: .venv/.setup ## Make .venv with everything for development.
setup-train: .venv/.setup-train ## Add torch and ultralytics, to evaluate checkpoints here.

# The main job, on real data.

$(DIGITS)/data/data.yaml: $(DIGITS)/make_dataset.py .venv/.setup
	@$(BIN)/python $(DIGITS)/make_dataset.py

data: $(DIGITS)/data/data.yaml ## Compose the example's dataset.

demo: system .venv/.setup-train $(DIGITS)/data/data.yaml ## Run the main job in the sandbox: no account, no GPU, no cost.
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(DIGITS)/demo.sh

# Checks.

# The tests wait as much as they compute: half as many workers again as there are cores.
WORKERS := $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n + (n + 1) / 2)))

# A short folder: a socket's path has 107 letters at most, and screen's lie deep in a machine's home.
test: system .venv/.setup ## Run the tests.
	@tmp=$$(mktemp -d /tmp/ct-XXXXXX); trap 'rm -rf "$$tmp"' EXIT; \
	  $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --basetemp="$$tmp/t" $(ARGS)

test-all: export THOROUGH = 1
test-all: .venv/.setup-train test ## Run every variant of the tests, those with real trainers here too.

crash-sweep: system .venv/.setup ## Kill up, train, stop, start and down at every point of their way (hours).
	@CRASH_SWEEP=1 $(BIN)/python -m pytest -s tests/workflows/test_crash.py tests/workflows/test_crash_sweep.py

fault-sweep: system .venv/.setup ## Let every call to the cloud fail in every way (an hour).
	@FAULT_SWEEP=1 $(BIN)/python -m pytest -s tests/workflows/test_fault_sweep.py

soak: system .venv/.setup-train ## Interrupt a YOLO training fifty times, on booted machines where root can have them.
	@$(BIN)/python -u -m tests.soak $(ARGS)

lint: system .venv/.setup ## ruff, pyright, import-linter, and shellcheck of every script as it is sent.
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright
	@$(BIN)/lint-imports
	@shellcheck $(SCRIPTS) $(DIGITS)/demo.sh
	@$(BIN)/python -m tests.lint_scripts
	@$(BIN)/python docs/generate.py --check

format: .venv/.setup ## Let ruff fix and format.
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: system .venv/.setup ## Measure against the yardsticks of benchmarks/README.md.
	@$(BIN)/python -m benchmarks.bench_cli
	@$(BIN)/python -m benchmarks.bench_up
	@$(BIN)/python -m benchmarks.bench_converge
	@if [ "$$(id -u)" = 0 ]; then $(BIN)/python -m benchmarks.bench_bake; fi
	@$(BIN)/python -m benchmarks.bench_push --rtt 80 --mbit 200

docs: .venv/.setup ## Write docs/reference anew from the code.
	@$(BIN)/python docs/generate.py

clean: ## Remove what make made; runs and weights in the user's data directory stay.
	@rm -rf .venv $(DIGITS)/data .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist
