"""One pass over a sample of the data: the moments of every layer's input, summed inside an ONNX graph.

The sums are the state of a Scan over tiles of rows. Products are taken and summed in float64: a covariance is then as
exact as the float32 activations, and exact dependence between units can be told from approximate dependence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx

from onnxsurgeon.calibration import branches, positions
from onnxsurgeon.calibration.moments import Moment, Moments, Place
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
from onnxsurgeon.training.taps import geometry_of
from onnxsurgeon.training.trace import LayerTrace, Trace

# The widest input with a covariance: 134 MB in float64, of which ONNX Runtime holds a few at a time.
WIDEST = 4096
_NO_VARIANCE = 1e-13  # as a fraction of the squared mean
# The power in which a sum contains the input of a segment's first layer.
_POWERS = {"sum": 1, "gram": 2, "cross": 1, "gradient": 1}


def calibrate(network: Network, examples: Examples, rows: Array | None = None) -> Moments:
    """Moments of the input of every layer of ``network``, over ``rows`` of the examples (``sample_rows``).

    Raises:
        EngineError: ONNX Runtime is missing or fails, or a layer's input is not finite.
    """
    rows = sample_rows(examples) if rows is None else rows
    model, sums, factors = calibration_graph(network, examples, len(rows))
    totals = totals_of(model, sums, network, examples, rows)
    if not all(bool(np.isfinite(total).all()) for total in totals.values()):
        raise EngineError(
            f"'{network.name}': values inside the network are not finite on the calibration sample", "not-finite-inside"
        )
    return _moments(network, totals, factors)


def calibration_graph(
    network: Network, examples: Examples, rows: int
) -> tuple[onnx.ModelProto, list[Sum], dict[str, float]]:
    """The graph that sums (``scan_model``), its sums, and factors by which features are still to be multiplied.

    ``rows`` is the number of rows over which it will run.
    """
    build = GraphBuilder(network.dtype)
    features, factors = read_features(build, network, examples)
    trace = forward(build, network, features, factors=factors)
    sums = [*_sums(build, network, trace, rows), *branches.sums(build, network, trace)]
    append_sums(build, sums)
    shapes = [(each.name, each.shape) for each in sums]
    return scan_model("calibration", build, network, examples, sums=shapes), sums, factors


def _sums(build: GraphBuilder, network: Network, trace: Trace, rows: int) -> Iterator[Sum]:
    for number, segment in enumerate(network.segments):
        traces = trace.layers[number]
        if segment.is_convolution:
            yield from _sums_of_patches(build, segment, traces, number, rows)
            continue
        widths = segment.widths
        yield Sum(f"rows_{number}", (1,), (traces[0].x,), is_count=True)
        for position, (at, n) in enumerate(zip(traces, widths, strict=False)):
            if n > WIDEST:
                continue
            base = f"{number}_{position}"
            yield Sum(f"sum_{base}", (n,), (at.x,))
            yield Sum(f"gram_{base}", (n, n), (at.x, at.x))
            if at is not traces[-1] and widths[position + 1] <= WIDEST:
                yield Sum(f"cross_{base}", (n, widths[position + 1]), (at.x, at.y))


def _sums_of_patches(
    build: GraphBuilder, segment: DenseChain, traces: Sequence[LayerTrace], number: int, rows: int
) -> Iterator[Sum]:
    """The sums of convolutions, whose rows are patches at some positions."""
    for position, (layer, at) in enumerate(zip(segment.layers, traces, strict=True)):
        geometry, base = geometry_of(layer), f"{number}_{position}"
        if _why_without(segment, position):
            continue
        assert at.space is not None
        places = positions.drawn(rows, tuple(size or 0 for size in geometry.sizes_behind(at.space)))
        read = positions.patches(build, at.x, geometry, layer.channels, at.space, places)
        yield Sum(f"rows_{base}", (1,), (read,), is_count=True)
        yield Sum(f"sum_{base}", (layer.inputs,), (read,))
        yield Sum(f"gram_{base}", (layer.inputs, layer.inputs), (read, read))
        if at is not traces[-1]:
            written = positions.values(build, at.y, layer.units, places)
            yield Sum(f"mean_{base}", (layer.units,), (written,))
            yield Sum(f"cross_{base}", (layer.inputs, layer.units), (read, written))


def entering_factor(network: Network, number: int, factors: Mapping[str, float]) -> float:
    """The factor by which the sums of a segment's input are still to be multiplied; see ``pool``.

    The factor is left to Gemm's alpha, which is a float32.
    """
    first = network.segments[network.tied.get(number, number)]
    return float(np.float32(factors.get(first.input_name, 1.0)))


def pool(network: Network, totals: dict[str, Array], factors: Mapping[str, float]) -> None:
    """Give segments that have the same weights the sums over all their applications.

    Args:
        network: the network of the segments.
        totals: sums by KIND_SEGMENT or KIND_SEGMENT_POSITION; the first of such segments has the sums, and the others
            get the same arrays.
        factors: factors by which features are still to be multiplied; the sums have the first segment's.
    """
    for number, first in network.tied.items():
        entered = (network.segments[each].input_name for each in (number, first))
        own, other = (float(np.float32(factors.get(name, 1.0))) for name in entered)
        for name in [each for each in totals if each.split("_")[1] == str(first)]:
            kind, _, *position = name.split("_")
            again = "_".join([kind, str(number), *position])
            if again in totals:
                scale = (own / other) ** _POWERS.get(kind, 0) if position == ["0"] else 1.0
                totals[name] = totals[name] + scale * totals[again]
    for number, first in network.tied.items():
        for name in [each for each in totals if each.split("_")[1] == str(first)]:
            kind, _, *position = name.split("_")
            again = "_".join([kind, str(number), *position])
            if again in totals:
                totals[again] = totals[name].copy()


def _why_without(segment: DenseChain, position: int) -> str:
    """Why there are no moments of a layer's input; "" where there are."""
    layer = segment.layers[position]
    if layer.inputs > WIDEST:
        return f"its {layer.inputs:,} inputs are more than the {WIDEST:,} that covariances are made of"
    if layer.geometry is not None and layer.geometry.is_grouped:
        return f"its units read {layer.geometry.groups} groups of channels"
    space = [segment.space, *segment.spaces()][position]
    if layer.geometry is not None and (not space or None in space):
        return "the size of what it reads is not known"
    return ""


