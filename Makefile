# make demo   install, search on the embedded digits, draw the front
# make test   install, check, run the tests; the long ones: make test-large
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist worksteal
unexport PYTHONDONTWRITEBYTECODE  # compiled once, not by each process that a test starts

.PHONY: demo test test-large check install clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("connsearch needs Python 3.11 or newer: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/connsearch run studies/digits.toml --dir runs/digits
	$(BIN)/connsearch front runs/digits --plot front.png --plot front.svg --plot front.html

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(PYTEST)

test-large: $(STAMP)
	$(PYTEST) tests -m "slow or large"

clean:
	rm -rf $(VENV) front.png front.svg front.html runs/digits
