"""numpy arrays in paged memory: numpy's own constructors, with a cgroup.

What they return are plain :class:`numpy.ndarray`: they own their data, their ``base`` is None, and numpy gives the
memory back when the last view of it is gone.  Any function that takes an array takes them.  ``resize()`` and other
calls that reallocate stay in the same cgroup.

Nothing is charged when an array is made: as with anonymous memory each page is, at its first touch.
"""

from __future__ import annotations

import operator
import os
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from uzswap.arrays.allocating import Allocating
from uzswap.arrays.arena import arena_in, arena_of
from uzswap.cgroup.memcg import require_cgroup
from uzswap.core.boundary import handler as hook
from uzswap.errors import InvalidArgumentError
from uzswap.units import is_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from io import FileIO
    from typing import SupportsIndex

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from uzswap.cgroup.memcg import MemCgroup

__all__ = ["array", "asarray", "empty", "from_file", "full", "ones", "zeros"]

Order = Literal["C", "F"]
#: of what a conversion copies: "K" keeps the order in memory, "A" is "F" for what is in that order
CopyOrder = Literal["K", "A", "C", "F"]


def _data_type(dtype: DTypeLike) -> np.dtype[Any]:
    wanted = np.dtype(dtype)
    if wanted.hasobject:
        raise InvalidArgumentError(
            f"dtype={wanted}: the bytes of objects are not in the array; uzswap.Store keeps objects"
        )
    return wanted


def _finish(made: NDArray[Any]) -> NDArray[Any]:
    """Tell the engine how wide the numbers are, since a byte shuffle makes them compress better, and what they are."""
    if (found := arena_of(made.ctypes.data)) is not None:
        arena, area = found
        assert arena.memory is not None
        hook.set_item(arena.memory, area, _item(made.dtype))
        arena.memory.name(area, f"{made.dtype} array {made.shape}".encode())
    return made


def _item(dtype: np.dtype[Any]) -> int:
    """Return the width that a byte shuffle should assume, 0 for none: that of a number, of both parts of a complex."""
    width = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
    return width if dtype.kind in "biufcmM" and width in (2, 4, 8) else 0


def empty(shape: Any, dtype: DTypeLike = float, order: Order = "C", *, cgroup: MemCgroup) -> NDArray[Any]:
    """Return an array of zeros that take no memory until they are touched: as :func:`zeros`.

    Parameters
    ----------
    shape, dtype, order
        As of :func:`numpy.empty`.
    cgroup
        Who is charged.

    Raises
    ------
    OSError
        userfaultfd is refused here, with its errno; ENODEV the cgroup was removed; EBADF the engine was closed.
    InvalidArgumentError
        A dtype of Python objects.
    MemoryError
        No address space.
    """
    with Allocating(cgroup):
        return _finish(np.empty(shape, _data_type(dtype), order))


def zeros(shape: Any, dtype: DTypeLike = float, order: Order = "C", *, cgroup: MemCgroup) -> NDArray[Any]:
    """Return an array of zeros that take no memory until they are touched.  Parameters and errors as :func:`empty`."""
    with Allocating(cgroup):
        return _finish(np.zeros(shape, _data_type(dtype), order))


def ones(shape: Any, dtype: DTypeLike = float, order: Order = "C", *, cgroup: MemCgroup) -> NDArray[Any]:
    """Return an array of ones.  Parameters and errors as :func:`empty`."""
    with Allocating(cgroup):
        made = _finish(np.empty(shape, _data_type(dtype), order))
    np.copyto(made, 1, casting="unsafe")
    return made


def full(
    shape: Any, fill_value: Any, dtype: DTypeLike | None = None, order: Order = "C", *, cgroup: MemCgroup
) -> NDArray[Any]:
    """Return an array filled with a value, of the value's dtype unless another is given; else as :func:`empty`."""
    if dtype is None:
        fill_value = np.asarray(fill_value)
        dtype = fill_value.dtype
    with Allocating(cgroup):
        made = _finish(np.empty(shape, _data_type(dtype), order))
    np.copyto(made, fill_value, casting="unsafe")
    return made


def _is_in(candidate: object, cgroup: MemCgroup) -> bool:
    """Whether an object is an array whose data are paged memory of a cgroup."""
    if not isinstance(candidate, np.ndarray) or (found := arena_of(candidate.ctypes.data)) is None:
        return False
    arena, area = found
    assert arena.memory is not None
    return arena is arena_in(cgroup) and arena.memory.place(area).memcg == cgroup.index


