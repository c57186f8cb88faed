# make demo      install, then the offline run: digits in five steps, random against DDM
# make test      install, then the tests (under 8 minutes on two cores)
# make test-all  the longer proofs as well
# make stress    kills, damaged files and collisions by the thousand, written to results/trust.md (half an hour)
# make dist      what a release must pass: build, check the description, install the wheel alone, try it
# make test-oldest  the tests with the lowest versions of every dependency (tests/oldest.txt), in .venv-oldest
# make docs      all pages as a site: out/site/index.html (its search needs a server: python -m http.server -d out/site)
# make notebook  execute the notebook again on its small run

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests run on one thread each, so as many at once as there are cores; four of them need about 6 GB.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-all stress dist test-oldest docs notebook clean

demo: $(INSTALLED)
	$(BIN)/python runs/digits_5step.py --memory random ddm --out out/demo

test: $(INSTALLED)
	$(PYTEST) -m "not slow"

test-all: $(INSTALLED)
	$(PYTEST)

stress: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/stress/stress.py --out results/trust.md

# BESIDE=.venv/lib/python3.11/site-packages takes the dependencies from there instead of fetching 6 GB again.
dist: $(INSTALLED)
	$(BIN)/python -m pip install --quiet '.[dist]'
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	$(BIN)/python tests/release/release.py $(if $(BESIDE),--beside $(BESIDE))

test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --constraint tests/oldest.txt --editable '.[test]'
	.venv-oldest/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m "not slow"

docs: $(INSTALLED)
	$(BIN)/python -m mkdocs build --strict

notebook: $(INSTALLED)
	$(BIN)/python notebooks/refresh.py

$(INSTALLED): setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "clreplay needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) out build *.egg-info
