"""How long each form of a convolution's weight gradient takes in ONNX Runtime, beside the layer's forward pass.

    python tools/convolution_forms.py [--rounds 9]

One thread, every form in a session of its own, in turns; the least of the rounds in ms of the processor.
``training/convolution_weight.py`` and ``training/convolution.py`` choose among them by these numbers.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.graph.layers import DenseLayer, LayerNames
from onnxsurgeon.runtime import session
from onnxsurgeon.training import convolution, convolution_weight
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import make_model
from onnxsurgeon.training.optimizers import Gradient
from onnxsurgeon.training.taps import geometry_of

# Rows, channels, units, height and width, kernel, strides, groups.
SHAPES = (
    (32, 1, 8, 28, 3, 1, 1),
    (32, 1, 16, 28, 3, 1, 1),
    (32, 3, 16, 32, 3, 1, 1),
    (32, 3, 32, 32, 3, 1, 1),
    (64, 3, 64, 32, 3, 1, 1),
    (32, 8, 16, 14, 3, 1, 1),
    (32, 12, 16, 14, 3, 1, 1),
    (32, 16, 32, 14, 3, 1, 1),
    (32, 16, 16, 32, 3, 1, 1),
    (32, 32, 64, 16, 3, 1, 1),
    (64, 64, 64, 16, 3, 1, 1),
    (32, 64, 128, 8, 3, 1, 1),
    (32, 64, 64, 8, 3, 1, 1),
    (32, 128, 128, 4, 3, 1, 1),
    (32, 16, 32, 32, 3, 2, 1),
    (32, 32, 64, 16, 3, 2, 1),
    (32, 64, 64, 14, 1, 1, 1),
    (32, 16, 32, 32, 1, 2, 1),
    (32, 64, 64, 14, 3, 1, 64),
)
TURNED = "input's gradient, kernel turned"
Form = Callable[[GraphBuilder, DenseLayer], str]


def exchanged(build: GraphBuilder, layer: DenseLayer) -> str:
    """The convolution of x by δ with batch and channels exchanged, of an odd kernel without steps."""
    x, delta = (build.add("Transpose", name, perm=[1, 0, 2, 3]) for name in ("x", "delta"))
    found = build.add("Conv", x, delta, pads=list(geometry_of(layer).pads))
    return build.add("Transpose", found, perm=[1, 0, 2, 3])


def alone(form: Callable[..., Gradient]) -> Form:
    """A form of ``convolution`` that an update could be part of, without one."""
    return lambda build, layer: form(build, layer, "x", "delta").alone(build)


FORMS: dict[str, Form] = {
    "forward": lambda build, layer: convolution.convolved(
        build, geometry_of(layer), "x", convolution.kernel_of(build, layer, "weight")
    ),
    "input's gradient": lambda build, layer: convolution.input_gradient(
        build, geometry_of(layer), convolution.kernel_of(build, layer, "weight"), "delta", "x", (32, 32)
    ),
    TURNED: lambda build, layer: convolution.by_turned_kernel(
        build, layer, convolution.kernel_of(build, layer, "weight"), "delta", None
    ),
    "exchanged": exchanged,
    "over patches": lambda build, layer: convolution_weight.over_patches(build, layer, "x", "delta"),
    "by tap": lambda build, layer: convolution_weight.by_tap(build, layer, "x", "delta"),
    "by row": alone(convolution_weight.by_row),
    "over the batch": alone(convolution_weight.over_the_batch),
    "depthwise": lambda build, layer: convolution_weight.of_depthwise(build, layer, "x", "delta"),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print(f"| rows, channels → units, size, kernel, strides, groups | {' | '.join(FORMS)} |")
    print(f"| --- |{' ---: |' * len(FORMS)}", flush=True)
    for shape in SHAPES:
        rows, channels, units, size, kernel, stride, groups = shape
        cells = [f"{value:.2f}" if value else "" for value in measure(shape, rounds)]
        name = f"{rows}, {channels} → {units}, {size} × {size}, {kernel} × {kernel}, {stride}, {groups}"
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def measure(shape: tuple[int, ...], rounds: int) -> list[float]:
    """Least time of each form in ms, 0 for those that the layer does not have."""
    rows, channels, units, size, kernel, stride, groups = shape
    geometry = Geometry((kernel,) * 2, (stride,) * 2, (1, 1), (kernel // 2,) * 4, groups)
    weight = np.zeros((channels // groups * kernel**2, units), np.float32)
    layer = DenseLayer(weight, None, None, LayerNames.derived("layer"), geometry)
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.standard_normal((rows, channels, size, size)).astype(np.float32),
        "delta": rng.standard_normal((rows, units, size // stride, size // stride)).astype(np.float32),
        "weight": rng.standard_normal(weight.T.shape).astype(np.float32),
    }
    left_out = {"depthwise"}
    if groups > 1:
        left_out = {"exchanged", "by row", "over the batch", TURNED}
    elif stride > 1:
        left_out = {"depthwise", "exchanged", TURNED}
    made = {name: _session(form, layer, feeds) for name, form in FORMS.items() if name not in left_out}
    least = dict.fromkeys(FORMS, 0.0)
    for number in range(rounds + 1):
        for name, run in made.items():
            begun = time.thread_time()
            run.run(None, feeds)
            taken = (time.thread_time() - begun) * 1e3
            if number:
                least[name] = min(least[name] or taken, taken)
    return list(least.values())


def _session(form: Form, layer: DenseLayer, feeds: dict[str, Any]) -> Any:
    build = GraphBuilder(np.dtype(np.float32))
    flat = build.add("Reshape", form(build, layer), build.integers(-1))
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, each.shape) for name, each in feeds.items()]
    return session(make_model("form", build, inputs, [helper.make_tensor_value_info(flat, TensorProto.FLOAT, [None])]))


if __name__ == "__main__":
    main()
