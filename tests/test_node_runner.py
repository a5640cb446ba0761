"""The JavaScript runner, in Node with both of its runtimes: the Python runner's numbers; its package, installed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnxsurgeon_runner import Trainer, read_state

from onnxsurgeon import InputOptions, TrainingSettings, export_trainer, load, load_dataset
from tests.conftest import MODELS, wanted
from tests.trainers import CASES, EXPORTS, PARITY, SETTINGS, STRANGE, Case, fresh, given, whole_epochs

RUNNER = MODELS.parent / "runners" / "js"
if not wanted("NODE") and (shutil.which("node") is None or not (RUNNER / "node_modules").is_dir()):
    pytest.skip("needs Node and `make runners/js/node_modules/installed`", allow_module_level=True)

SCRIPT = """
import { readFileSync, writeFileSync } from 'node:fs';
const { Trainer } = await import(process.env.RUNNER + '/src/index.js');
const { fromFolder } = await import(process.env.RUNNER + '/src/node.js');
const asked = JSON.parse(readFileSync('asked.json', 'utf8'));
const ort = await import(process.env.RUNNER + '/node_modules/' + asked.runtime);
if (ort.env?.wasm) ort.env.wasm.numThreads = 1;
const KINDS = {
  uint8: Uint8Array, float32: Float32Array, float64: Float64Array, int32: Int32Array, int64: BigInt64Array,
};
const read = ({ file, dtype, shape }) => {
  if (dtype === 'string') return { data: JSON.parse(readFileSync(file, 'utf8')), shape };
  return { data: new KINDS[dtype](new Uint8Array(readFileSync(file)).buffer), shape };
};
const rows = Object.fromEntries(Object.entries(asked.rows).map(([name, each]) => [name, read(each)]));
const targets = asked.targets.length === 1 ? read(asked.targets[0]) : asked.targets.map(read);
const trainer = await Trainer.load(fromFolder(asked.folder), { ort, step: asked.step });
const losses = [];
for await (const epoch of trainer.train(rows, targets, asked.options)) losses.push(epoch.loss);
writeFileSync('state.safetensors', trainer.save());
const predicted = await trainer.predict(rows);
const plain = (value) => (typeof value === 'bigint' ? Number(value) : value);
const outputs = {};
for (const [name, { shape, data }] of Object.entries(predicted)) {
  outputs[name] = { shape, data: Array.from(data, plain) };
}
writeFileSync('found.json', JSON.stringify({ losses, metrics: await trainer.evaluate(rows, targets), outputs }));
await trainer.release();
"""
# V8's optimizing compiler would work on the runtime of 12 MB for three seconds, and 500 steps take half of one. The
# README's example is run without this.
QUICK = "--liftoff-only"
RUNTIMES = {"wasm": "onnxruntime-web/dist/ort.node.min.mjs", "native": "onnxruntime-node/dist/index.js"}


def node(folder, *arguments, **environment):
    return subprocess.run(
        ["node", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "RUNNER": str(RUNNER), **environment},
        timeout=300,
    )


def written(folder, name, values):
    """An array as a file that the script reads."""
    file = folder / f"{name}.bin"
    if values.dtype.kind in "OU":
        file.write_text(json.dumps([str(value) for value in values.reshape(-1)]))
        return {"file": str(file), "dtype": "string", "shape": list(values.shape)}
    file.write_bytes(np.ascontiguousarray(values).tobytes())
    return {"file": str(file), "dtype": str(values.dtype), "shape": list(values.shape)}


def trained_in_node(case, folder, runtime, *, step=False, **options):
    """The state, losses, metrics and predictions of a training in Node."""
    folder.mkdir(exist_ok=True)
    rows, targets = given(case)
    heads = targets if isinstance(targets, list) else [targets]
    asked = {
        "runtime": RUNTIMES[runtime],
        "folder": str(case.folder),
        "step": step,
        "rows": {name: written(folder, f"rows{i}", values) for i, (name, values) in enumerate(rows.items())},
        "targets": [written(folder, f"targets{i}", values) for i, values in enumerate(heads)],
        "options": options,
    }
    (folder / "asked.json").write_text(json.dumps(asked))
    (folder / "script.mjs").write_text(SCRIPT)
    done = node(folder, QUICK, "script.mjs")
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "found.json").read_text())
    state, notes = read_state(folder / "state.safetensors")
    return state, found, notes


def difference(state, other):
    """The largest difference of a weight, relative to its tensor's largest."""
    names = [name for name in state if name.startswith("parameter/")]
    return max(float(np.abs(state[n] - other[n]).max() / max(np.abs(other[n]).max(), 1e-30)) for n in names)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("optimizer", SETTINGS)
