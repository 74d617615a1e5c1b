# `make run` and `make test` do all their own set-up; a stamp file makes the second time quick.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SETUP  := $(BIN)/.core
TOOLS  := $(BIN)/.tools
# The sums of all that the tests were run on, kept when they have passed: on the same they need not be run again.
TESTED := $(BIN)/.tested
SUMS   := find drkun_tui tests benchmarks scripts docs models/starter pyproject.toml $(TOOLS) -type f \
	! -name '*.pyc' -exec cksum {} + | sort

# These start trainers, exports and evaluations, wait for them for minutes, and know nothing of each other nor
# of the other tests. The jobs that are started have this niceness: at the same one, no test starves another's.
EXPORTING := $(addprefix tests/test_,export.py exporting.py importance.py publishing.py evaluation.py loop.py)
TRAINING  := $(wildcard tests/test_training*.py tests/test_transformers*.py)
LANES     := test-core test-exporting test-training

.PHONY: run test test-long $(LANES) check demo-train format bench picture clean

run: $(SETUP)
	@$(BIN)/drkun

test: $(TOOLS)
	@rm -f $(TESTED)
	@$(SUMS) > $(TESTED).part
	$(BIN)/coverage erase
	@nice -n 10 $(MAKE) --no-print-directory -j3 $(LANES)
	$(BIN)/coverage combine -q
	@mv $(TESTED).part $(TESTED)

test-core:
	$(BIN)/coverage run -m pytest $(addprefix --ignore=,$(EXPORTING) $(TRAINING))

# What they say is shown when they end, while that of the core is seen at once. 5 is pytest's word for "no tests",
# where there is no torch.
test-exporting test-training:
	@$(BIN)/coverage run -m pytest $(if $(filter %training,$@),$(TRAINING),$(EXPORTING)) > $(BIN)/.$@ 2>&1; \
	ended=$$?; echo; echo "$@"; cat $(BIN)/.$@; [ $$ended -eq 0 ] || [ $$ended -eq 5 ]

# What `make test` leaves out: it takes minutes, and looks at what other tests look at more briefly.
test-long: $(TOOLS)
	$(BIN)/python -m pytest -m long

check: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(SUMS) | cmp -s - $(TESTED) || $(MAKE) --no-print-directory test
	$(BIN)/coverage report

NEWEST = $(BIN)/drkun runs --json | $(BIN)/python -c 'import json, sys; print(json.load(sys.stdin)["runs"][0]["adapter"])'

# The whole loop on two cores: train the bundled model, then ask it.
demo-train: $(TOOLS)
	$(BIN)/python scripts/train_sft.py starter-cpu
	$(BIN)/drkun ask --model drkun/starter-bf16 --adapter "$$($(NEWEST))" "最近总是头晕，应该怎么办？"

format: $(TOOLS)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(TOOLS)
	$(BIN)/python -m benchmarks

picture: $(SETUP)
	$(BIN)/python scripts/picture.py
	$(BIN)/python scripts/picture_models.py
	$(BIN)/python scripts/picture_training.py
	$(BIN)/python scripts/picture_compare.py
	$(BIN)/python scripts/picture_evaluation.py

# `--without-pip` and `pip --python` also work where the system's Python has no ensurepip.
$(BIN)/python:
	$(PYTHON) -m venv --without-pip $(VENV)

$(SETUP): pyproject.toml | $(BIN)/python
	@echo "Setting up: the first time compiles llama.cpp, about five minutes on two cores."
	$(PYTHON) -m pip --python $(BIN)/python install --quiet -e .
	@touch $@

# The GPU engine and training are tested on the CPU, too, where a CPU build of torch can be had; nothing brings CUDA.
$(TOOLS): $(SETUP)
	@if $(PYTHON) -m pip --python $(BIN)/python install --quiet "torch==2.13.0+cpu"; then \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet -e ".[dev,train,eval,export]"; \
	else \
		echo "No CPU build of torch is at hand: the tests of the GPU engine and of training are skipped."; \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet -e ".[dev,data,eval]"; \
	fi
	@touch $@

clean:
	rm -rf $(VENV) .bench .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
