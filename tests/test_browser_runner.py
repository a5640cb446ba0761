"""The JavaScript runner in a browser: Python's numbers, and the accuracy that it told is that of the imported model."""

import json

import numpy as np
import pytest
from onnxsurgeon_runner import Trainer, read_state

from onnxsurgeon import load, save
from onnxsurgeon.training.loop import LoopEngine
from tests.browser import Visit, browser  # noqa: F401 - a fixture
from tests.conftest import wanted
from tests.trainer_page import RUNNER, served  # noqa: F401 (a fixture)
from tests.trainers import PARITY, SETTINGS, Case, fresh, given, largest_difference, whole_epochs

if not wanted("NODE") and not (RUNNER / "node_modules").is_dir():
    pytest.skip("needs `make runners/js/node_modules/installed`", allow_module_level=True)


@pytest.mark.parametrize("optimizer", SETTINGS)
@pytest.mark.parametrize("name", PARITY)
def test_five_hundred_steps_in_chromium_are_those_of_python(tmp_path, served, browser, cli, name, optimizer):  # noqa: F811
    folder, address = served
    model, options = PARITY[name]
    case = Case(tmp_path, fresh(model), **options, **SETTINGS[optimizer])
    (folder / "trainer").symlink_to(case.folder)
    rows, targets = given(case)
    ((_, values),) = rows.items()
    asked = {"options": {"epochs": whole_epochs(name, case), "seed": 4}}
    for key, array in (("rows", values), ("targets", np.asarray(targets))):
        array.tofile(folder / f"{key}.bin")
        asked[key] = {"file": f"/{key}.bin", "dtype": str(array.dtype)}
    (folder / "asked.json").write_text(json.dumps(asked))
    with Visit(browser) as visit:
        visit.page.goto(address)
        found = visit.page.evaluate("() => window.trained")
        assert (visit.errors, visit.elsewhere) == ([], [])
    trainer = Trainer(case.folder)
    losses = [epoch.loss for epoch in trainer.train(rows, targets, **asked["options"])]
    assert found["losses"] == pytest.approx(losses, rel=1e-4)
    (tmp_path / "s.safetensors").write_bytes(bytes(found["state"]))
    state, _ = read_state(tmp_path / "s.safetensors")
    for key, expected in trainer.state.items():
        if key.startswith("parameter/"):
            assert float(np.abs(state[key] - expected).max()) <= 1e-4 * max(float(np.abs(expected).max()), 1e-30)
    # What the browser told is what the model has, once the state is in it.
    save(case.network, tmp_path / "m.onnx")
    code, _, errors = cli("import-state", tmp_path / "m.onnx", tmp_path / "s.safetensors", "-o", tmp_path / "n.onnx")
    assert (code, errors) == (0, "")

    imported = load(tmp_path / "n.onnx")
    metrics = LoopEngine().evaluate(imported, case.examples)
    told = found["metrics"]
    assert told.get("accuracy", told.get("r2")) == pytest.approx(metrics.accuracy, abs=1e-4)
    assert told["loss"] == pytest.approx(metrics.loss, rel=1e-4)
    assert largest_difference(imported, case.network) > 1e-3
