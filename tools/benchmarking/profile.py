"""Where the time of a training step of the loop engine goes: ONNX Runtime's own profile, by kinds of nodes."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarking.convolutions import task
from benchmarking.image_networks import CLASSES, NETWORKS, ImageNetwork
from benchmarking.task import RATE

DISABLED = ["NchwcTransformer"]  # as of sessions that train
STEPS = 12  # that are watched, the first apart: the least time of each node is taken


def measure(threads: int = 1) -> list[dict[str, Any]]:
    """For each network the milliseconds of a step that each kind of node takes, and how many of them there are."""
    return [{"network": str(network), "kinds": of(network, threads)} for network in NETWORKS]


def of(network: ImageNetwork, threads: int) -> dict[str, tuple[int, float]]:
    """Kind of node → how many there are in a step, and their milliseconds, the dearest first."""
    from onnxsurgeon import Examples, from_model
    from onnxsurgeon.runtime import session_options
    from onnxsurgeon.training.blocks import channels_of_a_block
    from onnxsurgeon.training.forward import by_unit_arrays, parameter_names
    from onnxsurgeon.training.loop_graph import training_loop

    start, (images, labels), *_ = task(network)
    trained = from_model(network.model(start))
    examples = Examples.classification(images, labels, CLASSES)
    batches = np.random.default_rng(1).integers(0, len(images), (STEPS + 1, network.batch))
    names = parameter_names(trained)
    feeds = {f"initial_{name}": values for name, values in zip(names, by_unit_arrays(trained), strict=True)}
    feeds |= {
        "rates": np.full(STEPS + 1, -RATE / network.batch, np.float32),
        "indices": batches,
        "features": examples.features[0],
        "targets": examples.targets[0],
        "ones": np.ones((1, network.batch), np.float32),
    }
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads)
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, "profile"))
        model = training_loop(trained, examples, block=channels_of_a_block()).SerializeToString()
        session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"], disabled_optimizers=DISABLED)
        session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    found = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    inner = [event for event in found if event["args"]["op_name"] != "Scan"]
    by_name: dict[str, list[Any]] = {}
    for event in inner:
        by_name.setdefault(event["name"], []).append(event)
    times: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for each in by_name.values():
        kind = each[0]["args"]["op_name"]
        counts[kind] += 1
        times[kind] += float(min(event["dur"] for event in each[1:] or each)) / 1e3
    return {kind: (counts[kind], spent) for kind, spent in sorted(times.items(), key=lambda pair: -pair[1])}


def table(measured: list[dict[str, Any]]) -> str:
    """A row for each network: its kinds of nodes with their number and milliseconds, the dearest first."""
    lines = ["| network, batch | all | kinds of nodes, their number: ms |", "| --- | ---: | --- |"]
    for record in measured:
        kinds = record["kinds"]
        whole = sum(spent for _, spent in kinds.values())
        shown = [f"{count} {kind}: {spent:.2f}" for kind, (count, spent) in kinds.items() if spent >= whole / 100]
        lines.append(f"| {record['network']} | {whole:.1f} | {'; '.join(shown)} |")
    return "\n".join(lines)
