# One command each does all its set-up: make demo · make test · make run. Needs Python 3.11 to 3.13, make and a package index.
PYTHON ?= python3
# The address of a package index with CPU-only builds of torch; empty: the default build, which brings CUDA.
TORCH_INDEX ?=
# How many processes share the tests: three for two cores, because each waits for servers half of its time.
# Each has a Label Studio and a redis of its own.
JOBS ?= 3
VENV := .venv
LS_VENV := .venv-ls
VERSION ?= 1.18.0
DOCS_VENV := .venv-docs
UPSTREAM_VENV := .venv-upstream
LS_UPSTREAM_VENV := $(LS_VENV)-upstream
UV := $(VENV)/bin/uv
BIN := $(VENV)/bin
ARGS ?=
# pip compiles what it installs, uv only if asked. Without it each process compiles torch again where Python may not write.
export UV_COMPILE_BYTECODE := 1
# Where this variable is set, each process of the tests would compile our own modules again.
unexport PYTHONDONTWRITEBYTECODE
export LABEL_STUDIO_BIN ?= $(CURDIR)/$(LS_VENV)/bin/label-studio

.PHONY: demo run test test-fast coverage checked-with-database database pytest test-slow test-upstream test-label-studio check bench docs lock label-studio clean

demo: $(VENV)/.installed $(LS_VENV)/.installed
	$(BIN)/yolo-backend demo $(if $(DATA),--data $(DATA)) $(ARGS)

run: $(VENV)/.installed
	$(BIN)/yolo-backend run $(ARGS)

test: checked-with-database
	$(BIN)/pytest -m "not slow" --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Without servers, models, browsers and processes of ours: about a minute on two cores, which two processes keep busy.
test-fast: $(VENV)/.installed-dev
	$(BIN)/pytest -m "not (slow or label_studio or redis or torch or browser or processes)" --numprocesses 2 $(ARGS)

# mypy keeps one core busy for a while, and so do Label Studio's migrations.
checked-with-database: $(VENV)/.installed-dev $(LS_VENV)/.installed
	$(MAKE) --no-print-directory --jobs 2 check database

database: $(VENV)/.installed-dev $(LS_VENV)/.installed
	$(BIN)/python -m tests.studio_database

# The lines and branches that `make test` runs in its own processes: what runs in processes of ours alone does not count.
coverage: checked-with-database
	$(BIN)/pytest -m "not slow" --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered $(ARGS)

# The same without ruff and mypy, for a few files: make pytest ARGS="tests/cli/test_app.py"
pytest: $(VENV)/.installed-dev $(LS_VENV)/.installed
	$(BIN)/pytest $(ARGS)

test-slow: $(VENV)/.installed-dev $(LS_VENV)/.installed
	HYPOTHESIS_PROFILE=random $(BIN)/pytest -m "slow or hypothesis" $(ARGS)

# The newest releases of all that we use, in new environments each time: does the next `make lock` break something? A bound of
# pyproject.toml does not hold here, the bounds of other packages do. `.ci/run` does not run it: it fails without a change of ours.
UPSTREAM_TESTS = tests/test_contracts.py tests/labelstudio/client/test_label_studio.py tests/yolo/test_detector.py \
	tests/yolo/test_training.py tests/loop/test_loop.py
FREEZE = $(UV) pip freeze --quiet --exclude-editable --python
test-upstream: $(UV)
	rm -rf $(UPSTREAM_VENV) $(LS_UPSTREAM_VENV)
	$(PYTHON) -m venv $(UPSTREAM_VENV)
	$(PYTHON) -m venv $(LS_UPSTREAM_VENV)
	$(if $(TORCH_INDEX),$(UV) pip install --quiet --python $(UPSTREAM_VENV) --index-url $(TORCH_INDEX) torch torchvision)
	$(PYTHON) tests/upstream.py requirements | $(UV) pip install --quiet --python $(UPSTREAM_VENV) -r -
	$(UV) pip install --quiet --python $(UPSTREAM_VENV) --no-deps --editable .
	$(UV) pip install --quiet --python $(LS_UPSTREAM_VENV) label-studio
	@$(FREEZE) $(UPSTREAM_VENV) | $(PYTHON) tests/upstream.py versions requirements.lock requirements-gpu.lock requirements-dev.lock
	@echo Label Studio:
	@$(FREEZE) $(LS_UPSTREAM_VENV) | $(PYTHON) tests/upstream.py versions label-studio.lock
	LABEL_STUDIO_BIN=$(CURDIR)/$(LS_UPSTREAM_VENV)/bin/label-studio $(UPSTREAM_VENV)/bin/pytest -m "not slow" \
		$(if $(ARGS),$(ARGS),$(UPSTREAM_TESTS))

