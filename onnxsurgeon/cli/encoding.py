"""Output on a terminal or into a file whose encoding lacks some of the signs that are shown."""

from __future__ import annotations

import codecs
import sys

# One character for one, so that columns stay in line.
_PLAIN = str.maketrans("×→…–σΔθεφ‖²·µ", "x>~-sDtep|2.u")


def spell_out(error: UnicodeError) -> tuple[str, int]:
    """Replace signs that an encoding lacks; a sign without a likeness becomes a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return "".join(sign if sign.isascii() else "?" for sign in text), error.end


def make_printable() -> None:
    """Let standard output and error replace signs that their encoding lacks, instead of ending in a traceback."""
    codecs.register_error("onnxsurgeon.spell_out", spell_out)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="onnxsurgeon.spell_out")
