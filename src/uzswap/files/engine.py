"""The table of the files of an engine.

The module parameters (``zswap/parameters``), the debugfs counters (``zswap/debug``), and what a machine has in /proc
(``vmstat``, ``meminfo``, ``swaps``).  Formats, units and errors are the kernel's; names with ``uzswap.`` are ours.  One
of these, ``uzswap.stat``, has what the files of all cgroups tell: who looks at many of them reads one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from uzswap.cgroup.stat import Stat, Unit, flat_keyed
from uzswap.core.boundary.engine import GLOBALS, LZ4, ZSTD
from uzswap.errors import os_error
from uzswap.files.file import FileType, Shape
from uzswap.files.histograms import HISTOGRAM_FILES
from uzswap.files.proc import PROC_FILES
from uzswap.files.snapshot import take
from uzswap.units import PAGE_SIZE

if TYPE_CHECKING:
    from uzswap.files.view import EngineView

__all__ = ["DEBUG", "ENGINE_FILES", "PARAMETERS", "engine_file"]


def engine_file(path: str) -> FileType[EngineView]:
    """Return a file of the engine, such as ``zswap/parameters/enabled``; raises ENOENT when there is none."""
    filetype = ENGINE_FILES.get(path.lstrip("/"))
    if filetype is None:
        raise os_error(errno.ENOENT, "the engine has no such file", path)
    return filetype


def _parameter(name: str, text: str, shape: Shape, unit: Unit = "") -> FileType[EngineView]:
    return FileType(
        f"zswap/parameters/{name}",
        text,
        shape,
        unit,
        reader=lambda engine: f"{engine.parameters.get(name)}\n",
        writer=lambda engine, text: engine.parameters.set(name, text),
    )


_LEVELS: Final = frozenset(
    ["pool_total_size", "stored_pages", "stored_incompressible_pages", "uzswap.metadata_bytes", "uzswap.reached_full"]
)


def _debug(name: str, text: str, unit: Unit, reader: Callable[[EngineView], int] | None = None) -> FileType[EngineView]:
    """A number of debugfs; without a reader it is the data plane's of the same name."""
    if reader is None:
        position = GLOBALS.index(name)

        def reader(engine: EngineView) -> int:
            return engine.core.globals()[position]

    read, counter = reader, name not in _LEVELS
    return FileType(f"zswap/debug/{name}", text, "value", unit, counter, reader=lambda engine: f"{read(engine)}\n")


def _pool_bytes(engine: EngineView) -> int:
    return engine.core.pool_pages() * PAGE_SIZE


def _metadata_bytes(engine: EngineView) -> int:
    return engine.core.metadata_bytes()


def _read_around_bytes(engine: EngineView) -> int:
    return engine.core.read_around_bytes()


def _reached_full(engine: EngineView) -> int:
    return int(engine.core.reached_full())


def _pools(engine: EngineView) -> str:
    names = {(LZ4, False): "lz4", (ZSTD, False): "zstd", (ZSTD, True): "zstd+dictionary"}
    return "".join(
        f"{names[pool.codec, pool.dictionary]} level={pool.level} entries={pool.entries} current={int(pool.current)}\n"
        for pool in engine.core.pools()
    )


_RECOMPRESSED: Final[tuple[tuple[str, str, Unit], ...]] = (
    ("entries", "entries compressed again by uzswap.recompress", "entries"),
    ("bytes_before", "their compressed bytes before", "bytes"),
    ("bytes_after", "and after", "bytes"),
    ("refused", "entries that would not have become smaller", "entries"),
)


def _recompressed(name: str, text: str, unit: Unit) -> FileType[EngineView]:
    def read(engine: EngineView) -> int:
        return int(getattr(engine.core.recompressed(), name))

    return _debug(f"uzswap.recompressed.{name}", text, unit, read)


