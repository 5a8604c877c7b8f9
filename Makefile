# Two commands for people: `make demo` and `make test`. Each makes .venv when it is needed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.installed-bench
DEMO_RUN := runs/demo

.PHONY: demo test lint bench bench-metrics clean

# Train an embedding of characters with Circle Loss, measure it on unseen ones, write the page.
demo: $(INSTALLED)
	rm -rf $(DEMO_RUN)
	$(BIN)/circlet train glyphs --output $(DEMO_RUN) $(DEMO_OPTIONS)

# Two files of tests at a time; `pytest` alone runs them one after the other.
test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Time and memory of the losses beside other implementations of them; hours, unless BENCH_OPTIONS take less.
bench: $(BENCH_INSTALLED)
	$(BIN)/python benchmarks/losses.py $(BENCH_OPTIONS)

# Time and memory of the metrics beside the bare matrix product; some 10 minutes and 2 GB of disk.
bench-metrics: $(INSTALLED)
	$(BIN)/python benchmarks/metrics.py $(BENCH_OPTIONS)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(BENCH_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

clean:
	rm -rf $(VENV)
