"""Rows of an array by index, without a fault for each page: :func:`take` and :func:`put`.

A row of 4 KiB at a random place costs a fault when it is not resident, and a page that is resident and has to go for
it.  Here rows that are swapped out are decompressed straight into the result, on all CPUs; what is resident stays.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from uzswap.arrays.arena import Arena, arena_of
from uzswap.errors import IntegrityError, InvalidArgumentError, os_error
from uzswap.threads import start_thread
from uzswap.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from uzswap.core.boundary.memory import Memory

__all__ = ["put", "take"]

#: Rows handed to the data plane in one call: between two of them signal handlers run.  24 bytes each are needed.
_ROWS_AT_ONCE: Final = 1 << 16

#: Bytes for which a further thread is worth its start: that takes 0.1 ms, a MiB some 0.5 ms (2 CPUs, 2026-11).
_BYTES_A_THREAD: Final = 1 << 20


class _Rows(NamedTuple):
    """An array as rows of contiguous bytes in paged memory: ``outer`` blocks of ``inner`` rows."""

    arena: Arena
    memory: Memory
    area: int
    #: bytes from the beginning of the area to the first row
    begin: int
    outer: int
    inner: int
    #: bytes from a row to the next of its block, and from a block to the next
    stride: int
    outer_stride: int
    row_bytes: int


def take(
    x: ArrayLike, indices: ArrayLike, axis: int | None = 0, out: NDArray[Any] | None = None, *, promote: bool = False
) -> Any:
    """Return ``numpy.take(x, indices, axis, out)``, at the price of the bytes instead of the faults.

    Parameters
    ----------
    x
        An array in paged memory, or a view of one: C-contiguous for any axis, or with contiguous rows for ``axis=0``.
        Of anything else the answer is numpy's own, faults included.
    indices
        Integers of any shape; negative ones count from the end.  They need not be sorted, and may be repeated.
    axis
        Along which they count.  None takes from the flattened array, as numpy does; that is not the default here.
    out
        Where the result goes: of its shape and dtype.
    promote
        Whether the rows become resident, as by an access.  Otherwise what is resident stays so: right for what is read
        once, as an epoch of training does.

    Returns
    -------
    ndarray
        Of shape ``x.shape[:axis] + indices.shape + x.shape[axis + 1:]``; a scalar where numpy's is one.

    Raises
    ------
    IndexError
        An index is out of bounds.  Nothing was written to ``out``.
    TypeError, InvalidArgumentError
        The indices are no integers; ``out`` does not fit.
    IntegrityError
        Bytes of a row are not those that were written.  The message names the array's cgroup and the page.
    OSError
        The device could not be read: its errno.

    Notes
    -----
    Loads are counted in ``zswpin``, ``pswpin`` and the like, as those of faults are.  Of pages on the device up to 64
    are read in one go by each thread, in the order in which they lie there.  May be called from any thread; while
    another one writes to the same rows, some of the bytes are old and some new, as with numpy.

    Examples
    --------
    >>> import numpy as np, uzswap
    >>> with uzswap.Zswap() as z:
    ...     x = uzswap.array(np.arange(1_000_000).reshape(1000, 1000), cgroup=z.cgroup("/a"))
    ...     freed = uzswap.advise(x, "pageout")
    ...     rows = uzswap.take(x, [3, 999, 3])
    ...     resident = uzswap.info(x).resident
    ...     del x
    >>> rows[:, 0].tolist(), resident
    ([3000, 999000, 3000], 0)
    """
    source = np.asanyarray(x)
    if axis is None:
        source, axis = source.reshape(-1), 0
    axis = _axis(source, axis)
    wanted = _integers(indices)
    shape = (*source.shape[:axis], *wanted.shape, *source.shape[axis + 1 :])
    if out is not None and (out.shape != shape or out.dtype != source.dtype):
        raise InvalidArgumentError(
            f"out is {out.dtype} {out.shape}, the result {source.dtype} {shape}: give one that fits"
        )
    rows = _rows(source, axis)
    if rows is None or not math.prod(shape):
        return np.take(source, wanted, axis, out)
    flat = _in_bounds(wanted, source.shape[axis], axis)
    if promote:
        if rows.outer == 1:
            _bring(source, rows, flat)
        return np.take(source, wanted, axis, out)
    direct = out is not None and out.flags.c_contiguous and not np.may_share_memory(out, source)
    result = out if out is not None and direct else np.empty(shape, source.dtype)
    _exchange(rows, flat, result, into=False)
    if out is not None:
        if not direct:
            out[...] = result
        return out
    return result[()] if result.ndim == 0 else result


def put(x: NDArray[Any], indices: ArrayLike, values: ArrayLike, axis: int = 0) -> None:
    """Do ``x[indices] = values`` along an axis, without a fault for each page: the counterpart of :func:`take`.

    Pages that are swapped out are changed there: decompressed, changed and compressed again, without becoming resident.
    What the pool or the limits refuse is written by way of faults.  (numpy's own ``put`` counts elements of the
    flattened array: that is ``put(x.reshape(-1), indices, values)``.)

    Parameters
    ----------
    x
        An array in paged memory, as for :func:`take`; any other is written as numpy does it.
    indices
        Integers of any shape.  Of a row that is named several times the last value stays.
    values
        Anything that broadcasts to ``x.shape[:axis] + indices.shape + x.shape[axis + 1:]`` and casts to ``x.dtype`` as
        an assignment does.

    Raises
    ------
    IndexError, TypeError
        As of :func:`take`.  Nothing was written.
    ValueError
        ``x`` is read-only; ``values`` do not broadcast.  Nothing was written.
    IntegrityError, OSError
        As of :func:`take`, of bytes that share a page with a row; rows of other pages may have been written.
    """
    if not isinstance(x, np.ndarray):
        raise TypeError(f"a numpy.ndarray is needed, not {type(x).__name__}")
    axis = _axis(x, axis)
    wanted = _integers(indices)
    if not x.flags.writeable:
        raise ValueError("assignment destination is read-only")
    rows = _rows(x, axis)
    shape = (*x.shape[:axis], *wanted.shape, *x.shape[axis + 1 :])
    if rows is None or not math.prod(shape):
        x[(slice(None),) * axis + (wanted,)] = values
        return
    flat = _in_bounds(wanted, x.shape[axis], axis)
    given = np.broadcast_to(np.asarray(values), shape)
    ready = np.ascontiguousarray(given.astype(x.dtype, casting="unsafe", copy=False))
    if np.may_share_memory(ready, x):
        ready = ready.copy()
    _exchange(rows, flat, ready, into=True)


def _axis(x: NDArray[Any], axis: int) -> int:
    if not -x.ndim <= axis < x.ndim:
        raise np.exceptions.AxisError(axis, x.ndim)
    return axis % x.ndim


def _integers(indices: ArrayLike) -> NDArray[np.intp]:
    wanted = np.asarray(indices)
    if wanted.size == 0 and wanted.dtype.kind == "f" and not isinstance(indices, np.ndarray):
        wanted = wanted.astype(np.intp)  # an empty list
    if wanted.dtype.kind not in "iu":
        raise TypeError(f"indices are {wanted.dtype}, integers are needed (a mask: numpy.flatnonzero(mask))")
    return wanted.astype(np.intp, casting="same_kind", copy=False)


def _in_bounds(wanted: NDArray[np.intp], length: int, axis: int) -> NDArray[np.intp]:
    """Return the indices as a flat array of non-negative ones."""
    flat = wanted.reshape(-1)
    low, high = int(flat.min()), int(flat.max())
    if low < -length or high >= length:
        bad = low if low < -length else high
        raise IndexError(f"index {bad} is out of bounds for axis {axis} with size {length}")
    return np.where(flat < 0, flat + length, flat) if low < 0 else flat


def _rows(x: NDArray[Any], axis: int) -> _Rows | None:
    """Return an array as rows along an axis; None when it is not in paged memory, or its rows are not contiguous."""
    if not x.size or x.dtype.hasobject or (found := arena_of(x.ctypes.data)) is None:
        return None
    arena, area = found
    memory = arena.memory
    assert memory is not None
    if not (x.flags.c_contiguous or (axis == 0 and x[0].flags.c_contiguous)):
        return None
    row_bytes = math.prod(x.shape[axis + 1 :]) * x.itemsize
    outer = math.prod(x.shape[:axis])
    place = memory.place(area)
    stride = x.strides[0] if axis == 0 else row_bytes
    begin = x.ctypes.data - place.address
    last = begin + stride * (x.shape[axis] - 1)
    if min(begin, last) < 0 or max(begin, last) + row_bytes > place.pages * PAGE_SIZE:
        return None  # a view that reaches beyond its array, made by as_strided
    return _Rows(arena, memory, area, begin, outer, x.shape[axis], stride, row_bytes * x.shape[axis], row_bytes)


def _bring(x: NDArray[Any], rows: _Rows, flat: NDArray[np.intp]) -> None:
    """Bring the pages of rows in, one call for each run of them."""
    pages = np.unique((rows.begin + flat * rows.stride) // PAGE_SIZE)
    for run in np.split(pages, np.flatnonzero(np.diff(pages) > 1) + 1):
        first = int(run[0])
        after = -(-(rows.begin + rows.row_bytes + int(run[-1]) * PAGE_SIZE) // PAGE_SIZE)
        rows.memory.bring(rows.area, first, min(after, int(run[-1]) + 1 + rows.row_bytes // PAGE_SIZE) - first)


def _exchange(rows: _Rows, flat: NDArray[np.intp], other: NDArray[Any], into: bool) -> None:
    """Copy rows to ``other``, where they lie one after the other, or from there."""
    blocks = np.arange(rows.outer, dtype=np.int64)[:, None] * rows.outer_stride
    begins = (rows.begin + blocks + flat.astype(np.int64)[None, :] * rows.stride).reshape(-1)
    # In the order of the pages: each is decompressed once.  Stable, since of equal rows the last one stays.
    order = np.argsort(begins, kind="stable")
    first_bytes = begins[order].astype(np.uint64)
    places = order.astype(np.uint64) * np.uint64(rows.row_bytes)
    borders = _borders(first_bytes, rows.row_bytes, _threads(len(order) * rows.row_bytes))

    def some(first: int, after: int) -> tuple[int, int]:
        for at in range(first, after, _ROWS_AT_ONCE):
            part = slice(at, min(at + _ROWS_AT_ONCE, after))
            error, page = rows.memory.exchange(
                rows.area, first_bytes[part], places[part], rows.row_bytes, other.ctypes.data, into
            )
            if error:
                return error, page
        return 0, 0

    for error, page in _together(some, list(itertools.pairwise(borders))):
        if error:
            raise _lost(rows, page, error)


def _together(work: Callable[[int, int], tuple[int, int]], parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Do all parts, each in a thread, of which the caller's is one; where no more can be had it does the rest."""
    futures: list[Future[tuple[int, int]]] = [Future() for _ in parts]

    def do(future: Future[tuple[int, int]], part: tuple[int, int]) -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work(*part))
            except BaseException as error:
                future.set_exception(error)

    try:
        mine = [(futures[0], parts[0])]
        for one in zip(futures[1:], parts[1:], strict=True):
            try:
                start_thread("uzswap-take", do, *one)
            except OSError:
                mine.append(one)
        for one in mine:
            do(*one)
        wait(futures)
    except BaseException:  # of a signal handler
        for future in futures:
            future.cancel()
        wait(futures)  # those that have begun write into memory of the caller's
        raise
    return [future.result() for future in futures]


def _threads(nbytes: int) -> int:
    return max(1, min(len(os.sched_getaffinity(0)), nbytes // _BYTES_A_THREAD))


def _borders(begins: NDArray[np.uint64], row_bytes: int, parts: int) -> list[int]:
    """Cut rows into parts of no common page: two threads never have the same one at once."""
    borders = [0]
    for part in range(1, parts):
        at = len(begins) * part // parts
        while borders[-1] < at < len(begins):
            before, here = int(begins[at - 1]), int(begins[at])
            if (before + row_bytes - 1) // PAGE_SIZE < here // PAGE_SIZE:
                borders.append(at)
                break
            at += 1
    return [*borders, len(begins)]


def _lost(rows: _Rows, page: int, error: int) -> OSError:
    place = rows.memory.place(rows.area)
    path = rows.arena.zswap.tree.by_index(place.memcg).path
    damaged = error in (errno.EBADMSG, errno.EILSEQ)
    why = "its bytes are not those that were written" if damaged else os.strerror(error)
    text = (
        f"page {page} of an array of {format_size(place.pages * PAGE_SIZE)} in {path} can't be read back: {why}; "
        "the other rows can be"
    )
    return IntegrityError(text, path) if damaged else os_error(error, text)
