"""Text that others wrote, on a terminal or in a log: control characters are shown, never sent.

Names in a model file, a table or a run may hold anything: escape codes that clear the screen or write to the clipboard,
marks that turn the direction of writing, line ends that make one line look like two.
"""

from __future__ import annotations


def shown(text: str, keep: str = "") -> str:
    r"""``text`` with what is no visible sign spelled as in Python, \x1b; but for the characters ``keep``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
