"""The layer that a surgery's number means: a hidden one, or a convolution that alone writes a shared width."""

from __future__ import annotations

from onnxsurgeon.calibration.moments import Place
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network


def written_by(network: Network, i: int) -> tuple[Place, DenseLayer]:
    """Where the layer is that writes width ``i``, as (segment, index there), and the layer.

    Raises:
        SurgeryError: there is no such width; or it is shared, and no single convolution of one group writes it.
    """
    place = network.place(i)
    layer = network.segments[place[0]].layers[place[1]]
    if i > network.hidden_count and (layer.geometry is None or layer.geometry.groups > 1):
        raise SurgeryError(
            f"'{network.name}' ({network.topology}): width {i} is shared, and written by no plain convolution",
            "no-such-layer",
        )
    return place, layer
