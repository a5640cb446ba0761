"""Batch normalisation while a network is trained, folded into its weights wherever else it is looked at.

Ioffe and Szegedy (ICML 2015): between z = x W and the activation, u = γ (z − μ) / √(σ² + ε) + β, with mean and variance
of the batch itself. Files hold plain layers, W s and β − s μ with s = γ / √(σ² + ε), μ and σ² being running means. A
plain network is taken apart by the moments of z on a sample: γ = s √(σ² + ε) and β = b + E[z] change nothing. Only s
is not to be read off a plain layer. It says how long W is, and W's length how far a step turns it; so the optimizer's
state remembers s from call to call. After a surgery it is 1.

784-119-119-10 on Fashion-MNIST, 30 epochs of adamw along a cosine, a tenth of the inputs left out, accuracy on the rows
held out: TABLE
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import onnx

from onnxsurgeon.calibration.calibrate import sample_rows
from onnxsurgeon.calibration.moments import Place
from onnxsurgeon.calibration.scan import Sum, append_sums, scan_model, totals_of
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import forward
from onnxsurgeon.training.optimizers import Gradient, StoredGradient, updated
from onnxsurgeon.training.resident import read_features

EPSILON = 1e-5
FORGETTING = 0.02  # share of a batch in the running means
CARRIED = 3  # arrays that ``names_of`` names for each layer
SCALARS = ("forgetting", "unbiased")  # of each step
_VANISHED = 1e-4  # |s| below which a unit begins anew: W s would not tell W


class Normalised(NamedTuple):
    """Names of what a layer's forward pass leaves to the backward one."""

    centred: str
    inverse: str
    factor: str
    scale: str
    bias: str


def normalised_layers(network: Network) -> list[Place]:
    """The layers that can be normalised: hidden ones with a bias, in segments of two axes."""
    return [
        (number, position)
        for number, segment in enumerate(network.segments)
        for position, layer in enumerate(segment.layers[:-1])
        if segment.rank == 2 and layer.bias is not None
    ]


def names_of(count: int) -> list[str]:
    """Names of γ, mean and variance of each of so many layers, in the order in which they are carried."""
    return [f"{what}_{number}" for number in range(count) for what in ("scale", "mean", "variance")]


class BatchNorm:
    """The nodes of normalisation in one training step under construction."""

    def __init__(self, build: GraphBuilder, places: Sequence[Place]) -> None:
        self._build = build
        self._numbers = {place: number for number, place in enumerate(places)}
        self._share = ""

    def __contains__(self, place: Place) -> bool:
        return place in self._numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def forward(self, place: Place, z: str, bias: str) -> tuple[str, Normalised]:
        """Append u of z (units, batch), and the running means' next values; return u's name, and what it leaves."""
        build, number = self._build, self._numbers[place]
        scale, mean, variance = names_of(number + 1)[-3:]
        of_batch = build.add("ReduceMean", z, axes=[1], keepdims=1)
        centred = build.add("Sub", z, of_batch)
        square = build.add("ReduceMean", build.add("Mul", centred, centred), axes=[1], keepdims=1)
        inverse = build.add("Reciprocal", build.add("Sqrt", build.add("Add", square, build.scalar(EPSILON))))
        factor = build.add("Mul", scale, inverse)
        u = build.add("Add", build.add("Mul", centred, factor), bias)
        for running, found, unbiased in ((mean, of_batch, ""), (variance, square, "unbiased")):
            whole = build.add("Mul", found, unbiased) if unbiased else found
            step = build.add("Mul", build.add("Sub", whole, running), "forgetting")
            build.add("Add", running, step, output=updated(running))
        return u, Normalised(centred, inverse, factor, scale, bias)

    def backward(self, at: Normalised, delta: str, update: Callable[[str, Gradient], None]) -> str:
        """Append the gradients of β and γ, and return the name of ∂L/∂z.

        ∂L/∂β = Σ δ, ∂L/∂γ = Σ δ ẑ and ∂L/∂z = γ/√(σ² + ε) · (δ − mean δ − ẑ mean(δ ẑ)), ẑ being u before γ and β.
        """
        build = self._build
        if not self._share:  # 1/B
            self._share = build.add("Reciprocal", build.add("ReduceSum", "ones", keepdims=1))
        total = build.add("ReduceSum", delta, build.axes(1), keepdims=1)
        along = build.add("ReduceSum", build.add("Mul", delta, at.centred), build.axes(1), keepdims=1)
        by_scale = build.add("Mul", along, at.inverse)
        update(at.bias, StoredGradient(total))
        update(at.scale, StoredGradient(by_scale))
        mean = build.add("Mul", total, self._share)
        tilt = build.add("Mul", build.add("Mul", by_scale, at.inverse), self._share)
        without = build.add("Sub", build.add("Sub", delta, mean), build.add("Mul", at.centred, tilt))
        return build.add("Mul", without, at.factor)


def scalars_of(batch_size: int, steps: int) -> dict[str, Array]:
    """Values of the steps' scalars: a batch of one row has no variance, and leaves the running means as they are."""
    of_one = batch_size < 2
    values = (0.0, 1.0) if of_one else (FORGETTING, batch_size / (batch_size - 1))
    return {f"{name}s": np.full(steps, value) for name, value in zip(SCALARS, values, strict=True)}


