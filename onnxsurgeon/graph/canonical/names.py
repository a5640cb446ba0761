"""Names that tensors and nodes have in the file, whatever rewriting made of them."""

from __future__ import annotations

import re

import onnx_graphsurgeon as gs

# Ends the name of a new tensor, behind the name of the tensor after which it is named.
_NEW = re.compile(r"(\.canonical\d+)+$")


def name_in_file(tensor: str) -> str:
    """The tensor's name; for a tensor that rewriting made, the name of the file's tensor after which it is named."""
    return _NEW.sub("", tensor)


def label(node: gs.Node) -> str:
    """What notes and messages call a node: its name, or that of its output where the file gives it none."""
    return str(node.name) or name_in_file(next((str(tensor.name) for tensor in node.outputs), ""))
