"""The Python runner trains as the loop engine does, and needs onnxruntime and numpy alone."""

import re
import subprocess
import sys

import jsonschema
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from onnxsurgeon_runner import Trainer, TrainerError, order_of, rate_factor, read_state, write_state

from onnxsurgeon import (
    InputOptions,
    ModelError,
    TeacherModel,
    TrainingSettings,
    create,
    export_trainer,
    import_state,
    load,
    save,
)
from onnxsurgeon.deploy import state_file
from onnxsurgeon.training.loop import LoopEngine
from onnxsurgeon.training.rates import SCHEDULES, RateSchedule
from tests.conftest import MODELS, randomised
from tests.trainers import (
    EXPORTS,
    PARITY,
    SCHEMA,
    SETTINGS,
    STRANGE,
    Case,
    fresh,
    given,
    largest_difference,
    whole_epochs,
)

RUNNER = MODELS.parent / "runners" / "python"


ADAMW = TrainingSettings(optimizer="adamw", learning_rate=0.005)


def epochs_of(case, seed, epochs, size=16):
    """The batches that a runner would train on, as arrays of batches of one size."""
    for epoch in range(epochs):
        order = order_of(seed, epoch, case.examples.rows).astype(np.int64)
        full = len(order) // size
        yield order[: full * size].reshape(full, size)
        if full * size < len(order):
            yield order[full * size :].reshape(1, -1)


@pytest.mark.parametrize("optimizer", SETTINGS)
@pytest.mark.parametrize("name", PARITY)
def test_five_hundred_steps_are_those_of_the_engine(tmp_path, name, optimizer):
    model, options = PARITY[name]
    case = Case(tmp_path, fresh(model), **options, **SETTINGS[optimizer])
    epochs = whole_epochs(name, case)
    trainer = Trainer(case.folder)
    rows, targets = given(case)
    done = list(trainer.train(rows, targets, epochs=epochs, seed=4))
    assert sum(len(epoch.losses) for epoch in done) >= (80 if name == "convolutions" else 500)
    spec = case.settings.spec(epochs, 1, report_loss=True)
    expected = LoopEngine().train(case.network, case.examples, epochs_of(case, 4, epochs), spec)
    found = import_state(case.network, trainer.state).network
    assert largest_difference(found, expected.network) <= 1e-4
    metrics = LoopEngine().evaluate(expected.network, case.examples)
    own = trainer.evaluate(rows, targets)
    assert own.get("accuracy", own.get("r2")) == pytest.approx(metrics.accuracy, abs=0.002)
    assert own["loss"] == pytest.approx(metrics.loss, rel=1e-3)


def test_a_saved_state_goes_on_as_if_nothing_had_been(tmp_path):
    case = Case(tmp_path, "torch-dynamo-documented.onnx", optimizer="adamw", learning_rate=0.002, schedule="cosine")
    rows, targets = given(case)
    whole = Trainer(case.folder)
    losses = [epoch.loss for epoch in whole.train(rows, targets, epochs=4, seed=1)]
    first = Trainer(case.folder)
    parts = [epoch.loss for epoch in first.train(rows, targets, epochs=1, seed=1, course=4)]
    first.save(tmp_path / "s.safetensors")
    second = Trainer(case.folder, tmp_path / "s.safetensors")
    parts += [epoch.loss for epoch in second.train(rows, targets, epochs=3, seed=1)]
    assert parts == losses
    assert all(np.array_equal(second.state[name], whole.state[name]) for name in whole.state)
    assert second.epoch == 4


def test_predictions_after_the_training_are_those_of_the_imported_model(tmp_path):
    case = Case(tmp_path, "torch-legacy-batchnorm.onnx", learning_rate=0.05)
    rows, targets = given(case)
    trainer = Trainer(case.folder)
    prepared = trainer.prepare(rows)
    list(trainer.train(prepared, targets))
    save(import_state(case.network, trainer.state).network, tmp_path / "n.onnx")
    ((name, values),) = rows.items()
    pixels = (values / np.float32(16)).astype("f")
    (expected,) = ort.InferenceSession(tmp_path / "n.onnx").run(None, {name: pixels})
    (found,) = trainer.predict(rows).values()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rank", "batch"), [("none", "none"), ("fixed", 4)])
