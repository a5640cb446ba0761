"""Reasons why a file is no ONNX model, as far as its bytes tell; protobuf gives the same reason for all."""

from __future__ import annotations

_TEXT = 200


def why_unreadable(content: bytes) -> str:
    """The reason why ``content`` could not be parsed as a model, for a message."""
    start = content[:_TEXT]
    try:
        text = start.decode()
    except UnicodeDecodeError:
        text = ""
    if text and all(letter.isprintable() or letter in "\r\n\t" for letter in text):
        return f"it is a text file that begins with {text.splitlines()[0][:60]!r}"
    missing = _missing(content)
    if missing is not None:
        return f"it is cut off or damaged: at byte {missing[0]} it announces {missing[1]} bytes, {missing[2]} follow"
    return "it is damaged, of another format, or nested too deeply"


def _missing(content: bytes) -> tuple[int, int, int] | None:
    """Position, announced length and present length of the top-level field that passes the end; None if none does."""
    position = 0
    while position < len(content):
        start = position
        tag, position = _varint(content, position)
        if tag is None:
            return None
        kind = tag & 7
        if kind == 0:
            _, position = _varint(content, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        elif kind == 2:
            length, position = _varint(content, position)
            if length is None:
                return None
            if position + length > len(content):
                return start, length, len(content) - position
            position += length
        else:
            return None
    return None


def _varint(content: bytes, position: int) -> tuple[int | None, int]:
    value = 0
    for index, byte in enumerate(content[position : position + 10]):
        value |= (byte & 127) << (7 * index)
        if byte < 128:
            return value, position + index + 1
    return None, len(content)
