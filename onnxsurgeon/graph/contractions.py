"""Products of two computed tensors as Einsum's equations, in which every row of the batch is multiplied on its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Sizes = Sequence[int | None]
_LETTERS = "bcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


class NotByRow(Exception):  # noqa: N818 - a finding, not an error
    """The product cannot be trained through; the text says why."""


def of_matmul(a: Sizes, b: Sizes, *, is_row: tuple[bool, bool], is_vector: tuple[bool, bool]) -> str:
    """Return MatMul's equation.

    Args:
        a: shape of the first factor.
        b: shape of the second.
        is_row: which of them have a batch axis; the others are constants.
        is_vector: which of them are one vector for each row of the batch, (rows, n).
    """
    is_vector = (
        is_vector[0] or (not is_row[0] and len(a) == 1) or (is_row == (True, False) and len(a) == 2),
        is_vector[1] or (not is_row[1] and len(b) == 1),
    )
    if not is_vector[0] and not is_vector[1] and all(is_row) and min(len(a), len(b)) == 2:
        raise NotByRow("it multiplies rows of the batch with one another")
    shared, left, right = "k", "i", "j"
    own = [
        len(shape) - row - (1 if vector else 2) for shape, row, vector in zip((a, b), is_row, is_vector, strict=True)
    ]
    if min(own) < 0:
        raise NotByRow("its factors have too few axes")
    letters = [letter for letter in _LETTERS if letter not in "ijk"][1:]
    between = "".join(letters[: max(own)])
    stacked = [between[len(between) - count :] for count in own]
    terms = [
        ("b" if is_row[0] else "") + stacked[0] + ("" if is_vector[0] else left) + shared,
        ("b" if is_row[1] else "") + stacked[1] + shared + ("" if is_vector[1] else right),
    ]
    result = "b" + between + ("" if is_vector[0] else left) + ("" if is_vector[1] else right)
    return f"{terms[0]},{terms[1]}->{result}"


def of_einsum(equation: str, ranks: Sequence[int]) -> str:
    """Return the equation with every axis spelled out and its result written down."""
    compact = equation.replace(" ", "")
    given, arrow, result = compact.partition("->")
    terms = given.split(",")
    if len(terms) != 2 or len(ranks) != 2:
        raise NotByRow("it does not multiply two tensors")
    if not arrow:
        counts = Counter(given.replace(",", "").replace(".", ""))
        result = ("..." if "..." in given else "") + "".join(sorted(x for x, count in counts.items() if count == 1))
    free = [letter for letter in _LETTERS if letter not in compact]
    hidden = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True) if "..." in term]
    spelled = "".join(free[: max(hidden, default=0)])

    def written(term: str, count: int) -> str:
        return term.replace("...", spelled[len(spelled) - count :]) if "..." in term else term

    terms = [written(term, rank - len(term.replace("...", ""))) for term, rank in zip(terms, ranks, strict=True)]
    return f"{terms[0]},{terms[1]}->{written(result, len(spelled))}"


def require_by_row(equation: str, shapes: Sequence[Sizes], is_row: Sequence[bool]) -> None:
    """Check that each row of the batch is multiplied on its own, and that both gradients are products too.

    Raises:
        NotByRow: they are not.
    """
    given, _, result = equation.partition("->")
    terms = given.split(",")
    batch = {term[:1] for term, row in zip(terms, is_row, strict=True) if row} | {result[:1]}
    if len(batch) != 1 or any(batch & set(term) for term, row in zip(terms, is_row, strict=True) if not row):
        raise NotByRow("it multiplies rows of the batch with one another")
    sizes: dict[str, set[int]] = {}
    for term, shape in zip(terms, shapes, strict=True):
        if len(term) != len(shape) or len(set(term)) != len(term):
            raise NotByRow("it takes a diagonal")
        for letter, size in zip(term, shape, strict=True):
            if size is not None:
                sizes.setdefault(letter, set()).add(size)
    if any(len(found) > 1 for letter, found in sizes.items() if letter not in batch):
        raise NotByRow("one of its factors is spread to the size of the other")
    for term, other in (terms, terms[::-1]):
        if set(term) - set(other) - set(result):
            raise NotByRow("it sums one factor alone")
