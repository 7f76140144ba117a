"""Pickling of what is shared: parts that others hold, and arrays that see the same memory.

* A part that others hold is not pickled at all.  The packed value refers to it, and the value that comes back has the
  very same object (pickle's *persistent ids*).
* Arrays that share memory with each other are pickled as what they are: views, each with the same owner, which is
  pickled once.

:func:`uzswap.store.weigh.examine` finds out what is to be handled so and says it with an :class:`Apart`.  Objects that
pickle as they please could copy a part where they ought to refer to it, so the pickler counts: unless it came along
every reference that was found, the value has to stay (:class:`Held`).

Plain values have nothing to do with this module: a pickler that is asked about each object is slower.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from uzswap.store.arena import Memory
from uzswap.store.datetimes import reduced

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap.store.measures import Block

__all__ = ["Apart", "Held", "dump", "load"]


class Apart:
    """What packing has to know of what is shared.

    Attributes
    ----------
    parts
        The objects to refer to, by id.
    references
        How often the value, without its parts, refers to those of them that can change, by id.
    views
        Ids of the arrays that are to come back as views of what they are views of.
    closure
        The memory of the parts, if it is to be charged: see :meth:`uzswap.store.buffers.Buffers.join_closure`.
    spans
        Of memory that is the value's alone: the addresses of the first byte that is seen and of the one after the last,
        by id of its owner, where that is not in the value itself.
    """

    __slots__ = ("closure", "parts", "references", "spans", "views")

    def __init__(
        self,
        parts: dict[int, Any],
        references: dict[int, int],
        views: set[int],
        closure: tuple[int, int, list[Block]] | None = None,
        spans: dict[int, tuple[int, int]] | None = None,
    ) -> None:
        self.spans = spans or {}
        self.closure = closure
        self.parts = parts
        self.references = references
        self.views = views

    def __repr__(self) -> str:
        return f"<Apart: {len(self.parts)} parts that others hold, {len(self.views)} views>"


class Held(Exception):
    """The value would not come back with the very parts that others hold, or not as views of one memory."""


class _Writable(Protocol):
    def write(self, data: Any, /) -> Any: ...


# The array's, a variable's, and that of the call which counts.
_OF_ARRAY_AND_OURS: Final = 3

# Objects of these types are asked for no __dict__.
_PLAIN: Final = frozenset({int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset, np.ndarray})


class _Pickler(pickle.Pickler):
    def __init__(
        self, file: _Writable, apart: Apart, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._apart = apart
        self._met: dict[int, int] = {}
        self._views = 0
        self._left_out: set[int] = set()
        self.kept: list[Any] = []
        self._places: dict[int, int] = {}
        # By id of the owner, and by id of the memory.
        self._memory_of: dict[int, NDArray[np.uint8]] = {}
        self._owners: dict[int, Any] = {}
        self._dicts = any(type(part) is dict for part in apart.parts.values())

    def persistent_id(self, thing: Any) -> int | None:
        key = id(thing)
        if key not in self._apart.parts:
            if hasattr(type(thing), "get_indexer"):
                # What an index of pandas has worked out, which copies of it share and pickle leaves out.
                self._left_out.update(id(getattr(thing, name, None)) for name in ("_cache", "_id"))
            elif self._dicts and type(thing) not in _PLAIN and not isinstance(thing, type):
                attributes = getattr(thing, "__dict__", None)
                if id(attributes) in self._apart.parts:
                    # It would come back with attributes of its own.
                    raise Held(f"the __dict__ of {_named(thing)}")
            return None
        self._met[key] = self._met.get(key, 0) + 1
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = len(self.kept)
            self.kept.append(thing)
        return place

    def reducer_override(self, thing: Any) -> Any:
        key = id(thing)
        if key in self._owners:
            return _memory, (self._owners[key],)
        if type(thing).__module__ == "pandas.core.internals.blocks":
            return self._block(thing)
        if key not in self._apart.views or not isinstance(thing, np.ndarray):
            return reduced(thing)
        self._views += 1
        owner = _owner(thing)
        if type(thing) is not np.ndarray or thing.dtype.hasobject:
            raise Held(f"the memory of {_named(thing)}")
        if owner is thing:
            return reduced(thing)
        # One for all views, so that they are seen to belong together when they have come back.
        memory = self._memory_of.get(id(owner))
        if memory is None:
            memory = _memory(owner)
            span = self._apart.spans.get(id(owner))
            if span is None:
                self._owners[id(memory)] = owner
            else:
                first = memory.__array_interface__["data"][0]
                memory = memory[span[0] - first : span[1] - first]
            self._memory_of[id(owner)] = memory
        offset = thing.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
        return _view, (memory, offset, thing.dtype, thing.shape, thing.strides, thing.flags.writeable)

    def _block(self, block: Any) -> Any:
        """pandas pickles a copy of an array that is not contiguous, as the pieces of a frame are: give it the array."""
        known = id(block.values)
        reduced = block.__reduce__()
        if known not in self._apart.views and known not in self._apart.parts:
            return reduced
        make, (_, *rest) = reduced
        return make, (block.values, *rest)

    def finish(self) -> None:
        """Raise Held unless everything was met as often as it was found."""
        for key, references in self._apart.references.items():
            part = self._apart.parts[key]
            if self._met.get(key, 0) == references or key in self._left_out or self._tracks_own(part):
                continue
            raise Held(_named(part))
        if self._views != len(self._apart.views):
            raise Held("arrays that share memory")

    def _tracks_own(self, part: Any) -> bool:
        """Whether an object is pandas' list of who else sees memory, and what comes back has memory of its own.

        pickle leaves it out.  It is there for writes: nobody writes to an index, and of a block nobody else sees what
        it takes with it.
        """
        if type(part).__name__ != "BlockValuesRefs" or type(part).__module__ != "pandas._libs.internals":
            return False
        holders = [reference() for reference in part.referenced_blocks]
        return all(
            holder is None
            or hasattr(type(holder), "get_indexer")
            or id(_owner(getattr(holder, "values", None))) in self._apart.spans
            for holder in holders
        )


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, kept: tuple[Any, ...], buffers: Iterable[Any] | None) -> None:
        super().__init__(file, buffers=buffers)
        self._kept = kept

    def persistent_load(self, place: int) -> Any:
        return self._kept[place]


def dump(
    value: Any, file: _Writable, apart: Apart, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None
) -> tuple[Any, ...]:
    """Pickle a value to a file, and return the parts that it refers to: keep them as long as the pickle.

    Raises
    ------
    Held
        Its own classes pickle it in a way that copies what others hold.
    Exception
        Whatever pickling the value raises.
    """
    pickler = _Pickler(file, apart, buffer_callback)
    pickler.dump(value)
    pickler.finish()
    return tuple(pickler.kept)


def load(file: Any, kept: tuple[Any, ...], buffers: Iterable[Any] | None = None) -> Any:
    """Build a value anew from what :func:`dump` wrote and returned."""
    return _Unpickler(file, kept, buffers).load()


def _owner(view: Any) -> Any:
    """What has the memory of an array: as the walk has it (follow_array() of walk.py)."""
    owner: Any = view
    while isinstance(owner, (np.ndarray, memoryview)):
        below = owner.obj if isinstance(owner, memoryview) else owner.base
        if below is None:
            break
        if type(owner) is np.ndarray and type(below) is Memory and sys.getrefcount(below) == _OF_ARRAY_AND_OURS:
            break
        owner = below
    return owner


def _memory(owner: Any) -> NDArray[np.uint8]:
    """The bytes of what owns an array's memory, in the order in which pickle brings them back."""
    if not isinstance(owner, np.ndarray):
        return np.frombuffer(owner, dtype=np.uint8)
    if (
        type(owner) is not np.ndarray
        or owner.dtype.hasobject
        or not (owner.flags.c_contiguous or owner.flags.f_contiguous)
    ):
        raise Held(f"the memory of {_named(owner)}")
    return owner.ravel("K").view(np.uint8)


def _view(
    memory: NDArray[np.uint8],
    offset: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    writeable: bool,
) -> NDArray[Any]:
    view: NDArray[Any] = np.ndarray(shape, dtype, memory, offset, strides)
    view.flags.writeable = writeable and view.flags.writeable
    return view


def _named(thing: Any) -> str:
    return f"a {type(thing).__module__}.{type(thing).__qualname__}".replace("a builtins.", "a ")
