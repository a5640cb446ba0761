"""The C++ runner gives the Python runner's numbers; built by CMake with the library of ONNX Runtime's Python package.

ONNXRUNTIME_LIBRARY=…/libonnxruntime.so.1 and ONNXRUNTIME_INCLUDE=… tell of others. CPP: none may be skipped.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnxsurgeon_runner import Trainer, read_state, write_state

from onnxsurgeon.training.artifacts import have_training
from tests.conftest import MODELS, wanted
from tests.trainers import PARITY, SETTINGS, STRANGE, Case, fresh, given, whole_epochs

RUNNER = MODELS.parent / "runners" / "cpp"
INCLUDE = os.environ.get("ONNXRUNTIME_INCLUDE", "")
LIBRARIES = [
    Path(each)
    for each in (
        os.environ.get("ONNXRUNTIME_LIBRARY", ""),
        *sorted(map(str, (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))),
    )
    if each
]
BUILDABLE = bool(LIBRARIES and shutil.which("cmake") and shutil.which("c++"))
# The wheel of the training build has no library to link with.
if not BUILDABLE and ((have_training() and not os.environ.get("CPP")) or not wanted("CPP")):
    pytest.skip("needs CMake, a compiler and ONNX Runtime's library", allow_module_level=True)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cpp")
    library = folder / "libonnxruntime.so.1"  # as what is linked with it asks for it
    library.symlink_to(LIBRARIES[0])
    options = [f"-DONNXRUNTIME_LIBRARY={library}", "-DCMAKE_BUILD_TYPE=Release"]
    options += [f"-DONNXRUNTIME_INCLUDE={INCLUDE}"] if INCLUDE else []
    # Not as a part of the make that may have started these tests.
    inherited = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    for command in (["cmake", *options, str(RUNNER)], ["cmake", "--build", "."]):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning:" not in done.stderr
    return folder / "example"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return Case(tmp_path_factory.mktemp("small"), "torch-dynamo-documented.onnx")


@pytest.mark.parametrize("optimizer", SETTINGS)
@pytest.mark.parametrize("name", PARITY)
def test_five_hundred_steps_are_those_of_python(tmp_path, example, name, optimizer):
    model, options = PARITY[name]
    case = Case(tmp_path, fresh(model), **options, schedule="cosine", **SETTINGS[optimizer])
    epochs = whole_epochs(name, case)
    rows, targets = given(case)
    trainer = Trainer(case.folder)
    losses = [epoch.loss for epoch in trainer.train(rows, targets, epochs=epochs, seed=4)]
    ((_, values),) = rows.items()
    values.tofile(tmp_path / "rows.bin")
    np.ascontiguousarray(targets).tofile(tmp_path / "targets.bin")
    command = [example, case.folder, "rows.bin", "targets.bin", str(epochs), "4", "s.safetensors"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    told = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines()[epochs : epochs + 2])
    found = [float(line.rpartition(" ")[2]) for line in done.stdout.splitlines()[:epochs]]
    assert found == pytest.approx(losses, rel=1e-5)
    state, notes = read_state(tmp_path / "s.safetensors")
    assert notes == {"epoch": str(epochs)}
    for key, values in trainer.state.items():
        if key.startswith("parameter/"):
            assert float(np.abs(state[key] - values).max()) <= 1e-4 * max(float(np.abs(values).max()), 1e-30)
    own = trainer.evaluate(rows, targets)
    assert float(told["loss"]) == pytest.approx(own["loss"], rel=1e-4)
    metric = next(value for key, value in told.items() if key != "loss")
    assert float(metric) == pytest.approx(own.get("accuracy", own.get("r2")), abs=0.002)


def test_what_does_not_fit_is_told(tmp_path, example):
    case = Case(tmp_path, "torch-dynamo-documented.onnx")
    (tmp_path / "rows.bin").write_bytes(bytes(100))
    for command, told in (
        ([example], "usage: "),
        ([example, tmp_path, "rows.bin", "rows.bin", "1", "0", "s"], "trainer.json: cannot be read"),
        ([example, case.folder, "rows.bin", "rows.bin", "1", "0", "s"], "rows.bin: no whole rows"),
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1
        assert told in done.stderr


@pytest.mark.parametrize("damage", STRANGE)
def test_a_strangers_state_is_refused(tmp_path, example, small, damage):
    """As a state to go on from: the folder's own is replaced."""
    folder = tmp_path / "trainer"
    shutil.copytree(small.folder, folder)
    (folder / "state.safetensors").write_bytes(STRANGE[damage])
    command = [example, folder, "rows.bin", "rows.bin", "1", "0", "s"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is no file of safetensors" in done.stderr


def test_a_state_that_diverged_is_refused(tmp_path, example, small):
    folder = tmp_path / "trainer"
    shutil.copytree(small.folder, folder)
    state, _ = read_state(folder / "state.safetensors")
    name = next(iter(state))
    state[name] = np.full_like(state[name], np.nan)
    write_state(folder / "state.safetensors", state)
    command = [example, folder, "rows.bin", "rows.bin", "1", "0", "s"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "not finite: the training diverged" in done.stderr


@pytest.mark.parametrize("optimizer", SETTINGS)
def test_dropout_leaves_out_the_same_as_in_python(tmp_path, example, optimizer):
    case = Case(tmp_path, "torch-dynamo-documented.onnx", dropout=0.25, input_dropout=0.1, **SETTINGS[optimizer])
    rows, targets = given(case)
    trainer = Trainer(case.folder)
    losses = [epoch.loss for epoch in trainer.train(rows, targets, epochs=2, seed=2**32 - 3)]
    ((_, values),) = rows.items()
    values.tofile(tmp_path / "rows.bin")
    np.ascontiguousarray(targets).tofile(tmp_path / "targets.bin")
    command = [example, case.folder, "rows.bin", "targets.bin", "2", str(2**32 - 3), "s"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [float(line.rpartition(" ")[2]) for line in done.stdout.splitlines()[:2]] == pytest.approx(losses, rel=1e-5)
