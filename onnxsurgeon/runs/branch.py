"""A branch: a network with its lineage and history, and its file."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from onnxsurgeon.errors import RunError
from onnxsurgeon.graph.files import flush_file, model_digest
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.reader import METADATA_PREFIX, load
from onnxsurgeon.graph.writer import save
from onnxsurgeon.runs.events import Digests
from onnxsurgeon.runs.own_files import file_digest
from onnxsurgeon.runs.state_file import read_state, state_path, write_state
from onnxsurgeon.training.state import OptimizerState
from onnxsurgeon.typed import check

_OPERATION = re.compile("[a-z_]+")
START = "start"
RECUPERATED, TRAINED = "recuperated", "trained"


@dataclass(frozen=True)
class Measurement:
    """A branch's state at one moment.

    Attributes:
        position: batches trained since the start of the run.
        epoch: the same in epochs.
        stage: RECUPERATED or TRAINED.
        accuracy: on the validation split; R² for a regression.
        loss: mean loss on the validation split.
        rounding: see ``TrainedNetwork``; 0 where the file holds the weights as they are trained.
    """

    position: int
    epoch: float
    stage: str
    accuracy: float
    loss: float
    rounding: float = 0.0


@dataclass(frozen=True, eq=False)
class Branch:
    """A network and its origin.

    Attributes:
        number: counted from 0 over the run.
        parent: number of the branch from which it was made; None for the given model.
        surgery: the surgery that made it, such as "widen:1:8"; "identity", or "start" for the given model.
        network: its current weights.
        lineage: every surgery since the given model, without identities.
        history: its latest measurements, its ancestors' included; where it was read from a file, the ``recent`` ones.
        score: by eq. 16, after its latest measurement.
        state: the optimizer's state; None for an optimizer without one, or before training.
    """

    number: int
    parent: int | None
    surgery: str
    network: Network
    lineage: tuple[str, ...] = ()
    history: tuple[Measurement, ...] = field(default=())
    score: float = 0.0
    state: OptimizerState | None = None

    @property
    def operation(self) -> str:
        """Name of the surgery without its numbers."""
        return self.surgery.partition(":")[0]

    @property
    def file_name(self) -> str:
        """The name of its file, such as "0007-widen.onnx"."""
        return f"{self.number:04d}-{self.operation}.onnx"

    @property
    def accuracy(self) -> float:
        """Validation accuracy at the latest measurement."""
        return self.history[-1].accuracy

    @property
    def recent(self) -> tuple[Measurement, ...]:
        """The measurements that its file holds: from the end of the last step on.

        All of them would take more bytes than the weights of a small network. The journal has them.
        """
        ends = [i for i, entry in enumerate(self.history[:-1]) if entry.stage == TRAINED]
        return self.history[ends[-1] :] if ends else self.history

    def measured(
        self, network: Network, state: OptimizerState | None, measurement: Measurement, score: float
    ) -> Branch:
        """The branch after more training."""
        return replace(self, network=network, state=state, history=(*self.history, measurement), score=score)

    def stamped(self) -> Network:
        """The network with the branch's lineage and latest measurements among its metadata.

        Nothing in it depends on the time, the folder or the number of workers: the same run gives the same bytes.
        """
        record = {
            "branch": str(self.number),
            "parent": "" if self.parent is None else str(self.parent),
            "surgery": self.surgery,
            "lineage": json.dumps(self.lineage),
            "history": json.dumps([asdict(entry) for entry in self.recent]),
            "score": repr(self.score),
        }
        if self.history:
            record |= {"epoch": repr(self.history[-1].epoch), "accuracy": repr(self.accuracy)}
        return replace(self.network, metadata={METADATA_PREFIX + key: value for key, value in record.items()})


def write_branch(branch: Branch, folder: Path) -> Path:
    """Write the branch's file, after the optimizer's state where there is one; return the file's path.

    A run can resume only from what is on the disk: see ``flush_branch``.

    Raises:
        ModelError: it cannot be written.
        RunError: the state cannot be written.
    """
    path = folder / branch.file_name
    if branch.state is not None:
        write_state(branch.state, state_path(path), flush=False)
    save(branch.stamped(), path, overwrite=True, flush=False)
    return path


def flush_branch(path: Path) -> None:
    """Bring a branch's files to the disk.

    Raises:
        RunError: the system refuses.
    """
    for file in (path, state_path(path)):
        try:
            if file.is_file():
                flush_file(file)
        except OSError as error:
            raise RunError(f"{file}: cannot be written: {error.strerror or error}", "cannot-write") from error


def given_file(folder: Path) -> Path:
    """The file of the given model, branch 0, among the branches in a folder."""
    return folder / f"0000-{START}.onnx"


def file_of(folder: Path, number: int) -> Path:
    """The file of the branch with that number, among the branches in a folder.

    Raises:
        RunError: there is none, or there are several.
    """
    found = sorted(folder.glob(f"{number:04d}-*.onnx"))
    if not found:
        raise RunError(f"{folder}: the file of branch {number} is gone; the run cannot be resumed", "gone")
    if len(found) > 1:
        names = ", ".join(f"'{path.name}'" for path in found)
        raise RunError(f"{folder}: branch {number} has several files, {names}; the run cannot be resumed", "exchanged")
    return found[0]


def read_branch(path: Path) -> Branch:
    """Read a branch back from its file, and its optimizer's state from the one beside it.

    Raises:
        ModelError: the file is no usable model.
        RunError: it is one, but carries no branch's metadata; or the state is damaged.
    """
    network = load(path)
    record = {key.removeprefix(METADATA_PREFIX): value for key, value in network.metadata.items()}
    try:
        lineage, history = (json.loads(record[key]) for key in ("lineage", "history"))
        check(lineage, list[str], "lineage")
        check(history, list[Measurement], "history")
        parent = int(record["parent"]) if record["parent"] else None
        branch = Branch(
            int(record["branch"]),
            parent,
            record["surgery"],
            network,
            tuple(lineage),
            tuple(Measurement(**entry) for entry in history),
            float(record["score"]),
        )
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{path}: carries no branch's metadata", "exchanged") from error
    # The number is part of file names.
    if branch.number < 0 or (parent or 0) < 0 or not _OPERATION.fullmatch(branch.operation):
        raise RunError(f"{path}: carries no branch's metadata", "exchanged")
    state = state_path(path)
    return replace(branch, state=read_state(state, network)) if state.is_file() else branch


def digests(path: Path) -> Digests:
    """SHA-256 of a branch's file and, where it has one, of its optimizer's state, as the journal holds them.

    The former is that of ``model_digest``, which includes external data.

    Raises:
        RunError: a file cannot be read.
    """
    try:
        found = Digests(digest=model_digest(path))
    except OSError as error:
        raise RunError(f"{error.filename or path}: cannot be read: {error.strerror or error}", "cannot-read") from error
    if state_path(path).is_file():
        found["state_digest"] = file_digest(state_path(path))
    return found
