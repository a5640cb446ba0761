"""Aligns the layers of two networks of unknown relation: a sequence alignment by dynamic programming.

The score of a pair of layers adds up evidence: names, shapes, places, and above all the weights. These are compared by
what survives surgery and some training: the entries that both have, and the Gram matrices W Wᵀ and Wᵀ W, which a
rotation of the units, such as ``narrow``'s, does not change. Two layers that became one, or one that became two, are
recognised by their product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from onnxsurgeon.comparison.groups import Group, in_order
from onnxsurgeon.graph.layers import DenseChain, DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array, in_float64, single_threaded

# Entries of an axis that are compared; they are evenly spread where there are more.
MOST = 256
WEIGHTS, NAME, SAME, END = 2.0, 0.5, 0.25, 0.5
# The least score of a pair, below which both layers are better left alone; and what a product, and a thin one, gets.
ENOUGH, PRODUCT, THIN = 0.4, 3.5, 1.5
RESEMBLING, FAINTLY, ROUNDING = 0.5, 0.2, 1e-6

Score = Callable[[tuple[int, ...], tuple[int, ...]], float]
_STEPS = ((1, 1), (2, 1), (1, 2), (1, 0), (0, 1))


def align(first: Network, second: Network) -> list[Group]:
    """The layers of two networks in groups, segment by segment; segments are aligned first where they differ in number.

    Weights are compared in float64 on one thread, at most ``MOST`` rows and columns of each.
    """
    with single_threaded():
        old, new = _offsets(first), _offsets(second)
        groups: list[Group] = []
        for before, after in _segments(first, second):
            if not before or not after:
                groups += [Group((old[s] + i,), ()) for s in before for i in range(len(first.segments[s].layers))]
                groups += [Group((), (new[s] + i,)) for s in after for i in range(len(second.segments[s].layers))]
                continue
            (s,), (t,) = before, after
            for group in _align_layers(first.segments[s], second.segments[t])[0]:
                groups.append(Group(tuple(old[s] + i for i in group.before), tuple(new[t] + i for i in group.after)))
    return in_order(groups)


def _offsets(network: Network) -> list[int]:
    return [0, *np.cumsum([len(segment.layers) for segment in network.segments]).tolist()]


def _segments(first: Network, second: Network) -> list[Group]:
    counts = len(first.segments), len(second.segments)
    if counts[0] == counts[1]:
        return [Group((i,), (i,)) for i in range(counts[0])]

    def score(before: tuple[int, ...], after: tuple[int, ...]) -> float:
        if len(before) != 1 or len(after) != 1:
            return 0.0 if not before or not after else -np.inf
        a, b = first.segments[before[0]], second.segments[after[0]]
        return _align_layers(a, b)[1] / max(len(a.layers), len(b.layers)) - ENOUGH

    return best_alignment(*counts, cache(score))[0]


def _align_layers(first: DenseChain, second: DenseChain) -> tuple[list[Group], float]:
    a, b = first.layers, second.layers

    def score(before: tuple[int, ...], after: tuple[int, ...]) -> float:
        if not before or not after:
            return 0.0
        if len(before) == len(after) == 1:
            (i,), (j,) = before, after
            ends = (i == 0 and j == 0) + (i == len(a) - 1 and j == len(b) - 1)
            return _resemblance(a[i], b[j]) + END * ends - ENOUGH
        if len(before) == 2:
            return _as_product([a[i] for i in before], b[after[0]])
        # The first factor is linear, unlike an inserted layer, and thin.
        pair = [b[j] for j in after]
        return _as_product(pair, a[before[0]]) if pair[0].activation is None else -np.inf

    return best_alignment(len(a), len(b), cache(score))


def best_alignment(rows: int, columns: int, score: Score) -> tuple[list[Group], float]:
    """The groups of two sequences of these lengths with the largest sum of scores, and that sum.

    A group takes one of each, two of one and one of the other, or one of one alone. Ties go to the earlier of these.
    """
    best = np.full((rows + 1, columns + 1), -np.inf)
    best[0, 0] = 0.0
    taken: dict[tuple[int, int], Group] = {}
    for i in range(rows + 1):
        for j in range(columns + 1):
            for before, after in _STEPS:
                if i >= before and j >= after:
                    group = Group(tuple(range(i - before, i)), tuple(range(j - after, j)))
                    total = best[i - before, j - after] + score(group.before, group.after)
                    if total > best[i, j]:
                        best[i, j], taken[i, j] = total, group
    groups, i, j = [], rows, columns
    while i or j:
        group = taken[i, j]
        groups.append(group)
        i, j = i - len(group.before), j - len(group.after)
    return groups[::-1], float(best[rows, columns])


def _resemblance(a: DenseLayer, b: DenseLayer) -> float:
    same = [a.inputs == b.inputs, a.units == b.units, str(a.activation) == str(b.activation)]
    return WEIGHTS * _likeness(a.weight, b.weight) + NAME * (a.names.node == b.names.node) + SAME * sum(same)


def _as_product(pair: Sequence[DenseLayer], one: DenseLayer) -> float:
    """The evidence that two layers on one side are one layer on the other; −∞ where there is none.

    Their product must resemble it, and more than either of them alone does; otherwise the other one was inserted. Two
    convolutions are one whose weight is the product where the second reads a single value of each channel.
    """
    first, second = pair
    if first.units != second.inputs:
        return -np.inf
    rows, columns = _some(min(first.inputs, one.inputs)), _some(min(second.units, one.units))
    product = in_float64(first.weight[rows]) @ in_float64(second.weight[:, columns])
    alike = _cosine(product, in_float64(one.weight[np.ix_(rows, columns)]))
    alone = (_likeness(layer.weight, one.weight) for layer in pair if layer.weight.shape == one.weight.shape)
    if alike <= max(alone, default=0.0) + ROUNDING:
        return -np.inf
    # A thin linear layer without bias is what ``factorize`` leaves, and a low rank resembles the whole only faintly.
    if first.activation is None and first.bias is None and first.units < min(first.inputs, second.units):
        return PRODUCT * alike + THIN if alike >= FAINTLY else -np.inf
    return PRODUCT * alike if alike >= RESEMBLING else -np.inf


def _likeness(a: Array, b: Array) -> float:
    """A likeness between 0 and 1: by the entries that both have, or by each axis of equal length."""
    rows, columns = _some(min(len(a), len(b))), _some(min(a.shape[1], b.shape[1]))
    found = [_cosine(in_float64(a[np.ix_(rows, columns)]), in_float64(b[np.ix_(rows, columns)]))]
    if a.shape != b.shape:
        if len(a) == len(b):
            found.append(_cosine(_gram(a), _gram(b)))
        if a.shape[1] == b.shape[1]:
            found.append(_cosine(_gram(a.T), _gram(b.T)))
    return max(0.0, *found)


def _gram(matrix: Array) -> Array:
    """A Aᵀ without its diagonal, which says little; of many rows, some."""
    rows = in_float64(matrix[_some(len(matrix))])
    gram = rows @ rows.T
    np.fill_diagonal(gram, 0.0)
    return gram


def _cosine(a: Array, b: Array) -> float:
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.vdot(a, b)) / norms if norms > 0 else 0.0


def _some(count: int) -> Array:
    return np.unique(np.linspace(0, count - 1, min(count, MOST)).astype(np.int64))
