"""The result of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from onnxsurgeon.graph.network import Network
from onnxsurgeon.runs.branch import START, Branch
from onnxsurgeon.runs.entry import Entry
from onnxsurgeon.runs.events import HeadResult, Result
from onnxsurgeon.runs.footprint import Footprint, figures, measured_figure, spell_metric
from onnxsurgeon.runs.model import RunModel
from onnxsurgeon.runs.table import RunTable
from onnxsurgeon.training.metrics import Metrics


@dataclass(frozen=True, eq=False, repr=False)
class Evolved(RunTable):
    """The result of a run. Its history can be read as rows, as a DataFrame and as a notebook's table.

    Attributes:
        branch: the branch that is the result.
        run: the run directory.
        validation_accuracy: the accuracy by which the result was chosen.
        test: accuracy and loss on the test split, touched once.
        start: the same of the given model.
        steps: training steps over all branches.
        seconds: wall time.
        training_seconds: the part of it spent inside ONNX Runtime training.
        before: parameters, file size and latency of the given model.
        after: those of the result.
        written_front: with objective pareto the networks that no other dominates, the largest first, as files in
            RUN/front; see ``front``.
        is_refitted: whether it was trained once more on all rows, including those by which it was chosen.
        shortfall: what was asked for and not found, in words; "" where all was found.
        is_worse: whether the result is worse than the given model by more than chance on the test rows (paired by row,
            one-sided, 5 %).
        remarks: remarks in sentences: the first is that it is worse, where it is; others are that it has lost more on
            the test rows than was asked for; that it is the given model, and what to try; that the given model may have
            been trained on the rows that decide.
    """

    branch: Branch
    run: Path
    validation_accuracy: float
    test: Metrics
    start: Metrics
    steps: int
    seconds: float
    training_seconds: float
    before: Footprint
    after: Footprint
    written_front: tuple[Entry, ...] = ()
    shortfall: str = ""
    is_refitted: bool = False
    is_worse: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def network(self) -> Network:
        """The resulting network."""
        return self.branch.network

    @property
    def is_given(self) -> bool:
        """Whether the result is the given model."""
        return self.branch.surgery == START

    @property
    def best(self) -> RunModel:
        """RUN/best.onnx, to be loaded, taken as bytes, or run."""
        return RunModel(
            self.run,
            "best.onnx",
            self.branch.number,
            self.network.topology,
            self.network.parameter_count,
            self.validation_accuracy,
            size=self.after.size,
            latency=self.after.latency,
        )

    @property
    def front(self) -> tuple[RunModel, ...]:
        """The models that no other of the run beats in accuracy with as few parameters, the largest first.

        With objective pareto they are those of RUN/front, which no other beats in latency either.
        """
        if not self.written_front:
            return super().front
        return tuple(RunModel(self.run, **asdict(entry)) for entry in self.written_front)

    def summary(self) -> str:
        """The result of the run in a few lines: each figure before and after, surgeries, remarks."""
        measured = measured_figure(self.test.metric, self.start.accuracy, self.test.accuracy)
        found = [*figures(self.before, self.after), measured]
        width = max(len(each.name) for each in found)
        return "\n".join(
            [
                f"{self.network.topology}, {self.network.parameter_count:,} parameters: {self.run / 'best.onnx'}",
                *(f"{each.name:<{width}}  {each.before} → {each.after}, {each.change}" for each in found),
                *map(_told, self.heads()),
                f"surgeries: {', '.join(self.branch.lineage) or 'none'}",
                *self.remarks,
                *([f"{self.shortfall}: the result comes nearest"] if self.shortfall else []),
            ]
        )

    def heads(self) -> list[HeadResult]:
        """Each of several heads of the result beside the given model's, on the test split; none where one is alone."""
        return [
            HeadResult(
                head=after.head,
                metric=after.metric,
                test_accuracy=after.accuracy,
                test_loss=after.loss,
                start_test_accuracy=before.accuracy,
            )
            for before, after in zip(self.start.heads, self.test.heads, strict=True)
        ]

    def __repr__(self) -> str:
        figures = f"validation {self.validation_accuracy:.4f}, test {self.test.accuracy:.4f}"
        network = f"{self.network.topology}, {self.network.parameter_count:,} parameters"
        return f"<{type(self).__name__} {self.run}: {network}, {self.test.metric}: {figures}>"

    def record(self) -> Result:
        """The same as plain values, for JSON."""
        found = Result(
            run=str(self.run),
            best=str(self.run / "best.onnx"),
            branch=self.branch.number,
            topology=self.network.topology,
            parameters=self.network.parameter_count,
            surgeries=list(self.branch.lineage),
            validation_accuracy=self.validation_accuracy,
            test_accuracy=self.test.accuracy,
            test_loss=self.test.loss,
            start_test_accuracy=self.start.accuracy,
            steps=self.steps,
            seconds=self.seconds,
            training_seconds=self.training_seconds,
            before=self.before.record(),
            after=self.after.record(),
            is_worse=self.is_worse,
            remarks=list(self.remarks),
        )
        if heads := self.heads():
            found["heads"] = heads
        if self.written_front:
            found["front"] = [entry.record() for entry in self.written_front]
        if self.is_refitted:
            found["is_refitted"] = True
        if self.shortfall:
            found["shortfall"] = self.shortfall
        return found


def _told(head: HeadResult) -> str:
    """One of several heads in a line."""
    before, after = spell_metric(head["start_test_accuracy"]), spell_metric(head["test_accuracy"])
    return f"  test {head['metric']} of '{head['head']}': {before} → {after}"
