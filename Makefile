# Each target does the set-up it needs in .venv first; once that is done it takes a moment.
PYTHON ?= python3
RUN := .venv/bin/python
# The tests run in any environment, such as one with Detectron2: make test RUN=/path/to/python
TEST_SETUP := $(if $(filter .venv/bin/python,$(RUN)),setup)

.DEFAULT_GOAL := help
.PHONY: help setup build quickstart quickstart-segmentation test test-slow test-sanitize test-cuda lint format benchmark clean

# A build of the operators that ends the process at the first bad access or undefined behaviour.
SANITIZED := build/sanitize
SANITIZE := -fsanitize=address,undefined
# Python itself is not built so: the runtime has to come first, and with it the library that throws
# exceptions. Python and PyTorch keep memory to the end on purpose, CUDA maps where ASan would not.
SANITIZER_RUNTIME = $(foreach name,libasan.so libubsan.so libstdc++.so,$(shell $(CXX) -print-file-name=$(name)))
# An abort, unlike an exit, has pytest say which test it was.
SANITIZER_OPTIONS := ASAN_OPTIONS=detect_leaks=0:protect_shadow_gap=0:abort_on_error=1 \
    UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1

# What runs on the kernels of CUDA, thread by thread on the CPU (tests/cuda_emulator).
EMULATED_TESTS := tests/cuda_emulator $(patsubst %,tests/ops/test_%.py,attention backends \
    bad_arguments bias_gelu coverage depthwise_conv extension graphs interleaved_window partition) \
    $(patsubst %,tests/modeling/test_iwin.py::test_golden_%,outputs gradients)
EMULATED := build/emulated
# Threads that have nothing to do for a while sleep: there are many such whiles.
EMULATED_OPTIONS := OMP_WAIT_POLICY=passive

help:
	@echo "make quickstart  generate a small data set, train a detector on it, evaluate, draw"
	@echo "make quickstart-segmentation  the same for a class of every pixel"
	@echo "make test        the test suite; RUN=/path/to/python tests another environment"
	@echo "make test-slow   what takes too long for the everyday suite"
	@echo "make test-sanitize  the operators' tests under AddressSanitizer and UBSan (GCC)"
	@echo "make test-cuda   build for CUDA, test, measure, on a GPU; RUN=python3 OUT=/path/to/folder"
	@echo "make test-cuda-emulated  the operators' tests on the CUDA kernels, without a GPU (GCC);"
	@echo "                 ALL=1: the cases that take long, too; ...-sanitize: under ASan and UBSan"
	@echo "make lint        ruff: lint and format check"
	@echo "make format      ruff: fix and format"
	@echo "make benchmark   the figures of docs/benchmarks.md"
	@echo "make setup       only the environment in .venv, with compiled operators where it can"
	@echo "make build       the compiled operators, or why they cannot be compiled"
	@echo "make clean       remove .venv and everything that was built"

setup build:
	@command -v $(PYTHON) >/dev/null || { echo "set-up failed: there is no $(PYTHON): install Python 3.10 or newer, or run make PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) tools/setup_venv.py $(if $(filter build,$@),--build)

quickstart: setup
	@$(RUN) tools/quickstart.py

quickstart-segmentation: setup
	@$(RUN) tools/quickstart.py segmentation

test: $(TEST_SETUP)
	@$(RUN) -m pytest

test-slow: $(TEST_SETUP)
	@$(RUN) -m pytest -m slow

test-sanitize: setup
	@mkdir -p $(SANITIZED)
	@echo "compiling the operators with $(SANITIZE) (minutes)"
	@IWIN_D2_BUILD=cpu CXX="$(CXX)" LDFLAGS="$(SANITIZE)" \
	    CXXFLAGS="$(SANITIZE) -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1" \
	    $(RUN) setup.py build_ext --build-lib $(SANITIZED) --build-temp $(SANITIZED)/temp \
	    > $(SANITIZED)/log 2>&1 || { tail -n 40 $(SANITIZED)/log; exit 1; }
	@export IWIN_D2_EXTENSION=$(CURDIR)/$(SANITIZED)/iwin_d2/_C.abi3.so LD_PRELOAD="$(SANITIZER_RUNTIME)" \
	    $(SANITIZER_OPTIONS); \
	$(RUN) -c "import sys; from iwin_d2.ops import extension as e; e.load(); sys.exit(e.reason() or 0)" && \
	$(RUN) -m pytest --capture=sys tests/ops

test-cuda: $(TEST_SETUP)
	@$(RUN) tests/cuda/run_parts.py

test-cuda-emulated: setup
	@echo "compiling the CUDA kernels for the emulator, where they have changed (a minute or two)"
	@$(RUN) tests/cuda_emulator/build_emulated.py $(EMULATED)
	@IWIN_D2_EXTENSION=$(CURDIR)/$(EMULATED)/_C.abi3.so $(EMULATED_OPTIONS) \
	    $(RUN) -m pytest $(EMULATED_TESTS) $(if $(ALL),-m "slow or not slow")

test-cuda-emulated-sanitize: setup
	@echo "compiling the CUDA kernels for the emulator with $(SANITIZE) (minutes)"
	@$(RUN) tests/cuda_emulator/build_emulated.py --sanitize $(EMULATED)-sanitize
	@IWIN_D2_EXTENSION=$(CURDIR)/$(EMULATED)-sanitize/_C.abi3.so $(EMULATED_OPTIONS) \
	    LD_PRELOAD="$(SANITIZER_RUNTIME)" $(SANITIZER_OPTIONS) \
	    $(RUN) -m pytest --capture=sys $(filter tests/ops/%,$(EMULATED_TESTS))

lint: setup
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

format: setup
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

benchmark: setup
	@$(RUN) tools/benchmark.py all

clean:
	rm -rf .venv build iwin_d2/_C.abi3.so* *.egg-info .pytest_cache .ruff_cache