def test_models_for_one_row_or_for_so_many_are_run_so(tmp_path, rank, batch):
    network = randomised(create((6, 5, 3), seed=1, softmax=False))
    save(network, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if rank == "none":
            del dims[0]
        else:
            dims[0].dim_value = 4
    if rank == "none":
        model = without_batch(model)
    onnx.save(model, tmp_path / "m.onnx")
    exported = export_trainer(load(tmp_path / "m.onnx"), tmp_path / "t", options=InputOptions(loss="squared-error"))
    assert exported.description["inputs"][0]["batch"] == batch
    rows = np.random.default_rng(0).standard_normal((10, 6)).astype("f")
    trainer = Trainer(tmp_path / "t")
    (before,) = trainer.predict(rows).values()
    assert before.shape == (10, 3)
    first = trainer.evaluate(rows, before)
    assert first["r2"] == pytest.approx(1, abs=1e-5)
    shifted = trainer.evaluate(rows, before + 1)["r2"]
    list(trainer.train(rows, before + 1, epochs=300, learning_rate=0.05))
    assert shifted < 0 < 0.9 < trainer.evaluate(rows, before + 1)["r2"]


def without_batch(model):
    """A perceptron of Gemm nodes on one row without an axis for it: MatMul and Add."""
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Gemm":
            product = f"{node.output[0]}/product"
            nodes.append(helper.make_node("MatMul", [node.input[0], node.input[1]], [product], name=node.name))
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}/add"))
        else:
            nodes.append(node)
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    return model


@pytest.mark.parametrize("kind", SCHEDULES)
def test_rates_are_the_engines(kind):
    warmup = 0 if kind == "one-cycle" else 7
    expected = RateSchedule(kind, 100, warmup).factors(0, 110)
    assert [rate_factor(kind, position, 100, warmup) for position in range(110)] == expected.tolist()


def test_an_order_is_a_permutation_of_its_own():
    orders = {(seed, epoch): order_of(seed, epoch, 1000) for seed in (0, 1, 2**31) for epoch in range(3)}
    assert all(sorted(order) == list(range(1000)) for order in orders.values())
    assert len({order.tobytes() for order in orders.values()}) == 9
    assert order_of(7, 2, 12).tolist() == [4, 0, 7, 8, 9, 1, 11, 2, 6, 5, 3, 10]
    first = np.array([order[:100].mean() for order in orders.values()])
    assert abs(first.mean() - 500) < 60  # as of random orders: a deviation of 9


def perceptron(tmp_path, **options):
    return export_trainer(randomised(create((6, 5, 3), seed=1)), tmp_path / "t", **options).folder


