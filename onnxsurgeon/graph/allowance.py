"""A limit on the bytes of constants that are made while a graph is read, since a small file may ask for any number."""

from __future__ import annotations

from onnxsurgeon.bounds import ADVICE, MAX_FOLDED_BYTES, MAX_FOLDED_SHARE, bound
from onnxsurgeon.errors import ModelError


class Allowance:
    """The number of bytes that may still be made, for all nodes together.

    This bounds time too: no rule takes much longer than it takes to write what it makes.
    """

    def __init__(self, given: int = 0, source: str = "model") -> None:
        """``given`` is the number of bytes that the file's own constants hold; errors start with ``source``."""
        self._most = self._left = bound(MAX_FOLDED_BYTES + MAX_FOLDED_SHARE * given)
        self._source = source

    def require(self, size: int, what: str) -> None:
        """Raise ModelError unless ``size`` more bytes may be made; ``what`` is the node that would make them."""
        if size > self._left:
            raise ModelError(
                f"{self._source}: {what}: with it, the constants that are computed from the file's own take more than "
                f"{self._most:,} bytes in all; {ADVICE}",
                "too-large",
            )

    def take(self, size: int, what: str) -> None:
        """Count ``size`` bytes that are being made.

        Raises:
            ModelError: they are more than what is left.
        """
        self.require(size, what)
        self._left -= size
