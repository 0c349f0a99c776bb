# `make help` tells what there is.
SHELL := /bin/bash
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3))
VENV ?= .venv
export PATH := $(abspath $(VENV))/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DVC_NO_ANALYTICS := 1
# uv does not read pip's settings: a mirror that the user has chosen for pip is for it, too, and so are the system's
# certificates, which a company's proxy has added its own to.
export UV_SYSTEM_CERTS ?= 1
INDEX = $(or $(PIP_INDEX_URL),$(shell python -m pip config get global.index-url 2>/dev/null))

# PyTorch without CUDA is a fourteenth of the download: it is for machines without NVIDIA's driver (under WSL, that of
# Windows), unless TORCH=cuda or TORCH=cpu is given.
ifndef TORCH
TORCH := $(if $(wildcard /proc/driver/nvidia/version /usr/lib/wsl/lib/libcuda.so.1),cuda,cpu)
TORCH_CHOSEN_HERE := yes
endif
ifeq ($(filter cpu cuda,$(TORCH)),)
$(error TORCH is cpu or cuda, not $(TORCH))
endif

EXTRAS := $(addprefix extra-,serve wandb s3 ssh gguf kiwi konlpy similarity)

# What a download comes to at most, in MB.
MB = $(shell awk '$$1 == "$(1)" { print $$2 }' requirements/sizes.txt)

# Where it is set, each start compiles all of its libraries anew: 17 s of CPU, not 7, for what a training imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup dev to-download other-torch weights llama-cpp repro competition final report docs test lint lock audit clean

# A line for each file, with its size, and no bar: a log is no terminal.
define download
@echo "downloading the $$(grep -c == $(1)) packages of $(1) into .cache/packages"
@mkdir -p .cache/packages
@set -o pipefail; python -m pip download --progress-bar off --require-hashes --no-deps --only-binary :all: \
  --dest .cache/packages -r $(1) | { grep --line-buffered -oE '(Downloading|Using cached|File was already) .*' || true; }
endef

help:  ## this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/ready  ## .venv with what the pipeline needs, from requirements/pipeline.txt [TORCH=cpu|cuda]

$(EXTRAS): extra-%: setup
	uv pip install --quiet $(addprefix --default-index ,$(INDEX)) --python $(VENV) --constraint requirements/lock.txt \
	  --no-build-isolation-package yoyak --editable '.[$*]'

extra-%:  ## an extra of pyproject.toml as well: serve, wandb, s3, ssh, gguf, kiwi, konlpy, similarity
	@echo "error: no extra $*: make $(EXTRAS)"; exit 1

dev: $(VENV)/dev  ## what tests, lint and docs need as well, with all extras, from requirements/lock.txt

repro: to-download setup weights  ## run the pipeline, then print the leaderboard
	@python -m yoyak.core.cut_off
	dvc repro
	@yoyak leaderboard

# Before the first download, all of them.
to-download:
	@$(MAKE) --no-print-directory --question $(VENV)/ready || { \
	  echo "to download at most: $(call MB,pipeline) MB, the packages of requirements/pipeline.txt"; \
	  [[ -e $(VENV)/torch-$(TORCH) ]] || echo "to download at most: $(call MB,torch-$(TORCH)) MB, PyTorch for $(TORCH)"; }
	@[[ .cache/packages/ready -nt requirements/gemma3-270m.txt ]] || \
	  echo "to download at most: $(call MB,gemma3-270m) MB, the weights of gemma3_270m"

report: setup  ## report.html: the last run, every dev dialogue and all summaries, to look through in a browser
	@yoyak report

docs: dev  ## the site of docs/: site/index.html
	python docs/generate/parameters.py
	python docs/generate/families.py
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

# What a GPU computes differs in its last digits: it has tests of its own.
test: dev .cache/mecab-ko/ready .cache/triton/ready .cache/ray/ready .cache/optuna/ready .cache/llama-cpp/ready .cache/seaweedfs/ready  ## style, types, imports, then the tests
	@$(MAKE) --no-print-directory lint
	CUDA_VISIBLE_DEVICES= pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --ignore tests/gpu
	TRITON_INTERPRET=1 PYTHONPATH=.cache/triton pytest tests/interpreted
	pytest tests/gpu

lint: dev  ## style, types, imports, and the files that other programs read: of CI, issues, hooks, citation, container
	ruff check .
	ruff format --check .
	mypy
	PYTHONPATH=src lint-imports
	check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml
	check-jsonschema --quiet --builtin-schema vendor.citation-file-format CITATION.cff
	pre-commit validate-config
	zizmor --offline --quiet .github
	hadolint Dockerfile

weights: .cache/packages/ready  ## download the default model's weights as data (not installed, not imported)

weights-%: setup  ## those of requirements/%.txt: qwen25-coder-05b, qwen25-coder-15b
	$(call download,requirements/$*.txt)

competition: setup  ## train, tune, ensemble, summarise a CSV: DATA=folder [HOURS= MODELS= PLAN=1], sweeps/README.md
	@test -n "$(DATA)" || { echo "error: make competition DATA=folder, which has train.csv, dev.csv and test.csv"; exit 1; }
	python -m yoyak.sweeps competition "$(DATA)" $(if $(PREDICT),--predict "$(PREDICT)") \
	  $(if $(MODELS),--models "$(MODELS)") $(if $(TUNE),--tune "$(TUNE)") $(if $(HOURS),--hours $(HOURS)) $(if $(PLAN),--plan) \
	  $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(GPUS),--gpus $(GPUS)) $(if $(PER_GPU),--per-gpu $(PER_GPU))

final:
	$(error make final is now: make competition DATA=folder)

