"""A store of zarr 3 whose chunks are in a cgroup."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterable, MutableMapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.abc.store import Store as _ZarrStore
from zarr.core.buffer import Buffer, default_buffer_prototype

from uzswap.caches.asynchronous import Async
from uzswap.caches.contents import Contents, contents_of, recall
from uzswap.caches.layer import at_hand
from uzswap.errors import os_error
from uzswap.store.store import Store as CgroupStore

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import BufferPrototype

    from uzswap.cgroup.memcg import MemCgroup

__all__ = ["Store"]

R = TypeVar("R")

#: Keys that are gone through at once; more are in a thread.  1000 take 50 us, as handing the work over and back does
#: (3.11, CPU time, measured in November 2026).
_AT_ONCE: Final = 1000


class Store(_ZarrStore):
    """Chunks and metadata of zarr in a cgroup, the cold ones compressed in the pool or on the disk.

    Any number of groups can be in one store, and any number of stores in one budget: the limits are those of the cgroup
    and its ancestors.  It is memory, not storage: when the process ends, all is gone.

    Parameters
    ----------
    where
        A cgroup: the chunks are its own, and each store of the same cgroup has the same ones, as each LocalStore of a
        directory has its files.  They live as long as one of these stores, or a group or array of one.  Or a mapping, a
        :class:`uzswap.Store` or a cache over one, which nobody else uses.
    read_only
        Whether what would change something is a ValueError.
    executor
        Where what may block is done; None: the event loop's own threads.

    Notes
    -----
    *Nothing blocks the event loop.*  What is resident, or small and in the pool, is answered at once; loading,
    compressing, reading from the disk, reclaim for a new chunk, and going through many keys are done in threads.  The
    methods with ``_sync`` in their names do block the thread that calls them.

    *Values* are copied when they are set.  What is read is read-only, and stays resident while somebody holds it.

    *Byte ranges*, as sharded arrays read them: of a large value that is not resident only those 64 KiB are loaded that
    have some of it, until as much was asked for as it has.  What is returned is a copy of the part.  Mappings other
    than a :class:`uzswap.Store` load the whole value.

    *Equality*: two stores are equal when they have the same chunks, by identity, and the same ``read_only``.

    *A pickle* stands for the chunks in this very process, and has no copy of them: loaded in the same process it is an
    equal store.  In any other, a forked child included, loading it is a ProcessLookupError that says what to do, since
    what is written there would never be seen here.  A store that a forked child has inherited, without a pickle, is the
    child's own copy, as all of its engine is.

    *Errors*: a chunk for which there is no room is a MemoryError, and what was there before stays.  Loading raises as
    :meth:`uzswap.Store.get` does.

    Examples
    --------
    >>> import uzswap, uzswap.zarr, zarr
    >>> with uzswap.Zswap(swap="auto") as z:
    ...     group = z.cgroup("/zarr")
    ...     store = uzswap.zarr.Store(group)
    ...     x = zarr.create_array(store, shape=(1000, 1000), chunks=(100, 1000), dtype="i4", compressors=None)
    ...     x[:] = 7
    ...     freed = group.reclaim("3M").reclaimed
    ...     freed >= 3 << 20, int(x[500, 500]), uzswap.zarr.Store(group) == store
    (True, 7, True)
    """

    supports_writes: bool = True
    supports_deletes: bool = True
    supports_listing: bool = True

    def __init__(
        self,
        where: MemCgroup | MutableMapping[str, Any],
        *,
        read_only: bool = False,
        executor: Executor | None = None,
    ) -> None:
        self._begin(contents_of("zarr", where), read_only, executor)

    def _begin(self, contents: Contents, read_only: bool, executor: Executor | None) -> None:
        super().__init__(read_only=read_only)
        self._contents = contents
        self._executor = executor
        self._async: Async[str, Any] = Async(contents.mapping, executor)

    @property
    def mapping(self) -> MutableMapping[str, Any]:
        """Where the values are, as bytes by key.  Threads may read it meanwhile."""
        return self._contents.mapping

    def with_read_only(self, read_only: bool = False) -> Store:
        """Return another store of the same chunks."""
        return _made(type(self), self._contents, read_only, self._executor)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._contents is other._contents and self.read_only == other.read_only

    __hash__ = None  # type: ignore[assignment]  # as zarr's own: read_only counts, and what is equal is mutable

    def __repr__(self) -> str:
        return f"uzswap.zarr.Store({self._contents!r}{', read_only=True' if self.read_only else ''})"

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[Any, ...]]:
        return _unpickled, (type(self), os.getpid(), self._contents.token, self.read_only)

    async def _apart(self, function: Callable[..., R], *args: Any) -> R:
        """Call what may block in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    async def _listed(self, function: Callable[[Contents, str], list[str]], where: str) -> list[str]:
        await self._ensure_open()
        if len(self.mapping) <= _AT_ONCE:
            return function(self._contents, where)
        return await self._apart(function, self._contents, where)

    # Reading

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return a value, or the part of it that a byte range names; None without one.

        Raises
        ------
        TypeError
            ``byte_range`` is none of zarr's.
        IntegrityError, OSError
            The value cannot be read back.
        """
        await self._ensure_open()
        if byte_range is None or at_hand(self.mapping, key):
            return _part(await self._async.aget(key), prototype, byte_range)
        return await self._apart(self._get_range, key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of values, in the order in which they are asked for; None where there is no value."""
        return await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges))

    async def exists(self, key: str) -> bool:
        await self._ensure_open()
        return key in self.mapping

    async def getsize(self, key: str) -> int:
        """Return the bytes of a value; FileNotFoundError without one.  Of a cgroup's chunks nothing is loaded."""
        await self._ensure_open()
        try:
            return await self._apart(self._contents.size, key)
        except KeyError:
            raise FileNotFoundError(key) from None

    # Writing

    async def set(self, key: str, value: Buffer) -> None:
        """Set a value.

        Raises
        ------
        MemoryError
            A limit can't be met.  Nothing has changed.
        ValueError
            The store is read-only.
        """
        self._check_writable()
        await self._ensure_open()
        await self._async.aset(key, _bytes(value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Set a value unless there is one; of several at the same time the first wins.  Raises as :meth:`set`."""
        self._check_writable()
        await self._ensure_open()
        await self._apart(_set_new, self.mapping, key, _bytes(value))

    async def delete(self, key: str) -> None:
        """Delete a value, if there is one, without loading it.  ValueError: the store is read-only."""
        self._check_writable()
        await self._ensure_open()
        await self._async.adelete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete what is in a directory, "" for everything.  ValueError: the store is read-only."""
        self._check_writable()
        await self._ensure_open()
        directory = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
        await self._apart(lambda: self._contents.discard(self._contents.keys(directory)))

    async def clear(self) -> None:
        """Delete everything, for every store that has these chunks.  ValueError: the store is read-only."""
        self._check_writable()
        await self._ensure_open()
        await self._apart(self.mapping.clear)

    # Listing: the keys that there are at the beginning

    async def list(self) -> AsyncIterator[str]:
        for key in await self._listed(Contents.keys, ""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in await self._listed(Contents.keys, prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for name in await self._listed(_names, prefix):
            yield name

    # Without an event loop

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As :meth:`get`, in this thread."""
        self._is_open = True
        if byte_range is None:
            return _part(self.mapping.get(key), prototype)
        return self._get_range(key, prototype, byte_range)

    def _get_range(self, key: str, prototype: BufferPrototype | None, byte_range: ByteRequest) -> Buffer | None:
        mapping = self.mapping
        if not isinstance(mapping, CgroupStore):
            return _part(mapping.get(key), prototype, byte_range)
        where = _slice(byte_range)
        try:
            return _part(mapping.get_part(key, where), prototype)
        except KeyError:
            return None

    def set_sync(self, key: str, value: Buffer) -> None:
        """As :meth:`set`, in this thread."""
        self._check_writable()
        self._is_open = True
        self.mapping[key] = _bytes(value)

    def delete_sync(self, key: str) -> None:
        """As :meth:`delete`, in this thread."""
        self._check_writable()
        self._is_open = True
        self._contents.discard([key])


def _made(cls: type[Store], contents: Contents, read_only: bool, executor: Executor | None = None) -> Store:
    store = cls.__new__(cls)
    store._begin(contents, read_only, executor)
    return store


def _unpickled(cls: type[Store], process: int, token: str, read_only: bool) -> Store:
    contents = recall(process, token)
    if contents is not None:
        return _made(cls, contents, read_only)
    if process != os.getpid():
        raise os_error(
            errno.ESRCH,
            f"a pickled uzswap.zarr.Store stands for chunks in the memory of process {process}, and this is "
            f"{os.getpid()}: let threads share it, or give other processes a zarr.storage.LocalStore",
        )
    raise os_error(
        errno.ENOENT,
        "the chunks that this pickled uzswap.zarr.Store stands for are gone: a store, group or array has to hold them "
        "until it is loaded",
    )


def _names(contents: Contents, directory: str) -> list[str]:
    """Return what is directly in a directory: names of keys, and of directories that keys are in."""
    prefix = f"{directory}/" if (directory := directory.rstrip("/")) else ""
    return list(dict.fromkeys(key[len(prefix) :].partition("/")[0] for key in contents.keys(prefix)))


def _set_new(mapping: MutableMapping[str, Any], key: str, value: bytes) -> None:
    if key not in mapping:  # a value that is there is not loaded
        mapping.setdefault(key, value)


def _bytes(value: Buffer) -> bytes:
    if not isinstance(value, Buffer):
        raise TypeError(f"a value is a zarr.abc.buffer.Buffer, not {type(value).__name__}")
    return value.to_bytes()


def _part(value: Any, prototype: BufferPrototype | None, byte_range: ByteRequest | None = None) -> Buffer | None:
    if value is None:
        return None
    if byte_range is not None:
        # Of a part there is a copy: a view would keep all of the value resident.
        value = bytes(memoryview(value)[_slice(byte_range)])
    return (prototype or default_buffer_prototype()).buffer.from_bytes(value)


def _slice(byte_range: ByteRequest) -> slice:
    match byte_range:
        case RangeByteRequest(start, end):
            return slice(start, end)
        case OffsetByteRequest(offset):
            return slice(offset, None)
        case SuffixByteRequest(suffix):
            return slice(-suffix, None) if suffix else slice(0, 0)
    raise TypeError(f"Unexpected byte_range, got {byte_range!r}: there are zarr.abc.store.RangeByteRequest and others")
