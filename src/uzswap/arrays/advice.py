"""What a program may say about an array, and ask: keep it, drop it, where is it.

All of it works on any view of an array in paged memory.  Pages are 4096 bytes.  What is harmless is done for every page
that the view has a part of; ``dontneed``, which destroys, only for pages that it has all of.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from uzswap.arrays.arena import Arena, arena_of
from uzswap.arrays.kept import Keeping
from uzswap.core.boundary.memory import NORMAL, RANDOM, SEQUENTIAL
from uzswap.errors import InvalidArgumentError
from uzswap.reclaim.limits import HARD_LIMITS
from uzswap.units import PAGE_SIZE, format_size

try:
    from numpy.lib.array_utils import byte_bounds
except ModuleNotFoundError:  # numpy 1.26
    from numpy import byte_bounds  # type: ignore[attr-defined, no-redef]

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap.core.boundary.memory import Memory

__all__ = ["Advice", "ArrayInfo", "advise", "info", "resident"]

Advice = Literal["willneed", "cold", "pageout", "dontneed", "sequential", "random", "normal"]


class ArrayInfo(NamedTuple):
    """Where the bytes of an array are; uncompressed bytes, of the whole allocation that a view looks into."""

    #: of the allocation: whole pages
    bytes: int
    resident: int
    #: compressed in the pool
    zswap: int
    #: compressed on the swap device
    disk: int
    #: never touched, dropped, or one repeated word: no bytes anywhere
    zero: int
    #: could not be read back: access is SIGBUS
    lost: int
    #: compressed bytes in the pool of pages that are resident, and were not written to when that was last looked at
    clean_copies: int
    #: times that a thread waited for a page
    faults: int
    #: pages that were brought back
    loads: int
    #: path of who is charged
    cgroup: str
    #: how system calls find pages that are not resident: "full", the kernel waits for them; "trapped", it does not, but
    #: the calls are trapped before it makes them; "user-mode-only", neither: they fail with EFAULT
    mode: Literal["full", "trapped", "user-mode-only"]


class _Pages(NamedTuple):
    """The pages that a view has a part of, in its area."""

    address: int
    arena: Arena
    memory: Memory
    area: int
    #: bytes from the beginning of the area
    begin: int
    end: int
    array: NDArray[Any]

    @property
    def first(self) -> int:
        return self.begin // PAGE_SIZE

    @property
    def after(self) -> int:
        return -(-self.end // PAGE_SIZE)


def _pages(arr: NDArray[Any]) -> _Pages:
    if not isinstance(arr, np.ndarray):
        raise TypeError(f"a numpy.ndarray is needed, not {type(arr).__name__}")
    low, high = byte_bounds(arr)
    found = arena_of(low)
    if found is None:
        raise InvalidArgumentError(
            "the array is not in paged memory: make it with uzswap.array() and the like, or inside uzswap.managed()"
        )
    arena, area = found
    memory = arena.memory
    assert memory is not None
    base = memory.place(area).address
    return _Pages(low, arena, memory, area, low - base, high - base if arr.size else low - base, arr)


def _run_of_bytes(arr: NDArray[Any]) -> _Pages:
    pages = _pages(arr)
    if not arr.flags.forc:
        raise InvalidArgumentError(
            f"a view of shape {arr.shape} with strides {arr.strides} is not contiguous: "
            "what lies between its elements is not its own.  Use the array itself, or a contiguous part"
        )
    return pages


def info(arr: NDArray[Any]) -> ArrayInfo:
    """Tell where the bytes of an array are, and what it took to bring them.

    Parameters
    ----------
    arr
        An array in paged memory or any view of one; the answer is about the whole of it.

    Raises
    ------
    InvalidArgumentError
        It is not in paged memory.
    """
    _, arena, memory, area, *_ = _pages(arr)
    found = memory.area(area)
    return ArrayInfo(
        bytes=found.pages * PAGE_SIZE,
        resident=found.resident * PAGE_SIZE,
        zswap=found.zswap * PAGE_SIZE,
        disk=found.disk * PAGE_SIZE,
        zero=found.zero * PAGE_SIZE,
        lost=found.lost * PAGE_SIZE,
        clean_copies=found.clean_copies,
        faults=found.faults,
        loads=found.loads,
        cgroup=arena.zswap.tree.by_index(found.memcg).path,
        mode=_mode(memory),
    )


def _mode(memory: Memory) -> Literal["full", "trapped", "user-mode-only"]:
    found = memory.info()
    if not found.user_mode_only:
        return "full"
    return "trapped" if found.calls_trapped == 1 else "user-mode-only"


def resident(arr: NDArray[Any]) -> AbstractContextManager[NDArray[Any]]:
    """Bring an array in and keep it in memory for the length of a block; blocks may nest and overlap.

    Meant for system calls that fail with EFAULT for a page that is not resident (see :attr:`ArrayInfo.mode`), and for
    memory that is lent to the kernel for longer than a call.  Nothing is locked against the machine's own swapping (it
    is not mlock).

    Parameters
    ----------
    arr
        An array in paged memory or a view of one.  Of a view that is not contiguous everything from its first to its
        last byte is kept.

    Raises
    ------
    InvalidArgumentError
        It is not in paged memory.
    MemoryError
        It is larger than a hard limit of its cgroup or of an ancestor: ``memory.max``, ``uzswap.resident.max``.
    IntegrityError
        A page could not be read back.
    """
    pages = _pages(arr)
    _require_room(pages)
    return Keeping(
        pages.arena.kept, pages.memory, pages.address, pages.area, pages.first, pages.after, arr, _owner(pages)
    )


def _owner(pages: _Pages) -> str:
    return pages.arena.zswap.tree.by_index(pages.memory.place(pages.area).memcg).path


def _budget(pages: _Pages) -> tuple[int, str]:
    """Return the lowest hard limit that counts for an array, and which it is."""
    cgroup = pages.arena.zswap.tree.by_index(pages.memory.place(pages.area).memcg)
    return min((one.limits[name], f"{one.path}/{name}") for one in cgroup.ancestry() for name in HARD_LIMITS)


def _require_room(pages: _Pages) -> None:
    nbytes = (pages.after - pages.first) * PAGE_SIZE
    limit, file = _budget(pages)
    if nbytes > limit:
        raise MemoryError(
            f"{format_size(nbytes)} cannot be resident at once: {file} is {format_size(limit)}.  "
            "Raise the limit, or take the array in parts"
        )


# advise()


def _willneed(pages: _Pages) -> int:
    """Bring in as much from the beginning as the limits have room for: more would only push out the rest."""
    count = min(pages.after - pages.first, _budget(pages)[0] // PAGE_SIZE)
    pages.memory.bring(pages.area, pages.first, count)
    return count


def _cold(pages: _Pages) -> int:
    pages.memory.cool(pages.area, pages.first, pages.after - pages.first)
    return pages.after - pages.first


def _pageout(pages: _Pages) -> int:
    return pages.memory.evict(pages.area, pages.first, pages.after - pages.first)


def _dontneed(pages: _Pages) -> int:
    first = -(-pages.begin // PAGE_SIZE)
    # What is behind the last element of an array that has its memory to itself is nobody's.
    after = pages.after if pages.array.flags.owndata else pages.end // PAGE_SIZE
    if not pages.array.flags.writeable:
        raise InvalidArgumentError("dontneed would change a read-only array")
    if first < after:
        pages.memory.drop(pages.area, first, after - first)
    return max(0, after - first)


_ADVICE: Final[dict[str, Callable[[_Pages], int]]] = {
    "willneed": _willneed,
    "cold": _cold,
    "pageout": _pageout,
    "dontneed": _dontneed,
}
_HINTS: Final = {"sequential": SEQUENTIAL, "random": RANDOM, "normal": NORMAL}


def advise(arr: NDArray[Any], advice: Advice) -> int:
    """Say how an array will be used, as madvise(2).

    =============  ===================================================================================================
    "willneed"     bring it in, as far as the limits have room; returns when it is there
    "cold"         it goes next when memory is reclaimed
    "pageout"      evict it now
    "dontneed"     forget its contents: it reads as zero.  Pages of which the view has only a part keep theirs
    "sequential"   faults bring in many pages, from the first on; counts for the whole array
    "random"       faults bring in one page; counts for the whole array
    "normal"       faults bring in one page, and more when they follow one another; counts for the whole array
    =============  ===================================================================================================

    Parameters
    ----------
    arr
        An array in paged memory, or a contiguous view of one.

    Returns
    -------
    int
        Bytes that it was done for, whole pages; for "pageout" those that went.

    Raises
    ------
    InvalidArgumentError
        The advice is unknown; the array is not in paged memory, not contiguous, or for "dontneed" read-only.
    """
    if advice not in _ADVICE and advice not in _HINTS:
        raise InvalidArgumentError(f"advice {advice!r} is unknown, there is: {', '.join((*_ADVICE, *_HINTS))}")
    pages = _run_of_bytes(arr)
    if advice in _HINTS:
        pages.memory.hint(pages.area, _HINTS[advice])
        return pages.memory.place(pages.area).pages * PAGE_SIZE
    if pages.first == pages.after:
        return 0
    return _ADVICE[advice](pages) * PAGE_SIZE
