# Everything runs in .venv, which `make` fills by itself from pyproject.toml.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLOORS := .venv-floors
FLOOR_TESTS := tests/runs/test_scalars.py tests/images tests/retrieval \
	tests/cli/test_help.py tests/cli/test_wrong_input.py tests/cli/test_pipeline.py tests/cli/test_report.py \
	tests/cli/test_index.py tests/cli/test_search.py tests/server/test_api.py

.DEFAULT_GOAL := help
.PHONY: help demo test ordering floors browser torture ray milvus million load hostile generated ablation bench lint format types check clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

demo: $(VENV)/.installed ## Generate a small catalog and run the whole pipeline on it
	$(BIN)/mlcl demo

test: $(VENV)/.installed-dev ## Run the tests, on up to four processors
	$(BIN)/pytest -n auto --maxprocesses 4

ordering: $(VENV)/.installed-dev ## Check on all of the demo's data sets that the combiner beats simpler queries
	MLCL_WHOLE_DEMO=1 $(BIN)/pytest tests/demo/test_demo.py

floors: $(FLOORS)/.installed ## Run a few tests with the lowest versions that pyproject.toml allows
	$(FLOORS)/bin/python -m pytest $(FLOOR_TESTS)

browser: ## Install Chromium, in which tests open the report (Debian, as root)
	command -v chromium || { apt-get update --quiet && apt-get install --yes --no-install-recommends chromium; }

torture: $(VENV)/.installed-dev ## Interrupt training, indexing and stores at random moments, resume, compare
	$(BIN)/python tests/training/torture.py 200
	$(BIN)/python tests/stores/torture.py 100
	$(BIN)/python tests/workflows/index_torture.py 100

ray: $(VENV)/.installed-dev ## Index a catalog on a Ray cluster of two workers, one of which is killed
	MLCL_RAY=1 $(BIN)/pytest tests/workflows/test_ray_indexing.py

milvus: $(VENV)/.installed-dev ## Test catalogs on a Milvus server, which the tests start
	MLCL_MILVUS=1 $(BIN)/pytest tests/stores/test_store_contract.py tests/stores/test_milvus_store.py tests/cli/test_milvus.py

million: $(VENV)/.installed-dev ## Search a million drawn rows, beside exact search, faiss and the bare database
	$(BIN)/python tests/stores/million.py

load: $(VENV)/.installed-dev mlcl-demo/report.html ## Load a server with 1, 8 and 64 clients, with and without batches
	$(BIN)/python tests/server/load.py mlcl-demo

hostile: $(VENV)/.installed-dev ## Send a server some thousands of hostile requests
	MLCL_HOSTILE=1 $(BIN)/pytest -s tests/server/test_hostile.py

generated: $(VENV)/.installed-dev mlcl-demo/report.html ## Train on triplets generated from the demo's product table, five times
	$(BIN)/python tests/catalog/generated.py mlcl-demo

ablation: mlcl-demo/report.html ## Train levels × SSCL on the demo's three data sets, with five seeds, and compare
	$(BIN)/mlcl sweep --quiet --profile mlcl-demo/mlcl.cirr.yaml --set 'dataset=fashioniq|shoes|cirr' \
		--set 'combiner.levels=[hybrid]|[sum,hybrid]|[cat,hybrid]|[sum,cat,hybrid]' \
		--set 'combiner.sscl=[]|[mid,high]' --seeds 0-4 --markdown mlcl-demo/ablation.md

mlcl-demo/report.html: | $(VENV)/.installed
	$(BIN)/mlcl demo

bench: $(VENV)/.installed ## Measure speed and memory against a baseline
	$(BIN)/mlcl bench

lint: $(VENV)/.installed-dev ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev ## Fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev ## Check types, strictly
	$(BIN)/mypy

check: lint types test ## Check style and types, and run the tests

clean: ## Remove the environments and the demo's folder
	rm -rf $(VENV) $(FLOORS) mlcl-demo*

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "mlcl needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

$(FLOORS)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(FLOORS)
	$(FLOORS)/bin/python -m pip install --quiet uv
	$(FLOORS)/bin/uv pip install --quiet --python $(FLOORS)/bin/python --resolution lowest-direct --editable '.[dev]'
	touch $@
