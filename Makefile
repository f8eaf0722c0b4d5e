PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Tests in so many processes at once; each takes up to 1 GB.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# What `make quick` leaves out: tests that start the command again and again, and whole trainings.
THOROUGH := $(wildcard tests/faults/test_*.py) $(addprefix tests/,$(addsuffix .py, \
    test_adding_a_model test_docs test_doctor cli/test_main cli/test_bench bench/test_memory bench/test_quality bench/test_speed \
    batch/test_processes batch/test_ray streaming/test_recording streaming/test_stages runtime/test_memory \
    checkpoints/test_bundled_quality models/test_fused \
    train/test_batch_size train/test_config train/test_joint train/test_kit train/test_ranks train/test_run train/test_session))
THOROUGH += tests/docs/test_commands.py
THOROUGH += $(addprefix tests/,$(addsuffix .py, \
    test_fork_server audio/decoders/test_detect audio/encoders/test_remux models/test_audiosr train/test_valid_sets \
    bench/test_processes cli/test_run_batch cli/test_videos train/test_heads train/test_pack train/test_resuming \
    train/test_stepping))

.PHONY: demo test test-all test-isa quick lint docs reference setup clean

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev
	$(PYTEST)

# With a new process for every command that a test starts, where `make test` forks one that has imported torch.
test-all: $(VENV)/.dev
	AUDIOSR_TEST_FORK=0 $(PYTEST) -m ''

# The suite under several instruction sets, with one thread and with two.
test-isa: $(VENV)/.dev
	$(BIN)/python tools/instruction_sets.py -- -n $(WORKERS) --dist worksteal

quick: $(VENV)/.dev
	$(PYTEST) $(addprefix --ignore=,$(THOROUGH))

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/python tools/docs_reference.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site

reference: $(VENV)/.installed
	$(BIN)/python tools/docs_reference.py

setup: $(VENV)/.dev

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "audiosr needs Python 3.11 or newer; call make with PYTHON=python3.12, say")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/.installed

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build demo_out