@pytest.mark.parametrize(
    ("rows", "targets", "told"),
    [
        (np.zeros((9, 5), "f"), np.zeros(9, int), r"takes rows of shape \[6\], not \[5\]"),
        (np.zeros((9, 6), "f"), np.zeros(8, int), r"targets: expected \[9\], found \[8\]"),
        (np.zeros((9, 6), "f"), np.full(9, 3), "whole numbers from 0 to 2"),
        (np.zeros((9, 6), "f"), np.zeros(9, "f"), "whole numbers from 0 to 2"),
        (np.zeros((0, 6), "f"), np.zeros(0, int), "one at least"),
        ({"x": np.zeros((9, 6), "f")}, np.zeros(9, int), "no array for the input"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, rows, targets, told):
    trainer = Trainer(perceptron(tmp_path))
    with pytest.raises(TrainerError, match=told):
        trainer.train(rows, targets)
    with pytest.raises(TrainerError, match=told):
        trainer.evaluate(rows, targets)


def test_rows_that_are_stored_as_bytes_are_given_so(tmp_path):
    trainer = Trainer(perceptron(tmp_path, rows="uint8"))
    x, y = np.random.default_rng(0).integers(0, 256, (20, 6)), np.zeros(20, int)
    assert trainer.evaluate(x, y) == trainer.evaluate(x.astype(np.uint8), y)
    for wrong in (x / 255, x + 1000):
        with pytest.raises(TrainerError, match="uint8"):
            trainer.evaluate(wrong, y)


def test_batches_of_one_size_leave_the_last_rows_out(tmp_path):
    trainer = Trainer(perceptron(tmp_path, batch_size=8, fixed_batch=True))
    x, y = np.ones((20, 6), "f"), np.zeros(20, int)
    (epoch,) = trainer.train(x, y)
    assert len(epoch.losses) == 2
    with pytest.raises(TrainerError, match="8 rows and no other"):
        trainer.train(x, y, batch_size=4)
    with pytest.raises(TrainerError, match="fewer than the 8"):
        list(trainer.train(x[:7], y[:7]))


def test_states_are_files_of_safetensors(tmp_path):
    arrays = {"a": np.arange(6, dtype="f").reshape(2, 3), "steps": np.array(3, np.int32), "d": np.array([0.5])}
    write_state(tmp_path / "s", arrays, {"epoch": "2"})
    assert {name: values.tolist() for name, values in state_file.read(tmp_path / "s").items()} == {
        name: values.tolist() for name, values in arrays.items()
    }
    found, notes = read_state(tmp_path / "s")
    assert notes == {"epoch": "2"}
    assert all(found[name].dtype == arrays[name].dtype and np.array_equal(found[name], arrays[name]) for name in arrays)
    content = (tmp_path / "s").read_bytes()
    for damaged in (b"", content[:5], content[:20], content[:-1], b"\xff" * 8 + content[8:]):
        (tmp_path / "s").write_bytes(damaged)
        with pytest.raises(TrainerError, match="no file of safetensors"):
            read_state(tmp_path / "s")


@pytest.mark.parametrize("damage", STRANGE)
def test_a_strangers_file_is_refused(tmp_path, damage):
    (tmp_path / "s").write_bytes(STRANGE[damage])
    with pytest.raises(TrainerError, match="no file of safetensors"):
        read_state(tmp_path / "s")


def test_a_state_of_another_trainer_is_refused(tmp_path):
    trainer = Trainer(perceptron(tmp_path))
    write_state(tmp_path / "s", {**trainer.state, "parameter/layer1.bias": np.zeros(4, "f")})
    with pytest.raises(TrainerError, match=r"'parameter/layer1.bias' is float32 \[4\], not float32 \[5\]"):
        trainer.load(tmp_path / "s")
    write_state(tmp_path / "s", {**trainer.state, "parameter/layer1.bias": np.zeros(5)})
    with pytest.raises(TrainerError, match=r"'parameter/layer1.bias' is float64 \[5\], not float32 \[5\]"):
        trainer.load(tmp_path / "s")
    write_state(tmp_path / "s", {**trainer.state, "parameter/layer1.bias": np.array([0, 1, np.nan, 3, 4], "f")})
    with pytest.raises(TrainerError, match=r"'parameter/layer1.bias' holds values that are not finite"):
        trainer.load(tmp_path / "s")
    write_state(tmp_path / "s", {"steps": np.array(0, np.int32)})
    with pytest.raises(TrainerError, match=r"lacks 'parameter/layer1\.weight'"):
        trainer.load(tmp_path / "s")


def test_the_example_of_its_readme_runs_without_onnxsurgeon(tmp_path, digits):
    how = TrainingSettings(optimizer="adamw", learning_rate=0.005)
    export_trainer(load(MODELS / "digits-small.onnx"), tmp_path / "trainer", dataset=digits, settings=how)
    rows = digits.train.stored
    np.savez(tmp_path / "digits.npz", x=rows.source[rows.numbers], y=digits.train.labels)
    (code,) = re.findall(r"^```python\n(.*?)^```", (RUNNER / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    blocked = "import sys; sys.modules.update(dict.fromkeys(('onnxsurgeon', 'onnx', 'safetensors')))\n"
    code = f"{blocked}sys.path.insert(0, {str(RUNNER)!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:5]] == [f"epoch {number}" for number in range(1, 6)]
    losses = [float(line.split()[-1]) for line in lines[:5]]
    assert losses == sorted(losses, reverse=True)
    assert (tmp_path / "state.safetensors").exists()


@pytest.mark.parametrize(
    ("student", "teacher", "metric"),
    [
        ("torch-legacy-float16.onnx", "torch-dynamo-residual.onnx", "agreement"),
        ("sklearn-arrays.onnx", "torch-dynamo-documented.onnx", "agreement"),
        ("torch-legacy-binary-sigmoid.onnx", "torch-dynamo-binary-sigmoid.onnx", "agreement"),
        ("torch-legacy-regression.onnx", "torch-dynamo-regression.onnx", "r2"),
        ("torch-legacy-two-heads.onnx", "torch-dynamo-two-heads.onnx", "r2"),
        ("torch-legacy-rank3.onnx", "sklearn-zipmap.onnx", None),
    ],
)
def test_a_teacher_gives_the_targets(tmp_path, student, teacher, metric):
    network = fresh(EXPORTS / student)
    model = TeacherModel.read(EXPORTS / teacher)
    if metric is None:
        with pytest.raises(ModelError, match="none of its outputs is for the head"):
            export_trainer(network, tmp_path / "t", teacher=model)
        return
    how = TrainingSettings(optimizer="adamw", learning_rate=0.005)
    exported = export_trainer(network, tmp_path / "t", teacher=model, settings=how, step=True)
    jsonschema.validate(exported.description, SCHEMA)
    (each,) = exported.description["inputs"]
    x = np.random.default_rng(0).standard_normal((400, *each["shape"])).astype(each["dtype"])
    trainer = Trainer(tmp_path / "t")
    targets = trainer.taught(x)
    own = ort.InferenceSession(EXPORTS / teacher)
    taken = x.reshape(len(x), *own.get_inputs()[0].shape[1:]).astype("f")
    said = own.run([own.get_outputs()[0].name], {own.get_inputs()[0].name: taken})[0]
    if metric == "agreement" and targets[0].shape[1] > 1 and said.min() < 0:
        said = np.exp(said) / np.exp(said).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(targets[0], said, rtol=1e-3, atol=1e-4)
    before = trainer.evaluate(x)
    list(trainer.train(x, epochs=15))
    after = trainer.evaluate(x, targets if len(targets) > 1 else targets[0])
    assert after["loss"] < before["loss"]
    assert after[metric] > before[metric]
    with pytest.raises(TrainerError, match="wants the rows themselves"):
        trainer.train(trainer.prepare(x))


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ("torch-legacy-float16.onnx", "torch-dynamo-residual.onnx"),  # logits
        ("sklearn-arrays.onnx", "torch-dynamo-documented.onnx"),  # probabilities
        ("torch-legacy-binary-sigmoid.onnx", "torch-dynamo-binary-sigmoid.onnx"),
    ],
)
def test_a_teachers_classes_are_softened_as_in_training(tmp_path, student, teacher):
    network, model = fresh(EXPORTS / student), TeacherModel.read(EXPORTS / teacher)
    targets = []
    for temperature in (1.0, 4.0):
        exported = export_trainer(
            network, tmp_path / f"t{temperature}", teacher=model, temperature=temperature, settings=ADAMW
        )
        (each,) = exported.description["inputs"]
        x = (0.2 * np.random.default_rng(0).standard_normal((300, *each["shape"]))).astype(each["dtype"])
        trainer = Trainer(exported.folder)
        targets.append(trainer.taught(x)[0].astype(np.float64))
        before = trainer.evaluate(x)
        list(trainer.train(x, epochs=10))
        assert trainer.evaluate(x)["loss"] < before["loss"]
    sharp, soft = targets
    if sharp.shape[1] > 1:
        expected = sharp**0.25 / (sharp**0.25).sum(axis=1, keepdims=True)
    else:
        expected = sharp**0.25 / (sharp**0.25 + (1 - sharp) ** 0.25)
    told = (sharp > 1e-5) & (sharp < 1 - 1e-5)  # elsewhere float32 has rounded what there was to soften
    assert told.any()
    np.testing.assert_allclose(soft[told], expected[told], rtol=5e-3)
    assert soft[told].max() < sharp[told].max()
    # T² CE(softened, softmax(z / T)), of the network as it was trained: at 4 the gradient is of the same size as at 1.
    x, trainer = x[:50], Trainer(tmp_path / "t4.0")
    (outputs, *_) = (values for values in trainer.predict(x).values() if values.dtype.kind == "f")
    if sharp.shape[1] > 1:
        z = np.log(outputs.astype(np.float64)) if outputs.min() >= 0 else outputs.astype(np.float64)
        q = np.exp(z / 4) / np.exp(z / 4).sum(axis=1, keepdims=True)
        loss = -16 * (soft[:50] * np.log(q)).sum(axis=1).mean()
        assert trainer.evaluate(x)["loss"] == pytest.approx(loss, rel=1e-3)


def test_without_a_teacher_targets_are_needed(tmp_path):
    with pytest.raises(TrainerError, match="no teacher"):
        Trainer(perceptron(tmp_path)).train(np.zeros((9, 6), "f"))
