"""Suggestions for a word that is not known."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 3  # the largest number of suggestions
NEAR = 0.6  # likeness from which on a known word is suggested; 1 is the same word
AS_NEAR = 0.15  # a second suggestion may be less like the word than the first by this much
PART = 3  # a word of at least this many letters is looked for inside longer ones
LONGEST = 100  # a word of more characters gets no suggestions
MANY = 10_000  # where more words are known, none is suggested


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Such as ": did you mean 'digits' or 'digit'?", the likeliest first; "" where no known word is like it."""
    found = nearest(word, known)
    return f": did you mean {' or '.join(repr(each) for each in found)}?" if found else ""


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """Return the known words that are most like ``word``, the likeliest first; case does not count."""
    from difflib import SequenceMatcher, get_close_matches  # imported here, so that help does not wait for it

    spelled: dict[str, str] = {}
    for each in known:
        if len(spelled) == MANY:
            break
        spelled.setdefault(each.casefold(), each)
    if len(word) > LONGEST:
        return []
    given = word.casefold()
    found = get_close_matches(given, spelled, n=MOST, cutoff=NEAR)
    if not found:  # the word may be a part of a longer one
        return [name for near, name in spelled.items() if len(given) >= PART and given in near][:MOST]
    likeness = [SequenceMatcher(None, each, given).ratio() for each in found]
    return [spelled[each] for each, like in zip(found, likeness, strict=True) if like >= likeness[0] - AS_NEAR]
