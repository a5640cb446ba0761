"""The C++ runner gives the Python runner's numbers, where ONNX Runtime's C header and library are told.

ONNXRUNTIME_INCLUDE=…/include ONNXRUNTIME_LIBRARY=…/libonnxruntime.so pytest tests/test_cpp_runner.py
"""

import os
import shutil
import subprocess

import numpy as np
import pytest
from onnxsurgeon_runner import Trainer, read_state

from tests.conftest import MODELS
from tests.test_python_runner import PARITY, SETTINGS, fresh, given
from tests.test_train_anywhere import Case

RUNNER = MODELS.parent / "runners" / "cpp"
TOLD = [os.environ.get(name, "") for name in ("ONNXRUNTIME_INCLUDE", "ONNXRUNTIME_LIBRARY")]
if not all(TOLD) or shutil.which("cmake") is None:
    pytest.skip("needs CMake, and where ONNX Runtime's header and library are", allow_module_level=True)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cpp")
    options = [f"-DONNXRUNTIME_INCLUDE={TOLD[0]}", f"-DONNXRUNTIME_LIBRARY={TOLD[1]}", "-DCMAKE_BUILD_TYPE=Release"]
    for command in (["cmake", *options, str(RUNNER)], ["cmake", "--build", "."]):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning:" not in done.stderr
    return folder / "example"


@pytest.mark.parametrize("optimizer", SETTINGS)
@pytest.mark.parametrize("name", PARITY)
def test_five_hundred_steps_are_those_of_python(tmp_path, example, name, optimizer):
    model, options = PARITY[name]
    case = Case(tmp_path, fresh(model), **options, schedule="cosine", **SETTINGS[optimizer])
    epochs = -(-500 // -(-case.examples.rows // 16))
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
