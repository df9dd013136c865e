# Every verb sets up what it needs: a virtual environment in .venv with pinned packages and this package.
VENV    := .venv
PYTHON  ?= python3.11
BIN     := $(VENV)/bin
# On machines where PyPI's torch is the CUDA build: make setup TORCH_OPTIONS="--index-url <PyTorch's CPU wheels>"
TORCH_OPTIONS ?=
SOURCES := $(shell find mdplugin lammps_pair validation -type f -not -name '*.pyc') pyproject.toml

BENCH   := docs/benchmarks
PUBLISH  = $(BIN)/python -P -m mdplugin.bench.publish $(BENCH) README.md docs/performance.md docs/precision.md

.PHONY: setup demo test test-slow lint format bench bench-policies bench-large policies engines screenshot tables numerics validate clean

setup: $(VENV)/.installed

$(VENV)/.packages: .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH_OPTIONS) torch==2.13.0
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt \
	    mace-torch ase lammps mpich MDAnalysis vesin safetensors scipy matplotlib tqdm PyYAML Jinja2 pytest pytest-xdist ruff hatchling
	touch $@

$(VENV)/.installed: $(VENV)/.packages $(SOURCES)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --force-reinstall .
	touch $@

demo: setup
	$(BIN)/python examples/demo.py --output demo

# one process a core, each with one thread
test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" -n $$(nproc) --dist loadfile --no-loadscope-reorder --durations=10

test-slow: setup
	$(BIN)/pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Ten minutes on two cores that nobody else uses; the tables of README.md and docs/performance.md come from these files.
bench: setup
	mkdir -p $(BENCH)
	$(BIN)/mdplugin bench --size small,medium --precision fp32,fp64 --against mace-torch --json $(BENCH)/networks.json
	$(BIN)/mdplugin bench --size small --system cluster --atoms 27 --against mace-torch --json $(BENCH)/molecule.json
	$(BIN)/mdplugin bench --size medium --atoms 648 --threads 1,2 --allocator tuned --json $(BENCH)/threads.json
	$(BIN)/mdplugin bench --size medium --atoms 1536 --allocator tuned --lammps --ranks 1,2 --json $(BENCH)/lammps.json
	$(MAKE) bench-policies

# Low precision beside fp32: the table of docs/precision.md.
bench-policies: setup
	mkdir -p $(BENCH)
	$(BIN)/mdplugin bench --size medium --precision fp32,w16,w8,w8a16,w8a8,bf16,fp16 --against mace-torch --rounds 15 \
	    --allocator tuned --json $(BENCH)/policies.json
	$(PUBLISH)

# Every policy on water and 3BPA: errors, noise, dynamics, verdicts; fills docs/precision.md and docs/validation.md.
# Hours; resumes. Timings need a machine that does nothing else.
policies: setup
	$(BIN)/python examples/policy_tables.py --output policies --write docs
	$(BIN)/python examples/policy_tables.py --output policies --potentials water --cases water-192-nve \
	    --policies w8a16-calibrated w8-calibrated w8a8-calibrated --write docs

# LAMMPS against ASE, every observable of all ensembles: the table of docs/validation.md. Half an hour on two cores; resumes.
engines: setup
	$(BIN)/python examples/engine_agreement.py --output engines --write docs

# The picture of a report in README.md; needs chromium (apt-get install chromium).
screenshot:
	chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1280,1400 \
	    --screenshot=docs/figures/report.png file://$(CURDIR)/docs/policies/water-192-nve.html

# The rows that take long: boxes of up to 100,000 atoms, and the other sizes beside mace-torch.
# Memory is measured with the stock allocator: the tuned one keeps what was freed.
bench-large: setup
	mkdir -p $(BENCH)
	$(BIN)/mdplugin bench --size medium --atoms 1002,9999,100002 --rounds 5 --allocator tuned --json $(BENCH)/scale.json
	$(BIN)/mdplugin bench --size medium --atoms 9999,100002 --rounds 1 --allocator stock --json $(BENCH)/memory.json
	$(BIN)/mdplugin bench --size tiny,large --against mace-torch --rounds 5 --allocator tuned --json $(BENCH)/sizes.json
	$(PUBLISH)

# The tables again, from the results as they are.
tables: setup
	$(PUBLISH)

# Figures and tables of docs/numerics.md; two minutes on one core.
numerics: setup
	$(BIN)/mdplugin numerics water -o docs/figures

# all four ensembles of the bundled water in fp32: 10 min 7 s on two cores of an EPYC Zen 4; resumes
validate: setup
	$(BIN)/mdplugin export water -o water-fp32.pt --precision fp32
	$(BIN)/mdplugin validate all --model water-fp32.pt --reference water -o validate-all

clean:
	rm -rf $(VENV) build dist demo policies engines validate-all water-*.pt .pytest_cache .ruff_cache
