"""Trains what ``onnxsurgeon export-trainer`` wrote, with onnxruntime and numpy alone.

trainer = Trainer("trainer")
for epoch in trainer.train(rows, targets, epochs=5):
print(epoch.number, epoch.loss)
print(trainer.evaluate(rows, targets))
trainer.save("state.safetensors")
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

__all__ = [
    "Epoch",
    "Prepared",
    "Trainer",
    "TrainerError",
    "order_of",
    "patch_model",
    "rate_factor",
    "read_state",
    "write_state",
]

Rows = np.ndarray | Mapping[str, np.ndarray]
Targets = np.ndarray | Sequence[np.ndarray]
TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8", "U8": "|u1"}
LONGEST = 10**8  # bytes of a header
CHUNK = 1024  # rows of a run that does not train
RUN = 256  # steps of a run that does


class TrainerError(ValueError):
    """What was given does not fit the trainer; the text says why."""


class Epoch(NamedTuple):
    """What an epoch came to.

    Attributes:
        number: of the epoch, from 1.
        loss: mean over its rows; None where the files do not report losses.
        losses: mean of each batch.
    """

    number: int
    loss: float | None
    losses: np.ndarray


class Prepared(NamedTuple):
    """Rows as the trained part takes them, by input: computed once, to be used often."""

    rows: Mapping[str, np.ndarray]


class Trainer:
    """A folder that export-trainer wrote, and a state that is trained.

    Attributes:
        description: the content of trainer.json.
        state: the weights and the optimizer's moments, by name; may be replaced, as by an average of several.
        epoch: how many epochs the state has seen.
    """

    def __init__(
        self, folder: str | os.PathLike[str], state: str | os.PathLike[str] | None = None, *, threads: int = 1
    ) -> None:
        """Load a folder; with ``state``, go on from a file that ``save`` wrote.

        Raises:
            TrainerError: the folder or the state cannot be used.
        """
        self.folder, self.threads = Path(folder), threads
        self.description = _described(self.folder / "trainer.json")
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self.state: dict[str, np.ndarray] = {}
        self.epoch = 0
        self.load(self.folder / self.description["files"]["state"]["path"] if state is None else state)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from the state in a file.

        Raises:
            TrainerError: it is no state of this trainer.
        """
        arrays, notes = read_state(path)
        for each in self.description["state"]:
            found = arrays.get(each["name"])
            if found is None:
                raise TrainerError(f"{path}: lacks '{each['name']}'")
            if list(found.shape) != each["shape"] or found.dtype != each["dtype"]:
                wanted = f"{each['dtype']} {each['shape']}"
                raise TrainerError(f"{path}: '{each['name']}' is {found.dtype} {list(found.shape)}, not {wanted}")
            if not np.isfinite(found).all():
                raise TrainerError(f"{path}: '{each['name']}' holds values that are not finite: the training diverged")
        self.state = {each["name"]: arrays[each["name"]] for each in self.description["state"]}
        self.epoch = int(notes.get("epoch", 0))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state; ``onnxsurgeon import-state`` puts it into the model."""
        write_state(path, self.state, {"epoch": str(self.epoch)})

    def patch_model(self, content: bytes) -> bytes:
        """The user's model with its weights as they are now, from the file that the trainer was made from.

        Raises:
            TrainerError: it is another file, or one that holds weights in a form that ``onnxsurgeon import-state``
                alone writes.
        """
        return patch_model(content, self.description, self.state)

    def prepare(self, rows: Rows | Prepared) -> Prepared:
        """Rows as train and evaluate take them: what features.onnx computes, where there is one.

        Raises:
            TrainerError: they do not fit.
        """
        if isinstance(rows, Prepared):
            return rows
        given = self._inputs(rows)
        if "features" in self.description["files"]:
            return Prepared(self._in_chunks("features", given, {}))
        return Prepared({each["name"]: given[each["input"]] for each in self.description["rows"]})

    def train(
        self,
        rows: Rows | Prepared,
        targets: Targets | None = None,
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        seed: int = 0,
        course: int | None = None,
    ) -> Iterator[Epoch]:
        """Train for some epochs more; each is trained when it is asked for, and the state is changed at its end.

        Args:
            rows: an array, or arrays by the model's inputs.
            targets: an array, or one for each head; classes by number or by name; None: what the teacher says.
            epochs: how many.
            batch_size: rows in a batch; None: as exported.
            learning_rate: None: as exported.
            seed: of the order of the rows, and of what dropout leaves out.
            course: how many epochs the schedule is for in all; None: those until now and these.

        Raises:
            TrainerError: rows or targets do not fit.
        """
        fixed = self.description["batch"]["fixed"]
        size = batch_size or self.description["batch"]["size"]
        if fixed and size != self.description["batch"]["size"]:
            raise TrainerError(
                f"batch_size: these files take {self.description['batch']['size']} rows and no other number"
            )
        rate = self.description["optimizer"]["learning_rate"] if learning_rate is None else learning_rate
        feeds, count = self._labelled(rows, targets)
        if "dropout" in self.description:
            feeds[self.description["dropout"]["seed"]] = np.array(seed % 2**31, np.int32)
        size = size if fixed else min(size, count)
        total = self.epoch + epochs if course is None else course
        return self._epochs(feeds, count, size, rate, epochs, seed, total)

    def _epochs(
        self, feeds: dict[str, np.ndarray], count: int, size: int, rate: float, epochs: int, seed: int, course: int
    ) -> Iterator[Epoch]:
        full, rest = divmod(count, size)
        if not full:
            raise TrainerError(f"rows: {count} are fewer than the {size} of a batch")
        rest = 0 if self.description["batch"]["fixed"] else rest
        each_epoch = full + bool(rest)
        schedule = self.description["schedule"]
        for epoch in range(self.epoch, self.epoch + epochs):
            order = order_of(seed, epoch, count)
            parts = [
                order[first * size : min(first + RUN, full) * size].reshape(-1, size) for first in range(0, full, RUN)
            ]
            parts += [order[full * size :].reshape(1, -1)] if rest else []
            state, position, losses, weights = self.state, epoch * each_epoch, [], []
            for batches in parts:
                positions = range(position, position + len(batches))
                warmup = round(schedule["warmup"] * each_epoch)
                factors = [rate_factor(schedule["kind"], p, course * each_epoch, warmup) for p in positions]
                found = self._run(
                    "train",
                    {
                        **feeds,
                        **state,
                        "batches": batches,
                        "rates": np.array([rate * each for each in factors], np.float32),
                    },
                )
                state = {name: found[self.description["next"] + name] for name in state}
                position += len(batches)
                if "losses" in found:
                    losses.append(found["losses"])
                    weights.append(np.full(len(batches), batches.shape[1]))
            self.state, self.epoch = state, epoch + 1
            all_losses = np.concatenate(losses) if losses else np.zeros(0)
            mean = float(np.average(all_losses.astype(np.float64), weights=np.concatenate(weights))) if losses else None
            yield Epoch(epoch + 1, mean, all_losses)

    def evaluate(self, rows: Rows | Prepared, targets: Targets | None = None) -> dict[str, float]:
        """Mean loss and metric, "accuracy" or "r2", over rows; of several heads the mean, and each as "accuracy_1", ….

        Raises:
            TrainerError: rows or targets do not fit.
        """
        feeds, count = self._labelled(rows, targets)
        sums: dict[str, Any] = {}
        for first in range(0, count, CHUNK):
            numbers = np.arange(first, min(first + CHUNK, count), dtype=np.int32)
            for name, value in self._run("evaluate", {**feeds, **self._parameters(), "numbers": numbers}).items():
                sums[name] = sums.get(name, 0.0) + value.astype(np.float64)
        metrics: dict[str, list[float]] = {}
        for each in self.description["targets"]:
            metric, found = each["metric"], sums[each["metric"]["output"]]
            is_r2 = metric["name"] == "r2"
            share = _r2(feeds[each["name"]], found) if is_r2 else float(found) / (count * metric["per_row"])
            metrics.setdefault(metric["name"], []).append(share)
        result = {"loss": float(sums["loss"]) / count}
        for name, values in metrics.items():
            result[name] = sum(values) / len(values)
            if len(self.description["targets"]) > 1:
                result |= {f"{name}_{i}": value for i, value in enumerate(values, start=1)}
        return result

    def taught(self, rows: Rows | Prepared) -> list[np.ndarray]:
        """The targets that the teacher gives for rows, one array for each head: computed once, to be used often.

        Raises:
            TrainerError: there is no teacher, or the rows do not fit.
        """
        if "teacher" not in self.description["files"]:
            raise TrainerError("targets: there is no teacher to give them")
        if isinstance(rows, Prepared):
            raise TrainerError("targets: a teacher wants the rows themselves; give what taught(rows) returns")
        found = self._in_chunks("teacher", self._inputs(rows), {})
        return [found[each["name"]] for each in self.description["targets"]]

    def predict(self, rows: Rows) -> dict[str, np.ndarray]:
        """The model's outputs for rows, by name.

        Raises:
            TrainerError: they do not fit.
        """
        return self._in_chunks("predict", self._inputs(rows), self._parameters())

    def _parameters(self) -> dict[str, np.ndarray]:
        return {e["name"]: self.state[e["name"]] for e in self.description["state"] if e["kind"] == "parameter"}

    def _labelled(self, rows: Rows | Prepared, targets: Targets | None) -> tuple[dict[str, np.ndarray], int]:
        """Rows and targets by the inputs of train.onnx and evaluate.onnx, and how many there are."""
        feeds = dict(self.prepare(rows).rows)
        count = len(next(iter(feeds.values())))
        wanted = self.description["targets"]
        if targets is None:
            given: list[Any] = list(self.taught(rows))
        else:
            given = [targets] if isinstance(targets, np.ndarray) or len(wanted) == 1 else list(targets)
        if len(given) != len(wanted):
            raise TrainerError(f"targets: {len(given)} arrays for {len(wanted)} heads")
        for each, values in zip(wanted, given, strict=True):
            feeds[each["name"]] = _fitted_targets(each, np.asarray(values), count)
        return feeds, count

    def _inputs(self, rows: Rows) -> dict[str, np.ndarray]:
        wanted = self.description["inputs"]
        if not isinstance(rows, Mapping):
            if len(wanted) != 1:
                raise TrainerError(f"rows: give arrays by name: {', '.join(each['name'] for each in wanted)}")
            rows = {wanted[0]["name"]: rows}
        found = {}
        for each in wanted:
            if each["name"] not in rows:
                raise TrainerError(f"rows: no array for the input '{each['name']}'")
            found[each["name"]] = _fitted_rows(each, np.asarray(rows[each["name"]]))
        if len({len(values) for values in found.values()}) != 1 or not len(next(iter(found.values()))):
            raise TrainerError("rows: every input needs the same number of rows, and one at least")
        return found

    def _in_chunks(self, file: str, given: dict[str, np.ndarray], more: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A file's outputs for all rows, as many at a time as the user's model takes."""
        batch = self.description["inputs"][0]["batch"]
        count, parts = len(next(iter(given.values()))), []
        step = 1 if batch == "none" else CHUNK if batch == "any" else batch
        for first in range(0, count, step):
            piece = {name: values[first : first + step] for name, values in given.items()}
            missing = step - min(step, count - first) if isinstance(batch, int) else 0
            if missing:  # a fixed batch is filled up with the last row
                piece = {n: np.concatenate([v, np.repeat(v[-1:], missing, axis=0)]) for n, v in piece.items()}
            if batch == "none":
                piece = {name: values[0] for name, values in piece.items()}
            found = self._run(file, {**piece, **more})
            if batch == "none":
                found = {name: np.asarray(value)[None] for name, value in found.items()}
            parts.append({name: value[: step - missing] for name, value in found.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, file: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if file not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.log_severity_level = 3
            path = self.folder / self.description["files"][file]["path"]
            self._sessions[file] = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        session = self._sessions[file]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))