# Not after `dev`, which would miss what pyproject.toml has and the lock has not yet.
lock:  ## resolve requirements/{lock,pipeline}.txt anew from pyproject.toml (uv is in .venv after `make setup`)
	uv pip compile pyproject.toml --extra dev $(COMPILED) --output-file requirements/lock.txt
	uv pip compile pyproject.toml --extra pipeline $(COMPILED) --no-annotate --constraint requirements/lock.txt \
	  --output-file requirements/pipeline.txt
	python requirements/sizes.py

COMPILED = --universal --python-version 3.11 --generate-hashes --quiet --constraint requirements/torch.txt \
  --no-emit-package torch --custom-compile-command "make lock"

# --strict: an index without PyPI's list of vulnerabilities must not pass for packages without any.
audit: .cache/audit/ready  ## ask PyPI for known vulnerabilities of the locked packages
	@.cache/audit/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off \
	  $(foreach file,lock uv torch mecab-ko triton ray optuna llama-cpp seaweedfs audit,-r requirements/$(file).txt) 2>.cache/audit/log || \
	  { tail -n 1 .cache/audit/log >&2; echo "error: the packages are not known to be sound" >&2; exit 1; }

clean:  ## remove the environment, the scratch and the downloads; DVC's cache stays
	rm -rf $(VENV) .cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else f"error: Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11 ...")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "error: no venv for $(PYTHON): apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready: requirements/pipeline.txt requirements/torch.txt requirements/torch-cpu.txt requirements/uv.txt pyproject.toml | $(VENV)/bin/python
$(VENV)/ready: $(if $(wildcard $(VENV)/torch-$(TORCH)),,other-torch)
	@echo "installing the locked packages into $(VENV): $(call MB,pipeline) MB to download"
	python -m pip install --quiet --require-hashes --no-deps -r requirements/uv.txt
	uv pip install --quiet $(addprefix --default-index ,$(INDEX)) --python $(VENV) --require-hashes --no-deps -r requirements/pipeline.txt
	@$(MAKE) --no-print-directory install-torch-$(TORCH)
	rm -f $(VENV)/torch-cpu $(VENV)/torch-cuda && touch $(VENV)/torch-$(TORCH)
	python -m pip install --quiet --no-deps --no-build-isolation --editable .
	python -m pip check
	touch $@

# A build that was chosen here and is not to be had gives way to PyPI's: an index of packages may be all that is reached.
install-torch-cpu:
	@echo "installing PyTorch without CUDA: $(call MB,torch-cpu) MB to download"
	@python -m pip install --quiet --no-compile --no-deps --retries 2 -r requirements/torch-cpu.txt || \
	  if [[ "$(TORCH_CHOSEN_HERE)" ]]; then \
	    echo "note: PyTorch without CUDA is not to be had here; with CUDA it will do, too"; \
	    $(MAKE) --no-print-directory install-torch-cuda; \
	  else echo "error: no PyTorch without CUDA; make setup TORCH=cuda takes PyPI's, $(call MB,torch-cuda) MB"; exit 1; fi

# pip takes the build without CUDA for the version that is asked for.
install-torch-cuda:
	@[[ ! -e $(VENV)/torch-cpu ]] || python -m pip uninstall --quiet --yes torch
	@echo "installing PyTorch: $(call MB,torch-cuda) MB to download"
	python -m pip install --quiet --no-compile -r requirements/torch.txt

$(VENV)/dev: requirements/lock.txt $(VENV)/ready
	@echo "installing what tests and docs need as well into $(VENV): $(call MB,dev) MB to download"
	uv pip install --quiet $(addprefix --default-index ,$(INDEX)) --python $(VENV) --require-hashes --no-deps -r requirements/lock.txt
	python -m pip check
	touch $@

.cache/mecab-ko/ready: requirements/mecab-ko.txt | setup
	python -m pip install --quiet --require-hashes --no-deps --target $(@D) --upgrade -r $<
	touch $@

.cache/triton/ready: requirements/triton.txt | setup
	python -m pip install --quiet --require-hashes --no-deps --target $(@D) --upgrade -r $<
	touch $@

.cache/ray/ready: requirements/ray.txt | setup
	python -m pip install --quiet --require-hashes --no-deps --target $(@D) --upgrade -r $<
	touch $@

.cache/optuna/ready: requirements/optuna.txt | setup
	python -m pip install --quiet --require-hashes --no-deps --target $(@D) --upgrade -r $<
	touch $@

llama-cpp: .cache/llama-cpp/ready  ## llama.cpp's converter, for yoyak export --to gguf; nothing is compiled

# Of a package's source archive, which pip asks for its name on the way, and no more.
.cache/llama-cpp/ready: requirements/llama-cpp.txt | setup
	@mkdir -p $(@D)
	python -m pip download --quiet --require-hashes --no-deps --no-binary llama-cpp-python --dest $(@D) -r $<
	tar --extract --gzip --file $(@D)/llama_cpp_python-*.tar.gz --directory $(@D) --strip-components 3 --wildcards \
	  '*/vendor/llama.cpp/'{LICENSE,convert_hf_to_gguf.py,'conversion/*','gguf-py/gguf/*'}
	rm $(@D)/llama_cpp_python-*.tar.gz
	touch $@

.cache/seaweedfs/ready: requirements/seaweedfs.txt | setup
	python -m pip install --quiet --require-hashes --no-deps --target $(@D) --upgrade -r $<
	touch $@

.cache/audit/ready: requirements/audit.txt | setup
	uv venv --quiet --allow-existing --python $(VENV) $(@D)
	uv pip install --quiet $(addprefix --default-index ,$(INDEX)) --python $(@D) --require-hashes --no-deps -r $<
	touch $@

.cache/packages/ready: requirements/gemma3-270m.txt | $(VENV)/bin/python
	$(call download,$<)
	touch $@
