"""The one place that touches ONNX Runtime: import, sessions, and running a whole model."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx

from onnxsurgeon.errors import EngineError
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.suggestions import did_you_mean

INSTALL_ADVICE = "install one of the extras cpu, gpu, training or training-gpu: pip install 'onnxsurgeon[cpu]'"
READABLE_IR = 10
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def have_onnxruntime() -> bool:
    """Whether any of the four ONNX Runtime packages can be imported."""
    try:
        onnxruntime()
    except EngineError:
        return False
    return True


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undo what an import does to the root logger: ONNX Runtime 1.19's training build makes it print all messages."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in set(root.handlers).difference(handlers):
            root.removeHandler(handler)
        root.setLevel(level)


def onnxruntime() -> Any:
    """Import ONNX Runtime.

    Raises:
        EngineError: none of its packages is installed.
    """
    try:
        with _root_logger_kept():
            import onnxruntime as module
    except ImportError as error:
        raise EngineError(f"ONNX Runtime is not installed; {INSTALL_ADVICE}", "no-package") from error
    return module


def provider(device: str) -> str:
    """Name of the execution provider for ``device`` ("cpu" or "cuda").

    Raises:
        EngineError: the device is unknown, or this ONNX Runtime cannot use it.
    """
    if device not in _PROVIDERS:
        raise EngineError(
            f"unknown device '{device}': expected cpu or cuda{did_you_mean(device, _PROVIDERS)}", "unknown-choice"
        )
    ort = onnxruntime()
    if _PROVIDERS[device] not in ort.get_available_providers():
        raise EngineError(
            f"device '{device}' is not available: ONNX Runtime {ort.__version__} as installed here offers "
            f"{', '.join(ort.get_available_providers())}",
            "no-device",
        )
    return _PROVIDERS[device]


_arena_lock = threading.Lock()


@functools.cache
def _arena_registered() -> bool:
    """Have ONNX Runtime make one memory arena for the sessions that share it; return whether there is one."""
    ort = onnxruntime()
    try:
        where = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(where, None)
    except RuntimeError as error:
        return "already been registered" in str(error)  # by another part of the program: it serves as well
    except (AttributeError, TypeError):  # a build without it; without sharing, only memory is lost
        return False
    return True


def session_options(threads: int = 1, *, shares: bool = False) -> Any:
    """Return the options that every session has: a number of threads, and a silent console, since errors are raised.

    ONNX Runtime may round differently with another number of threads. More than one is used only where the results are
    known to be the same; see ``training.threads``. With ``shares``, the session takes its memory from an arena that all
    such sessions of the process have in common.
    """
    options = onnxruntime().SessionOptions()
    if shares:
        with _arena_lock:
            registered = _arena_registered()
        if registered:
            options.add_session_config_entry("session.use_env_allocators", "1")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its messages hold names as the file has them, with any escape codes
    return options


def session(
    model: onnx.ModelProto, *, device: str = "cpu", threads: int = 1, trains: bool = False, shares: bool = False
) -> Any:
    """An inference session for ``model``.

    A session keeps what its largest run took of memory, and gives it back in pieces that the process cannot use well.
    Of those that are kept side by side and run in turns, ``shares`` has all use the same memory.

    ``trains`` says that weights are inputs, and turns blocks of channels off: ONNX Runtime would put pools alone into
    such blocks, and copy the tensors of each pool into them and back. Blocks are for float32 only, and ONNX Runtime
    1.32 ends the whole process when it looks for them behind an attention in float16.

    Raises:
        EngineError: ONNX Runtime is missing, lacks the device, or refuses the model.
    """
    if model.ir_version > READABLE_IR:  # nothing that is run here needs a newer one, and older releases refuse it
        older = onnx.ModelProto()
        older.CopyFrom(model)
        older.ir_version = READABLE_IR
        model = older
    is_half = _has_type(model, onnx.TensorProto.FLOAT16)
    options = session_options(threads, shares=shares and device == "cpu")
    return _opened(model.SerializeToString(), options, device, plain=trains or is_half)


def session_of_file(path: str, model: onnx.ModelProto, arrays: Iterable[Array], *, device: str = "cpu") -> Any:
    """A session of the file at ``path``, for whoever uses it: as many threads as ONNX Runtime takes by itself.

    ``model`` is what the file holds, but for its bulky tensors, which are ``arrays``.

    Raises:
        EngineError: as of ``session``.
    """
    is_half = _has_type(model, onnx.TensorProto.FLOAT16) or any(values.dtype == np.float16 for values in arrays)
    return _opened(path, None, device, plain=is_half)


def _opened(what: bytes | str, options: Any, device: str, *, plain: bool) -> Any:
    """A session; with ``plain``, nothing is put into blocks of channels."""
    ort, wanted = onnxruntime(), provider(device)
    disabled = ["NchwcTransformer"] if plain else []
    try:
        made = ort.InferenceSession(what, options, providers=[wanted], disabled_optimizers=disabled)
    except Exception as error:  # its exceptions share no narrower base
        raise EngineError(
            f"ONNX Runtime {ort.__version__} refuses the model: {first_line(error)}", "runtime-refuses"
        ) from error
    if wanted not in made.get_providers():
        # ONNX Runtime falls back to the CPU with no more than a log line; here, a device that was asked for and is
        # missing is an error.
        raise EngineError(f"device '{device}' is not available: ONNX Runtime could not start {wanted}", "no-device")
    return made


_running: dict[int, Any] = {}  # run options of the users' models that are running, by the thread's number


def _run_stoppable(made: Any, outputs: list[str] | None, feeds: dict[str, Array]) -> list[Any]:
    """Run a session so that ``terminate_runs`` can end it."""
    options, thread = onnxruntime().RunOptions(), threading.get_ident()
    options.log_severity_level = 4
    _running[thread] = options
    try:
        return list(made.run(outputs, feeds, options))
    finally:
        _running.pop(thread, None)


def terminate_runs() -> bool:
    """End the runs of users' models that are under way, each at its next node; return whether there were any."""
    found = list(_running.values())
    for options in found:
        options.terminate = True
    return bool(found)


