# Each target sets up .venv by itself when it has to. Nothing is needed but Python 3.11 to 3.13, make and a package index.
.PHONY: install demo report test lint bench clean
.DELETE_ON_ERROR:

# Waiting threads of OpenMP would burn the cores that other processes need.
export OMP_WAIT_POLICY := passive

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PLUGINS := mlp cnn transformer bert
PARTS := -e '.[data]' -e 'plugins/zoo-mlp[sentence]' $(foreach p,cnn transformer bert,-e plugins/zoo-$(p))
TESTED := -e '.[data,test,bench,hub,reference]' -e 'plugins/zoo-mlp[sentence]' $(foreach p,cnn transformer bert,-e plugins/zoo-$(p))
RECIPES := pyproject.toml constraints.txt Makefile $(PLUGINS:%=plugins/zoo-%/pyproject.toml)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# The environment alone, for the commands of the README.
install: $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/python -m zoo.run model=bert task=sentiment

# The study of reports/sentiment from nothing; killed and started again it goes on where it was.
report: $(VENV)/.installed
	$(BIN)/python -m zoo.run -m model=linear,mlp,cnn,transformer,bert seed=0,1,2,3,4 task=sentiment report_name=sentiment

test: $(VENV)/.installed-for-tests
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n auto --dist loadfile $(ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

lint: $(VENV)/.installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-for-tests
	$(BIN)/python tests/benchmarks/engine.py; engine=$$?; $(BIN)/python tests/benchmarks/whole.py; whole=$$?; \
	$(BIN)/python tests/benchmarks/sweeps.py && exit $$((engine + whole))

clean:
	rm -rf $(VENV) .coverage* build dist

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 with its venv module is needed; make PYTHON=/path/to/python3.12 names one."; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python $(RECIPES)
	@echo "Installing zoo, its four backends and the default data (once; some minutes) …"
	$(INSTALL) $(PARTS)
	@touch $@

$(VENV)/.installed-for-tests: $(BIN)/python $(RECIPES)
	@echo "Installing zoo with everything its tests need (once; some minutes) …"
	$(INSTALL) $(TESTED)
	@touch $(VENV)/.installed $@
