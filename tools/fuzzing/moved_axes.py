"""Models in which the batch moves about: transposed, split, merged with other axes, and brought back before the head.

Each is read, and its trunk's forward pass compared with what ONNX Runtime computes in the file; then each group of its
units is widened, and the written file compared with the one read.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from fuzzing.pipeline import Ending, judged
from onnxsurgeon import Network, from_model, operate
from onnxsurgeon.errors import OnnxSurgeonError
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.surgery import Widen
from onnxsurgeon.training.forward import feeds_of
from onnxsurgeon.training.resident import numbered
from tests.forward_model import forward_model

ROWS = "rows"  # stands among an axis' factors for the batch
COLUMNS, UNITS, HIDDEN, OUTPUTS = 5, 8, 6, 3
MOST_STEPS, MOST_RANK, MOST_ELEMENTS = 13, 4, 20_000
RELATIVE, ABSOLUTE = 2e-3, 2e-4  # the latter of a tensor's scale: products of a dozen steps in float32

Axis = tuple[Any, ...]  # the factors of its size, from the outermost to the innermost


class TooLargeError(Exception):
    """The model's tensors have become larger than is worth running."""


def run_moved(seed: int, index: int, folder: Path) -> Ending:
    """Model number ``index``, read, computed and widened; nothing is written into ``folder``."""
    try:
        return _compare(seed, index)
    except Exception as error:
        return judged(error)


def _compare(seed: int, index: int) -> Ending:
    maker = Maker(np.random.default_rng([seed, index]))
    try:
        model = maker.model()
    except TooLargeError:
        return Ending("error", "too large to be worth running")
    x = np.random.default_rng([seed, index, 1]).standard_normal((maker.rows, maker.steps, COLUMNS)).astype(np.float32)
    try:
        (expected,) = _run(model, {"x": x})
    except Exception:  # not every form is one that ONNX Runtime has for every opset
        return Ending("error", "ONNX Runtime does not run it")
    if not np.isfinite(expected).all():
        return Ending("error", "its outputs are not finite")
    network = from_model(copy.deepcopy(model))
    _compare_trunk(network, model, x)
    for group in range(1, network.group_count + 1):
        try:
            wide = operate(network, Widen(group, 2)).network
        except OnnxSurgeonError:
            continue
        _require_close(_run(to_model(wide), {"x": x})[0], expected, f"layer {group} widened")
    return Ending("result")


def _compare_trunk(network: Network, model: onnx.ModelProto, x: np.ndarray[Any, Any]) -> None:
    """The trunk's forward pass beside the tensors of the file."""
    trunk, watched = network.frame.trunk, copy.deepcopy(model)
    names = dict.fromkeys([*trunk.features, *(head.tensor for head in trunk.heads)])
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in ("x", "y"))
    known = dict(zip([value.name for value in watched.graph.output], _run(watched, {"x": x}), strict=True)) | {"x": x}
    fed = zip(numbered("features", len(trunk.features)), trunk.features, strict=True)
    feeds = {name: known[tensor] for name, tensor in fed}
    for head, found in zip(trunk.heads, _run(forward_model(network), {**feeds, **feeds_of(network)}), strict=True):
        _require_close(found, known[head.tensor], f"head {head.tensor}")


def _require_close(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], what: str) -> None:
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    if found.shape != expected.shape or not np.allclose(found, expected, RELATIVE, ABSOLUTE * scale):
        raise AssertionError(f"{what}: other values than the file's")


