"""New networks: a plain perceptron with the paper's initial weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.activations import ACTIVATIONS, Activation
from onnxsurgeon.graph.frame import Frame, Head, Trunk
from onnxsurgeon.graph.layers import DenseChain, DenseLayer, LayerNames
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.suggestions import did_you_mean

OPSET, IR_VERSION = 17, 8  # every ONNX Runtime from 1.14 on reads these
MOST_PARAMETERS = 500_000_000  # with more, one file would pass protobuf's 2 GB


def parse_sizes(text: str) -> tuple[int, ...]:
    """Read widths from a text such as "784-10-10".

    Raises:
        ModelError: it is no list of two or more positive numbers joined by dashes.
    """
    try:
        sizes = tuple(int(part) for part in text.split("-"))
    except ValueError:
        sizes = ()
    if len(sizes) < 2 or min(sizes) < 1:
        raise ModelError(
            f"'{text}' is no topology: expected two or more positive numbers such as 784-10-10", "topology"
        )
    return sizes


def require_activation(name: str) -> None:
    """Raise ModelError unless opset ``OPSET`` has an activation of that name, without parameters for each unit."""
    if name not in ACTIVATIONS or ACTIVATIONS[name].slope or ACTIVATIONS[name].since > OPSET:
        known = [each for each, record in ACTIVATIONS.items() if not record.slope and record.since <= OPSET]
        raise ModelError(f"unknown activation '{name}'{did_you_mean(name, known)}", "unknown-choice")


def glorot_uniform(generator: np.random.Generator, n_in: int, n_out: int) -> Array:
    """Draw a weight (n_in, n_out), uniform in ± √(6 / (n_in + n_out))."""
    limit = np.sqrt(6.0 / (n_in + n_out))
    return generator.uniform(-limit, limit, (n_in, n_out)).astype(np.float32)


def create(
    sizes: Sequence[int],
    *,
    seed: int = 0,
    activation: str = "Relu",
    softmax: bool = True,
    input_shape: Sequence[int] | None = None,
    name: str = "model",
) -> Network:
    """Create a perceptron of the given widths with Glorot uniform weights and zero biases (paper, Appendix).

    Args:
        sizes: widths from the input to the output.
        seed: seed of the weights; the same seed gives the same bytes.
        activation: op type of the hidden layers' activation.
        softmax: whether probabilities follow the logits.
        input_shape: shape of one input row, flattened before the first layer; by default (n_in,).
        name: the network's name.

    Raises:
        ModelError: the sizes, the input's shape or the activation make no sense.
    """
    sizes = tuple(sizes)
    shape = tuple(input_shape) if input_shape is not None else sizes[:1]
    if int(np.prod(shape, dtype=np.int64)) != sizes[0] or min(shape, default=0) < 1:
        raise ModelError(
            f"input shape {'x'.join(map(str, shape))} does not hold the first layer's {sizes[0]} inputs", "topology"
        )
    require_activation(activation)
    count = sum(a * b + b for a, b in pairwise(sizes))
    if count > MOST_PARAMETERS:
        raise ModelError(
            f"{'-'.join(map(str, sizes))} has {count} parameters; at most {MOST_PARAMETERS} fit one file",
            "beyond-one-file",
        )
    rng = np.random.default_rng(seed)
    layers = []
    for number, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
        weight = glorot_uniform(rng, n_in, n_out)
        hidden = Activation(activation) if number < len(sizes) - 1 else None
        layers.append(DenseLayer(weight, np.zeros(n_out, np.float32), hidden, LayerNames.derived(f"layer{number}")))

    nodes = []
    features = "input"
    if len(shape) > 1:
        features = "features"
        nodes.append(helper.make_node("Flatten", ["input"], [features], name="flatten", axis=1))
    outputs = "probabilities" if softmax else "logits"
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], name="softmax", axis=-1))
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info(outputs, TensorProto.FLOAT, ["batch", sizes[-1]])],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="onnxsurgeon"
    )
    prefix = (0,) if len(shape) > 1 else ()
    readers = ("Softmax",) if softmax else ()
    head = Head("logits", sizes[-1], "Softmax" if softmax else "", readers)
    trunk = Trunk({features: (sizes[0],)}, (0,), (head,))
    frame = Frame(model, (len(prefix),), trunk, prefix)
    network = Network((DenseChain(tuple(layers), features, "logits"),), frame, name)
    onnx.checker.check_model(to_model(network))
    return network
