"""Fixtures that several test modules share."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

# Before numpy is imported. Left alone, OpenBLAS starts a thread for each core in each of pytest's workers, and those
# that wait for work spin: they take from the other worker. Results do not depend on it: tests/test_linear_algebra.py.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from threadpoolctl import ThreadpoolController

from onnxsurgeon import EngineError, InputOptions, create, load_dataset, prepare, resume
from onnxsurgeon.cli import main
from onnxsurgeon.data.load import locate
from onnxsurgeon.runs.journal import file_digest
from onnxsurgeon.runtime import session
from onnxsurgeon.training.artifacts import have_training
from tests.killed_run import start_model as start_model  # for the tests

MODELS = Path(__file__).resolve().parent.parent / "models"
MODEL_FILES = sorted(MODELS.glob("*.onnx"))

needs_training = pytest.mark.skipif(not have_training(), reason="this ONNX Runtime is no training build")
without_training = pytest.mark.skipif(have_training(), reason="this ONNX Runtime is a training build")


def newest_opset():
    """The newest opset that this ONNX Runtime reads."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    for opset in range(onnx.defs.onnx_opset_version(), 7, -1):
        node = helper.make_node("Identity", ["x"], ["y"])
        graph = helper.make_graph([node], "g", [value], [onnx.ValueInfoProto(name="y")])
        try:
            session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8))
        except EngineError:
            continue
        return opset
    raise AssertionError("no opset can be read")


NEWEST_OPSET = newest_opset()


def skip_newer(opset):
    if opset > NEWEST_OPSET:
        pytest.skip(f"this ONNX Runtime reads opsets up to {NEWEST_OPSET}")


def skip_unreadable(path):
    """Skip a test that runs a file, where this ONNX Runtime is too old for it."""
    skip_newer(next(e.version for e in onnx.load(path).opset_import if e.domain in ("", "ai.onnx")))


def randomised(network, seed=0, scale=0.3):
    """The network with random values everywhere, biases and slopes included."""
    rng = np.random.default_rng(seed)
    return network.with_parameters(
        (rng.standard_normal(v.shape) * scale + (v if v.ndim == 1 else 0)).astype(v.dtype)
        for _, v in network.chain.parameters()
    )


def as_float64(network):
    model = onnx.ModelProto()
    model.CopyFrom(network.frame.model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    network = network.with_parameters(v.astype(np.float64) for _, v in network.chain.parameters())
    return replace(network, frame=replace(network.frame, model=model))


def with_bias_removed(network, index):
    layers = list(network.layers)
    layers[index] = replace(layers[index], bias=None)
    return network.with_layers(layers)


def branch_digests(run):
    return {path.name: file_digest(path) for path in (run / "branches").iterdir()}


def killed_and_resumed(moment, count, folder, settings, data="digits"):
    """A run with ``settings`` by two workers that died at a moment (``killed_run``), resumed to its end."""
    changes = json.dumps({key: value for key, value in vars(settings).items() if key != "preset"})
    command = [sys.executable, "-m", "tests.killed_run", moment, str(count), str(folder), "2", "loop", changes, data]
    killed = subprocess.run(command, cwd=MODELS.parent, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    return resume(folder, workers=2)


def wanted(tests):
    """Whether these tests may not be skipped: the variable of that name says so, or CI, which has all they need."""
    return bool(os.environ.get(tests) or os.environ.get("CI"))


def need(module, *, everywhere=False):
    """An optional package; where CI runs it must be there, ``everywhere`` or beside the current ONNX Runtime alone."""
    if os.environ.get("CI") and (everywhere or not have_training()):
        return import_module(module)
    return pytest.importorskip(module)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """Flushing is left out, in this process: only a power failure could tell, and a run waits for dozens of them."""

    def looked_at(file):
        os.fstat(file if isinstance(file, int) else file.fileno())  # what is closed is refused as ever

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", looked_at)
        yield


@pytest.fixture
def own_time(monkeypatch):
    """Let the processor's time of this process be the clock: other work of the machine does not pass on it.

    What is foretold and what is taken are measured apart, and a machine may be busy during one of them.
    """
    monkeypatch.setattr(time, "perf_counter", time.process_time)


@pytest.fixture
def two_blas_threads():
    """BLAS has two threads, as on a user's machine, not the one of the tests."""
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="session")
def fashion():
    """Fashion-MNIST; where CI runs, it must be there."""
    if locate("fashion-mnist") is None and not os.environ.get("CI"):
        pytest.skip("Fashion-MNIST is not here: apt install dataset-fashion-mnist")
    return load_dataset("fashion-mnist")


@pytest.fixture(scope="session")
def fashion_examples(fashion):
    network = create((784, 10, 10), input_shape=(28, 28, 1))
    return prepare(network, fashion, fashion.train), prepare(network, fashion, fashion.test)


@pytest.fixture(scope="session")
def digit_examples(digits):
    network = create((64, 10, 10), input_shape=(8, 8))
    return prepare(network, digits, digits.train, InputOptions()), prepare(network, digits, digits.test)


def without_code(err):
    """What a refusal says on standard error, without the code that must stand at its end."""
    said, found = re.subn(r" \[[A-Z]\d\d\]\n\Z", "\n", err)
    assert found == 1, err
    return said


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """Run the command line in an empty folder; returns (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ONNXSURGEON_DATA", raising=False)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["onnxsurgeon", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def cli(refused):
    """The same; where something is refused, the code behind what is said must be there, and is left out."""

    def call(*arguments):
        code, out, err = refused(*arguments)
        return code, out, without_code(err) if code == 2 else err

    return call
