"""Models without a batch axis: read as if they had one, run row by row, and written back as they are."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import (
    DataError,
    SurgeonSettings,
    TrainingSettings,
    Widen,
    diff,
    evolve,
    from_model,
    load,
    load_dataset,
    make_engine,
    operate,
    prepare,
    save,
)
from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.data.teacher import TeacherModel
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import run
from onnxsurgeon.surgery import Prune
from onnxsurgeon.training.fit import fit

ROWS = 120


def ints(*values):
    return np.array(values, np.int64)


class Model:
    """A model under construction; ``op`` takes names apart by spaces, and layers get random weights."""

    def __init__(self, inputs, outputs, opset=17):
        self.inputs, self.outputs, self.opset = inputs, outputs, opset
        self.nodes, self.held, self.rng = [], {}, np.random.default_rng(1)

    def op(self, op, given, made, **attributes):
        self.nodes.append(helper.make_node(op, given.split(), made.split(), name=f"n_{made.split()[0]}", **attributes))
        return self

    def hold(self, **values):
        self.held |= {name: np.asarray(value) for name, value in values.items()}
        return self

    def layer(self, x, y, n, m, form="MatMul"):
        w, b = self.rng.standard_normal((n, m)) / np.sqrt(n), self.rng.standard_normal(m) / 2
        if form == "Gemm":
            self.hold(**{f"{y}.w": w.T.astype("f"), f"{y}.b": b.astype("f")})
            return self.op("Gemm", f"{x} {y}.w {y}.b", y, transB=1)
        left = form == "W x"
        self.hold(**{f"{y}.w": (w.T if left else w).astype("f"), f"{y}.b": b.astype("f")})
        self.op("MatMul", f"{y}.w {x}" if left else f"{x} {y}.w", f"{y}.m")
        return self.op("Add", f"{y}.m {y}.b", y)

    def made(self):
        def declared(values):
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]

        held = [numpy_helper.from_array(v.astype("f") if v.dtype == np.float64 else v, k) for k, v in self.held.items()]
        graph = helper.make_graph(self.nodes, "g", declared(self.inputs), declared(self.outputs), held)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


def plain(form="MatMul", size=6):
    g = Model({"obs": [size]}, {"y": [3]})
    return g.layer("obs", "a", 6, 8, form).op("Elu", "a", "e").layer("e", "y", 8, 3, form)


def normalised():
    g = Model({"obs": [6]}, {"y": [3]}).hold(mean=np.linspace(-1, 1, 6), std=np.linspace(1, 2, 6))
    g.op("Sub", "obs mean", "c").op("Div", "c std", "s")
    return g.layer("s", "a", 6, 8).op("Elu", "a", "e").layer("e", "y", 8, 3)


def with_gemm(opset=17, back="Squeeze"):
    """A 1 in front for Gemm, and taken away behind."""
    g = Model({"obs": [6]}, {"y": [3] if back else [1, 3]}, opset).hold(front=ints(0), flat=ints(3), row=ints(1, -1))
    if opset < 13:
        g.op("Unsqueeze", "obs", "x", axes=[0])
    else:
        g.op("Unsqueeze", "obs front", "x")
    g.layer("x", "a", 6, 8, "Gemm").op("Relu", "a", "e").layer("e", "z" if back else "y", 8, 3, "Gemm")
    if back == "Squeeze":
        return g.op("Squeeze", "z", "y", axes=[0]) if opset < 13 else g.op("Squeeze", "z front", "y")
    return g.op(back, "z flat", "y") if back else g


def with_reshape():
    g = Model({"obs": [6]}, {"y": [3]}).hold(row=ints(1, -1), flat=ints(-1))
    g.op("Reshape", "obs row", "x").layer("x", "a", 6, 8, "Gemm").op("Relu", "a", "e")
    return g.layer("e", "z", 8, 3, "Gemm").op("Reshape", "z flat", "y")


def broadcast():
    """The normaliser's own statistics bring the 1 in front."""
    g = Model({"obs": [6]}, {"y": [1, 3]}).hold(mean=np.linspace(-1, 1, 6)[None])
    return g.op("Sub", "obs mean", "x").layer("x", "a", 6, 8, "Gemm").op("Tanh", "a", "e").layer("e", "y", 8, 3, "Gemm")


