"""Means and covariances of each layer's input, as plain arrays: all that a data-aware surgery sees of data.

With a constant 1 appended to x, E[x̃ x̃ᵀ] = [[Σ + μᵀμ, μᵀ], [μ, 1]]: mean and covariance are the same knowledge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np

from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array, eigen

T = TypeVar("T")
# A layer of a network: number of its segment, and its place there, both from 0.
Place = tuple[int, int]


class Elimination(NamedTuple):
    """Predictors in the order in which they go, the last one being the last that stays, and the error after each, (n,).

    Errors are the mean squares of what is lost of the targets, with the rest refitted; see ``regression.eliminate``.
    """

    order: Array
    errors: Array


class Moment(NamedTuple):
    """Mean μ (n,) and covariance Σ = E[(x − μ)ᵀ(x − μ)] (n, n) of a tensor's rows, float64."""

    mean: Array
    covariance: Array


class BranchMoment(NamedTuple):
    """Of the branch f(x) of a residual block, over rows and positions.

    Attributes:
        mean: E f (units,), float64.
        variance: E‖f − E f‖².
        total: E‖y − E y‖² of the sum y = x + f(x).
    """

    mean: Array
    variance: float
    total: float


# The weights that predict, and the elimination found for them.
Eliminated = tuple[tuple[Array, ...], Elimination]


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of the inputs of a network's layers, over a calibration sample.

    Attributes:
        rows: for each segment, how many rows entered it: those of the sample, times positions where it has more axes;
            for convolutions, the number of patches that were looked at (``calibration.positions``).
        inputs: for each layer, the moments of its input; for a convolution, of the patches by which its weight's rows
            are multiplied, channel by channel and tap by tap, zeros of the padding among them.
        crosses: for each hidden layer, the covariance E[(x − μ)ᵀ(h − ν)] (n_in, n_out) of its input and its output, the
            activation included.
        missing: for layers without moments of their input, the reason.
        branches: for each residual block whose units' axis is known, by the name of its sum, those of its branch.
        gradients: for each hidden layer i, where they were asked for (``calibration.gradients``), the covariance
            (n_{i-1}, n_{i+1}) of its input and of ∂L/∂z, the gradient of a row's loss at the pre-activation of the
            layer that follows.
        sensitivities: for each layer, where they were asked for (``calibration.sensitivity``), the metric G (units,
            units) in which an error of its pre-activation counts.
        corrections: where there were trials (``recommend.trials``), by a surgery's operation and its layer's number,
            factors of its predicted cost at the outputs, (amounts,).
        eliminations: results that ``surgery.prune`` computed from these moments and keeps here for itself.
    """

    rows: Mapping[int, int]
    inputs: Mapping[Place, Moment]
    crosses: Mapping[Place, Array]
    missing: Mapping[Place, str]
    branches: Mapping[str, BranchMoment] = field(default_factory=dict)
    gradients: Mapping[Place, Array] = field(default_factory=dict)
    sensitivities: Mapping[Place, Array] = field(default_factory=dict)
    corrections: Mapping[tuple[str, int], Array] = field(default_factory=dict)
    eliminations: dict[tuple[int, int, int], Eliminated] = field(default_factory=dict, repr=False)

    def rows_of(self, network: Network, i: int) -> int:
        """Number of rows over which the moments of hidden layer ``i`` are means."""
        return self.rows[network.segment_of(i)]

    def input_of(self, network: Network, i: int) -> Moment:
        """Moment of the input of hidden layer ``i``.

        Raises:
            SurgeryError: there is no such layer, it has none, or they are another network's.
        """
        return self._at(network, i, 0)

    def output_of(self, network: Network, i: int) -> Moment:
        """Moment of the output of hidden layer ``i``, its activation included.

        Raises:
            SurgeryError: there is no such layer, it has none, or they are another network's.
        """
        return self._at(network, i, 1)

    def cross_of(self, network: Network, i: int) -> Array:
        """Covariance (n_in, n_out) of hidden layer ``i``'s input and output.

        Raises:
            SurgeryError: there is no such layer, it has none, or they are another network's.
        """
        self.input_of(network, i)
        self.output_of(network, i)
        return self.crosses[_place(network, i)]

    def gradient_of(self, network: Network, i: int) -> Array:
        """Covariance (n_{i-1}, n_{i+1}) of hidden layer ``i``'s input and the gradient at the next pre-activation.

        Raises:
            SurgeryError: there is no such layer, it has none, or they are another network's.
        """
        self.input_of(network, i)
        place = _place(network, i)
        if place not in self.gradients:
            raise SurgeryError(
                f"layer {i} has no gradients: the calibration did not run backward through it", "unlike-moments"
            )
        found, (_, following) = self.gradients[place], network.pair(i)
        if found.shape[1] != following.units:
            wrong = f"{found.shape[1]} values instead of {following.units}"
            raise SurgeryError(f"layer {i}: these gradients are another network's: {wrong}", "unlike-moments")
        return found

    def sensitivity_of(self, network: Network, i: int, step: int = 1) -> Array | None:
        """R (units, units) with R Rᵀ = G at the pre-activation ``step`` layers behind hidden layer ``i``.

        None where there is none. An error e there costs ‖e R‖².

        Raises:
            SurgeryError: it is another network's.
        """
        segment, position = _place(network, i)
        return self.sensitivity_at(network, (segment, position + step))

    def sensitivity_at(self, network: Network, place: Place) -> Array | None:
        """The same R for the layer at a place."""
        found = self.sensitivities.get(place)
        if found is None:
            return None
        layer = network.segments[place[0]].layers[place[1]]
        if len(found) != layer.units:
            raise SurgeryError(
                f"'{layer.names.node}': this sensitivity is another network's: {len(found)} values instead of "
                f"{layer.units}",
                "unlike-moments",
            )
        values, vt = eigen(found)
        return vt.T * np.sqrt(np.maximum(values, 0))

    def branch_of(self, network: Network, number: int) -> BranchMoment:
        """Of the branch of residual block ``number``.

        Raises:
            SurgeryError: there is no such block, or it has none.
        """
        block = network.block(number)
        if block.total not in self.branches:
            raise SurgeryError(f"block {number} has no moments: the calibration saw no such block", "unlike-moments")
        return self.branches[block.total]

    def at(self, network: Network, place: Place) -> Moment:
        """Moment of the input of the layer at a place.

        Raises:
            SurgeryError: it has none, or they are another network's.
        """
        layer = network.segments[place[0]].layers[place[1]]
        return self._known(place, layer.inputs, f"'{layer.names.node}'")

    def _at(self, network: Network, i: int, step: int) -> Moment:
        segment, position = _place(network, i)
        place = segment, position + step
        return self._known(place, network.segments[segment].layers[position + step].inputs, f"layer {i}")

    def _known(self, place: Place, inputs: int, called: str) -> Moment:
        if place not in self.inputs:
            reason = self.missing.get(place, "the calibration saw no such layer")
            raise SurgeryError(f"{called} has no moments: {reason}", "unlike-moments")
        moment = self.inputs[place]
        if len(moment.mean) != inputs:
            raise SurgeryError(
                f"{called}: these moments are another network's: {len(moment.mean)} values instead of {inputs}",
                "unlike-moments",
            )
        return moment


def _place(network: Network, i: int) -> Place:
    return network.segment_of(i), network.depth(i)[0] - 1
