"""From spectra to candidates: which surgeries are worth trying, how much of each, and why (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.activations import Activation
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array, singular_values
from onnxsurgeon.recommend.spectrum import Thresholds, beyond_rank, small_values
from onnxsurgeon.surgery import Factorize, InsertIdentity, Merge, Narrow, Surgery, Widen, operate, spell

IDENTITY = "identity"
PROPOSED = (Widen, InsertIdentity, Narrow, Factorize, Merge)  # by ``propose``, besides the identity


@dataclass(frozen=True)
class LayerReport:
    """What the recommendation knows about a hidden layer.

    Attributes:
        layer: i, counted from 1.
        depth: i / h within its segment of h hidden layers, 1 for the last.
        inputs: n_{i-1}.
        units: n_i.
        activation: φ_i, None for a linear layer.
        parameters: weights, biases and slopes of the layer.
        singular_values: those of W_i, descending.
        small: number of small ones among them.
        removable: n_r (eq. 13, ``removable_neurons``).
    """

    layer: int
    depth: float
    inputs: int
    units: int
    activation: Activation | None
    parameters: int
    singular_values: Array
    small: int
    removable: int

    @property
    def share(self) -> float:
        """n_r / n_i."""
        return self.removable / self.units

    @property
    def beyond(self) -> int:
        """The number of removable units that are beyond the rank bound and have no singular value."""
        return self.removable - self.small


@dataclass(frozen=True)
class Candidate:
    """A surgery that is proposed.

    Attributes:
        surgery: None for the identity: leave the branch as it is and go on training.
        score: between 0 and 1; higher is proposed first.
        parameters: parameter count of the result.
        reason: one sentence.
        branch: number of the branch it would be performed on.
        further: surgeries performed after the first, without training in between.
    """

    surgery: Surgery | None
    score: float
    parameters: int
    reason: str
    branch: int = 0
    further: tuple[Surgery, ...] = ()

    @property
    def surgeries(self) -> tuple[Surgery, ...]:
        """All surgeries, in order; none for the identity."""
        return () if self.surgery is None else (self.surgery, *self.further)

    @property
    def operation(self) -> str:
        """The first surgery's operation, or "identity"."""
        return IDENTITY if self.surgery is None else self.surgery.operation

    @property
    def recuperation(self) -> int:
        """How many times --recuperation-batches it is trained before it is judged."""
        return 1 if self.surgery is None else self.surgery.recuperation

    def __str__(self) -> str:
        return "+".join(map(spell, self.surgeries)) or IDENTITY


def inspect_layers(network: Network, thresholds: Thresholds) -> list[LayerReport]:
    """Report on every hidden layer, from the input on."""
    reports = []
    for i in range(1, network.hidden_count + 1):
        layer, (position, hidden) = network.hidden(i), network.depth(i)
        small = small_values(layer.weight, thresholds)
        reports.append(
            LayerReport(
                i,
                position / hidden,
                layer.inputs,
                layer.units,
                layer.activation,
                sum(values.size for _, values in layer.parameters()),
                singular_values(layer.weight),
                small,
                small + beyond_rank(layer.weight, small, thresholds, is_linear=layer.is_linear),
            )
        )
    return reports


def propose(network: Network, thresholds: Thresholds, *, mode: str = "split", branch: int = 0) -> list[Candidate]:
    """Every candidate for ``network``, the identity first, then layer by layer; none that cannot be done.

    Args:
        network: the branch's network.
        thresholds: ε1, ε2, and whether the rank bound counts. Without it (the paper), a factorization is proposed even
            where it saves no parameters, and narrow even where the rank of the weight forces it to take away units that
            are not removable by singular values.
        mode: how to widen.
        branch: the branch's number, passed on.
    """
    count = network.parameter_count
    candidates = [Candidate(None, 0.0, count, "keep the network as it is and go on training", branch)]
    for report in inspect_layers(network, thresholds):
        for surgery, score, reason in _for_layer(report, network.hidden_count, thresholds, mode):
            if _can_be_done(surgery, network):
                candidates.append(Candidate(surgery, score, count_after(network, surgery), reason, branch))
    return candidates


def _can_be_done(surgery: Surgery, network: Network) -> bool:
    try:
        surgery.require(network)
    except SurgeryError:
        return False
    return True


def count_after(network: Network, surgery: Surgery) -> int:
    """Parameter count of the surgery's result, without performing it where that is possible."""
    count = surgery.parameters_after(network.parted())
    return operate(network, surgery).network.parameter_count if count is None else count


def _for_layer(
    report: LayerReport, hidden: int, thresholds: Thresholds, mode: str
) -> Iterator[tuple[Surgery, float, str]]:
    i, n, n_in, small = report.layer, report.units, report.inputs, report.removable
    share, depth, most = report.share, report.depth, min(report.inputs, report.units)
    finding = f"{small} of layer {i}'s {n} neurons are removable by eq. 13"
    for amount in (max(2, n // 10), 10 * max(2, n // 10)):
        yield Widen(i, amount, mode), 1 - share, f"{finding}: the layer uses its width, {amount} more may help"
    yield InsertIdentity(i), (1 - share) * depth, f"{finding}: the layer is full, another after it may help"
    wanted = n - min(max(1, small), n - 1)
    if n > 1 and (wanted <= most or not thresholds.rank_bound):
        kept = min(wanted, most)
        yield Narrow(i, kept), share, f"{finding}: {kept} of them carry the rest"
    rank = min(n - max(1, small), most - report.small if thresholds.rank_bound else most)
    saves = rank * (n_in + n) < n_in * n
    if rank >= 1 and (saves or not thresholds.rank_bound):
        what = "keeps every singular value that counts" if small else "drops only the smallest singular value"
        yield Factorize(i, rank), share, f"{finding}: rank {rank} {what}"
    if small == n:
        yield Merge(i), 1.0, f"{finding}: nothing in it counts, so merge it into the next layer"
    else:
        yield Merge(i), share * depth, f"{finding}: merging hidden layer {i} of {hidden} into the next saves it whole"
