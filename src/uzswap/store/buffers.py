"""Memory that several values of a store have a part of, each block of it charged once.

The groups of a data frame are views of one array: weighed alone, each of them keeps all of it alive.  So
:func:`uzswap.store.weigh.estimate` can leave such blocks out of the weight and name them instead, and this class says
what is to be charged when a value comes, and what is given back when it goes: the block with the first that has a part
of it, and with the last.

A block is known by its address and length.  A value that has joined keeps it alive, so nothing else can lie there.

Compiled code calls this with nothing in between; it calls nothing foreign but ``is_paged``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from uzswap.store.measures import Block

__all__ = ["Buffers"]


class Buffers:
    """The blocks that the resident values of one store have a part of.

    Parameters
    ----------
    is_paged
        Whether an address lies in an array of the engine's (:func:`uzswap.managed`), which is charged already.
    any_paged
        Whether any does.

    Attributes
    ----------
    nbytes
        What is to be charged for all blocks.
    """

    __slots__ = ("_any_paged", "_is_paged", "_values", "nbytes")

    def __init__(
        self, is_paged: Callable[[int], bool] | None = None, any_paged: Callable[[], bool] | None = None
    ) -> None:
        self._is_paged = is_paged
        self._any_paged = any_paged
        self._values: dict[Block, int] = {}
        self.nbytes = 0

    @property
    def wants_all(self) -> bool:
        """Whether blocks that one value alone has a part of are to be named as well."""
        return self._is_paged is not None if self._any_paged is None else self._any_paged()

    def join(self, blocks: Iterable[Block]) -> tuple[int, tuple[Block, ...]]:
        """A value comes.  Returns the bytes to be charged for it, and what :meth:`leave` is to be called with."""
        more = 0
        joined = []
        for block in blocks:
            if self._is_paged is not None and self._is_paged(block[0]):
                continue
            joined.append(block)
            count = self._values.get(block, 0)
            self._values[block] = count + 1
            if not count:
                more += block[1]
        self.nbytes += more
        return more, tuple(joined)

    def leave(self, joined: Iterable[Block]) -> int:
        """A value goes: it is packed, replaced or deleted.  Returns the bytes to be uncharged."""
        less = 0
        for block in joined:
            count = self._values[block] - 1
            if count:
                self._values[block] = count
            else:
                del self._values[block]
                less += block[1]
        self.nbytes -= less
        return less
