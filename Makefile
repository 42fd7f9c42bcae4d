# Everything below makes its own environment in .venv on first use. Needs Python 3.11+ and a C++ compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
SOURCES := CMakeLists.txt pyproject.toml $(wildcard cmake/*) $(shell find csrc -type f)
SEARCH ?= --budget 60
TESTS ?= tests
JOBS ?= auto
IMAGES ?= digits
SECONDS ?= 60
LOCK ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Without kept bytecode each process compiles pynas anew, and pytest rewrites all assertions.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help build search test quick browser bench results lint format sanitize fuzz evidence reliability models gpu-core lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(STAMPS)/environment: constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "pynas needs Python 3.11 or later: install it or run make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "pynas needs Python 3.11 or later, found $$($(PYTHON) --version): run make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(LOCK),$(BIN)/pip install -q --require-hashes --no-deps -r $(LOCK))
	$(BIN)/pip install -q -c constraints.txt pip "$$(grep '^torch==' constraints.txt)" scikit-build-core pybind11 ninja cmake
	@mkdir -p $(STAMPS) && touch $@

# An incremental build: ninja compiles what changed, the Python files are used in place.
$(STAMPS)/build: $(STAMPS)/environment $(SOURCES)
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[dev,tables]'
	@touch $@

build: $(STAMPS)/build  ## compile and install into .venv

search: build  ## search NAS-Bench-201 without training and write report.html
	$(BIN)/pynas search --space nasbench201 --strategy evolution --images digits --table analog --report report.html $(SEARCH)

test: build  ## run the tests, a process for each core; JOBS=0 for one after another
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(TESTS)

quick: build  ## the tests between two edits: without those that take seconds or start processes
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder -q -m "not slow" $(TESTS)

browser: build  ## the tests of the steering page in Chromium, which are skipped where there is none
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder -rs $(wildcard tests/steer/test_page_*.py)

bench: build  ## run the benchmarks
	$(BIN)/python -m pytest benches --benchmark-enable --benchmark-only --benchmark-group-by=group --benchmark-columns=median,iqr,rounds

# Minutes, not seconds: rank correlations, and whole networks and searches against what they replace. IMAGES takes what
# pynas takes, such as cifar10:DIR; RECORD=FILE keeps the figures, a JSON line each.
evidence: build  ## the slow measurements behind the documentation
	$(BIN)/pynas rank --proxies zico,zico_per_sample,snip,grad_norm,grad_sign,params,flops --sample 300 --table analog --images $(IMAGES) --report ranking.html
	PYNAS_FUZZ_STEPS=100000 PYNAS_FUZZ_TEXTS=2000 PYNAS_FUZZ_NETWORKS=10 $(BIN)/python -m pytest tests/spaces/test_fuzz.py
	PYNAS_STEER_ACTIONS=10000 $(BIN)/python -m pytest -s tests/steer/test_fuzz.py
	PYNAS_DAMAGE_PLACES=2000 $(BIN)/python -m pytest tests/test_damaged_files.py
	PYNAS_SWEEP_SHAPES=20000 $(BIN)/python -m pytest tests/reliability
	PYNAS_LONG=1 PYNAS_FUZZ_CALLS=20000 PYNAS_EVERY_COMBINATION=1 PYNAS_EVERY_CALL=1 $(MAKE) test TESTS=tests
	PYNAS_ZOO=1 PYNAS_RANDOM_NETWORKS=2000 $(BIN)/python -m pytest -n $(JOBS) tests/zoo
	$(BIN)/python -m pynas.testing.chaos --kills 100 --strategy all
	$(MAKE) sanitize
	$(BIN)/pynas bench --slow --seconds 10 $(if $(RECORD),--save $(RECORD))
	cd benches && ../$(BIN)/python -m pytest test_zico.py test_collect.py test_search_overhead.py test_mixed_op.py -k "not test_time" --benchmark-enable -s -q $(if $(RECORD),--record $(abspath $(RECORD)))

fuzz: build  ## look for inputs that break a reader, a parser or an operator, for SECONDS
	$(BIN)/python -m pynas.testing.fuzz --seconds $(SECONDS)

reliability: build  ## attack everything, and write the figures of docs/reliability.md (an hour)
	$(BIN)/python experiments/reliability.py

results: build  ## write docs/results.md from benches/results; DATA=FOLDER measures all of it first (hours)
	$(BIN)/python experiments/write_results.py $(if $(DATA),--data $(DATA))

lint: build  ## ruff, mypy and clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'tests/cpp/*.h' 'tests/cpp/*.cpp' 'tests/cpp/*.cu')

format: build  ## format the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'tests/cpp/*.h' 'tests/cpp/*.cpp' 'tests/cpp/*.cu')

# Kernels of the instruction sets that this processor runs, at -O1 with line numbers. tests/ops has the fuzzer's calls.
SANITIZED := LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=2048 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
  PYNAS_EXTENSION=$(abspath build/sanitize) $(BIN)/python
sanitize: build  ## tests and fuzzer of the operators under AddressSanitizer and UBSan
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-O1 -DPYNAS_CUDA=OFF -DPYNAS_SANITIZE=address,undefined \
	  -DPYNAS_AVX512=$$($(BIN)/python -c 'from pynas import _C; print("avx512" in _C.available_isas())') \
	  -DPython_EXECUTABLE=$(abspath $(BIN)/python) -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir) -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja)
	$(BIN)/cmake --build build/sanitize
	PYNAS_FUZZ_CALLS=20000 $(SANITIZED) -m pytest -n $(JOBS) --dist loadfile tests/ops tests/spaces/test_nasbench101_cells.py -q -p no:cacheprovider

# The name of a folder: without .PHONY there would be nothing to do.
.PHONY: docs
$(STAMPS)/docs: $(STAMPS)/environment
	$(BIN)/pip install -q -c constraints.txt $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	@touch $@

docs: $(STAMPS)/docs  ## build the documentation site into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

$(STAMPS)/models: $(STAMPS)/build
	$(BIN)/pip install -q -c constraints.txt $$($(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; print(*extras["zoo"], *extras["peers"])')
	@touch $@

models: $(STAMPS)/models  ## measure networks that have no record yet, and write docs/models.md (half an hour for all)
	$(BIN)/python experiments/models.py --measure

# What benches/run_on_gpu.sh takes as CORE: no GPU is needed to build it, and none of the minutes on one is spent on that.
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)
ARCHITECTURES ?= 90
GPU_CORE := build/gpu-core
gpu-core:  ## build the core for the PyTorch and Python of a machine with a GPU (TORCH=2.11.0 PYTHON=python3.12 ARCHITECTURES=90)
	$(PYTHON) -m venv $(GPU_CORE)/venv
	$(GPU_CORE)/venv/bin/pip install -q torch==$(TORCH) pybind11 cmake ninja
	$(GPU_CORE)/venv/bin/cmake -S . -B $(GPU_CORE)/build -G Ninja -DCMAKE_BUILD_TYPE=Release -DPYNAS_CUDA=ON -DPYNAS_WERROR=OFF \
	  -DCMAKE_CUDA_ARCHITECTURES=$(ARCHITECTURES) -DPython_EXECUTABLE=$(abspath $(GPU_CORE)/venv/bin/python) \
	  -DCMAKE_MAKE_PROGRAM=$(abspath $(GPU_CORE)/venv/bin/ninja) -Dpybind11_DIR=$$($(GPU_CORE)/venv/bin/python -m pybind11 --cmakedir)
	$(GPU_CORE)/venv/bin/cmake --build $(GPU_CORE)/build
	cp $(GPU_CORE)/build/_C*.so $(GPU_CORE)/

lock:  ## write constraints-hashed.txt anew, after a change of constraints.txt
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install -q pip-tools
	build/lock/bin/python docs/make_lock.py

clean:  ## remove what was built
	rm -rf build $(STAMPS)/build