@pytest.mark.parametrize("name", PARITY)
def test_five_hundred_steps_are_those_of_python(tmp_path, name, optimizer, runtime):
    model, options = PARITY[name]
    case = Case(tmp_path, fresh(model), **options, **SETTINGS[optimizer])
    epochs = whole_epochs(name, case)
    trainer = Trainer(case.folder)
    rows, targets = given(case)
    losses = [epoch.loss for epoch in trainer.train(rows, targets, epochs=epochs, seed=4)]
    state, found, notes = trained_in_node(case, tmp_path / "node", runtime, epochs=epochs, seed=4)
    assert difference(state, trainer.state) <= 1e-4
    assert found["losses"] == pytest.approx(losses, rel=1e-4)
    own = trainer.evaluate(rows, targets)
    assert found["metrics"].keys() == own.keys()
    for key, value in own.items():
        assert found["metrics"][key] == pytest.approx(value, abs=0.002)
    assert notes == {"epoch": str(epochs)}
    for name, values in trainer.predict(rows).items():
        assert found["outputs"][name]["shape"] == list(values.shape)
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found["outputs"][name]["data"], values.reshape(-1), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_dropout_leaves_out_the_same_everywhere(tmp_path, runtime):
    how = {"learning_rate": 0.01, "dropout": 0.25, "input_dropout": 0.1}
    case = Case(tmp_path, "torch-dynamo-documented.onnx", **how)
    rows, targets = given(case)
    trainer = Trainer(case.folder)
    losses = [epoch.loss for epoch in trainer.train(rows, targets, epochs=3, seed=2**32 - 7)]
    for step in (False, True):
        state, found, _ = trained_in_node(case, tmp_path / f"{step}", runtime, step=step, epochs=3, seed=2**32 - 7)
        assert difference(state, trainer.state) <= 1e-4
        assert found["losses"] == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize("name", ["torch-dynamo-documented.onnx", "torch-legacy-float16.onnx", "sklearn-float64.onnx"])
def test_node_writes_the_model_and_python_reads_it(tmp_path, name):
    path = EXPORTS / name
    network, dataset = load(path), load_dataset("digits", networks=(load(path),))
    how = TrainingSettings(optimizer="adamw", learning_rate=0.002)
    export_trainer(network, tmp_path / "t", dataset=dataset, settings=how, file=path)
    split = dataset.train.stored
    rows, labels = split.source[split.numbers][:400], dataset.train.labels[:400]
    rows.tofile(tmp_path / "rows.bin")
    labels.astype(np.int32).tofile(tmp_path / "labels.bin")
    script = """
    import { readFileSync, writeFileSync } from 'node:fs';
    const { Trainer } = await import(process.env.RUNNER + '/src/index.js');
    const { fromFolder } = await import(process.env.RUNNER + '/src/node.js');
    const ort = await import(process.env.RUNNER + '/node_modules/onnxruntime-node/dist/index.js');
    const trainer = await Trainer.load(fromFolder('t'), { ort });
    const rows = new Uint8Array(readFileSync('rows.bin'));
    const labels = new Int32Array(new Uint8Array(readFileSync('labels.bin')).buffer);
    for await (const _ of trainer.train(rows, labels, { epochs: 2 }));
    writeFileSync('patched.onnx', trainer.patchModel(new Uint8Array(readFileSync(process.env.MODEL))));
    writeFileSync('s.safetensors', trainer.save());
    const found = await trainer.predict(rows);
    const told = Object.entries(found).map(([name, { data }]) => [name, Array.from(data, Number)]);
    console.log(JSON.stringify(Object.fromEntries(told)));
    """
    (tmp_path / "s.mjs").write_text(script)
    done = node(tmp_path, "s.mjs", MODEL=str(path))
    assert (done.returncode, done.stderr) == (0, "")
    trainer = Trainer(tmp_path / "t", tmp_path / "s.safetensors")
    content = (tmp_path / "patched.onnx").read_bytes()
    assert content == trainer.patch_model(path.read_bytes())  # byte by byte what the Python runner writes
    assert content != path.read_bytes()
    session = onnxruntime.InferenceSession(content)
    (value,) = session.get_inputs()
    kind = {"tensor(float)": "f", "tensor(float16)": np.float16, "tensor(double)": np.float64}[value.type]
    pixels = (rows / 16).astype(kind).reshape(len(rows), *value.shape[1:])
    names = [each.name for each in session.get_outputs()]
    told = json.loads(done.stdout)
    for output, values in zip(names, session.run(names, {value.name: pixels}), strict=True):
        if isinstance(values, np.ndarray) and values.dtype.kind == "f" and output in told:
            rtol = 2e-2 if values.dtype == np.float16 else 1e-4
            given = np.array(told[output])
            if values.dtype == np.float16:  # which JavaScript has as bits
                given = given.astype(np.uint16).view(np.float16)
            np.testing.assert_allclose(values.reshape(-1), given, rtol=rtol, atol=rtol / 10)


