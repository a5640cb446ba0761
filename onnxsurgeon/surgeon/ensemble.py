"""Several copies of a network that are trained apart and joined; and once more, on all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxsurgeon.errors import SettingsError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.runs.branch import TRAINED, Branch, file_of, read_branch, write_branch
from onnxsurgeon.runs.checkpoint import State
from onnxsurgeon.surgeon.jobs import Job
from onnxsurgeon.surgeon.search import Surgeon
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.surgery import spell
from onnxsurgeon.surgery.join import Join, join, reason_against


def require_ensemble(network: Network, settings: SurgeonSettings) -> None:
    """Raise SettingsError where several networks are asked for, and copies of this one cannot be joined.

    A network without a hidden layer passes, since it may get one.
    """
    reason = reason_against([network])
    if settings.ensemble is not None and settings.ensemble > 1 and reason and network.hidden_count:
        raise SettingsError(f"ensemble: '{network.name}' cannot be one of several: it has {reason}", "ensemble")


def joined(
    surgeon: Surgeon, state: State, members: Sequence[Branch], *, replaces: bool, refits: bool = False
) -> Branch:
    """The members as one branch, a child of the most accurate; measured, its file written.

    Where only accuracy counts, it takes their places in the front (``replaces``): the most accurate of several
    checkpoints of several members is ahead of the others by luck. Members that were also trained on the rows that
    decide (``refits``) leave no rows to measure on.
    """
    if len(members) == 1:
        return members[0]
    parent = max(members, key=lambda branch: (branch.accuracy, -branch.number))
    if replaces:
        same = parent.network.topology
        state.front = [entry for entry in state.front if entry.topology != same or not entry.branch]
    network, rounding = join([branch.network for branch in members]).as_stored()
    surgery = spell(Join(len(members)))
    reason = f"the mean of branches {', '.join(str(branch.number) for branch in members)}"
    number = surgeon.propose(state, parent, surgery, network.parameter_count, reason)
    measurement = replace(parent.history[-1], rounding=rounding)
    if not refits:
        metrics = surgeon.engine.evaluate(network, surgeon.validation)
        measurement = replace(measurement, accuracy=metrics.accuracy, loss=metrics.loss)
    branch = Branch(number, parent.number, surgery, network, (*parent.lineage, surgery), parent.history)
    branch = branch.measured(network, None, measurement, -measurement.loss)
    write_branch(branch, surgeon.run.branches)
    surgeon.tell_measured(branch, parent.accuracy)
    if replaces and not refits:
        surgeon.measured(branch, state)  # at once, since there may be no other entry left
    return branch


def refitted(surgeon: Surgeon, state: State, settled: Branch, count: int) -> Branch:
    """Settle ``count`` copies once more on all rows, from the state in which settling began, and join them.

    They are trained for as long as ``settled`` was, which may be less than a cycle: where rows are few, a network can
    get worse while it settles. No row is left to measure the result, so it has the figures of ``settled``, by which
    that was chosen. Where the training of every copy diverges, ``settled`` is returned.
    """
    root = read_branch(file_of(surgeon.run.branches, state.search.root))
    per_epoch = surgeon.context.whole_schedule.batches_per_epoch
    cycle = state.search.begin * per_epoch, state.search.end * per_epoch
    stop = round(settled.history[-1].epoch * per_epoch)
    jobs = []
    for member in range(count):
        number = state.new_number()
        copy = replace(
            root, number=number, parent=settled.number, surgery="refit", history=settled.history, score=settled.score
        )
        parameters = root.network.parameter_count
        jobs.append(Job(copy, cycle[0], stop, TRAINED, settled.accuracy, parameters, cycle, member, refits=True))
    trained = [done.branch for _, done in surgeon.train_all(state, jobs)]
    return joined(surgeon, state, trained, replaces=True, refits=True) if trained else settled
