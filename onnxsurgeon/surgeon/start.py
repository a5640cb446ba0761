"""The start of a run: whether the given network is trained, and whether the wishes can be met."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.graph.memory import peak_memory
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.writer import save
from onnxsurgeon.recommend.blocks import barest
from onnxsurgeon.recommend.resources import memory_of, multiplications_of
from onnxsurgeon.recommend.shrinking import least_count, prunable
from onnxsurgeon.surgeon.file_size import bytes_besides_parameters
from onnxsurgeon.surgeon.latency import latency_of
from onnxsurgeon.surgeon.objective import Given, Limits
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.surgeon.significance import chance_loss, chance_scores, with_row_scores
from onnxsurgeon.surgery.apply import cut_to
from onnxsurgeon.task import SQUARED
from onnxsurgeon.training.engine import Engine

BEYOND_CHANCE = 3.0  # standard errors
LESS = 0.95  # times the loss by chance
GAP = 0.1  # of the way from chance to a perfect metric: random weights of few classes get some of it
ITSELF = "it is what is imitated"
WITHOUT_BLOCKS = ", without the branches of residual blocks"
PATIENCE = 5  # measurements of a latency that is beyond a limit, before that limit is refused
LARGER = 1.05  # times the given size: a limit below that allows no growth


@dataclass(frozen=True)
class Start:
    """Whether the given network is trained.

    Attributes:
        is_trained: whether it is, or was said to be.
        reason: why, in words.
    """

    is_trained: bool
    reason: str


def start_of(network: Network, settings: SurgeonSettings, engine: Engine, train: Examples, rows: Examples) -> Start:
    """Whether the given network is trained: as the settings say, or by its metric on ``train`` and on ``rows``.

    ``rows`` are those that decide. Few of them tell little, so the training rows count too; that the network has seen
    these does not matter here. The metric has to be better than the best guess without inputs, by ``BEYOND_CHANCE``
    standard errors of the rows' differences, and by a tenth of what that guess lacks, since random weights can be
    lucky. Or its loss has to be less than that of the classes' frequencies.

    Raises:
        EngineError: the network cannot be evaluated.
    """
    if settings.start != "auto":
        return Start(settings.start == "trained", f"--start {settings.start}")
    if any(task.imitates for task in rows.tasks) and _is_teacher(network, engine, rows):
        return Start(True, ITSELF)
    both = (train, rows)
    parts, losses, by_chance = [], [], 0.0  # for many rows, one number a row takes as much memory as a column of them
    for each in both:
        metrics, scores = with_row_scores(network, engine, each)
        losses.append(metrics.loss)
        parts.append(scores)
        chance = chance_scores(each)
        by_chance += float(chance.sum())
        parts[-1] -= chance
        del chance, scores
    difference = np.concatenate(parts)
    del parts
    best = sum(0.0 if task.loss == SQUARED else 1.0 for task in rows.tasks)
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.inf
    missing = best - by_chance / len(difference)
    if difference.mean() > BEYOND_CHANCE * error and difference.mean() >= GAP * missing:
        return Start(True, f"its {rows.metric} on {len(difference):,} rows is better than chance")
    # Where one class is the rule, a network that knows more than that may have no better accuracy.
    chances = map(chance_loss, both)
    if difference.mean() >= -BEYOND_CHANCE * error and all(a < LESS * b for a, b in zip(losses, chances, strict=True)):
        return Start(True, f"its loss on {len(difference):,} rows is less than by chance")
    return Start(False, f"its {rows.metric} on {len(difference):,} rows is not better than chance")


def grows(network: Network, settings: SurgeonSettings, accuracy: float, size: int) -> bool:
    """Whether the wishes for a trained network allow, or need, a larger one.

    Args:
        network: the given one.
        settings: the wishes.
        accuracy: the given network's accuracy on the rows that decide.
        size: bytes of its file.

    Raises:
        SettingsError: it is to become smaller and several at once.
    """
    smaller = settings.shrink is not None
    smaller |= settings.max_parameters is not None and settings.max_parameters < network.parameter_count
    smaller |= settings.max_size is not None and settings.max_size < size
    computed = _computed(network, settings)
    smaller |= any(limit < have for limit, have in computed)
    if settings.ensemble is not None:
        if smaller and settings.ensemble > 1:
            raise SettingsError(
                "ensemble: several networks become a larger one, and the trained one that is given is to become "
                "smaller",
                "exclusive",
            )
        return not smaller
    if smaller or settings.max_latency is not None:  # of several limits one is enough
        return False
    if computed:
        return all(limit >= LARGER * have for limit, have in computed)
    if settings.max_parameters is not None:
        return settings.max_parameters >= LARGER * network.parameter_count
    if settings.max_size is not None:
        return settings.max_size >= LARGER * size
    wanted = [each for each in (settings.min_accuracy, settings.target_accuracy) if each is not None]
    return bool(wanted) and accuracy < max(wanted)


def _computed(network: Network, settings: SurgeonSettings) -> list[tuple[int, int]]:
    """Limits on multiplications and memory for a row, each with the network's own value."""
    found: list[tuple[int, int]] = []
    if settings.max_macs is not None:
        found.append((settings.max_macs, network.multiplications or 0))
    if settings.max_memory is not None:
        found.append((settings.max_memory, peak_memory(network) or 0))
    return found


