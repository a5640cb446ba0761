"""A network that could be the result, as the front and the journal hold it."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsurgeon.runs.events import FrontModel

SAME_LATENCY = 1.25


@dataclass(frozen=True)
class Entry:
    """A trained branch that could be the result.

    Attributes:
        branch: its number.
        file: name of its file.
        digest: SHA-256 of that file.
        topology: widths of its layers.
        accuracy: on the validation split.
        loss: mean loss on the validation split.
        parameters: number of its parameters.
        size: bytes of its file.
        latency: milliseconds for a row; None where nothing asks for it.
        multiplications: with weights, for a row (MACs); None where nothing asks for it.
        memory: bytes of the tensors that are in memory at once for a row; None where nothing asks for it.
    """

    branch: int
    file: str
    digest: str
    topology: str
    accuracy: float
    loss: float
    parameters: int
    size: int
    latency: float | None = None
    multiplications: int | None = None
    memory: int | None = None

    def record(self) -> FrontModel:
        """The same as plain values, for the journal."""
        return FrontModel(
            branch=self.branch,
            file=self.file,
            digest=self.digest,
            topology=self.topology,
            accuracy=self.accuracy,
            loss=self.loss,
            parameters=self.parameters,
            size=self.size,
            latency=self.latency,
            multiplications=self.multiplications,
            memory=self.memory,
        )

    def is_dominated_by(self, other: Entry) -> bool:
        """Whether ``other`` is nowhere worse, and somewhere better, in accuracy, parameters and latency.

        Latencies within ``SAME_LATENCY`` of each other count as equal, since they are measured.
        """
        mine, others = self.latency or 0.0, other.latency or 0.0
        if other.accuracy < self.accuracy or other.parameters > self.parameters or others > mine * SAME_LATENCY:
            return False
        same = (other.accuracy, other.parameters) == (self.accuracy, self.parameters)
        # Of equal ones the given one stays, else the one with less loss, since few rows give few accuracies, else the
        # earlier.
        order = min((each.branch > 0, each.loss, each.branch) for each in (self, other))
        return not same or others * SAME_LATENCY < mine or order[2] == other.branch