def two_inputs():
    g = Model({"obs": [4], "goal": [2]}, {"y": [3]})
    g.op("Concat", "obs goal", "x", axis=0)
    return g.layer("x", "a", 6, 8).op("Elu", "a", "e").layer("e", "y", 8, 3)


def two_towers():
    g = Model({"obs": [4], "goal": [2]}, {"y": [3], "v": [1]})
    g.layer("obs", "a", 4, 5).op("Relu", "a", "ea").layer("goal", "b", 2, 5).op("Tanh", "b", "eb")
    g.op("Concat", "ea eb", "both", axis=-1).layer("both", "c", 10, 7).op("Relu", "c", "ec")
    return g.layer("ec", "y", 7, 3).layer("ec", "v", 7, 1)


def residual():
    g = Model({"obs": [6]}, {"y": [3]})
    g.layer("obs", "a", 6, 8).op("Relu", "a", "ea").layer("ea", "b", 8, 8).op("Add", "ea b", "s")
    g.hold(scale=np.linspace(1, 2, 8), shift=np.linspace(0, 1, 8))
    g.op("LayerNormalization", "s scale shift", "n", axis=0).op("Softmax", "n", "p", axis=0)
    return g.layer("p", "y", 8, 3)


def parts():
    """Axis 0 is that of the features: Slice, Split, Gather and a sum take parts of it."""
    g = Model({"obs": [6]}, {"y": [3]}).hold(
        **{"from": ints(1), "to": ints(2**31), "along": ints(0), "two": ints(3, 5), "front": ints(0)}
    )
    g.layer("obs", "a", 6, 8).op("Relu", "a", "ea")
    g.op("Split", "ea two", "l r", axis=0).op("Slice", "r from to along", "tail").op("Exp", "l", "le")
    g.op("ReduceSum", "le front", "sum", keepdims=1).op("Concat", "tail sum l", "both", axis=0)
    return g.layer("both", "y", 8, 3)


def matrix_of_features():
    """Rank 2, without a batch: every row of a table, and a vector beside it."""
    g = Model({"obs": [6], "table": [5, 4]}, {"y": [2], "z": [5, 3]})
    g.layer("obs", "a", 6, 8).op("Relu", "a", "ea").layer("ea", "y", 8, 2)
    return g.layer("table", "b", 4, 6).op("Relu", "b", "eb").layer("eb", "z", 6, 3)


def image(flatten="Reshape", size=(2, 3, 2)):
    """An image without a batch axis, made a vector, or a row by a 1 in front."""
    g = Model({"obs": size}, {"y": [3] if flatten in ("Reshape", "Squeeze") else [1, 3]}).hold(
        flat=ints(-1), row=ints(1, 12), front=ints(0), half=np.array(0.5)
    )
    g.op("Mul", "obs half", "o")
    if flatten == "Reshape":
        return g.op("Reshape", "o flat", "x").layer("x", "a", 12, 8).op("Elu", "a", "e").layer("e", "y", 8, 3)
    if flatten == "Squeeze":
        return g.op("Squeeze", "o front", "x").layer("x", "a", 12, 8).op("Elu", "a", "e").layer("e", "y", 8, 3)
    if flatten == "Flatten":
        g.op("Flatten", "o", "x", axis=0)
    elif flatten == "Unsqueeze":
        g.op("Unsqueeze", "o front", "u").op("Flatten", "u", "x")
    else:
        g.op("Reshape", "o row", "x")
    return g.layer("x", "a", 12, 8, "Gemm").op("Elu", "a", "e").layer("e", "y", 8, 3, "Gemm")


