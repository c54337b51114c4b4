# The two commands: `make demo` and `make test`. Each sets up what it needs, once.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python -m
PIP    := $(RUN) pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test contract check wheel sanitize clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready                 ## a story, streaming, and the same story as it must come out
	@$(RUN) pellucid generate --max-new-tokens 200
	@$(RUN) pellucid generate --greedy --no-stream --max-new-tokens 256 2>/dev/null | diff - tests/data/expected_greedy.txt \
	  && echo "greedy decoding gives tests/data/expected_greedy.txt, to the letter"

test: check                          ## lint, layers, types and tests: what CI runs
	@$(RUN) pytest -n 2 --dist loadgroup

contract: $(VENV)/.tested            ## every check of every variant of every family; CI takes the plain configs
	@PELLUCID_CONTRACT=full $(RUN) pytest -n 2 --dist loadgroup tests/parity tests/contracts tests/ops/test_kernels_on_arm.py

check: $(VENV)/.tested               ## lint, layers and types
	@$(RUN) ruff check src tests benchmarks examples
	@$(RUN) ruff format --check src tests benchmarks examples
	@$(VENV)/bin/lint-imports --no-cache
	@$(RUN) mypy

wheel: $(VENV)/.ready                ## dist/*.whl with the kernels of this processor's kind inside, and whether it installs
	@rm -rf build dist
	@$(RUN) pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@$(VENV)/bin/python tests/wheel.py dist/*.whl

sanitize: $(VENV)/.tested            ## the tests of the kernels, with kernels that watch their memory and arithmetic
	@sh tests/sanitize.sh $(VENV)/bin/python

$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: $(VENV)/bin/python pyproject.toml setup.py constraints.txt $(wildcard src/pellucid/ops/cpu/*.cpp src/pellucid/ops/cpu/*.h)
	@echo "installing into $(VENV) …"
	@$(PIP) torch numpy
	@$(PIP) --editable .
	@touch $@

$(VENV)/.tested: $(VENV)/.ready
	@$(PIP) --editable ".[test,check]"
	@touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