def array(
    object: ArrayLike,
    dtype: DTypeLike | None = None,
    *,
    copy: bool | None = True,
    order: CopyOrder = "K",
    ndmin: int = 0,
    cgroup: MemCgroup,
) -> NDArray[Any]:
    """Return an array with the values of anything that :func:`numpy.array` takes.

    Parameters
    ----------
    object, dtype, order, ndmin
        As of :func:`numpy.array`.
    copy
        True always copies.  None returns an array that is paged memory of the cgroup already, and has the dtype and
        order, as it is.  False does that, or raises ValueError.
    cgroup
        Who is charged.

    Raises
    ------
    OSError, InvalidArgumentError, MemoryError
        As :func:`empty`.
    ValueError
        ``copy=False`` and a copy would be needed.
    """
    ndmin = operator.index(ndmin)
    require_cgroup(cgroup)
    if not copy and _is_in(object, cgroup):
        return np.array(object, dtype, copy=copy, order=order, ndmin=ndmin)
    if copy is False:
        raise ValueError(f"copy=False: the data are not paged memory of {cgroup.path}, so they must be copied")
    if dtype is not None:
        dtype = _data_type(dtype)
    with Allocating(cgroup):
        made = np.array(object, dtype, copy=True, order=order, ndmin=ndmin)
        _data_type(made.dtype)
        return _finish(made)


def asarray(a: ArrayLike, dtype: DTypeLike | None = None, order: CopyOrder = "K", *, cgroup: MemCgroup) -> NDArray[Any]:
    """Return the very array when it is paged memory of the cgroup and has the dtype and order; else a copy that is.

    Parameters as of :func:`numpy.asarray`; errors as :func:`array`.
    """
    return array(a, dtype, copy=None, order=order, cgroup=cgroup)


#: bytes read at once by from_file()
_CHUNK = 1 << 20


def from_file(
    path: str | os.PathLike[str],
    dtype: DTypeLike = float,
    shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
    offset: int = 0,
    order: Order = "C",
    *,
    cgroup: MemCgroup,
) -> NDArray[Any]:
    """Return an array with the bytes of a file, read in; the file is not needed any more.

    It is read in chunks through a small buffer, so it may be much larger than the budget, and it works in user mode
    only, where reading into the array directly would not.

    Parameters
    ----------
    path
        Of raw numbers, as :meth:`numpy.ndarray.tofile` writes them.
    dtype, order
        Of what is in the file.
    shape
        None is one dimension of what is there, which must be whole items.
    offset
        Bytes at which to begin.
    cgroup
        Who is charged.

    Raises
    ------
    OSError
        The file cannot be read; and as :func:`empty`.
    InvalidArgumentError
        The file is too short for the shape, or the rest of it is not whole items.
    """
    require_cgroup(cgroup)
    path = os.fspath(path)  # the number of a descriptor would be closed
    if not is_path(path):
        raise InvalidArgumentError(f"{path!r} is no path: it has a NUL in it, or characters that stand for no bytes")
    wanted = _data_type(dtype)
    if not wanted.itemsize:
        raise InvalidArgumentError(f"dtype={wanted} has no bytes: give the width of an item, such as S10")
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size - offset
        if offset < 0 or size < 0:
            raise InvalidArgumentError(f"{os.fspath(path)}: offset={offset} is not within {size + offset} bytes")
        if shape is None:
            items, rest = divmod(size, wanted.itemsize)
            if rest:
                raise InvalidArgumentError(
                    f"{os.fspath(path)}: {size} bytes from {offset} on are not whole items of {wanted.itemsize} bytes"
                )
            shape = (items,)
        made = empty(shape, wanted, order, cgroup=cgroup)
        if made.nbytes > size:
            raise _too_short(path, made.nbytes, size)
        _fill(made, file, path, offset)
    return made


def _too_short(path: str | os.PathLike[str], wanted: int, found: int) -> InvalidArgumentError:
    return InvalidArgumentError(f"{os.fspath(path)}: the array has {wanted} bytes, the file only {found}")


def _fill(made: NDArray[Any], file: FileIO, path: str | os.PathLike[str], offset: int) -> None:
    """Read a file into an array that is contiguous in one order or the other."""
    to = made.reshape(-1, order="A").view(np.uint8)
    buffer = memoryview(bytearray(min(_CHUNK, made.nbytes)))
    file.seek(offset)
    done = 0
    while done < made.nbytes:
        got = file.readinto(buffer[: made.nbytes - done])
        if not got:
            raise _too_short(path, made.nbytes, done)
        to[done : done + got] = buffer[:got]
        done += got
