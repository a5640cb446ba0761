"""Layers that the user names to be frozen, or to be the only trained ones, translated to names of the file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from onnxsurgeon.errors import ModelError, SettingsError
from onnxsurgeon.graph.files import Parts
from onnxsurgeon.graph.frozen import Frozen
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.reader import from_parts
from onnxsurgeon.quantities import whole
from onnxsurgeon.suggestions import did_you_mean

_PATTERN = frozenset("*?")


def frozen_network(
    parts: Parts, freeze: Sequence[str], train_only: Sequence[str], *, name: str = "model", source: str = "model"
) -> Network:
    """Read the network without the layers that are to stay as they are; those that the file marks as frozen stay so.

    Args:
        parts: the model.
        freeze: layers that are neither trained nor operated on, as ``inspect`` lists them: nodes' names, patterns such
            as "encoder.*", or numbers of hidden layers, counted from 1.
        train_only: the only layers that are trained, likewise; they may be among those that the file marks as frozen.
        name: the network's.
        source: the beginning of messages.

    Raises:
        SettingsError: both are given, or no layer is called so.
        ModelError: the model cannot be read, or no layer is left.
    """
    network = from_parts(parts, name=name, source=source)
    if not freeze and not train_only:
        return network
    if freeze and train_only:
        raise SettingsError("freeze, train-only: each says what the other leaves: give one of them", "exclusive")
    return _checked(_frozen(parts, network, freeze, train_only, name, source), source)


def _checked(network: Network, source: str) -> Network:
    """Return the network if none of its layers is frozen.

    Raises:
        ModelError: a frozen layer is among its layers, which only happens to one without a name of its own.
    """
    loose = [layer for layer in _names(network) if layer in network.frame.frozen.layers]
    if loose:
        raise ModelError(f"{source}: node '{loose[0]}' cannot be frozen: another bears its name", "damaged-model")
    return network


def _frozen(
    parts: Parts, network: Network, freeze: Sequence[str], train_only: Sequence[str], name: str, source: str
) -> Network:
    marked = network.frame.frozen
    if freeze:
        named = _found(freeze, network, network, source, "freeze")
        return from_parts(parts, name=name, source=source, frozen=Frozen((*marked.layers, *named), marked.before))
    whole = _unmarked(parts, network, name, source)
    named = _with_partners(whole, _found(train_only, network, whole, source, "train-only"))
    inner = _names(network)
    if marked.before and named <= inner.keys():
        return from_parts(
            parts, name=name, source=source, frozen=Frozen(tuple(n for n in inner if n not in named), marked.before)
        )
    others = tuple(layer for layer in _names(whole) if layer not in named)
    return from_parts(parts, name=name, source=source, frozen=Frozen(others))


def _unmarked(parts: Parts, network: Network, name: str, source: str) -> Network:
    """Read the network including the layers that the file marks as frozen; without them where they cannot be read."""
    if not network.frame.frozen:
        return network
    try:
        return from_parts(parts, name=name, source=source, frozen=Frozen())
    except ModelError:
        return network


def _names(network: Network) -> dict[str, None]:
    """Names of the nodes of all layers, in order; layers that read one hidden layer side by side are all included."""
    found: dict[str, None] = {}
    for segment in network.segments:
        own = segment.layers[:-1] if segment.readers else segment.layers
        found.update((layer.names.node, None) for layer in own)
        found.update((reader.names.node, None) for reader in segment.readers)
    return found


def _with_partners(network: Network, named: set[str]) -> set[str]:
    """Names of layers, and of all that have the weights of one of them."""
    found = set(named)
    for number in {*network.tied.values()}:
        uses = [network.segments[each].layers for each in network.uses(number)]
        for layers in zip(*uses, strict=True):
            names = {layer.names.node for layer in layers}
            found |= names if names & named else set()
    return found


def _found(given: Iterable[str], numbered: Network, named: Network, source: str, option: str) -> set[str]:
    known = _names(named)
    found: set[str] = set()
    for text in given:
        for part in [text] if text in known else text.split(","):
            found |= _matching(part.strip(), known, numbered, source, option)
    return found


def _matching(text: str, known: Iterable[str], numbered: Network, source: str, option: str) -> set[str]:
    known = list(known)
    if text in known:
        return {text}
    number, count = whole(text), numbered.hidden_count
    if number is not None:
        if not 1 <= number <= count:
            have = f"they are numbered 1 to {count}" if count else "it has none"
            raise SettingsError(f"{option}: {source} has no hidden layer {number}: {have}", "layer-names")
        return {numbered.hidden(number).names.node}
    found = {name for name in known if fnmatchcase(name, text)} if _PATTERN & set(text) else set()
    if not found:
        raise SettingsError(
            f"{option}: {source} has no layer called '{text}'{did_you_mean(text, known)}", "layer-names"
        )
    return found
