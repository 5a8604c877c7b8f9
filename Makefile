# Two commands for people: `make demo` and `make test`. Each makes .venv when it is needed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO_RUN := runs/demo

.PHONY: demo test lint clean

# Train an embedding of characters with Circle Loss, measure it on unseen ones, write the page.
demo: $(INSTALLED)
	rm -rf $(DEMO_RUN)
	$(BIN)/circlet train glyphs --output $(DEMO_RUN) $(DEMO_OPTIONS)

test: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
