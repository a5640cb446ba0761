"""The end of a run: its result is measured beside the given model, and remarks are made."""

from __future__ import annotations

from dataclasses import replace

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.graph.external import size_on_disk
from onnxsurgeon.runs.branch import Branch, given_file, read_branch
from onnxsurgeon.runs.checkpoint import REFIT, State, require_unchanged
from onnxsurgeon.runs.entry import Entry
from onnxsurgeon.runs.footprint import Footprint
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.surgeon.computed import asked_of
from onnxsurgeon.surgeon.latency import latencies_of
from onnxsurgeon.surgeon.objective import Given, Limits, shortfall
from onnxsurgeon.surgeon.remarks import Outcome, remarks
from onnxsurgeon.surgeon.result import Evolved
from onnxsurgeon.surgeon.search import Surgeon
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.surgeon.significance import is_better, with_row_scores
from onnxsurgeon.task import Predicted
from onnxsurgeon.training.predictions import watchers

ITSELF = 0.9999  # agreement or fidelity from which on the given model is the teacher: all others are worse than that


def ended(
    surgeon: Surgeon, state: State, test_rows: Examples, classes: tuple[tuple[str, ...], ...]
) -> tuple[Evolved, list[Predicted]]:
    """The outcome of the run, and for each head the result's predictions on the test rows, as plain values.

    ``classes`` are the names of each head's classes. RUN/front is written where the front is the objective.
    """
    watch = watchers(test_rows.tasks, test_rows.rows, classes)
    given = read_branch(given_file(surgeon.run.branches))
    test, scores = with_row_scores(state.best.network, surgeon.engine, test_rows, watch)
    start, start_scores = with_row_scores(given.network, surgeon.engine, test_rows)
    is_teacher = start.accuracy >= ITSELF and any(task.imitates for task in test_rows.tasks)
    is_worse = not is_teacher and is_better(start_scores, scores)
    found = _write_front(surgeon, state)
    chosen = next((entry for entry in state.front if entry.branch == state.best.number), None)
    before, after = _footprints(surgeon.run, given, state.best, surgeon.settings)
    missed = "" if chosen is None else shortfall(chosen, surgeon.settings, _relative(given))
    outcome = Outcome(
        surgeon.settings,
        is_given=state.best.number == given.number,
        is_trained=not is_teacher and surgeon.is_trained,
        is_worse=is_worse,
        is_held_out=surgeon.is_held_out,
        rows=surgeon.validation.rows,
        test_rows=test_rows.rows,
        metric=test.metric,
        before=start.accuracy,
        after=test.accuracy,
        is_teacher=is_teacher,
        shortfall=missed,
        notes=given.network.frame.notes,
    )
    evolved = Evolved(
        state.best,
        surgeon.run.path,
        state.best.accuracy,
        test,
        start,
        state.steps,
        state.seconds,
        state.training_seconds,
        before,
        after,
        written_front=found,
        shortfall=missed,
        is_refitted=state.search.phase == REFIT,
        is_worse=is_worse,
        remarks=remarks(outcome),
    )
    return evolved, [each.record() for each in watch]


def _relative(given: Branch) -> Given:
    """The values to which some wishes are relative."""
    return Given(given.network.parameter_count, given.accuracy)


def _footprints(
    run: RunDirectory, given: Branch, best: Branch, settings: SurgeonSettings
) -> tuple[Footprint, Footprint]:
    """The costs of the given model and of the result; the size is that of the given file."""
    path = run.branches / given.file_name
    known = run.read_settings().get("model", {})
    size = known.get("size") if isinstance(known, dict) else None
    if not isinstance(size, int):  # runs recorded before sizes were told lack it
        size = size_on_disk(path)
    latencies = latencies_of([path] if given.number == best.number else [path, run.best])
    before = Footprint(given.network.parameter_count, size, latencies[0], **asked_of(given.network, settings))
    count, size = best.network.parameter_count, size_on_disk(run.best)
    return before, Footprint(count, size, latencies[-1], **asked_of(best.network, settings))


def _write_front(surgeon: Surgeon, state: State) -> tuple[Entry, ...]:
    """The front within the limits, written to RUN/front; empty where it is not the objective."""
    if surgeon.settings.objective != "pareto":
        return ()
    limits = Limits.of(surgeon.settings, _relative(read_branch(given_file(surgeon.run.branches))))
    names: dict[str, str] = {}
    found = []
    for entry in filter(limits.admits, state.front):
        require_unchanged(surgeon.run.branches / entry.file, entry.digest)
        name = f"{entry.parameters}.onnx"
        names[entry.file] = name if name not in names.values() else f"{entry.parameters}-{entry.branch}.onnx"
        found.append(replace(entry, file=f"front/{names[entry.file]}"))
    surgeon.run.write_front(names)
    return tuple(found)
