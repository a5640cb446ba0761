"""A new head on a backbone, or in the place of an old head; only the head of the resulting model is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from onnx import TensorProto

from onnxsurgeon.errors import ModelError, SettingsError
from onnxsurgeon.graph.attach.batch import fixed_batch, inputs_of_model, with_open_batch
from onnxsurgeon.graph.attach.join import MASK, all_names, free, joined, version_of, without_old_head
from onnxsurgeon.graph.attach.layout import FLOATS, POOLS, described, layout_of
from onnxsurgeon.graph.attach.nodes import Nodes, class_outputs, pooled
from onnxsurgeon.graph.attach.where import place_of
from onnxsurgeon.graph.create import MOST_PARAMETERS
from onnxsurgeon.graph.files import check_parts
from onnxsurgeon.graph.frozen import Frozen, frozen_in, nodes_before
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.opening import ModelSource, parts_of
from onnxsurgeon.graph.reader import from_parts
from onnxsurgeon.quantities import whole
from onnxsurgeon.typed import kind_of


@dataclass(frozen=True)
class NewHead:
    """A model with a new head.

    Attributes:
        network: the model with its head; what is before it is frozen.
        notes: sentences on what the head reads, how that is pooled, and whether any number of rows can be given.
    """

    network: Network
    notes: tuple[str, ...]


def read_classes(text: str) -> int | tuple[str, ...]:
    """The number of classes, or their names, from a text such as "5" or "cat,dog".

    Raises:
        SettingsError: it is neither.
    """
    try:
        return int(text)
    except ValueError:
        return tuple(name.strip() for name in text.split(","))


def attach_head(
    model: ModelSource,
    classes: int | str | Sequence[str] | Sequence[int],
    *,
    at: str | None = None,
    hidden: int | Sequence[int] = 128,
    pool: str = "auto",
    softmax: bool = True,
    freeze: bool = True,
    seed: int = 0,
) -> NewHead:
    """Put a new head on ``model``: pooling where it is needed, hidden layers, logits, Softmax, names.

    The model may hold any operator that ONNX Runtime can run. Nothing before the head is changed; it is marked as
    frozen, so that it is computed once for each row and not trained.

    Args:
        model: a backbone, or a classifier with other classes: a path, bytes, an ``onnx.ModelProto`` or a ``Network``.
        classes: their number, or their names: texts or integers, as the rows are labelled.
        at: the tensor that the head reads, or the node that writes it; by default the tensor that the last layer of an
            old head reads, or else the only output.
        hidden: units of the hidden layer, or of several; a Relu follows each. 0 is none.
        pool: how several positions become one vector: "mean", "first" (the first token), "flatten", or "auto".
        softmax: whether probabilities follow the logits.
        freeze: whether what is before the head is marked as frozen.
        seed: seed of the weights, which are Glorot uniform.

    Raises:
        ModelError: the model cannot be read, or the tensor does not exist or cannot be read by a head; says why.
        SettingsError: the classes or the hidden layers make no sense.
    """
    names, hidden = _names(classes), _units(hidden)
    if pool not in POOLS:
        raise SettingsError(f"pool: '{pool}' is unknown: expected one of {', '.join(POOLS)}", "unknown-choice")
    parts, source, path = parts_of(model)
    constants = {tensor.name for tensor in parts.skeleton.graph.initializer} | parts.arrays.keys()
    constants |= {name for node in parts.skeleton.graph.node if node.op_type == "Constant" for name in node.output}
    place = place_of(parts.skeleton, at, constants, source)
    notes = [f"the head reads '{place.tensor}', {place.why}"]
    if fixed_batch(parts):
        opened, why = with_open_batch(parts, place.tensor)
        rows = fixed_batch(parts)
        if opened is None:
            notes.append(f"it takes {rows} row{'s' if rows > 1 else ''} at a time, as the backbone does: {why}")
        else:
            parts = opened
            notes.append(f"it takes any number of rows at once; the backbone was declared for {rows}")
    kind, shape = described(parts, place.tensor, source)
    kept = nodes_before(parts.skeleton.graph, [place.tensor])
    frozen = Frozen(before=(place.tensor,)) if freeze and kept else frozen_in(parts.skeleton, source)
    mask = next((value.name for value in inputs_of_model(parts) if value.name == MASK), None)
    layout, mask, words = layout_of(parts.skeleton.graph, place.tensor, shape, pool, mask, source)
    notes += words
    made = Nodes(free("head", all_names(parts), apart=True), version_of(parts.skeleton))
    x = place.tensor
    if kind != TensorProto.FLOAT:
        x = made.add("Cast", [x], "float32", shape, to=TensorProto.FLOAT)
        notes.append(f"'{place.tensor}' is {FLOATS[kind]}; the head computes in float32")
    features, width = pooled(made, x, layout, shape, mask)
    sizes = (width, *hidden, len(names))
    count = sum(a * b + b for a, b in pairwise(sizes))
    if count > MOST_PARAMETERS:
        raise ModelError(
            f"{source}: a head {'-'.join(map(str, sizes))} has {count:,} parameters: pool, or less hidden",
            "beyond-one-file",
        )
    rng = np.random.default_rng(seed)
    for number, units in enumerate(hidden, start=1):
        layer = made.layer(features, (width, units), f"dense_{number}", rng, shape[0])
        features, width = made.add("Relu", [layer], f"relu_{number}", (shape[0], units)), units
    logits = made.layer(features, (width, len(names)), "logits", rng, shape[0])
    rest = without_old_head(parts, place.tensor, kept)
    taken = all_names(rest)
    outputs = (
        free("probabilities" if softmax else "scores", taken),
        "" if names == list(range(len(names))) else free("label", taken),
    )
    values = class_outputs(made, logits, names, outputs, shape[0], softmax=softmax)
    whole = joined(rest, made, values, place.tensor, kind, shape, frozen, source)
    check_parts(whole, source)
    return NewHead(from_parts(whole, name=source if path is None else path.stem, source=source), tuple(notes))


def _names(classes: int | str | Sequence[str] | Sequence[int]) -> list[Any]:
    """The names of the classes: texts, or integers, also where these were given as texts."""
    given = read_classes(classes) if isinstance(classes, str) else classes
    if isinstance(given, int):
        if given < 2:
            raise SettingsError(f"classes: {given} is too few: a head tells two classes apart at least", "class-names")
        return list(range(given))
    names = list(given) if isinstance(given, Iterable) else [given]
    wrong = [name for name in names if not isinstance(name, str | int)]
    if wrong:
        raise SettingsError(
            f"classes: expected a number, or names such as ('cat', 'dog'); found {kind_of(wrong[0])}", "class-names"
        )
    texts = [str(name) for name in names]
    if not all(texts) or len(set(texts)) < len(texts):
        raise SettingsError(f"classes: '{','.join(texts)}' has a name that is empty or there twice", "class-names")
    if len(texts) < 2:
        raise SettingsError(
            f"classes: '{','.join(texts)}' is one name; expected a number, or names such as cat,dog", "class-names"
        )
    numbers = [whole(text) for text in texts]
    known = [number for number in numbers if number is not None]
    return known if [str(number) for number in known] == texts else texts


def _units(hidden: int | Sequence[int]) -> tuple[int, ...]:
    """Numbers of units of the hidden layers."""
    units = ((hidden,) if hidden else ()) if isinstance(hidden, int) else tuple(hidden)
    wrong = [each for each in units if not isinstance(each, int) or each < 1]
    if wrong:
        raise SettingsError(f"hidden: {kind_of(wrong[0])} is no number of units", "senseless-value")
    return units
