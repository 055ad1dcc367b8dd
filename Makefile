# A fresh machine needs python3.11 (or PYTHON=python3.12, python3.13) and make; everything else is installed here.
PYTHON ?= python3.11
VENV ?= .venv
GOAL ?= hold yellow sphere
# Options of pytest: tests run side by side, in as many processes as there are cores, at most four.
PYTEST ?= -n auto --maxprocesses 4 --durations 15
# Those of the tests that run whole commands, which wait a good deal.
PYTEST_RUNS ?= -n 3 --durations 15
# Much of the time of tests goes into compiling programs that run once, which these flags make several times faster.
# A flag that another version of XLA does not know ends every test at once.
COMPILE_FAST := --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true \
  --xla_cpu_use_fusion_emitters=false
# What is tested as users run it: what learns, what equals others to the last bit, and the examples.
AS_USED := tests/learning tests/golden tests/test_examples.py
# What is type-checked.
TYPED ?= src
UV ?= uv
# What is installed beside the core, so that the tests meet the real things.
EXTRAS := --extra gym --extra mujoco --extra dmc --extra minari --extra postgres --extra s3 --extra track --extra dev

# On Linux it is PyTorch's CPU build, as the usual one brings gigabytes of CUDA along. pip, and uv for `make lock`, have
# to find it: name its place by PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL (UV_FIND_LINKS or UV_EXTRA_INDEX_URL).
TORCH := 2.13.0

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
  --no-header --no-annotate --no-emit-index-url --no-emit-find-links
INSTALLED := $(VENV)/.installed
BENCH := $(VENV)/.installed-bench
TEACHERS := $(VENV)/.installed-teachers

.PHONY: install install-bench install-teachers run test test-foreign lint format lock clean

install: $(INSTALLED)

install-bench: $(BENCH)

install-teachers: $(TEACHERS)

run: install
	$(BIN)/rekindle master "$(GOAL)" --budget 2m

test: lint
	XLA_FLAGS="$(COMPILE_FAST)" $(BIN)/python -m pytest $(PYTEST) src
	XLA_FLAGS="$(COMPILE_FAST)" $(BIN)/python -m pytest $(PYTEST_RUNS) tests $(AS_USED:%=--ignore %)
	$(BIN)/python -m pytest $(PYTEST) $(AS_USED)

# Teachers by other libraries: some minutes, and PyTorch.
test-foreign: install-teachers
	$(BIN)/python -m pytest foreign_tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/pyright --pythonpath $(BIN)/python $(TYPED)
	$(BIN)/codespell

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The versions and hashes of everything that is installed; needs uv.
lock:
	$(COMPILE) --upgrade $(EXTRAS) pyproject.toml --output-file requirements.lock
	$(COMPILE) $(EXTRAS) --extra bench --constraint requirements.lock pyproject.toml \
	  --output-file requirements-bench.lock
	printf "torch==$(TORCH)%s\n" "+cpu; sys_platform == 'linux'" "; sys_platform != 'linux'" | \
	  $(COMPILE) $(EXTRAS) --extra teachers --extra foreign --constraint requirements.lock --constraint - \
	  pyproject.toml --output-file requirements-teachers.lock

clean:
	rm -rf $(VENV) dist .pytest_cache .ruff_cache .hypothesis

$(INSTALLED): requirements.lock pyproject.toml | $(BIN)/pip
	$(PIP) install --require-hashes --requirement requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

$(BENCH): requirements-bench.lock $(INSTALLED)
	$(PIP) install --require-hashes --requirement requirements-bench.lock
	touch $@

$(TEACHERS): requirements-teachers.lock $(INSTALLED)
	$(PIP) install --require-hashes --requirement requirements-teachers.lock
	touch $@

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)
