"""Surgeries one after the other, with moments for those that need them and the error of each on other rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.calibration.gradients import with_gradients
from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.data.dataset import Dataset
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.prepare import prepare, prepare_rows, require_targets
from onnxsurgeon.data.sampling import SAMPLE, sample_rows
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.operating.measure import found_error, with_measured_prediction
from onnxsurgeon.randomness import generator
from onnxsurgeon.surgery.base import Needs, Surgery
from onnxsurgeon.surgery.operated import SurgeryRecord, operate


class Sample(NamedTuple):
    """Training rows for the moments of surgeries, and rows held out of them on which errors are found."""

    calibration: Examples
    held_out: Examples


class Performed(NamedTuple):
    """A surgery's record, and its error on rows held out (``found_error``); None where there are no data."""

    record: SurgeryRecord
    found: float | None


def draw_sample(
    network: Network, dataset: Dataset, options: InputOptions, *, count: int = SAMPLE, seed: int = 0
) -> Sample:
    """Draw at most ``count`` rows of each kind, in the form that ``network`` and all surgeries' results take.

    Raises:
        DataError: the rows do not fit the model, or are too few to hold any out.
    """
    drawn: list[Examples] = []
    tasks = None
    for split, purpose in zip(dataset.hold_out(), ("calibration", "found"), strict=True):
        rows = sample_rows(split, count, seed, purpose)
        if dataset.is_labelled:
            tasks = require_targets(network, dataset, split, options, tasks)  # names a row of the split, not the sample
            drawn.append(prepare(network, dataset, split.take(rows), options, tasks=tasks))
        else:  # most surgeries need no labels
            drawn.append(prepare_rows(network, dataset, split.take(rows), options))
    return Sample(*drawn)


def moments_for(surgery: Surgery, network: Network, examples: Examples, rows: Array) -> Moments | None:
    """The moments of ``network`` that a surgery needs, over ``rows`` of the examples; None where it needs none.

    Raises:
        EngineError: ONNX Runtime is missing or fails, or values or gradients are not finite.
    """
    if surgery.needs == Needs.NOTHING:
        return None
    moments = calibrate(network, examples, rows)
    return moments if surgery.needs == Needs.MOMENTS else with_gradients(moments, network, examples, rows)


def perform(
    network: Network,
    surgeries: Sequence[Surgery],
    sample: Sample | None = None,
    *,
    seed: int = 0,
    require_exact: bool = False,
) -> tuple[Network, list[Performed]]:
    """Perform surgeries in order; the network is calibrated before each one that needs data.

    Raises:
        SurgeryError: one cannot be done, or needs a sample and there is none.
        EngineError: there is a sample, and ONNX Runtime is missing or fails.
    """
    performed = []
    for number, surgery in enumerate(surgeries):
        moments = None
        if sample is not None:
            moments = moments_for(surgery, network, sample.calibration, np.arange(sample.calibration.rows))
        rng = generator(seed, "operate", number)
        operated = operate(network, surgery, rng, moments=moments, require_exact=require_exact)
        found = None
        if sample is not None:
            operated = with_measured_prediction(network, surgery, operated, sample.calibration)
            found = found_error(network, operated, sample.held_out, np.arange(sample.held_out.rows))
        performed.append(Performed(operated.record, found))
        network = operated.network
    return network, performed
