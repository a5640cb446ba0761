"""What onnxsim makes of a network at a size: its calibrated structured pruning, and its recovery by least squares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from measuring.models import Array, input_name
from onnxsurgeon import load

BATCHES, BATCH = 8, 64
HALVINGS = 12  # of the sparsity, until the size is met


def prune_by_onnxsim(given: Path, pixels: Array, most: int, out: Path, *, recovers: bool) -> None:
    """Prune the file ``given`` to ``most`` parameters, recover it or not, and write it to ``out``.

    Args:
        given: the model.
        pixels: rows as it takes them; the first ``BATCHES`` · ``BATCH`` calibrate.
        most: parameters of the layers.
        out: the path to be written.
        recovers: whether ``apply_pruning_finetune`` follows, with the rows.

    Raises:
        SystemExit: no sparsity meets the size.
    """
    import onnxsim

    name = input_name(given)
    rows = [{name: np.ascontiguousarray(part)} for part in np.split(pixels[: BATCHES * BATCH], BATCHES)]
    model, low, high = onnx.load(given), 0.0, 1.0
    found = None
    for _ in range(HALVINGS):
        sparsity = (low + high) / 2
        made = onnxsim.apply_structured_wanda_pruning_cpp(model, calibration_data=rows, sparsity=sparsity)
        onnx.save(made, out)
        if load(out).parameter_count <= most:
            high, found = sparsity, made
        else:
            low = sparsity
    if found is None:
        raise SystemExit(f"{given}: onnxsim's pruning does not come down to {most:,} parameters")
    if recovers:
        found = onnxsim.apply_pruning_finetune(model, found, calibration_data=rows)
    onnx.save(found, out)
