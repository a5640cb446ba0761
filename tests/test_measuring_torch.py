"""What the measuring tools do in PyTorch: graphs as ONNX Runtime computes them, imitation, networks of their own."""

import time

import numpy as np
import pytest

from onnxsurgeon import Prune, calibrate, create, load, load_dataset, make_engine, operate, save

torch = pytest.importorskip("torch")
pytest.importorskip("skl2onnx")
from measuring.models import outputs, r_squared  # noqa: E402
from measuring.own_networks import MAKERS  # noqa: E402
from measuring.patients import OWN, patient  # noqa: E402
from measuring.torch_graph import TorchGraph  # noqa: E402
from measuring.torch_training import Recipe, imitate_from_scratch, load_everything, one_cycle, train_on  # noqa: E402

from tests.conftest import MODELS  # noqa: E402

RECIPE = Recipe(0.003, 32, 1.5, 1, 1)


def rows(count, columns, seed):
    return np.random.default_rng(seed).standard_normal((count, columns)).astype(np.float32)


@pytest.fixture
def teacher(tmp_path):
    path = tmp_path / "teacher.onnx"
    save(create((6, 24, 16, 3), seed=1, softmax=False, activation="Elu"), path)
    return path


def test_the_learning_rate_rises_and_falls_once():
    factors = [one_cycle(progress) for progress in np.linspace(0, 1, 101)]
    assert (factors[0], max(factors), factors[30]) == (pytest.approx(1 / 25), 1, 1)
    assert factors[-1] == one_cycle(1.5) == pytest.approx(0, abs=1e-12)
    assert (np.diff(factors[:31]) > 0).all()
    assert (np.diff(factors[30:]) < 0).all()
    schedule = torch.optim.lr_scheduler.OneCycleLR(torch.optim.SGD([torch.zeros(1)], 1), 1, total_steps=1001)
    expected = []
    for _ in range(1000):
        expected.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    # PyTorch's peak lies a step earlier.
    np.testing.assert_allclose([one_cycle(step / 1000) for step in range(1000)], expected, atol=0.01)


@pytest.mark.parametrize("activation", ["Relu", "Elu", "Tanh", "Sigmoid"])
def test_a_graph_is_computed_as_onnx_runtime_does(tmp_path, activation):
    path, x = tmp_path / "model.onnx", rows(20, 6, 0)
    save(create((6, 8, 5, 3), seed=2, softmax=False, activation=activation), path)
    graph = TorchGraph(path)
    assert {name: tuple(each.shape) for name, each in graph.weights.items()} == {
        name: values.shape for name, values in load(path).parameters()
    }
    made = graph.run(graph.output, {"input": torch.from_numpy(x)}).detach().numpy()
    np.testing.assert_allclose(made, outputs(path, {"input": x})[0], rtol=1e-4, atol=1e-5)


def test_a_policy_of_sigmoids_and_a_split_is_computed_as_onnx_runtime_does(tmp_path):
    """As the policies are written: (x − mean) · scale, x · sigmoid(x), the first half of the outputs behind a Tanh."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    shapes = {"mean": (6,), "scale": (6,), "w1": (6, 8), "b1": (8,), "w2": (8, 4), "b2": (4,)}
    constants = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Sub", ["obs", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["standard"]),
        helper.make_node("Gemm", ["standard", "w1", "b1"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["gate"]),
        helper.make_node("Mul", ["z", "gate"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["both"]),
        helper.make_node("Split", ["both"], ["mean_part", "rest"], axis=-1),
        helper.make_node("Tanh", ["mean_part"], ["actions"]),
    ]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, s]) for n, s in (("obs", 6), ("actions", 2))]
    graph = helper.make_graph(nodes, "policy", infos[:1], infos[1:], constants)
    path = tmp_path / "policy.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    path.write_bytes(model.SerializeToString())
    made, x = TorchGraph(path), rows(30, 6, 1)
    assert (made.features, sorted(made.weights)) == ("standard", ["b1", "b2", "w1", "w2"])
    found = made.run(made.output, {"obs": torch.from_numpy(x)}).detach().numpy()
    np.testing.assert_allclose(found, outputs(path, {"obs": x})[0], rtol=1e-4, atol=1e-5)


def test_an_operator_that_is_not_known_is_named():
    with pytest.raises(SystemExit, match=r"digits-small\.onnx: no PyTorch is known here for .*Softmax"):
        TorchGraph(MODELS / "digits-small.onnx")


def test_training_on_comes_nearer_to_the_teacher_in_the_time_given(teacher, tmp_path):
    x, fresh = rows(500, 6, 0), rows(200, 6, 1)
    y, expected = (outputs(teacher, {"input": each})[0] for each in (x, fresh))
    network = load(teacher)
    from onnxsurgeon import Dataset, Split, prepare

    split = Split(x, y.astype(np.float64))
    moments = calibrate(network, prepare(network, Dataset("rows", split, split, 0), split))
    start, out = tmp_path / "start.onnx", tmp_path / "out.onnx"
    save(operate(network, Prune(1, 6), moments=moments).network, start)
    load_everything()
    begun = time.perf_counter()
    trained = train_on(start, x, y, RECIPE, out)
    assert RECIPE.seconds <= trained.seconds <= time.perf_counter() - begun < RECIPE.seconds + 2
    assert trained.epochs > 1
    before, after = (r_squared(expected, outputs(path, {"input": fresh})[0]) for path in (start, out))
    assert after > before
    assert load(out).topology == "6-6-16-3"


def test_imitation_from_scratch_learns_the_teacher(teacher, tmp_path):
    x, fresh = 3 * rows(2000, 6, 0) + 5, 3 * rows(200, 6, 1) + 5
    y, expected = (outputs(teacher, {"input": each})[0] for each in (x, fresh))
    load_everything()
    imitate_from_scratch((6, 16, 8, 3), "Elu", x, y, RECIPE, tmp_path / "out.onnx", "obs")
    network = load(tmp_path / "out.onnx")
    assert (network.topology, str(network.layers[0].activation)) == ("6-16-8-3", "Elu")
    assert r_squared(expected, outputs(tmp_path / "out.onnx", {"obs": fresh})[0]) > 0.9


def test_every_network_of_our_own_has_a_maker():
    assert MAKERS.keys() == OWN.keys()


@pytest.mark.parametrize("name", ["digits-prelu", "digits-labels", "digits-fit", "breast-cancer", "diabetes"])
def test_networks_of_our_own_are_trained_once_and_better_than_chance(name, tmp_path):
    one = patient(name, tmp_path)
    network, dataset = load(one.model), one.dataset()
    metrics = make_engine("loop").evaluate(network, one.test(network, dataset))
    assert metrics.accuracy > {"diabetes": 0.3, "digits-labels": 0.85}.get(name, 0.9)
    bytes_before = one.model.read_bytes()
    assert patient(name, tmp_path).model.read_bytes() == bytes_before
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.npz", f"{name}.onnx"]
    assert load_dataset(one.data).test.rows == dataset.test.rows
