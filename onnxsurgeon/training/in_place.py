"""The training loop of a large network, step by step, with its weights overwritten.

One run of many steps holds four copies of the parameters: the inputs, the outputs, and two that the Scan writes to in
turns. Here a weight that nothing reads once its successor is known has one copy: its input and its output are the same
memory. In a chain this is the first layer's weight, which reads the features and is the largest by far where the model
is a head. A run costs microseconds besides its step, which is nothing for networks of this size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.buffers import release
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import onnxruntime

LARGE = 2**26  # bytes of parameters


def is_large(network: Network) -> bool:
    """Whether the network is so large that copies of its parameters are avoided."""
    return sum(values.nbytes for _, values in network.parameters()) >= LARGE


class InPlace:
    """A session of a training loop, with a ``run`` that gives the same results from less memory.

    Args:
        session: made of ``model``.
        model: as from ``loop_graph.training_loop``.
    """

    def __init__(self, session: Any, model: onnx.ModelProto) -> None:
        self._session = session
        (scan,) = model.graph.node
        attributes = {each.name: helper.get_attribute_value(each) for each in scan.attribute}
        body, scanned = attributes["body"], attributes["num_scan_inputs"]
        self._state = dict(zip(scan.input[:-scanned], scan.output, strict=False))
        self._scanned = frozenset(scan.input[-scanned:])
        self._sums = list(scan.output[len(self._state) :])
        own = overwritable(body, len(self._state))
        self._overwritten = {name for name, each in zip(self._state, body.input, strict=False) if each.name in own}

    def run(self, _: None, feeds: Mapping[str, Array]) -> list[Array]:
        """Compute the outputs for ``feeds``, without changing any of these."""
        value_of = onnxruntime().OrtValue.ortvalue_from_numpy
        # ONNX Runtime's values do not keep numpy's memory alive; these references do.
        arrays = {name: self._own(name, feeds[name]) for name in self._state}
        state = {name: value_of(values, "cpu", 0) for name, values in arrays.items()}
        others = {name: values for name, values in feeds.items() if name not in self._state}
        sums: list[list[Array]] = [[] for _ in self._sums]
        for step in range(len(feeds[next(iter(self._scanned))])):
            results = self._step(state, others, step)
            for name, value in zip(state, results, strict=False):
                if name not in self._overwritten:
                    arrays[name], state[name] = value.numpy(), value
            for each, value in zip(sums, results[len(state) :], strict=True):
                each.append(value.numpy())
        return [*arrays.values(), *(np.concatenate(each) for each in sums)]

    def _own(self, name: str, values: Array) -> Array:
        """Return the values stored row by row: a copy where they will be overwritten, or are stored otherwise."""
        own = np.array(values, order="C", copy=True if name in self._overwritten else None)
        release(values)
        return own

    def _step(self, state: Mapping[str, Any], others: Mapping[str, Array], step: int) -> list[Any]:
        binding = self._session.io_binding()
        for name, value in state.items():
            binding.bind_ortvalue_input(name, value)
            if name in self._overwritten:
                binding.bind_ortvalue_output(self._state[name], value)
            else:
                binding.bind_output(self._state[name])
        for name in self._sums:
            binding.bind_output(name)
        for name, values in others.items():
            binding.bind_cpu_input(name, values[step : step + 1] if name in self._scanned else values)
        self._session.run_with_iobinding(binding)
        return list(binding.get_outputs())


def overwritable(body: onnx.GraphProto, carried: int) -> frozenset[str]:
    """Those of the first ``carried`` inputs of a loop's body that may share memory with the outputs in their places.

    The node that writes the output must depend on all other nodes that read the input: then these have run before, in
    whatever order the rest runs. And it must not read the input as a factor, since it would need every value until the
    end; an elementwise operation, and Gemm's C, are read as they are written.
    """
    writers = {name: node for node in body.node for name in node.output}
    found = set()
    for before, after in zip(body.input[:carried], body.output, strict=False):
        writer = writers[after.name]
        factors = writer.input[:2] if writer.op_type == "Gemm" else ()
        if writer.op_type not in _ELEMENTWISE or before.name in factors:
            continue
        needed = _ancestors(writer, writers)
        if all(id(node) in needed for node in body.node if before.name in node.input):
            found.add(before.name)
    return frozenset(found)


_ELEMENTWISE = frozenset({"Gemm", "Add", "Sub", "Mul", "Identity"})


def _ancestors(node: onnx.NodeProto, writers: Mapping[str, onnx.NodeProto]) -> set[int]:
    """Ids of the node and of all nodes on which it depends."""
    found, left = {id(node)}, [node]
    while left:
        for name in left.pop().input:
            source = writers.get(name)
            if source is not None and id(source) not in found:
                found.add(id(source))
                left.append(source)
    return found
