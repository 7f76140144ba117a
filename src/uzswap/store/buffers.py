"""Memory that several values of a store have a part of, each block of it charged once.

The groups of a data frame are views of one array: weighed alone, each of them keeps all of it alive.  So
:func:`uzswap.store.weigh.estimate` can leave such blocks out of the weight and name them instead, and this class says
what is to be charged when a value comes, and what is given back when it goes: the block with the first that has a part
of it, and with the last.

The same holds for what values refer to while they are packed, such as settings that others hold: it is charged with the
first that refers to it, and as long as one does, or has it back.

A block is known by its address and length.  A value that has joined keeps it alive, so nothing else can lie there.

Compiled code calls this with nothing in between; it calls nothing foreign but ``is_paged``, and makes no object that
the garbage collector follows once it has begun to count.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

from uzswap.store.measures import Block

__all__ = ["Buffers", "Closure", "Coming", "Part"]


class Closure(NamedTuple):
    """What a packed value refers to."""

    first: int
    kept: int
    objects: int


#: What a value has a part of.
Part: TypeAlias = tuple[Block | Closure, ...]


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

    def __init__(self, part: Part) -> None:
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

    __slots__ = ("_any_paged", "_closures", "_coming", "_is_paged", "_members", "_values", "nbytes")

    def __init__(
        self, is_paged: Callable[[int], bool] | None = None, any_paged: Callable[[], bool] | None = None
    ) -> None:
        self._is_paged = is_paged
        self._any_paged = any_paged
        self._values: dict[Block, int] = {}
        #: block -> who of the resident values has a part of it
        self._members: dict[Block, dict[Any, None]] = {}
        #: what several packed values refer to -> how many, and what was joined for them
        self._closures: dict[Closure, tuple[int, Part]] = {}
        self._coming: dict[Coming, None] = {}
        self.nbytes = 0

    @property
    def wants_all(self) -> bool:
        """Whether blocks that one value alone has a part of are to be named as well."""
        return self._is_paged is not None if self._any_paged is None else self._any_paged()

    def join(self, blocks: Iterable[Block]) -> Coming:
        """A value comes: say how it ends, by :meth:`came` or :meth:`does_not_come`."""
        coming = Coming(self._counted(blocks))
        members: list[dict[Any, None]] = [{} for _ in coming.part]
        coming.more = self._count(coming.part)
        for i in range(len(members)):
            self._members.setdefault(coming.part[i], members[i])  # type: ignore[arg-type]
        self._coming[coming] = None
        return coming

    def _counted(self, blocks: Iterable[Block]) -> tuple[Block, ...]:
        is_paged = self._is_paged
        return tuple([block for block in blocks if is_paged is None or not is_paged(block[0])])

    def _count(self, part: Part) -> int:
        """Return the bytes of the blocks that nobody had a part of."""
        more = 0
        for block in part:
            assert not isinstance(block, Closure)
            count = self._values.get(block, 0)
            self._values[block] = count + 1
            if not count:
                more += block[1]
        self.nbytes += more
        return more

    def came(self, coming: Coming, member: Any = None) -> None:
        """The value is the store's, and its part with it; ``member`` stands for it in :meth:`members`."""
        del self._coming[coming]
        if member is not None:
            for block in coming.part:
                self._members[block][member] = None  # type: ignore[index]

    def members(self, part: Part) -> list[Any]:
        """Who has a part of the same blocks, or of blocks that these have a part of, and so on."""
        found: dict[Any, None] = {}
        blocks = dict.fromkeys(part)
        todo = list(blocks)
        while todo:
            for member in list(self._members.get(todo.pop(), ())):  # type: ignore[arg-type]
                if member not in found:
                    found[member] = None
                    for block in member.part or ():
                        if block not in blocks:
                            blocks[block] = None
                            todo.append(block)
        return list(found)

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

    def alone(self, joined: Part) -> int:
        """Return the bytes that :meth:`leave` would return."""
        less = 0
        for block in joined:
            if isinstance(block, Closure):
                values, part = self._closures[block]
                if values == 1:
                    less += self.alone(part)
            elif self._values[block] == 1:
                less += block[1]
        return less

    def join_closure(self, first: int, kept: int, blocks: list[Block]) -> tuple[int, Part]:
        """A packed value refers to parts that others hold; ``blocks`` are these and all that can be reached from them.

        ``first``, the address of one of them, and ``kept``, their bytes, tell that others refer to the same.  Returns
        the bytes to be charged for it, and what :meth:`leave` is to be called with.
        """
        closure = Closure(first, kept, len(blocks))
        found = self._closures.get(closure)
        more = 0
        if found is None:
            part = self._counted(blocks)
            more = self._count(part)
            self._closures[closure] = 1, part
        else:
            self._closures[closure] = found[0] + 1, found[1]
        return more, (closure,)

    def leave(self, joined: Part, member: Any = None) -> int:
        """A value goes: it is packed, replaced or deleted.  Returns the bytes to be uncharged."""
        less = 0
        for block in joined:
            if isinstance(block, Closure):
                values, part = self._closures[block]
                if values > 1:
                    self._closures[block] = values - 1, part
                else:
                    del self._closures[block]
                    less += self.leave(part)
                continue
            count = self._values[block] - 1
            if count:
                self._values[block] = count
                if member is not None and block in self._members:
                    self._members[block].pop(member, None)
            else:
                self._members.pop(block, None)
                del self._values[block]
                less += block[1]
                self.nbytes -= block[1]
        return less
