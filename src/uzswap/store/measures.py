"""What objects of extension types occupy, which hide it from ``sys.getsizeof()`` and from the garbage collector.

In this order, each where it is the type's own, written in C, and so speaks of memory that the walk does not see:

* Arrow's buffers, each once however many arrays see it;
* ``estimated_size()`` (polars), ``nbytes`` (tensors, and what follows them);
* ``__sizeof__``;
* the length of its pickle, when it can be pickled and tells nothing else (the trees of scikit-learn).

The other way round, what pandas calls ``__sizeof__`` is the sum of what the walk sees anyway, and is left out; so is
what ``io.BytesIO`` says from Python 3.13 on, which shows its buffer to the garbage collector.
"""

from __future__ import annotations

import gc
import inspect
import io
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np

__all__ = ["Block", "Measure", "measure_of", "size_of"]

#: Address and bytes of memory that several objects may have a part of.
Block: TypeAlias = tuple[int, int]
#: Returns the bytes of an object, and the blocks that come on top of it.
Measure: TypeAlias = Callable[[Any], tuple[int, list[Block]]]

_HAVE_GC: Final = 1 << 14  # Py_TPFLAGS_HAVE_GC
_SHOWS_BUFFER: Final = any(isinstance(one, bytes) for one in gc.get_referents(io.BytesIO(b"some")))
# Written in C, or by Cython: not in Python, where sums are made of what is seen.
_METHODS: Final = ("method_descriptor", "cython_function_or_method", "builtin_function_or_method")


def measure_of(cls: type) -> Measure | None:
    """Return how objects of a type are measured; None when ``sys.getsizeof()`` is right."""
    if issubclass(cls, (np.ndarray, np.generic, memoryview, type)):
        return None
    if isinstance(getattr(cls, "memory_usage", None), types.FunctionType):
        return _bare
    if _SHOWS_BUFFER and cls.__sizeof__ is io.BytesIO.__sizeof__:
        return _bare
    if cls.__module__.partition(".")[0] == "pyarrow":
        return _arrow
    if _is_c_method(cls, "estimated_size"):
        return _estimated
    if isinstance(
        inspect.getattr_static(cls, "nbytes", None), (types.GetSetDescriptorType, types.MemberDescriptorType)
    ):
        return _nbytes
    if isinstance(cls.__sizeof__, types.FunctionType):
        return _sized
    hides = not cls.__flags__ & _HAVE_GC and cls.__sizeof__ is object.__sizeof__
    pickles = any(
        _is_c_method(cls, name) and getattr(cls, name) is not getattr(object, name, None)
        for name in ("__reduce__", "__reduce_ex__", "__getstate__")
    )
    return _pickled if hides and pickles else None


def size_of(thing: Any) -> int:
    """``sys.getsizeof()``; what it is without a ``__sizeof__`` of its class when that fails."""
    try:
        return sys.getsizeof(thing)
    except Exception:
        # A __sizeof__ of the user's that fails is no reason to refuse the value.
        return object.__sizeof__(thing)


def _is_c_method(cls: type, name: str) -> bool:
    return type(inspect.getattr_static(cls, name, None)).__name__ in _METHODS


def _bare(thing: Any) -> tuple[int, list[Block]]:
    return object.__sizeof__(thing), []


def _sized(thing: Any) -> tuple[int, list[Block]]:
    return size_of(thing), []


def _estimated(thing: Any) -> tuple[int, list[Block]]:
    return _claimed(thing, lambda: thing.estimated_size()), []


def _nbytes(thing: Any) -> tuple[int, list[Block]]:
    return _claimed(thing, lambda: thing.nbytes), []


def _pickled(thing: Any) -> tuple[int, list[Block]]:
    return _claimed(thing, lambda: len(pickle.dumps(thing, 5))), []


def _claimed(thing: Any, claim: Callable[[], Any]) -> int:
    least = size_of(thing)
    try:
        return max(least, object.__sizeof__(thing) + int(claim()))
    except Exception:
        return least


def _arrow(thing: Any) -> tuple[int, list[Block]]:
    try:
        return object.__sizeof__(thing), list(_buffers(thing))
    except Exception:
        return size_of(thing), []


def _buffers(thing: Any) -> set[Block]:
    """The buffers of an Array, ChunkedArray, RecordBatch, Table, Buffer or Scalar of Arrow's."""
    found: set[Block] = set()
    todo = [thing]
    while todo:
        one = todo.pop()
        if hasattr(one, "buffers"):
            todo += [buffer for buffer in one.buffers() if buffer is not None]
            # The values of a dictionary are in none of its buffers.
            if hasattr(one, "dictionary"):
                todo.append(one.dictionary)
        elif hasattr(one, "address"):
            while one.parent is not None and hasattr(one.parent, "address"):
                one = one.parent
            found.add((one.address, one.size))
        elif hasattr(one, "chunks"):
            todo += one.chunks
        elif hasattr(one, "columns"):
            todo += one.columns
    return found
