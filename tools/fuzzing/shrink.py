"""Make an input that found a bug smaller, as long as it still finds it."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import DecodeError, Message
from onnx import ModelProto

MOST_TRIALS = 120


def shrink(content: bytes, same: Callable[[bytes], bool]) -> bytes:
    """A smaller input for which ``same`` holds: elements of the model are left out, or else pieces of its bytes."""
    trials = [0]

    def still(candidate: bytes) -> bool:
        trials[0] += 1
        return trials[0] <= MOST_TRIALS and same(candidate)

    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        return _without_pieces(content, still)
    if not still(model.SerializeToString()):
        return content
    _without_elements(model, model, still)
    return bytes(model.SerializeToString())


def _without_elements(root: ModelProto, message: Message, still: Callable[[bytes], bool], depth: int = 0) -> None:
    for field, value in message.ListFields():
        if isinstance(value, Message):
            if depth < 3:
                _without_elements(root, value, still, depth + 1)
        elif hasattr(value, "MergeFrom") and not isinstance(value, str | bytes):
            for index in reversed(range(len(value))):
                before = type(message)()
                before.CopyFrom(message)
                del value[index]
                if not still(root.SerializeToString()):
                    del value[:]
                    value.extend(getattr(before, field.name))


def _without_pieces(content: bytes, still: Callable[[bytes], bool]) -> bytes:
    size = len(content) // 2
    while size >= 8:
        for start in range(0, len(content), size):
            candidate = content[:start] + content[start + size :]
            if still(candidate):
                content = candidate
                break
        else:
            size //= 2
    return content
