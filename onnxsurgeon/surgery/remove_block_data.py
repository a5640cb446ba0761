"""A residual block whose branch is replaced by its mean on the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.calibration.regression import relative
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.without_block import last_layer, without_block
from onnxsurgeon.surgery.base import DataAware, Lost, Rebuilt, register, spell
from onnxsurgeon.surgery.removal import Removal, count_without


@register
@dataclass(frozen=True)
class RemoveBlockData(Removal, DataAware):
    """Take the branch out of residual block ``block``, and leave its mean: y = x + f(x) becomes y = x + E f(x).

    The mean, one value for each unit, goes into the bias of the layer that writes x, where nothing but the block reads
    that, and is else a constant of the file. What is lost is what is left of the branch, its variance: the error is
    √(E‖f(x) − E f(x)‖² / E‖y − E y‖²), of the sum. Exact where f's last layer has no weights but zeros.
    """

    operation: ClassVar[str] = "remove_block_data"
    summary: ClassVar[str] = "residual block BLOCK with its branch's mean in its place"
    exact_if: ClassVar[str] = "if the branch's last layer has a bias alone"
    marker: ClassVar[str] = r"$\ominus$"

    def require(self, network: Network) -> None:
        """As of every removal; and the axis of the block's units must be known."""
        super().require(network)
        if network.block(self.block).axis is None:
            raise SurgeryError(
                f"{spell(self)}: along which axis its units are is not known; remove_block:{self.block} leaves no mean",
                "unlike-layer",
            )

    def is_exact(self, network: Network) -> bool:
        """Where the branch is constant."""
        last = last_layer(network, network.block(self.block))
        return last is not None and not last.weight.any()

    def parameters_after(self, network: Network) -> int | None:
        """Without those that the branch alone has; None where the mean makes a bias."""
        return count_without(network, self.block) if _have_biases(network) else None

    def refit(self, network: Network, moments: Moments) -> Rebuilt:
        """Put the branch's mean in the branch's place."""
        block = network.block(self.block)
        found = moments.branch_of(network, self.block)
        made = without_block(network, self.block, found.mean)
        return Rebuilt(made, Lost(block, found.mean), relative(found.variance, found.total))


def _have_biases(network: Network) -> bool:
    return all(layer.bias is not None for layer in network.layers)
