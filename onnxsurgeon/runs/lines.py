"""The lines of a journal: read, found to be damaged, and sealed with a checksum where a run resumes from them."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onnxsurgeon.runs.events import EVENTS

# The content of a line, of which only the kind is certain; ``checked.event_of`` makes an event of it.
Record = dict[str, Any]
# The last entry of a sealed line: SHA-256 of the line without this entry and without the line's end.
_SEAL = re.compile(rb'(\{.*), "checksum": "([0-9a-f]{64})"\}')


@dataclass(frozen=True)
class Line:
    """A line of a journal.

    Attributes:
        number: counted from 1.
        content: its bytes, with its end where it has one, as a run writes them.
        record: its record, without the checksum; None where it is damaged.
        damage: the damage, in words; "" where there is none.
        is_cut_off: whether it is the last one and has no end: it is being written, or a run was killed in that moment.
    """

    number: int
    content: bytes
    record: Record | None
    damage: str = ""
    is_cut_off: bool = False

    @property
    def kind(self) -> str:
        """The kind of its event; "" where it is damaged."""
        return "" if self.record is None else str(self.record["event"])


def sealed(event: Mapping[str, object]) -> bytes:
    """Spell an event as a line that carries a checksum over itself."""
    plain = json.dumps(event).encode()
    return plain[:-1] + f', "checksum": "{hashlib.sha256(plain).hexdigest()}"}}\n'.encode()


def plain(event: Mapping[str, object]) -> bytes:
    """Spell an event as a line."""
    return json.dumps(event).encode() + b"\n"


def read_lines(content: bytes) -> Iterator[Line]:
    r"""Yield the lines of a journal, the damaged ones included.

    What Windows, or git there, makes of a text is undone first: lines may end in \r\n or in \r, and the journal may
    begin with a mark of byte order or be UTF-16. A run writes none of these, and no JSON text has a raw \r in it.
    """
    content = _as_written(content)
    *whole, rest = content.split(b"\n")
    for number, encoded in enumerate(whole, start=1):
        record, damage = _read(encoded)
        yield Line(number, encoded + b"\n", record, damage)
    if rest:
        yield Line(len(whole) + 1, rest, None, "it is cut off", is_cut_off=True)


def _as_written(content: bytes) -> bytes:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = content.decode("utf-16", "replace").encode("utf-8", "replace")
    content = content.removeprefix(codecs.BOM_UTF8)
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n")
    return content if b"\n" in content else content.replace(b"\r", b"\n")


def _read(encoded: bytes) -> tuple[Record | None, str]:
    try:
        record = json.loads(encoded)
    except (ValueError, RecursionError):
        return None, "it is no JSON"
    if not isinstance(record, dict) or not isinstance(record.get("event"), str):
        return None, "it tells of no event"
    if record["event"] not in EVENTS:
        return None, "it tells of an unknown event"
    if "checksum" in record:
        found = _SEAL.fullmatch(encoded)
        if found is None or hashlib.sha256(found[1] + b"}").hexdigest().encode() != found[2]:
            return None, "its checksum does not fit it"
        del record["checksum"]
    return record, ""
