"""Branches as a search makes them."""

from onnxsurgeon import (
    operate,
    parse,
)
from onnxsurgeon.runs.branch import Branch


def operated(parent, *surgeries):
    for text in surgeries:
        parent, _ = operate(parent, parse(text))
    return parent


def branch(parent, *surgeries):
    """The result as a run writes it: with its lineage among the metadata."""
    return Branch(1, 0, "start", operated(parent, *surgeries), surgeries).stamped()
