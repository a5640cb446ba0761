"""Optuna's search for networks of several budgets within a time: a TPE sampler and a median pruner for each budget.

Every budget gets an equal share of the time. As many processes as there are cores work on the same study, each with one
thread: networks of these sizes gain little from a second thread, and two trials at once almost twice the epochs. The
first trials of the first study are known to be good, those of the others are the best two of the study before. A trial
that would not end within its study's time is shortened to what does. The best epoch of every trial counts, of pruned
ones as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from threadpoolctl import threadpool_limits

from onnxsurgeon import load_dataset
from searching.networks import Candidate, Layers, Rows, Search, accuracy, chosen_rows, count, within

STARTUP_TRIALS = 5  # random ones before the sampler samples and the pruner prunes
WARM_UP = 3  # epochs that are never pruned
FEWEST_EPOCHS = 2  # must be expected to fit into the time left for a trial to begin


class Trained(Protocol):
    """A network that is trained epoch by epoch; see the classes of torch_mlp.py and sklearn_mlp.py."""

    sizes: tuple[int, ...]
    epochs: int

    def epoch(self) -> None: ...  # noqa: D102
    def layers(self) -> Layers: ...  # noqa: D102


@dataclass(frozen=True)
class Job:
    """One search, as each of its processes is told of it.

    Attributes:
        family: "torch" or "sklearn".
        data: name of the data set.
        seed: of the search.
        seconds: to search for.
        budgets: numbers of parameters, ascending.
        cores: processes.
        folder: what they share.
    """

    family: str
    data: str
    seed: int
    seconds: float
    budgets: tuple[int, ...]
    cores: int
    folder: Path


def search(family: str, data: str, seed: int, seconds: float, budgets: tuple[int, ...], cores: int) -> Search:
    """What all processes found."""
    with TemporaryDirectory() as name:
        job = Job(family, data, seed, seconds, budgets, cores, Path(name))
        with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(work, [job] * cores, range(cores)))
    candidates = [candidate for part in parts for candidate in part.candidates]
    trials, epochs = sum(part.trials for part in parts), sum(part.epochs for part in parts)
    return Search(candidates, trials, epochs, max(part.seconds for part in parts))


def work(job: Job, number: int) -> Search:
    """What process ``number`` found; its time begins when it has loaded everything."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    family = import_module(f"searching.{job.family}_mlp")
    train, validation = chosen_rows(load_dataset(job.data))
    process = Process(family.make, train, validation)
    first: list[dict[str, Any]] = list(family.FIRST)
    # What PyTorch loads when an optimizer is first made takes seconds.
    few = Rows(train.features[:1000], train.labels[:1000])
    process.make(optuna.trial.FixedTrial(first[0]), few, job.budgets[0], 0).epoch()
    start = time.monotonic()
    with threadpool_limits(1):
        for position, budget in enumerate(job.budgets):
            study = make_study(job, budget, seed=1000 * job.seed + 10 * position + number)
            for settings in first[number :: job.cores]:
                study.enqueue_trial(settings)
            process.deadline, process.epoch_seconds = start + job.seconds * (position + 1) / len(job.budgets), 0.0
            while process.deadline - time.monotonic() > FEWEST_EPOCHS * process.epoch_seconds:
                study.optimize(process.objective(budget, job.seed), n_trials=1, catch=(ArithmeticError,))
            trials = [trial for trial in study.get_trials(deepcopy=False) if trial.value is not None]
            first = [trial.params for trial in sorted(trials, key=lambda trial: -trial.value)[:2]] or first
    seconds = time.monotonic() - start
    best = [within(process.candidates, budget) for budget in job.budgets]
    return Search([candidate for candidate in best if candidate], process.trials, process.epochs, seconds)


def make_study(job: Job, budget: int, seed: int) -> Any:
    """The study of a budget, which all processes share."""
    from optuna import create_study
    from optuna.pruners import MedianPruner
    from optuna.samplers import TPESampler
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return create_study(
        study_name=str(budget),
        storage=JournalStorage(JournalFileBackend(str(job.folder / "journal"))),
        sampler=TPESampler(n_startup_trials=STARTUP_TRIALS, seed=seed),
        pruner=MedianPruner(STARTUP_TRIALS, WARM_UP),
        direction="maximize",
        load_if_exists=True,
    )


@dataclass
class Process:
    """Trains what is sampled until a deadline.

    Attributes:
        make: from a trial, training rows, a budget and a seed to a network that has not been trained.
        train: rows to train on.
        validation: rows to choose by.
        deadline: by ``time.monotonic``.
        epoch_seconds: mean of the epochs of the latest trial; 0 where there was none.
        candidates: the best epoch of each trial that was better than all of its size before.
        trials: begun.
        epochs: trained.
    """

    make: Callable[[Any, Rows, int, int], Trained]
    train: Rows
    validation: Rows
    deadline: float = 0.0
    epoch_seconds: float = 0.0
    candidates: list[Candidate] = field(default_factory=list)
    trials: int = 0
    epochs: int = 0

    def objective(self, budget: int, seed: int) -> Callable[[Any], float]:
        """What Optuna calls with a trial."""
        return lambda trial: self._run(trial, budget, seed)

    def _run(self, trial: Any, budget: int, seed: int) -> float:
        from optuna import TrialPruned

        network = self.make(trial, self.train, budget, 10_000 * seed + trial.number)
        self.trials += 1
        best, done, wanted, begun = 0.0, 0, network.epochs, time.monotonic()
        while done < network.epochs:
            network.epoch()
            done += 1
            self.epochs += 1
            layers = network.layers()
            value = accuracy(layers, self.validation)
            if value > best:
                best = value
                self._offer(network.sizes, value, {**trial.params, "trained_epochs": done}, layers)
            trial.report(value, done)
            now = time.monotonic()
            self.epoch_seconds = (now - begun) / done
            network.epochs = min(wanted, done + max(0, int((self.deadline - now) / self.epoch_seconds)))
            if done < network.epochs and trial.should_prune():
                raise TrialPruned
        return best

    def _offer(self, sizes: tuple[int, ...], value: float, how: dict[str, Any], layers: Layers) -> None:
        """Keep the network unless one that is not larger is as good."""
        parameters = count(sizes)
        better = within(self.candidates, parameters)
        if better is None or better.validation < value:
            self.candidates.append(Candidate(parameters, "-".join(map(str, sizes)), value, how, layers))
