"""Peers that run on ONNX Runtime: onnxsurgeon's two engines, onnxsim's training loop; and its matrix product."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np

from benchmarking.plain_peers import PRODUCT, Run, Runner, factors, fastest_product, timed
from benchmarking.task import BATCH, RATE, Array, Task

# onnxsim's own optimizers are Adam and SGD with momentum 0.9.
SGD = """<ir_version: 8, opset_import: ["" : 17]>
    sgd (float[n] parameter, float[n] gradient, float rate) => (float[n] updated)
    { scaled = Mul(gradient, rate) updated = Sub(parameter, scaled) }"""


def loop_peer(task: Task) -> Runner:
    """Onnxsurgeon's loop engine."""
    return engine_peer("loop", task)


def artifacts_peer(task: Task) -> Runner:
    """Onnxsurgeon's engine on ONNX Runtime's training API."""
    return engine_peer("artifacts", task)


def engine_peer(name: str, task: Task) -> Runner:
    """One of onnxsurgeon's own engines, by its public interface.

    An engine asks for the next array of batches when it is done with the last. The clock is therefore in the
    iterator, where it leaves out what ``train`` does once: artifacts, sessions, reading the weights back.
    """
    from onnxsurgeon import Examples, TrainingSpec, create, make_engine

    network = create(task.sizes, seed=0).with_parameters(task.fresh())
    examples = Examples.classification(task.features, task.labels, task.sizes[-1])
    engine = make_engine(name)
    warm, rest = task.parts()

    def run() -> Run:
        times: list[float] = []

        def batches() -> Iterator[Array]:
            times.append(time.perf_counter())
            yield warm
            times.append(time.perf_counter())
            yield rest
            times.append(time.perf_counter())

        trained = engine.train(network, examples, batches(), TrainingSpec(RATE))
        begun, warmed, ended = times
        # All its time inside ONNX Runtime lies between the requests, however long any of it took.
        if trained.seconds > ended - begun:
            raise RuntimeError("the engine reads batches ahead of training: its time cannot be taken between them")
        return Run((ended - warmed) / len(rest) * 1e6, [values for _, values in trained.network.parameters()])

    return run


def onnxsim_peer(task: Task) -> Runner:
    """``onnxsim.compile_training_loop``: one step as an ONNX graph, called from Python for every batch."""
    import onnx
    import onnxruntime
    from onnxsim import compile_training_loop
    from onnxsim.compile_training import CustomOptimizer

    features, targets = task.features, task.targets
    model, names = loss_model(task)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3

    def run() -> Run:
        optimizer = CustomOptimizer(onnx.parser.parse_model(SGD), num_state=0)
        loop = compile_training_loop(model, "loss", names, optimizer)
        # It takes no session options, and ONNX Runtime's default is a thread for each core. All else, such as its
        # choice of no graph optimization, is left to it.
        with mock.patch.object(onnxruntime, "SessionOptions", return_value=options):
            _ = loop.step_graph  # compiles

        def step(rows: Array) -> None:
            loop({"features": features[rows], "targets": targets[rows]}, lr=RATE)

        return Run(timed(step, task.batches), list(loop.parameters().values()))  # times first, then reads

    return run


def loss_model(task: Task) -> tuple[Any, list[str]]:
    """Forward pass and mean cross-entropy with static shapes, and the parameters' names.

    onnxsim differentiates no LogSoftmax.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, x = [], [], "features"
    last = len(task.sizes) - 2
    for number, _ in enumerate(pairwise(task.sizes)):
        names = [f"weight_{number}", f"bias_{number}"]
        values = task.start[2 * number : 2 * number + 2]
        tensors += [numpy_helper.from_array(each, name) for each, name in zip(values, names, strict=True)]
        nodes.append(helper.make_node("Gemm", [x, *names], [f"z_{number}"]))
        if number < last:
            nodes.append(helper.make_node("Relu", [f"z_{number}"], [f"h_{number}"]))
        x = f"h_{number}"
    parameters = [tensor.name for tensor in tensors]
    tensors.append(numpy_helper.from_array(np.array([0, 1]), "axes"))
    tensors.append(numpy_helper.from_array(np.array(-1 / BATCH, np.float32), "scale"))
    nodes += [
        helper.make_node("Softmax", [f"z_{last}"], ["p"], axis=-1),
        helper.make_node("Log", ["p"], ["log_p"]),
        helper.make_node("Mul", ["log_p", "targets"], ["likelihood"]),
        helper.make_node("ReduceSum", ["likelihood", "axes"], ["total"], keepdims=0),
        helper.make_node("Mul", ["total", "scale"], ["loss"]),
    ]
    shapes = {"features": [BATCH, task.sizes[0]], "targets": [BATCH, task.sizes[-1]], "loss": []}
    *inputs, loss = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    graph = helper.make_graph(nodes, "loss", inputs, [loss], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), parameters


def onnxruntime_product(_: Task) -> Runner:
    """Sgemm of ONNX Runtime's MLAS."""
    import onnxruntime
    from onnx import TensorProto, helper

    a, b, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [PRODUCT, PRODUCT]) for name in "aby")
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["y"])], "product", [a, b], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = dict(zip("ab", factors(), strict=True))
    return lambda: fastest_product(lambda: session.run(None, feeds))
