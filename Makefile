# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
# Extra pip arguments for the torch install only, e.g. an index that serves CPU-only builds.
TORCH_PIP_ARGS ?=
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM ?= false

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench claims readme docs clean

demo: $(READY)  ## real MovieLens, a real language model, a trained verbalizer, a report (about 20 minutes)
	$(BIN)/verbalize data fetch movielens-100k smollm2-135m
	$(BIN)/verbalize run experiments/demo.yaml

test: $(READY)  ## linters, types, unit and integration tests, claims
	$(MAKE) lint
	$(BIN)/verbalize data fetch movielens-100k smollm2-135m minilm
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile \
	  --cov --cov-report=term:skip-covered $(PYTEST_ARGS)
	$(MAKE) claims

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## side-by-side benchmarks; writes experiments/results
	for name in packed_scoring cpu_threads cpu_dtype cpu_lengths log_pipeline logs_at_scale append_vs_rebuild \
	  experience_retrieval experience_admission sweep_tpe_vs_random sweep_shared_artefacts reader_headroom \
	  rollouts_parallel episode_turns grpo_step; do \
	  $(BIN)/python experiments/benchmarks/$$name.py || exit 1; done

claims: $(READY)  ## recompute every recorded claim from its artefact and check the numbers in the documents
	$(BIN)/verbalize claims verify

readme: $(READY)  ## write the recorded numbers into README and docs
	$(BIN)/verbalize claims readme

docs: $(READY)  ## the API reference from the docstrings, into build/docs
	$(BIN)/pdoc --docformat markdown --output-directory build/docs recsys verbalize

# torch first, alone: otherwise another package's looser range may bring a different build.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "verbalize needs Python 3.11 or newer; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH_PIP_ARGS) torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,dev,postgres]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