def convolved():
    """What convolutions make of one image; they are the prefix."""
    g = Model({"obs": [2, 4, 4]}, {"y": [1, 3]}).hold(
        front=ints(0), kernel=np.random.default_rng(4).standard_normal((6, 2, 3, 3))
    )
    g.op("Unsqueeze", "obs front", "u").op("Conv", "u kernel", "c").op("Relu", "c", "r")
    g.op("GlobalAveragePool", "r", "p").op("Flatten", "p", "x")
    return g.layer("x", "a", 6, 8, "Gemm").op("Elu", "a", "e").layer("e", "y", 8, 3, "Gemm")


def image_and_time():
    """A number without any axis beside an image."""
    g = Model({"obs": [3, 4], "t": []}, {"y": [3]}).hold(flat=ints(-1), front=ints(0))
    g.op("Unsqueeze", "t front", "u").op("Reshape", "obs flat", "o").op("Concat", "o u", "x", axis=0)
    return g.layer("x", "a", 13, 8).op("Elu", "a", "e").layer("e", "y", 8, 3)


def pooled():
    """A set of features, each through a layer, and their mean."""
    g = Model({"obs": [5, 6]}, {"y": [3]}).layer("obs", "a", 6, 8).op("Relu", "a", "e")
    return g.op("ReduceMean", "e", "p", axes=[0], keepdims=0).layer("p", "y", 8, 3)


FORMS = {
    "MatMul": plain,
    "W x": lambda: plain("W x"),
    "a size that is not known": lambda: plain(size="n"),
    "a normaliser in front": normalised,
    "Gemm behind Unsqueeze": with_gemm,
    "Gemm behind Unsqueeze, opset 11": lambda: with_gemm(11),
    "Gemm and no Squeeze": lambda: with_gemm(back=""),
    "Gemm between Reshapes": with_reshape,
    "a 1 in front by broadcasting": broadcast,
    "two inputs": two_inputs,
    "two towers and two heads": two_towers,
    "a residual connection, LayerNormalization, Softmax": residual,
    "parts of the features": parts,
    "an image, Reshape": image,
    "an image, Reshape to a row": lambda: image("row"),
    "an image, Flatten": lambda: image("Flatten"),
    "an image, Unsqueeze": lambda: image("Unsqueeze"),
    "a row, Reshape": lambda: image(size=(1, 12)),
    "a row, Squeeze": lambda: image("Squeeze", (1, 12)),
    "an image, convolved": convolved,
    "a set": pooled,
    "an image and a time": image_and_time,
}
LAYERS = dict.fromkeys(FORMS, "6-8-3") | {
    **{name: "12-8-3" for name in FORMS if name.startswith(("an image, ", "a row, ")) and "convolved" not in name},
    "a set": "6-8+8-3",
    "an image and a time": "13-8-3",
    "two towers and two heads": "4-5+2-5+10-7-4",
    "a residual connection, LayerNormalization, Softmax": "6-8+8-8+8-3",
    "parts of the features": "6-8+8-3",
}


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


