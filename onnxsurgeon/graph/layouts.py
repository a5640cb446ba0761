"""The place of a tensor's rows: each of its axes as a product of sizes, among them the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

ROWS = "rows"
Axis = tuple[int | str, ...]  # sizes, ``ROWS`` among them; () is an axis of size 1
Layout = tuple[Axis, ...]
PLAIN: Axis = (ROWS,)


class NotToldError(Exception):
    """No rule tells what is done to rows that are not the first axis."""


def axis_of(size: int) -> Axis:
    """An axis of that size, without rows."""
    return () if size == 1 else (int(size),)


def product(axis: Axis) -> int:
    """The size of an axis without its rows."""
    return math.prod(size for size in axis if isinstance(size, int))


def place_of_rows(layout: Layout) -> int:
    """The axis that holds the rows."""
    return next(i for i, axis in enumerate(layout) if ROWS in axis)


def behind_rows(layout: Layout) -> list[tuple[int, int]]:
    """The axes that stand behind the rows where these are in front: the file's axis of each, and its size."""
    found = []
    for number, axis in enumerate(layout):
        if ROWS not in axis:
            found.append((number, product(axis)))
            continue
        at = axis.index(ROWS)
        found += [(number, product(part)) for part in (axis[:at], axis[at + 1 :]) if part]
    return found


def sizes_of(layout: Layout) -> list[int]:
    """Sizes of the axes behind the rows where these are in front."""
    return [size for _, size in behind_rows(layout)]


def with_rows_in_front(layout: Layout, axis: int) -> int:
    """Where one of the file's axes lies when the rows are in front.

    Raises:
        NotToldError: it holds the rows.
    """
    if ROWS in layout[axis]:
        raise NotToldError
    return 1 + [number for number, _ in behind_rows(layout)].index(axis % len(layout))


def without_rows(layout: Layout, axis: int) -> Layout:
    """The layout up to the axis.

    Raises:
        NotToldError: that axis holds the rows, or it is the only one.
    """
    if ROWS in layout[axis] or len(layout) < 2:
        raise NotToldError
    return layout[:axis]


def replaced(layout: Layout, axis: int, new: Axis) -> Layout:
    """The layout with another axis in the place of one."""
    return (*layout[:axis], new, *layout[axis + 1 :])


def widest(axes: Sequence[Axis]) -> Axis:
    """What axes of one size or of size 1 are spread to.

    Raises:
        NotToldError: they differ.
    """
    wide = {axis for axis in axes if axis != ()}
    sizes = {product(axis) for axis in wide}
    if len(sizes) > 1 or (len(wide) > 1 and any(ROWS in axis for axis in wide)):
        raise NotToldError
    return next((axis for axis in axes if axis != ()), ())


def factored(layout: Layout, wanted: Sequence[Any], rows: Any) -> Layout:
    """What the axes hold that a Reshape makes, of the sizes ``wanted``; None: not known, as rows are not.

    Raises:
        NotToldError: it cannot be told which axis holds the rows, or what stands beside them.
    """
    left = [size for axis in layout for size in axis]
    total = math.prod(size for size in left if isinstance(size, int))
    sizes: list[int | None] = [size if isinstance(size, int) and size > 0 else None for size in wanted]
    fixed = rows if isinstance(rows, int) else None
    with_rows = [i for i, size in enumerate(sizes) if size is None]
    beside = None
    if len(with_rows) > 1 and isinstance(rows, str):  # one of them is told by its name, another by what is left
        named = [i for i in with_rows if wanted[i] == rows]
        if len(named) == 1 and len(with_rows) == 2:
            other = next(i for i in with_rows if i != named[0])
            sizes[other] = total // max(1, math.prod(size for size in sizes if size is not None))
            with_rows, beside = named, 1
    if fixed is not None:
        whole = total * fixed
        if len(with_rows) == 1:
            sizes[with_rows[0]] = whole // max(1, math.prod(size for size in sizes if size is not None))
        if None in sizes or math.prod(size or 0 for size in sizes) != whole:
            raise NotToldError
        return _factored_fixed(left, [size or 0 for size in sizes], fixed)
    if len(with_rows) != 1:
        raise NotToldError
    known = math.prod(size for size in sizes if size is not None)
    if known <= 0 or total % known or (beside is not None and total != known):
        raise NotToldError
    made = [_taken(left, size, total // known) for size in sizes]
    if left:
        raise NotToldError
    return tuple(made)


def _taken(left: list[int | str], size: int | None, beside: int) -> Axis:
    """Take the factors of one axis from the front of what is ``left``: of ``size``, or rows and ``beside``."""
    wanted, missing = (beside, True) if size is None else (size, False)
    found: list[int | str] = []
    while wanted > 1 or missing:
        if not left:
            raise NotToldError
        first = left.pop(0)
        if isinstance(first, str):
            if not missing:
                raise NotToldError
            missing = False
            found.append(first)
        elif wanted % first == 0:
            wanted //= first
            found.append(first)
        elif wanted > 1 and first % wanted == 0:
            found.append(wanted)
            left.insert(0, first // wanted)
            wanted = 1
        else:
            raise NotToldError
    return tuple(found)


def _factored_fixed(left: list[int | str], sizes: list[int], rows: int) -> Layout:
    """The same where the number of rows is fixed: rows of 1 go to an axis of 1, else to the next but the last one."""
    made: list[Axis] = []
    for number, size in enumerate(sizes):
        found: list[int | str] = []
        wanted = size
        while left:
            first = left[0]
            if isinstance(first, str):
                alone = rows == 1 and not found and size != 1 and number == len(sizes) - 1
                later = rows == 1 and found and wanted == 1 and 1 in sizes[number + 1 : number + 2]
                ahead = rows == 1 and found and wanted == 1 and number + 1 < len(sizes) - 1
                if alone or wanted % rows or later or ahead:
                    break
                wanted //= rows
                found.append(left.pop(0))
            elif wanted == 1:
                break
            elif wanted % first == 0:
                wanted //= first
                found.append(left.pop(0))
            elif first % wanted == 0:
                left[0] = first // wanted
                found.append(wanted)
                wanted = 1
            else:
                raise NotToldError
        if wanted != 1:
            raise NotToldError
        made.append(tuple(found))
    if left:
        raise NotToldError
    return tuple(made)
