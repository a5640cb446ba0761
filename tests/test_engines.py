"""Both engines: against a loop written in numpy, and against each other on Fashion-MNIST."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnxsurgeon import (
    BatchSchedule,
    DataError,
    EngineError,
    Examples,
    InputOptions,
    TrainingSpec,
    create,
    load,
    make_engine,
    prepare,
)
from onnxsurgeon.graph.activations import ACTIVATIONS, Activation
from onnxsurgeon.training.loop_graph import training_loop
from onnxsurgeon.training.metrics import correct_and_loss
from tests.conftest import MODELS, as_float64, needs_training, randomised, without_training

ENGINES = ["loop", pytest.param("artifacts", marks=needs_training)]


def numpy_sgd(net, data, batches, rate):
    """The same training by hand, in float64: Relu layers, softmax cross-entropy, mean over each batch."""
    layers = [[layer.weight.astype(float), layer.bias.astype(float)] for layer in net.layers]
    losses = []
    for rows in (row for block in batches for row in block):
        x = [data.features[0][rows].astype(float)]
        for i, (w, b) in enumerate(layers):
            z = x[-1] @ w + b
            x.append(z if i == len(layers) - 1 else np.maximum(z, 0))
        p = np.exp(x[-1] - x[-1].max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        losses.extend(-np.log(p[np.arange(len(rows)), data.labels[0][rows]]))
        d = (p - np.eye(data.classes)[data.labels[0][rows]]) / len(rows)
        for i in reversed(range(len(layers))):
            below = d @ layers[i][0].T * (x[i] > 0)
            layers[i][0] -= rate * x[i].T @ d
            layers[i][1] -= rate * d.sum(0)
            d = below
    return [values for layer in layers for values in layer], np.mean(losses)


def largest_gap(first, second):
    return max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))


def values(network):
    return [v for _, v in network.chain.parameters()]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_epoch_of_digits_with_its_last_short_batch_equals_numpy(engine, digit_examples):
    train, _ = digit_examples
    assert train.rows == 1437  # 89 batches of 16 and one of 13
    net = create((64, 12, 10, 10), seed=3)
    schedule = BatchSchedule(train.rows, 16, seed=1)
    batches = list(schedule.window(0, schedule.batches_per_epoch))
    assert [block.shape for block in batches] == [(89, 16), (1, 13)]
    trained = make_engine(engine).train(net, train, batches, TrainingSpec(0.05, report_loss=True))
    expected, loss = numpy_sgd(net, train, batches, 0.05)
    assert largest_gap(values(trained.network), expected) < 1e-5
    assert trained.mean_loss == pytest.approx(loss, abs=1e-5)
    assert trained.steps == 90
    assert largest_gap(values(net), values(create((64, 12, 10, 10), seed=3))) == 0  # the given one is not changed


@pytest.mark.parametrize("engine", ENGINES)
def test_asking_for_the_loss_changes_no_weight(engine, digit_examples):
    train, _ = digit_examples
    net, batches = create((64, 12, 10), seed=3), [np.arange(160).reshape(10, 16)]
    plain = make_engine(engine).train(net, train, batches, TrainingSpec(0.1))
    asked = make_engine(engine).train(net, train, batches, TrainingSpec(0.1, report_loss=True))
    assert plain.mean_loss is None
    assert largest_gap(values(plain.network), values(asked.network)) == 0


def test_float64_networks_are_trained_in_float64(digit_examples):
    train, _ = digit_examples
    data = Examples.classification(train.features[0].astype(np.float64), train.labels[0], 10)
    net, batches = as_float64(create((64, 12, 10))), [np.arange(160).reshape(10, 16)]
    trained = make_engine("loop").train(net, data, batches, TrainingSpec(0.1)).network
    assert trained.chain.dtype == np.float64
    assert largest_gap(values(trained), numpy_sgd(net, data, batches, 0.1)[0]) < 1e-12


@pytest.mark.parametrize("engine", ENGINES)
def test_evaluate(engine, digit_examples):
    _, test = digit_examples
    net = randomised(create((64, 12, 10)))
    metrics = make_engine(engine).evaluate(net, test)
    hidden = np.maximum(test.features[0] @ net.layers[0].weight + net.layers[0].bias, 0)
    logits = hidden @ net.layers[1].weight + net.layers[1].bias
    assert metrics.rows == 360
    assert metrics.accuracy == np.mean(logits.argmax(1) == test.labels[0])
    log = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert metrics.loss == pytest.approx(-log[np.arange(360), test.labels[0]].mean(), rel=1e-5)


def test_evaluation_in_parts_is_the_whole(monkeypatch, digit_examples):
    _, test = digit_examples
    net = randomised(create((64, 12, 10)))
    whole = make_engine("loop").evaluate(net, test)
    monkeypatch.setattr("onnxsurgeon.training.loop.OUTPUTS", 1)  # 256 rows in a run
    parts = make_engine("loop").evaluate(net, test)
    assert (parts.accuracy, parts.loss) == (whole.accuracy, pytest.approx(whole.loss))


def test_cross_entropy_of_extreme_logits_is_finite():
    logits = np.array([[1e4, -1e4], [0.0, 0.0]], np.float32)
    correct, loss = correct_and_loss(logits, np.array([1, 0]))
    assert correct == 1
    assert loss == pytest.approx(2e4 + np.log(2))


def test_the_training_loop_is_one_standard_graph_that_netron_can_open():
    examples = Examples.classification(np.zeros((1, 64), np.float32), np.zeros(1, np.int64), 10)
    model = training_loop(create((64, 12, 10)), examples, report_loss=True)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Scan"]
    assert {entry.domain for entry in model.opset_import} == {""}
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    body = [node.op_type for node in model.graph.node[0].attribute[0].g.node]
    assert body.count("Softmax") == 1  # loss and gradient share it


@needs_training
@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_engines_agree_on_fashion_mnist_after_100_steps(size, fashion_examples):
    train, _ = fashion_examples
    net = load(MODELS / f"fashion-mnist-{size}.onnx")
    batches = list(BatchSchedule(train.rows, 16, seed=6).window(0, 100))
    results = [
        values(make_engine(name).train(net, train, batches, TrainingSpec()).network) for name in ("loop", "artifacts")
    ]
    assert largest_gap(*results) < 1e-6


@needs_training
@pytest.mark.parametrize("size", ["small", "large"])
def test_engines_agree_on_fashion_mnist_after_an_epoch(size, fashion_examples):
    train, test = fashion_examples
    net = load(MODELS / f"fashion-mnist-{size}.onnx")
    batches = list(BatchSchedule(train.rows, 16, seed=6).window(0, 3750))
    engines = [make_engine(name) for name in ("loop", "artifacts")]
    ours, theirs = (engine.train(net, train, batches, TrainingSpec(report_loss=True)) for engine in engines)
    if size == "small":
        assert largest_gap(values(ours.network), values(theirs.network)) < 1e-5
    assert ours.mean_loss == pytest.approx(theirs.mean_loss, abs=1e-3)
    accuracies = [engines[0].evaluate(result.network, test).accuracy for result in (ours, theirs)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.003)
    assert min(accuracies) > 0.7  # that it learned at all


@needs_training
def test_artifacts_are_four_files_that_this_runtime_reads(tmp_path, digit_examples):
    train, _ = digit_examples
    net, batches = create((64, 12, 10)), [np.arange(160).reshape(10, 16)]
    make_engine("artifacts").train(net, train, batches, TrainingSpec(artifact_directory=tmp_path / "a"))
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"training_model.onnx", "eval_model.onnx", "optimizer_model.onnx", "checkpoint"}
    for path in (tmp_path / "a").glob("*.onnx"):
        assert onnx.load(path).ir_version <= 10


@needs_training
def test_the_training_build_is_imported_without_torch_and_makes_no_noise():
    code = (
        "import sys, numpy as np\n"
        "from onnxsurgeon import Examples, TrainingSpec, create, make_engine\n"
        "data = Examples.classification(np.ones((16, 4), 'f'), np.zeros(16, np.int64), 3)\n"
        "make_engine('artifacts').train(create((4, 5, 3)), data, [np.arange(16)[None]], TrainingSpec())\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@needs_training
def test_where_torch_is_installed_the_real_package_is_used(tmp_path):
    """A stand-in for torch, just enough for ``import onnxruntime.training`` to get as far as it needs torch."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('this torch is hollow')\n")
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from onnxsurgeon.training.artifacts import training_modules\n"
        "try:\n    training_modules()\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("EngineError")
    assert "this torch is hollow" in done.stdout


