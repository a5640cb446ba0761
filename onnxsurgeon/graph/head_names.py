"""What heads are called: by the outputs that they become, which is what a user knows."""

from __future__ import annotations

from onnxsurgeon.graph.network import Network


def head_names(network: Network) -> tuple[str, ...]:
    """A name for each head, all of them different.

    It is the first output, in the order in which the model declares them, that is computed from this head and from no
    other; where there is none, as of two heads behind which the model adds up, it is the head's own tensor.
    """
    tensors = [head.tensor for head in network.heads]
    if len(tensors) < 2:
        return tuple(tensors)
    graph = network.frame.model.graph
    follows = {tensor: {tensor} for tensor in tensors}  # from each tensor: the heads it is computed from
    for node in graph.node:
        found = set().union(*(follows.get(name, ()) for name in node.input))
        for name in node.output:
            if found and name not in tensors:
                follows[name] = found
    own = dict.fromkeys(tensors, "")
    for output in graph.output:
        found = follows.get(output.name, set())
        if len(found) == 1:
            (tensor,) = found
            own[tensor] = own[tensor] or output.name
    return tuple(own[tensor] or tensor for tensor in tensors)
