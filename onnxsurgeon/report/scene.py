"""What the pictures of a run need besides its history."""

from __future__ import annotations

import math
from dataclasses import replace

from onnxsurgeon.recommend import Thresholds
from onnxsurgeon.report.invocation import Invocation
from onnxsurgeon.report.known import CLASS_NAMES, PAPER
from onnxsurgeon.report.pictures.style import Scene
from onnxsurgeon.runs.family import History
from onnxsurgeon.runs.predictions import Classes, Predictions


def make_scene(history: History, invocation: Invocation) -> Scene:
    """Join the history with the words and figures that belong to it."""
    split = "test" if invocation.value("decide_by") == "test" else "held-out"
    given = history.members.get(0)
    predictions = history.finish.predictions if history.finish else ()
    return Scene(
        history,
        f"{split} {invocation.metric}",
        Thresholds(_number(invocation, "singular_relative"), _number(invocation, "singular_absolute")),
        PAPER.get((invocation.data, given.topology)) if given else None,
        tuple(_named(each, CLASS_NAMES.get(invocation.data, ())) for each in predictions),
        truth="teacher" if invocation.imitates else "true",
        shows_spectra=invocation.is_by_singular_values,
    )


def _named(predictions: Predictions, names: tuple[str, ...]) -> Predictions:
    """The predictions with the names of a public data set's classes, where its files have none."""
    if isinstance(predictions, Classes) and not predictions.names and predictions.count == len(names):
        return replace(predictions, names=names)
    return predictions


def _number(invocation: Invocation, name: str) -> float:
    """A setting that is a number, or its usual value where it is none."""
    value = invocation.value(name)
    usual = {"singular_relative": Thresholds.relative, "singular_absolute": Thresholds.absolute}
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else usual[name]
