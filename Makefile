# Everything needs only Python 3.11+ and make. The environment is built once and again when its inputs change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out/demo
# Bytecode is left to the first import, which needs a tenth of the 22,000 files: half of the installation's time otherwise.
PIP := --quiet --disable-pip-version-check --no-compile -c constraints.txt
INPUTS := pyproject.toml constraints.txt hatch_build.py

.PHONY: demo test train score lint bench docs pictures dist clean

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "promptweave needs Python 3.11 or later; set PYTHON=python3.11, say.")'
	@echo "Making a virtual environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

# torch comes first and pinned: left to itself, an unpinned torch pulls gigabytes of CUDA packages.
$(VENV)/.apps: $(INPUTS) | $(VENV)/bin/python
	@echo "Installing PyTorch into $(VENV), once: a few hundred megabytes, some minutes ..."
	@$(BIN)/python -m pip install $(PIP) torch
	@echo "Installing promptweave with its command line and web page (diffusers, transformers, gradio ...) ..."
	@$(BIN)/python -m pip install $(PIP) -e '.[apps]'
	@echo "Installed."
	@touch $@

$(VENV)/.dev: $(VENV)/.apps
	$(BIN)/python -m pip install $(PIP) -e '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(BIN)/python -m pip install $(PIP) -e '.[docs]'
	touch $@

demo: $(VENV)/.apps
	@echo "Editing an image with the embedded model (no download, about half a minute on two cores); the results go to $(OUT) ..."
	$(BIN)/promptweave edit "a photo of a cat riding a bike" "a photo of a cat riding a car" --compare --force -o $(OUT)

# Two workers of one thread each: two threads each would wait for one another on two cores, and take a quarter more of both.
test: $(VENV)/.dev
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist worksteal

train: $(VENV)/.dev
	OMP_WAIT_POLICY=passive $(BIN)/promptweave train $(ARGS)

bench: $(VENV)/.dev
	OMP_WAIT_POLICY=passive $(BIN)/promptweave bench edits
	OMP_WAIT_POLICY=passive $(BIN)/promptweave bench speed

# The documentation as a site; a link that leads nowhere is an error.
docs: $(VENV)/.docs
	$(BIN)/python docs/site/make_site.py out/site

# All pictures and figures of the documentation; ARGS="demo hat" names some of them.
pictures: $(VENV)/.dev
	OMP_WAIT_POLICY=passive $(BIN)/python docs/pictures/make.py $(ARGS)

# Wheel and sdist. With REPOSITORY=https://... links and images of the description work on a package index.
dist: $(VENV)/.dev
	PROMPTWEAVE_REPOSITORY=$(REPOSITORY) $(BIN)/python -m hatchling build -d dist

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

clean:
	rm -rf $(VENV) out build dist
