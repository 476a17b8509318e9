# Each target makes what it needs, once: one virtual environment inside the clone, from Python and pip alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/peers
FRAMEWORKS := pydantic-ai-slim==2.68.0 openai-agents==0.24.0 fastmcp==4.1.2 google-adk==2.13.0

.PHONY: demo test check promises mutants soak bench signatures format clean

demo: $(READY)
	$(BIN)/dcaf demo

# On two cores; what measures time after that, by itself.
test: $(READY)
	DCAF_SCALE=$${DCAF_SCALE:-0.02} $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not soak and not alone'
	DCAF_SCALE=$${DCAF_SCALE:-0.02} $(BIN)/python -m pytest -m 'not soak and alone'

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd docs && PYTHONPATH=.. ../$(BIN)/pyright --pythonpath ../$(BIN)/python --verifytypes dcaf --ignoreexternal

promises: $(READY)
	DCAF_SCALE=1 $(BIN)/python -m pytest -m promise
	$(BIN)/python tests/promises/table.py

mutants: $(READY)
	rm -rf mutants
	DCAF_SCALE=0.02 $(BIN)/mutmut run
	$(BIN)/python tests/mutants/report.py

soak: $(READY)
	DCAF_SCALE=1 $(BIN)/python -m pytest -m soak -s

# Seven minutes, with both cores to itself; `make bench BENCH_QUICK=1` prints rough figures in one, and writes nothing.
bench: $(READY) $(VENV)/bench
	$(BIN)/python -m tests.benchmarks.measure

signatures: $(PEERS)/.ready
	PYTHONPATH=. $(PEERS)/bin/python -m tests.peers.signature_table

$(PEERS)/.ready: Makefile
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --editable . $(FRAMEWORKS)
	touch $(PEERS)/.ready

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

# What uvicorn has in a benchmark alone: the tests run with what the extra `server` installs.
$(VENV)/bench: $(READY) constraints.txt
	rm -rf $@
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --target $@ httptools uvloop

clean:
	rm -rf $(VENV) build dist mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
