# Two commands do everything on a machine with Python, make and git: `make demo` and `make test`; `make docs` builds the
# site of docs/ into site/.
PYTHON ?= python3
TRAINING := onnxruntime-training-cpu==1.19.2
# Five for two cores: many tests wait, for a process of theirs, a page or a server. Each has a part of the tests at first, in
# order, so that what a module prepares is prepared once. What needs the site of docs/ is run by `make test-docs`.
WORKERS ?= 5
PYTEST := -m pytest -q -n $(WORKERS) --dist worksteal --ignore=tests/test_site.py
# Into the environment of the target, by the pip of .venv-pip.
INSTALL = .venv-pip/bin/python -m pip --python $(@D)/bin/python install -qq --disable-pip-version-check --no-compile

# Where a container forbids it, each of a thousand processes that tests start would compile the whole package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-page serve-demo test test-current test-training test-tutorial test-node test-cpp compare compare-anywhere parity-anywhere docs test-docs wheel lint clean

demo: .venv-demo/installed
	.venv-demo/bin/onnxsurgeon evolve models/digits-small.onnx --data digits --epochs 50 --max-parameters 2000 --seed 6
	@echo "open in a browser: $$(ls -td "$$PWD"/runs/digits-small-digits-*/report.html | head -n 1)"

# A page that learns what is drawn on it: docs/demo, with its network and ONNX Runtime, into build/demo-page.
demo-page: .venv-demo/installed runners/js/node_modules/installed
	.venv-demo/bin/python tools/build_demo_page.py build/demo-page

serve-demo: demo-page
	$(PYTHON) -m http.server --bind 127.0.0.1 --directory build/demo-page 8000

# Tests that touch no ONNX Runtime would say the same beside the other one: those are left out that just now passed beside
# the current one without (tests/once.py).
test: test-current
	@$(MAKE) --no-print-directory test-training LEFT_OUT='--leave-out-untouched $(UNTOUCHED)'

UNTOUCHED := build/untouched.txt

test-current: .venv-test/installed
	.venv-test/bin/python $(PYTEST) -p tests.once --untouched $(UNTOUCHED)

# What these test runs in Node and in a browser, by runtimes of their own.
JAVASCRIPT := tests/test_node_runner.py tests/test_browser_runner.py tests/test_webgpu_runner.py tests/test_demo_page.py \
  tests/test_train_anywhere_speed.py tests/test_accessibility.py
# Tested once, beside the current ONNX Runtime: these, README and the pages of how-tos, what a browser and a shell show, the
# tools that measure speed, and how it is seen which other tests need not be run twice. What their commands call is tested
# beside both.
ONCE := $(JAVASCRIPT) tests/test_readme.py tests/test_howto.py tests/test_report_page.py tests/test_watching.py \
  tests/test_completion.py tests/test_benchmark.py tests/test_compare_search.py tests/test_gallery.py tests/test_once.py

# The training build of ONNX Runtime has wheels for Linux on x86-64 and Python up to 3.12 only.
test-training: .venv-training/installed
	@if [ -e .venv-training/no-wheel ]; then \
	  echo "left out: no wheel of $(TRAINING) for this platform and Python"; \
	else \
	  echo .venv-training/bin/python $(PYTEST) -p tests.once $(LEFT_OUT) $(ONCE:%=--ignore=%); \
	  .venv-training/bin/python $(PYTEST) -p tests.once $(LEFT_OUT) $(ONCE:%=--ignore=%); \
	fi

# The tutorials train in PyTorch, Keras and scikit-learn, which nothing else here needs but the measuring tools, whose
# tests of that kind are run here too. TUTORIAL: none may be skipped.
test-tutorial: .venv-tutorial/installed
	TUTORIAL=1 .venv-tutorial/bin/python -m pytest -q tests/test_tutorial.py tests/test_measuring_torch.py

# The JavaScript runner, in Node by both of its runtimes and in the browser, and the page that it trains on. NODE: none may
# be skipped. `make test` runs them and those of the C++ runner as well, where what they need is there.
test-node: .venv-test/installed runners/js/node_modules/installed
	NODE=1 .venv-test/bin/python -m pytest -q $(JAVASCRIPT)

# The C++ runner, built by CMake with the library of ONNX Runtime's package for Python. CPP: none may be skipped.
test-cpp: .venv-test/installed
	CPP=1 .venv-test/bin/python -m pytest -q tests/test_cpp_runner.py

