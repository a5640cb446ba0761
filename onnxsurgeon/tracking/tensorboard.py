"""TensorBoard's event files in RUN/tensorboard, by its own package; neither TensorFlow nor PyTorch is needed."""

from __future__ import annotations

import time

from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.tracking.base import Logged, Settings
from onnxsurgeon.tracking.values import Entry

FOLDER = "tensorboard"
_ALL = 0


class TensorBoard:
    """A process that works on a run adds one event file. Numbers are rounded to float32, the format's only type."""

    name = "tensorboard"

    def begin(self, run: RunDirectory, settings: Settings) -> Logged:
        """Open a new event file; the settings are shown as hyperparameters."""
        folder = run.path / FOLDER
        folder.mkdir(exist_ok=True)
        logged = _logged(str(folder))
        self._writer = EventFileWriter(str(folder))
        if (SESSION_START_INFO_TAG, 0) not in logged:
            self._add(0, hparams_pb(dict(settings), trial_id=run.path.name))
        self._writer.flush()
        return logged

    def log(self, entry: Entry) -> None:
        """Add scalars and texts; they are in the file after each decision point."""
        if entry.numbers:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in entry.numbers.items()]
            self._add(entry.step, Summary(value=values))
        for name, text in entry.texts.items():
            self._add(entry.step, text_pb(name, text))
        if entry.current:
            self._writer.flush()

    def finish(self, run: RunDirectory) -> None:
        """Do nothing, since nothing is left to do."""

    def close(self, outcome: str) -> None:
        """Complete the file."""
        self._writer.close()

    def _add(self, step: int, summary: Summary) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))


def _logged(folder: str) -> Logged:
    """Name and step of all that the event files in ``folder`` hold; a last record cut off by a kill is left out."""
    found = EventAccumulator(folder, size_guidance={SCALARS: _ALL, TENSORS: _ALL}).Reload()
    tags = found.Tags()
    scalars = {(tag, event.step) for tag in tags[SCALARS] for event in found.Scalars(tag)}
    return scalars | {(tag, event.step) for tag in tags[TENSORS] for event in found.Tensors(tag)}