# Another version of Label Studio, as pip installs it: make test-label-studio VERSION=1.18.0
LABEL_STUDIO_TESTS = tests/labelstudio/client/test_label_studio.py tests/loop/test_loop.py tests/loop/test_project_setup.py \
	tests/browser/test_next.py
test-label-studio: $(VENV)/.installed-dev $(LS_VENV)-$(VERSION)/.installed
	LABEL_STUDIO_BIN=$(CURDIR)/$(LS_VENV)-$(VERSION)/bin/label-studio $(BIN)/pytest -m "not slow" \
		$(if $(ARGS),$(ARGS),$(LABEL_STUDIO_TESTS))

$(LS_VENV)-%/.installed: | $(UV)
	$(PYTHON) -m venv $(@D)
	$(UV) pip install --quiet --python $(@D) label-studio==$*
	touch $@

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/vulture
	$(BIN)/mypy

bench: $(VENV)/.installed-dev $(LS_VENV)/.installed
	$(BIN)/python -m tests.benchmarks $(ARGS)

# The site of docs/ in site/. A warning, such as a link without a target, is an error, and so is a page that loads something
# from another host.
docs: $(DOCS_VENV)/.installed
	$(DOCS_VENV)/bin/zensical build --clean --strict
	@! grep -rnE '<(script|img|link|iframe)[^>]*(src|href)="?(https?:)?//' site --include=*.html

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13. Fix: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet uv

# The three locks share no package: what the backend needs, torch with CUDA, and what developers need besides.
INSTALL = $(UV) pip install --quiet --python $(VENV) --no-deps
$(VENV)/.installed: requirements.lock requirements-gpu.lock requirements-build.lock pyproject.toml | $(UV)
ifeq ($(TORCH_INDEX),)
	@echo "Installing the backend into $(VENV): 7 GB, of which CUDA takes 4: some minutes, once. Without CUDA: make TORCH_INDEX=ADDRESS"
	$(INSTALL) --require-hashes -r requirements.lock -r requirements-gpu.lock
else
	@echo "Installing the backend into $(VENV), torch from $(TORCH_INDEX): some minutes, once"
	$(INSTALL) --require-hashes -r requirements.lock
	$(INSTALL) --index-url $(TORCH_INDEX) $$(grep -oE '^(torch|torchvision)==[^ ]+' requirements-gpu.lock)
endif
	$(INSTALL) --build-constraint requirements-build.lock --editable .
	touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(INSTALL) --require-hashes -r requirements-dev.lock
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

# All is resolved at once; then each lock leaves out what the ones before it have.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header
BESIDE = sed -nE 's/^([a-z0-9._-]+)==.*/--no-emit-package \1/p'
CUDA = ^(torch|torchvision|triton|cuda-.*|nvidia-(cu|cublas|cudnn|nccl|nvjitlink|nvshmem|nvtx).*)==
lock: $(UV)
	$(COMPILE) --upgrade --group dev pyproject.toml -o $(VENV)/all.lock
	rm -f requirements.lock requirements-gpu.lock requirements-dev.lock
	$(COMPILE) -c $(VENV)/all.lock $$(grep -E '$(CUDA)' $(VENV)/all.lock | $(BESIDE)) pyproject.toml -o requirements.lock
	$(COMPILE) -c $(VENV)/all.lock $$($(BESIDE) requirements.lock) pyproject.toml -o requirements-gpu.lock
	$(COMPILE) -c $(VENV)/all.lock $$($(BESIDE) requirements.lock requirements-gpu.lock) --group dev pyproject.toml -o requirements-dev.lock
	echo hatchling | $(COMPILE) --upgrade - -o requirements-build.lock
	echo label-studio==1.23.2 | $(UV) pip compile --quiet --upgrade --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header - -o label-studio.lock
	$(UV) pip compile --quiet --upgrade --group docs --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header -o docs.lock

clean:
	rm -rf $(VENV) $(LS_VENV) $(LS_VENV)-* $(DOCS_VENV) $(UPSTREAM_VENV) .cache demo-data site