def _run(model: onnx.ModelProto, feeds: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


class Maker:
    """Makes one model, step by step; what each axis of the last tensor is made of is known all the time."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.fixed = self.one_of((None, None, 1, 2, 3, 6))  # rows that the file fixes
        self.rows = self.fixed or 4
        self.steps = self.one_of((1, 2, 3, 4, 6))
        self.opset = self.one_of((11, 12, 13, 17, 18))
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.tensor = "x"
        self.axes: list[Axis] = [(ROWS,), (self.steps,), (COLUMNS,)]
        self.before: list[tuple[str, list[Axis]]] = [("x", list(self.axes))]

    def model(self) -> onnx.ModelProto:
        """The model: steps, then the batch in front again, and two dense layers."""
        if self.rng.random() < 0.7:
            self.put("Add", [self.add("MatMul", [self.tensor, self.weights(COLUMNS, UNITS)]), self.weights(UNITS)])
            self.axes[-1] = (UNITS,)
            self.before.append((self.tensor, list(self.axes)))
        for _ in range(int(self.rng.integers(3, MOST_STEPS + 1))):
            tensor = self.tensor
            self.one_of(STEPS)(self)
            if np.prod([self.size(axis) for axis in self.axes]) > MOST_ELEMENTS:
                raise TooLargeError
            if self.tensor != tensor:
                self.before.append((self.tensor, list(self.axes)))
        self.bring_back()
        columns = int(np.prod([self.size(axis) for axis in self.axes[1:]]))
        if self.rng.random() < 0.5 or len(self.axes) == 1:
            self.put("Reshape", [self.tensor, self.numbers(self.fixed or -1, columns)])
        else:
            self.put("Flatten", [self.tensor])
        hidden = self.add("Gemm", [self.tensor, self.weights(columns, HIDDEN), self.weights(HIDDEN)])
        last = [self.add("Relu", [hidden]), self.weights(HIDDEN, OUTPUTS), self.weights(OUTPUTS)]
        self.nodes.append(helper.make_node("Gemm", last, ["y"], name="head"))
        rows = self.fixed or "n"
        graph = helper.make_graph(
            self.nodes,
            "moved",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, self.steps, COLUMNS])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, OUTPUTS])],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def bring_back(self) -> None:
        """Let the batch be an axis of its own, and the first."""
        place = self.place
        factors = self.axes[place]
        if len(factors) > 1:
            at = factors.index(ROWS)
            parts = [part for part in (factors[:at], (ROWS,), factors[at + 1 :]) if part]
            self.lay([*self.axes[:place], *parts, *self.axes[place + 1 :]])
        place = self.place
        if place:
            self.turn([place, *(axis for axis in range(len(self.axes)) if axis != place)])

    # --- what is known --------------------------------------------------------------------------------------

    @property
    def place(self) -> int:
        """The axis in which the batch is."""
        return next(number for number, axis in enumerate(self.axes) if ROWS in axis)

    @property
    def free(self) -> list[int]:
        """The others."""
        return [number for number, axis in enumerate(self.axes) if ROWS not in axis]

    def size(self, axis: Axis) -> int:
        """An axis' size while it runs."""
        return int(np.prod([self.rows if factor == ROWS else factor for factor in axis], dtype=int))

    def one_of(self, choices: Sequence[Any]) -> Any:
        """One of these at random."""
        return choices[int(self.rng.integers(len(choices)))]

    # --- what is made ---------------------------------------------------------------------------------------

    def add(self, operator: str, read: Sequence[str], **attributes: Any) -> str:
        """A node; the tensor that it writes."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, read, [name], name=f"{operator}{len(self.nodes)}", **attributes))
        return name

    def put(self, operator: str, read: Sequence[str], **attributes: Any) -> None:
        """The same of a node whose output goes on."""
        self.tensor = self.add(operator, read, **attributes)

    def constant(self, values: Any) -> str:
        """A constant of the file."""
        self.constants.append(numpy_helper.from_array(np.asarray(values), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def numbers(self, *values: int) -> str:
        """A constant of integers, (n,)."""
        return self.constant(np.array(values, np.int64))

    def weights(self, *shape: int) -> str:
        """A constant of random numbers."""
        return self.constant((self.rng.standard_normal(shape) / 2).astype(np.float32))

    def lay(self, axes: list[Axis]) -> None:
        """Reshape to these axes."""
        sizes = [-1 if ROWS in axis and not self.fixed else self.size(axis) for axis in axes]
        self.put("Reshape", [self.tensor, self.numbers(*sizes)])
        self.axes = axes

    def turn(self, order: list[int]) -> None:
        """Transpose."""
        self.put("Transpose", [self.tensor], perm=order)
        self.axes = [self.axes[axis] for axis in order]

    def replace(self, place: int, *axes: Axis) -> None:
        """Let others stand where one axis stood."""
        self.axes = [*self.axes[:place], *axes, *self.axes[place + 1 :]]

    def signed(self, axis: int) -> int:
        """An axis' number, counted from the front or from the back."""
        return axis - int(self.rng.integers(2)) * len(self.axes)


def _turn(maker: Maker) -> None:
    order = [int(axis) for axis in maker.rng.permutation(len(maker.axes))]
    if order == sorted(order, reverse=True) and maker.rng.random() < 0.7:
        maker.put("Transpose", [maker.tensor])
        maker.axes = maker.axes[::-1]
    else:
        maker.turn(order)


def _beside_constant(maker: Maker) -> None:
    """A constant of any shape that broadcasts, also one that makes an axis of size 1 longer."""
    operator, axes, shape = maker.one_of(("Add", "Mul", "Sub", "PRelu", "Where", "Max")), list(maker.axes), []
    for number in range(int(maker.rng.integers(len(axes) + 1)), len(axes)):
        axis, size = axes[number], maker.size(axes[number])
        if ROWS in axis:
            shape.append(size if maker.fixed and maker.rng.random() < 0.1 else 1)
        elif size == 1 and operator != "PRelu" and maker.rng.random() < 0.4:
            shape.append(3)
            axes[number] = (3,)
        else:
            shape.append(1 if maker.rng.random() < 0.4 else size)
    if operator == "Where":
        shown = maker.constant(maker.rng.random(shape) < 0.7)
        maker.put("Where", [shown, maker.tensor, maker.constant(np.float32(-2))])
    else:
        read = [maker.tensor, maker.weights(*shape)]
        maker.put(operator, read if operator == "PRelu" or maker.rng.random() < 0.5 else read[::-1])
    maker.axes = axes


def _activation(maker: Maker) -> None:
    maker.put(maker.one_of(("Relu", "Tanh", "Sigmoid")), [maker.tensor])


def _softmax(maker: Maker) -> None:
    rank = len(maker.axes)
    axis = maker.one_of((None, rank - 1, -1, int(maker.rng.integers(rank))))
    first = (1 if maker.opset < 13 else -1) if axis is None else axis
    over = [] if first >= rank else range(first % rank, rank) if maker.opset < 13 else [first % rank]
    if over and maker.place not in over:
        maker.put("Softmax", [maker.tensor], **({} if axis is None else {"axis": axis}))


def _reduce(maker: Maker) -> None:
    if not maker.free:
        return
    count = min(int(maker.rng.integers(1, 3)), len(maker.free))
    over = sorted(int(axis) for axis in maker.rng.choice(maker.free, count, replace=False))
    kept = int(maker.rng.integers(2))
    if not kept and len(maker.axes) - count < 2:
        return
    _reduced(maker, maker.one_of(("ReduceMean", "ReduceSum", "ReduceMax")), maker.tensor, over, kept)
    maker.tensor = maker.nodes[-1].output[0]
    maker.axes = [() if axis in over else each for axis, each in enumerate(maker.axes) if kept or axis not in over]


def _reduced(maker: Maker, operator: str, tensor: str, over: list[int], kept: int) -> str:
    if maker.opset >= (13 if operator == "ReduceSum" else 18):
        return maker.add(operator, [tensor, maker.numbers(*over)], keepdims=kept)
    return maker.add(operator, [tensor], axes=over, keepdims=kept)


def _split(maker: Maker) -> None:
    even = [axis for axis in maker.free if maker.size(maker.axes[axis]) % 2 == 0]
    if not even:
        return
    axis, number = maker.one_of(even), len(maker.nodes)
    halves = [f"a{number}", f"b{number}"]
    given: dict[str, Any] = {"num_outputs": 2} if maker.opset >= 18 else {}
    maker.nodes.append(helper.make_node("Split", [maker.tensor], halves, name=f"Split{number}", axis=axis, **given))
    if maker.rng.random() < 0.5:
        maker.put("Add", [halves[0], maker.add("Tanh", halves[1:])])
    else:
        maker.tensor = halves[1]
    maker.replace(axis, (maker.size(maker.axes[axis]) // 2,))


def _look_up(maker: Maker) -> None:
    """Gather, of one place or of many."""
    if not maker.free:
        return
    axis = maker.one_of(maker.free)
    size, rank = maker.size(maker.axes[axis]), len(maker.axes)
    shape = maker.one_of(((), (3,), (2, 2), (1,), (1, 2)))
    if (shape == () and rank < 3) or rank + len(shape) - 1 > MOST_RANK + 1:
        return
    maker.put("Gather", [maker.tensor, maker.constant(maker.rng.integers(-size, size, shape))], axis=maker.signed(axis))
    maker.replace(axis, *[(each,) for each in shape])


def _slice(maker: Maker) -> None:
    if not maker.free:
        return
    axis = maker.one_of(maker.free)
    size = maker.size(maker.axes[axis])
    cuts = ((0, 1, 1), (1, 2**31, 1), (-2, 2**62, 1), (-1, -(2**62), -1), (0, size, 2), (-1, -size - 1, -2))
    start, end, step = maker.one_of(cuts)
    left = len(range(size)[start:end:step])
    if left:
        bounds = [maker.numbers(start), maker.numbers(end), maker.numbers(maker.signed(axis)), maker.numbers(step)]
        maker.put("Slice", [maker.tensor, *bounds])
        maker.replace(axis, (left,))


def _flatten(maker: Maker) -> None:
    if len(maker.axes) > 2:
        axis = int(maker.rng.integers(1, len(maker.axes)))
        maker.put("Flatten", [maker.tensor], axis=axis)
        maker.axes = [sum(maker.axes[:axis], ()), sum(maker.axes[axis:], ())]


def _squeeze(maker: Maker) -> None:
    ones = [axis for axis in maker.free if maker.size(maker.axes[axis]) == 1]
    if ones and len(maker.axes) > 2:
        axis = maker.one_of(ones)
        _with_axes(maker, "Squeeze", axis)
        maker.replace(axis)


def _unsqueeze(maker: Maker) -> None:
    if len(maker.axes) <= MOST_RANK:
        axis = int(maker.rng.integers(len(maker.axes) + 1))
        _with_axes(maker, "Unsqueeze", axis)
        maker.axes = [*maker.axes[:axis], (), *maker.axes[axis:]]


def _with_axes(maker: Maker, operator: str, axis: int) -> None:
    if maker.opset >= 13:
        maker.put(operator, [maker.tensor, maker.numbers(axis)])
    else:
        maker.put(operator, [maker.tensor], axes=[axis])


def _merge(maker: Maker) -> None:
    """Two axes become one, by sizes that are constants, kept (0), or looked up."""
    if len(maker.axes) < 3:
        return
    axis = int(maker.rng.integers(len(maker.axes) - 1))
    merged = [*maker.axes[:axis], maker.axes[axis] + maker.axes[axis + 1], *maker.axes[axis + 2 :]]
    if maker.rng.random() < 0.5:
        maker.lay(merged)
        return
    shape = maker.add("Shape", [maker.tensor])
    sizes = []
    for number in range(len(merged)):
        position = maker.numbers(number if number < axis else number + 1)
        sizes.append(maker.numbers(-1) if number == axis else maker.add("Gather", [shape, position], axis=0))
    maker.put("Reshape", [maker.tensor, maker.add("Concat", sizes, axis=0)])
    maker.axes = merged


def _part(maker: Maker) -> None:
    """One axis becomes two."""
    axes = maker.axes
    can = [n for n, axis in enumerate(axes) if len(axis) > 1 or (ROWS not in axis and maker.size(axis) % 2 == 0)]
    if not can or len(axes) > MOST_RANK:
        return
    place = maker.one_of(can)
    axis = axes[place]
    at = int(maker.rng.integers(1, len(axis))) if len(axis) > 1 else 0
    parts = (axis[:at], axis[at:]) if at else ((2,), (maker.size(axis) // 2,))
    maker.lay([*axes[:place], *parts, *axes[place + 1 :]])


def _dense(maker: Maker) -> None:
    if maker.place == len(maker.axes) - 1:
        return
    inputs = maker.size(maker.axes[-1])
    if len(maker.axes) == 2 and maker.rng.random() < 0.5:
        bias = maker.weights(*maker.one_of(((4,), (1, 4), (1,), ())))
        scales = {"alpha": maker.one_of((1.0, 0.5)), "beta": maker.one_of((1.0, 0.5))}
        maker.put("Gemm", [maker.tensor, maker.weights(4, inputs), bias], transB=1, **scales)
    else:
        maker.put("MatMul", [maker.tensor, maker.weights(inputs, 4)])
        if maker.rng.random() < 0.6:
            maker.put("Add", [maker.tensor, maker.weights(4)])
    maker.axes[-1] = (4,)


def _normalise(maker: Maker) -> None:
    """Layer normalisation, as one operator or in parts."""
    if maker.place == len(maker.axes) - 1:
        return
    if maker.opset >= 17 and maker.rng.random() < 0.5:
        units = maker.size(maker.axes[-1])
        maker.put("LayerNormalization", [maker.tensor, maker.weights(units), maker.weights(units)])
        return
    centred = maker.add("Sub", [maker.tensor, _reduced(maker, "ReduceMean", maker.tensor, [-1], 1)])
    variance = _reduced(maker, "ReduceMean", maker.add("Mul", [centred, centred]), [-1], 1)
    maker.put("Div", [centred, maker.add("Sqrt", [maker.add("Add", [variance, maker.constant(np.float32(1e-3))])])])


def _attend(maker: Maker) -> None:
    """Attention of a sequence to itself, with a mask that is added, chosen by, or absent."""
    rank = len(maker.axes)
    if rank < 3 or maker.place >= rank - 2:
        return
    swapped = maker.add("Transpose", [maker.tensor], perm=[*range(rank - 2), rank - 1, rank - 2])
    scores, length = maker.add("MatMul", [maker.tensor, swapped]), maker.size(maker.axes[-2])
    mask = maker.rng.random()
    if mask < 0.4:
        scores = maker.add("Add", [scores, maker.weights(length, length)])
    elif mask < 0.7:
        shown = maker.constant(np.tril(np.ones((length, length), bool)))
        scores = maker.add("Where", [shown, scores, maker.constant(np.float32(-1e9))])
    shares = maker.add("Softmax", [scores], axis=maker.one_of((-1, rank - 1)))
    maker.put("MatMul", [shares, maker.tensor])


def _meet(maker: Maker) -> None:
    """The last tensor and an earlier one of the same axes, joined or side by side."""
    others = [tensor for tensor, axes in maker.before if axes == maker.axes]
    if not others:
        return
    other = maker.one_of(others)
    if maker.rng.random() < 0.5:
        maker.put(maker.one_of(("Add", "Mul", "Max")), [maker.tensor, other])
    elif maker.free:
        axis = maker.one_of(maker.free)
        maker.put("Concat", [maker.tensor, other], axis=maker.signed(axis))
        maker.replace(axis, (2 * maker.size(maker.axes[axis]),))


def _lengthen(maker: Maker) -> None:
    """Tile or Pad along an axis, or CumSum, which keeps its length."""
    if not maker.free:
        return
    axis, rank, operator = maker.one_of(maker.free), len(maker.axes), maker.one_of(("Tile", "Pad", "CumSum"))
    size = maker.size(maker.axes[axis])
    if operator == "CumSum":
        maker.put("CumSum", [maker.tensor, maker.constant(np.int64(axis))])
        return
    if operator == "Tile":
        given, size = [1 + (each == axis) for each in range(rank)], 2 * size
    else:
        given, size = [int(each == axis) for each in range(2 * rank)], 1 + size
    maker.put(operator, [maker.tensor, maker.numbers(*given)])
    maker.replace(axis, (size,))


def _expanded(maker: Maker) -> None:
    """A constant laid out to the tensor's own shape."""
    shape = maker.add("Shape", [maker.tensor])
    maker.put("Add", [maker.tensor, maker.add("Expand", [maker.weights(1), shape])])


STEPS: tuple[Callable[[Maker], None], ...] = (
    *[_turn] * 4,
    *[_beside_constant] * 5,
    *[_dense] * 3,
    *[_merge, _part, _meet, _normalise, _look_up] * 2,
    *(_activation, _softmax, _reduce, _split, _slice, _flatten, _squeeze, _unsqueeze, _attend, _lengthen, _expanded),
)
