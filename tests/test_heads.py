"""Which outputs take targets, and in which order: that in which the model declares them."""

import itertools
import json
import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxsurgeon import (
    DataError,
    ModelError,
    SurgeonSettings,
    TrainingSettings,
    create,
    evaluate,
    evolve,
    from_model,
    load,
    load_dataset,
    make_engine,
    prepare,
    save,
)
from onnxsurgeon.data.teacher import TeacherModel
from onnxsurgeon.graph.head_names import head_names
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runs.history import read_history
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.runtime import run
from onnxsurgeon.training.fit import fit
from tests.graphs import Graph

X = np.random.default_rng(0).standard_normal((300, 6)).astype("f")


def actor(outputs, add=lambda g: None, backwards=False):
    """6-8 with Elu; a mean of 3 and a value of 1 from it, and what ``add`` adds. ``outputs`` name the widths."""
    g = Graph()
    g.inputs["x"] = ("batch", 6)
    g.outputs = {name: ("batch", width) for name, width in outputs.items()}
    g.dense("trunk", "x", "t", 6, 8)
    g.op("Elu", "t", "e")
    heads = [("mu_layer", "mu", 3), ("value_layer", "value", 1)]
    for name, y, width in heads[::-1] if backwards else heads:
        g.dense(name, "e", y, 8, width)
    add(g)
    return g.model()


def own_outputs(model, names):
    """What the model puts out, side by side."""
    made = dict(zip([v.name for v in model.graph.output], run(model, {"x": X}), strict=True))
    return np.concatenate([made[name] for name in names], axis=1)


def data_of(tmp_path, labels=None):
    path = tmp_path / "data.npz"
    np.savez(path, **({"x": X} if labels is None else {"x": X, "y": labels}))
    return load_dataset(str(path))


def metric(network, data):
    return make_engine("loop").evaluate(network, prepare(network, data, data.test)).accuracy


ORDERS = [*itertools.permutations({"mu": 3, "value": 1, "e": 8}.items()), (("value", 1), ("mu", 3))]


@pytest.mark.parametrize("backwards", [False, True], ids=["", "nodes the other way round"])
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "-".join(name for name, _ in order))
def test_heads_come_in_the_order_in_which_outputs_are_declared(order, backwards, tmp_path):
    model = actor(dict(order), backwards=backwards)
    names = [name for name, _ in order if name != "e"]
    onnx.save(model, tmp_path / "m.onnx")
    network, data = load(tmp_path / "m.onnx"), data_of(tmp_path, own_outputs(model, names))
    assert [head.tensor for head in network.heads] == names
    assert metric(network, data) == pytest.approx(1.0, abs=1e-6)
    save(network, tmp_path / "again.onnx")
    again = load(tmp_path / "again.onnx")
    assert [head.tensor for head in again.heads] == names
    assert metric(again, data) == pytest.approx(1.0, abs=1e-6)
    trained, _ = fit(network, data, make_engine("loop"), epochs=1)
    assert [v.name for v in to_model(trained.network).graph.output] == [name for name, _ in order]
    assert from_model(to_model(trained.network)).heads == network.heads


def test_a_run_and_its_files_keep_the_order(tmp_path):
    """The case as it was found: evolve, its branch files, and what is evaluated and operated on after that."""
    model = actor({"value": 1, "mu": 3}, lambda g: g.dense("more", "e", "unused", 8, 2))
    onnx.save(model, tmp_path / "m.onnx")
    data = data_of(tmp_path, own_outputs(model, ["value", "mu"]))
    settings = SurgeonSettings(epochs=2, seed=1, ensemble=1)
    path = str(tmp_path / "data.npz")
    evolved = evolve(tmp_path / "m.onnx", path, settings=settings, run_dir=tmp_path / "run", workers=1)
    assert evolved.start.accuracy == pytest.approx(1.0, abs=1e-6)
    for file in [tmp_path / "run" / "best.onnx", *(tmp_path / "run" / "branches").glob("*.onnx")]:
        network = load(file)
        assert [head.tensor for head in network.heads] == ["value", "mu"]
        assert metric(network, data) > 0.5, os.fspath(file)


def sigma(*nodes, **constants):
    def add(g):
        g.const(**constants)
        for op, given, made in nodes:
            g.op(op, given, made)

    return add


