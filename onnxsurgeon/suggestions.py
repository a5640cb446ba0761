"""What may have been meant by a word that is not known."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 3  # suggestions
NEAR = 0.6  # likeness from which on a word may have been meant; 1: the same
AS_NEAR = 0.15  # by how much less a second suggestion may be like it than the first
PART = 3  # letters of a word that a longer one is found to hold
LONGEST = 100  # characters of a word that anything is suggested for
MANY = 10_000  # words beyond which none is looked through


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Such as ": did you mean 'digits' or 'digit'?", the likeliest first; "" where no known word is like it."""
    found = nearest(word, known)
    return f": did you mean {' or '.join(repr(each) for each in found)}?" if found else ""


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """The known words that are most like ``word``, the likeliest first; case does not count."""
    from difflib import SequenceMatcher, get_close_matches  # here: help does not wait for it

    spelled: dict[str, str] = {}
    for each in known:
        if len(spelled) == MANY:
            break
        spelled.setdefault(each.casefold(), each)
    if len(word) > LONGEST:
        return []
    given = word.casefold()
    found = get_close_matches(given, spelled, n=MOST, cutoff=NEAR)
    if not found:  # a part of a longer name
        return [name for near, name in spelled.items() if len(given) >= PART and given in near][:MOST]
    likeness = [SequenceMatcher(None, each, given).ratio() for each in found]
    return [spelled[each] for each, like in zip(found, likeness, strict=True) if like >= likeness[0] - AS_NEAR]
