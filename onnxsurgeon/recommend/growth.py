"""Where a network could grow: layers widened by half or doubled, and a layer more."""

from __future__ import annotations

from onnxsurgeon.graph.network import Network
from onnxsurgeon.recommend.candidates import Candidate, count_after
from onnxsurgeon.surgery import InsertIdentity, Surgery, Widen

DEEPEST = 4  # hidden layers of a segment up to which another is proposed
FACTORS = (2.0, 1.5, 1.2)  # that a layer is widened by


def growths(network: Network, most: int, *, mode: str, branch: int = 0) -> list[Candidate]:
    """Candidates of at most ``most`` parameters, those that grow most first.

    Every hidden layer widened by each of ``FACTORS`` that fits, two of them at most and by two units at least; and a
    layer inserted behind the last hidden one of each segment.

    Args:
        network: the branch's network.
        most: parameter count that must not be exceeded.
        mode: how to widen.
        branch: the branch's number, passed on.
    """
    found = []
    for i in range(1, network.hidden_count + 1):
        units, (position, hidden) = network.hidden(i).units, network.depth(i)
        amounts = dict.fromkeys(max(2, round((factor - 1) * units)) for factor in FACTORS)
        fitting = [amount for amount in amounts if count_after(network, Widen(i, amount, mode)) <= most]
        found += [
            _candidate(network, Widen(i, amount, mode), f"layer {i}: {units} → {units + amount}", branch)
            for amount in fitting[:2]
        ]
        if position == hidden < DEEPEST and count_after(network, InsertIdentity(i)) <= most:
            found.append(_candidate(network, InsertIdentity(i), f"another layer after the last, layer {i}", branch))
    return sorted(found, key=lambda candidate: -candidate.parameters)


def _candidate(network: Network, surgery: Surgery, reason: str, branch: int) -> Candidate:
    after = count_after(network, surgery)
    return Candidate(
        surgery, 0.0, after, f"{reason}, {after / network.parameter_count:.2f} times the parameters", branch
    )