# Its example by itself: runners/cpp/build/example.
runners/cpp/build/example: .venv-test/installed runners/cpp/onnxsurgeon_runner.hpp runners/cpp/example.cpp runners/cpp/CMakeLists.txt
	mkdir -p runners/cpp/build
	ln -sf $$(.venv-test/bin/python -c "import onnxruntime, pathlib; print(*pathlib.Path(onnxruntime.__file__).parent.glob('capi/libonnxruntime.so*'))") \
	  runners/cpp/build/libonnxruntime.so.1
	cmake -S runners/cpp -B runners/cpp/build -DONNXRUNTIME_LIBRARY=$(CURDIR)/runners/cpp/build/libonnxruntime.so.1 -DCMAKE_BUILD_TYPE=Release
	cmake --build runners/cpp/build
	@touch $@

# Scripts of packages are not run: onnxruntime-node's would fetch libraries for other devices.
runners/js/node_modules/installed: runners/js/package.json
	npm --prefix runners/js install --no-package-lock --ignore-scripts --no-audit --no-fund
	@touch $@

# Steps a second of one network in Python, Node and Chromium, beside TensorFlow.js; sizes and memory. Some four minutes,
# and needs Chromium.
compare-anywhere: .venv-test/installed runners/js/node_modules/installed tools/train_anywhere/node_modules/installed
	.venv-test/bin/python tools/train_anywhere_speed.py

tools/train_anywhere/node_modules/installed: tools/train_anywhere/package.json
	npm --prefix tools/train_anywhere install --no-package-lock --ignore-scripts --no-audit --no-fund
	@touch $@

# Eight networks trained by the loop engine and by every runner, and how far they are apart. Some five minutes; needs CMake
# and Debian's nlohmann-json3-dev.
parity-anywhere: .venv-test/installed runners/js/node_modules/installed runners/cpp/build/example
	.venv-test/bin/python tools/train_anywhere_parity.py

# Three quarters of an hour for onnxsurgeon, Optuna over PyTorch and MLPClassifier; goes on where it was stopped.
compare: .venv-compare/installed
	.venv-compare/bin/python tools/compare_search.py --json compare.json

# Warnings are errors.
docs: .venv-docs/installed
	.venv-docs/bin/python tools/build_docs.py

# DOCS: the site is there, and its tests may not be skipped. What the pages say is tested by `make test`.
test-docs: docs
	DOCS=1 .venv-docs/bin/python -m pytest -q tests/test_site.py

# The wheel in an empty environment: all files there, metadata in order, usable, types seen from outside.
wheel:
	$(PYTHON) tools/check_wheel.py

lint: .venv-test/installed
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy
	.venv-test/bin/lint-imports --no-cache

# The newest pip fills all the environments: that of Python 3.11 takes twice as long, and as long again to compile what
# nothing will ever import.
.venv-pip/installed:
	$(PYTHON) -m venv .venv-pip
	.venv-pip/bin/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25'
	@touch $@

.venv-demo/installed: pyproject.toml | .venv-pip/installed
	$(PYTHON) -m venv .venv-demo
	$(INSTALL) -e '.[cpu,report]'
	@touch $@

.venv-test/installed: pyproject.toml | .venv-pip/installed
	$(PYTHON) -m venv .venv-test
	$(INSTALL) -e '.[cpu,data,report,view,dask,tensorboard,mlflow,pandas,dev]'
	@touch $@

.venv-training/installed: pyproject.toml | .venv-pip/installed
	$(PYTHON) -m venv .venv-training
	@rm -f .venv-training/no-wheel
	@if .venv-pip/bin/python -m pip --python .venv-training/bin/python download -q --disable-pip-version-check --no-deps \
	    --only-binary=:all: -d .venv-training/wheel '$(TRAINING)' 2>/dev/null; then \
	  echo $(INSTALL) -e '.[training,data,report,dask,tensorboard,dev]' '$(TRAINING)'; \
	  $(INSTALL) -e '.[training,data,report,dask,tensorboard,dev]' '$(TRAINING)'; \
	else \
	  touch .venv-training/no-wheel; \
	fi
	@touch $@

.venv-tutorial/installed: pyproject.toml | .venv-pip/installed
	$(PYTHON) -m venv .venv-tutorial
	$(INSTALL) -e '.[cpu,data,report,dev,tutorial]'
	@touch $@

.venv-compare/installed: pyproject.toml | .venv-pip/installed
	$(PYTHON) -m venv .venv-compare
	$(INSTALL) -e '.[cpu,data,report,compare]'
	@touch $@

.venv-docs/installed: pyproject.toml | .venv-pip/installed
	$(PYTHON) -m venv .venv-docs
	$(INSTALL) -e '.[cpu,dev,docs]'
	@touch $@

clean:
	rm -rf .venv-pip .venv-demo .venv-test .venv-training .venv-tutorial .venv-compare .venv-docs site build/demo-page runners/cpp/build runners/js/node_modules tools/train_anywhere/node_modules .mypy_cache .pytest_cache .ruff_cache
