"""The targets and the measure of a run's rows: their labels, a teacher's outputs, or both."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from onnxsurgeon.buffers import byte_chunks
from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.examples import Examples, together
from onnxsurgeon.data.heads import imitation_notes, imitation_tasks
from onnxsurgeon.data.more import more_rows
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.prepare import prepare, prepare_rows, require_plain_classes, require_targets
from onnxsurgeon.data.soft import prediction
from onnxsurgeon.data.teacher import Taught, TeacherModel
from onnxsurgeon.errors import DataError, OnnxSurgeonError, RunError, SettingsError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.randomness import generator
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.surgeon.taught import TaughtFolder
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, Task
from onnxsurgeon.training.engine import Engine
from onnxsurgeon.training.teaching import require_student, taught_by

SHARE = 0.5  # of the teacher in the targets of labelled rows, where a teacher is given
# Rows that are made unasked where there are no labels: this many times the given ones, in at most this many bytes. The
# race of a trained start finds out whether training on them pays.
MADE, MADE_BYTES = 9, 2**26


@dataclass(frozen=True)
class RecordedTeacher:
    """The teacher of a run that goes on, read only where its outputs are not there any more.

    Attributes:
        path: path of its file.
        sha256: digest of the file when the run was started; see ``TeacherModel``.
    """

    path: str
    sha256: str

    def read(self) -> TeacherModel:
        """Read the model.

        Raises:
            RunError: it cannot be read any more, or is another.
        """
        try:
            model = TeacherModel.read(self.path)
        except (OnnxSurgeonError, OSError) as error:
            raise RunError(
                f"what the run's teacher put out is gone, and so is the teacher: {error}", "other-data"
            ) from error
        if model.sha256 != self.sha256:
            raise RunError(
                f"{self.path}: is not the teacher that the run was started with; its contents differ", "other-data"
            )
        return model


@dataclass
class Teaching:
    """Makes the examples of a run, and keeps its teacher's outputs.

    Attributes:
        network: the given model.
        dataset: labelled or not; where it is not and there is no other teacher, the given model teaches itself.
        options: how rows become the model's input.
        settings: settings of the run.
        engine: evaluates the given model.
        teacher: another model that teaches; None: the given one does.
        run: the directory of a run that goes on, where the teacher's outputs may lie; None: the run begins.
        notes: notes on the imitation, once the training rows are prepared.

    Raises:
        SettingsError: the settings want a teacher where there is none, or labels.
    """

    network: Network
    dataset: Dataset
    options: InputOptions
    settings: SurgeonSettings
    engine: Engine
    teacher: TeacherModel | RecordedTeacher | None = None
    run: Path | None = None
    notes: tuple[str, ...] = ()
    _kept: dict[str, Taught] = field(default_factory=dict, repr=False)
    _tasks: tuple[Task, ...] = field(default=(), repr=False)
    _is_new: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        settings = self.settings
        who = "the given model" if self.teacher is None else f"'{self.teacher.path}'"
        if not self.dataset.is_labelled:
            if settings.teacher_weight not in (None, 1):
                raise SettingsError("teacher-weight: mixes a teacher with labels, and the rows have none", "no-labels")
            require_plain_classes(self.options)
            self.notes = (f"the rows have no labels: {who} is imitated, and is the measure",)
        elif not self.weight:
            for name, is_given in (
                ("temperature", settings.temperature != 1),
                ("more-rows", settings.more_rows is not None),
            ):
                if is_given:
                    raise SettingsError(
                        f"{name}: is for a teacher, and there is none: --teacher or --teacher-weight", "other-search"
                    )
        else:
            self.notes = (f"trained towards {who} by {self.weight:.0%}, towards the labels by {1 - self.weight:.0%}",)

    @property
    def weight(self) -> float:
        """The teacher's share in the targets."""
        if not self.dataset.is_labelled:
            return 1.0
        if self.settings.teacher_weight is not None:
            return self.settings.teacher_weight
        return 0.0 if self.teacher is None else SHARE

    def require_test_rows(self) -> None:
        """Check now, and not at the end of a long run, that the test rows can be measured.

        Raises:
            DataError: a label fits none of the network's outputs, or the teacher fails; names the row.
        """
        if self.dataset.is_labelled:
            require_targets(self.network, self.dataset, self.dataset.test, self.options)
        else:
            self._taught("test", self.dataset.test)

    def prepared(self, part: str, split: Split) -> Examples:
        """Make the rows of ``split``, which is the ``part`` "train", "validation" or "test"; training rows come first.

        Raises:
            DataError: the rows do not fit the models, or the loss or the teacher's outputs not a head.
            ModelError: the student's outputs do not follow its heads.
            EngineError: the given model cannot be evaluated.
            RunError: the teacher is needed again and has changed.
        """
        examples = self._labelled(part, split) if self.dataset.is_labelled else self._imitating(part, split)
        if part == "train":
            made = self._made(split, examples.tasks)
            return examples if made is None else together(examples, made)
        return examples

    def forget_training_rows(self) -> None:
        """Free what is known of the rows for training and validation, once they and their targets are prepared."""
        self.dataset = self.dataset.but_test_rows()

    def write(self, run: Path) -> None:
        """Write the teacher's outputs into the run directory, where they are not there already, and free them here."""
        if self._is_new:
            self._folder(run).write(self._kept)
            self._is_new = False
        self._kept = {part: taught for part, taught in self._kept.items() if part == "test"}  # which is prepared last

    def _labelled(self, part: str, split: Split) -> Examples:
        examples = prepare(self.network, self.dataset, split, self.options, tasks=self._tasks or None)
        self._tasks = examples.tasks
        if not self.weight or part == "test":
            return examples
        taught = self._taught(part, split, examples=examples, tasks=examples.tasks)
        return examples.with_teacher(taught.outputs, self.weight, self.settings.temperature)

    def _imitating(self, part: str, split: Split) -> Examples:
        examples = prepare_rows(self.network, self.dataset, split, self.options)
        taught = self._taught(part, split, examples=examples)
        if part == "train":
            loss, temperature = self.options.loss, self.settings.temperature
            self._tasks = imitation_tasks(self.network, taught.outputs, loss, temperature, taught.squashes)
            self.notes = (*self.notes, *imitation_notes(self.network, self._tasks))
            if self.teacher is not None:
                require_student(self.network, self.dataset, split, self.options, self._tasks)
        return examples.imitating(taught.outputs, self._tasks)

    def _made(self, split: Split, tasks: tuple[Task, ...]) -> Examples | None:
        """Make more rows, labelled by the teacher; None: no rows are to be made, or unasked none can be."""
        count = self.settings.more_rows
        if count is None and (self.dataset.is_labelled or not self.settings.heeds_wishes):
            return None
        try:
            rng = generator(self.settings.seed, "more rows")
            made = more_rows(split, count or _unasked(split), rng, self.dataset.name)
        except DataError:
            if count is not None:
                raise
            return None
        examples = prepare_rows(self.network, self.dataset, made, self.options)
        plain = tasks if self.dataset.is_labelled else ()
        outputs = self._taught("more", made, examples=examples, tasks=plain).outputs
        if not self.dataset.is_labelled:
            return examples.imitating(outputs, tasks)
        labels = tuple(_labels(values, task) for values, task in zip(outputs, tasks, strict=True))
        return Examples(examples.stored, labels, tasks, outputs)

    def _taught(
        self, part: str, split: Split, *, examples: Examples | None = None, tasks: tuple[Task, ...] = ()
    ) -> Taught:
        """The teacher's outputs for the rows of ``split``: kept ones, or the teacher is run."""
        if part not in self._kept and self.run is not None:
            widths = tuple(head.width for head in self.network.heads)
            found = self._folder(self.run).read(part, split.rows, widths)
            if found is not None:
                self._kept[part] = found
        if part not in self._kept:
            if isinstance(self.teacher, RecordedTeacher):
                self.teacher = self.teacher.read()
            self._kept[part] = taught_by(
                self.teacher,
                self.network,
                self.dataset,
                split,
                self.options,
                engine=self.engine,
                examples=examples,
                tasks=tasks,
            )
            self._is_new = True
        return self._kept[part]

    def _folder(self, run: Path) -> TaughtFolder:
        return TaughtFolder(run, self._digest)

    @cached_property
    def _digest(self) -> str:
        """SHA-256 over everything on which the teacher's outputs depend, and their rows."""
        settings, dataset = self.settings, self.dataset
        known = (
            dataset.digest,
            dataset.validation_fraction,
            settings.decide_by,
            asdict(self.options),
            [(head.tensor, head.width, head.rank) for head in self.network.heads],
            "itself" if self.teacher is None else self.teacher.sha256,
            (settings.more_rows, settings.seed),
        )
        digest = hashlib.sha256(json.dumps(known).encode())
        for _, values in self.network.parameters() if self.teacher is None else ():
            for piece in byte_chunks(values):
                digest.update(piece)
        return digest.hexdigest()


def _unasked(split: Split) -> int:
    """The number of rows that are made unasked."""
    size = sum(math.prod(shape[1:]) * dtype.itemsize for _, shape, dtype, _ in split.blocks())
    return max(1, min(MADE * split.rows, MADE_BYTES // max(1, size)))


def _labels(outputs: Array, task: Task) -> Array:
    """A teacher's predictions as labels: classes, 0 and 1, or values."""
    if task.loss == CROSS_ENTROPY:
        return np.asarray(outputs.argmax(axis=-1))
    if task.loss == BINARY:
        return (outputs > 0).astype(np.float64)
    return prediction(outputs, task).astype(np.float64)
