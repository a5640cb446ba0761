"""The rows of a data set in a graph: they enter as they are stored, and are gathered, converted and scaled there."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.builder import GraphBuilder


def numbered(base: str, count: int) -> list[str]:
    """Names base, base_1, base_2, …; the usual single feature or head has the plain name."""
    return [base if i == 0 else f"{base}_{i}" for i in range(count)]


def signature(examples: Examples) -> tuple[Any, ...]:
    """Everything on which a graph that reads ``examples`` depends, except the rows themselves."""
    stored = tuple(
        (
            rows.source.dtype.str,
            rows.source.shape[1:],
            rows.order,
            rows.numbers is None,
            np.asarray(rows.scale).tobytes(),
            np.asarray(rows.offset).tobytes(),
        )
        for rows in examples.stored
    )
    return stored, tuple(target.shape[1:] for target in examples.targets), examples.tasks


def arrays(examples: Examples, *, targets: bool) -> dict[str, Array]:
    """The arrays behind the inputs that ``declarations`` declares, as they lie in memory: no copies."""
    sources = (rows.source.transpose(rows.order) for rows in examples.stored)
    found = dict(zip(numbered("features", len(examples.stored)), sources, strict=True))
    if targets:
        found |= zip(numbered("targets", len(examples.targets)), examples.targets, strict=True)
    return found


def declarations(examples: Examples, *, targets: bool) -> list[onnx.ValueInfoProto]:
    """Graph inputs "features" (stored rows, …), … and, where asked for, "targets" (rows, C) or (rows,), …."""
    return [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values.dtype), [None, *values.shape[1:]])
        for name, values in arrays(examples, targets=targets).items()
    ]


def index_names(examples: Examples, base: str = "batch") -> list[str]:
    """Names of the row numbers that a graph takes: of the examples, and of their rows where these lie elsewhere."""
    return [base] if examples.numbers is None else [base, f"stored_{base}"]


def index_feeds(examples: Examples, rows: Array, base: str = "batch") -> dict[str, Array]:
    """The values of those inputs for ``rows`` of the examples, of any shape."""
    found = [rows] if examples.numbers is None else [rows, examples.numbers[rows].astype(np.int64, copy=False)]
    return dict(zip(index_names(examples, base), found, strict=True))


def read_features(build: GraphBuilder, network: Network, examples: Examples) -> tuple[list[str], dict[str, float]]:
    """Append the nodes that read each feature's rows; return their names, and factors that are still to be applied.

    Such a factor is left to Gemm's alpha where only dense layers read the feature, since it costs nothing there.
    """
    names, factors = [], {}
    for tensor, name, rows in zip(
        network.frame.trunk.features, numbered("features", len(examples.stored)), examples.stored, strict=True
    ):
        x = build.add("Gather", name, "batch" if rows.numbers is None else "stored_batch")
        if rows.order != tuple(range(rows.source.ndim)):
            x = build.add("Transpose", x, perm=[int(axis) for axis in np.argsort(rows.order)])
        if rows.source.dtype != build.dtype:
            x = build.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(build.dtype))
        if rows.is_scaled:
            if not np.ndim(rows.scale) and not np.any(rows.offset) and _leaves_scaling(build, network, tensor):
                factors[tensor] = float(rows.scale)
            else:
                x = _scaled(build, x, rows)
        names.append(x)
    return names, factors


def _leaves_scaling(build: GraphBuilder, network: Network, tensor: str) -> bool:
    """Whether only dense layers read ``tensor``, and its factor is exact in float32, as an attribute is."""
    return build.dtype == np.float32 and is_read_by_dense_layers_alone(network, tensor)


def is_read_by_dense_layers_alone(network: Network, tensor: str) -> bool:
    """Whether all readers of ``tensor`` are segments of rank 2, and there are any."""
    trunk = network.frame.trunk
    readers = [step for step in trunk.steps if not isinstance(step, int)]
    segments = [segment for segment in network.segments if segment.input_name == tensor]
    return (
        bool(segments)
        and all(segment.rank == 2 for segment in segments)
        and not any(tensor in step.inputs for step in readers)
        and not any(head.tensor == tensor for head in trunk.heads)
    )


def _scaled(build: GraphBuilder, x: str, rows: Rows) -> str:
    if np.any(np.not_equal(rows.scale, 1.0)):
        x = build.add("Mul", x, build.array(np.asarray(rows.scale)))
    return build.add("Add", x, build.array(np.asarray(rows.offset))) if np.any(rows.offset) else x


def read_targets(build: GraphBuilder, examples: Examples) -> list[str]:
    """Append the nodes that read each head's targets (batch, C)."""
    names = []
    for name, values, task in zip(
        numbered("targets", len(examples.tasks)), examples.targets, examples.tasks, strict=True
    ):
        target = build.add("Gather", name, "batch")
        if values.ndim == 1:
            target = build.add("Cast", target, to=TensorProto.INT64)
            off_and_on = build.constant("off_and_on", np.array([0, 1], np.float32))
            target = build.add("OneHot", target, build.integers(task.outputs), off_and_on)
            if build.dtype != np.float32:  # ONNX Runtime has no other type
                target = build.add("Cast", target, to=helper.np_dtype_to_tensor_dtype(build.dtype))
        names.append(target)
    return names