def normalised(
    networks: Sequence[Network],
    examples: Examples,
    places: Sequence[Place],
    norms: Sequence[Sequence[Array]],
    seed: int,
) -> tuple[list[Network], list[Array]]:
    """A plain network and its moments as they are trained, and what is carried beside them.

    Args:
        networks: the network, then each moment of its parameters as a network.
        examples: rows that it is trained on.
        places: layers to normalise.
        norms: what is remembered of them, as in ``OptimizerState``; empty: nothing.
        seed: of the sample of the rows.

    Returns:
        W/s and β in the places of W and b, and the moments of these; and as of ``names_of`` γ, mean and variance of
        each layer, then the first moments of every γ, then the second ones, all (units, 1).

    Raises:
        EngineError: ONNX Runtime fails, or values are not finite.
    """
    network, dtype = networks[0], networks[0].dtype
    if not places:
        return list(networks), []
    found = _moments_of_z(network, examples, places, seed)
    scales = [norm[0].astype(np.float64) for norm in norms] or [np.ones(len(mean)) for mean, _ in found]
    shifts = {place: mean for place, (mean, _) in zip(places, found, strict=True)}
    apart = [_scaled(network, places, [1 / s for s in scales], shifts)]
    apart += [_scaled(each, places, [s**power for s in scales]) for power, each in enumerate(networks[1:], start=1)]
    carried: list[Array] = []
    for s, (mean, variance) in zip(scales, found, strict=True):
        variance = variance / s**2
        carried += [s * np.sqrt(variance + EPSILON), mean / s, variance]
    for power, each in enumerate(networks[1:], start=1):
        for number, place in enumerate(places):
            # Without a past, γ has that of β: its gradient is β's with factors of variance 1 in the sum.
            past = _layer(each, place).bias
            first = np.zeros(len(scales[number])) if power == 1 or past is None else past
            carried.append(norms[number][power] if norms else first)
    return apart, [values.astype(dtype)[:, None] for values in carried]


def plain(
    networks: Sequence[Network], carried: Sequence[Array], places: Sequence[Place]
) -> tuple[Network, list[Network], tuple[tuple[Array, ...], ...]]:
    """The inverse of ``normalised``: the plain network, its moments, and what is to be remembered."""
    network, *moments = networks
    columns = [values[:, 0] for values in carried]
    of_scales = columns[CARRIED * len(places) :]
    scales, shifts = [], {}
    for number, place in enumerate(places):
        gamma, mean, variance = (values.astype(np.float64) for values in columns[CARRIED * number :][:CARRIED])
        s = gamma / np.sqrt(np.maximum(variance, 0.0) + EPSILON)
        scales.append(s)
        shifts[place] = -s * mean
    # What is remembered of a unit that has all but vanished is 1: W s would not tell W.
    kept = [np.where(np.abs(s) < _VANISHED, 1.0, s) for s in scales]
    moments = [_scaled(each, places, [s**-power for s in kept]) for power, each in enumerate(moments, start=1)]
    norms = tuple((s.astype(network.dtype), *of_scales[number :: len(places)]) for number, s in enumerate(kept))
    return _scaled(network, places, scales, shifts), moments, norms


def _moments_of_z(
    network: Network, examples: Examples, places: Sequence[Place], seed: int
) -> list[tuple[Array, Array]]:
    """Mean and variance (units,) of x W of each layer, without its bias, over a sample of the rows."""
    build = GraphBuilder(network.dtype)
    features, factors = read_features(build, network, examples)
    trace = forward(build, network, features, factors=factors)
    sums = []
    for number, (segment, position) in enumerate(places):
        z = build.add("Cast", trace.layers[segment][position].z, to=onnx.TensorProto.DOUBLE)
        shape = (network.segments[segment].layers[position].units,)
        sums += [Sum(f"sum_{number}", shape, (z,)), Sum(f"square_{number}", shape, (build.add("Mul", z, z),))]
    append_sums(build, sums)
    model = scan_model("moments", build, network, examples, sums=[(each.name, each.shape) for each in sums])
    rows = sample_rows(examples, seed=seed, purpose="normalisation")
    totals = {name: total / len(rows) for name, total in totals_of(model, sums, network, examples, rows).items()}
    if not all(bool(np.isfinite(total).all()) for total in totals.values()):
        raise EngineError(f"'{network.name}': values inside the network are not finite on a sample of the rows")
    found = []
    for number, place in enumerate(places):
        mean = totals[f"sum_{number}"]
        variance = np.maximum(totals[f"square_{number}"] - mean**2, 0.0)
        bias = _layer(network, place).bias
        found.append((mean if bias is None else mean - bias, variance))
    return found


def _layer(network: Network, place: Place) -> DenseLayer:
    return network.segments[place[0]].layers[place[1]]


def _scaled(
    network: Network, places: Sequence[Place], factors: Sequence[Array], shifts: Mapping[Place, Array] | None = None
) -> Network:
    """W times a factor for each unit, and b plus a shift, in the layers at ``places``."""
    layers = {}
    for place, factor in zip(places, factors, strict=True):
        layer = _layer(network, place)
        dtype, shift = layer.weight.dtype, (shifts or {}).get(place)
        bias = layer.bias if shift is None or layer.bias is None else (layer.bias + shift).astype(dtype)
        layers[place] = replace(layer, weight=(layer.weight * factor).astype(dtype), bias=bias)
    segments = []
    for number, segment in enumerate(network.segments):
        changed = (layers.get((number, position), layer) for position, layer in enumerate(segment.layers))
        segments.append(replace(segment, layers=tuple(changed)))
    return replace(network, segments=tuple(segments))