LOG = np.float32([0.3, -0.2, 0.1])
STILL = {
    "0 · mu + c": sigma(("Mul", "mu zero", "m"), ("Add", "m c", "sigma"), zero=np.float32(0), c=LOG),
    "c + (mu · 0), a zero a unit": sigma(("Mul", "mu z", "m"), ("Add", "c m", "sigma"), z=np.zeros(3, "f"), c=LOG),
    "exp(c + 0 · mu)": sigma(
        ("Mul", "zero mu", "m"), ("Add", "m c", "a"), ("Exp", "a", "sigma"), zero=np.float32(0), c=LOG
    ),
    "zeros of its shape": sigma(("Shape", "mu", "s"), ("ConstantOfShape", "s", "z"), ("Add", "z c", "sigma"), c=LOG),
    "zeros of its shape, times it": sigma(
        ("Shape", "mu", "s"), ("ConstantOfShape", "s", "z"), ("Mul", "mu z", "m"), ("Add", "m c", "sigma"), c=LOG
    ),
    "c expanded to its shape": sigma(("Shape", "mu", "s"), ("Expand", "c s", "sigma"), c=LOG),
    "an input handed through": sigma(
        ("Slice", "x from to along", "sigma"), **{"from": np.array([0]), "to": np.array([3]), "along": np.array([1])}
    ),
}


@pytest.mark.parametrize("form", STILL)
def test_an_output_that_no_weight_moves_is_told_and_takes_no_targets(form, tmp_path):
    model = actor({"mu": 3, "sigma": 3, "value": 1}, STILL[form])
    network = from_model(model)
    assert [(head.tensor, head.width) for head in network.heads] == [("mu", 3), ("value", 1)]
    told = [note for note in network.frame.notes if "'sigma'" in note]
    assert told in (
        ["no trained weight moves output 'sigma': it takes no targets"],
        ["output 'sigma' depends on no input"],
    )
    data = data_of(tmp_path, own_outputs(model, ["mu", "value"]))
    assert metric(network, data) == pytest.approx(1.0, abs=1e-6)
    trained, _ = fit(network, data, make_engine("loop"), epochs=1)
    after = to_model(trained.network)
    np.testing.assert_array_equal(own_outputs(after, ["sigma"]), own_outputs(model, ["sigma"]))


MOVED = {
    "Exp of mu": (("Exp", "mu", "sigma"),),
    "Softplus of mu": (("Softplus", "mu", "sigma"),),
    "mu scaled": (("Mul", "mu c", "sigma"),),
    "Softplus of a layer of its own": (("Gemm", "e w", "own"), ("Softplus", "own", "sigma")),
    "Clip and Exp of a layer of its own": (
        ("Gemm", "e w", "own"),
        ("Clip", "own low high", "k"),
        ("Exp", "k", "sigma"),
    ),
    "of both": (("Gemm", "e w", "own"), ("Add", "own mu", "sigma")),
}


@pytest.mark.parametrize("names", list(itertools.permutations(["mu", "sigma", "value"])), ids="-".join)
@pytest.mark.parametrize("form", MOVED)
def test_an_output_computed_from_another_is_a_head_too(form, names, tmp_path):
    constants = {"c": LOG, "w": np.random.default_rng(3).standard_normal((8, 3)).astype("f") / 3}
    bounds = {"low": np.float32(-5), "high": np.float32(2)}
    read = {name for _, given, _ in MOVED[form] for name in given.split()}
    used = {name: held for name, held in {**constants, **bounds}.items() if name in read}
    widths = {"mu": 3, "sigma": 3, "value": 1}
    model = actor({name: widths[name] for name in names}, sigma(*MOVED[form], **used))
    onnx.save(model, tmp_path / "m.onnx")
    network, data = load(tmp_path / "m.onnx"), data_of(tmp_path, own_outputs(model, names))
    assert [(head.tensor, head.width) for head in network.heads] == [(name, widths[name]) for name in names]
    assert metric(network, data) == pytest.approx(1.0, abs=1e-6)
    # Away from there and back: the gradients of both arrive at what one is computed from.
    rng = np.random.default_rng(1)
    moved = network.with_parameters(
        (v + 0.1 * rng.standard_normal(v.shape)).astype("f") for _, v in network.parameters()
    )
    engine, examples = make_engine("loop"), prepare(network, data, data.train)
    before = engine.evaluate(moved, examples).loss
    settings = TrainingSettings(optimizer="adamw", learning_rate=0.002)
    trained, _ = fit(moved, data, engine, epochs=20, settings=settings)
    assert engine.evaluate(trained.network, examples).loss < before / 2
    # A teacher's outputs go to the heads of their names, and as its own student nothing is to be learned.
    taught = TeacherModel.read(tmp_path / "m.onnx").outputs(network, data, data.test)
    expected = dict(zip(names, run(model, {"x": X}), strict=True))
    rows = data.test.stored.take()
    expected = dict(zip(names, run(model, {"x": rows}), strict=True))
    for head, values in zip(network.heads, taught.outputs, strict=True):
        np.testing.assert_allclose(values, expected[head.tensor], rtol=1e-5, atol=1e-6)


