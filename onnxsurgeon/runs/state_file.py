"""An optimizer's state on the disk: an .npz beside the branch's model, whose bytes depend only on the state."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from onnxsurgeon.errors import RunError
from onnxsurgeon.graph.files import open_regular, write_bytes
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.state import OptimizerState

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold
_STEPS = "steps"


def state_path(model: Path) -> Path:
    """The path of a state, such as 0007-widen.state.npz beside 0007-widen.onnx."""
    return model.with_suffix(".state.npz")


def write_state(state: OptimizerState, path: Path, *, flush: bool = True) -> None:
    """Write the state, complete or not at all; numpy reads it as "steps", "moment_0_0", "moment_0_1", ….

    Raises:
        RunError: it cannot be written.
    """
    arrays = {_STEPS: np.array(state.steps, np.int64)}
    for number, moment in enumerate(state.moments):
        arrays |= {_name(number, i): values for i, values in enumerate(moment)}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            # numpy.savez would stamp the time of writing on each entry.
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(values, order="C"), allow_pickle=False)
    write_bytes(path, content.getvalue(), overwrite=True, flush=flush)


def read_state(path: Path, network: Network) -> OptimizerState:
    """Read the state of a branch with this network.

    Raises:
        RunError: the file is damaged, or belongs to another network.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as entries:
            # The entries were written uncompressed; a compressed one could have any size.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.infolist()):
                raise ValueError("compressed")
        with open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
            arrays: dict[str, Array] = {name: archive[name] for name in archive.files}
        count, rest = divmod(len(arrays) - 1, len(network.parameters()))
        moments = tuple(
            tuple(arrays[_name(number, i)] for i in range(len(network.parameters()))) for number in range(count)
        )
        state = OptimizerState(int(arrays[_STEPS]), moments)
    except Exception as error:  # damaged archives make zipfile, tokenize and numpy raise what shares no base
        raise RunError(f"{path}: holds no optimizer's state", "exchanged") from error
    if rest or not state.fits(network, count) or any(a.dtype != network.dtype for each in moments for a in each):
        raise RunError(f"{path}: holds the optimizer's state of another network", "exchanged")
    return state


def _name(number: int, parameter: int) -> str:
    return f"moment_{number}_{parameter}"
