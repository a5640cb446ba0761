"""Growth of a network: shapes of about the same size, for which layers are inserted and widened at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from onnxsurgeon.choices import BY_GRADIENTS
from onnxsurgeon.graph.network import Network
from onnxsurgeon.recommend.blocks import deeper_blocks
from onnxsurgeon.recommend.candidates import Candidate
from onnxsurgeon.recommend.channels import channels, deeper_convolutions, is_of_channels, profiles_of_channels
from onnxsurgeon.recommend.resources import Bounds, Budget, multiplications_of
from onnxsurgeon.recommend.shrinking import UNBOUNDED
from onnxsurgeon.surgery import Grow, InsertBehindPool, InsertBlock, InsertIdentity, Surgery, Widen, operate
from onnxsurgeon.surgery.apply import count_of

DEEPEST = 4  # a segment with this many hidden layers gets no further one
# Widths of the hidden layers from the first on, as powers of this: all alike, or each half as wide as the one before.
PROFILES = {"even": 1.0, "tapered": 0.5}
# A shape with convolutions may take this many times the multiplications of the cheapest one; an epoch is as much
# longer. The second is for where all are dear.
SLOWEST, SLOWEST_OF_DEAR = 2.0, 1.5
# Multiplications for a row up to which convolutions stay where maps are large: an epoch of 50,000 rows takes a minute
# or so of a core. Beyond it those behind the last pool compete, which have as many parameters for fewer of them.
DEAR = 15_000_000
Key = tuple[object, ...]  # what tells a shape from another
LEAST = 1.05  # times the parameters: less is no growth


def growths(network: Network, most: int, *, mode: str, branch: int = 0, bounds: Bounds = UNBOUNDED) -> list[Candidate]:
    """Candidates of nearly ``most`` parameters, each with another shape.

    Each is one layer deeper in one of the segments, has another residual block, or is as deep as the network is; its
    layers have even or tapered widths, or the network's own in proportion. No layer gets narrower. For networks with
    convolutions see ``recommend.channels``.

    One hidden layer stays alone only where there is no room for two: a wide network does as well with one, but not once
    it has to be small. Of 784-10-10 grown on Fashion-MNIST and shrunk to 10,000 parameters, seven results with one had
    0.8645 ± 0.0030 of the test rows right, fourteen with two 0.8703 ± 0.0026: trial runs under various settings, which
    chose their depth themselves, so a hint and no controlled comparison.

    Args:
        network: the branch's network.
        most: parameter count that must not be exceeded.
        mode: how to widen, or ``BY_GRADIENTS``.
        branch: the branch's number, passed on.
        bounds: bounds on computation and memory, which must not be exceeded either.
    """
    found: dict[Key, Candidate] = {}
    costs: dict[Key, int] = {}
    has_channels = bool(channels(network))
    convolutions = [segment for segment in network.segments if segment.is_convolution]
    is_shallow = not any(each.hidden_count for each in convolutions) if has_channels else network.group_count == 1
    depths = deeper_convolutions(network) if has_channels else _depths(network)
    for inserted, deeper in chain(deeper_blocks(network), depths):
        if found and not inserted and is_shallow:
            continue
        budget = Budget(deeper, bounds)
        for name, profile in (profiles_of_channels(deeper) if has_channels else _profiles(deeper)).items():
            widths = _fill(deeper, profile, most, budget)
            count = count_of(deeper, widths)
            surgeries: list[Surgery] = [*inserted]
            more = {i: units - deeper.group(i).units for i, units in widths.items()}
            surgeries += [_wider(deeper, i, units, mode) for i, units in more.items() if units]
            if not surgeries or not LEAST * network.parameter_count <= count <= most or budget.excess(widths):
                continue
            shape = "-".join(map(str, widths.values()))
            times = count / network.parameter_count
            reason = f"{name} widths, {shape}: {times:.2f} times the parameters"
            candidate = Candidate(surgeries[0], 0.0, count, reason, branch, tuple(surgeries[1:]))
            is_told = has_channels or any(isinstance(each, InsertBlock) for each in inserted)
            key = (tuple(inserted) if is_told else len(inserted), *widths.values())
            found.setdefault(key, candidate)
            costs.setdefault(key, (multiplications_of(deeper, widths) if has_channels else None) or 0)
    return [found[key] for key in _affordable(found, costs)]


def _affordable(found: Mapping[Key, Candidate], costs: Mapping[Key, int]) -> list[Key]:
    """The shapes whose multiplications are not too many to compete, in their order.

    Of equal parameters, those behind the last pool cost fewer multiplications and are no more accurate: a convolution
    there competes only where there is nothing else below ``DEAR``. Trained on 12,000 images of Fashion-MNIST for 12
    epochs, one seed, c24-c24-p-c48-c48-c24-p had 0.9137 of 12,000 others right (12.4 million multiplications); with its
    second pool before the last two convolutions 0.9053 (7.8 million, 58,810 parameters both), and 0.9099 with a dropout
    of a tenth in place of a quarter, where the first had 0.9103.
    """
    behind = {key for key, each in found.items() if any(isinstance(s, InsertBehindPool) for s in each.surgeries)}
    within = [costs[key] for key in found if key not in behind]
    if within and min(within) <= DEAR:
        return [key for key in found if key not in behind and costs[key] <= SLOWEST * min(within)]
    most = max(DEAR, SLOWEST_OF_DEAR * min(costs.values(), default=0))
    return [key for key in found if costs[key] <= most]


def _depths(network: Network) -> Iterator[tuple[list[Surgery], Network]]:
    """For each segment, the network with one more layer behind its last hidden one; and the network as it is."""
    for i in range(1, network.hidden_count + 1):
        position, hidden = network.depth(i)
        if position == hidden < DEEPEST:
            surgery: Surgery = InsertIdentity(i)
            yield [surgery], operate(network, surgery).network
    yield [], network


def _wider(network: Network, i: int, units: int, mode: str) -> Surgery:
    """A surgery that adds units to a group: by gradients for hidden dense layers only, since only these have them."""
    if mode != BY_GRADIENTS:
        return Widen(i, units, mode)
    if i <= network.hidden_count and network.hidden(i).geometry is None:
        return Grow(i, units)
    return Widen(i, units, "fresh") if is_of_channels(network, i) else Widen(i, units)


def _profiles(network: Network) -> dict[str, dict[int, float]]:
    """Relative widths of groups, by number: for the hidden layers, or the present ones for all that can be wider."""
    layers = range(1, network.hidden_count + 1)
    made = {name: {i: base ** (network.depth(i)[0] - 1) for i in layers} for name, base in PROFILES.items()}
    free = [i for i in range(1, network.group_count + 1) if not network.group(i).normalised]
    present = {"the present": {i: float(network.group(i).units) for i in free}}
    return {name: each for name, each in (made | present).items() if each}


def _fill(network: Network, profile: Mapping[int, float], most: int, budget: Budget) -> dict[int, int]:
    """The largest widths of that profile within the limits, with none below the present ones."""
    present = {i: network.group(i).units for i in profile}

    def widths(base: float) -> dict[int, int]:
        return {i: max(present[i], int(base * share)) for i, share in profile.items()}

    low, high = 0.0, most / min(profile.values())
    for _ in range(60):
        middle = (low + high) / 2
        is_within = count_of(network, widths(middle)) <= most and not budget.excess(widths(middle))
        low, high = (middle, high) if is_within else (low, middle)
    return widths(low)
