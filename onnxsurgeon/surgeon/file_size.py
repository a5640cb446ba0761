"""The size of a network's file before it is written, with graph and metadata."""

from __future__ import annotations

from onnxsurgeon.graph.files import written_size
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.writer import to_parts
from onnxsurgeon.runs.branch import Branch

RESULT = "best.onnx"


def bytes_as_written(network: Branch | Network, name: str = RESULT) -> int:
    """Bytes of the file called ``name`` to which a branch, or a bare network, would be written.

    External data counts, as far as the file has any; so does a branch's metadata, which tells its origin.

    Raises:
        ModelError: the graph is too large for a file.
    """
    whole = network.stamped() if isinstance(network, Branch) else network
    return written_size(to_parts(whole), name)


def bytes_of_parameters(network: Network) -> int:
    """Bytes of the trainable values alone, in the types in which the file holds them."""
    kinds = [segment.held_dtype(*each) for segment in network.segments for each in segment.parameters()]
    pairs = zip(network.parameters(), network.once(kinds), strict=True)
    return sum(values.size * kind.itemsize for (_, values), kind in pairs)


def bytes_besides_parameters(network: Branch | Network, name: str = RESULT) -> int:
    """Bytes of the file that are no trainable values: graph, names, metadata, tensors that are not trained."""
    bare = network.network if isinstance(network, Branch) else network
    return bytes_as_written(network, name) - bytes_of_parameters(bare)


def parameters_within(limit: int, network: Branch | Network) -> int:
    """The number of parameters with which a network in this one's graph has a file of at most ``limit`` bytes.

    It is 0 or less where the graph alone is too large. Another number of layers, and the surgeries that lead there,
    change the graph and its metadata a little, so the result has to be measured.
    """
    bare = network.network if isinstance(network, Branch) else network
    width = max((segment.held or segment.file_dtype).itemsize for segment in bare.segments)
    wider = bytes_of_parameters(bare) - width * bare.parameter_count  # biases of weights that are held in less
    return (limit - bytes_besides_parameters(network) - max(0, wider)) // width
