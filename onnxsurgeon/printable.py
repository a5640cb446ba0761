"""Text that others wrote, made safe for a terminal or a log: control characters are shown, never sent.

Names in a model file, a table or a run may hold anything: escape codes that clear the screen or write to the clipboard,
marks that turn the direction of writing, line ends that make one line look like two.
"""

from __future__ import annotations

import re

# Control characters except tab and line feed, marks that turn the direction of writing, and halves of surrogate pairs.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str, keep: str = "") -> str:
    r"""Return ``text`` with invisible characters, except those in ``keep``, spelled as in Python, such as \x1b."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def without_controls(text: str) -> str:
    """Return a text for a page or a picture with its control characters spelled; spaces of all kinds stay."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
