"""What the rows of a run are trained towards and measured against: their labels, or a teacher."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.heads import imitation_notes
from onnxsurgeon.data.prepare import InputOptions, prepare, require_targets
from onnxsurgeon.graph.network import Network
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.training.engine import Engine
from onnxsurgeon.training.teaching import imitating


@dataclass
class Teaching:
    """Makes the examples of a run.

    Attributes:
        network: the given model.
        dataset: labelled or not; where it is not, the given model is the teacher.
        options: how rows become the model's input.
        settings: of the run.
        engine: that evaluates the teacher.
        notes: what is worth knowing of what is imitated, once the training rows are prepared.
    """

    network: Network
    dataset: Dataset
    options: InputOptions
    settings: SurgeonSettings
    engine: Engine
    notes: tuple[str, ...] = ()
    _train: Examples | None = field(default=None, repr=False)

    def require_targets(self, split: Split) -> None:
        """Raise DataError, naming the row, where a label of ``split`` fits none of the network's outputs."""
        if self.dataset.is_labelled:
            require_targets(self.network, self.dataset, split, self.options)

    def prepared(self, part: str, split: Split) -> Examples:
        """The rows of ``split``, which is "train", "validation" or "test"; the training rows are to come first.

        Raises:
            DataError: the rows do not fit the model, or the loss not a head.
            EngineError: the teacher cannot be evaluated.
        """
        if self.dataset.is_labelled:
            return prepare(self.network, self.dataset, split, self.options)
        found = imitating(
            self.network,
            self.dataset,
            split,
            self.options,
            engine=self.engine,
            temperature=self.settings.temperature,
            like=self._train,
        )
        if part == "train":
            self._train = found
            self.notes = tuple(imitation_notes(self.network, found.tasks))
        return found