def test_a_teacher_of_other_names_is_matched_by_the_place_of_its_outputs(tmp_path):
    """Two outputs of one width, the second computed from the first: neither goes to the other's head."""
    student = from_model(actor({"sigma": 3, "mu": 3, "value": 1}, sigma(("Exp", "mu", "sigma"))))
    renamed = sigma(("Exp", "mu", "s"), ("Identity", "mu", "m"), ("Identity", "value", "v"))
    teacher = actor({"s": 3, "m": 3, "v": 1}, renamed)
    onnx.save(teacher, tmp_path / "t.onnx")
    data = data_of(tmp_path)
    taught = TeacherModel.read(tmp_path / "t.onnx").outputs(student, data, data.train)
    for values, expected in zip(taught.outputs, run(teacher, {"x": data.train.stored.take()}), strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_outputs_of_one_head_take_one_set_of_targets():
    """Logits, their probabilities and the class are of one head; its place is that of the first of them."""

    def add(g):
        g.op("Softmax", "mu", "p", axis=-1)
        g.op("ArgMax", "mu", "k", axis=1)

    for names in (["k", "value", "p", "mu"], ["p", "mu", "value"], ["mu", "p", "value"]):
        widths = {"mu": 3, "p": 3, "value": 1, "k": 1}
        model = actor({name: widths[name] for name in names}, add)
        for output in model.graph.output:
            output.type.tensor_type.elem_type = TensorProto.INT64 if output.name == "k" else TensorProto.FLOAT
        heads = from_model(model).heads
        assert [(head.tensor, head.squash) for head in heads] == [("mu", "Softmax"), ("value", "")]


def test_an_output_that_trained_layers_are_computed_from_is_said():
    def add(g):
        g.op("Concat", "e value", "both", axis=1)
        g.dense("last", "both", "y", 9, 2)

    network = from_model(actor({"value": 1, "y": 2, "mu": 3}, add))
    assert [head.tensor for head in network.heads] == ["y", "mu"]
    assert "output 'value' takes no targets: trained layers are computed from it" in network.frame.notes


def test_of_one_output_of_several_heads_the_inputs_decide_the_order():
    """The file's order of nodes does not matter: it changes where a file is written."""

    def add(g):
        g.op("TopK", "mu one", "best where")
        g.op("TopK", "value one", "most there")
        g.op("Sub", "most best", "y")
        g.const(one=np.array([1]))

    for backwards in (False, True):
        network = from_model(actor({"y": 1}, add, backwards=backwards))
        assert [head.tensor for head in network.heads] == ["value", "mu"]
        assert from_model(to_model(network)).heads == network.heads


def test_another_number_of_columns_names_the_heads_in_order(tmp_path):
    network = from_model(actor({"value": 1, "mu": 3}))
    data = data_of(tmp_path, np.zeros((300, 3), "f"))
    with pytest.raises(
        DataError, match=r"'value' \(1\), 'mu' \(3\): expected one column a head, 2, or one an output, 4"
    ):
        prepare(network, data, data.train)


@pytest.mark.parametrize("squash", ["", "Softmax"])
def test_a_number_and_a_class_a_row_are_two_heads_labels(squash, tmp_path):
    """Side by side, numbers and classes are all floats: whole ones of several outputs are a class."""
    head = "policy" if squash else "mu"
    network = from_model(actor({"value": 1, head: 3}, lambda g: squash and g.op(squash, "mu", head)))
    classes = X[:, :3].argmax(axis=1)
    data = data_of(tmp_path, np.stack([X[:, 0] * 2, classes], axis=1))
    value, policy = prepare(network, data, data.train).tasks
    assert (value.loss, policy.loss) == ("squared-error", "cross-entropy")
    _, test = fit(network, data, make_engine("loop"), epochs=30, settings=TrainingSettings(learning_rate=0.05))
    assert test.accuracy > metric(network, data)
    assert test.accuracy > 0.8
    for wrong, told in ((classes + 0.5, "targets a row|one column of classes"), (classes - 1.0, "targets|one column")):
        data = data_of(tmp_path, np.stack([X[:, 0], wrong], axis=1))
        with pytest.raises(DataError, match=told):
            prepare(network, data, data.train)
    data = data_of(tmp_path, np.stack([X[:, 0], classes + 1.0], axis=1))
    with pytest.raises(DataError, match=r"label 3 in row .* outside the 3 classes"):
        prepare(network, data, data.train)


@pytest.mark.parametrize("form", ["ReduceSum", "Einsum", "MatMul"])
def test_two_towers_whose_dot_product_is_a_number_a_row(form, tmp_path):
    """The output is (rows,): a head one wide."""

    def build():
        g = Graph()
        g.inputs, g.outputs = {"x": ("batch", 6)}, {"y": ("batch",)}
        for name in ("a", "b"):
            g.dense(f"{name}1", "x", f"{name}h", 6, 7)
            g.op("Relu", f"{name}h", f"{name}r")
            g.dense(f"{name}2", f"{name}r", name, 7, 5)
        if form == "ReduceSum":
            g.const(axis=np.array([1]))
            g.op("Mul", "a b", "m")
            g.op("ReduceSum", "m axis", "y", keepdims=0)
        elif form == "Einsum":
            g.op("Einsum", "a b", "y", equation="bi,bi->b")
        else:
            g.const(one=np.array([1]), two=np.array([2]), both=np.array([1, 2]))
            g.op("Unsqueeze", "a one", "row")
            g.op("Unsqueeze", "b two", "column")
            g.op("MatMul", "row column", "m")
            g.op("Squeeze", "m both", "y")
        return g.model()

    model = build()
    network = from_model(model)
    assert (network.topology, [(h.tensor, h.width, h.rank) for h in network.heads]) == ("6-7-5+6-7-5", [("y", 1, 2)])
    data = data_of(tmp_path, run(model, {"x": X})[0])
    assert metric(network, data) == pytest.approx(1.0, abs=1e-6)
    rng = np.random.default_rng(1)
    moved = network.with_parameters((v + rng.normal(0, 0.1, v.shape)).astype("f") for _, v in network.parameters())
    engine, examples = make_engine("loop"), prepare(network, data, data.train)
    before = engine.evaluate(moved, examples).loss
    settings = TrainingSettings(optimizer="adamw", learning_rate=0.002)
    trained, _ = fit(moved, data, engine, epochs=10, settings=settings)
    assert engine.evaluate(trained.network, examples).loss < before / 2


def test_a_head_of_a_number_that_another_output_is_computed_from(tmp_path):
    def add(g):
        g.const(axis=np.array([1]))
        g.op("ReduceSum", "mu axis", "sum", keepdims=0)
        g.op("Tanh", "sum", "y")

    model = actor({"y": 1, "sum": 1}, add)
    for output in model.graph.output:
        del output.type.tensor_type.shape.dim[1:]
    network = from_model(model)
    assert [(head.tensor, head.width) for head in network.heads] == [("y", 1), ("sum", 1)]
    outputs = run(model, {"x": X})
    data = data_of(tmp_path, np.stack(outputs, axis=1))
    assert metric(network, data) == pytest.approx(1.0, abs=1e-6)
    trained, _ = fit(network, data, make_engine("loop"), epochs=1)
    assert np.isfinite(trained.mean_loss)


@pytest.mark.parametrize("behind", ["If", "Loop", "an operator without a gradient"])
def test_what_cannot_be_trained_through_is_said_and_refused_with_the_reason(behind, tmp_path):
    """Control flow behind the head is not ignored: the labels are those of its output, not of what enters it."""

    def value(name, shape, kind=TensorProto.FLOAT):
        return onnx.helper.make_tensor_value_info(name, kind, shape)

    def add(g):
        node = onnx.helper.make_node
        if behind == "If":
            g.op("ReduceSum", "x", "total", keepdims=0)
            g.op("Cast", "total", "any", to=TensorProto.BOOL)
            bodies = [
                onnx.helper.make_graph([node(op, ["mu"], ["b"])], op, [], [value("b", ("n", 3))])
                for op in ("Neg", "Neg")
            ]
            g.op("If", "any", "y", name="behind", then_branch=bodies[0], else_branch=bodies[1])
        elif behind == "Loop":
            g.const(trips=np.array(1), go=np.array(True))
            inputs = [value("i", (), TensorProto.INT64), value("c", (), TensorProto.BOOL), value("v", ("n", 3))]
            outputs = [value("k", (), TensorProto.BOOL), value("w", ("n", 3))]
            nodes = [node("Identity", ["c"], ["k"]), node("Neg", ["v"], ["w"])]
            body = onnx.helper.make_graph(nodes, "body", inputs, outputs)
            g.op("Loop", "trips go mu", "y", name="behind", body=body)
        else:
            g.op("Cos", "mu", "y", name="behind")

    model = actor({"y": 3}, add)
    op = {"If": "If", "Loop": "Loop"}.get(behind, "Cos")
    reason = f"node 'behind' ({op}) cannot be trained through: it has no gradient rule"
    network = from_model(model)
    assert f"{reason}; its inputs take the targets" in network.frame.notes
    fitting = [] if behind == "Loop" else [run(model, {"x": X})[0]]  # whose size is not told before it runs
    for labels in (*fitting, np.zeros((300, 5))):
        data = data_of(tmp_path, labels)
        with pytest.raises((ModelError, DataError)) as error:
            prepare(network, data, data.train)
        assert reason in str(error.value)


def policy_and_value():
    """Probabilities of 3 actions, and a value."""
    g = Graph()
    g.inputs["x"], g.outputs = ("batch", 6), {"policy": ("batch", 3), "value": ("batch", 1)}
    g.dense("trunk", "x", "t", 6, 8)
    g.op("Elu", "t", "e")
    g.dense("p", "e", "l", 8, 3)
    g.op("Softmax", "l", "policy", axis=-1)
    g.dense("v", "e", "value", 8, 1)
    return from_model(g.model())


def test_classes_of_one_head_beside_values_of_another(tmp_path):
    """One array of labels: the values make floats of the classes."""
    network = policy_and_value()
    policy, value = run(to_model(network), {"x": X})
    data = data_of(tmp_path, np.concatenate([policy.argmax(1)[:, None], value], axis=1))
    assert data.train.labels.dtype.kind == "f"
    examples = prepare(network, data, data.test)
    assert [task.loss for task in examples.tasks] == ["cross-entropy", "squared-error"]
    np.testing.assert_array_equal(examples.targets[0].argmax(1), data.test.labels[:, 0])
    assert metric(network, data) == pytest.approx(1, abs=1e-5)
    shares = data_of(tmp_path, np.concatenate([policy[:, :1], value], axis=1))
    with pytest.raises(DataError, match="head 'l' of 'model' ends in a Softmax; expected one column of classes for it"):
        prepare(network, shares, shares.test)


def test_a_softmax_at_each_position_wants_a_class_for_each(tmp_path):
    g = Graph()
    g.inputs["x"], g.outputs["y"] = ("batch", 5, 6), ("batch", 5, 3)
    g.dense3("d", "x", "l", 6, 3)
    g.op("Softmax", "l", "y", axis=-1)
    network = from_model(g.model())
    np.savez(tmp_path / "d.npz", x=np.repeat(X[:, None], 5, axis=1), y=np.ones((300, 5, 3), "f") / 3)
    data = load_dataset(str(tmp_path / "d.npz"))
    told = r"'model' ends in a Softmax; expected a class for each position; found float32 \(5, 3\) a row$"
    with pytest.raises(DataError, match=told):
        prepare(network, data, data.test)


def softmax_heads(path):
    """Two classifiers behind one trunk whose outputs are probabilities, not the heads' own tensors."""
    g = Graph()
    g.inputs["x"] = ("batch", 6)
    g.outputs = {"colour": ("batch", 3), "size": ("batch", 2)}
    g.dense("trunk", "x", "t", 6, 8)
    g.op("Elu", "t", "e")
    for name, width in g.outputs.items():
        g.dense(f"{name}_layer", "e", f"{name}_logits", 8, width[1])
        g.op("Softmax", f"{name}_logits", name, axis=-1)
    onnx.save(g.model(), path)


@pytest.fixture(scope="module")
def two_measured(tmp_path_factory):
    """A model of two heads with its own answers as labels, one in ten of the first head's turned wrong, and a run."""
    folder = tmp_path_factory.mktemp("two")
    softmax_heads(folder / "m.onnx")
    colour, size = run(onnx.load(folder / "m.onnx"), {"x": X})
    wrong = np.arange(len(X)) % 10 == 0
    labels = np.stack([(colour.argmax(1) + wrong) % 3, size.argmax(1)], axis=1)
    np.savez(folder / "d.npz", x=X, y=labels)
    settings = SurgeonSettings(epochs=1, seed=1, ensemble=1)
    run_dir = folder / "run"
    return folder, evolve(folder / "m.onnx", str(folder / "d.npz"), settings=settings, run_dir=run_dir, workers=1)


def test_each_of_several_heads_is_measured_apart(two_measured, cli):
    folder, _ = two_measured
    whole = evaluate(folder / "m.onnx", folder / "d.npz", split="all")
    assert [each.head for each in whole.heads] == ["colour", "size"]
    assert [each.accuracy for each in whole.heads] == pytest.approx([0.9, 1.0])
    assert whole.accuracy == pytest.approx(0.95)
    assert sum(each.loss for each in whole.heads) == pytest.approx(whole.loss)
    arguments = ("evaluate", folder / "m.onnx", "--data", folder / "d.npz", "--split", "all")
    assert json.loads(cli(*arguments, "--json")[1])["heads"] == whole.record()["heads"]
    lines = [line.split() for line in cli(*arguments)[1].splitlines()]
    assert ["head", "metric", "value", "loss"] in lines
    assert ["colour", "accuracy", "0.9000", f"{whole.heads[0].loss:.4f}"] in lines


def test_one_head_is_not_listed(tmp_path):
    network = create((6, 4, 3))
    found = evaluate(network, (X, np.arange(len(X)) % 3))
    assert found.heads == ()
    assert "heads" not in found.record()


def test_a_runs_end_and_report_show_each_head_apart(two_measured, cli):
    folder, evolved = two_measured
    found = evolved.record()["heads"]
    assert [each["head"] for each in found] == ["colour", "size"]
    assert np.mean([each["test_accuracy"] for each in found]) == pytest.approx(evolved.test.accuracy)
    assert np.mean([each["start_test_accuracy"] for each in found]) == pytest.approx(evolved.start.accuracy)
    assert read_history(RunDirectory(evolved.run)).finish.heads == tuple(found)
    assert f"test accuracy of 'colour': {found[0]['start_test_accuracy']:.4f} → " in evolved.summary()
    cli("report", folder / "run")
    page = (folder / "run" / "report.html").read_text()
    assert f'<tr><td>size</td><td>accuracy</td><td class="number">{found[1]["start_test_accuracy"]:.4f}</td>' in page


def test_heads_behind_which_outputs_are_mixed_have_their_tensors_names():
    g = Graph()
    g.inputs["x"] = ("batch", 6)
    g.outputs = {"both": ("batch", 2), "first": ("batch", 3)}
    g.dense("trunk", "x", "t", 6, 8)
    g.op("Elu", "t", "e")
    g.dense("a", "e", "p", 8, 3)
    g.dense("b", "e", "q", 8, 2)
    g.op("Softmax", "p", "first", axis=-1)
    for tensor, made in (("p", "i"), ("q", "j")):
        g.op("ArgMax", tensor, f"{made}_index", axis=1, keepdims=1)
        g.op("Cast", f"{made}_index", made, to=TensorProto.FLOAT)
    g.op("Concat", "i j", "both", axis=1)
    network = from_model(g.model())
    assert [head.tensor for head in network.heads] == ["p", "q"]
    assert head_names(network) == ("first", "q")
