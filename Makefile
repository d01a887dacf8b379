# Everything here needs Python 3.10 or newer, and on Debian apt; it makes its own virtual environment in .venv.
PYTHON ?= python3
VENV ?= .venv
# Installed first, so that no other package chooses a build of torch. Set TORCH= to take one that you have.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin

.PHONY: setup demo test heavy lint wheel clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(if $(TORCH),$(BIN)/python -m pip install --quiet "$(TORCH)")
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

demo: setup
	sh runs/get-fashion-mnist.sh $(BIN)/softlabel
	$(BIN)/softlabel run fashion-mnist-rded-ipc10

test: setup
	$(BIN)/python -m pytest -q -m "not heavy"

heavy: setup
	$(BIN)/python -m pytest -q -m heavy

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: setup
	sh runs/try-wheel.sh $(BIN)/python

clean:
	rm -rf $(VENV) dist
