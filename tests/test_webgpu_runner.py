"""The JavaScript runner on WebGPU, by step.onnx; its own module, since its browser is started otherwise."""

import json

import numpy as np
import pytest
from onnxsurgeon_runner import Trainer, read_state

from tests.browser import Visit, chromium
from tests.conftest import MODELS
from tests.trainer_page import PAGE, served  # noqa: F401 - a fixture
from tests.trainers import SETTINGS, Case, fresh, given


@pytest.mark.parametrize("dropouts", [{}, {"dropout": 0.25, "input_dropout": 0.1}], ids=["whole", "dropout"])
def test_steps_on_webgpu_are_those_of_python(tmp_path, served, dropouts):  # noqa: F811
    """By a GPU made of software: what is found is the numbers, not the speed."""
    folder, address = served
    case = Case(tmp_path, fresh(MODELS / "digits-small.onnx"), **SETTINGS["adamw"], **dropouts)
    assert "step" in case.description["files"]
    (folder / "trainer").symlink_to(case.folder)
    (folder / "index.html").write_text(PAGE.replace("BUNDLE", "ort.webgpu.bundle.min.mjs"))
    rows, targets = given(case)
    ((name, values),) = rows.items()
    rows, targets = {name: values[:320]}, targets[:320]
    asked = {"options": {"epochs": 2, "seed": 4}, "providers": ["webgpu"]}
    for key, array in (("rows", rows[name]), ("targets", targets)):
        array.tofile(folder / f"{key}.bin")
        asked[key] = {"file": f"/{key}.bin", "dtype": str(array.dtype)}
    (folder / "asked.json").write_text(json.dumps(asked))
    software = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--use-vulkan=swiftshader"]
    with chromium("--enable-features=Vulkan", "--disable-vulkan-surface", *software) as own, Visit(own) as visit:
        visit.page.goto(address)
        if not visit.page.evaluate("async () => Boolean(await navigator.gpu?.requestAdapter())"):
            pytest.skip("this browser has no WebGPU")
        found = visit.page.evaluate("() => window.trained")
        assert visit.elsewhere == []
    trainer = Trainer(case.folder)
    losses = [epoch.loss for epoch in trainer.train(rows, targets, **asked["options"])]
    assert found["losses"] == pytest.approx(losses, rel=1e-4)
    (tmp_path / "s.safetensors").write_bytes(bytes(found["state"]))
    state, _ = read_state(tmp_path / "s.safetensors")
    for key, expected in trainer.state.items():
        np.testing.assert_allclose(state[key], expected, rtol=1e-3, atol=1e-5, err_msg=key)