def _moments(network: Network, totals: dict[str, Array], factors: dict[str, float]) -> Moments:
    rows: dict[int, int] = {}
    inputs: dict[Place, Moment] = {}
    crosses: dict[Place, Array] = {}
    missing: dict[Place, str] = {}
    pool(network, totals, factors)
    for number, segment in enumerate(network.segments):
        counts = {name: float(total[0]) for name, total in totals.items() if name.startswith(f"rows_{number}_")}
        rows[number] = int(min(counts.values(), default=0) if segment.is_convolution else totals[f"rows_{number}"][0])
        for position in range(len(segment.layers)):
            place, base = (number, position), f"{number}_{position}"
            if reason := _why_without(segment, position):
                missing[place] = reason
                continue
            count = counts.get(f"rows_{base}", float(rows[number]))
            factor = entering_factor(network, number, factors) if position == 0 else 1.0
            mean = totals[f"sum_{base}"] * (factor / count)
            gram = totals.pop(f"gram_{base}")
            gram *= factor**2 / count
            gram -= np.outer(mean, mean)
            gram = (gram + gram.T) / 2
            # A constant input has only a variance of rounding; below this, the activations' float32 cannot tell.
            constant = np.diag(gram) <= _NO_VARIANCE * mean**2
            gram[constant] = gram[:, constant] = 0
            inputs[place] = Moment(mean, gram)
            if f"cross_{base}" in totals:
                totals[f"cross_{base}"] *= factor / count
        for position in range(segment.hidden_count):
            place, after = (number, position), (number, position + 1)
            if segment.is_convolution and place in inputs:
                mean = totals[f"mean_{number}_{position}"] / counts[f"rows_{number}_{position}"]
                crosses[place] = totals[f"cross_{number}_{position}"] - np.outer(inputs[place].mean, mean)
                crosses[place][np.diag(inputs[place].covariance) == 0] = 0
            elif place in inputs and after in inputs:
                crosses[place] = totals[f"cross_{number}_{position}"]
                crosses[place] -= np.outer(inputs[place].mean, inputs[after].mean)
                crosses[place][np.diag(inputs[place].covariance) == 0] = 0
                crosses[place][:, np.diag(inputs[after].covariance) == 0] = 0
    return Moments(rows, inputs, crosses, missing, branches.moments(network, totals))
