# Every verb sets up what it needs: a virtual environment in .venv with pinned packages and this package.
VENV    := .venv
PYTHON  ?= python3.11
BIN     := $(VENV)/bin
# On machines where PyPI's torch is the CUDA build: make setup TORCH_OPTIONS="--index-url <PyTorch's CPU wheels>"
TORCH_OPTIONS ?=
SOURCES := $(shell find mdplugin lammps_pair validation -type f -not -name '*.pyc') pyproject.toml

.PHONY: setup demo test test-slow lint format validate clean

setup: $(VENV)/.installed

$(VENV)/.packages: .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH_OPTIONS) torch==2.13.0
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt \
	    mace-torch ase lammps mpich MDAnalysis vesin safetensors scipy matplotlib tqdm PyYAML Jinja2 pytest ruff hatchling
	touch $@

$(VENV)/.installed: $(VENV)/.packages $(SOURCES)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --force-reinstall .
	touch $@

demo: setup
	$(BIN)/python examples/demo.py --output demo

test: setup
	$(BIN)/pytest -m "not slow" --durations=10

test-slow: setup
	$(BIN)/pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

validate: setup
	$(BIN)/mdplugin export water -o water-fp32.pt --precision fp32
	$(BIN)/mdplugin validate nve --model water-fp32.pt --reference water --engine lammps --steps 2000 -o validate-nve

clean:
	rm -rf $(VENV) build dist demo validate-nve water-fp32.pt .pytest_cache .ruff_cache