@without_training
def test_the_artifacts_engine_says_what_it_needs():
    with pytest.raises(EngineError, match=r"pip install 'onnxsurgeon\[training\]'"):
        make_engine("artifacts")


def test_auto_takes_the_loop_unless_an_op_has_no_rule(monkeypatch):
    from onnxsurgeon.training.artifacts import have_training

    net = create((64, 12, 10))
    assert make_engine("auto", network=net).name == "loop"
    layers = [replace(net.layers[0], activation=Activation("Gelu")), net.layers[1]]
    assert make_engine("auto", network=net.with_layers(layers)).name == "loop"
    monkeypatch.setitem(ACTIVATIONS, "Gelu", replace(ACTIVATIONS["Gelu"], gradient=None))
    assert make_engine("auto", network=net.with_layers(layers)).name == ("artifacts" if have_training() else "loop")


def test_unknown_engine_device_and_optimizer(digit_examples):
    with pytest.raises(EngineError, match="unknown engine 'warp': expected one of auto, loop, artifacts"):
        make_engine("warp")
    with pytest.raises(EngineError, match="unknown device 'tpu'"):
        make_engine("loop", "tpu")
    with pytest.raises(EngineError, match="unknown optimizer 'adam'"):
        make_engine("loop").train(create((64, 10)), digit_examples[0], [], TrainingSpec(optimizer="adam"))


