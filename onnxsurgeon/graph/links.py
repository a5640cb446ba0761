"""What a segment is made of while it is being found."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs


@dataclass(eq=False)
class Link:
    """A dense node and the activation between it and the next one of its segment, if any."""

    dense: gs.Node
    activation: gs.Node | None = None

    @property
    def output(self) -> gs.Variable:
        """What the layer writes, the activation included."""
        return (self.activation or self.dense).outputs[0]
