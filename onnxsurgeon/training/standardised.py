"""Training on standardised inputs and centred targets, without a change to the model.

The network's input stays x; x W + b = x̂ Ŵ + b̂ with x̂ = (x − c)/s, Ŵ = s W and b̂ = b + c W. Gradient descent on Ŵ
instead of W sees inputs of similar size around 0 (LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998, section 4.3),
weight decay weighs them alike, and an input that is left out (dropout) has its mean. In the same way, the last layer of
a regression is trained towards t − m with the bias b − m, where m is the targets' mean: weight decay then does not pull
predictions of 654 ± 20 towards 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.data.sampling import sample_rows
from onnxsurgeon.graph.layers import DenseChain, DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import SQUARED
from onnxsurgeon.training.dropout import entering
from onnxsurgeon.training.resident import is_read_by_dense_layers_alone

ROWS = 8192
# The smallest scale, as a share of an input's largest deviation from its mean: no standardised value is beyond its
# inverse. A pixel that is hardly ever lit must not be blown up to the size of the others. The columns of a table have
# long tails, and most of their rows are what there is to learn.
OF_PIXELS, OF_COLUMNS = 0.5, 0.125
FEWEST_PIXELS = 32
SMALL = 8.0  # pixels within this of 0 have the size for which networks' initial weights are made
REACH = 0.1  # a value this near an end of all pixels' range, as a share of that range, reaches that end


@dataclass(frozen=True, eq=False)
class Standardised:
    """Examples with standardised inputs and centred targets, and the conversion of a network's weights there and back.

    Attributes:
        examples: the examples on which the network is trained.
        inputs: tensor → centre c and scale s of its values, each of shape (n_in,), float64; only for tensors that dense
            layers of two axes with a bias read, and nothing else does.
        targets: every head's tensor → mean m of its labels, (outputs,), float64; None where it is not centred. Only
            squared errors are centred, of a head without a squash that is the output of a layer with a bias.
        tensors: names of all of the examples' inputs, in their order.
        pixels: names of those of ``inputs`` that are pixels or like pixels.
        is_complete: whether ``inputs`` are all that dense layers of two axes read directly.
    """

    examples: Examples
    inputs: dict[str, tuple[Array, Array]]
    targets: dict[str, Array | None]
    tensors: tuple[str, ...]
    pixels: frozenset[str]
    is_complete: bool

    @classmethod
    def of(
        cls,
        network: Network,
        examples: Examples,
        seed: int = 0,
        free: tuple[frozenset[str], frozenset[str]] | None = None,
    ) -> Standardised:
        """Centres and scales by a sample of the rows: σ, or a share of the largest deviation where that is more.

        Args:
            network: the network that is trained on them.
            examples: the rows as they are.
            seed: seed of the sample.
            free: ``standardisable`` of the network with which a run began, so that all its networks see the same rows.
        """
        tensors = tuple(network.frame.trunk.features)
        rows = sample_rows(examples, ROWS, seed, "standardise")
        free_inputs, free_heads = standardisable(network) if free is None else free
        inputs, pixels = {}, set()
        stored = dict(zip(tensors, examples.stored, strict=True))
        for together in _read_alike(network, [tensor for tensor in tensors if tensor in free_inputs]):
            values = np.concatenate([stored[tensor].take(rows) for tensor in together])
            if all(stored[t].source.dtype == np.uint8 for t in together) or are_like_pixels(values):
                pixels.update(together)
            found = _statistics(values, OF_PIXELS if together[0] in pixels else OF_COLUMNS)
            inputs.update(dict.fromkeys(together, found))
        direct = {segment.input_name for segment in entering(network)}
        targets = _target_means(network, examples, free_heads)
        return cls(examples, inputs, targets, tensors, frozenset(pixels), direct <= set(inputs)).on(examples)

    @classmethod
    def none(cls, network: Network, examples: Examples) -> Standardised:
        """Examples and weights as they are."""
        targets: dict[str, Array | None] = {head.tensor: None for head in network.heads}
        return cls(examples, {}, targets, tuple(network.frame.trunk.features), frozenset(), is_complete=False)

    @property
    def are_pixels(self) -> bool:
        """Whether all tensors that dense layers of two axes read directly are standardised and like pixels."""
        return self.is_complete and len(self.pixels) == len(self.inputs)

    def but_for_small_pixels(self) -> Standardised:
        """The same without pixels near 0, for ``into`` and ``out_of`` only."""

        def are_small(centre: Array, scale: Array) -> bool:
            return bool((np.abs(centre) + scale / OF_PIXELS).max() <= SMALL)

        kept = {name: found for name, found in self.inputs.items() if name not in self.pixels or not are_small(*found)}
        return replace(self, inputs=kept)

    def on(self, examples: Examples) -> Standardised:
        """The same centres and scales for other rows of the same inputs."""
        names = zip(self.tensors, examples.stored, strict=True)
        stored = [_standardised(rows, *self.inputs[name]) if name in self.inputs else rows for name, rows in names]
        centres = tuple(self.targets.values()) if any(mean is not None for mean in self.targets.values()) else ()
        return replace(self, examples=examples.with_stored(stored, centres))

    def into(self, network: Network) -> Network:
        """Convert ``network`` to one that computes the same function from standardised inputs to centred targets."""
        return self._changed(network, _into, -1)

    def out_of(self, network: Network) -> Network:
        """The inverse of ``into``, up to rounding."""
        return self._changed(network, _out_of, 1)

    def _changed(
        self, network: Network, change: Callable[[list[DenseLayer], Array, Array], list[DenseLayer]], sign: int
    ) -> Network:
        def changed(segment: DenseChain) -> DenseChain:
            layers = list(segment.layers)
            if segment.input_name in self.inputs:
                layers[:2] = change(layers[:2], *self.inputs[segment.input_name])
            given = {name: means for name, means in self.targets.items() if means is not None}
            means = segment.over_ends(given, 0.0)
            if means is not None:
                layers[-1] = _shifted(layers[-1], sign * means)
            return replace(segment, layers=tuple(layers))

        return replace(network, segments=tuple(map(changed, network.segments)))


def are_like_pixels(values: Array) -> bool:
    """Whether columns (rows, n) are of one kind, as pixels and sensors of a field are: most have the same range.

    Nine tenths of Fashion-MNIST's pixels reach both ends of the range of all, eight tenths for 60 rows, three quarters
    for the digits; of the columns of 21 tables, in their own units or standardised, at most three tenths do.
    """
    low, high = values.min(axis=0).astype(np.float64), values.max(axis=0).astype(np.float64)
    varied = high > low
    if np.count_nonzero(varied) < FEWEST_PIXELS:
        return False
    least, most = low[varied].min(), high[varied].max()
    reach = REACH * (most - least)
    reached = (low[varied] <= least + reach) & (high[varied] >= most - reach)
    return bool(reached.mean() >= 0.5)


def _statistics(values: Array, smallest: float) -> tuple[Array, Array]:
    wide = values.astype(np.float64)
    centre = wide.mean(axis=0)
    scale = np.maximum(wide.std(axis=0), smallest * np.abs(wide - centre).max(axis=0))
    scale[scale == 0] = 1
    return centre, scale


def _standardised(rows: Rows, centre: Array, scale: Array) -> Rows:
    return replace(rows, scale=rows.scale / scale, offset=(rows.offset - centre) / scale)


def standardisable(network: Network) -> tuple[frozenset[str], frozenset[str]]:
    """Tensors that may be standardised, and heads whose targets may be centred: a bias takes up the difference."""
    trunk = network.frame.trunk
    inputs = {
        tensor
        for tensor in trunk.features
        if is_read_by_dense_layers_alone(network, tensor)
        and all(segment.layers[0].bias is not None for segment in network.segments if segment.input_name == tensor)
    }
    # Where a layer's weights are applied to several tensors, either all of these are standardised alike, or none.
    turned = {layer.names.weight for layer in network.layers if layer.is_turned}
    inputs -= {each.input_name for each in network.segments for layer in each.layers if layer.names.weight in turned}
    while kept := [each for each in _entered(network) if each & inputs and not each <= inputs]:
        inputs.difference_update(*kept)
    read = {name for step in trunk.steps if not isinstance(step, int) for name in step.inputs}
    read |= {segment.input_name for segment in network.segments}
    alone = [segment for number, segment in enumerate(network.segments) if network.is_alone(number)]
    last = {name: segment.layers[-1] for segment in alone for name in segment.ends}
    # A convolution's units lie on the second axis, but the means of targets are over the last.
    images = {name for segment in alone if segment.is_convolution for name in segment.ends}
    heads = {
        head.tensor
        for head in network.heads
        if head.tensor in last
        and head.tensor not in read
        and last[head.tensor].bias is not None
        and last[head.tensor].activation is None
        and head.tensor not in images
    }
    return frozenset(inputs), frozenset(heads)


def _entered(network: Network) -> list[set[str]]:
    """For all segments that have the same weights, the tensors that they read."""
    firsts = set(network.tied.values())
    return [{network.segments[each].input_name for each in network.uses(number)} for number in sorted(firsts)]


def _read_alike(network: Network, tensors: Sequence[str]) -> list[list[str]]:
    """The tensors, grouped where layers of the same weights read them."""
    found = [[tensor] for tensor in tensors]
    for entered in _entered(network):
        touched = [each for each in found if entered & set(each)]
        if len(touched) > 1:
            together = [tensor for each in touched for tensor in each]
            found = [together, *(each for each in found if each not in touched)]
    return found


def _target_means(network: Network, examples: Examples, free: frozenset[str]) -> dict[str, Array | None]:
    """See ``Standardised.targets``."""
    found: dict[str, Array | None] = {}
    for head, task, labels in zip(network.heads, examples.tasks, examples.labels, strict=True):
        centred = head.tensor in free and task.loss == SQUARED and not task.squash
        found[head.tensor] = labels.reshape(-1, task.outputs).mean(axis=0, dtype=np.float64) if centred else None
    return found


def _into(layers: list[DenseLayer], centre: Array, scale: Array) -> list[DenseLayer]:
    weight = layers[0].weight.astype(np.float64)
    return _begun(layers, centre @ weight, weight * scale[:, None])


def _out_of(layers: list[DenseLayer], centre: Array, scale: Array) -> list[DenseLayer]:
    weight = layers[0].weight / scale[:, None]
    return _begun(layers, -(centre @ weight), weight)


def _begun(layers: list[DenseLayer], shift: Array, weight: Array) -> list[DenseLayer]:
    """The first layers with that weight and a shifted bias; a factor without a bias takes its partner's."""
    first, *behind = layers
    if first.bias is not None:
        return [_shifted(first, shift, weight), *behind]
    (second,) = behind
    thin = replace(first, weight=weight.astype(first.weight.dtype))
    return [thin, _shifted(second, shift @ second.weight.astype(np.float64))]


def _shifted(layer: DenseLayer, shift: Array, weight: Array | None = None) -> DenseLayer:
    """The layer with its bias shifted and, if given, another weight; both are computed in float64."""
    assert layer.bias is not None
    dtype = layer.weight.dtype
    weight = layer.weight if weight is None else weight.astype(dtype)
    return replace(layer, weight=weight, bias=(layer.bias + shift).astype(dtype))
