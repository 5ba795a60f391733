# One command each does all its set-up: make demo · make test · make run. Needs python3.11, make and a package index.
PYTHON ?= python3
VENV := .venv
LS_VENV := .venv-ls
DOCS_VENV := .venv-docs
UV := $(VENV)/bin/uv
BIN := $(VENV)/bin
ARGS ?=
export LABEL_STUDIO_BIN ?= $(CURDIR)/$(LS_VENV)/bin/label-studio

.PHONY: demo run test pytest test-slow check bench docs lock label-studio clean

demo: $(VENV)/.installed $(LS_VENV)/.installed
	$(BIN)/yolo-backend demo $(if $(DATA),--data $(DATA)) $(ARGS)

run: $(VENV)/.installed
	$(BIN)/yolo-backend run $(ARGS)

test: check $(LS_VENV)/.installed
	$(BIN)/pytest -m "not slow" $(ARGS)

# The same without ruff and mypy, for a few files: make pytest ARGS="tests/cli/test_app.py"
pytest: $(VENV)/.installed $(LS_VENV)/.installed
	$(BIN)/pytest $(ARGS)

test-slow: $(VENV)/.installed $(LS_VENV)/.installed
	$(BIN)/pytest -m slow $(ARGS)

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.installed $(LS_VENV)/.installed
	$(BIN)/python -m tests.benchmarks $(ARGS)

# The site of docs/ in site/. A warning, such as a link without a target, is an error.
docs: $(DOCS_VENV)/.installed
	$(DOCS_VENV)/bin/zensical build --clean --strict

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11. Fix: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet uv

$(VENV)/.installed: requirements.lock pyproject.toml | $(UV)
	@echo "Installing the backend into $(VENV): some minutes, once"
	$(UV) pip install --quiet --python $(VENV) --no-deps --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(VENV) --no-deps --editable .
	touch $@

# Label Studio has dependencies that contradict ours, so it lives in an environment of its own.
$(LS_VENV)/.installed: label-studio.lock | $(UV)
	@echo "Installing Label Studio into $(LS_VENV): some minutes, once"
	$(PYTHON) -m venv $(LS_VENV)
	$(UV) pip install --quiet --python $(LS_VENV) --no-deps --require-hashes -r label-studio.lock
	touch $@

$(DOCS_VENV)/.installed: docs.lock | $(UV)
	$(PYTHON) -m venv $(DOCS_VENV)
	$(UV) pip install --quiet --python $(DOCS_VENV) --no-deps --require-hashes -r docs.lock
	touch $@

label-studio: $(LS_VENV)/.installed

lock: $(UV)
	$(UV) pip compile --quiet --upgrade --group dev --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header pyproject.toml -o requirements.lock
	echo label-studio==1.23.2 | $(UV) pip compile --quiet --upgrade --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header - -o label-studio.lock
	$(UV) pip compile --quiet --upgrade --group docs --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header -o docs.lock

clean:
	rm -rf $(VENV) $(LS_VENV) $(DOCS_VENV) demo-data site
