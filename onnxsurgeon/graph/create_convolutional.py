"""New convolutional networks: convolutions and pooling, one behind the other, and dense layers behind them."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.activations import Activation
from onnxsurgeon.graph.create import IR_VERSION, MOST_PARAMETERS, OPSET, require_activation
from onnxsurgeon.graph.decompose import activation_nodes
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.reader import from_model
from onnxsurgeon.linear_algebra import Array

EXAMPLE = "28x28x1-c16-p-c32-p-10"
MOST_AXES = 3  # of space
_CONVOLUTION = re.compile(r"c(?P<units>[1-9]\d*)(?:k(?P<kernel>[1-9]\d*))?(?:s(?P<stride>[1-9]\d*))?")
_POOLING = re.compile(r"p(?P<kernel>[1-9]\d*)?")
_SIZE = re.compile(r"[1-9]\d*")
_LONGEST = 9  # digits of a number


class Convolve(NamedTuple):
    """Units, taps along each axis and stride of a convolution, padded so that only its stride shrinks the map."""

    units: int
    kernel: int = 3
    stride: int = 1


class Pool(NamedTuple):
    """Pooling: the largest value of each window of ``size``; 0 stands for the mean of the whole map."""

    window: int


class Dense(NamedTuple):
    """Units of a dense layer."""

    units: int


Part = Convolve | Pool | Dense


class Plan(NamedTuple):
    """The meaning of a text such as ``EXAMPLE``.

    Attributes:
        channels: number of channels of an input row.
        space: sizes of its axes of space.
        parts: the layers that follow, in order; the last is dense.
    """

    channels: int
    space: tuple[int, ...]
    parts: tuple[Part, ...]


def is_convolutional(text: str) -> bool:
    """Whether the text is meant as a convolutional network: it begins with the shape of an input row."""
    first, dash, _ = text.partition("-")
    return "x" in first and bool(dash)


def parse_plan(text: str) -> Plan:
    """Read the plan from a text such as "28x28x1-c16k5s2-c32-p-g-10".

    The first part is the shape of a row with its channels last, as shapes of images are written elsewhere. ``c16`` is a
    convolution of 16 units and 3 taps along each axis; ``k5`` gives it 5 taps, ``s2`` a stride of 2. ``p`` is pooling
    by 2, ``p3`` by 3, and ``g`` the mean of each channel; a number is a dense layer.

    Raises:
        ModelError: it is no plan; says which part is wrong.
    """
    first, *rest = text.split("-")
    sizes = first.split("x")
    if not 2 <= len(sizes) <= MOST_AXES + 1 or not all(_is_size(size) for size in sizes):
        raise ModelError(
            f"'{text}': '{first}' is no shape of a row such as 28x28x1, one to three sizes and channels", "topology"
        )
    *space, channels = (int(size) for size in sizes)
    parts = tuple(_part(part, text) for part in rest)
    if not parts or not isinstance(parts[-1], Dense):
        raise ModelError(f"'{text}' ends in no number of outputs: expected such as {EXAMPLE}", "topology")
    flat = next(i for i, part in enumerate(parts) if isinstance(part, Dense) or part == Pool(0))
    if any(not isinstance(part, Dense) for part in parts[flat + 1 :]):
        raise ModelError(
            f"'{text}': '{rest[flat + 1]}' stands behind '{rest[flat]}', where there are no places any more", "topology"
        )
    return Plan(channels, tuple(space), parts)


def _is_size(text: str) -> bool:
    return _SIZE.fullmatch(text) is not None and len(text) <= _LONGEST


def _part(text: str, whole: str) -> Part:
    if any(len(number) > _LONGEST for number in re.findall(r"\d+", text)):
        raise ModelError(f"'{whole}': '{text}' is too large", "beyond-one-file")
    if found := _CONVOLUTION.fullmatch(text):
        numbers = {name: int(number) for name, number in found.groupdict().items() if number}
        return Convolve(**numbers)
    if found := _POOLING.fullmatch(text):
        return Pool(int(found["kernel"] or 2))
    if text == "g":
        return Pool(0)
    if _is_size(text):
        return Dense(int(text))
    raise ModelError(
        f"'{whole}': '{text}' is none of c16 (a convolution; c16k5s2 of 5 taps with steps of 2), p (pooling; p3 by 3), "
        "g (the mean of each channel) and 10 (a dense layer)",
        "topology",
    )


def create_convolutional(
    text: str, *, seed: int = 0, activation: str = "Relu", softmax: bool = True, name: str = "model"
) -> Network:
    """Create a convolutional network with Glorot uniform weights and zero biases; see ``parse_plan``.

    Its input is (batch, channels, space…), as ONNX's Conv takes it; images of a data set are transposed as they are
    read.

    Args:
        text: such as "28x28x1-c16-p-c32-p-10".
        seed: seed of the weights; the same seed gives the same bytes.
        activation: op type of the activation behind each layer but the last.
        softmax: whether probabilities follow the logits.
        name: the network's name.

    Raises:
        ModelError: the text or the activation make no sense, or the network would be too large.
    """
    plan = parse_plan(text)
    require_activation(activation)
    build = _Build(plan, np.random.default_rng(seed), Activation(activation), text)
    for position, part in enumerate(plan.parts, start=1):
        build.add(part, is_last=position == len(plan.parts))
    return from_model(build.model(softmax=softmax), name=name)


class _Build:
    def __init__(self, plan: Plan, rng: np.random.Generator, activation: Activation, text: str) -> None:
        self.rng, self.activation, self.text, self.plan = rng, activation, text, plan
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.x, self.channels, self.space = "input", plan.channels, plan.space
        self.layers = self.pools = self.parameters = 0

    def add(self, part: Part, *, is_last: bool) -> None:
        """Append the part's nodes."""
        if isinstance(part, Pool):
            self._pool(part.window)
        elif isinstance(part, Convolve):
            self._convolve(part)
        else:
            self._dense(part.units, is_last=is_last)

    def _layer(self, op: str, units: int, inputs: int, taps: int, kernel: tuple[int, ...], **attributes: Any) -> str:
        """Add a layer of Glorot uniform weights, whose fans count every tap; return the name of its output."""
        self.layers += 1
        self.parameters += units * (inputs * taps + 1)
        if self.parameters > MOST_PARAMETERS:
            raise ModelError(
                f"'{self.text}' has more than {MOST_PARAMETERS} parameters: they do not fit one file", "beyond-one-file"
            )
        base, limit = f"layer{self.layers}", math.sqrt(6.0 / (taps * (inputs + units)))
        weight: Array = self.rng.uniform(-limit, limit, (inputs * taps, units)).astype(np.float32)
        stored = weight.T.reshape(units, inputs, *kernel) if op == "Conv" else weight
        self.constants += [
            numpy_helper.from_array(np.ascontiguousarray(stored), f"{base}.weight"),
            numpy_helper.from_array(np.zeros(units, np.float32), f"{base}.bias"),
        ]
        given = [self.x, f"{base}.weight", f"{base}.bias"]
        self.nodes.append(helper.make_node(op, given, [f"{base}/pre_activation"], name=base, **attributes))
        return base

    def _activate(self, base: str) -> None:
        z, y = f"{base}/pre_activation", f"{base}/output"
        kind = np.dtype(np.float32)
        nodes, constants = activation_nodes(self.activation, z, y, f"{base}/activation", kind, OPSET)
        self.nodes += nodes
        self.constants += constants
        self.x = y

    def _convolve(self, part: Convolve) -> None:
        rank = len(self.space)
        before, behind = (part.kernel - 1) // 2, part.kernel // 2
        base = self._layer(
            "Conv",
            part.units,
            self.channels,
            part.kernel**rank,
            (part.kernel,) * rank,
            kernel_shape=[part.kernel] * rank,
            strides=[part.stride] * rank,
            pads=[before] * rank + [behind] * rank,
        )
        self._activate(base)
        self.channels = part.units
        self.space = tuple((size - 1) // part.stride + 1 for size in self.space)

    def _pool(self, window: int) -> None:
        self.pools += 1
        name = f"pool{self.pools}"
        if window == 0:
            self.nodes.append(helper.make_node("GlobalAveragePool", [self.x], [f"{name}/output"], name=name))
            self.space = (1,) * len(self.space)
        else:
            sizes: dict[str, Any] = {"kernel_shape": [window] * len(self.space), "strides": [window] * len(self.space)}
            self.nodes.append(helper.make_node("MaxPool", [self.x], [f"{name}/output"], name=name, **sizes))
            if min(self.space) < window:
                left = "x".join(map(str, self.space))
                raise ModelError(f"'{self.text}': nothing is left to pool by {window} of a map of {left}", "topology")
            self.space = tuple(size // window for size in self.space)
        self.x = f"{name}/output"

    def _dense(self, units: int, *, is_last: bool) -> None:
        if self.space:
            self.nodes.append(helper.make_node("Flatten", [self.x], ["features"], name="flatten", axis=1))
            self.x, self.channels, self.space = "features", self.channels * math.prod(self.space), ()
        base = self._layer("Gemm", units, self.channels, 1, ())
        self.channels = units
        if is_last:
            self.nodes[-1].output[0] = "logits"
        else:
            self._activate(base)

    def model(self, *, softmax: bool) -> onnx.ModelProto:
        """The checked model."""
        outputs = "probabilities" if softmax else "logits"
        if softmax:
            self.nodes.append(helper.make_node("Softmax", ["logits"], [outputs], name="softmax", axis=-1))
        row: list[str | int] = ["batch", self.plan.channels, *self.plan.space]
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, row)],
            [helper.make_tensor_value_info(outputs, TensorProto.FLOAT, ["batch", self.channels])],
            self.constants,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="onnxsurgeon"
        )
        onnx.checker.check_model(model, full_check=True)
        return model
