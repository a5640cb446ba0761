"""Optimizers, schedules and the optimizer's state: against numpy, between the engines, from call to call."""

import math
from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import (
    BatchSchedule,
    EngineError,
    Examples,
    OptimizerState,
    SettingsError,
    Task,
    TrainingSettings,
    TrainingSpec,
    create,
    make_engine,
)
from onnxsurgeon.graph.activations import ACTIVATIONS, Activation, prelu
from onnxsurgeon.training.loop_graph import training_loop
from onnxsurgeon.training.optimizers import MAKERS, make_optimizer
from onnxsurgeon.training.rates import SCHEDULES, RateSchedule
from onnxsurgeon.training.settings import OPTIMIZERS
from tests.conftest import as_float64, needs_training, randomised

DECAYS = (0.0, 0.01)


def values(network):
    return [v for _, v in network.chain.parameters()]


def largest_gap(first, second):
    return max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))


def numpy_gradients(parameters, x, labels, classes):
    """Gradients of the mean cross-entropy of Relu layers (W, b, W, b, …)."""
    layers = list(zip(parameters[::2], parameters[1::2], strict=True))
    inputs = [x]
    for i, (w, b) in enumerate(layers):
        z = inputs[-1] @ w + b
        inputs.append(z if i == len(layers) - 1 else np.maximum(z, 0))
    p = np.exp(inputs[-1] - inputs[-1].max(1, keepdims=True))
    d = (p / p.sum(1, keepdims=True) - np.eye(classes)[labels]) / len(x)
    found = []
    for i in reversed(range(len(layers))):
        found = [inputs[i].T @ d, d.sum(0), *found]
        d = d @ layers[i][0].T * (inputs[i] > 0)
    return found


def published_sgd(spec, theta, g, memory, rate, t):
    """PyTorch's documentation of SGD, line by line; dampening 0."""
    g = g + spec.weight_decay * theta
    if spec.optimizer == "sgd":
        return theta - rate * g, memory
    buffer = g if t == 1 else spec.momentum * memory[0] + g
    g = g + spec.momentum * buffer if spec.optimizer == "nesterov" else buffer
    return theta - rate * g, (buffer,)


def published_adamw(spec, theta, g, memory, rate, t):
    """PyTorch's documentation of AdamW, line by line."""
    m, v = memory or (0.0, 0.0)
    theta = theta - rate * spec.weight_decay * theta
    m = spec.beta1 * m + (1 - spec.beta1) * g
    v = spec.beta2 * v + (1 - spec.beta2) * g * g
    m_hat, v_hat = m / (1 - spec.beta1**t), v / (1 - spec.beta2**t)
    return theta - rate * m_hat / (np.sqrt(v_hat) + spec.epsilon), (m, v)


def numpy_training(spec, network, data, batches):
    """The same training in float64, by the published formulas."""
    rule = published_adamw if spec.optimizer == "adamw" else published_sgd
    parameters = [v.astype(float) for v in values(network)]
    memories = [()] * len(parameters)
    t = 0
    for block in batches:
        for rows in block:
            rate = spec.learning_rate * spec.schedule.factor(spec.position + t)
            t += 1
            x, labels = data.features[0][rows].astype(float), data.labels[0][rows]
            gradients = numpy_gradients(parameters, x, labels, data.classes)
            done = [
                rule(spec, theta, g, memory, rate, t)
                for theta, g, memory in zip(parameters, gradients, memories, strict=True)
            ]
            parameters, memories = [each[0] for each in done], [each[1] for each in done]
    return parameters


def spec_of(optimizer, decay=0.0, **others):
    rate = 0.003 if optimizer == "adamw" else 0.05
    return TrainingSpec(rate, optimizer, weight_decay=decay, **others)


def float64_digits(digit_examples):
    train, _ = digit_examples
    return Examples.classification(train.features[0].astype(np.float64), train.labels[0], 10)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_loop_computes_the_published_formulas(optimizer, decay, digit_examples):
    data, net = float64_digits(digit_examples), as_float64(randomised(create((64, 12, 10)), scale=0.1))
    batches = list(BatchSchedule(data.rows, 16, seed=1).window(80, 100))  # with the last, shorter batch of an epoch
    assert [block.shape for block in batches] == [(9, 16), (1, 13), (10, 16)]
    schedule = RateSchedule("cosine", total=130, warmup=90)  # another rate every step, up and then down
    spec = spec_of(optimizer, decay, schedule=schedule, position=80, beta1=0.8, beta2=0.95, epsilon=1e-3)
    trained = make_engine("loop").train(net, data, batches, spec).network
    assert largest_gap(values(trained), values(net)) > 1e-3
    assert largest_gap(values(trained), numpy_training(spec, net, data, batches)) < 1e-11


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_in_two_calls_is_training_in_one(optimizer, digit_examples):
    train, _ = digit_examples
    net = create((64, 12, 10), seed=3)
    net = net.with_layers([replace(net.layers[0], activation=prelu(np.full(12, 0.2, np.float32))), net.layers[1]])
    schedule, engine = BatchSchedule(train.rows, 16, seed=1), make_engine("loop")
    spec = spec_of(optimizer, 0.01, schedule=RateSchedule("linear", total=180, warmup=7))
    whole = engine.train(net, train, schedule.window(0, 180), spec)
    first = engine.train(net, train, schedule.window(0, 95), spec)
    second = engine.train(first.network, train, schedule.window(95, 180), replace(spec, position=95), first.state)
    assert largest_gap(values(whole.network), values(second.network)) == 0
    if optimizer == "sgd":
        assert whole.state is None
        return
    assert (first.state.steps, second.state.steps) == (95, 180)
    for ours, theirs in zip(second.state.moments, whole.state.moments, strict=True):
        assert largest_gap(ours, theirs) == 0
    forgetful = engine.train(first.network, train, schedule.window(95, 180), replace(spec, position=95))
    assert largest_gap(values(whole.network), values(forgetful.network)) > 1e-4


