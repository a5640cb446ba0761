"""Parts of a model in which the batch is not the first axis are read as if it were.

PyTorch's attention turns (rows, steps, units) into (steps, rows, units), multiplies (steps · rows, units) with matrices
and (rows · heads, steps, units) with one another, and turns the result back. The file stays as it is; only the graph
that serves as a reading aid is turned. There such a tensor has its rows in front, and behind them its other axes in the
file's order: (rows, steps, units), (rows, heads, steps, units). Of an axis that holds the rows beside other things,
only those others stay. A part that is not understood as a whole is left as it is.

One file: what a batch in another place than the first means for each operator, and the walk that finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.allowance import Allowance
from onnxsurgeon.graph.canonical import constants
from onnxsurgeon.graph.canonical.computed_sizes import computed_sizes
from onnxsurgeon.graph.canonical.noops import permutation_of
from onnxsurgeon.graph.canonical.queries import constant_values, has_input, like, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter
from onnxsurgeon.graph.canonical.shapes import learn, target_shape
from onnxsurgeon.graph.layouts import (
    PLAIN,
    ROWS,
    Axis,
    Layout,
    NotToldError,
    axis_of,
    behind_rows,
    factored,
    place_of_rows,
    product,
    replaced,
    sizes_of,
    widest,
    with_rows_in_front,
    without_rows,
)
from onnxsurgeon.graph.lifting import ELEMENTWISE, LAST_AXIS, REDUCE
from onnxsurgeon.graph.normal_form import HELD, in_order
from onnxsurgeon.linear_algebra import Array

Edit = Callable[[], None]
_SIZES = frozenset(("Shape", "Size"))
_LOOK_UP = frozenset(("Shape", "Slice"))  # sizes as a vector, which is one in the file too
_FIRST = {"Constant": (constants.constant,), **{op: (rule,) for op, rule in constants.RULES.items()}}


def batch_first(graph: gs.Graph, allowance: Allowance | None = None, kept: Collection[str] = ()) -> dict[str, int]:
    """Turn the graph's tensors whose batch is not their first axis; return the file's number of axes of each, by name.

    A Transpose or Reshape that writes one of the tensors ``kept`` is not seen through where nothing is left for it to
    do: a layer ends before it. Nothing is changed in a graph that moves no batch axis, nor joins it with others.
    """
    moving = [list(node.attrs.get("perm", [1])) for node in graph.nodes if node.op == "Transpose"]
    joins = any(node.op == "Reshape" for node in graph.nodes)
    if not any(order[:1] != [0] or joins for order in moving):
        return {}
    return _Turning(graph, allowance, kept).run()


@dataclass(eq=False)
class _Step:
    """A node that reads or writes a turned tensor, and its new form; None where no rule tells it."""

    node: gs.Node
    tensors: list[Any]
    edit: Edit | None


class _Turning:
    def __init__(self, graph: gs.Graph, allowance: Allowance | None, kept: Collection[str]) -> None:
        self.graph = graph
        self.held = frozenset(kept)
        self.rewriter = Rewriter(graph, allowance)
        self.layouts: dict[int, Layout] = {}
        self.parents: dict[int, int] = {}
        self.kept: list[Any] = []
        self.rows: dict[int, Any] = {}  # sizes of the rows of inputs, as the file says them

    def run(self) -> dict[str, int]:
        self.rewriter.touch_all(_FIRST)
        self.rewriter.drain(_FIRST, 1000 + 50 * len(self.graph.nodes))
        self.rewriter.finish()
        sizes = {tensor.shape[0] for tensor in self.graph.inputs if tensor.shape}
        self.size = next(iter(sizes)) if len(sizes) == 1 else None
        for tensor in self.graph.inputs:
            self._assume(tensor)
        order = in_order(self.graph)
        steps = [step for node in order if not self._is_known(node) and (step := self._step(node)) is not None]
        turned = self._understood(steps)
        files = {key: list(tensor.shape) for key, tensor in turned.items()}
        self._tell_sizes(turned)
        for step in steps:
            if any(id(tensor) in turned for tensor in step.tensors) and step.node.outputs and step.edit is not None:
                step.edit()
        for key, tensor in turned.items():
            tensor.shape = [self.size, *sizes_of(self.layouts[key])]
        self.rewriter.finish()
        return {tensor.name: len(files[key]) for key, tensor in turned.items()}

    def _is_known(self, node: gs.Node) -> bool:
        """Whether the node is gone, since it writes sizes that are known by now, or what is computed from such."""
        if node.outputs and node.op in constants.RULES and constants.RULES[node.op](self.rewriter, node):
            return True
        if len(node.outputs) != 1 or self.rewriter.is_pinned(node.outputs[0]):
            return not node.outputs
        y = node.outputs[0]
        sizes = computed_sizes(y) if node.op in _LOOK_UP else None
        if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
            return False
        values = np.array(sizes, np.int64)
        if shape_of(y) == []:
            values = values.reshape(())
        self.rewriter.redirect(y, gs.Constant(y.name, values))
        self.rewriter.remove(node)
        return True

    # --- what the file's tensors are --------------------------------------------------------------------------

    def _assume(self, tensor: Any) -> None:
        """A tensor whose rows are its first axis, where all else of its shape is known."""
        sizes = shape_of(tensor)
        if isinstance(self.size, int) and sizes and sizes[0] != self.size:
            return
        if sizes and all(isinstance(size, int) and size > 0 for size in sizes[1:]):
            self._add(tensor, (PLAIN, *(() if size == 1 else (size,) for size in sizes[1:])))

    def _add(self, tensor: Any, layout: Layout) -> None:
        self.layouts[id(tensor)] = layout
        self.kept.append(tensor)
        learn(tensor, [self._size(axis) for axis in layout])

    def _size(self, axis: Axis) -> Any:
        """The size of an axis in the file; None where it is not known."""
        if axis == PLAIN:
            return self.size
        rows = self.size if ROWS in axis else 1
        return rows * product(axis) if isinstance(rows, int) else None

    def _step(self, node: gs.Node) -> _Step | None:
        """Find the layouts of what the node writes; what becomes of the node, where one of its tensors is turned."""
        read = [tensor for tensor in node.inputs if id(tensor) in self.layouts]
        if not read or node.op in _SIZES:
            return None
        edit: Edit | None = None
        try:
            made, edit = _RULES[node.op](self, node)
            for tensor, layout in zip(node.outputs, made, strict=True):
                self._add(tensor, layout)
        except (NotToldError, AttributeError, IndexError, KeyError, TypeError, ValueError):
            edit = None
            for tensor in node.outputs:
                self._assume(tensor)
        tensors = [t for t in (*read, *node.outputs) if self._is_turned(t)]
        return _Step(node, tensors, edit) if tensors else None

    def _is_turned(self, tensor: Any) -> bool:
        return id(tensor) in self.layouts and self.layouts[id(tensor)][0] != PLAIN

    def _understood(self, steps: Sequence[_Step]) -> dict[int, Any]:
        """The turned tensors, by id, of the parts that are understood as a whole; of those without Transpose, none.

        What reshapes (rows, steps, units) to (rows · steps, units) and back alone is seen through by other rules.
        """
        for step in steps:
            for tensor in step.tensors:
                self._join(id(step.tensors[0]), id(tensor))
        unknown = {self._root(id(t)) for step in steps if step.edit is None for t in step.tensors}
        unknown |= {self._root(id(t)) for t in self.kept if self._is_turned(t) and self.rewriter.is_pinned(t)}
        good = {self._root(id(step.tensors[0])) for step in steps if step.node.op == "Transpose"} - unknown
        return {id(t): t for t in self.kept if self._is_turned(t) and self._root(id(t)) in good}

    def _root(self, key: int) -> int:
        while self.parents.setdefault(key, key) != key:
            self.parents[key] = key = self.parents[self.parents[key]]
        return key

    def _join(self, first: int, second: int) -> None:
        self.parents[self._root(first)] = self._root(second)

    def _tell_sizes(self, turned: dict[int, Any]) -> None:
        """Shapes of turned tensors that the file looks up are those that they have there."""
        for node in self.graph.nodes:
            if node.op in _SIZES and node.inputs and id(node.inputs[0]) in turned:
                x = node.inputs[0]
                self.rewriter.set_input(node, 0, self.rewriter.variable(x, x.shape))

    # --- rules: the layouts of what a node writes, and what it becomes ----------------------------------------

    def elementwise(self, node: gs.Node) -> tuple[list[Layout], Edit]:
        read = self._read(node)
        whole = max(read, key=len)
        place = place_of_rows(whole)
        for layout in read:
            if len(layout) != len(whole) or layout[place] != whole[place]:
                raise NotToldError
        axes = [widest([layout[axis] for layout in read]) for axis in range(len(whole))]
        changed: dict[int, Any] = {}
        for position, tensor in enumerate(node.inputs):
            values = constant_values(tensor)
            if values is None:
                continue
            if values.ndim > len(whole):
                raise NotToldError
            have = (1,) * (len(whole) - values.ndim) + values.shape
            if have[place] != 1:
                values = constants.one_of_alike(values.reshape(have), place)
                if values is None:
                    raise NotToldError
                have = values.shape
            if values.ndim >= len(whole) - place:
                sizes = [have[axis] for axis, _ in behind_rows(whole)]
                changed[position] = like(tensor, np.ascontiguousarray(values).reshape(1, *sizes))
            axes = [
                widest([mine, () if size == 1 else (size,)]) if axis != place else mine
                for axis, (mine, size) in enumerate(zip(axes, have, strict=True))
            ]

        def edit() -> None:
            for position, tensor in changed.items():
                self.rewriter.set_input(node, position, tensor)

        return [tuple(axes)] * len(node.outputs), edit

    def matmul(self, node: gs.Node) -> tuple[list[Layout], Edit]:
        a, b = self._layout(node, 0), constant_values(node.inputs[1])
        if b is not None:
            if b.ndim != 2:
                raise NotToldError
            return [(*without_rows(a, -1), axis_of(b.shape[1]))], _nothing
        other = self._layout(node, 1)
        place = place_of_rows(a)
        if len(a) != len(other) or a[place] != other[place] or place >= len(a) - 2:
            raise NotToldError
        leading = [widest([a[axis], other[axis]]) for axis in range(len(a) - 2)]
        return [(*leading, a[-2], other[-1])], _nothing

    def gemm(self, node: gs.Node) -> tuple[list[Layout], Edit]:
        weight = constant_values(node.inputs[1])
        if weight is None or weight.ndim != 2 or node.attrs.get("transA", 0):
            raise NotToldError
        units = weight.shape[0 if node.attrs.get("transB", 0) else 1]
        if has_input(node, 2):
            bias = constant_values(node.inputs[2])
            if bias is None or (bias.ndim == 2 and bias.shape[0] != 1):
                raise NotToldError
        return [(*without_rows(self._layout(node, 0), -1), axis_of(units))], _nothing

    def last_axis(self, node: gs.Node) -> tuple[list[Layout], Edit]:
        layout = self._layout(node, 0)
        default = 1 if node.op != "LayerNormalization" and self.rewriter.opset < 13 else -1
        if int(node.attrs.get("axis", default)) not in (-1, len(layout) - 1) or len(self._read(node)) > 1:
            raise NotToldError
        if any(tensor.outputs for tensor in node.outputs[1:]):  # means and deviations
            raise NotToldError
        without_rows(layout, -1)
        return [layout] * len(node.outputs), lambda: node.attrs.update(axis=-1)

    def reduce(self, node: gs.Node) -> tuple[list[Layout], Edit]:
        layout = self._layout(node, 0)
        axes = node.attrs.get("axes")
        if axes is None:
            axes = _values(node, 1).ravel().tolist()
        axes = [int(axis) % len(layout) for axis in axes]
        if not axes:  # all of them, or none, as the node says elsewhere
            raise NotToldError
        new = [with_rows_in_front(layout, axis) for axis in axes]
        kept = bool(node.attrs.get("keepdims", 1))
        made = tuple(() if i in axes else axis for i, axis in enumerate(layout) if kept or i not in axes)
        given = {"axes": sorted(new), "keepdims": int(kept)}
        return [made], lambda: self.rewriter.become(node, node.op, [node.inputs[0]], given)

    def concat(self, node: gs.Node) -> tuple[list[Layout], Edit]:
        read = self._read(node)
        axis = int(node.attrs["axis"]) % len(read[0])
        new = {with_rows_in_front(layout, axis) for layout in read}
        alike = {layout[:axis] + layout[axis + 1 :] for layout in read}
        if len(read) != len(node.inputs) or len(alike) > 1 or len(new) > 1:
            raise NotToldError
        total = axis_of(sum(product(layout[axis]) for layout in read))
        return [replaced(read[0], axis, total)], lambda: node.attrs.update(axis=new.pop())

    def split(self, node: gs.Node) -> tuple[list[Layout], Edit]:
        layout = self._layout(node, 0)
        axis = int(node.attrs.get("axis", 0)) % len(layout)
        size, count, new = product(layout[axis]), len(node.outputs), with_rows_in_front(layout, axis)
        sizes = _values(node, 1).ravel().tolist() if has_input(node, 1) else node.attrs.get("split")
        if sizes is None:
            chunk = -(-size // count)
            sizes = [min(chunk, size - i * chunk) for i in range(count)]
        return [replaced(layout, axis, axis_of(int(each))) for each in sizes], lambda: node.attrs.update(axis=new)

    def gather(self, node: gs.Node) -> tuple[list[Layout], Edit]:
        layout, index = self._layout(node, 0), _values(node, 1)
        axis = int(node.attrs.get("axis", 0)) % len(layout)
        new = with_rows_in_front(layout, axis)
        made = (*layout[:axis], *(axis_of(size) for size in index.shape), *layout[axis + 1 :])
        return [made], lambda: node.attrs.update(axis=new)

    def slice(self, node: gs.Node) -> tuple[list[Layout], Edit]:
        layout = self._layout(node, 0)
        if "starts" in node.attrs:
            starts, ends, steps = list(node.attrs["starts"]), list(node.attrs["ends"]), None
            axes = node.attrs.get("axes")
        else:
            starts, ends = (_values(node, i).ravel().tolist() for i in (1, 2))
            axes, steps = (_values(node, i).ravel().tolist() if has_input(node, i) else None for i in (3, 4))
        axes = [int(axis) % len(layout) for axis in (range(len(starts)) if axes is None else axes)]
        new, made = [with_rows_in_front(layout, axis) for axis in axes], layout
        for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(axes), strict=True):
            made = replaced(made, axis, axis_of(len(range(product(made[axis]))[start:end:step])))

        def edit() -> None:
            if "starts" in node.attrs:
                node.attrs["axes"] = new
            else:
                moved = gs.Constant(f"{node.outputs[0].name}/axes", np.array(new, np.int64))
                self.rewriter.set_inputs(node, [*list(node.inputs)[:3], moved, *list(node.inputs)[4:]])

        return [made], edit

    def transpose(self, node: gs.Node) -> tuple[list[Layout], Edit]:
        layout, order = self._layout(node, 0), permutation_of(node)
        if order is None or len(order) != len(layout):
            raise NotToldError
        made = tuple(layout[axis] for axis in order)
        have = [axis for axis, _ in behind_rows(layout)]
        wanted = [order[axis] for axis, _ in behind_rows(made)]
        # Both parts of an axis that holds rows between others keep their order.
        places = [have.index(axis) + wanted[:i].count(axis) for i, axis in enumerate(wanted)]
        perm = [0, *(place + 1 for place in places)]

        def edit() -> None:
            node.attrs["perm"] = perm
            if perm == list(range(len(perm))):
                self._hold(node)

        return [made], edit

    def reshape(self, node: gs.Node) -> tuple[list[Layout], Edit]:
        """The rows in front, all else is in the same order before and after."""
        layout = self._layout(node, 0)
        made = _RESHAPED[node.op](self, node, layout)
        sizes = sizes_of(made)

        def edit() -> None:
            if sizes == sizes_of(layout):
                self.rewriter.become(node, "Identity", [node.inputs[0]])
                self._hold(node)
            else:
                shape = gs.Constant(f"{node.outputs[0].name}/shape", np.array([-1, *sizes], np.int64))
                self.rewriter.become(node, "Reshape", [node.inputs[0], shape])

        return [made], edit

    def _hold(self, node: gs.Node) -> None:
        """A node that does nothing is not seen through where what it writes is to stay."""
        if node.outputs[0].name in self.held:
            self.rewriter.become(node, HELD, [node.inputs[0]])

    def expand(self, node: gs.Node) -> tuple[list[Layout], Edit]:
        """Axes of size 1 become wider; that of the rows stays."""
        layout, wanted = self._layout(node, 0), computed_sizes(node.inputs[1])
        if wanted is None or len(wanted) > len(layout):
            raise NotToldError
        made = layout
        for axis, size in enumerate(wanted, start=len(layout) - len(wanted)):
            if layout[axis] == () and size != 1:
                if not isinstance(size, int):
                    raise NotToldError
                made = replaced(made, axis, axis_of(size))
        shape = gs.Constant(f"{node.outputs[0].name}/shape", np.array([1, *sizes_of(made)], np.int64))
        return [made], lambda: self.rewriter.set_input(node, 1, shape)

    def _target(self, node: gs.Node, layout: Layout) -> Layout:
        wanted = target_shape(node)
        if wanted is None:
            raise NotToldError
        return factored(layout, wanted, self.size)

    def _flattened(self, node: gs.Node, layout: Layout) -> Layout:
        axis = int(node.attrs.get("axis", 1)) % (len(layout) + 1)
        return tuple(tuple(size for each in part for size in each) for part in (layout[:axis], layout[axis:]))

    def _squeezed(self, node: gs.Node, layout: Layout) -> Layout:
        axes = _axes(node)
        gone = range(len(layout)) if axes is None else [axis % len(layout) for axis in axes]
        if axes is not None and any(layout[axis] != () for axis in gone):
            raise NotToldError
        return tuple(axis for i, axis in enumerate(layout) if i not in gone or axis != ())

    def _unsqueezed(self, node: gs.Node, layout: Layout) -> Layout:
        axes = _axes(node) or []
        rank = len(layout) + len(axes)
        new, old = {axis % rank for axis in axes}, iter(layout)
        return tuple(() if i in new else next(old) for i in range(rank))

    def _layout(self, node: gs.Node, position: int) -> Layout:
        return self.layouts[id(node.inputs[position])]

    def _read(self, node: gs.Node) -> list[Layout]:
        """Layouts of the inputs that hold rows.

        Raises:
            NotToldError: another input is computed too, of which nothing is known.
        """
        if any(id(t) not in self.layouts and constant_values(t) is None for t in node.inputs if t.name):
            raise NotToldError
        return [self.layouts[id(tensor)] for tensor in node.inputs if id(tensor) in self.layouts]


def _nothing() -> None:
    """The node stays as it is."""


def _values(node: gs.Node, position: int) -> Array:
    values = constant_values(node.inputs[position])
    if values is None:
        raise NotToldError
    return values


def _axes(node: gs.Node) -> list[int] | None:
    axes = node.attrs.get("axes")
    if axes is None and has_input(node, 1):
        axes = _values(node, 1).ravel().tolist()
    return None if axes is None else [int(axis) for axis in axes]


_RESHAPED: dict[str, Callable[[_Turning, gs.Node, Layout], Layout]] = {
    "Reshape": _Turning._target,
    "Flatten": _Turning._flattened,
    "Squeeze": _Turning._squeezed,
    "Unsqueeze": _Turning._unsqueezed,
}
_RULES: dict[str, Callable[[_Turning, gs.Node], tuple[list[Layout], Edit]]] = {
    **dict.fromkeys(ELEMENTWISE, _Turning.elementwise),
    **dict.fromkeys(LAST_AXIS, _Turning.last_axis),
    **dict.fromkeys(REDUCE, _Turning.reduce),
    **dict.fromkeys(_RESHAPED, _Turning.reshape),
    "MatMul": _Turning.matmul,
    "Gemm": _Turning.gemm,
    "Concat": _Turning.concat,
    "Split": _Turning.split,
    "Gather": _Turning.gather,
    "Slice": _Turning.slice,
    "Expand": _Turning.expand,
    "Transpose": _Turning.transpose,
}
