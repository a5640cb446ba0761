"""Light augmentation in the training loop: images are moved by some pixels, or mirrored, all of a batch alike.

How far they are moved follows from the seed and the batch's position in the run, like dropout's masks. The border of an
image is repeated where the image has moved away from it. Both are one Slice of the padded batch, whose begins, ends and
steps the loop scans.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.choices import AUGMENTATIONS
from onnxsurgeon.errors import EngineError, SettingsError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.dropout import hashed

PART = 14  # an image is moved by at most this part of its side: by 2 of 28 pixels
NUMBERS = 2**17  # number of the first draw, behind all numbers of masks
BEGINS, ENDS, STEPS = SCANNED = ("augment_begin", "augment_end", "augment_step")
BEFORE_THE_FIRST = -(2**62)  # end of a Slice that goes backwards to the first place


def images_of(network: Network) -> dict[str, tuple[int, int, int]]:
    """Features of known size that only convolutions read, as (channels, height, width); these can be moved."""
    trunk = network.frame.trunk
    glued = {name for step in trunk.steps if not isinstance(step, int) for name in step.inputs}
    found = {}
    for name, shape in trunk.features.items():
        readers = [segment for segment in network.segments if segment.input_name == name]
        sizes = tuple(size for size in shape if size is not None)
        are_images = len(shape) == len(sizes) == 3 and name not in glued
        if are_images and readers and all(segment.is_convolution for segment in readers):
            found[name] = (sizes[0], sizes[1], sizes[2])
    return found


def require_images(network: Network, augment: str, engine: str = "loop") -> None:
    """Raise an error where images are to be moved and cannot be.

    Raises:
        EngineError: the engine of that name moves none.
        SettingsError: there are no images, they have different sizes, or their targets have places, which would stay.
    """
    if augment == AUGMENTATIONS[0]:
        return
    if engine != "loop":
        raise EngineError(f"'{network.name}': the {engine} engine moves no images; use the loop", "engine-lacks")
    sizes = {shape[1:] for shape in images_of(network).values()}
    if len(sizes) != 1:
        why = "several sizes of images are" if sizes else "no image of a known size is"
        raise SettingsError(
            f"augment: {why} read by convolutions in '{network.name}' ({network.topology}): leave it out",
            "engine-lacks",
        )
    if any(head.rank > 2 for head in network.heads):
        raise SettingsError(
            f"augment: '{network.name}' has targets for places of its images, which would not move with them: "
            "leave it out",
            "engine-lacks",
        )


def declarations(*, scanned: bool = False) -> list[onnx.ValueInfoProto]:
    """Begins, ends and steps along height and width.

    Of one step (2,), or, with ``scanned``, of all steps (steps, 2).
    """
    kind, axes = onnx.TensorProto.INT64, ["steps"] * scanned
    return [helper.make_tensor_value_info(f"{name}{'s' * scanned}", kind, [*axes, 2]) for name in SCANNED]


def augmented(build: GraphBuilder, network: Network, features: list[str]) -> list[str]:
    """Append the nodes that move the images among the ``features``; return the names of all features."""
    images, found = images_of(network), []
    for name, x in zip(network.frame.trunk.features, features, strict=True):
        if name in images:
            channels, height, width = images[name]
            reach = [_reach(height), _reach(width)]
            wide = build.add("Pad", x, build.integers(0, 0, *reach, 0, 0, *reach), mode="edge")
            moved = build.add("Slice", wide, BEGINS, ENDS, build.axes(2, 3), STEPS)
            found.append(build.add("Reshape", moved, build.integers(-1, channels, height, width)))
        else:
            found.append(x)
    return found


def feeds(network: Network, augment: str, seed: int, positions: Array) -> dict[str, Array]:
    """Values of these inputs, (steps, 2) each, for the batches at ``positions`` (steps,) of a run."""
    if augment == AUGMENTATIONS[0]:
        return {}
    sizes = np.array(next(iter(images_of(network).values()))[1:])
    reach = np.array([_reach(size) for size in sizes])
    offsets = np.tile(reach, (len(positions), 1))
    if "shift" in augment:
        draws = np.stack([hashed(seed, NUMBERS + axis, positions) for axis in range(2)], axis=1)
        offsets = draws % (2 * reach + 1)
    steps = np.ones_like(offsets)
    if "mirror" in augment:
        steps[:, 1] -= 2 * (hashed(seed, NUMBERS + 2, positions) % 2)
    is_back = steps < 0
    begins = np.where(is_back, offsets + sizes - 1, offsets)
    ends = np.where(is_back, np.where(offsets > 0, offsets - 1, BEFORE_THE_FIRST), offsets + sizes)
    return {f"{name}s": values.astype(np.int64) for name, values in zip(SCANNED, (begins, ends, steps), strict=True)}


def _reach(size: int) -> int:
    """The largest number of pixels by which an image of that side is moved."""
    return max(1, size // PART)
