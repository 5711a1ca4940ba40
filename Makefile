# Two commands do everything on a fresh machine with Python >= 3.11 and a C++ compiler:
#
#   make train   builds ichfast and trains the demo on the built-in phantom
#   make test    builds ichfast and runs its tests
#
# TORCH picks another torch, PYTHON another interpreter: TORCH=torch==2.13.0 make test
# ICHFAST_CUDA and others pick what is built (docs/install.md): what this machine can use.
#
# One runs with what is installed and needs no network, on a machine with a GPU and a CUDA torch:
#
#   make gpu-check                      builds in place; tests, sanitizers, benchmarks on the GPU
#   make gpu-check CALL=kernels         what matters of it in five minutes; then programs, table
#   make gpu-check STEPS=build,tests    some of it; ARGS=--dry-run prints the plan

PYTHON ?= python3
TORCH ?= torch>=2.11
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check

# Whoever has a browser for the tests of the viewer's page.
CHROMIUM := $(firstword $(foreach name,chromium chromium-browser google-chrome google-chrome-stable,$(shell command -v $(name))))

# Whoever has a CUDA toolkit.
NVCC := $(or $(shell command -v nvcc),$(wildcard $(or $(CUDA_HOME),/usr/local/cuda)/bin/nvcc))
CUDA_VENV := .venv-cuda
CUDA_TORCH ?= torch==2.11.0
# The wheel is tested there too: on another Python than here, where there is one.
CUDA_PYTHON ?= $(or $(shell tools/other_python $(PYTHON)),$(PYTHON))
CUDA_BUILD := $(CURDIR)/build/cuda

FUZZ_SECONDS ?= 120

ASAN_BUILD := $(CURDIR)/build/asan
SANITIZE := -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all

SOURCES := setup.py pyproject.toml $(shell find csrc -type f)

unexport LOG  # of tools/stage, whatever the shell has under that name

.DELETE_ON_ERROR:
.PHONY: train test test-asan fuzz check lint types cpp check-wheel cuda-venv check-cuda check-ptx gpu-check bench clean FORCE

train: $(VENV)/built
	@tools/stage train 'phantom, training, report; 1 to 4 minutes on two cores' $(RUN) -m ichfast.train $(ARGS)

test: $(VENV)/tested
	@$(if $(CHROMIUM),,echo "test: without those of the viewer in a browser, since no Chromium was found (apt-get install chromium)")
	@OMP_NUM_THREADS=1 tools/stage test '3 to 6 minutes on two cores' $(RUN) -m pytest -n 2 --dist worksteal $(ARGS)

# The tests of the ops and of the Python module, under GCC's AddressSanitizer and
# UndefinedBehaviorSanitizer.
# Leaks are not looked for: what Python and torch keep until the process ends would count as such.
# libstdc++ is loaded early too, or the sanitizer does not find the function that throws; and what it
# reports must not end in the files that pytest captures file descriptors with.
test-asan: $(VENV)/tested
	@rm -rf $(ASAN_BUILD)/lib && mkdir -p $(ASAN_BUILD)
	@LOG=$(ASAN_BUILD)/log CFLAGS='$(SANITIZE)' LDFLAGS='$(SANITIZE)' ICHFAST_CUDA=0 tools/stage asan-build 'usually 2 minutes on one core' $(RUN) setup.py build --build-base $(ASAN_BUILD) --build-lib $(ASAN_BUILD)/lib
	@find=$${CXX:-c++}' -print-file-name='; tools/stage asan-tests 'usually 1 minute' env LD_PRELOAD="$$($${find}libasan.so) $$($${find}libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 PYTHONPATH=$(ASAN_BUILD)/lib $(VENV)/bin/pytest -n 2 --capture=sys tests/ops tests/test_python_module.py $(ARGS)

# libFuzzer on the walk over DICOM headers, then every input of its corpus through pydicom; hours by
# hand: make fuzz FUZZ_SECONDS=7200. clang alone lacks libFuzzer: its libclang-rt has it.
fuzz: $(VENV)/tested
	@if echo 'extern "C" int LLVMFuzzerTestOneInput(const char *, long) { return 0; }' | clang++ -fsanitize=fuzzer,address -x c++ - -o /dev/null 2> /dev/null; \
	then tools/stage fuzz '$(FUZZ_SECONDS) s, and half a minute around them' $(RUN) tools/fuzz.py --seconds $(FUZZ_SECONDS); \
	else echo 'fuzz: not run, since no clang++ with libFuzzer was found (apt-get install clang libclang-rt-14-dev)'; fi

check: lint types cpp