@needs_training
@pytest.mark.parametrize(("optimizer", "decay"), [("sgd", 0.0), ("adamw", 0.0), ("adamw", 0.1)])
def test_the_engines_agree_over_an_epoch_of_digits(optimizer, decay, digit_examples):
    train, _ = digit_examples
    net = create((64, 12, 10, 10), seed=3)
    schedule = BatchSchedule(train.rows, 16, seed=1)
    spec = spec_of(optimizer, decay, schedule=RateSchedule("cosine", total=120, warmup=10), epsilon=1e-5)
    results = []
    for name in ("loop", "artifacts"):
        engine = make_engine(name)
        first = engine.train(net, train, schedule.window(0, 40), spec)
        results.append(
            engine.train(first.network, train, schedule.window(40, 90), replace(spec, position=40), first.state)
        )
    ours, theirs = results
    assert largest_gap(values(ours.network), values(theirs.network)) < 1e-5
    if optimizer == "adamw":
        assert ours.state.steps == theirs.state.steps == 90
        for mine, other in zip(ours.state.moments, theirs.state.moments, strict=True):
            assert largest_gap(mine, other) < 1e-4 * max(np.abs(v).max() for v in mine)


@needs_training
def test_the_artifacts_engine_says_what_it_lacks(digit_examples):
    net, train = create((64, 10)), digit_examples[0]
    engine = make_engine("artifacts")
    for spec, what in (
        (TrainingSpec(optimizer="momentum"), "has no optimizer momentum; use the loop"),
        (TrainingSpec(optimizer="nesterov"), "has no optimizer nesterov; use the loop"),
        (TrainingSpec(weight_decay=0.1), "sgd has no weight decay; use the loop"),
    ):
        with pytest.raises(EngineError, match=what):
            engine.train(net, train, [np.arange(16)[None]], spec)
        with pytest.raises(EngineError, match=what):
            make_engine("artifacts", optimizer=spec)


def test_auto_takes_the_loop_for_what_the_training_build_lacks(monkeypatch):
    net = create((64, 12, 10))
    net = net.with_layers([replace(net.layers[0], activation=Activation("Gelu")), net.layers[1]])
    monkeypatch.setitem(ACTIVATIONS, "Gelu", replace(ACTIVATIONS["Gelu"], gradient=None))
    assert make_engine("auto", network=net, optimizer=TrainingSettings(optimizer="momentum")).name == "loop"


def test_regressions_keep_their_state_in_the_units_of_the_weights():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 5)), rng.standard_normal((64, 1)) * 300
    net = as_float64(create((5, 6, 1), softmax=False, seed=1))
    scaled = Examples((x,), (y,), (Task("squared-error", 1, scale=(256.0,)),))
    plain = Examples((x,), (y / 256,), (Task("squared-error", 1),))
    in_units = net.with_parameters(v / 256 if i >= 2 else v for i, v in enumerate(values(net)))
    spec, engine, batches = TrainingSpec(1e-3, "adamw"), make_engine("loop"), [np.arange(64).reshape(4, 16)]
    first, same = engine.train(net, scaled, batches, spec), engine.train(in_units, plain, batches, spec)
    for power in (1, 2):
        for i, (ours, theirs) in enumerate(
            zip(first.state.moments[power - 1], same.state.moments[power - 1], strict=True)
        ):
            np.testing.assert_array_equal(ours, theirs * 256**power if i >= 2 else theirs)
    again = engine.train(first.network, scaled, batches, spec, first.state)
    whole = engine.train(net, scaled, batches * 2, spec)
    assert largest_gap(values(again.network), values(whole.network)) == 0


