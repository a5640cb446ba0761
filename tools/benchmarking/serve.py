"""The side that runs in an environment: answers requests, a JSON line each on standard input, until that ends.

    {"do": "about"}                                              → versions, and what each peer would run on
    {"do": "prepare", "peer": …, "task": NPZ, "parameters": NPZ} → {}; an untimed run, its final parameters written
    {"do": "run", "peer": …}                                     → {"microseconds": …} a step
    {"do": "forget"}                                             → {}; ends what was prepared

An answer {"error": …} says why not. Only one process computes at any moment: the one that was asked last. Nothing of
onnxsurgeon is imported but by its own engines' peers.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import distributions
from typing import Any, NamedTuple

import numpy as np

from benchmarking import onnx_peers, plain_peers
from benchmarking.plain_peers import Runner
from benchmarking.task import Task

LOOP, ARTIFACTS = "loop engine", "artifacts engine"
TORCH, NUMPY = "PyTorch eager", "numpy by hand"
# One of four packages of ONNX Runtime is installed, and the first of Keras' backends that is.
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-training-cpu", "onnxruntime-training")
TRAINING = RUNTIMES[2:]
BACKENDS = ("tensorflow", "tensorflow-cpu", "jax", "torch")
PACKAGES = ("numpy", "onnx", "onnxsim", "torch", "scikit-learn", "keras", "tensorflow", "tensorflow-cpu", "jax")


class Peer(NamedTuple):
    """How a peer is made, and the packages it runs on, each any one of several."""

    make: Callable[[Task], Runner]
    needs: tuple[tuple[str, ...], ...]


PEERS = {
    LOOP: Peer(onnx_peers.loop_peer, (RUNTIMES,)),
    ARTIFACTS: Peer(onnx_peers.artifacts_peer, (TRAINING,)),
    NUMPY: Peer(plain_peers.numpy_peer, (("numpy",),)),
    TORCH: Peer(plain_peers.torch_peer, (("torch",),)),
    "torch.compile": Peer(plain_peers.compiled_torch_peer, (("torch",),)),
    "onnxsim.compile_training_loop": Peer(onnx_peers.onnxsim_peer, (("onnxsim",), RUNTIMES)),
    "MLPClassifier.partial_fit": Peer(plain_peers.sklearn_peer, (("scikit-learn",),)),
    "Keras fit": Peer(plain_peers.keras_peer, (("keras",), BACKENDS)),
}
# What a thread could do at most: not peers, but run in the same rounds.
PRODUCTS = {
    "sgemm of numpy": Peer(plain_peers.numpy_product, (("numpy",),)),
    "sgemm of PyTorch": Peer(plain_peers.torch_product, (("torch",),)),
    "sgemm of ONNX Runtime": Peer(onnx_peers.onnxruntime_product, (RUNTIMES,)),
}
ALL = {**PEERS, **PRODUCTS}


def main() -> None:
    """Serve."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is none of our answers
    installed = {found.name.lower().replace("_", "-"): found.version for found in distributions()}
    if backend := first(BACKENDS, installed):
        os.environ["KERAS_BACKEND"] = backend.removesuffix("-cpu")
    runners: dict[str, Runner] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = about(installed) if request["do"] == "about" else serve(request, runners)
        except Exception as error:  # peers' exceptions share no base, and one must not cost us the others
            lines = str(error).strip().splitlines()
            answer = {"error": f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def first(alternatives: tuple[str, ...], installed: dict[str, str]) -> str:
    """The first of the packages that is installed; "" where none is."""
    return next((name for name in alternatives if name in installed), "")


def about(installed: dict[str, str]) -> dict[str, Any]:
    """Versions, and for each peer what it runs on (such as "torch 2.13.0"), or null where that is missing."""
    runs_on = {}
    for name, peer in ALL.items():
        packages = [first(alternatives, installed) for alternatives in peer.needs]
        runs_on[name] = " on ".join(f"{each} {installed[each]}" for each in packages) if all(packages) else None
    versions = {name: installed[name] for name in sorted((*PACKAGES, *RUNTIMES)) if name in installed}
    return {"python": platform.python_version(), "packages": versions, "runs_on": runs_on}


def serve(request: dict[str, Any], runners: dict[str, Runner]) -> dict[str, Any]:
    """Make a peer for a task and run it once, run it again, or let go of all of them."""
    if request["do"] == "forget":
        runners.clear()
        return {}
    name = request["peer"]
    if request["do"] == "run":
        return {"microseconds": runners[name]().microseconds}
    runner = ALL[name].make(Task.load(request["task"]))
    np.savez(request["parameters"], *runner().parameters)  # untimed: it shows whether the peer works here
    runners[name] = runner
    return {}


if __name__ == "__main__":
    main()