def order_of(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of an epoch's rows, (count,) int32: the same in every runner."""
    start = _mixed(np.array([seed % 2**32], np.uint32))
    start = _mixed(np.array([epoch % 2**32], np.uint32) + start)
    keys = _mixed(np.arange(count, dtype=np.uint32) + start)
    return np.argsort(keys, kind="stable").astype(np.int32)


def _mixed(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    mixed: np.ndarray = x ^ (x >> np.uint32(16))
    return mixed


def rate_factor(kind: str, position: int, total: int, warmup: int = 0) -> float:
    """What the learning rate of a step is multiplied by, the step being number ``position`` of ``total``."""
    if position < warmup:
        return (position + 1) / (warmup + 1)
    x = min((position - warmup) / (total - warmup), 1.0) if total > warmup else 0.0
    if kind == "constant":
        return 1.0
    if kind == "linear":
        return 1 - x
    if kind == "cosine":
        return _cosine(x)
    if kind == "step":
        return 0.1 ** ((x >= 0.5) + (x >= 0.75))
    if kind == "one-cycle":
        if x < 0.3:
            return 1 / 25 + (1 - 1 / 25) * (1 - _cosine(x / 0.3))
        return 1 / 25e4 + (1 - 1 / 25e4) * _cosine((x - 0.3) / 0.7)
    raise TrainerError(f"schedule: '{kind}' is unknown")


def _cosine(x: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * x))


def read_state(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file of safetensors, and its notes.

    Raises:
        TrainerError: it is damaged; nothing is believed of it that its length does not bear out.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise TrainerError(f"{path}: cannot be read: {error.strerror}") from error
    length = int.from_bytes(content[:8], "little")
    body = memoryview(content)[8 + length :]
    try:
        if len(content) < 8 or length > min(len(content) - 8, LONGEST):
            raise ValueError("its header is longer than the file, or than any such")
        header = json.loads(content[8 : 8 + length])
        notes, found, spans = dict(header.pop("__metadata__", {})), {}, []
        if not all(isinstance(note, str) for note in notes.values()):
            raise ValueError("its notes are no texts")
        for name, each in header.items():
            kind, shape, (begin, end) = np.dtype(TYPES[each["dtype"]]), tuple(each["shape"]), each["data_offsets"]
            if (
                not 0 <= begin <= end <= len(body)
                or end - begin != math.prod(shape) * kind.itemsize
                or min(shape, default=0) < 0
            ):
                raise ValueError(f"'{name}' does not fit")
            spans.append((begin, end))
            found[name] = np.frombuffer(body[begin:end], kind).reshape(shape).astype(kind.newbyteorder("="))
        spans.sort()
        if [0, *(end for _, end in spans)] != [*(begin for begin, _ in spans), len(body)]:
            raise ValueError("its arrays overlap, or leave gaps")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise TrainerError(f"{path}: is no file of safetensors: {error}") from error
    return found, notes


def write_state(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], notes: Mapping[str, str] | None = None
) -> None:
    """Write arrays as safetensors, complete or not at all."""
    names = {np.dtype(code): name for name, code in TYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(notes)} if notes else {}
    begin, parts = 0, []
    for name, values in arrays.items():
        content = np.asarray(values, values.dtype.newbyteorder("<"), order="C").tobytes()
        end = begin + len(content)
        kind = names[np.dtype(values.dtype.newbyteorder("<"))]
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [begin, end]}
        parts.append(content)
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = Path(f"{os.fspath(path)}.{os.getpid()}.tmp")
    temporary.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *parts]))
    temporary.replace(path)


