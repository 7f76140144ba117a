"""Access traces, in the formats that are around.  Which one it is is found out by looking, not by the name.

====================  ================================================================================================
addresses             ``l|s ADDRESS COUNT``, load or store, instructions since the last one (ben-manes/caffeine)
blocks                a block number a line, ``*`` and empty lines between phases (LIRS)
block I/O             CSV with the header ``version,time,op,size,lbn``, sectors of 512 bytes (libCacheSim)
Mooncake              a JSON object a line: ``timestamp`` in ms, ``hash_ids`` of KV-cache blocks
oracleGeneral         libCacheSim's binary records: time, object, size, next access
uzswap                ``# uzswap trace``, then ``SECONDS PAGE`` a line (:mod:`uzswap.replay.record`)
====================  ================================================================================================

Compressed with gzip, xz, bzip2 or, where Python has it or ``zstandard`` is installed, zstd.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uzswap.errors import os_error

__all__ = ["PAGE", "Trace", "read_trace"]

PAGE: Final = 4096
_SECTOR: Final = 512


@dataclass(frozen=True, slots=True)
class Trace:
    """Accesses in order."""

    name: str
    #: numbers of pages, 0 to ``footprint - 1``, by first access
    pages: NDArray[np.int64]
    #: when, from 0 on; in seconds, or where the trace has no clock in steps of its own
    times: NDArray[np.float64]
    #: how many pages the record asks for that an access is of: they come with one read
    together: NDArray[np.int64]
    #: whether the times are seconds
    timed: bool

    @property
    def footprint(self) -> int:
        """How many different pages there are."""
        return int(self.pages.max()) + 1


def read_trace(path: str) -> Trace:
    """Read a trace.

    Raises
    ------
    OSError
        ENOENT and the like; EINVAL it is in none of the formats, or has no access in it.
    """
    with open(path, "rb") as file:
        raw = _unpacked(file.read(), path)
    name = re.split(r"[.]", os.path.basename(path))[0]
    reader = _format_of(raw, path)
    try:
        keys, times, together, timed = reader(raw)
    except (ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise os_error(errno.EINVAL, f"this trace cannot be read ({error})", path) from error
    if not len(keys):
        raise os_error(errno.EINVAL, "there is no access in this trace", path)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    by_first = np.empty(len(first), np.int64)
    by_first[np.argsort(first, kind="stable")] = np.arange(len(first))
    # A clock that is set back, and logs of several CPUs: an access is not before the one that it follows.
    times = np.maximum.accumulate(times - times[0]) if len(times) else times
    return Trace(name, by_first[inverse], times, together, timed)


def _unpacked(raw: bytes, path: str) -> bytes:
    try:
        if raw[:2] == b"\x1f\x8b":
            return gzip.decompress(raw)
        if raw[:6] == b"\xfd7zXZ\x00":
            return lzma.decompress(raw)
        if raw[:3] == b"BZh":
            return bz2.decompress(raw)
        if raw[:4] == b"\x28\xb5\x2f\xfd":
            return _unpack_zstd(raw, path)
    except (OSError, EOFError, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.filename:
            raise
        raise os_error(errno.EINVAL, f"it cannot be decompressed ({error})", path) from error
    return raw


def _unpack_zstd(raw: bytes, path: str) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise os_error(errno.EINVAL, "this is zstd: pip install zstandard, or decompress it first", path) from None
    unpacked: bytes = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw)).read()
    return unpacked


_Columns = tuple[NDArray[Any], NDArray[np.float64], NDArray[np.int64], bool]


def _format_of(raw: bytes, path: str) -> Callable[[bytes], _Columns]:
    head = raw[:4096].lstrip()
    if head.startswith(b"# uzswap trace"):
        return _read_own
    if head.startswith(b"{"):
        return _read_mooncake
    line = head.split(b"\n", 1)[0].strip()
    if line.split(b",") == [b"version", b"time", b"op", b"size", b"lbn"]:
        return _read_block_io
    if re.fullmatch(rb"[ls] 0x[0-9a-fA-F]+ [0-9]+", line):
        return _read_addresses
    if re.fullmatch(rb"[0-9]+|\*", line):
        return _read_blocks
    if len(raw) % _ORACLE.itemsize == 0 and raw and b"\0" in head:
        return _read_oracle
    raise os_error(
        errno.EINVAL,
        "this is in none of the formats: addresses, block numbers, block I/O as CSV, Mooncake, oracleGeneral, uzswap",
        path,
    )


def _read_addresses(raw: bytes) -> _Columns:
    words = raw.split()
    if len(words) % 3:  # the last line was cut off
        words = words[: -(len(words) % 3)]
    pages = np.array([int(word, 16) >> 12 for word in words[1::3]], np.uint64)
    return pages, np.cumsum(np.array(words[2::3], np.float64)), np.ones(len(pages), np.int64), False


def _read_blocks(raw: bytes) -> _Columns:
    blocks = np.array([word for word in raw.split() if word != b"*"]).astype(np.uint64)
    return blocks, np.arange(len(blocks), dtype=np.float64), np.ones(len(blocks), np.int64), False


def _spread(
    first: NDArray[np.int64], count: NDArray[np.int64], times: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return (pages, times, together) of records that ask for ``count`` pages from ``first`` on."""
    start = np.repeat(np.cumsum(count) - count, count)
    within = np.arange(int(count.sum())) - start
    return np.repeat(first, count) + within, np.repeat(times, count), np.repeat(count, count)


def _read_block_io(raw: bytes) -> _Columns:
    rows = [line.split(b",") for line in raw.splitlines()[1:] if line.strip()]
    times = np.array([row[1] for row in rows], np.float64)
    size = np.array([row[3] for row in rows]).astype(np.int64)
    begin = np.array([row[4] for row in rows]).astype(np.int64) * _SECTOR
    first = begin // PAGE
    count = np.maximum(1, (begin + size - 1) // PAGE - first + 1)
    return *_spread(first, count, times), True


def _read_mooncake(raw: bytes) -> _Columns:
    records = [json.loads(line) for line in raw.splitlines() if line.strip()]
    blocks = [block for record in records for block in record["hash_ids"]]
    count = np.array([len(record["hash_ids"]) for record in records], np.int64)
    times = np.repeat(np.array([record["timestamp"] for record in records], np.float64) / 1000, count)
    return np.array(blocks, np.int64), times, np.repeat(count, count), True


#: libCacheSim/traceReader/customizedReader/oracle/oracleGeneralBin.h
_ORACLE: Final = np.dtype([("time", "<u4"), ("object", "<u8"), ("size", "<u4"), ("next", "<i8")])
_MOST_PAGES: Final = 1 << 20


def _read_oracle(raw: bytes) -> _Columns:
    records = np.frombuffer(raw, _ORACLE)
    count = np.maximum(1, -(-records["size"].astype(np.int64) // PAGE))
    if int(count.max()) > _MOST_PAGES:
        raise ValueError(f"an object of {int(records['size'].max())} bytes")
    # Objects are told apart by number and page; the numbers may be hashes of 64 bits.
    _, objects = np.unique(records["object"], return_inverse=True)
    stride = int(count.max())
    return *_spread(objects.astype(np.int64) * stride, count, records["time"].astype(np.float64)), True


def _read_own(raw: bytes) -> _Columns:
    words = raw.split(b"\n", 1)[1].split()
    words = words[: len(words) // 2 * 2]
    times = np.array(words[::2], np.float64)
    return np.array(words[1::2]).astype(np.int64), times, np.ones(len(times), np.int64), True