def body_of(optimizer, decay):
    examples = Examples.classification(np.zeros((1, 64), np.float32), np.zeros(1, np.int64), 10)
    model = training_loop(create((64, 12, 10)), examples, optimizer=make_optimizer(spec_of(optimizer, decay)))
    return [node.op_type for node in model.graph.node[0].attribute[0].g.node]


@pytest.mark.parametrize(
    ("optimizer", "nodes", "decaying"), [("sgd", 1, 2), ("momentum", 3, 5), ("nesterov", 4, 6), ("adamw", 11, 12)]
)
def test_an_update_costs_as_many_nodes_as_it_says(optimizer, nodes, decaying):
    plain = len(body_of("sgd", 0.0))
    assert body_of("sgd", 0.0).count("Gemm") == 2 + 1 + 4  # forward, backward, and all there is of the updates
    for decay, each in ((0.0, nodes), (0.01, decaying)):
        assert len(body_of(optimizer, decay)) - plain == 4 * (each - 1)


def test_there_is_a_rule_for_every_optimizer():
    assert tuple(MAKERS) == OPTIMIZERS


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 10])
def test_schedules_are_positive_and_the_same_however_they_are_cut(kind, warmup):
    schedule = RateSchedule(kind, total=200, warmup=warmup)
    factors = schedule.factors(0, 200)
    assert (factors > 0).all()
    assert factors.max() <= 1
    pieces = np.concatenate([schedule.factors(0, 7), schedule.factors(7, 90), schedule.factors(97, 103)])
    np.testing.assert_array_equal(factors, pieces)
    assert np.all(np.diff(factors[:warmup]) > 0)
    assert (schedule.factors(200, 5) == schedule.factor(200)).all()


def test_schedules_are_what_they_are_called():
    def at(kind, *positions):
        return [RateSchedule(kind, total=100).factor(p) for p in positions]

    assert at("constant", 0, 50, 99) == [1, 1, 1]
    assert at("cosine", 0, 50) == pytest.approx([1, 0.5])
    assert at("cosine", 75)[0] == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert at("linear", 0, 25, 99) == pytest.approx([1, 0.75, 0.01])
    assert at("step", 0, 49, 50, 74, 75, 99) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert at("one-cycle", 0, 15, 30, 65) == pytest.approx([0.04, 0.52, 1, 0.5], abs=1e-5)
    warm = RateSchedule("linear", total=104, warmup=4)
    assert [warm.factor(p) for p in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 0.99])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"optimizer": "adam"}, "optimizer: 'adam' is unknown: expected one of sgd, momentum, nesterov, adamw"),
        ({"momentum": 0.0}, "momentum: 0.0 is not between 0 and 1; without momentum, the optimizer is sgd"),
        ({"momentum": 1.0}, "momentum: 1.0 is not between 0 and 1"),
        ({"weight_decay": -1.0}, "weight-decay: -1.0 is no finite value"),
        ({"weight_decay": math.nan}, "weight-decay: nan is no finite value"),
        ({"beta1": 1.0}, "beta1: 1.0 is not at least 0 and below 1"),
        ({"beta2": -0.1}, "beta2: -0.1 is not"),
        ({"epsilon": 0.0}, "epsilon: 0.0 is no positive value"),
        (
            {"schedule": "sine"},
            "schedule: 'sine' is unknown: expected one of constant, cosine, linear, step, one-cycle",
        ),
        ({"warmup": -1.0}, "warmup: -1.0 epochs is not at least 0 and shorter than the run of 4"),
        ({"warmup": 4.0}, "warmup: 4.0 epochs is not at least 0 and shorter"),
        ({"warmup": math.nan}, "warmup: nan epochs is not"),
        ({"warmup": 1.0, "schedule": "one-cycle"}, "the schedule one-cycle has a warm-up of its own"),
        ({"learning_rate": 0.0}, "learning-rate: 0.0 is no positive step size"),
    ],
)
def test_settings_out_of_range_are_refused(changes, reason):
    with pytest.raises(SettingsError) as error:
        TrainingSettings(**changes).check(4)
    assert reason in str(error.value)


def test_a_state_of_something_else_is_refused(digit_examples):
    net, train, engine = create((64, 12, 10)), digit_examples[0], make_engine("loop")
    for state in (OptimizerState.zeros(create((64, 11, 10)), 1), OptimizerState.zeros(net, 2)):
        with pytest.raises(EngineError, match="the optimizer's state belongs to another network or optimizer"):
            engine.train(net, train, [np.arange(16)[None]], TrainingSpec(optimizer="momentum"), state)


def test_float16_networks_keep_their_state_in_float32(digit_examples):
    net = create((64, 12, 10))
    net = replace(net, segments=(replace(net.chain, stored=np.dtype(np.float16)),))
    trained = make_engine("loop").train(net, digit_examples[0], [np.arange(16)[None]], TrainingSpec(optimizer="adamw"))
    assert {values.dtype for moment in trained.state.moments for values in moment} == {np.dtype(np.float32)}
    assert trained.rounding > 0
