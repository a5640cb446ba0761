"""One pass over a sample of the data: the moments of every dense layer's input, summed inside an ONNX graph.

The sums are the state of a Scan over tiles of rows. Products are taken and summed in float64: a covariance is then as
exact as the float32 activations it is of, and dependence between units that is exact can be told from such as is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx

from onnxsurgeon.calibration.moments import Moment, Moments, Place
from onnxsurgeon.calibration.patches import patches_of, why_none
from onnxsurgeon.calibration.scan import Sum, append_sums, scan_model, totals_of
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.sampling import sample_rows
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.layers import DenseChain
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import forward
from onnxsurgeon.training.resident import read_features
from onnxsurgeon.training.trace import LayerTrace, Trace

# Widest input that a covariance is made of: 134 MB in float64, of which ONNX Runtime holds a few at a time.
WIDEST = 4096
_NO_VARIANCE = 1e-13  # as a fraction of the squared mean


def calibrate(network: Network, examples: Examples, rows: Array | None = None) -> Moments:
    """Moments of what enters every dense layer of ``network``, over ``rows`` of the examples (``sample_rows``).

    Raises:
        EngineError: ONNX Runtime is missing or fails, or a layer's input is not finite.
    """
    rows = sample_rows(examples) if rows is None else rows
    model, sums, factors = calibration_graph(network, examples)
    totals = totals_of(model, sums, network, examples, rows)
    if not all(bool(np.isfinite(total).all()) for total in totals.values()):
        raise EngineError(f"'{network.name}': values inside the network are not finite on the calibration sample")
    return _moments(network, totals, factors)


def calibration_graph(network: Network, examples: Examples) -> tuple[onnx.ModelProto, list[Sum], dict[str, float]]:
    """The graph that sums (``scan_model``), what it sums, and factors that features are still to be multiplied by."""
    build = GraphBuilder(network.dtype)
    features, factors = read_features(build, network, examples)
    trace = forward(build, network, features, factors=factors)
    sums = list(_sums(build, network, trace))
    append_sums(build, sums)
    shapes = [(each.name, each.shape) for each in sums]
    return scan_model("calibration", build, network, examples, sums=shapes), sums, factors


def _sums(build: GraphBuilder, network: Network, trace: Trace) -> Iterator[Sum]:
    for number, segment in enumerate(network.segments):
        traces, widths = trace.layers[number], segment.widths
        if segment.is_convolution:
            yield from _of_patches(build, segment, traces, number)
            continue
        yield Sum(f"rows_{number}", (1,), (traces[0].x,), is_count=True)
        for position, (at, n) in enumerate(zip(traces, widths, strict=False)):
            if n > WIDEST:
                continue
            base = f"{number}_{position}"
            yield Sum(f"sum_{base}", (n,), (at.x,))
            yield Sum(f"gram_{base}", (n, n), (at.x, at.x))
            if at is not traces[-1] and widths[position + 1] <= WIDEST:
                yield Sum(f"cross_{base}", (n, widths[position + 1]), (at.x, at.y))


def _of_patches(build: GraphBuilder, segment: DenseChain, traces: Sequence[LayerTrace], number: int) -> Iterator[Sum]:
    for position, (layer, at) in enumerate(zip(segment.layers, traces, strict=True)):
        if why_none(layer, at.space, WIDEST):
            continue
        base, x = f"{number}_{position}", patches_of(build, layer, at.x, at.space)
        yield Sum(f"rows_{base}", (1,), (x,), is_count=True)
        yield Sum(f"sum_{base}", (layer.inputs,), (x,))
        yield Sum(f"gram_{base}", (layer.inputs, layer.inputs), (x, x))


def _moments(network: Network, totals: dict[str, Array], factors: dict[str, float]) -> Moments:
    rows: dict[int, int] = {}
    inputs: dict[Place, Moment] = {}
    crosses: dict[Place, Array] = {}
    missing: dict[Place, str] = {}
    for number, segment in enumerate(network.segments):
        counts = [total for name, total in totals.items() if f"{name}_".startswith(f"rows_{number}_")]
        rows[number] = min((int(total[0]) for total in counts), default=0)
        spaces = [segment.space, *segment.spaces()]
        for position, layer in enumerate(segment.layers):
            place, base = (number, position), f"{number}_{position}"
            if f"gram_{base}" not in totals:
                space = tuple(size for size in spaces[position] if size is not None)
                missing[place] = why_none(layer, space if len(space) == len(spaces[position]) else None, WIDEST)
                continue
            count = float(totals[f"rows_{base}" if segment.is_convolution else f"rows_{number}"][0])
            # Gemm's alpha, which the factor is left to, is a float32.
            factor = float(np.float32(factors.get(segment.input_name, 1.0))) if position == 0 else 1.0
            mean = totals[f"sum_{base}"] * (factor / count)
            gram = totals.pop(f"gram_{base}")
            gram *= factor**2 / count
            gram -= np.outer(mean, mean)
            gram = (gram + gram.T) / 2
            # What is constant has a variance of rounding alone; below, the activations' own float32 cannot tell.
            constant = np.diag(gram) <= _NO_VARIANCE * mean**2
            gram[constant] = gram[:, constant] = 0
            inputs[place] = Moment(mean, gram)
            if f"cross_{base}" in totals:
                totals[f"cross_{base}"] *= factor / count
        for position in range(segment.hidden_count):
            place, after = (number, position), (number, position + 1)
            if place in inputs and after in inputs and not segment.is_convolution:
                crosses[place] = totals[f"cross_{number}_{position}"]
                crosses[place] -= np.outer(inputs[place].mean, inputs[after].mean)
                crosses[place][np.diag(inputs[place].covariance) == 0] = 0
                crosses[place][:, np.diag(inputs[after].covariance) == 0] = 0
    return Moments(rows, inputs, crosses, missing)
