# `make train` and `make test` need a Python >= 3.11 and nothing else.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
RUN_DIR ?= runs/dsprites
SWEEP_DIR ?= sweeps/dsprites
WORKERS ?= 2
# dev,export has PyTorch and ONNX as well, which some tests want and skip without: on Linux they are large.
EXTRAS ?= dev
# What pytest runs: files by their names without test_, all if empty; a marker's expression.
FILES ?=
MARKED ?=
# Tests are mostly compiling, which takes half of the time without optimization and with the older
# emitters of loops, which JAX 0.12 does not have any more.
QUICK = --xla_backend_optimization_level=0
XLA ?= $(QUICK) --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1
# Not compiled: Python compiles what it imports, when it does, and keeps that even where it is told
# not to, as in many containers: else each process takes 4 seconds more to start.
export PYTHONDONTWRITEBYTECODE =
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile
# The newest Python that runs here, for test-newest.
NEWEST = $(firstword $(foreach v,3.14 3.13 3.12,$(shell \
	for p in python$(v) $$HOME/.pyenv/versions/$(v).*/bin/python; do \
	$$p -c 'import venv, ssl' 2>/dev/null && echo $$p && break; done)) $(PYTHON))

.PHONY: train sweep notebooks benchmark test images test-oldest setup-oldest test-newest setup-newest lint format docs clean

# dSprites upright, and y over half of its range: 9,216 images, from which a few minutes are enough.
EASY = --preset laptop --only orientation=0,y=8:24

# Trains a beta-TCVAE on easy dSprites; goes on with the run if it is there already. For one run it is
# not worth while to render all of dSprites first.
train: $(VENV)/.run
	$(VENV)/bin/bvae train --run-dir $(RUN_DIR) $(EASY) --image-source rendered $(if $(wildcard $(RUN_DIR)/config.json),--resume)

# A small sweep, its table, figures and report; goes on with it if it is there already.
sweep: $(VENV)/.run
	JAX_NUM_CPU_DEVICES=$(WORKERS) $(VENV)/bin/bvae sweep --sweep-dir $(SWEEP_DIR) $(EASY) --betas 1 5 15 --seeds 3 --eval-every 500
	$(VENV)/bin/bvae compare $(SWEEP_DIR) --num-points 9000 --statistic mig

# Runs the notebooks from top to bottom and keeps their outputs, at the size of this machine.
notebooks: $(VENV)/.dev
	$(VENV)/bin/python notebooks/execute.py notebooks/*.ipynb

# Measures how fast it is here; ARGS are flags, see benchmarks/README.md.
benchmark: $(VENV)/.run
	$(VENV)/bin/python -m benchmarks $(ARGS)

test: images
	XLA_FLAGS="$(XLA)" $(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "$(MARKED)" \
		$(if $(FILES),$(patsubst %,tests/test_%.py,$(FILES)))

# With optimization, before the tests without want them.
images: $(VENV)/.dev
	BVAE_CACHE_DIR=.cache/data $(VENV)/bin/bvae data prepare dsprites --quiet

# What another JAX may change: products and gradients, sharding, Orbax. What other packages may change.
# The longest first, so that no worker is left with them.
OF_JAX = sweep train checkpoint devices conv
OF_PACKAGES = plots feed statistics tables metric_values tfds loggers
ON_OLDEST = VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt MARKED="not once" EXTRAS=data,metrics,test
ON_NEWEST = VENV=.venv-newest CONSTRAINTS=/dev/null PYTHON=$(NEWEST) MARKED="not once" EXTRAS=test

test-oldest:
	$(MAKE) test FILES="$(OF_JAX) $(OF_PACKAGES)" $(ON_OLDEST)

setup-oldest:
	$(MAKE) .venv-oldest/.dev $(ON_OLDEST)

test-newest:
	$(MAKE) test FILES="$(OF_JAX)" XLA="$(QUICK)" $(ON_NEWEST)

setup-newest:
	$(MAKE) .venv-newest/.dev $(ON_NEWEST)

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

format: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The guide's generated tables, then the site: HTML in site/. Needs no network once installed.
# Fixes of this theme end in May 2027; its successor, Zensical, builds the same mkdocs.yml.
docs: $(VENV)/.docs
	$(VENV)/bin/python docs/guide_tables.py
	$(VENV)/bin/python docs/site_pages.py .cache/pages
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

clean:
	rm -rf .venv .venv-oldest .venv-newest .cache site

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11: call make with PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml $(filter-out /dev/null,$(CONSTRAINTS))
	$(PIP) -c $(CONSTRAINTS) -e .
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml $(filter-out /dev/null,$(CONSTRAINTS))
	$(PIP) -c $(CONSTRAINTS) -e '.[$(EXTRAS)]'
	touch $@ $(VENV)/.run

$(VENV)/.docs: $(VENV)/bin/python pyproject.toml $(filter-out /dev/null,$(CONSTRAINTS))
	$(PIP) -c $(CONSTRAINTS) -e '.[docs]'
	touch $@ $(VENV)/.run
