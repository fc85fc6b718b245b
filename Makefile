# The environment is made on the first use and kept in .venv; PYTHON chooses the interpreter it is made with.
PYTHON ?= python3
TESTS ?= tests/unit tests/integration tests/crash tests/faults
BIN := .venv/bin
RUN_READY := .venv/.run-ready
DEV_READY := .venv/.dev-ready
BENCH_READY := .venv/.bench-ready

.DEFAULT_GOAL := help
.PHONY: help demo test check format lock dashboards bench up down clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUN_READY) ## run the kitchen with its metrics, no Docker needed
	$(BIN)/conveyor run kitchen speed=2 --metrics 127.0.0.1:0

test: $(DEV_READY) ## run the tests that need no containers
	$(BIN)/pytest -n 4 --dist worksteal $(TESTS)

check: $(DEV_READY) ## lint, type-check and compare what is generated
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python monitoring/grafana/generate.py --check

format: $(DEV_READY) ## format the code and mend what the linter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

dashboards: $(DEV_READY) ## generate the Grafana dashboards anew
	$(BIN)/python monitoring/grafana/generate.py

bench: $(BENCH_READY) ## measure how fast it is, against its peers; some ten minutes
	$(BIN)/conveyor bench --peers

up: ## start the whole stack; Grafana on http://127.0.0.1:3000
	docker compose up --build --detach --wait

down: ## stop the stack and remove its containers
	docker compose down

lock: ## resolve the dependencies anew
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install -q uv
	.venv-lock/bin/uv pip compile --quiet --universal --generate-hashes --upgrade --python-version 3.11 \
		--custom-compile-command "make lock" pyproject.toml -o requirements/run.txt
	.venv-lock/bin/uv pip compile --quiet --universal --generate-hashes --upgrade --python-version 3.11 \
		--custom-compile-command "make lock" --group dev pyproject.toml -o requirements/dev.txt
	.venv-lock/bin/uv pip compile --quiet --universal --generate-hashes --upgrade --python-version 3.11 \
		--custom-compile-command "make lock" --extra bench pyproject.toml -o requirements/bench.txt
	rm -r .venv-lock

clean: ## remove the environment and what tools left
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache dist build

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Conveyor needs Python 3.11 or newer; choose one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "$(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }

$(RUN_READY): .venv/bin/python requirements/run.txt pyproject.toml
	@echo "installing into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(DEV_READY): $(RUN_READY) requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(BENCH_READY): $(RUN_READY) requirements/bench.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@
