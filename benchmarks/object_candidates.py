"""What users would pick to keep objects that they will hardly touch again, each with the same few verbs.

A candidate has the verbs that it can do.  What no user would wait for is not timed: ``to_disk`` writes all and drops
the files from the page cache, so that a read from disk is one for everybody.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import cachetools
import diskcache
import lmdb
import lz4.block
import zict

import uzswap
from uzswap.store.slabs import slab_bytes

HAND = "pickle + lz4 by hand"
OURS = "uzswap"


def pack(value: Any) -> bytes:
    packed: bytes = lz4.block.compress(pickle.dumps(value, 5))
    return packed


def unpack(packed: Any) -> Any:
    return pickle.loads(lz4.block.decompress(packed))


def forget_pages(directory: str) -> None:
    """Write everything below a directory to the disk and drop it from the page cache."""
    os.sync()  # one for thousands of files
    for path in Path(directory).rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


class Candidate:
    """Verbs in the order in which a run uses them; None for what it has not."""

    #: sets one value
    put: Callable[[int, Any], object]
    #: gets one that was put and not touched since
    hot: Callable[[int], Any] | None = None
    #: turns all values into compressed ones in memory
    reclaim: Callable[[], object] | None = None
    #: gets one of those
    get: Callable[[int], Any] | None = None
    #: puts all values on the disk; not timed
    to_disk: Callable[[], object] | None = None
    #: gets one of those
    from_disk: Callable[[int], Any] | None = None
    #: gets all of those
    many_from_disk: Callable[[Iterable[int]], Any] | None = None
    #: waits for what goes on in the background: memory is looked at after it
    settle: Callable[[], object] | None = None
    #: bytes of tables that are not of malloc
    tables: Callable[[], int] | None = None

    def close(self) -> None:
        raise NotImplementedError


class Hand(Candidate):
    """A dict; then a dict of lz4 blocks; then one file of them and a dict of places."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.values: dict[int, Any] = {}
        self.blobs: dict[int, bytes] = {}
        self.places: dict[int, tuple[int, int]] = {}
        self.put = self.values.__setitem__
        self.hot = self.values.__getitem__
        self.file = os.open(Path(directory) / "blobs", os.O_RDWR | os.O_CREAT)

    def reclaim(self) -> None:
        values, blobs = self.values, self.blobs
        while values:
            key, value = values.popitem()
            blobs[key] = pack(value)

    def get(self, key: int) -> Any:
        value = self.values[key] = unpack(self.blobs.pop(key))
        return value

    def to_disk(self) -> None:
        self.reclaim()
        end = os.fstat(self.file).st_size
        while self.blobs:
            key, blob = self.blobs.popitem()
            self.places[key] = end, len(blob)
            end += os.pwrite(self.file, blob, end)
        forget_pages(self.directory)

    def from_disk(self, key: int) -> Any:
        offset, length = self.places.pop(key)
        value = self.values[key] = unpack(os.pread(self.file, length, offset))
        return value

    def close(self) -> None:
        os.close(self.file)


class Ours(Candidate):
    def __init__(self, directory: str) -> None:
        self.z = uzswap.Zswap(swap=str(Path(directory) / "swap"), swap_size="1G", max_pool="90%")
        self.cgroup = self.z.cgroup("/bench")
        self.store: uzswap.Store[int, Any] = uzswap.Store(self.cgroup)
        self.put = self.store.__setitem__
        self.hot = self.get = self.from_disk = self.store.__getitem__
        self.many_from_disk = getattr(self.store, "get_many", None)
        self.settle = self.store._slots.settle

    def tables(self) -> int:
        return slab_bytes() + self.z.core.metadata_bytes()

    def reclaim(self) -> None:
        self.store.reclaim("1G")

    def to_disk(self) -> None:
        self.reclaim()
        while nbytes := self.cgroup.stats()["zswap"]:
            try:
                self.cgroup.reclaim(nbytes, source="zswap")
            except uzswap.ReclaimIncomplete as error:
                if not error.result.written:
                    break

    def close(self) -> None:
        self.store.close()
        self.z.close()


class _Files:
    """A file a key, which is a number."""

    def __init__(self, directory: str) -> None:
        self.files = zict.File(directory)

    def __setitem__(self, key: int, value: bytes) -> None:
        self.files[str(key)] = value

    def __getitem__(self, key: int) -> Any:
        return self.files[str(key)]

    def __delitem__(self, key: int) -> None:
        del self.files[str(key)]

    def __contains__(self, key: int) -> bool:
        return str(key) in self.files


class Zict(Candidate):
    """The LRU that dask has: objects before lz4 blocks, in memory or in files."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.slow: Any = {}
        self._build()

    def _build(self) -> None:
        self.buffer = zict.Buffer({}, zict.Func(pack, unpack, self.slow), n=1 << 60)
        self.put = self.buffer.__setitem__
        self.hot = self.get = self.from_disk = self.buffer.__getitem__

    def reclaim(self) -> None:
        self.buffer.fast.evict_until_below_target(0)

    def to_disk(self) -> None:
        self.reclaim()
        if isinstance(self.slow, dict):
            files = _Files(self.directory)
            while self.slow:
                key, blob = self.slow.popitem()
                files[key] = blob
            self.slow = files
            self._build()
        forget_pages(self.directory)

    def close(self) -> None:
        self.buffer.close()


class DiskCache(Candidate):
    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.cache = diskcache.Cache(directory, size_limit=1 << 40)
        self.put = self.cache.__setitem__
        self.from_disk = self.cache.__getitem__

    def to_disk(self) -> None:
        forget_pages(self.directory)

    def close(self) -> None:
        self.cache.close()


class CacheTools(Candidate):
    def __init__(self, directory: str) -> None:
        self.cache: cachetools.LRUCache[int, Any] = cachetools.LRUCache(1 << 60)
        self.put = self.cache.__setitem__
        self.hot = self.cache.__getitem__

    def close(self) -> None:
        self.cache.clear()


class Lmdb(Candidate):
    """A transaction a value; the values are lz4 blocks."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._open()

    def _open(self) -> None:
        self.env = lmdb.open(self.directory, map_size=1 << 30, sync=False)

    def put(self, key: int, value: Any) -> None:
        with self.env.begin(write=True) as transaction:
            transaction.put(key.to_bytes(8, "big"), pack(value))

    def to_disk(self) -> None:
        self.env.close()  # a page that is mapped stays in the page cache
        forget_pages(self.directory)
        self._open()

    def from_disk(self, key: int) -> Any:
        with self.env.begin(buffers=True) as transaction:
            return unpack(transaction.get(key.to_bytes(8, "big")))

    def many_from_disk(self, keys: Iterable[int]) -> dict[int, Any]:
        with self.env.begin(buffers=True) as transaction:
            return {key: unpack(transaction.get(key.to_bytes(8, "big"))) for key in keys}

    def close(self) -> None:
        self.env.close()


CANDIDATES: Final[dict[str, Callable[[str], Candidate]]] = {
    HAND: Hand,
    OURS: Ours,
    "zict LRU, lz4, File": Zict,
    "diskcache": DiskCache,
    "cachetools": CacheTools,
    "lmdb + lz4": Lmdb,
}


def scratch(parent: str | None) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="uzswap-bench-", dir=parent)
