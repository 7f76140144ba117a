"""benchmarks/reference.c, compiled at run time and called through ctypes."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

PAGE = 4096
CHUNK = 1 << 20

Bytes: TypeAlias = NDArray[np.uint8]


def compiled(name: str) -> ctypes.CDLL:
    """A C file of this directory as a library."""
    source = Path(__file__).with_name(name)
    with tempfile.TemporaryDirectory(prefix="uzswap-bench-") as scratch:
        target = Path(scratch, source.stem + ".so")
        flags = ["-O3", "-Wall", "-Wextra", "-shared", "-fPIC", "-pthread"]
        subprocess.run([os.environ.get("CC", "cc"), *flags, "-o", str(target), str(source), "-llz4"], check=True)
        return ctypes.CDLL(str(target))


@cache
def _library() -> ctypes.CDLL:
    library = compiled("reference.c")
    for name in ("reference_compress", "reference_pack", "reference_compare"):
        getattr(library, name).restype = ctypes.c_int64
    return library


def _at(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def aligned(nbytes: int) -> Bytes:
    """Page-aligned memory, all of it touched."""
    memory = np.frombuffer(mmap.mmap(-1, nbytes), np.uint8)
    memory[:] = 0
    return memory


class Compress:
    """The raw compress loop over `pages`."""

    def __init__(self, pages: Bytes) -> None:
        self.pages = pages
        self.scratch = aligned(2 * PAGE)

    def run(self) -> int:
        n = ctypes.c_int64(self.pages.size // PAGE)
        total = int(_library().reference_compress(_at(self.pages), n, PAGE, _at(self.scratch), self.scratch.size))
        if total < 0:
            raise RuntimeError("LZ4_compress_default failed")
        return total


class Decompress:
    """The raw decompress loop over the packed blobs of `pages`, in `order`."""

    def __init__(self, pages: Bytes, order: NDArray[np.intp] | None = None) -> None:
        n = pages.size // PAGE
        packed = aligned(pages.size)
        offsets, lengths = np.empty(n, np.int64), np.empty(n, np.int32)
        capacity = ctypes.c_int64(packed.size)
        arguments = (_at(pages), ctypes.c_int64(n), PAGE, _at(packed), capacity, _at(offsets), _at(lengths))
        self.nbytes = int(_library().reference_pack(*arguments))
        if self.nbytes < 0:
            raise RuntimeError("the packed pages need more room than the pages")
        self.packed = packed
        self.offsets = offsets if order is None else np.ascontiguousarray(offsets[order])
        self.lengths = lengths if order is None else np.ascontiguousarray(lengths[order])
        self.out = aligned(pages.size)

    def run(self) -> None:
        n = ctypes.c_int64(self.lengths.size)
        arguments = (_at(self.packed), _at(self.offsets), _at(self.lengths), n, _at(self.out), PAGE)
        if _library().reference_decompress(*arguments) != 0:
            raise RuntimeError("LZ4_decompress_safe failed")


class Compare:
    """Whether `pages` are what their packed blobs say: decompress each and compare."""

    def __init__(self, pages: Bytes) -> None:
        self.pages = pages
        self.packed = Decompress(pages)

    def run(self) -> None:
        """All of them; they are unmodified, so every byte is compared."""
        packed = self.packed
        n = ctypes.c_int64(packed.lengths.size)
        arguments = (_at(packed.packed), _at(packed.offsets), _at(packed.lengths), n, _at(self.pages))
        if _library().reference_compare(*arguments, _at(packed.out), PAGE) != 0:
            raise RuntimeError("a page is not what was packed")


class Write:
    """The raw 1 MiB write loop to an unlinked file in `directory`; O_DIRECT where the file system has it."""

    def __init__(self, directory: str, source: Bytes) -> None:
        fd, name = tempfile.mkstemp(dir=directory)
        os.close(fd)
        try:
            try:
                self.fd = os.open(name, os.O_RDWR | os.O_DIRECT)
                self.direct = True
            except OSError:
                self.fd = os.open(name, os.O_RDWR)
                self.direct = False
        finally:
            os.unlink(name)
        self.buffer = aligned(CHUNK)
        self.buffer[:] = np.resize(source, CHUNK)

    def run(self, nbytes: int) -> None:
        """Write at least `nbytes`, in whole chunks."""
        arguments = (self.fd, _at(self.buffer), ctypes.c_int64(CHUNK), ctypes.c_int64(nbytes))
        result = _library().reference_write(*arguments)
        if result != 0:
            raise OSError(-result, os.strerror(-result))

    def forget(self, nbytes: int) -> None:
        """Make the file a hole of `nbytes`, so that the next run allocates its blocks, as in a fresh swap file."""
        os.ftruncate(self.fd, 0)
        os.ftruncate(self.fd, nbytes)

    def close(self) -> None:
        os.close(self.fd)


def first_touch_us(nbytes: int = 64 << 20) -> float:
    """What the kernel takes for the first touch of a 4 KiB page of fresh anonymous memory, in microseconds."""
    with mmap.mmap(-1, nbytes) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        start = time.perf_counter()
        _library().reference_touch(ctypes.c_void_p(address), ctypes.c_int64(nbytes), PAGE)
        return (time.perf_counter() - start) / (nbytes // PAGE) * 1e6
