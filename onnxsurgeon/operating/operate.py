"""A surgery on a model in any form that a caller has; the moments that it needs are computed from rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.data.given import DataSource, as_dataset
from onnxsurgeon.data.options import InputOptions, input_options
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.opening import ModelSource, open_model
from onnxsurgeon.operating.measure import with_measured_prediction
from onnxsurgeon.operating.perform import draw_sample, moments_for
from onnxsurgeon.randomness import generator
from onnxsurgeon.surgery.base import Surgery, parse
from onnxsurgeon.surgery.operated import Operated
from onnxsurgeon.surgery.operated import operate as operate_on
from onnxsurgeon.typed import kind_of


def operate(
    model: ModelSource,
    surgery: Surgery | str,
    rng: np.random.Generator | None = None,
    *,
    moments: Moments | None = None,
    require_exact: bool = False,
    data: DataSource | None = None,
    options: InputOptions | None = None,
    target: str | Sequence[str] = (),
    impute: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Operated:
    """Perform a surgery on a model and prove the result.

    The result passes onnx.checker and shape inference; where the surgery claims to be exact, the outputs on random
    inputs agree with those before within a small tolerance of their scale.

    Args:
        model: an ONNX model: a path, bytes, an ``onnx.ModelProto`` or a ``Network``.
        surgery: such as ``Widen(1, 8)``, or as a text, "widen:1:8".
        rng: generator of random values; by default made of ``seed``.
        moments: moments of the network on a calibration sample, which a data-aware surgery needs; or give ``data``.
        require_exact: whether to refuse a surgery that changes the function.
        data: rows, as ``evolve`` takes them: moments, and gradients where they are needed, are those of 4,096 training
            rows.
        options: how rows become the model's input.
        target: columns of a table to predict.
        impute: what fills a table's missing values.
        data_dir: where a named data set's files lie.
        seed: seed of the sample, and of random values.

    Raises:
        SurgeryError: it cannot be done; it is not exact though ``require_exact`` is set; or the proof fails.
        OnnxSurgeonError: the model or the rows cannot be used.
    """
    if isinstance(surgery, str):
        surgery = parse(surgery)
    elif not isinstance(surgery, Surgery):
        raise SurgeryError(
            f"surgery: expected one such as Widen(1, 8), or 'widen:1:8'; found {kind_of(surgery)}", "unknown-surgery"
        )
    network = open_model(model).network
    sample = None
    if data is not None and moments is None and surgery.needs:
        folder = None if data_dir is None else Path(data_dir)
        dataset = as_dataset(data, target=target, impute=impute, folder=folder, networks=(network,))
        sample = draw_sample(network, dataset, input_options(options), seed=seed).calibration
        moments = moments_for(surgery, network, sample, np.arange(sample.rows))
    rng = generator(seed, "operate", 0) if rng is None and data is not None else rng
    operated = operate_on(network, surgery, rng, moments=moments, require_exact=require_exact)
    return operated if sample is None else with_measured_prediction(network, surgery, operated, sample)
