"""Writes weights that were trained elsewhere into the user's model, whose interface stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from onnxsurgeon.deploy import names
from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array

_OTHERS = ("moment_1/", "moment_2/")


class Imported(NamedTuple):
    """A network with weights from elsewhere.

    Attributes:
        network: the network.
        changed: names of the parameters that the state held.
        kept: names of the parameters that it did not hold, and that stay.
        rounding: the largest error by which the file's type rounds a value, as a share of its tensor's largest.
    """

    network: Network
    changed: tuple[str, ...]
    kept: tuple[str, ...]
    rounding: float


def import_state(network: Network, state: Mapping[str, Array], *, source: str = "the state") -> Imported:
    """The network with the parameters in ``state``, as train.onnx writes them.

    Args:
        network: the model from which the trainer was made, or one with the same layers.
        state: arrays by name, "parameter/NAME" or NAME, one row a unit: weights (units, inputs), others (units,); an
            optimizer's moments and the number of steps may be among them, and are not needed.
        source: the name of the state in messages.

    Raises:
        ModelError: an array fits no parameter, or has another shape, another type or values that are not finite; or
            there is none.
    """
    given = _parameters(state, source)
    known = dict(network.parameters())
    for name in given:
        if name not in known:
            have = ", ".join(f"'{each}'" for each in list(known)[:8]) + (", …" if len(known) > 8 else "")
            raise ModelError(
                f"{source}: '{name}' is no parameter of '{network.name}', which has {have}", "unlike-state"
            )
    values = [_fitted(network, name, old, given[name], source) if name in given else old for name, old in known.items()]
    trained, rounding = network.with_parameters(values).as_stored()
    kept = tuple(name for name in known if name not in given)
    return Imported(trained, tuple(name for name in known if name in given), kept, rounding)


def _parameters(state: Mapping[str, Array], source: str) -> dict[str, Array]:
    """The parameters of a state by their names in the file."""
    prefix = names.parameter("")
    is_whole = any(name.startswith(prefix) for name in state)
    if is_whole:
        found = {name.removeprefix(prefix): values for name, values in state.items() if name.startswith(prefix)}
        strange = [name for name in state if not name.startswith((prefix, *_OTHERS)) and name != names.STEPS]
    else:
        found, strange = {name: values for name, values in state.items() if name != names.STEPS}, []
    if strange:
        raise ModelError(f"{source}: '{strange[0]}' is no tensor of a trainer's state", "unlike-state")
    if not found:
        raise ModelError(f"{source}: holds no parameter", "unlike-state")
    return found


def _fitted(network: Network, name: str, old: Array, values: Array, source: str) -> Array:
    """The values in the shape and type of the parameter."""
    values = np.asarray(values)
    wanted = old.T.shape if old.ndim == 2 else old.shape
    if values.shape != wanted:
        raise ModelError(
            f"{source}: '{name}' has the shape {values.shape}; in '{network.name}' it is {wanted}"
            + (", one row a unit" if old.ndim == 2 else ""),
            "unlike-state",
        )
    if values.dtype.kind != "f":
        raise ModelError(f"{source}: '{name}' holds {values.dtype}, no floating point numbers", "unlike-state")
    if not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ModelError(f"{source}: '{name}' is {values[place]:g} at {place}: the training diverged", "diverged-state")
    with np.errstate(over="ignore"):
        own = np.ascontiguousarray(values.T if old.ndim == 2 else values, old.dtype)
    if not np.isfinite(own).all():
        raise ModelError(f"{source}: '{name}' holds values that {old.dtype} cannot", "diverged-state")
    return own