def patch_model(content: bytes, description: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> bytes:
    """A copy of an ONNX file whose initializers have a state's values; everything else in it stays as it is.

    Args:
        content: of the file that the trainer was made from.
        description: the content of trainer.json, whose "stored" says how that file holds each weight.
        state: arrays by name.

    Raises:
        TrainerError: a weight cannot be written so.
    """
    wanted = {each["of"]: each for each in description["state"] if each["kind"] == "parameter"}
    for name, each in wanted.items():
        if "stored" not in each:
            raise TrainerError(
                f"trainer.json does not say that the model's file holds '{name}' as it is: use onnxsurgeon import-state"
            )
    patched = bytearray(content)
    for number, graph in _fields(content, 0, len(content)):
        if number != _GRAPH or isinstance(graph, int):
            continue
        for field, place in _fields(content, graph.start, graph.stop):
            if field != _INITIALIZER or isinstance(place, int):
                continue
            name, tensor = _tensor(content, place)
            if name in wanted:
                each = wanted.pop(name)
                span, values = _as_stored(name, tensor, each, state[each["name"]])
                patched[span] = values
    if wanted:
        missing = "', '".join(wanted)
        raise TrainerError(f"the file has no '{missing}': it is another model's")
    return bytes(patched)


_GRAPH, _INITIALIZER = 7, 5  # fields of ModelProto and GraphProto
_DIMS, _DATA_TYPE, _NAME, _RAW = 1, 2, 8, 9  # of TensorProto
_KINDS = {1: ("<f4", 4), 10: ("<f2", 0), 11: ("<f8", 10)}  # types, and where their values may be beside raw_data


def _tensor(content: bytes, place: slice) -> tuple[str, dict[int, list[Any]]]:
    """A TensorProto's name, and its fields by number."""
    found: dict[int, list[Any]] = {}
    for number, value in _fields(content, place.start, place.stop):
        found.setdefault(number, []).append(value)
    sizes = found.get(_DIMS, [])
    found[_DIMS] = [size for each in sizes for size in ([each] if isinstance(each, int) else _varints(content, each))]
    name = found.get(_NAME, [0])[-1]
    return ("" if isinstance(name, int) else content[name].decode(errors="replace")), found


def _as_stored(
    name: str, tensor: dict[int, list[Any]], each: dict[str, Any], values: np.ndarray
) -> tuple[slice, bytes]:
    """Where the values go in the file, and their bytes."""
    kind, field = _KINDS.get(tensor.get(_DATA_TYPE, [0])[-1], ("", 0))
    place = (tensor.get(_RAW) or tensor.get(field) or [0])[-1]
    is_transposed = each["stored"] == "transposed"
    own = values.T if is_transposed else values
    fits = bool(kind) and not isinstance(place, int) and (not is_transposed or tensor[_DIMS] == list(own.shape))
    if not fits or place.stop - place.start != own.size * np.dtype(kind).itemsize:
        raise TrainerError(
            f"'{name}' of this file is not written to: trainer.json says that it holds {list(own.shape)} there, of "
            "floats inside the file"
        )
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(own, kind)
    if not np.isfinite(stored).all():
        raise TrainerError(f"'{name}' has values in the state that {np.dtype(kind)} cannot hold")
    return place, stored.tobytes()


def _fields(content: bytes, begin: int, end: int) -> Iterator[tuple[int, int | slice]]:
    """The fields of a protobuf message: their numbers, and an integer, or where the bytes of what has a length are."""
    while begin < end:
        key, begin = _varint(content, begin)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, begin = _varint(content, begin)
            yield number, value
        elif kind == 2:
            size, begin = _varint(content, begin)
            if begin + size > end:
                raise TrainerError("the file is cut off")
            yield number, slice(begin, begin + size)
            begin += size
        elif kind in (1, 5):
            begin += 8 if kind == 1 else 4
        else:
            raise TrainerError("this is no ONNX file")


def _varint(content: bytes, begin: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if begin + place >= len(content):
            raise TrainerError("the file is cut off")
        byte = content[begin + place]
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, begin + place + 1
    raise TrainerError("this is no ONNX file")


def _varints(content: bytes, place: slice) -> Iterator[int]:
    begin = place.start
    while begin < place.stop:
        value, begin = _varint(content, begin)
        yield value


def _described(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainerError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict) or (found.get("format"), found.get("version")) != ("onnxsurgeon-trainer", 1):
        raise TrainerError(f"{path}: is no trainer of version 1")
    return found


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(w in (None, s) for s, w in zip(shape, wanted, strict=True))


def _fitted_rows(each: dict[str, Any], values: np.ndarray) -> np.ndarray:
    if not _fits(values.shape[1:], each["shape"]):
        raise TrainerError(
            f"rows: the input '{each['name']}' takes rows of shape {each['shape']}, not {list(values.shape[1:])}"
        )
    if each["dtype"] == "string":
        return values.astype(object)
    wanted = np.dtype(each["dtype"])
    if wanted.kind in "iu" and values.dtype.kind not in "iub":
        raise TrainerError(f"rows: the input '{each['name']}' takes {wanted} as it is stored, not {values.dtype}")
    converted = np.ascontiguousarray(values, wanted)
    if wanted.kind in "iu" and not np.array_equal(converted, values):
        raise TrainerError(f"rows: values for the input '{each['name']}' are beyond {wanted}")
    return converted


def _fitted_targets(each: dict[str, Any], values: np.ndarray, count: int) -> np.ndarray:
    if values.dtype.kind in "UO" and each["classes"]:
        known = {name: number for number, name in enumerate(each["classes"])}
        strange = next((str(value) for value in values.flat if str(value) not in known), None)
        if strange is not None:
            raise TrainerError(f"targets: '{strange}' is not among the classes: {', '.join(each['classes'])}")
        values = np.array([known[str(value)] for value in values.flat]).reshape(values.shape)
    if values.ndim == 1 and each["shape"] == [1]:
        values = values[:, None]
    if len(values) != count or not _fits(values.shape[1:], each["shape"]):
        raise TrainerError(f"targets: expected {[count, *each['shape']]}, found {list(values.shape)}")
    if each["dtype"] != "int32":
        return np.ascontiguousarray(values, each["dtype"])
    if values.dtype.kind not in "iub" or (values.size and not 0 <= values.min() <= values.max() < each["outputs"]):
        raise TrainerError(f"targets: expected classes, whole numbers from 0 to {each['outputs'] - 1}")
    return np.ascontiguousarray(values, np.int32)


def _r2(targets: np.ndarray, errors: np.ndarray) -> float:
    """Mean over the outputs of 1 − Σ (t − p)² / Σ (t − mean t)²; as scikit-learn has it where a target is constant."""
    values = targets.reshape(-1, targets.shape[-1]).astype(np.float64)
    spread, varied = ((values - values.mean(axis=0)) ** 2).sum(axis=0), np.ptp(values, axis=0) > 0
    constant = np.where(errors > 0, 0.0, 1.0)
    return float(np.where(varied, 1 - errors / np.where(varied, spread, 1.0), constant).mean())
