"""What exporters note of where nodes come from: of no use to whoever runs a model, and often half of a small file.

PyTorch's exporter writes to each node the stack trace, the module's classes and the names of its scopes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import onnx

from onnxsurgeon.graph.network import Network

TRACES = "pkg.torch.onnx."  # what the keys of these notes begin with
TOLD = 1000  # bytes from which on it is worth a sentence


def without_traces(network: Network) -> tuple[Network, int]:
    """The network without such notes, and how many bytes they took; what it computes is the same."""
    frame = network.frame
    remarks = {name: _copied(node) for name, node in frame.remarks.items()}
    model = _copied(frame.model)
    size = sum(_drop(noted) for noted in (*remarks.values(), *_noted(model)))
    if not size:
        return network, 0
    kept = {name: node for name, node in remarks.items() if node.doc_string or len(node.metadata_props)}
    return replace(network, frame=replace(frame, model=model, remarks=kept)), size


def traces_note(size: int) -> tuple[str, ...]:
    """What is said of so many bytes that were dropped; () where they are few."""
    if size < TOLD:
        return ()
    return (f"{size / 1000:,.0f} kB of the exporter's notes on where its nodes come from are left out",)


def _copied(message: Any) -> Any:
    made = type(message)()
    made.CopyFrom(message)
    return made


def _noted(model: onnx.ModelProto) -> Iterator[Any]:
    """All that may have such notes, in bodies of If, Loop and Scan too."""
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        if graph is not model.graph:  # the model's own inputs and outputs stay as they are
            yield from (graph, *graph.input, *graph.output)
        yield from (*graph.value_info, *graph.initializer)
        for node in graph.node:
            yield node
            graphs.extend(attribute.g for attribute in node.attribute if attribute.HasField("g"))


def _drop(noted: Any) -> int:
    """Remove such notes; their bytes."""
    mine = [entry for entry in noted.metadata_props if entry.key.startswith(TRACES)]
    for entry in mine:
        noted.metadata_props.remove(entry)
    return sum(int(entry.ByteSize()) for entry in mine)