def test_float16_is_rounded_as_numpy_does(tmp_path):
    """Ties to even, subnormals, the largest; what float16 cannot hold is refused."""
    path = EXPORTS / "torch-legacy-float16.onnx"
    exported = export_trainer(load(path), tmp_path / "t", options=InputOptions(loss="cross-entropy"), file=path)
    trainer = Trainer(exported.folder)
    name = next(each["name"] for each in exported.description["state"] if each["shape"][1:])
    rng, shape = np.random.default_rng(0), trainer.state[name].shape
    values = (rng.standard_normal(shape) * 2.0 ** rng.integers(-30, 15, shape)).astype("f").reshape(-1)
    special = [
        65519.996,
        -65504,
        2**-24,
        2**-25,
        1.5 * 2**-24,
        2.5 * 2**-24,
        2**-14,
        2**-14 - 2**-25,
        1 + 2**-11,
        0.0,
        -0.0,
    ]
    values[: len(special)] = special
    values[20:40] = 1 + np.arange(20) * 2.0**-11
    trainer.state[name] = values.reshape(shape)
    trainer.save(tmp_path / "s.safetensors")
    script = """
    import { readFileSync, writeFileSync } from 'node:fs';
    const { Trainer } = await import(process.env.RUNNER + '/src/index.js');
    const { fromFolder } = await import(process.env.RUNNER + '/src/node.js');
    const ort = await import(process.env.RUNNER + '/node_modules/onnxruntime-node/dist/index.js');
    const trainer = await Trainer.load(fromFolder('t'), { ort, state: new Uint8Array(readFileSync('s.safetensors')) });
    const model = new Uint8Array(readFileSync(process.env.MODEL));
    writeFileSync('patched.onnx', trainer.patchModel(model));
    trainer.state[process.env.NAME].data[3] = 65520;
    try { trainer.patchModel(model); } catch (error) { console.log(error.message); }
    """
    (tmp_path / "s.mjs").write_text(script)
    done = node(tmp_path, "s.mjs", MODEL=str(path), NAME=name)
    assert (done.returncode, done.stderr) == (0, "")
    assert "is 65520 in the state, which float16 cannot hold" in done.stdout
    assert (tmp_path / "patched.onnx").read_bytes() == trainer.patch_model(path.read_bytes())


def test_a_strangers_states_are_refused(tmp_path):
    for name, content in STRANGE.items():
        (tmp_path / f"{name}.bin").write_bytes(content)
    script = """
    import { readdirSync, readFileSync } from 'node:fs';
    const { TrainerError, readState } = await import(process.env.RUNNER + '/src/index.js');
    for (const name of readdirSync('.').filter((each) => each.endsWith('.bin'))) {
      try { readState(new Uint8Array(readFileSync(name))); console.log(`${name}: taken`); } catch (error) {
        console.log(`${name}: ${error instanceof TrainerError}`);
      }
    }
    """
    (tmp_path / "s.mjs").write_text(script)
    done = node(tmp_path, "s.mjs")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == sorted(f"{name}.bin: true" for name in STRANGE)


