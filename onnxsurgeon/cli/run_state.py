"""The present state of a run, from its events and the progress of its training, for ``live`` to show."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from onnxsurgeon.recommend.candidates import PROPOSED
from onnxsurgeon.runs.events import Checkpoint, Event, Known, Measured, Proposed
from onnxsurgeon.surgeon.own_settings import ALGORITHM_1
from onnxsurgeon.surgeon.progress import TrainingProgress

WINDOW = 30.0  # seconds over which the rate is a mean


@dataclass
class Row:
    """A branch or a candidate as a line of a table, with None for what is not known yet.

    Attributes:
        branch: its number.
        surgery: the surgery that made it.
        topology: "" before the surgery.
        parameters: number of parameters that it has, or will have.
        draw: number of its draw, from 0.
        accuracy: at its latest measurement.
        gain: accuracy less its parent's.
        score: by eq. 16, or −loss.
        stage: "proposed", "recuperated", "trained", "dropped" or "kept".
        reason: why it was dropped.
    """

    branch: int
    surgery: str = ""
    topology: str = ""
    parameters: int | None = None
    draw: int = 0
    accuracy: float | None = None
    gain: float | None = None
    score: float | None = None
    stage: str = "proposed"
    reason: str = ""

    def update(self, found: Known | Measured) -> None:
        """Take over its measurements."""
        self.surgery, self.topology, self.parameters = found["surgery"], found["topology"], found["parameters"]
        self.accuracy, self.gain, self.score = found["accuracy"], found["gain"], found["score"]


class RunState:
    """Follows a run. It is not safe to be used from several threads: its user holds a lock.

    Attributes:
        path: the run directory; "" before there is one.
        metric: the metric by which branches are judged.
        epoch: epochs trained, at the last checkpoint.
        draw: number of the draw at this decision point, from 0.
        branches: the current ones.
        best: the branch that would be the result now.
        candidates: by number, of this decision point.
        curve: the metric of the best branch at every decision point since the run was started or resumed.
        is_finished: whether nothing is left to train or measure.
    """

    def __init__(self, progress: TrainingProgress, clock: Callable[[], float] = time.monotonic) -> None:
        self.progress, self._clock = progress, clock
        self.path, self.metric, self.epoch, self.draw = "", "accuracy", 0, 0
        self.is_finished = False
        self.branches: list[Row] = []
        self.best: Row | None = None
        self.candidates: dict[int, Row] = {}
        self.curve: list[float] = []
        self._settings: dict[str, Any] = {}
        self._per_epoch = 1
        self._begun, self._before, self._steps_before = clock(), 0.0, 0  # the latter two are from before it was resumed
        self._decided_at = 0  # steps done at the last checkpoint
        self._costs: list[int] = []  # steps of every decision point so far
        self._samples: deque[tuple[float, int]] = deque()

    def consume(self, event: Event) -> None:
        """Take an event in."""
        if event["event"] == "run":
            self.path, self.metric = event["path"], event["metric"]
            self._settings, self._per_epoch = event["settings"], event["batches_per_epoch"]
            self._begun = self._clock()
        elif event["event"] == "resumed":
            self.epoch, self._before, self._steps_before = event["epoch"], event["seconds"], event["steps"]
            self.branches = [self._kept(each) for each in event["branches"]]
            self.best = self._kept(event["best"])
        elif event["event"] == "proposed":
            self._propose(event)
        elif event["event"] == "recuperated" or event["event"] == "trained":
            row = self._candidate(event["branch"])
            row.update(event)
            row.stage, row.reason = event["event"], ""
        elif event["event"] == "dropped":
            row = self._candidate(event["branch"])
            row.stage, row.reason = event["event"], event["reason"]
        elif event["event"] == "started" or event["event"] == "decided":
            self._decide(event)
        elif event["event"] == "finished":
            self.is_finished = True

    def _candidate(self, branch: int) -> Row:
        return self.candidates.setdefault(branch, Row(branch, draw=self.draw))

    def _propose(self, event: Proposed) -> None:
        if all(row.stage in ("kept", "dropped") for row in self.candidates.values()):
            self.candidates.clear()
        self.draw = event["draw"]
        # Its score is still that of its recommendation, not yet one by measurement.
        self.candidates[event["branch"]] = Row(
            event["branch"], event["surgery"], parameters=event["parameters"], draw=self.draw
        )

    def _decide(self, event: Checkpoint) -> None:
        known = {row.branch: row for row in (*self.branches, *self.candidates.values())}
        if self.best is not None:
            known.setdefault(self.best.branch, self.best)
        described = zip(event["branches"], event["topologies"], event["parameters"], event["accuracies"], strict=True)
        for number, topology, parameters, accuracy in described:
            row = known.setdefault(number, Row(number, "start"))
            row.topology, row.parameters, row.accuracy, row.stage = topology, parameters, accuracy, "kept"
        self.branches = [known[number] for number in event["branches"]]
        self.best = known[event["best"]]
        self.curve.append(event["best_accuracy"])
        self.epoch, self.draw = event["epoch"], 0
        done = self.progress.steps
        if event["event"] == "decided" and not self.is_initial(event["epoch"] - 1):
            self._costs.append(done - self._decided_at)
        self._decided_at = done

    def _kept(self, branch: Known) -> Row:
        row = Row(branch["branch"], stage="kept")
        row.update(branch)
        return row

    @property
    def is_algorithm_1(self) -> bool:
        """Whether the run is the paper's search; runs recorded before there was a choice are."""
        return bool(self._settings.get("search", ALGORITHM_1) == ALGORITHM_1)

    @property
    def doing(self) -> str:
        """The phase of another search, which its candidates tell."""
        underway = [row for row in self.candidates.values() if row.stage not in ("kept", "dropped")]
        operations = {row.surgery.partition(":")[0] for row in underway} - {"identity"}
        if "prune" in operations:
            return "shrinking"
        return f"growing: {len(underway)} shapes compete" if operations else "settling"

    def is_initial(self, epoch: int | None = None) -> bool:
        """Whether the given model is trained, before the first decision point."""
        return self.is_algorithm_1 and (self.epoch if epoch is None else epoch) < min(
            self._get("initial_epochs"), self.epochs
        )

    @property
    def epochs(self) -> int:
        """Length of the run."""
        return self._get("epochs")

    @property
    def now(self) -> float:
        """Epochs trained; in the middle of a step, the mean over the branches that are trained to its end."""
        training = [each for each in self.progress.underway if each.stage == "trained"]
        positions = [(each.start + each.done) / self._per_epoch for each in training]
        return max(self.epoch, sum(positions) / len(positions)) if positions else self.epoch

    @property
    def point(self) -> tuple[int, int]:
        """Number of this decision point, from 1, and number of all."""
        initial, step = self._get("initial_epochs"), self._get("epoch_step", 1)
        return (self.epoch - initial) // step + 1, max(0, -(-(self.epochs - initial) // step))

    @property
    def draws(self) -> int:
        """The largest number of draws."""
        return self._get("redraws") + 1 if self._settings.get("step_back") else 1

    @property
    def elapsed(self) -> float:
        """Seconds of the run, over all resumptions."""
        return self._before + self._clock() - self._begun

    def rate(self) -> float:
        """Steps a second over the last ``WINDOW`` seconds; 0 where none is known."""
        now, steps = self._clock(), self.progress.steps
        self._samples.append((now, steps))
        while now - self._samples[0][0] > WINDOW:
            self._samples.popleft()
        then, before = self._samples[0]
        return (steps - before) / (now - then) if now > then else 0.0

    def steps_left(self) -> float:
        """Estimated number of steps that are still to be trained, if nothing ends the run before its last epoch.

        A decision point is taken to cost the average of the earlier ones; one epoch of another search costs an epoch of
        one network.
        """
        if not self.is_algorithm_1:
            known = sum(each.steps - each.done for each in self.progress.underway)
            left = (self.epochs - self.epoch) * self._per_epoch - (self.progress.steps - self._decided_at)
            return float(max(left, known))
        step = self._get("epoch_step", 1)
        typical = sum(self._costs) / len(self._costs) if self._costs else self._first_guess()
        end = self._get("initial_epochs") if self.is_initial() else self.epoch + step
        end = min(end, self.epochs)
        share = (end - self.epoch) / step
        whole = (end - self.epoch) * self._per_epoch if self.is_initial() else share * typical
        known = sum(each.steps - each.done for each in self.progress.underway)
        here = max(whole - (self.progress.steps - self._decided_at), known)
        return here + (self.epochs - end) / step * typical

    @property
    def share(self) -> float:
        """The share of all steps that is trained, as far as that is known."""
        done, left = self._steps_before + self.progress.steps, self.steps_left()
        return done / (done + left) if done + left else 1.0

    def seconds_left(self, rate: float) -> float | None:
        """Estimated seconds until the end of the run; None where there is no estimate."""
        left = self.steps_left() / rate if rate else None
        limit: float | None = self._settings.get("time_limit")
        if limit is None:
            return left
        rest = max(0.0, limit - self.elapsed)
        return rest if left is None else min(left, rest)

    def _first_guess(self) -> float:
        branches = 1 if self._settings.get("selection") == "random-walk" else self._get("branches")
        recuperation = self._get("recuperation_batches") * (1 + sum(kind.recuperation for kind in PROPOSED))
        return float(branches * self._get("epoch_step") * self._per_epoch + recuperation)

    def _get(self, name: str, default: int = 0) -> int:
        return int(self._settings.get(name, default))