lint: $(VENV)/tested
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror $$(find csrc tests/cpp -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

types: $(VENV)/tested
	@tools/stage types 'mypy; usually 1 minute' $(RUN) -m mypy

cpp: $(VENV)/tested
	@$(VENV)/bin/cmake -S . -B build/cpp > /dev/null
	@tools/stage cpp-build 'C++ checks; usually 1 minute on two cores' $(VENV)/bin/cmake --build build/cpp --parallel
	@tools/stage cpp-run 'C++ checks; usually 1 minute on two cores' $(VENV)/bin/ctest --test-dir build/cpp --parallel 2 --output-on-failure

# The wheel of an sdist: its libraries' symbols, its tag, and tests where it is installed, on this
# Python and torch and, where there is nvcc, on those that check-cuda builds with.
check-wheel: $(VENV)/tested $(if $(NVCC),$(CUDA_VENV)/installed)
	@ICHFAST_CUDA=0 tools/stage wheel 'usually 2 minutes on two cores' $(RUN) tools/check_wheel.py $(if $(NVCC),$(CUDA_VENV)) $(ARGS)

# All libraries, built against a CUDA torch for every architecture, warnings as errors, and loaded
# there; what the compiler says of the kernels is read. Needs no GPU.
ifeq ($(NVCC),)
cuda-venv check-cuda check-ptx:
	@echo "$@: not run, since no nvcc was found"
else
cuda-venv: $(CUDA_VENV)/installed

check-cuda: $(CUDA_VENV)/installed
	@rm -rf $(CUDA_BUILD) && mkdir -p $(CUDA_BUILD)/ptx
	@LOG=$(CUDA_BUILD)/log ICHFAST_CUDA=1 NVCC_APPEND_FLAGS='-Xptxas=-v -Werror=all-warnings --keep --keep-dir=$(CUDA_BUILD)/ptx' tools/stage cuda-build 'for every architecture; usually 2 minutes on two cores' $(CUDA_VENV)/bin/python setup.py build --build-base $(CUDA_BUILD) --build-lib $(CUDA_BUILD)/lib
	@tools/stage cuda-kernels 'spills and wide accesses' $(CUDA_VENV)/bin/python tools/check_kernels.py $(CUDA_BUILD)/log $(CUDA_BUILD)/ptx
	@tools/stage cuda-instructions 'per voxel, against an H200' $(CUDA_VENV)/bin/python tools/count_instructions.py $(CUDA_BUILD)/ptx
	@PYTHONPATH=$(CUDA_BUILD)/lib tools/stage cuda-tests 'usually 20 s on two cores' $(CUDA_VENV)/bin/pytest -n 2 tests/test_build.py tests/test_libraries.py

# The ops' tests on what nvcc makes of their kernels, which the CPU runs (docs/kernels.md); needs
# neither a GPU nor a CUDA torch. Takes what check-cuda has compiled of the sources as they are, so
# it comes after that where both are run. Some tests: make check-ptx ARGS=tests/ops/test_tversky.py
check-ptx: $(VENV)/tested
	@tools/stage ptx 'build, and the tests three times; usually 3 minutes on two cores, 4 to 5 where check-cuda has not compiled' $(RUN) tests/cpp/ptx/check.py $(ARGS)
endif

gpu-check:
	@$(PYTHON) tools/gpu_check.py $(if $(CALL),--call $(CALL)) $(if $(STEPS),--steps $(STEPS)) $(ARGS)

bench: $(VENV)/built
	$(RUN) -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) $(CUDA_VENV) build ichfast/_C*.so ichfast/ops/__init__.pyi ichfast/ops/reference/__init__.pyi *.egg-info

# The environment follows TORCH: another choice installs that one and builds anew.
$(VENV)/torch: FORCE
	@mkdir -p $(VENV)
	@echo '$(TORCH)' | cmp --silent - $@ || echo '$(TORCH)' > $@

$(VENV)/installed: $(VENV)/torch
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ichfast needs Python >= 3.11: PYTHON=python3.11 make $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@tools/stage torch '$(TORCH), into $(VENV); usually 30 s where pip has it, minutes where it is fetched' $(RUN) tools/install_torch.py '$(TORCH)' 'setuptools>=78.1.1,<82' ninja
	@touch $@

$(VENV)/built: $(VENV)/installed $(SOURCES)
	@LOG=$(VENV)/build.log tools/stage build 'ichfast and what it runs with; usually 30 s on two cores for a CPU, 1 minute for a GPU' $(PIP) install --verbose --no-build-isolation -e '.[report,decode]' '$(TORCH)'
	@touch $@

$(VENV)/tested: $(VENV)/built pyproject.toml
	@tools/stage tools 'for tests and checks; usually 30 s' $(PIP) install --quiet 'ichfast[test,dev]' '$(TORCH)'
	@touch $@

$(CUDA_VENV)/installed: Makefile
	@$(CUDA_PYTHON) -m venv $(CUDA_VENV)
	@tools/stage cuda-torch '$(CUDA_TORCH), several gigabytes, into $(CUDA_VENV)' $(CUDA_VENV)/bin/python -m pip --disable-pip-version-check --quiet install '$(CUDA_TORCH)' 'setuptools>=78.1.1,<82' ninja numpy pytest pytest-xdist hypothesis
	@touch $@