@pytest.mark.parametrize("name", ["two inputs", "two heads", "names", "float64", "three axes"])
def test_other_models(tmp_path, name):
    model, options = CASES[name]
    case = Case(tmp_path, model, **options, **SETTINGS["adamw"])
    trainer = Trainer(case.folder)
    rows, targets = given(case)
    list(trainer.train(rows, targets, epochs=2))
    state, found, _ = trained_in_node(case, tmp_path / "node", "native", epochs=2)
    assert difference(state, trainer.state) <= 1e-4
    for key, value in trainer.evaluate(rows, targets).items():
        assert found["metrics"][key] == pytest.approx(value, abs=0.002)


def test_steps_without_a_loop_are_the_same(tmp_path):
    case = Case(tmp_path, "torch-dynamo-residual.onnx", schedule="one-cycle", **SETTINGS["adamw"])
    state, found, _ = trained_in_node(case, tmp_path / "loop", "wasm", epochs=1, stepsPerRun=7)
    other, alike, _ = trained_in_node(case, tmp_path / "step", "wasm", step=True, epochs=1)
    assert difference(state, other) <= 1e-6
    assert found["losses"] == pytest.approx(alike["losses"], rel=1e-5)


def test_orders_and_rates_are_those_of_python(tmp_path):
    from onnxsurgeon_runner import order_of, rate_factor

    script = """
    const { orderOf, rateFactor } = await import(process.env.RUNNER + '/src/index.js');
    const rowsOf = (count) => [...Array(count).keys()];
    const kinds = ['constant', 'linear', 'cosine', 'step', 'one-cycle'];
    console.log(JSON.stringify({
      orders: [[0, 0, 50], [7, 2, 50], [2 ** 32 - 1, 9, 1000]].map((each) => Array.from(orderOf(...each))),
      long: Array.from(orderOf(1, 1, 2 ** 21 + 5).subarray(0, 9)),
      rates: kinds.map((kind) => rowsOf(25).map((i) => rateFactor(kind, i, 20, kind === 'one-cycle' ? 0 : 3))),
    }));
    """
    (tmp_path / "s.mjs").write_text(script)
    done = node(tmp_path, "s.mjs")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["orders"] == [order_of(*each).tolist() for each in ((0, 0, 50), (7, 2, 50), (2**32 - 1, 9, 1000))]
    assert found["long"] == order_of(1, 1, 2**21 + 5)[:9].tolist()
    kinds = ("constant", "linear", "cosine", "step", "one-cycle")
    expected = [[rate_factor(k, i, 20, 0 if k == "one-cycle" else 3) for i in range(25)] for k in kinds]
    np.testing.assert_allclose(found["rates"], expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("trainer.evaluate(new Float32Array(9 * 5 + 1), new Int32Array(9))", "no whole rows"),
        (
            "trainer.evaluate({ data: new Uint8Array(45), shape: [9, 5] }, new Int32Array(9))",
            "expected rows of shape [8,8]",
        ),
        ("trainer.evaluate(new Uint8Array(64 * 9), new Int32Array(8))", "targets: 8 rows for 9"),
        ("trainer.evaluate(new Uint8Array(64 * 9), new Int32Array(9).fill(10))", "10 is no class from 0 to 9"),
        ("trainer.evaluate(new Float32Array(64 * 9).fill(0.5), new Int32Array(9))", "0.5 at 0 is no uint8"),
        ("trainer.evaluate({ x: new Uint8Array(64) }, new Int32Array(1))", "no array for the input"),
        ("trainer.restore(new Uint8Array(5))", "no file of safetensors"),
        (
            "(trainer.state[trainer.description.state[0].name].data[3] = NaN, trainer.restore(trainer.save()))",
            "holds values that are not finite: the training diverged",
        ),
        ("trainer.patchModel(new Uint8Array(50))", "use onnxsurgeon import-state"),
        ("trainer.restore(trainer.save().subarray(0, 900))", "no file of safetensors"),
        ("Trainer.load({ 'trainer.json': new TextEncoder().encode('{}') }, { ort })", "no trainer of version 1"),
        (
            "trainer.train(new Uint8Array(64 * 9), new Int32Array(9), { batchSize: 4 }).next()",
            "batches of 16 rows alone",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, digits, call, told):
    export_trainer(load(MODELS / "digits-small.onnx"), tmp_path / "t", dataset=digits, fixed_batch=True)
    script = f"""
    const {{ Trainer, TrainerError }} = await import(process.env.RUNNER + '/src/index.js');
    const {{ fromFolder }} = await import(process.env.RUNNER + '/src/node.js');
    const ort = await import(process.env.RUNNER + '/node_modules/onnxruntime-node/dist/index.js');
    const trainer = await Trainer.load(fromFolder('t'), {{ ort }});
    try {{ await {call}; }} catch (error) {{ console.log(error instanceof TrainerError, error.message); }}
    """
    (tmp_path / "s.mjs").write_text(script)
    done = node(tmp_path, "s.mjs")
    assert done.stdout.startswith("true "), done.stdout + done.stderr
    assert told in done.stdout


def test_the_package_is_installed_in_an_empty_folder_and_its_readmes_example_runs(tmp_path, digits):
    npm = {"capture_output": True, "text": True, "check": True, "timeout": 300}
    packed = subprocess.run(["npm", "pack", "--json", "--pack-destination", str(tmp_path)], cwd=RUNNER, **npm)
    (package,) = json.loads(packed.stdout)
    files = {each["path"] for each in package["files"]}
    assert {"README.md", "src/index.js", "src/index.d.ts", "src/node.js", "src/node.d.ts", "package.json"} <= files
    assert not any(path.startswith(("test", "examples", "node_modules")) for path in files)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "package.json").write_text('{"name": "empty", "version": "1.0.0", "private": true}\n')
    offline = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", "--legacy-peer-deps"]
    subprocess.run(["npm", "install", *offline, str(tmp_path / package["filename"])], cwd=empty, **npm)
    for peer in (each for each in (RUNNER / "node_modules").iterdir() if not each.name.startswith(".")):
        (empty / "node_modules" / peer.name).symlink_to(peer)
    how = TrainingSettings(optimizer="adamw", learning_rate=0.005)
    export_trainer(load(MODELS / "digits-small.onnx"), empty / "trainer", dataset=digits, settings=how)
    rows = digits.train.stored
    data = {"x": rows.source[rows.numbers].reshape(-1).tolist(), "y": digits.train.labels.tolist()}
    (empty / "digits.json").write_text(json.dumps(data))
    (code, *_) = re.findall(r"^```js\n(.*?)^```", (RUNNER / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (empty / "example.mjs").write_text(code)
    done = node(empty, "example.mjs")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    losses = [float(line.rpartition(" ")[2]) for line in lines[:5]]
    assert losses == sorted(losses, reverse=True)
    assert lines[-1] == "[ 3, 10 ]"
    trainer = Trainer(empty / "trainer")
    list(trainer.train(np.array(data["x"]).reshape(-1, 8, 8), np.array(data["y"]), epochs=5))
    assert difference(read_state(empty / "state.safetensors")[0], trainer.state) <= 1e-4


def test_the_types_are_those_of_the_code(tmp_path):
    """TypeScript accepts a use of every name, and refuses a wrong one."""
    use = """
import { Trainer, TrainerError, Prepared, patchModel } from 'onnxsurgeon-runner';
import { orderOf, rateFactor, readState, writeState } from 'onnxsurgeon-runner';
import type { Epoch } from 'onnxsurgeon-runner';
import { fromFolder, saveTo } from 'onnxsurgeon-runner/node';
const trainer: Trainer = await Trainer.load(fromFolder('t'), { session: {}, step: true });
const prepared: Prepared = await trainer.prepare(new Float32Array(6));
const options = { epochs: 2, onSteps: ({ done, steps }: { done: number; steps: number }) => done / steps };
for await (const epoch of trainer.train(prepared, ['no', 'yes'], options)) {
  const one: Epoch = epoch;
}
const { accuracy, loss } = await trainer.evaluate({ x: { data: new Uint8Array(4), shape: [2, 2] } }, [0, 1]);
await saveTo('s', writeState(readState(trainer.save()).arrays, { epoch: '1' }));
patchModel(trainer.patchModel(new Uint8Array(4)), trainer.description, trainer.state);
orderOf(0, 1, 5).length + rateFactor('cosine', 1, 2) + (accuracy ?? 0) + loss;
if (trainer.description.targets[0].loss === 'squared-error') throw new TrainerError('no');
"""
    folder = tmp_path / "node_modules"
    folder.mkdir()
    (folder / "onnxsurgeon-runner").symlink_to(RUNNER)
    (tmp_path / "use.ts").write_text(use)
    wrong = "trainer.train(new Float32Array(6), [0], { epoch: 2 });"
    (tmp_path / "wrong.ts").write_text(f"{use}{wrong}\n")
    compiler = RUNNER / "node_modules" / "typescript" / "bin" / "tsc"
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom"]
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (told,) = node(tmp_path, compiler, *options, "use.ts", "wrong.ts").stdout.splitlines()  # nothing about use.ts
    assert told.startswith(f"wrong.ts({use.count(chr(10)) + 1},")
    assert "'epoch' does not exist" in told


def test_the_example_file_is_the_readmes():
    (code, *_) = re.findall(r"^```js\n(.*?)^```", (RUNNER / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert (RUNNER / "examples" / "digits.mjs").read_text() == code


def test_what_the_package_exports_is_there():
    described = json.loads((RUNNER / "package.json").read_text())
    for each in described["exports"].values():
        assert all((RUNNER / Path(path)).is_file() for path in each.values())


def test_two_clients_and_a_server_that_averages(tmp_path, digits):
    federated = RUNNER.parent / "federated"
    network = fresh(MODELS / "digits-small.onnx")
    how = TrainingSettings(optimizer="adamw", learning_rate=0.005)
    export_trainer(network, tmp_path / "trainer", dataset=digits, settings=how)
    rows = digits.train.stored
    x, y = rows.source[rows.numbers], digits.train.labels
    halves = np.argsort(y, kind="stable").reshape(-1)  # each client knows five of the digits well
    parts = {"a": halves[:600], "b": halves[600:]}
    for name, part in parts.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"x": x[part].reshape(-1).tolist(), "y": y[part].tolist()}))
    modules = tmp_path / "node_modules"
    modules.mkdir()
    (modules / "onnxsurgeon-runner").symlink_to(RUNNER)
    for peer in (each for each in (RUNNER / "node_modules").iterdir() if not each.name.startswith(".")):
        (modules / peer.name).symlink_to(peer)
    shutil.copy(federated / "client.mjs", tmp_path)
    command = [sys.executable, str(federated / "server.py"), "trainer", "2", "12", "mean.safetensors"]
    environment = {**os.environ, "PYTHONPATH": str(RUNNER.parent / "python")}
    server = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    clients = []
    try:
        port = server.stdout.readline().strip()
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        clients += [
            subprocess.Popen(
                ["node", QUICK, "client.mjs", "trainer", port, "12", f"{name}.json"], cwd=tmp_path, **pipes
            )
            for name in parts
        ]
        for client in clients:
            told, errors = client.communicate(timeout=240)
            assert (client.returncode, errors) == (0, "")
            assert told.startswith("round 1: loss ")
        assert server.wait(timeout=60) == 0
    finally:
        for each in (server, *clients):
            each.kill()
            each.wait()
        server.stdout.close()
    mean = Trainer(tmp_path / "trainer", tmp_path / "mean.safetensors").evaluate(x, y)["accuracy"]
    alone = []
    for part in parts.values():
        trainer = Trainer(tmp_path / "trainer")
        list(trainer.train(x[part], y[part], epochs=12))
        alone.append(trainer.evaluate(x, y)["accuracy"])
    assert max(alone) < 0.65 < 0.8 < mean
