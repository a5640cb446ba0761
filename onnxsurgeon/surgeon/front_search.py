"""What the searches with a front share: every network of a checkpoint enters it, and the result is read off it.

One file: a class whose steps share the front, the limits and what a latency costs to measure.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.graph.external import size_on_disk
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.recommend import Candidate
from onnxsurgeon.recommend.shrinking import least_count, shrinkage
from onnxsurgeon.runs.branch import (
    RECUPERATED,
    START,
    TRAINED,
    Branch,
    Measurement,
    digests,
    read_branch,
    write_branch,
)
from onnxsurgeon.runs.checkpoint import REFIT, State
from onnxsurgeon.runs.entry import Entry
from onnxsurgeon.surgeon.computed import asked_of, parameters_within_bounds
from onnxsurgeon.surgeon.cycles import Cycle, Pace, along_the_front, to_the_limit
from onnxsurgeon.surgeon.evolve import Surgeon
from onnxsurgeon.surgeon.fast_enough import Latencies
from onnxsurgeon.surgeon.file_size import parameters_within
from onnxsurgeon.surgeon.jobs import Job, JobResult
from onnxsurgeon.surgeon.objective import Given, Limits, choose, front, least_accuracy, most_accurate
from onnxsurgeon.surgeon.significance import is_better, is_within_an_error, row_scores
from onnxsurgeon.surgeon.trainer import train_branch

FEWEST = 8  # epochs of a run that makes networks larger or smaller than it has to; fewer are for training alone
SEGMENT = 5  # epochs between two checkpoints of a cycle
SMALLEST = 1 / 30  # of the parameters with which shrinking begins; the front ends there, or at a smaller given model
FINEST = 0.98  # share of the parameters: where a step would keep more, the smallest network is found
METADATA = 256  # bytes by which a file's metadata may grow while the network is trained
MOST_LOST = 0.01  # of the metric, for a network that counts as no worse; few rows would let more pass
CAUTION = 0.5  # standard errors
SURE = 2.0  # standard errors, where nobody asked for a smaller network
LOST_OF_ITSELF = 0.01  # of agreement or fidelity, for the smallest network that is wanted where nothing is asked for
PROBE = 64  # training steps by which the pace is measured


class FrontSearch(Surgeon):
    """A search with a front, and the steps that all such searches share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pace = Pace()
        self._mark: tuple[int, float] | None = None  # epoch and seconds when the last part of a cycle began
        self._scored: dict[str, Array] = {}
        self.latencies = Latencies(self.run.branches / f"0000-{START}.onnx")
        self._fast_enough: dict[int, int] = {}
        self._moments: tuple[Network, Moments] | None = None
        self._within: tuple[Network, int] | None = None

    # What is wanted.

    @cached_property
    def given_branch(self) -> Branch:
        """The given model, measured."""
        return read_branch(self.run.branches / f"0000-{START}.onnx")

    @cached_property
    def given(self) -> Given:
        """The values to which some wishes are relative."""
        return Given(self.given_branch.network.parameter_count, self.given_branch.accuracy)

    @cached_property
    def limits(self) -> Limits:
        """Upper bounds of the result."""
        return Limits.of(self.settings, self.given)

    @cached_property
    def has_accuracy(self) -> bool:
        """Whether an accuracy is asked for, so that the smallest network that has it is wanted."""
        settings = self.settings
        return any(each is not None for each in (settings.min_accuracy, settings.tolerance, settings.lose))

    @property
    def is_to_be_small(self) -> bool:
        """Whether nothing is asked for, so that the smallest network that is no worse is wanted.

        For an untrained network an accurate one is wanted: half of the time spent on smaller ones, and then the
        smallest within a standard error, cost 0.02 of accuracy on diamonds' cuts.
        """
        return self.settings.has_no_wish and self.is_trained

    @cached_property
    def is_walk(self) -> bool:
        """Whether smaller networks are looked for than any limit asks for."""
        settings = self.settings
        return (
            settings.objective == "pareto" or self.has_accuracy or (self.is_to_be_small and settings.epochs >= FEWEST)
        )

    def most(self, branch: Branch) -> int | None:
        """The limits as a number of parameters of networks like this one; None: there is none.

        For a limit on latency it is the number of the largest network that is fast enough as measured, found by
        bisection.
        """
        found = [self.limits.parameters]
        if self.limits.size is not None:
            found.append(parameters_within(self.limits.size - METADATA, branch))
        if self.limits.latency is not None:
            latency = self.entry_of(branch).latency or 0.0
            if latency > self.limits.latency:
                found.append(self._within_latency(branch, self.limits.latency))
        if self.limits.bounds.are_any:
            found.append(self._within_bounds(branch.network))
        least = min((each for each in found if each is not None), default=None)
        # The graph alone may have nearly as many bytes as the file may.
        return None if least is None else max(1, least)

    def _within_latency(self, branch: Branch, limit: float) -> int:
        """The number of parameters to which a branch that is too slow is pruned to be fast enough."""
        network, depth = branch.network, branch.network.hidden_count
        have, least = network.parameter_count, least_count(network)
        # The finding for a larger network of as many layers is tried first.
        if self._fast_enough.get(depth, have) >= have:
            moments = self.moments_of(network)
            found = self.latencies.within(limit, network, moments, lambda most: self.plan(network, most), least)
            self._fast_enough[depth] = found
        return self._fast_enough[depth]

    def _within_bounds(self, network: Network) -> int:
        """The limits on computation as a number of parameters; the last network's number is kept."""
        if self._within is None or self._within[0] is not network:
            found = parameters_within_bounds(network, self.limits.bounds, lambda each: self.plan(each, None))
            self._within = network, found
        return self._within[1]

    def moments_of(self, network: Network) -> Moments:
        """The moments for pruning all layers; the last network's are kept."""
        if self._moments is None or self._moments[0] is not network:
            self._moments = network, calibrate(network, self.train, self.sample)
        return self._moments[1]

    def plan(self, network: Network, most: int | None) -> Candidate | None:
        """A candidate with units taken from all layers for at most ``most`` parameters, or as near to that as possible.

        None: until the limits on computation are met.
        """
        return shrinkage(network, self.moments_of(network), most, bounds=self.limits.bounds)

    def limit(self, given: Branch) -> int | None:
        """The limits as a number of parameters."""
        return self.most(given)

    def sizes(self, given: Branch) -> tuple[int, int]:
        """From the size that the limits ask for, or where the front would end, to the given network."""
        count = given.network.parameter_count
        least = int(count * SMALLEST) if self.is_walk else count
        return max(1, min(count, self.most(given) or count, least)), count

    def good_enough(self, state: State) -> Callable[[Entry], bool] | None:
        """A test for networks that are accurate enough, where the smallest such is wanted.

        None: the most accurate is.
        """
        within = [entry for entry in state.front if self.limits.admits(entry)] or state.front
        least = least_accuracy(within, self.settings, self.given)
        lose = self.settings.lose
        if lose is not None:
            return lambda entry: self._loses_little(entry, self.given.accuracy, self._given_scores, lose)
        if least is None and self.is_to_be_small and self.is_measure:
            least = self.given.accuracy - LOST_OF_ITSELF
        if least is not None:
            return lambda entry: entry.accuracy >= least
        return self._no_worse(within) if self.is_to_be_small else None

    def _loses_little(self, entry: Entry, accuracy: float, scores: Array, lose: float) -> bool:
        """Whether a network has lost no more than ``lose`` of an accuracy, with some caution.

        The smallest network is lucky. Unless it has lost nothing, its loss has to be below ``lose`` by ``CAUTION``
        standard errors, paired by row. ``scores`` (rows,) are those of the network with that accuracy.
        """
        lost = accuracy - entry.accuracy
        if lost <= 0 or lost > lose:
            return lost <= 0
        difference = scores - self._scores(entry)
        mean = difference.mean()
        if mean <= 0 or len(difference) < 2:
            return True
        error = difference.std(ddof=1) / np.sqrt(len(difference)) * lost / mean
        return bool(lost <= lose - CAUTION * error)

    @cached_property
    def is_measure(self) -> bool:
        """Whether the given network is the one that is imitated: no other can be better, and few are as good."""
        imitates = any(task.imitates for task in self.validation.tasks)
        return imitates and self.given.accuracy >= 1 - LOST_OF_ITSELF / 100

    def _no_worse(self, entries: Iterable[Entry]) -> Callable[[Entry], bool]:
        """A test for networks that are no worse than the best by more than chance: a standard error, paired by row."""
        best = most_accurate(entries)

        def is_good(entry: Entry) -> bool:
            is_within = entry == best or is_within_an_error(self._scores(entry), self._scores(best))
            is_within = is_within and self._loses_little(entry, best.accuracy, self._scores(best), MOST_LOST)
            return is_within and (not entry.branch or self._is_surely_no_worse(entry))

        return is_good

    def _is_surely_no_worse(self, entry: Entry) -> bool:
        """Whether a network is right on as many rows as the given one, except for ``MOST_LOST`` of them, beyond luck.

        Of many networks that are tried, the chosen one is lucky. And rows that were held out of the training rows may
        be ones on which the given network was trained, and which its descendants remember. So a network may have lost
        two standard errors more, paired by row, than was seen, with one row more on which they differ. (Of 1,438 digits
        144 decided; a network of a fifth of the size was right on all of these, and on 0.012 less of the test rows.)
        For a regression this does not decide.
        """
        scores = self._given_scores
        if not self.is_held_out or not np.isin(scores, (0, 1)).all():
            return True
        difference = scores - self._scores(entry)
        error = np.sqrt((difference**2).sum() + 1) / len(difference)
        return bool(difference.mean() + SURE * error <= MOST_LOST)

    # The front.

    def is_allowed(self, branch: Branch) -> bool:
        """Whether a branch is within the limits."""
        return self.limits.admits(self.entry_of(branch))

    def measured(self, branch: Branch, state: State) -> None:
        """Enter a branch into the front."""
        state.front = front([*state.front, self.entry_of(branch)], self.limits)

    def entry_of(self, branch: Branch) -> Entry:
        """What the front says of a branch, whose file is written."""
        path = self.run.branches / branch.file_name
        latency = None
        if self.settings.objective == "pareto" or self.settings.max_latency is not None:
            latency = self.latencies.of(branch.network, path)
        return Entry(
            branch.number,
            branch.file_name,
            digests(path)["digest"],
            branch.network.topology,
            branch.accuracy,
            branch.history[-1].loss,
            branch.network.parameter_count,
            size_on_disk(path),
            latency,
            **asked_of(branch.network, self.settings),
        )

    def result(self, state: State) -> Branch:
        """The branch that is read off the front.

        A given model that was trained stays, where that is allowed, unless a network has a better metric by more than
        chance: few rows decide little. (Of diabetes' 442 rows 35 decided; a network that was better on these by 0.05
        was worse on the test rows by 0.02.) Where nothing is asked for, it also stays unless another is surely as good
        (``_no_worse``).
        """
        if state.search.phase == REFIT:
            return state.branches[0]
        chosen = self._chosen(state)
        branch = read_branch(self.run.branches / chosen.file)
        is_told = self.has_accuracy or self.settings.target_accuracy is not None
        if self.settings.has_no_wish:
            is_good = self.good_enough(state)
            is_told = is_good is not None and is_good(chosen)
        if not branch.number or is_told or not self.is_trained:
            return branch
        if not self.is_allowed(self.given_branch):
            return branch
        return branch if is_better(self._scores(chosen), self._given_scores) else self.given_branch

    def _chosen(self, state: State) -> Entry:
        settings = self.settings
        is_good = self.good_enough(state) if settings.has_no_wish or settings.lose is not None else None
        return choose(state.front, settings, self.given, is_good)

    def leading(self, state: State) -> float:
        """The best accuracy within the limits, by more than chance or not."""
        return choose(state.front, self.settings, self.given).accuracy

    def _scores(self, entry: Entry) -> Array:
        if entry.digest not in self._scored:
            network = read_branch(self.run.branches / entry.file).network
            self._scored[entry.digest] = row_scores(network, self.engine, self.validation)
        return self._scored[entry.digest]

    @cached_property
    def _given_scores(self) -> Array:
        return row_scores(self.given_branch.network, self.engine, self.validation)

    def job_options(self, state: State) -> dict[str, Any]:
        """Options by which nothing is dropped out unasked where the given network was trained."""
        return {"is_trained": self.is_trained}

    # Time.

    def train_all(self, state: State, jobs: Iterable[Job]) -> list[tuple[Job, JobResult]]:
        """Do the jobs as every search does; a job that is done alone gives the pace."""
        performed = super().train_all(state, jobs)
        if len(performed) == 1:
            ((job, done),) = performed
            epochs = done.steps / self.batches_per_epoch
            self.pace.note(job.branch.network.parameter_count, epochs, done.seconds)
        return performed

    def probe(self, state: State) -> bool:
        """Where time is limited, measure the pace before anything is trained, by some steps on a copy.

        Returns:
            Whether there is time for an epoch.
        """
        if self.settings.time_limit is None or self.pace.is_known:
            return True
        branch, (start, _) = state.branches[0], self.window(state, 0)
        steps = min(PROBE, self.batches_per_epoch)
        parameters = branch.network.parameter_count
        job = Job(
            branch,
            start,
            start + steps,
            TRAINED,
            branch.accuracy,
            parameters,
            is_trained=self.is_trained,
            uses_made=False,
        )
        done = self.tried(job)
        self.pace.note(parameters, done.steps / self.batches_per_epoch, done.training_seconds)
        return self.has_epoch(state)

    def tried(self, job: Job) -> JobResult:
        """The result of a job that is done here and now, on a copy that nobody keeps."""
        with tempfile.TemporaryDirectory(prefix="onnxsurgeon-") as folder:
            return train_branch(job, self.context, Path(folder))

    def _is_over(self, state: State) -> bool:
        return super()._is_over(state) or not self.has_epoch(state)

    def has_epoch(self, state: State) -> bool:
        """Whether there is time to train for another epoch, or no telling yet."""
        if self.settings.time_limit is None:
            return True
        seconds = max(0.0, self.deadline - self.elapsed(state)) / self._turns(state)
        return self.pace.epochs(state.branches[0].network.parameter_count, seconds) >= 1

    def left(self, state: State) -> int:
        """Number of epochs that the network is still trained: those of the run, or fewer in the time that is left."""
        settings, parameters = self.settings, state.branches[0].network.parameter_count
        left = settings.epochs - state.epoch
        if settings.time_limit is None:
            return left
        seconds = max(0.0, self.deadline - self.elapsed(state)) / self._turns(state)
        return max(1, int(min(left, self.pace.epochs(parameters, seconds))))

    def look_back(self, state: State, share: float = 1.0) -> None:
        """Note the pace of the last part of a cycle with its checkpoint; keep within ``share`` of the time."""
        search, branch = state.search, state.branches[0]
        now, parameters = self.elapsed(state), branch.network.parameter_count
        if self._mark is not None:
            epoch, seconds = self._mark
            self.pace.note(parameters, state.epoch - epoch, (now - seconds) / self._turns(state))
        self._mark = (state.epoch, now)
        if self.settings.time_limit is None or state.epoch >= search.end:
            return
        seconds = (share * self.deadline - now) / self._turns(state)
        left = max(1, int(min(search.end, self.pace.epochs(parameters, seconds))))
        state.search = replace(search, end=min(search.end, state.epoch + left))

    def _turns(self, state: State) -> int:
        """Number of networks that each worker trains one after the other."""
        return -(-len(state.branches) // self.workers.count)

    # Cycles.

    def cycle(self, state: State) -> tuple[int, int]:
        """Positions where the learning rate's course begins and ends."""
        per_epoch = self.batches_per_epoch
        return state.search.begin * per_epoch, state.search.end * per_epoch

    def go_on(self, state: State) -> tuple[list[Branch], int]:
        """Train the next part of a cycle."""
        epochs = min(SEGMENT, state.search.end - state.epoch)
        return self.train_on(state, state.branches, epochs, what="the network", cycle=self.cycle(state)), epochs

    def next_cycle(self, state: State) -> Cycle | None:
        """The next cycle of shrinking; where the network has lost too much, it goes on from the last one that had not.

        None: the smallest network is found.
        """
        settings, (branch,) = self.settings, state.branches
        most, have = self.most(branch), branch.network.parameter_count
        if most is not None and have > most:
            return to_the_limit(settings, self.left(state), have, have / max(1, most), is_last=not self.is_walk)
        is_good = None if settings.objective == "pareto" else self.good_enough(state)
        if is_good is not None and not is_good(self.entry_of(branch)):
            state.branches = [branch] = [self.result(state)]
            have = branch.network.parameter_count
            if not is_good(self.entry_of(branch)):  # none is accurate enough yet, and smaller ones will not be
                return Cycle(self.left(state), have)
            state.search = replace(state.search, halvings=state.search.halvings + 1)
        floor, halvings = self.floor(state), state.search.halvings
        cycle = along_the_front(settings, self.left(state), have, floor, 0.5**halvings)
        return None if halvings and cycle.most > FINEST * have else cycle

    def floor(self, state: State) -> int:
        """Number of parameters below which no network is looked for, unless a limit asks for it."""
        return max(1, min(self.given.parameters, int(state.search.top * SMALLEST)))

    # Networks that are measured as they are.

    def untrained(self, state: State, candidate: Candidate, parent: Branch) -> Branch | None:
        """The candidate made of ``parent``, measured without training and entered into the front.

        None: it cannot be made.
        """
        for _, _, branch in self.operated(state, [candidate], parents=[parent]):
            metrics = self.engine.evaluate(branch.network, self.validation)
            position, epoch = self.window(state, 0)[0], float(state.epoch)
            measurement = Measurement(position, epoch, RECUPERATED, metrics.accuracy, metrics.loss)
            trained = tuple(each for each in branch.history if each.stage == TRAINED)  # of the others one is enough
            branch = replace(branch, history=trained)
            made = branch.measured(branch.network, branch.state, measurement, -metrics.loss)
            write_branch(made, self.run.branches)
            self.tell_measured(made, parent.accuracy)
            self.measured(made, state)
            return made
        return None

    def conclude(self, state: State) -> None:
        """As a last resort, bring the network within the limits without training."""
        if any(map(self.limits.admits, state.front)):
            return
        branch = read_branch(self.run.branches / self._chosen(state).file)
        while not any(map(self.limits.admits, state.front)):
            most, have = self.most(branch), branch.network.parameter_count
            if most is None:
                return
            moments = calibrate(branch.network, self.train, self.sample)
            most = min(most, have - 1)
            candidate = shrinkage(branch.network, moments, most, branch.number, self.limits.bounds)
            made = None if candidate is None else self.untrained(state, candidate, branch)
            if made is None or made.network.parameter_count >= have:
                return
            self.decide(state, [made], state.epoch)
            branch = made  # and not the one nearest to the limit: a smaller network need not be faster
