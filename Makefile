# Two commands do everything on a machine with Python, make and git: `make demo` and `make test`.
PYTHON ?= python3
TRAINING := onnxruntime-training-cpu==1.19.2
PYTEST := -m pytest -q -n 2

.PHONY: demo test test-current test-training lint clean

demo: .venv-demo/installed
	.venv-demo/bin/onnxsurgeon evolve models/digits-small.onnx --data digits --seed 6 --learning-rate 0.05

test: test-current test-training

test-current: .venv-test/installed
	.venv-test/bin/python $(PYTEST)

# The training build of ONNX Runtime has wheels for Linux on x86-64 and Python up to 3.12 only.
test-training: .venv-training/installed
	@if [ -e .venv-training/no-wheel ]; then \
	  echo "left out: no wheel of $(TRAINING) for this platform and Python"; \
	else \
	  echo .venv-training/bin/python $(PYTEST); \
	  .venv-training/bin/python $(PYTEST); \
	fi

lint: .venv-test/installed
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy

.venv-demo/installed: pyproject.toml
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python -m pip install -q --disable-pip-version-check -e '.[cpu]'
	@touch $@

.venv-test/installed: pyproject.toml
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/python -m pip install -q --disable-pip-version-check -e '.[cpu,data,report,view,dask,tensorboard,mlflow,pandas,dev]'
	@touch $@

.venv-training/installed: pyproject.toml
	$(PYTHON) -m venv .venv-training
	@rm -f .venv-training/no-wheel
	@if .venv-training/bin/python -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
	    -d .venv-training/wheel '$(TRAINING)' 2>/dev/null; then \
	  echo .venv-training/bin/python -m pip install -e '.[training,data,report,dask,tensorboard,dev]'; \
	  .venv-training/bin/python -m pip install -q --disable-pip-version-check -e '.[training,data,report,dask,tensorboard,dev]' '$(TRAINING)'; \
	else \
	  touch .venv-training/no-wheel; \
	fi
	@touch $@

clean:
	rm -rf .venv-demo .venv-test .venv-training .mypy_cache .pytest_cache .ruff_cache