_DEVICE_STATS: Final = (
    Stat("segments", "segments", help="segments of 1 MiB on the device"),
    Stat("free_segments", "segments", help="of these, segments with nothing in them"),
    Stat("live_bytes", "bytes", help="compressed entries, headers included"),
    Stat("dead_bytes", "bytes", help="what entries left behind, that cleaning would win back"),
    Stat("direct", "bool", help="O_DIRECT is used"),
    Stat("asynchronous", "bool", help="writeback has used Linux AIO"),
    Stat("encrypted", "bool", help="what is written is encrypted, with a key in locked memory"),
    Stat("cleaned_segments", "segments", counter=True, help="segments emptied because space ran low"),
    Stat("punched_bytes", "bytes", counter=True, help="bytes given back to the file system"),
    Stat("cached_bytes", "bytes", help="compressed bytes of immutable values that are in memory, too"),
)


def _device(engine: EngineView) -> str:
    device = engine.core.device()
    return flat_keyed({name: int(value) for name, value in device._asdict().items()}) if device else ""


def _stat(engine: EngineView) -> str:
    return take(engine.tree.root).as_text()


#: the module parameters, by name
PARAMETERS: Final[dict[str, FileType[EngineView]]] = {
    row.name.rpartition("/")[2]: row
    for row in (
        _parameter(
            "accept_threshold_percent", "a full pool accepts again at this share of its limit", "value", "percent"
        ),
        _parameter("compressor", "how new entries are compressed: lz4 or zstd, with :LEVEL if wanted", "word"),
        _parameter("enabled", "whether anything is stored", "flag", "bool"),
        _parameter("max_pool_percent", "largest size of the pool, as a share of RAM", "value", "percent"),
        _parameter(
            "same_filled_pages_enabled", "whether pages of one repeated word are kept as that word", "flag", "bool"
        ),
        _parameter("shrinker_enabled", "whether reclaim also writes entries back", "flag", "bool"),
        _parameter("uzswap.walk", "how entries are chosen for writeback: fair, coldest or v5", "word"),
    )
}

#: the counters of debugfs, by name; since the engine was made
DEBUG: Final[dict[str, FileType[EngineView]]] = {
    row.name.rpartition("/")[2]: row
    for row in (
        _debug("pool_limit_hit", "stores refused because the pool was at its limit", "events"),
        _debug("reject_reclaim_fail", "entries that could not be written back", "entries"),
        _debug("reject_alloc_fail", "stores refused because the pool had no memory", "events"),
        _debug("reject_kmemcache_fail", "stores refused because there was no memory for an entry", "events"),
        _debug("reject_compress_fail", "stores refused because the compressor failed", "events"),
        _debug("reject_compress_poor", "stores refused because the data did not compress", "events"),
        _debug("decompress_fail", "loads failed because the data did not decompress", "events"),
        _debug("written_back_pages", "pages written back", "pages"),
        _debug("pool_total_size", "memory that the pool occupies", "bytes", _pool_bytes),
        _debug("stored_pages", "pages in the pool", "pages"),
        _debug("stored_incompressible_pages", "of these, pages kept raw", "pages"),
        _debug("uzswap.checksum_fail", "entries whose bytes on the device were damaged", "events"),
        _debug("uzswap.io_error", "reads and writes of the device that failed", "events"),
        *(_recompressed(*row) for row in _RECOMPRESSED),
        _debug("uzswap.metadata_bytes", "memory of the tables of entries", "bytes", _metadata_bytes),
        _debug(
            "uzswap.read_around_bytes",
            "memory for what is around values that were read from the device",
            "bytes",
            _read_around_bytes,
        ),
        _debug("uzswap.reached_full", "whether the pool waits for its accept threshold", "bool", _reached_full),
        FileType(
            "zswap/debug/uzswap.pools", "compressors with entries, the current one first", "nested_keyed", reader=_pools
        ),
        FileType("zswap/debug/uzswap.device", "the swap device", "flat_keyed", keys=_DEVICE_STATS, reader=_device),
        *HISTOGRAM_FILES,
    )
}

#: the files of the engine, by path
ENGINE_FILES: Final[dict[str, FileType[EngineView]]] = {
    row.name: row
    for row in (
        *PARAMETERS.values(),
        *DEBUG.values(),
        *PROC_FILES,
        FileType(
            "uzswap.stat",
            "what the files of every cgroup tell, in pre-order, without what is 0 and always was",
            "json",
            reader=_stat,
            locks=False,
        ),
    )
}
