"""How fast training is, beside whatever else can train the same network, and beside what the processor could do.

    python tools/benchmark.py [--peer-python PATH ...] [--json benchmark.json]    steps, and two branches at once
    python tools/benchmark.py --plot width.png                                    … and cost against width
    python tools/benchmark.py --convolutions [--threads 2]      steps of convolutional networks beside PyTorch's, alone
    python tools/benchmark.py --convolutions --profile          … and where the time of each goes, node by node
    python tools/benchmark.py --memory                          peak memory of training on 50,000 images, alone
    python tools/benchmark.py --before PATH                     … beside the loop engine of another checkout
    python tools/benchmark.py --run        … and whole runs of the Surgeon, a cluster, start-up, a very large network

Every peer starts from the same weights, sees the same batches in the same order, and has one thread. They take turns
(and change places from round to round), one process computing at any moment, so that whatever else the machine is
doing meets all of them. A step is everything that one more batch takes: picking its rows from the resident data,
forward, backward, update; sessions, artifacts and compilers are done before the clock starts. No environment holds all
peers: name the Pythons of others with --peer-python; they need numpy, and what they are to measure:

    loop engine                      onnxsurgeon's dependencies and any ONNX Runtime
    artifacts engine                 the same with onnxruntime-training-cpu, which excludes the current ONNX Runtime
    PyTorch eager, torch.compile     torch; a C++ compiler for the latter
    onnxsim.compile_training_loop    onnxsim and an ONNX Runtime
    MLPClassifier.partial_fit        scikit-learn
    Keras fit                        keras and a backend: the first installed of TensorFlow, JAX, PyTorch
    numpy by hand                    numpy

Ratios are medians over the rounds of the quotient within a round, with quartiles. The last column says whether all did
the same work: 1e-8 to 1e-7 is rounding; where rounding puts a Relu's input on the other side of zero it is 1e-6 to
1e-4, still far below what the loop moved the weights.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from benchmarking import cluster, convolutions, image_memory, parallel, profile, startup, steps, whole_run, width  # noqa: E402
from benchmarking.environments import Environment, compete, start  # noqa: E402
from benchmarking.plain_peers import PRODUCT  # noqa: E402
from benchmarking.serve import PEERS  # noqa: E402
from benchmarking.task import BATCH, RATE, SIZES, STEPS, make_task  # noqa: E402

# On how many rounds whole runs on a cluster are repeated: they take seconds, and vary less than a step does.
CLUSTER_ROUNDS = 3


def main() -> None:
    """Parse, measure, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", nargs="+", default=[], metavar="PATH", help="Pythons of other environments")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS, help="the loop engine always runs")
    parser.add_argument("--rounds", type=int, default=9, help="runs of each peer, in turns")
    parser.add_argument("--steps", type=int, help=f"timed steps in each run; by default {STEPS}")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="measure cost against width; draw it, .png or .svg")
    parser.add_argument("--convolutions", action="store_true", help="measure convolutional networks, and nothing else")
    parser.add_argument("--threads", type=int, default=1, help="of each peer of --convolutions")
    parser.add_argument("--profile", action="store_true", help="with --convolutions: milliseconds by kinds of nodes")
    parser.add_argument("--memory", action="store_true", help="peak memory of training on images, and nothing else")
    parser.add_argument("--before", type=Path, metavar="PATH", help="another checkout, whose loop engine is a peer")
    parser.add_argument("--run", action="store_true", help="also everything that takes minutes")
    parser.add_argument("--run-epochs", type=int, default=100, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to this file")
    arguments = parser.parse_args()
    if min(arguments.rounds, 1 if arguments.steps is None else arguments.steps) < 1:
        parser.error("--rounds and --steps are 1 or more")
    try:
        for option, path in (("--plot", arguments.plot), ("--json", arguments.json)):
            if path and not path.parent.is_dir():  # said now, not after minutes of measuring
                raise SystemExit(f"{option} {path}: no such folder")
        if arguments.before and not (arguments.before / "onnxsurgeon" / "__init__.py").is_file():
            raise SystemExit(f"--before {arguments.before}: no checkout of onnxsurgeon")
        if arguments.plot:
            width.require_plot(arguments.plot)
        if arguments.memory:
            report = memory_part()
        else:
            report = convolution_part(arguments) if arguments.convolutions else measure(arguments)
    except SystemExit as error:
        parser.exit(2, f"benchmark.py: {error.code}\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for, printed as it comes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environments = start(arguments.peer_python, folder, arguments.before)
        try:
            report = header(environments, arguments)
            report |= step_part(environments, arguments, folder)
            if arguments.plot:
                report["width"] = width.measure(environments, arguments.rounds, arguments.steps, folder)
                width.plot(report["width"], arguments.plot)
                print(f"\nCost of a step against width, µs, medians:\n\n{width.table(report['width'])}", flush=True)
        finally:
            for environment in environments:
                environment.close()
    report["parallel"] = parallel_part(arguments)
    if arguments.run:
        report |= run_part(arguments)
    report["machine"]["load average at the end"] = load()
    return report


def convolution_part(arguments: argparse.Namespace) -> dict[str, Any]:
    """Convolutional networks, printed as they come."""
    report: dict[str, Any] = {"machine": machine(), "convolutions": []}
    print("- machine: " + ", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    print(f"- {arguments.threads} thread(s), {arguments.rounds} rounds in turns: median (quartiles)\n")
    print(convolutions.HEADER, flush=True)
    for record in convolutions.measure(arguments.rounds, arguments.threads, arguments.before):
        print(convolutions.row(record), flush=True)
        report["convolutions"].append(record)
    if arguments.profile:
        report["profile"] = profile.measure(arguments.threads)
        print(f"\nWhere a step's time goes, ms, in a session that is watched:\n\n{profile.table(report['profile'])}")
    report["machine"]["load average at the end"] = load()
    return report


def memory_part() -> dict[str, Any]:
    """Peak memory of training on images, of few and of many."""
    report: dict[str, Any] = {"machine": machine(), "memory": []}
    for rows in (image_memory.FEW, image_memory.ROWS):
        report["memory"].append(image_memory.measure(rows))
        print(image_memory.text(report["memory"][-1]), flush=True)
    return report


def header(environments: list[Environment], arguments: argparse.Namespace) -> dict[str, Any]:
    """Machine, versions and settings, printed."""
    settings = {"batch": BATCH, "optimizer": "SGD", "rate": RATE, "threads": 1, "rounds": arguments.rounds}
    report: dict[str, Any] = {"machine": machine(), "settings": {**settings, "steps": arguments.steps or STEPS}}
    report["environments"] = [str(environment) for environment in environments]
    print("- machine: " + ", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    for versions in report["environments"]:
        print(f"- environment: {versions}")
    how = f"{arguments.rounds} interleaved rounds: median (quartiles)"
    print(f"- each step: batch {BATCH}, SGD, rate {RATE}, float32, one thread; {how}", flush=True)
    return report


def machine() -> dict[str, str | int]:
    """Platform, processor, cores, and what else is going on."""
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.is_file() else ""
    models = re.findall(r"^model name\s*: (.+)$", text, re.MULTILINE) or [platform.processor() or "unknown"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"platform": platform.platform(), "processor": models[0], "cores": cores, "load average": load()}


def load() -> str:
    """Mean number of running processes in the last minute: below 1 the machine was left to this tool."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def step_part(environments: list[Environment], arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every peer on every size."""
    report: dict[str, Any] = {"steps": [], "absent": {}}
    peers = [peer for peer in PEERS if peer in {*arguments.peers, next(iter(PEERS))}]
    print(f"\n{steps.HEADER}")
    for size in dict.fromkeys(arguments.sizes):
        task = make_task(SIZES[size], arguments.steps or STEPS[size])
        entrants, absent = compete(environments, task, peers, arguments.rounds, folder)
        records = steps.records(size, task, entrants)
        print("\n".join(map(steps.row, records)), flush=True)
        report["steps"] += records
        report["absent"] |= {peer: reason for peer, reason in absent.items() if peer not in report["absent"]}
    peaks = {record["size"]: record["peak"] for record in report["steps"]}
    print(f"\n- peak, {PRODUCT} × {PRODUCT} float32 on one thread in the same rounds: ", end="")
    print("; ".join(f"{peak['gflops']:.0f} GFLOP/s, {peak['product']} ({size})" for size, peak in peaks.items()))
    print("".join(f"- {peer}: {reason}\n" for peer, reason in report["absent"].items()), end="", flush=True)
    return report


def parallel_part(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Two branches on two cores."""
    measured = []
    print(f"\nTwo branches:\n\n{parallel.HEADER}")
    for size in dict.fromkeys(arguments.sizes):
        count = 5 * (arguments.steps or STEPS[size])
        measured.append(parallel.measure(size, SIZES[size], count, arguments.rounds))
        print(parallel.row(measured[-1]), flush=True)
    return measured


def run_part(arguments: argparse.Namespace) -> dict[str, Any]:
    """Whole runs, here and on a cluster; start-up; a head of 123 million parameters."""
    report: dict[str, Any] = {"startup": startup.measure(arguments.rounds), "runs": []}
    print(f"\nStart-up:\n\n{startup.text(report['startup'])}\n\nWhole runs:\n", flush=True)
    for record in (whole_run.fashion(arguments.run_epochs), whole_run.cifar_sized()):
        report["runs"].append(record)
        print(whole_run.text(record), flush=True)
    absent = cluster.why_absent()
    report["cluster"] = absent or cluster.measure(min(arguments.rounds, CLUSTER_ROUNDS))
    print(f"\nThe same run on a cluster on this machine:\n\n{absent or cluster.HEADER}")
    print("".join(f"{cluster.row(record)}\n" for record in report["cluster"] if not absent), flush=True)
    print("A head of 123 million parameters:\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, str(HERE / "large_head.py"), folder], check=True)
    return report


if __name__ == "__main__":
    main()