def test_cuda_without_one():
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has a CUDA build")
    with pytest.raises(EngineError, match="device 'cuda' is not available"):
        make_engine("loop", "cuda")


def test_targets_that_do_not_fit_the_heads_are_refused(digit_examples):
    with pytest.raises(EngineError, match="its heads are 3 wide, the targets 10"):
        make_engine("loop").train(create((64, 12, 3)), digit_examples[0], [], TrainingSpec())
    with pytest.raises(EngineError, match="its heads are 3 wide, the targets 10"):
        make_engine("loop").evaluate(create((64, 12, 3)), digit_examples[0])


def test_one_output_is_no_classifier(digits):
    with pytest.raises(DataError, match="a single output, which has no cross-entropy"):
        prepare(create((64, 12, 1), softmax=False), digits, digits.train, InputOptions(loss="cross-entropy"))


def test_batches_depend_on_seed_and_epoch_alone():
    schedule = BatchSchedule(100, 16, seed=4)
    assert schedule.batches_per_epoch == 7

    def rows(start, stop):
        return [row.tolist() for block in schedule.window(start, stop) for row in block]

    whole = rows(0, 21)
    assert [len(batch) for batch in whole] == [16] * 6 + [4] + [16] * 6 + [4] + [16] * 6 + [4]
    assert rows(0, 5) + rows(5, 13) + rows(13, 21) == whole  # however the window is cut, ends of epochs included
    assert sorted(row for batch in whole[:7] for row in batch) == list(range(100))
    assert whole[:7] != whole[7:14]
    assert BatchSchedule(5, 16, 0).batches_per_epoch == 1
    assert next(BatchSchedule(5, 16, 0).window(0, 1)).shape == (1, 5)