Evaluator = Callable[[Sequence[str] | None, Mapping[str, Array]], list[Any]]


def evaluator(model: onnx.ModelProto) -> Evaluator:
    """Return a function from wanted outputs (None: all) and feeds to values, by ONNX Runtime or by onnx.reference.

    onnx.reference is used where there is no ONNX Runtime, and for bfloat16, for which the CPU provider has no kernels.
    Feeds that have one axis more than the model's inputs are rows: they are run one by one, and their outputs are
    stacked.

    Raises:
        EngineError: ONNX Runtime refuses the model.
    """
    once, ranks = _evaluator(model), ranks_of(model)

    def run(outputs: Sequence[str] | None, feeds: Mapping[str, Array]) -> list[Any]:
        if not are_rows(ranks, {name: np.ndim(values) for name, values in feeds.items()}):
            return once(outputs, feeds)
        rows = min(len(values) for values in feeds.values())
        found = [
            once(outputs, {name: np.asarray(values[row]) for name, values in feeds.items()}) for row in range(rows)
        ]
        return [np.stack(each) if isinstance(each[0], np.ndarray) else list(each) for each in zip(*found, strict=True)]

    return run


def ranks_of(model: onnx.ModelProto) -> dict[str, int]:
    """The number of axes of each input whose shape is declared."""
    kinds = {value.name: value.type.tensor_type for value in model.graph.input}
    return {name: len(kind.shape.dim) for name, kind in kinds.items() if kind.HasField("shape")}


def are_rows(declared: Mapping[str, int], given: Mapping[str, int]) -> bool:
    """Whether arrays with these numbers of axes are rows for a model without a batch axis."""
    known = [(axes, declared[name]) for name, axes in given.items() if name in declared]
    return bool(known) and all(axes == own + 1 for axes, own in known)


def _evaluator(model: onnx.ModelProto) -> Evaluator:
    if have_onnxruntime() and not _has_type(model, onnx.TensorProto.BFLOAT16):
        made = session(model)
        return lambda outputs, feeds: _run_stoppable(made, None if outputs is None else list(outputs), dict(feeds))
    from onnx.reference import ReferenceEvaluator

    reference = ReferenceEvaluator(model)
    return lambda outputs, feeds: list(reference.run(None if outputs is None else list(outputs), dict(feeds)))


def _has_type(model: onnx.ModelProto, wanted: int) -> bool:
    """Whether a weight, an input or the result of a Cast is of that type."""
    kinds = [tensor.data_type for tensor in model.graph.initializer]
    kinds += [value.type.tensor_type.elem_type for value in model.graph.input]
    kinds += [entry.i for node in model.graph.node if node.op_type == "Cast" for entry in node.attribute]
    return wanted in kinds


def run(model: onnx.ModelProto, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Any]:
    """Compute the outputs of ``model`` for ``feeds``; see ``evaluator``.

    Raises:
        EngineError: the model cannot be run.
    """
    try:
        return evaluator(model)(outputs, feeds)
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(f"ONNX Runtime cannot run the model: {first_line(error)}", "runtime-failed") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for one-line messages."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def usable_cores() -> int:
    """Number of processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def numpy_type(elem_type: int) -> np.dtype[Any]:
    """Numpy's type for an ONNX tensor element type."""
    return onnx.helper.tensor_dtype_to_np_dtype(elem_type)
