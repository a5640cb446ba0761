"""Mutations of a file that know nothing of ONNX, and little of protobuf."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from fuzzing.corpus import corpus


def mutate_bytes(rng: Random) -> bytes:
    """A model of the corpus after one to six mutations of its bytes."""
    content = bytearray(rng.choice(corpus()))
    if rng.random() < 0.4:  # mild ones, so that many inputs come far
        _flip(rng, content)
    else:
        for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
            rng.choice(_MUTATIONS)(rng, content)
    return bytes(content)


def _flip(rng: Random, content: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _truncate(rng: Random, content: bytearray) -> None:
    del content[rng.randrange(len(content) + 1) :]


def _overwrite(rng: Random, content: bytearray) -> None:
    if content:
        at = rng.randrange(len(content))
        size = min(rng.choice((1, 2, 4, 8, 16)), len(content) - at)
        fill = rng.choice((b"\x00", b"\xff", b"\x7f", b"\x80", rng.randbytes(1)))
        content[at : at + size] = rng.choice((fill * size, rng.randbytes(size)))


def _delete(rng: Random, content: bytearray) -> None:
    at = rng.randrange(len(content) + 1)
    del content[at : at + rng.choice((1, 2, 8, 64))]


def _repeat(rng: Random, content: bytearray) -> None:
    at = rng.randrange(len(content) + 1)
    piece = bytes(content[at : at + rng.randrange(1, 200)])
    content[at:at] = piece * rng.choice((1, 1, 2, 10))


def _splice(rng: Random, content: bytearray) -> None:
    other = rng.choice(corpus())
    start = rng.randrange(len(other))
    at = rng.randrange(len(content) + 1)
    content[at : at + rng.randrange(100)] = other[start : start + rng.randrange(1, 300)]


def _number(rng: Random, content: bytearray) -> None:
    """Put an encoded number where one may be: as a length, a dimension or a type."""
    value = rng.choice(
        (0, 1, 2, 7, 127, 128, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
    )
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    at = rng.randrange(len(content) + 1)
    content[at : at + rng.choice((0, 1, 1, len(encoded)))] = encoded


def _length(rng: Random, content: bytearray) -> None:
    """Change the length of a field at some depth, and not what encloses it."""
    fields = _length_positions(bytes(content), 0, len(content), 0)
    if fields:
        at = rng.choice(fields)
        content[at] = rng.choice((0, 1, max(0, content[at] - 1), min(127, content[at] + 1), 127, 128, 255))


def _length_positions(content: bytes, start: int, end: int, depth: int) -> list[int]:
    found: list[int] = []
    position = start
    while position < end - 1:
        kind = content[position] & 7
        position += 1 + (content[position] > 127)
        if kind == 2:
            found.append(position)
            length = shift = 0
            while position < end:
                byte = content[position]
                length |= (byte & 127) << shift
                position, shift = position + 1, shift + 7
                if byte < 128:
                    break
            if position + length > end:
                break
            if depth < 6:
                found += _length_positions(content, position, position + length, depth + 1)
            position += length
        elif kind == 0:
            while position < end and content[position] > 127:
                position += 1
            position += 1
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            break
    return [at for at in found if at < end]


_MUTATIONS: tuple[Callable[[Random, bytearray], None], ...] = (
    _flip,
    _flip,
    _truncate,
    _overwrite,
    _delete,
    _repeat,
    _splice,
    _number,
    _number,
    _length,
    _length,
)
