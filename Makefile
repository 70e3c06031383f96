# Two commands do everything on a fresh machine: `make course` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: course test lab setup lint benchmark clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv and install the course into it
$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (about two minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# matplotlib's list of fonts is built here: building it in a notebook would warn there, and a list left by an
	@# environment that is gone would miss the fonts
	rm -f "$$($(BIN)/python -c 'import matplotlib; print(matplotlib.get_cachedir())')"/fontlist-*.json
	$(BIN)/python -c 'import matplotlib.font_manager'
	touch $@

course: setup  ## execute all lectures and solutions (quick budget), grade the reference solutions, show the report
	$(BIN)/course doctor
	$(BIN)/course run --budget quick
	$(BIN)/course grade --reference

test: setup  ## everything CI checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/course release --check
	@# the tests of a file share its fixtures: to one process all of them
	$(BIN)/python -m pytest --numprocesses=logical --maxprocesses=8 --dist=loadfile

lab: setup  ## open JupyterLab on the course
	$(BIN)/course lab

benchmark: setup  ## speed, as ratios within one run (not part of `make test`)
	OMP_NUM_THREADS=1 JAXTYPING_DISABLE=1 $(BIN)/python -m pytest tests/benchmarks --benchmark-enable -o addopts= -q -s

clean:  ## remove .venv and everything generated
	rm -rf $(VENV) classroom_data course_run .pytest_cache .ruff_cache
