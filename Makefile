# The whole vocabulary of a checkout. Everything lives in .venv; nothing outside this folder is touched.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3,$(if $(shell command -v $(p)),$(p))))
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := $(VENV)/.tools
WORDNET := $(VENV)/.wordnet
INSTALL := $(BIN)/uv pip install --preview-features build-dependency-hashes --no-deps --require-build-hashes \
	--build-constraints requirements/cpu.txt
SHELL := bash
.SHELLFLAGS := -o pipefail -c
# uv names what it downloads, then every package that it installed: the latter are left out.
WITHOUT_NAMES := 2>&1 | sed --unbuffered '/^ [+~-] /d'
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup tools docs demo test test-all lint bench clean

help:
	@echo "make demo      set up, train the tiny policy on synthetic scenes, write a report"
	@echo "make test      set up, run the tests"
	@echo "make test-all  those and the long ones"
	@echo "make setup     set up only; make tools adds the tools of developers"
	@echo "make lint      formatting, types, architecture"
	@echo "make docs      the documentation site, in build/site"
	@echo "make bench     benchmarks that need no root, GPU or TRL, results in benchmarks/results"
	@echo "make clean     remove what the other commands made, .venv included"

setup: $(READY) $(WORDNET)

tools: setup $(TOOLS)

$(READY): requirements/uv.txt requirements/cpu.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)) and "needs Python 3.11 or 3.12, found " + sys.version.split()[0] + "; name one with PYTHON=")'
	@echo "[1/4] Making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV)
	@echo "[2/4] Installing the installer ($$(grep -o '^uv==[^ ]*' requirements/uv.txt)) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/uv.txt
	@echo "[3/4] Installing torch, vLLM for CPU, Ray and the rest (7 GB on disk; one to ten minutes) ..."
	@$(INSTALL) --require-hashes --requirements requirements/cpu.txt $(WITHOUT_NAMES)
	@echo "[4/4] Installing geovlm_ray itself ..."
	@$(INSTALL) --quiet --editable .
	@touch $@

$(TOOLS): requirements/dev.txt $(READY)
	@echo "Installing the tools of developers (pytest, ruff, mypy and others) ..."
	@$(INSTALL) --require-hashes --requirements requirements/dev.txt $(WITHOUT_NAMES)
	@touch $@

$(WORDNET): $(READY)
	@echo "Fetching WordNet for METEOR ..."
	@$(BIN)/python -m geovlm_ray.rewards.text_metrics.wordnet
	@touch $@

demo: setup
	@$(BIN)/geovlm-ray train demo

test: tools
	@echo "Unit tests (no Ray, no vLLM) ..."
	@$(BIN)/pytest tests/unit -n 2 --dist loadfile --durations=10
	@echo "System tests (real engines, real Ray; about 12 minutes on two cores) ..."
	@$(BIN)/pytest tests/system -m "not long" -n 3 --dist loadfile --durations=10

test-all: test
	@echo "Long tests (nodes, images, studies, pages of docs, faults, benchmarks) ..."
	@$(BIN)/pytest tests/system tests/long -m long -n 3 --dist loadfile --durations=20

lint: $(TOOLS)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(READY)
	@$(INSTALL) --quiet --require-hashes --requirements requirements/docs.txt
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean

bench: tools
	@$(BIN)/python -m benchmarks.throughput --json benchmarks/results/throughput.json
	@for name in shared_prefix learner sync checkpoint_memory overlap control_plane plan endurance evaluation host_work \
		families maps collapse answers; do \
		$(BIN)/python -m benchmarks.$$name --json benchmarks/results/$$name.json || exit 1; done
	@$(BIN)/python -m benchmarks.learns --json benchmarks/results/learns.json
	@$(BIN)/python -m benchmarks.rewards --json benchmarks/results/rewards.json
	@$(BIN)/python -m benchmarks.data --json benchmarks/results/data.json
	@$(BIN)/python -m benchmarks.sft --json benchmarks/results/sft.json

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