def rows_of(model):
    rng = np.random.default_rng(2)
    shapes = {v.name: [d.dim_value or 6 for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    return {name: rng.standard_normal((ROWS, *shape)).astype("f") for name, shape in shapes.items()}


def by_row(model, rows):
    """What the model gives for each row, run one by one by ONNX Runtime."""
    found = [run(model, {name: np.asarray(values[i]) for name, values in rows.items()}) for i in range(ROWS)]
    return [np.stack([np.ravel(each) for each in column]) for column in zip(*found, strict=True)]


def data_of(tmp_path, rows, labels=None):
    named = {"x": next(iter(rows.values()))} if len(rows) == 1 else rows
    np.savez(tmp_path / "d.npz", **named, **({} if labels is None else {"y": labels}))
    return str(tmp_path / "d.npz")


def interface(model):
    return [v.SerializeToString() for v in (*model.graph.input, *model.graph.output)]


def test_it_is_read_operated_on_and_written_as_it_is(form, tmp_path):
    model = FORMS[form]().made()
    onnx.save(model, tmp_path / "m.onnx")
    network, rows = load(tmp_path / "m.onnx"), rows_of(model)
    assert (network.topology, network.frame.takes_one_row) == (LAYERS[form], True)
    expected = by_row(model, rows)
    made = [network]
    if network.hidden_count:
        made.append(operate(network, Widen(1, 3)).network)
    for each in made:
        save(each, tmp_path / "again.onnx", overwrite=True)
        again = onnx.load(tmp_path / "again.onnx")
        onnx.checker.check_model(again, full_check=True)
        assert interface(again) == interface(model)
        for found, wanted in zip(by_row(again, rows), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
        assert load(tmp_path / "again.onnx").topology == each.topology


def test_it_is_evaluated_trained_and_imitated(form, tmp_path):
    """The trunk computes on many rows what the model does of each; a step of training is of the same function."""
    model = FORMS[form]().made()
    onnx.save(model, tmp_path / "m.onnx")
    network, rows = load(tmp_path / "m.onnx"), rows_of(model)
    labels = np.concatenate(by_row(model, rows), axis=1)
    data, engine = load_dataset(data_of(tmp_path, rows, labels)), make_engine("loop")
    assert engine.evaluate(network, prepare(network, data, data.test)).accuracy == pytest.approx(1, abs=1e-5)
    rng = np.random.default_rng(3)
    moved = network.with_parameters((v + rng.normal(0, 0.1, v.shape)).astype("f") for _, v in network.parameters())
    before = engine.evaluate(moved, prepare(moved, data, data.train)).loss
    trained, _ = fit(moved, data, engine, epochs=15)
    assert engine.evaluate(trained.network, prepare(moved, data, data.train)).loss < before / 2
    taught = TeacherModel.read(tmp_path / "m.onnx").outputs(network, data, data.test)
    found = np.concatenate([values.reshape(len(values), -1) for values in taught.outputs], axis=1)
    np.testing.assert_allclose(found, data.test.labels, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["MatMul", "Gemm behind Unsqueeze", "two inputs"])
def test_a_whole_run_and_a_comparison(name, tmp_path):
    model = FORMS[name]().made()
    onnx.save(model, tmp_path / "m.onnx")
    path = data_of(tmp_path, rows_of(model))
    settings = SurgeonSettings(epochs=2, seed=1, ensemble=1, max_parameters=60)
    evolved = evolve(tmp_path / "m.onnx", path, settings=settings, run_dir=tmp_path / "run", workers=1)
    best = onnx.load(tmp_path / "run" / "best.onnx")
    assert interface(best) == interface(model)
    assert evolved.network.parameter_count <= 60
    assert run(best, {name: values[0] for name, values in rows_of(model).items()})[0].shape == (3,)
    (output,) = diff(tmp_path / "m.onnx", tmp_path / "run" / "best.onnx").random.outputs
    assert (output.rows, output.maximum > 0) == (256, True)


def test_pruning_by_data_and_comparing_on_data(tmp_path):
    model = normalised().made()
    onnx.save(model, tmp_path / "m.onnx")
    rows = rows_of(model)
    network, data = load(tmp_path / "m.onnx"), load_dataset(data_of(tmp_path, rows, by_row(model, rows)[0]))
    pruned = operate(network, Prune(1, 5), moments=calibrate(network, prepare(network, data, data.train))).network
    save(pruned, tmp_path / "p.onnx")
    on_data = diff(tmp_path / "m.onnx", tmp_path / "p.onnx", data=str(tmp_path / "d.npz")).data
    assert on_data.before.accuracy == pytest.approx(1, abs=1e-5)
    assert (on_data.after.accuracy < 1, on_data.outputs.notes) == (True, ())
    assert on_data.outputs.outputs[0].rows == data.test.rows


def test_a_table_of_rows_is_one_row_too(tmp_path):
    """Where one input is a vector, another's first axis is no batch either."""
    model = matrix_of_features().made()
    network = from_model(model)
    assert network.topology == "6-8-2+4-6-3"
    assert [(head.width, head.rank) for head in network.heads] == [(2, 2), (3, 3)]
    rows = rows_of(model)
    written = to_model(operate(network, Widen(2, 3)).network)
    for found, wanted in zip(by_row(written, rows), by_row(model, rows), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def dot_product(moves=5, form="matrix"):
    """How well each of some moves fits an observation: the product of two towers."""
    g = Model({"obs": [6], "moves": [moves, 4]}, {"scores": [moves]})
    g.layer("obs", "a", 6, 8).op("Relu", "a", "ea").layer("ea", "o", 8, 7).op("Relu", "o", "eo")
    g.layer("moves", "b", 4, 6, "Gemm").op("Relu", "b", "eb").layer("eb", "m", 6, 7, "Gemm")
    if form == "einsum":
        return g.op("Einsum", "m eo", "scores", equation="ij,j->i")
    return g.op("MatMul", "m eo", "scores")


def one_score():
    """A vector and a vector: one number."""
    g = Model({"obs": [6], "goal": [4]}, {"score": []})
    g.layer("obs", "a", 6, 7).op("Relu", "a", "ea").layer("goal", "b", 4, 7)
    return g.op("MatMul", "ea b", "score")


PRODUCTS = {
    "a matrix and a vector": (dot_product, "6-8-7+4-6-7"),
    "the same as Einsum": (lambda: dot_product(form="einsum"), "6-8-7+4-6-7"),
    "two vectors": (one_score, "6-7+4-7"),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_layers_are_trained_through(name, tmp_path):
    build, topology = PRODUCTS[name]
    model = build().made()
    network, rows = from_model(model), rows_of(model)
    assert sorted(network.topology.split("+")) == sorted(topology.split("+"))
    assert [head.tensor for head in network.heads] == [model.graph.output[0].name]
    assert not any("trained through" in note for note in network.frame.notes)
    labels = by_row(model, rows)[0]
    data, engine = load_dataset(data_of(tmp_path, rows, labels)), make_engine("loop")
    assert engine.evaluate(network, prepare(network, data, data.test)).accuracy == pytest.approx(1, abs=1e-5)
    rng = np.random.default_rng(3)
    moved = network.with_parameters((v + rng.normal(0, 0.05, v.shape)).astype("f") for _, v in network.parameters())
    before = engine.evaluate(moved, prepare(moved, data, data.train)).loss
    settings = TrainingSettings(optimizer="adamw", learning_rate=0.003)
    trained, _ = fit(moved, data, engine, epochs=15, settings=settings)
    assert engine.evaluate(trained.network, prepare(moved, data, data.train)).loss < before / 2


def test_a_product_of_unknown_size_is_refused_with_that_reason(tmp_path):
    """Every layer is named all the same, and its hidden layers may be operated on."""
    model = dot_product("n").made()
    network = from_model(model)
    reason = (
        "node 'n_scores' (MatMul) cannot be trained through: the size of the last axis of 'scores', which it writes, "
        "is not known"
    )
    assert sorted(network.topology.split("+")) == ["4-6-7", "6-8-7"]
    assert f"{reason}; its inputs take the targets" in network.frame.notes
    rows = {**rows_of(dot_product().made())}
    data = load_dataset(data_of(tmp_path, rows, by_row(model, rows)[0]))
    with pytest.raises(DataError, match=re.escape(reason)):
        prepare(network, data, data.train)
    wide = to_model(operate(network, Widen(1, 2)).network)
    np.testing.assert_allclose(by_row(wide, rows)[0], by_row(model, rows)[0], rtol=1e-4, atol=1e-5)
    # Its own outputs are imitated whatever stands behind: equal factors have equal products.
    onnx.save(model, tmp_path / "m.onnx")
    settings = SurgeonSettings(epochs=1, seed=1, ensemble=1)
    evolved = evolve(tmp_path / "m.onnx", data_of(tmp_path, rows), settings=settings, run_dir=tmp_path / "r", workers=1)
    assert evolved.start.accuracy == pytest.approx(1, abs=1e-5)


def test_a_vector_of_single_values_is_a_batch():
    """(batch,) with an axis behind: columns of a table, as Keras declares them."""
    for size in ("batch", 32):
        g = Model({"age": [size], "income": [size]}, {"y": [size, 1]}).hold(behind=ints(1))
        g.op("Unsqueeze", "age behind", "a").op("Unsqueeze", "income behind", "b").op("Concat", "a b", "x", axis=1)
        g.layer("x", "h", 2, 4, "Gemm").op("Relu", "h", "e").layer("e", "y", 4, 1, "Gemm")
        network = from_model(g.made())
        assert (network.topology, network.frame.takes_one_row) == ("2-4-1", False)


def test_a_batch_of_known_size_stays_one():
    """Fixed by an exporter; where a batch of one is squeezed between layers, the rest of the model still has it."""
    g = Model({"x": [4, 2, 3]}, {"y": [4, 3]}).op("Flatten", "x", "f").layer("f", "a", 6, 8, "Gemm")
    network = from_model(g.op("Relu", "a", "e").layer("e", "y", 8, 3, "Gemm").made())
    assert (network.topology, network.frame.takes_one_row) == ("6-8-3", False)
    g = Model({"x": [1, 2, 5, 5]}, {"y": [1, 3]}).hold(
        kernel=np.random.default_rng(4).standard_normal((4, 2, 3, 3)), back=ints(1, 4, 1, 1)
    )
    g.op("Conv", "x kernel", "c").op("GlobalAveragePool", "c", "p").op("Squeeze", "p", "v").layer("v", "w", 4, 4)
    g.op("Sigmoid", "w", "s").op("Reshape", "s back", "b").op("Mul", "c b", "m").op("Flatten", "m", "f")
    network = from_model(g.layer("f", "a", 36, 8, "Gemm").op("Relu", "a", "e").layer("e", "y", 8, 3, "Gemm").made())
    assert (network.topology, network.frame.takes_one_row) == ("36-8-3", False)


@pytest.mark.parametrize("name", ["Gemm and no Squeeze", "an image, Flatten"])
def test_targets_have_the_shape_of_its_outputs(name, tmp_path):
    """(rows, 1, 3), as its outputs (1, 3) are stacked."""
    model = FORMS[name]().made()
    network, rows = from_model(model), rows_of(model)
    labels = by_row(model, rows)[0][:, None]
    data = load_dataset(data_of(tmp_path, rows, labels))
    assert labels.shape == (ROWS, 1, 3)
    found = make_engine("loop").evaluate(network, prepare(network, data, data.test)).accuracy
    assert found == pytest.approx(1, abs=1e-5)


def test_what_cannot_be_told_of_many_rows_is_refused_with_the_reason():
    """Layers before a node that works across its axes stay, and why is said."""
    g = Model({"obs": [6]}, {"y": [3]})
    g.layer("obs", "a", 6, 8).op("CumSum", "a zero", "c").hold(zero=np.array(0)).layer("c", "b", 8, 8)
    network = from_model(g.op("Relu", "b", "e").layer("e", "y", 8, 3).made())
    assert network.topology == "8-8-3"
    assert network.frame.notes == (
        "'n_a.m' stays as it is: node 'n_c' (CumSum) behind 'n_a.m' cannot be trained through: the model has no batch "
        "axis, and what this does of many rows at once is not told",
    )
