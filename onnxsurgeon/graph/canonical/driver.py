"""Rules in three tables, applied until none applies: plain forms first, then activations in parts, then folding.

An activation's parts hold constants that would fold into the layers around it (the ½ of Gelu, the 6 of HardSwish), so
no scalar is folded before activations are recognised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.allowance import Allowance
from onnxsurgeon.graph.canonical import (
    activations,
    affine,
    constants,
    convolution,
    noops,
    products,
    recognise,
    shapes,
    spread,
    strided,
    turned,
    unfold,
    windows,
)
from onnxsurgeon.graph.canonical.dense import CONVOLUTION, LAYERS
from onnxsurgeon.graph.canonical.elementwise import OPS
from onnxsurgeon.graph.canonical.queries import producer_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter, Rule

ROUNDS = 16

PLAIN: dict[str, tuple[Rule, ...]] = {
    "Constant": (constants.constant,),
    "Shape": (constants.shape,),
    "Identity": (noops.identity,),
    "Dropout": (noops.dropout,),
    "Cast": (noops.cast,),
    "Flatten": (noops.shaper, unfold.unfold),
    "Reshape": (noops.shaper, unfold.unfold, shapes.reshaped),
    "Squeeze": (noops.shaper, unfold.unfold),
    "Unsqueeze": (noops.shaper, unfold.unfold),
    "Transpose": (noops.transpose, products.push_transpose, turned.turned_back, shapes.permuted),
    "MatMul": (products.matmul,),
    "Gemm": (products.gemm,),
    "Einsum": (products.einsum,),
    "Conv": (convolution.convolution,),
    CONVOLUTION: (convolution.laid_out,),
    "com.microsoft::FusedMatMul": (products.fused_matmul,),
    "com.microsoft::FusedGemm": (products.fused_gemm,),
    "com.microsoft::Gelu": (activations.fused_gelu,),
    "com.microsoft::BiasGelu": (activations.fused_gelu,),
    "com.microsoft::FastGelu": (activations.fused_gelu,),
    "com.microsoft::QuickGelu": (activations.fused_gelu,),
    "Add": (spread.mask, spread.constant_term, products.add_bias, activations.prelu),
    "Sub": (spread.mask, spread.constant_term, products.add_bias, activations.prelu),
    "Mul": (spread.mask, spread.constant_term),
    "Div": (spread.mask, spread.constant_term),
    "Where": (spread.mask,),
    "Expand": (recognise.expand, spread.own_shape, shapes.expanded),
    "Tile": (spread.own_shape,),
    "ConstantOfShape": (shapes.filled,),
    "Gather": (shapes.looked_up, strided.view),
    "GatherND": (windows.windows,),
    "Max": (recognise.relu,),
    "Clip": (activations.clip,),
    "PRelu": (activations.prelu_slope,),
}
RECOGNISED: dict[str, tuple[Rule, ...]] = dict.fromkeys(OPS, (recognise.recognise,))
FOLDED: dict[str, tuple[Rule, ...]] = dict.fromkeys(affine.AFFINE, (affine.fold_behind, affine.fold_ahead))


def _with_general_rules(table: dict[str, tuple[Rule, ...]]) -> dict[str, tuple[Rule, ...]]:
    """Add the rules that fold constants before all others, and that pass shapes through every activation."""
    result = {op: (rule, *table.get(op, ())) for op, rule in constants.RULES.items()}
    for op in ("Expand", "ConstantOfShape"):  # which are seen through first
        result[op] = (*table[op], constants.laid_out)
    result.update({op: rules for op, rules in table.items() if op not in result})
    for op in dict.fromkeys((*ACTIVATIONS, *affine.AFFINE, *activations.KEEPS_SHAPE)):
        result[op] = (*result.get(op, ()), activations.known_shape)
    for op in (*spread.ONE_BY_ONE, "Expand", "ConstantOfShape"):
        result[op] = (*result.get(op, ()), spread.lay)
    for op in shapes.INFERRED:
        result[op] = (*result.get(op, ()), shapes.inferred)
    return result


PLAIN = _with_general_rules(PLAIN)


def canonicalise(graph: gs.Graph, allowance: Allowance | None = None) -> list[str]:
    """Apply every rule until none applies; ``graph`` becomes a reading aid that must not be written.

    Dense layers become nodes ``Dense``, convolutions nodes ``Convolution``. Their attributes are "entry", the name of
    the tensor that the layer reads in the file (None where the layer cannot be used); "exit", the name of the tensor
    that it writes there (None where the file has none); and "op", the original operator. Convolutions have their
    "geometry" too.

    Returns:
        Names of products that are gone, since no output depends on their values.

    Raises:
        ModelError: the constants that are made take more bytes than the ``allowance`` has.
    """
    rewriter = Rewriter(graph, allowance)
    ops = {id(node): node.op for node in graph.nodes}
    budget = 1000 + 50 * len(graph.nodes)
    # Made here, since a user's own activation may have been added after this module was imported.
    plain = dict.fromkeys(ACTIVATIONS, (activations.known_shape,)) | PLAIN
    changes = 0
    settled: dict[int, int] = {}  # the tables that found nothing to do, and the number of changes at that time
    for _ in range(ROUNDS):
        before = changes
        for table in (plain, RECOGNISED, FOLDED):
            for rules in (table, plain) if table is RECOGNISED else (table,):
                if settled.get(id(rules)) != changes:
                    rewriter.touch_all(rules)
                    with np.errstate(all="ignore"):  # infinite weights are refused where layers are read
                        changed = rewriter.drain(rules, budget)
                    if changed:
                        changes += 1
                    else:
                        settled[id(rules)] = changes
        if changes == before:
            break
    rewriter.finish()
    _mark(rewriter, ops)
    return rewriter.lost


def _mark(rewriter: Rewriter, ops: dict[int, str]) -> None:
    """Give every dense layer its "entry", "exit" and "op".

    A layer next to a Transpose that rewriting made is not usable.
    """
    dense = [node for node in rewriter.graph.nodes if node.op in LAYERS and len(node.inputs) > 1]
    unusable = []
    for node in dense:
        x, y = node.inputs[0], node.outputs[0]
        node.attrs["op"] = ops.get(id(node), "Gemm")
        node.attrs["exit"] = y.name if rewriter.is_original(y) else None
        if node.attrs.get("entry") is None and (rewriter.is_original(x) or not _is_turned(rewriter, x)):
            node.attrs["entry"] = x.name
        if _is_turned(rewriter, x) or _is_read_turned(rewriter, y):
            unusable.append(node)
    seen = set()
    while unusable:
        node = unusable.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        node.attrs["entry"] = None
        unusable.extend(_joined(rewriter, node))


def _is_turned(rewriter: Rewriter, x: Any) -> bool:
    """Whether the file lacks this tensor, since a Transpose that rewriting made writes it."""
    source = producer_of(x)
    return source is not None and source.op == "Transpose" and not rewriter.is_original(x)


def _is_read_turned(rewriter: Rewriter, y: Any) -> bool:
    """Whether the file lacks this tensor, and a Transpose that rewriting made turns it into one that the file has."""
    return not rewriter.is_original(y) and any(reader.op == "Transpose" for reader in y.outputs)


def _joined(rewriter: Rewriter, node: gs.Node) -> list[gs.Node]:
    """Dense layers before and behind this one, connected by tensors that the file lacks."""
    found = []
    tensor, steps = node.inputs[0], 0
    while not rewriter.is_original(tensor) and steps < 8:
        source = producer_of(tensor)
        if source is None:
            break
        if source.op in LAYERS:
            found.append(source)
            break
        tensor, steps = source.inputs[0], steps + 1
    todo = [node.outputs[0]]
    for _ in range(8):
        if not todo or rewriter.is_original(todo[0]):
            break
        for reader in todo.pop().outputs:
            if reader.op in LAYERS:
                found.append(reader)
            elif reader.outputs:
                todo.append(reader.outputs[0])
    return found
