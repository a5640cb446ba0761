"""The JavaScript runner in headless Chromium, by onnxruntime-web's WebAssembly: the Python runner's numbers."""

import json
import re
import shutil

import pytest
from onnxsurgeon_runner import Trainer

from onnxsurgeon.deploy import state_file
from tests.browser import Visit, browser  # noqa: F401 (a fixture)
from tests.test_demo_page import served
from tests.test_node_runner import RUNNER, SCRIPT, difference, written
from tests.test_python_runner import PARITY, SETTINGS, fresh, given
from tests.test_train_anywhere import CASES, Case

PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script type="module">
import * as ort from './ort/ort.wasm.bundle.min.mjs';
import { Trainer } from './runner/index.js';
ort.env.wasm.wasmPaths = { wasm: new URL('ort/ort-wasm-simd-threaded.wasm', import.meta.url).href };
ort.env.wasm.numThreads = 1;
KINDS
const read = async ({ file, dtype, shape }) => {
  const answer = await fetch(file);
  if (dtype === 'string') return { data: await answer.json(), shape };
  return { data: new KINDS[dtype](await answer.arrayBuffer()), shape };
};
globalThis.trained = async (asked) => {
  const rows = {};
  for (const [name, each] of Object.entries(asked.rows)) rows[name] = await read(each);
  const heads = await Promise.all(asked.targets.map(read));
  const targets = heads.length === 1 ? heads[0] : heads;
  const trainer = await Trainer.load('./trainer', { ort });
  const losses = [];
  for await (const epoch of trainer.train(rows, targets, asked.options)) losses.push(epoch.loss);
  return { losses, metrics: await trainer.evaluate(rows, targets), state: Array.from(trainer.save()) };
};
</script>"""


def trained_in_chromium(browser, case, folder, **options):  # noqa: F811
    """The state, losses and metrics of a training in the browser; nothing is asked of other hosts."""
    folder.mkdir()
    rows, targets = given(case)
    heads = targets if isinstance(targets, list) else [targets]
    arrays = {name: written(folder, f"rows{i}", values) for i, (name, values) in enumerate(rows.items())}
    asked = {
        "rows": arrays,
        "targets": [written(folder, f"targets{i}", values) for i, values in enumerate(heads)],
        "options": options,
    }
    for each in (*arrays.values(), *asked["targets"]):
        each["file"] = each["file"].rpartition("/")[2]
    kinds = re.search(r"const KINDS = \{.*?\};", SCRIPT, re.DOTALL)[0]
    (folder / "index.html").write_text(PAGE.replace("KINDS\n", f"{kinds}\n", 1))
    (folder / "ort").symlink_to(RUNNER / "node_modules" / "onnxruntime-web" / "dist")
    (folder / "runner").symlink_to(RUNNER / "src")
    shutil.copytree(case.folder, folder / "trainer")
    with served(folder) as address, Visit(browser) as visit:
        visit.page.goto(address)
        visit.page.wait_for_function("globalThis.trained !== undefined")
        found = json.loads(visit.page.evaluate("asked => trained(asked).then(JSON.stringify)", asked))
        assert visit.errors == []
        assert visit.elsewhere == []
    (folder / "state.safetensors").write_bytes(bytes(found["state"]))
    return state_file.read(folder / "state.safetensors"), found


@pytest.mark.parametrize("optimizer", SETTINGS)
@pytest.mark.parametrize("name", PARITY)
def test_five_hundred_steps_are_those_of_python(browser, tmp_path, name, optimizer):  # noqa: F811
    model, options = PARITY[name]
    case = Case(tmp_path, fresh(model), **options, **SETTINGS[optimizer])
    epochs = -(-500 // -(-case.examples.rows // 16))
    trainer = Trainer(case.folder)
    rows, targets = given(case)
    losses = [epoch.loss for epoch in trainer.train(rows, targets, epochs=epochs, seed=4)]
    state, found = trained_in_chromium(browser, case, tmp_path / "page", epochs=epochs, seed=4)
    assert difference(state, trainer.state) <= 1e-4
    assert found["losses"] == pytest.approx(losses, rel=1e-4)
    own = trainer.evaluate(rows, targets)
    assert found["metrics"].keys() == own.keys()
    for key, value in own.items():
        assert found["metrics"][key] == pytest.approx(value, abs=0.002)


def test_names_of_classes_and_texts_pass(browser, tmp_path):  # noqa: F811
    model, options = CASES["names"]
    case = Case(tmp_path, model, **options, **SETTINGS["adamw"])
    trainer = Trainer(case.folder)
    rows, targets = given(case)
    list(trainer.train(rows, targets, epochs=2))
    state, found = trained_in_chromium(browser, case, tmp_path / "page", epochs=2)
    assert difference(state, trainer.state) <= 1e-4
    assert found["metrics"]["accuracy"] == pytest.approx(trainer.evaluate(rows, targets)["accuracy"], abs=0.002)
