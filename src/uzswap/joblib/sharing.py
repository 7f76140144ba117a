"""Arrays that worker processes map, read-only, instead of having copies.

The pages of an array of ours come and go and belong to one process, so what is shared is a file: on a disk, without a
name, 0600.  Of an array each block of a MiB is written once, when the first view with a part of it is sent, and workers
map the same pages of it, however many views they are given.  Reading the array for that brings nothing in and evicts
nothing (:func:`uzswap.take`); blocks of zeros are holes.

Workers open the file by the descriptor that this process has of it, ``/proc/PID/fd/N``.  So there is nothing to clean
up, whatever ends the process, and no other user can open it.  A token at the beginning of the file tells a worker that
it is the file that was meant, and not another that got the number of the descriptor since.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import tempfile
import uuid
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from uzswap.arrays.arena import arena_of
from uzswap.arrays.take import take
from uzswap.devices.place import choose_directory
from uzswap.errors import os_error
from uzswap.locks import Order, make_lock
from uzswap.units import PAGE_SIZE, format_size

try:
    from numpy.lib.array_utils import byte_bounds
except ModuleNotFoundError:  # numpy 1.26
    from numpy import byte_bounds  # type: ignore[attr-defined, no-redef]

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Files", "Part", "mapped", "owner_of"]

#: What is read, looked at and written at once; also a stripe of what was written.
_BLOCK: Final = 1 << 20
#: Of which a block is made: uzswap.take() looks up each.
_ROW: Final = 1 << 16
#: The first page of a file has its token alone.
_HEADER: Final = PAGE_SIZE


class Part(NamedTuple):
    """A view of an array, as workers find it in a file."""

    path: str
    token: bytes
    #: bytes in the file: where the part begins, and its length
    begin: int
    length: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    #: bytes from the beginning of the part to the first element
    offset: int


def owner_of(array: NDArray[Any]) -> NDArray[Any] | None:
    """Return the array that owns the memory of a view, if that is paged memory; None otherwise."""
    owner: Any = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    if owner.base is not None or owner.dtype.hasobject or arena_of(owner.ctypes.data) is None:
        return None
    low, high = byte_bounds(array)
    first, after = byte_bounds(owner)
    return owner if first <= low and high <= after else None  # as_strided() reaches anywhere


class _File:
    """The bytes of one array, as far as they were wanted.  One thread at a time."""

    def __init__(self, owner: NDArray[Any]) -> None:
        self.bounds = byte_bounds(owner)
        self.address = self.bounds[0]
        self.nbytes = self.bounds[1] - self.address
        self.directory = os.environ.get("JOBLIB_TEMP_FOLDER") or choose_directory(self.nbytes)
        self.file = tempfile.TemporaryFile(dir=self.directory, buffering=0)  # noqa: SIM115  closed by its Files
        self.token = uuid.uuid4().bytes
        self._written = bytearray(-(-self.nbytes // _BLOCK))
        self._buffer = bytearray(_BLOCK)
        os.pwrite(self.file.fileno(), self.token, 0)
        os.ftruncate(self.file.fileno(), _HEADER + self.nbytes)

    def has(self, begin: int, end: int) -> None:
        """Write the blocks from byte ``begin`` to ``end`` that are not there yet."""
        for block in range(begin // _BLOCK, -(-end // _BLOCK)):
            if not self._written[block]:
                self._write(block * _BLOCK, min(self.nbytes, (block + 1) * _BLOCK))
                self._written[block] = 1

    def _write(self, begin: int, end: int) -> None:
        buffer = np.frombuffer(self._buffer, np.uint8)[: end - begin]
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * (end - begin)).from_address(self.address + begin))
        whole = (end - begin) // _ROW * _ROW
        if whole:
            rows = np.arange(whole // _ROW)
            take(memory[:whole].reshape(-1, _ROW), rows, out=buffer[:whole].reshape(-1, _ROW))
        if whole < end - begin:
            buffer[whole:] = take(memory[whole:].reshape(1, -1), [0])[0]
        if not buffer.any():
            return
        left, at = memoryview(self._buffer)[: end - begin], _HEADER + begin
        try:
            while left:
                done = os.pwrite(self.file.fileno(), left, at)
                left, at = left[done:], at + done
        except OSError as error:
            raise os_error(
                error.errno or errno.EIO,
                f"an array of {format_size(self.nbytes)} can't be shared with workers: {error.strerror}; "
                "name a directory with room in JOBLIB_TEMP_FOLDER",
                self.directory,
            ) from None


class Files:
    """The files of the arrays that were sent in one call of ``Parallel``.  Any thread may use it."""

    def __init__(self) -> None:
        self._lock = make_lock(Order.NEIGHBOUR)
        #: by id of the array that owns the memory, with a reference that tells when that is gone
        self._files: dict[int, tuple[weakref.ref[NDArray[Any]], _File]] = {}

    def part(self, array: NDArray[Any], owner: NDArray[Any]) -> Part:
        """Return a view as workers find it, written as far as it is not yet.

        Raises
        ------
        OSError
            The file can't be made or written: ENOSPC and others.
        IntegrityError
            Bytes of the array can't be read back.
        """
        low, high = byte_bounds(array)
        with self._lock:
            known = self._files.get(id(owner))
            if known is None or known[0]() is not owner or known[1].bounds != byte_bounds(owner):
                known = (weakref.ref(owner), _File(owner))
                replaced = self._files.pop(id(owner), None)
                if replaced is not None:
                    replaced[1].file.close()
                self._files[id(owner)] = known
            file = known[1]
            file.has(low - file.address, high - file.address)
        return Part(
            path=f"/proc/{os.getpid()}/fd/{file.file.fileno()}",
            token=file.token,
            begin=_HEADER + low - file.address,
            length=high - low,
            dtype=array.dtype,
            shape=array.shape,
            strides=array.strides,
            offset=array.ctypes.data - low,
        )

    def close(self) -> None:
        """Give up the files; who has mapped one keeps it."""
        with self._lock:
            files, self._files = self._files, {}
        for _, file in files.values():
            file.file.close()

    def __len__(self) -> int:
        return len(self._files)


def mapped(part: Part) -> NDArray[Any]:
    """Return a read-only array that maps a file of another process.

    Raises
    ------
    FileNotFoundError
        The file is gone: the call that has sent the array is over, or its process.
    """
    try:
        with open(part.path, "rb", buffering=0) as file:
            meant = file.read(len(part.token)) == part.token
            begin = part.begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
            memory = mmap.mmap(file.fileno(), part.begin + part.length - begin, access=mmap.ACCESS_READ, offset=begin)
    except (FileNotFoundError, ValueError):  # ValueError: another, shorter file
        meant = False
    if not meant:
        raise os_error(errno.ENOENT, "the array that was sent is gone: the call of Parallel is over", part.path)
    return np.ndarray(part.shape, part.dtype, memory, part.offset + part.begin - begin, part.strides)
