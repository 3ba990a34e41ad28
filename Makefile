# Virtual environments are made on first use, and again when the package's sources change.
# Needed: Python 3.11 or newer with venv, pip and a C compiler. PYTHON=python3.13 picks the interpreter; from one to
# another, `make clean`.
PYTHON ?= python3
SOURCES = setup.py pyproject.toml $(wildcard $(addprefix src/elufast/*.,py pyi pyx pxd h cpp))

help: ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-20s %s\n", $$1, $$2 }'

# What the environments take: built once, and not editable: what is tested is what a user gets, stubs and all.
# setuptools would keep in build/lib what was removed from src.
WHEEL = build/wheel/ready
ELUFAST = $$(ls build/wheel/*.whl)
$(WHEEL) dist: export SOURCE_DATE_EPOCH = $(or $(shell git log -1 --format=%ct 2>/dev/null),1700000000)
$(WHEEL): $(SOURCES)
	rm -rf $(@D) build/lib*
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir $(@D) .
	@touch $@

# $(call add,what pip installs). pip would keep an elufast of the same version.
define add
@$(@D)/bin/pip uninstall -qq --yes elufast
$(@D)/bin/pip install --quiet $(1)
@touch $@
endef

# $(call install,what pip installs). pip takes dependency groups since 25.1.
define install
$(PYTHON) -m venv --upgrade-deps $(@D)
$(call add,$(1))
endef

# The registry's torch for Linux brings several GB of CUDA packages. Where pip's configuration offers a local CPU build
# of it (`find-links`), take that.
define install_torch
if $(@D)/bin/pip install --quiet --dry-run --no-index --no-deps $(TORCH) 2>/dev/null; then \
  $(@D)/bin/pip install --quiet $(TORCH); else echo "no CPU build of $(TORCH) at hand$(1)"; fi
endef
TORCH ?= torch==2.13.0

.venv/ready: $(WHEEL)
	$(call install,--group test --group docs $(ELUFAST)[examples])
	@$(call install_torch,: the tests against PyTorch are skipped)

# The compiler with its checks, for the probe of setup.py too. The loops are then not vectorized as in a release: what
# those touch is the matter of test-memcheck and of the guard pages in tests/test_memory.py.
.venv-sanitized/ready: export CC = gcc -fsanitize=address,undefined -fno-sanitize-recover=undefined
.venv-sanitized/ready: $(SOURCES)
	rm -rf build/lib*
	$(call install,--group test .)

.venv-demo/ready: $(WHEEL)
	$(call install,$(ELUFAST)[examples])

.venv-lint/ready: pyproject.toml
	$(call install,--group lint)

.venv-lint/elufast: .venv-lint/ready $(WHEEL)
	$(call add,$(ELUFAST))

.venv-bench/ready: $(WHEEL)
	$(call install,--group bench $(ELUFAST))

.venv-peers/ready: $(WHEEL)
	$(PYTHON) -m venv --upgrade-deps $(@D)
	@$(call install_torch,: the next step installs what the registry has)
	$(call add,$(ELUFAST)[peers])

# Small; but .venv has what it needs.
demo: $(or $(wildcard .venv/ready),.venv-demo/ready) ## train a network on handwritten digits with ReLU, ELU and SELU
	$(<D)/bin/python examples/digits.py
	$(<D)/bin/python examples/digits_cnn.py

test: .venv/ready ## run the tests
	.venv/bin/python -m pytest $(PYTEST_ARGS)

# Python's own start-up leaves memory unfreed; a guard page must end its process; what cannot be had must be NULL.
# Without joblib's workers, which hang now and then: they are replaced when their memory grows, and here it does.
test-sanitized: .venv-sanitized/ready ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer (gcc)
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:handle_segv=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
	  .venv-sanitized/bin/python -m pytest --ignore=tests/test_sklearn.py $(PYTEST_ARGS)

test-memcheck: .venv/ready ## a slice of the tests under valgrind: no invalid access and no unset value in elufast
	.venv/bin/python tools/memcheck.py

# A folder with scripts that run a command on a CPU that this machine is not: tools/cpus.sh says which.
EMULATE ?= ../shared/emulate

# A free-threaded Python: one on PATH, else built from Debian's sources by a script beside the emulators' (root, minutes).
FREETHREADED ?= $(or $(firstword $(shell command -v python3.14t python3.13t)),.venv-freethreaded-python/bin/python3)
FREETHREADED_BUILD = $(EMULATE)/../pythons/freethreaded.sh

.venv-freethreaded-python/bin/python3:
	@test -f $(FREETHREADED_BUILD) || { echo "no free-threaded Python: no python3.14t or python3.13t on PATH, and no" \
	  "$(FREETHREADED_BUILD) to build one (set FREETHREADED to its path, or EMULATE)"; exit 2; }
	bash $(FREETHREADED_BUILD) $(abspath $(@D)/..)

# What has wheels for it, if not of the newest version. Later versions of Hypothesis bring compiled code.
.venv-freethreaded/ready: export PIP_PREFER_BINARY = 1
.venv-freethreaded/ready: $(SOURCES) $(filter .venv%,$(FREETHREADED))
	@$(FREETHREADED) -c 'import sysconfig; assert sysconfig.get_config_var("Py_GIL_DISABLED")' || { \
	  echo "$(FREETHREADED) is no free-threaded Python (set FREETHREADED to the path of one)"; exit 2; }
	$(FREETHREADED) -m venv --upgrade-deps $(@D)
	rm -rf build/lib*
	$(@D)/bin/pip install --quiet 'pytest>=9' 'hypothesis<6.140' mpmath threadpoolctl .
	@$(@D)/bin/pip install --quiet --only-binary :all: ml_dtypes || echo "no wheel of ml_dtypes: bfloat16 is left out"
	@touch $@

test-freethreaded: .venv-freethreaded/ready ## the tests on a free-threaded Python, without the GIL; FREETHREADED=<python>
	.venv-freethreaded/bin/python -X gil=0 -m pytest $(PYTEST_ARGS)
	.venv-freethreaded/bin/python -X gil=0 tools/freethreaded.py

leaks: .venv/ready ## what a million calls leave behind: memory, references
	PYTHONMALLOC=malloc .venv/bin/python tools/leaks.py

fuzz: .venv/ready ## a million random calls against their elements one at a time; FUZZ="--cases N --seed S --jobs J"
	.venv/bin/python tools/fuzz.py $(FUZZ)

sizes: .venv/ready ## more than 2^31 elements, more data than memory: results and peak memory (needs 12 GiB of disk)
	.venv/bin/python tools/sizes.py

# Not the loops of other levels, which are the same source: this CPU may be unable to import them.
STUBS = elufast._functions elufast._core elufast.ufuncs elufast._runtime elufast._loops_base
lint: .venv-lint/elufast ## ruff, mypy, stubtest, clang-format, cython-lint, zizmor
	.venv-lint/bin/ruff check
	.venv-lint/bin/ruff format --check
	.venv-lint/bin/mypy
	.venv-lint/bin/stubtest --allowlist tools/stubtest-allowlist.txt $(STUBS)
	.venv-lint/bin/clang-format --dry-run --Werror src/elufast/*.h
	PATH=.venv-lint/bin:$$PATH cython-lint src
	.venv-lint/bin/zizmor --offline --quiet .github

CPUS = test-noavx test-aarch64 test-avx512
$(CPUS): test-%: .venv/ready
	EMULATE=$(EMULATE) tools/cpus.sh $* .venv/bin/python $(QUICK)

test-noavx: ## tests on an emulated CPU without AVX, levels on others (QUICK=quick: levels alone)
test-aarch64: ## tests on an emulated aarch64, whose bits must be those of v3
test-avx512: ## tests on an emulated Skylake-X, whose bits must be those of v3 (QUICK=quick: bits of 10^5 inputs)

CELLS ?= .
matrix: .venv/ready ## build and test with every compiler, Python and NumPy at hand; CELLS=<regex> picks
	.venv/bin/python tools/matrix.py --cells '$(CELLS)'

# Removed first: what sphinx-gallery has run it does not run again while the example is the same, elufast or not.
DOCS_BUILT = docs/_build docs/gallery docs/reference/generated
docs: .venv/ready ## build the documentation into docs/_build/html; run its code, check its links
	.venv/bin/python -m pytest $(PYTEST_ARGS) tests/test_docs.py
	rm -rf $(DOCS_BUILT)
	.venv/bin/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going docs docs/_build/html
	.venv/bin/python tools/links.py docs/_build/html

dist: .venv-lint/ready ## build the sdist and, from it, the wheel, which the environments then take; check both
	rm -rf dist
	.venv-lint/bin/python -m build
	.venv-lint/bin/twine check --strict dist/*
	.venv-lint/bin/check-wheel-contents dist/*.whl
	.venv-lint/bin/sp-repo-review .
	rm -rf $(dir $(WHEEL))
	mkdir -p $(dir $(WHEEL))
	cp dist/*.whl $(dir $(WHEEL))
	@touch $(WHEEL)

# Its own libgomp inside, the oldest platform tag that this machine's allows; tested where no compiler is on PATH.
wheel: dist ## the wheel for other Linux machines, tested from a clean environment
	rm -rf dist/linux .venv-wheel
	PATH=$(abspath .venv-lint/bin):$$PATH .venv-lint/bin/auditwheel repair --strip --wheel-dir dist/linux dist/*.whl
	.venv-lint/bin/auditwheel show dist/linux/*.whl
	$(PYTHON) -m venv --upgrade-deps .venv-wheel
	.venv-wheel/bin/pip install --quiet --only-binary :all: --group test-core dist/linux/*.whl
	PATH=$(abspath .venv-wheel/bin) .venv-wheel/bin/python -m pytest

frozen: wheel ## PyInstaller programs with that wheel, at every level
	.venv-wheel/bin/pip install --quiet pyinstaller
	.venv-wheel/bin/python tools/frozen.py

vectorized: .venv/ready ## show that the compiler vectorizes every loop of every level
	.venv/bin/python tools/vectorized.py

instructions: .venv/ready ## compare instructions per element with those recorded (needs valgrind)
	.venv/bin/python tools/instructions.py --check

instructions-record: .venv/ready ## record them anew, on purpose
	.venv/bin/python tools/instructions.py --record

exhaustive: .venv/ready ## every float32 input of every function: the largest error; every half, against mpmath
	.venv/bin/python tools/exhaustive.py
	.venv/bin/python tools/half.py --mpmath

accuracy: .venv/ready ## the largest errors found in float64
	.venv/bin/python tools/accuracy.py

limits: .venv/ready ## times beside what limits them: multiply-add units, memory, a Python call
	.venv/bin/python tools/limits.py

threads: .venv/ready ## the size from which a second thread pays, and what it gains
	.venv/bin/python tools/threads.py

processes: .venv/ready ## the tests of forks, pools and threads, 200 rounds each, and of real control groups
	ELUFAST_ROUNDS=200 .venv/bin/python -m pytest tests/test_processes.py tests/test_threads.py tests/test_runtime.py

peers: .venv-peers/ready ## time elufast beside the alternatives; PEERS="--functions elu --sizes 1000 ..." picks cells
	.venv-peers/bin/python tools/peers.py $(PEERS)

torch-step: .venv-peers/ready ## time PyTorch models, and ELU alone, with PyTorch's own kernels and with elufast's
	.venv-peers/bin/python tools/torch_step.py
	.venv-peers/bin/python tools/torch_step.py --sizes

torch-fuzz: .venv/ready ## a million random tensors through PyTorch against the plain functions, to the bit
	.venv/bin/python tools/torch_step.py --fuzz 80000

BENCH ?= .
bench: .venv-bench/ready ## asv: benchmark the current commit; BENCH=<regex> picks benchmarks
	.venv-bench/bin/asv machine --yes >/dev/null
	.venv-bench/bin/asv run --bench '$(BENCH)' 'HEAD^!'

bench-compare: .venv-bench/ready ## asv: compare the current commit with BASE=<rev>, name what became slower
	@test -n "$(BASE)" || { echo "usage: make bench-compare BASE=<rev>"; exit 2; }
	.venv-bench/bin/asv machine --yes >/dev/null
	.venv-bench/bin/asv continuous --split --interleave-rounds --bench '$(BENCH)' $(BASE) HEAD

HISTORY ?= --last 10
bench-history: .venv-bench/ready ## asv: measure the last commits of the package, name each step; HISTORY="--last N --until REV"
	.venv-bench/bin/asv machine --yes >/dev/null
	.venv-bench/bin/python tools/history.py $(HISTORY)

bench-html: .venv-bench/ready ## asv: build the site from the results so far
	.venv-bench/bin/asv publish

clean: ## remove what the targets above made
	rm -rf build dist $(DOCS_BUILT) .venv .venv-* .asv src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help demo test test-sanitized test-memcheck test-freethreaded leaks fuzz sizes lint docs dist wheel frozen matrix \
  $(CPUS) vectorized instructions instructions-record exhaustive accuracy limits threads processes peers torch-step \
  torch-fuzz bench bench-compare bench-history bench-html clean
