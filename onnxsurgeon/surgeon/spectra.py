"""The singular values of a layer before a surgery and of what stands in its place afterwards, for the journal."""

from __future__ import annotations

import numpy as np

from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array, singular_values
from onnxsurgeon.runs.events import Spectra, Spectrum
from onnxsurgeon.surgery import Surgery
from onnxsurgeon.surgery.effects import BehindPool, Followed, Narrowed, Preceded, Removed, Repeated

# Of a longer spectrum so many values are written, evenly spaced by rank, the first and the last among them.
VALUES = 128
# m n min(m, n) of an m × n matrix up to which its singular values are worth computing for a picture: some 40 ms.
AFFORDABLE = 2**27


def spectra(before: Network, surgery: Surgery, after: Network) -> Spectra:
    """The layer operated on, its spectrum, and those of the layers in its place, as the journal holds them.

    A spectrum is its length and up to ``VALUES`` of its values, descending, with six digits; None where a large
    layer's would have to be computed for this alone. The one before is what the recommendation was made from. Of a
    block that is taken out or repeated, whose number is told in place of the layer's, it is its branch's last layer's.
    """
    if isinstance(surgery.effect, Removed | Repeated):
        gone = before.segments[before.block(surgery.effect.block).segments[-1]].layers[-1].weight
        known = singular_values(gone) if _is_affordable(gone) else None
        return Spectra(layer=surgery.effect.block, before=_written(known), after=[])
    writer = before.group(surgery.layer).writers[0]  # of several, the first stands for all
    made = after.segments[writer.segment].layers[writer.layer :]
    made = made[: 2 if isinstance(surgery.effect, Followed | Preceded) else 1]
    if isinstance(surgery.effect, BehindPool):
        names = {layer.names.weight for layer in before.layers}
        made = (*made, *(layer for layer in after.layers if layer.names.weight not in names))
    old = singular_values(before.segments[writer.segment].layers[writer.layer].weight)
    return Spectra(
        layer=surgery.layer,
        before=_written(old),
        after=[_written(_spectrum(surgery, i, layer, old)) for i, layer in enumerate(made)],
    )


def _spectrum(surgery: Surgery, i: int, layer: DenseLayer, old: Array) -> Array | None:
    """Of the ``i``-th layer in the place of one with the singular values ``old``."""
    m, n = layer.weight.shape
    is_as_it_was = isinstance(surgery.effect, Followed | BehindPool) and i == 0
    if _is_affordable(layer.weight) or is_as_it_was:
        return singular_values(layer.weight)
    if i == 1:  # I of an inserted layer, or V_rᵀ of a factorized one
        return np.ones(min(m, n))
    if isinstance(surgery.effect, Narrowed | Preceded) and not surgery.needs:  # U_r Σ_r
        return old[: min(m, n)]
    return None


def _is_affordable(weight: Array) -> bool:
    m, n = weight.shape
    return bool(m * n * min(m, n) <= AFFORDABLE)


def _written(values: Array | None) -> Spectrum | None:
    if values is None:
        return None
    ranks = np.linspace(0, len(values) - 1, min(len(values), VALUES)).round().astype(int)
    return Spectrum(count=len(values), values=[float(f"{value:.6g}") for value in values[ranks]])
