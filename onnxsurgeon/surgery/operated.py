"""A surgery done, and the proof that its result is what it claims to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from onnxsurgeon.calibration.moments import Moments, Place
from onnxsurgeon.errors import ModelError, SurgeryError
from onnxsurgeon.graph.equivalence import difference
from onnxsurgeon.graph.files import check_parts
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.writer import to_parts
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line
from onnxsurgeon.surgery.apply import apply, carry, follow
from onnxsurgeon.surgery.base import DataAware, Lost, Rebuilt, Replacement, Rewrite, Surgery, spell
from onnxsurgeon.surgery.maps import Change
from onnxsurgeon.surgery.parameters import fill_for_new
from onnxsurgeon.surgery.proof import outputs_around

# Largest deviation of an exact surgery's outputs in float32, as a fraction of their scale.
EXACT_TOLERANCE = 1e-5


@dataclass(frozen=True)
class SurgeryRecord:
    """What a surgery did.

    Attributes:
        surgery: as on the command line, such as "widen:1:8".
        exact: whether it claims to preserve the function.
        deviation: max |Δ| of the segment's outputs on random features, as a fraction of their scale.
        parameters_before: parameter count of the parent.
        parameters: parameter count of the result.
        rounding: largest change of a weight by writing it in the file's type, as a fraction of its tensor's largest.
        predicted: the error of a data-aware surgery on the calibration sample, as far as moments tell: root mean square
            error of the pre-activation z of the last layer replaced, or of those that read the units, as a fraction of
            z's standard deviation, √(E‖z' − z‖² / E‖z − E z‖²); None for other surgeries. ``operating.measure`` finds
            the error of any surgery on rows.
    """

    surgery: str
    exact: bool
    deviation: float
    parameters_before: int
    parameters: int
    rounding: float = 0.0
    predicted: float | None = None


@dataclass(frozen=True, eq=False)
class Operated:
    """A surgery's result and its record; as a sequence, these two.

    Attributes:
        network: the result.
        record: a description of what was done.
        carry: maps an optimizer's moments of the parent, given as a network, and their power (1 or 2) to the result's.
        places: layers that computed the same before, each with its place in the parent and in the result: the last one
            replaced, or those that read the units.
        follow: maps moments of the parent to those of the result as far as they are known; see ``apply.follow``.
        lost: for a removal, the values that are missing in the result.
        units: of those ``places`` whose own units come and go with those that they read, as where a residual branch is
            one layer: for each unit in the result the one of the parent that it stands for.
    """

    network: Network
    record: SurgeryRecord
    carry: Callable[[Network, int], Network]
    places: tuple[tuple[Place, Place], ...]
    follow: Callable[[Moments], Moments]
    lost: Lost | None = None
    units: Mapping[Place, Array] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Any]:
        yield self.network
        yield self.record


def operate(
    network: Network,
    surgery: Surgery,
    rng: np.random.Generator | None = None,
    *,
    moments: Moments | None = None,
    require_exact: bool = False,
) -> Operated:
    """Perform ``surgery`` on ``network`` and prove the result.

    ``moments`` are those of ``network`` on a calibration sample; a data-aware surgery cannot do without them.

    The result passes onnx.checker and shape inference; where the surgery claims to be exact, the outputs on
    random inputs agree with the parent's within ``EXACT_TOLERANCE`` of their scale.

    Raises:
        SurgeryError: it cannot be done; it is not exact though ``require_exact`` is set; or the proof fails.
    """
    name, given = spell(surgery), network
    network = network.parted()
    surgery.require(network)
    exact = surgery.is_exact(network)
    if require_exact and not exact:
        if not surgery.layer:
            raise SurgeryError(f"{name}: is not exact here", "not-exact")
        raise SurgeryError(
            f"{name}: is not exact on this layer ({_activation_name(network, surgery.layer)})", "not-exact"
        )
    # These run before the rewrite: weights mapped from a file then need not be in memory beside the new ones.
    outputs = outputs_around(network, surgery.layer or None)
    expected = outputs(network)
    with np.errstate(over="ignore", invalid="ignore"):
        if isinstance(surgery, DataAware) and moments is not None:
            made = surgery.refit(network, moments)
        else:
            made = surgery.rewrite(network, rng if rng is not None else np.random.default_rng(0))
        done = _done(network, surgery.layer, made)
        rounding = _require_finite(name, network, done.network)
    try:
        check_parts(to_parts(done.network), name)
    except ModelError as error:
        raise SurgeryError(f"{name}: the result is no valid model: {first_line(error)}", "proof-failed") from error
    moved = difference(expected, outputs(done.network))
    if exact and not moved.relative <= EXACT_TOLERANCE:
        raise SurgeryError(
            f"{name}: should be exact, but changes the outputs by {moved.relative:.2e} of their scale", "proof-failed"
        )
    counts = given.parameter_count, done.network.parameter_count
    record = SurgeryRecord(name, exact, moved.relative, *counts, rounding, made.predicted)

    def moments_of(past: Network, power: int) -> Network:
        return done.carry(past.parted(), power)

    return Operated(done.network, record, moments_of, done.places, done.follow, done.lost, done.units)


class _Done(NamedTuple):
    """A rewritten network, and the other fields of ``Operated``."""

    network: Network
    carry: Callable[[Network, int], Network]
    places: tuple[tuple[Place, Place], ...]
    follow: Callable[[Moments], Moments]
    lost: Lost | None = None
    units: Mapping[Place, Array] = MappingProxyType({})


def _done(network: Network, i: int, made: Rewrite) -> _Done:
    if isinstance(made, Change):
        return _of_units(network, made)
    return _of_segments(network, made) if isinstance(made, Rebuilt) else _of_layers(network, i, made)


def _of_units(network: Network, change: Change) -> _Done:
    result = apply(network, change)
    ports = dict.fromkeys((each, port.layer) for port in change.group.readers for each in network.uses(port.segment))

    def moments(past: Network, power: int) -> Network:
        return carry(past, result, change, power)

    places = tuple((place, place) for place in ports)
    return _Done(
        result, moments, places, lambda known: follow(known, network, change), units=_own_units(network, change)
    )


def _own_units(network: Network, change: Change) -> dict[Place, Array]:
    """Of each layer that writes the units that change: the old unit for which each new one stands."""
    found: dict[Place, Array] = {}
    for port in sorted(change.group.writers, key=lambda each: -each.begin):
        for number in network.uses(port.segment):
            place = number, port.layer
            before = found.get(place, np.arange(network.segments[number].layers[port.layer].units))
            own, end = port.begin + change.origin, port.begin + change.group.units
            found[place] = np.concatenate([before[: port.begin], own, before[end:]])
    return found


def _of_layers(network: Network, i: int, made: Replacement) -> _Done:
    number, first = network.place(i)
    result = network.splice((number, first), made.replaced, made.layers)
    last = first + made.replaced - 1, first + len(made.layers) - 1
    places = tuple(((each, last[0]), (each, last[1])) for each in network.uses(number))

    def moments(past: Network, power: int) -> Network:
        replaced = past.segments[number].layers[first : first + made.replaced]
        return past.splice((number, first), made.replaced, made.carry(replaced, power))

    return _Done(result, moments, places, lambda known: known)


def _of_segments(network: Network, made: Rebuilt) -> _Done:
    """Parameters are known by their names; a scale of the file may be a part of a layer's now, where it was not."""
    before = {layer.names.weight: layer.weight for layer in network.layers}

    def moments(past: Network, power: int) -> Network:
        known = dict(past.parameters())
        layers = {layer.names.weight: layer for layer in past.layers}
        found = {}
        for layer in made.network.layers:
            weight = made.copies.get(layer.names.weight, layer.names.weight)
            scale = np.ones(layer.units) if weight in made.copies.values() else _scale(before[weight], layer.weight)
            for name, values in layer.parameters():
                moved = known[name] if name in known else np.full(values.shape, fill_for_new(layers[weight], power))
                found[name] = moved if (scale == 1).all() else moved * scale**power
        return made.network.with_parameters(found[name] for name, _ in made.network.parameters())

    return _Done(made.network, moments, (), lambda known: Moments({}, {}, {}, {}), made.lost)


def _scale(before: Array, after: Array) -> Array:
    """By how much each column of a weight became larger (units,)."""
    if after is before:
        return np.ones(before.shape[1])
    old, new = before.astype(np.float64), after.astype(np.float64)
    squares = (old**2).sum(axis=0)
    return np.where(squares > 0, (old * new).sum(axis=0) / np.where(squares > 0, squares, 1.0), 1.0)


def _require_finite(name: str, network: Network, result: Network) -> float:
    """Raise SurgeryError where new weights overflow the type of the file; return their rounding (``as_stored``)."""
    rounded, rounding = result.as_stored()
    kept = {id(values) for _, values in network.parameters()}
    for (tensor, made), (_, values) in zip(result.parameters(), rounded.parameters(), strict=True):
        if id(made) not in kept and not np.isfinite(values).all():
            raise SurgeryError(
                f"{name}: the new values of '{tensor}' are too large for their type", "not-finite-inside"
            )
    return rounding


def _activation_name(network: Network, i: int) -> str:
    if i > network.hidden_count:
        return "a width that several layers share"
    return str(network.hidden(i).activation or "linear")
