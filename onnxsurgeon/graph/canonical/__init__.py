"""Exporters' idioms rewritten to Dense(+activation), by small rules on an onnx-graphsurgeon graph.

The rewritten graph is a reading aid: the file that is written keeps the user's own nodes around the segments. Every
rule's docstring is its equation. A rule returns whether it changed anything. A tensor that bears a name of the file
always has that tensor's value; a tensor that the file lacks gets a new name.
"""

from onnxsurgeon.graph.canonical.affine import explain_normalization
from onnxsurgeon.graph.canonical.constants import one_of_alike
from onnxsurgeon.graph.canonical.dense import LAYERS, bias_of, by_channel, geometry_of, is_dense
from onnxsurgeon.graph.canonical.driver import canonicalise
from onnxsurgeon.graph.canonical.elementwise import attributes_of, clip_bounds
from onnxsurgeon.graph.canonical.names import name_in_file
from onnxsurgeon.graph.canonical.products import explain
from onnxsurgeon.graph.canonical.queries import FLOATS, constant_values, is_output
from onnxsurgeon.graph.canonical.rewriter import PRODUCTS
from onnxsurgeon.graph.canonical.strided import VIEW
from onnxsurgeon.graph.canonical.windows import WINDOWS

__all__ = [
    "FLOATS",
    "LAYERS",
    "PRODUCTS",
    "VIEW",
    "WINDOWS",
    "attributes_of",
    "bias_of",
    "by_channel",
    "canonicalise",
    "clip_bounds",
    "constant_values",
    "explain",
    "explain_normalization",
    "geometry_of",
    "is_dense",
    "is_output",
    "name_in_file",
    "one_of_alike",
]
