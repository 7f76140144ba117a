"""Memory that several values of a store have a part of, each block of it charged once.

The groups of a data frame are views of one array: weighed alone, each of them keeps all of it alive.  So
:func:`uzswap.store.weigh.estimate` can leave such blocks out of the weight and name them instead, and this class says
what is to be charged when a value comes, and what is given back when it goes: the block with the first that has a part
of it, and with the last.

A block is known by its address and length.  A value that has joined keeps it alive, so nothing else can lie there.

Compiled code calls this with nothing in between; it calls nothing foreign but ``is_paged``, and makes no object that
the garbage collector follows once it has begun to count.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from uzswap.store.measures import Block

__all__ = ["Buffers", "Coming"]


class Coming:
    """A value that has joined and is not the store's yet.

    Attributes
    ----------
    part
        Its blocks: what :meth:`Buffers.leave` is to be called with.
    more
        Bytes to be charged for them, for those that nobody had a part of.
    charged
        Bytes that have been charged for the value so far; its thread keeps them up to date.
    thread
        Who brings it.
    """

    __slots__ = ("charged", "more", "part", "thread")

    def __init__(self, part: tuple[Block, ...]) -> None:
        self.part = part
        self.more = self.charged = 0
        self.thread = threading.get_ident()


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

    __slots__ = ("_any_paged", "_coming", "_is_paged", "_values", "nbytes")

    def __init__(
        self, is_paged: Callable[[int], bool] | None = None, any_paged: Callable[[], bool] | None = None
    ) -> None:
        self._is_paged = is_paged
        self._any_paged = any_paged
        self._values: dict[Block, int] = {}
        self._coming: dict[Coming, None] = {}
        self.nbytes = 0

    @property
    def wants_all(self) -> bool:
        """Whether blocks that one value alone has a part of are to be named as well."""
        return self._is_paged is not None if self._any_paged is None else self._any_paged()

    def join(self, blocks: Iterable[Block]) -> Coming:
        """A value comes: say how it ends, by :meth:`came` or :meth:`does_not_come`."""
        is_paged = self._is_paged
        coming = Coming(tuple([block for block in blocks if is_paged is None or not is_paged(block[0])]))
        more = 0
        for block in coming.part:
            count = self._values.get(block, 0)
            self._values[block] = count + 1
            if not count:
                more += block[1]
        coming.more = more
        self.nbytes += more
        self._coming[coming] = None
        return coming

    def came(self, coming: Coming) -> None:
        """The value is the store's, and its part with it."""
        del self._coming[coming]

    def does_not_come(self, coming: Coming) -> int:
        """The value will not be the store's.

        Returns the bytes of ``coming.more`` that stay to be charged: others have come to share what it was to bring.
        """
        del self._coming[coming]
        return coming.more - self.leave(coming.part)

    def abandoned(self) -> list[Coming]:
        """In a forked child, what other threads were bringing."""
        me = threading.get_ident()
        return [coming for coming in self._coming if coming.thread != me]

    def alone(self, joined: Iterable[Block]) -> int:
        """Return the bytes that :meth:`leave` would return."""
        less = 0
        for block in joined:
            if self._values[block] == 1:
                less += block[1]
        return less

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