def smallest_file(network: Network, parameters: int) -> int:
    """Estimated bytes of the network's file with that number of parameters."""
    width = min((segment.held or segment.file_dtype).itemsize for segment in network.segments)
    return bytes_besides_parameters(network) + width * parameters


def least_network(network: Network, *, blocks: bool) -> Network:
    """The network that has the least parameters with one unit in each hidden layer: with ``blocks``, without theirs."""
    shallower = barest(network) if blocks else None
    return network if shallower is None or least_count(shallower) >= least_count(network) else shallower


def require_reachable(network: Network, settings: SurgeonSettings, *, blocks: bool = True) -> None:
    """Raise SettingsError where a limit cannot be met by any widths of the network's layers; names the least.

    With ``blocks``, branches of residual blocks may go too: of transformers, only the feed-forward widths are free.
    """
    limits = Limits.of(settings, Given(network.parameter_count, 0.0))
    try:
        _require_reachable(network, settings, limits)
    except SettingsError:
        shallower = least_network(network, blocks=blocks)
        if shallower is network:
            raise
        _require_reachable(shallower, settings, limits, WITHOUT_BLOCKS)


def _require_reachable(network: Network, settings: SurgeonSettings, limits: Limits, without: str = "") -> None:
    """Raise it for the network's widths; ``without`` says what it is without, in words."""
    least, free = least_count(network), prunable(network)
    why = "with one unit in each hidden layer that can be pruned" if free else "and no hidden layer that can be pruned"
    why += without
    what = f"'{network.name}' has at least {least:,} parameters, {why}"
    if limits.parameters is not None and limits.parameters < least:
        name = "max-parameters" if settings.shrink is None else "shrink"
        value = f"{settings.max_parameters:,}" if settings.shrink is None else f"{settings.shrink:g}"
        most = "" if settings.shrink is None else f" ({limits.parameters:,} parameters)"
        raise SettingsError(f"{name}: {value}{most} cannot be reached: {what}", "out-of-reach")
    if limits.size is not None:
        smallest = smallest_file(network, least)
        if limits.size < smallest:
            raise SettingsError(
                f"max-size: {limits.size:,} bytes cannot be reached: {what}, whose file has some {smallest:,} bytes",
                "out-of-reach",
            )

    _require_computed(network, settings, dict.fromkeys(free, 1), why)


def _require_computed(network: Network, settings: SurgeonSettings, widths: Mapping[int, int], why: str) -> None:
    """Raise it for limits on multiplications and memory for a row; ``widths`` are the least."""
    for option, limit, least, what in (
        ("max-macs", settings.max_macs, multiplications_of, "multiplications a row"),
        ("max-memory", settings.max_memory, memory_of, "bytes of tensors in memory at once, for a row"),
    ):
        if limit is None:
            continue
        count = least(network, widths)
        if count is None:
            raise SettingsError(
                f"{option}: what '{network.name}' takes cannot be told: its file leaves the sizes of its inputs open",
                "out-of-reach",
            )
        if limit < count:
            raise SettingsError(
                f"{option}: {limit:,} cannot be reached: '{network.name}' has at least {count:,} {what}, {why}",
                "out-of-reach",
            )


def require_fast_enough(network: Network, settings: SurgeonSettings) -> None:
    """Raise SettingsError where even one unit in each hidden layer takes longer than a limit on latency.

    Widths alone decide that: a network with the least widths is the fastest of those with these layers, also for
    convolutions, though ONNX Runtime has faster kernels for 16 channels than for 15; ranks add layers. Other work of
    the machine makes it take longer, so the least of several measurements counts.
    """
    limit = settings.max_latency
    if limit is None:
        return
    smallest = network
    for i in range(1, network.group_count + 1):
        smallest = cut_to(smallest, i, 1)
    with tempfile.TemporaryDirectory(prefix="onnxsurgeon-") as folder:
        path = Path(folder) / "smallest.onnx"
        save(smallest, path)
        least = math.inf
        for _ in range(PATIENCE):
            least = min(least, latency_of(path))
            if least <= limit:
                return
    raise SettingsError(
        f"max-latency: {limit:.4g} ms cannot be reached: '{network.name}' with one unit in each hidden layer that "
        f"can be pruned takes {least:.4g} ms for a row on this machine",
        "out-of-reach",
    )


def _is_teacher(network: Network, engine: Engine, rows: Examples) -> bool:
    return engine.evaluate(network, rows).accuracy > 1 - 1e-6
