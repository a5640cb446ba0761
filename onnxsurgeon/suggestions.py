"""What a name that nothing bears was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

FEWEST = 2  # letters of a word that another is found to hold
MOST_COMPARED = 10_000  # names of a file; comparing takes some microseconds each


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message, with up to three names that are like ``word``: "; did you mean 'fc1'?"; or ""."""
    names = [name for name, _ in zip(dict.fromkeys(known), range(MOST_COMPARED), strict=False)]
    folded = {name.lower(): name for name in reversed(names)}
    found = [folded[near] for near in get_close_matches(word.lower(), folded, n=3, cutoff=0.6)]
    found = found or [name for name in names if len(word) > FEWEST and word.lower() in name.lower()][:3]
    if not found:
        return ""
    quoted = [f"'{name}'" for name in found]
    return f"; did you mean {' or '.join([', '.join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)}?"
