"""What users would pick instead: a dict of lz4 blocks, zict's Buffer over lz4, diskcache."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager

import diskcache
import lz4.block
import zict

from benchmarks.common import SLOW_PAGES, stopwatch
from benchmarks.reference import PAGE, Bytes

Blobs = MutableMapping[str, bytes]


class BlobDict(dict[str, bytes]):
    """A dict that holds its values as lz4 blocks."""

    def __setitem__(self, key: str, value: bytes) -> None:
        super().__setitem__(key, lz4.block.compress(value))

    def __getitem__(self, key: str) -> bytes:
        value: bytes = lz4.block.decompress(super().__getitem__(key))
        return value


def _zict(slow: MutableMapping[str, bytes]) -> Blobs:
    # One page in the fast part: every further page goes to, or comes from, the compressed one.
    buffer: Blobs = zict.Buffer({}, zict.Func(lz4.block.compress, lz4.block.decompress, slow), n=1)
    return buffer


@contextmanager
def in_memory() -> Iterator[dict[str, Callable[[], Blobs]]]:
    """Makers of empty mappings that keep pages compressed; diskcache has no other place than the disk."""
    with tempfile.TemporaryDirectory(prefix="uzswap-bench-") as directory, diskcache.Cache(directory) as cache:

        def empty_cache() -> Blobs:
            cache.clear()
            mapping: Blobs = cache
            return mapping

        yield {
            "dict of lz4.block": BlobDict,
            "zict Buffer + lz4": lambda: _zict({}),
            "diskcache": empty_cache,
        }


@contextmanager
def on_disk() -> Iterator[dict[str, Callable[[], Blobs]]]:
    """Makers of empty mappings that keep pages on the disk."""
    with (
        tempfile.TemporaryDirectory(prefix="uzswap-bench-") as directory,
        tempfile.TemporaryDirectory(prefix="uzswap-bench-") as files,
        diskcache.Cache(directory) as cache,
    ):

        def empty_cache() -> Blobs:
            cache.clear()
            mapping: Blobs = cache
            return mapping

        yield {
            "zict Buffer + lz4 + File": lambda: _zict(zict.File(files)),
            "diskcache": empty_cache,
        }


def values(pages: Bytes) -> dict[str, bytes]:
    """Pages from all over the data as separate objects by name, as these mappings take them."""
    rows = pages.reshape(-1, PAGE)
    step = max(1, len(rows) // SLOW_PAGES)
    return {str(i): rows[i].tobytes() for i in range(0, len(rows), step)}


def store_run(
    make: Callable[[], Blobs], data: dict[str, bytes], clock: Callable[[], float] = time.thread_time
) -> Callable[[], float]:
    """A run that stores every page: seconds a page."""

    def run() -> float:
        mapping = make()
        with stopwatch(clock) as elapsed:
            for key, value in data.items():
                mapping[key] = value
        return elapsed() / len(data)

    return run


def load_run(make: Callable[[], Blobs], data: dict[str, bytes]) -> Callable[[], float]:
    """A run that stores every page untimed and then reads all: seconds a page."""

    def run() -> float:
        mapping = make()
        for key, value in data.items():
            mapping[key] = value
        with stopwatch() as elapsed:
            for key in data:
                mapping[key]
        return elapsed() / len(data)

    return run
