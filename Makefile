# `make demo` and `make test` set up .venv on first use; Python 3.11 or newer and make are all they need.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-long check lint types clean

demo: .venv/ready
	$(BIN)/python sims/run.py experiment=demo

# Three workers on two cores: a quarter of the time they wait for processes that they have started.
test: .venv/ready
	$(BIN)/python -m pytest -n 3 --dist loadfile

# What `make test` leaves out; before a release.
test-long: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile -m long

check: lint types

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

# torch comes first and by its exact version, so that nothing else pulls another build of it.
# TORCH_INDEX=https://download.pytorch.org/whl/cpu avoids the gigabytes of CUDA on a machine without a GPU.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "fedbrats needs Python 3.11 or newer, this is " + sys.version'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv
