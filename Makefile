# Everything runs in .venv, made by these targets from a clean clone with only python3 and make.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test check install clean

demo: .venv/done  ## the main job: three arms on a tiny model, a table at the end (GSM8K=FILE.jsonl for its second part)
	$(BIN)/python -m gsi.lab.demo $(if $(GSM8K),--gsm8k $(GSM8K))

test: .venv/dev
	$(BIN)/python -m pytest

check: .venv/dev  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: .venv/done

# torch first and exactly: a looser version would bring several GB of CUDA packages on a machine without a GPU
.venv/done: pyproject.toml constraints.txt
	@echo "installing into .venv (once; a minute or two)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/dev: .venv/done
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
