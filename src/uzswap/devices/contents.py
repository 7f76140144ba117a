"""Whether a file or a block device may be taken for swap: what is on it decides, and a doubt is a no.

A mistyped path must not cost anybody's data.  Taken is what reads as zeros from its first byte to its last, and what
carries our label.  The label at its end alone is not enough, because a file system made later need not write there: the
beginning must be zeros, as a closed engine leaves it, or the same label.  What is between is noise (record.py).
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from dataclasses import dataclass
from typing import Final, Self

from uzswap.errors import os_error
from uzswap.units import PAGE_SIZE, format_size

__all__ = ["Label", "device_size", "may_be_taken", "read_label", "write_label", "zero_device"]

_FIRST_LINE: Final = b"uzswap swap device, contents void\n"
#: Looked at where there is a label and nothing before it: every file system and partition table has a mark within this
#: (btrfs, at 64 KiB, is the last).
_BEGINNING: Final = 1 << 20
#: A block device without a label is read from end to end; a larger one would take too long (at 500 MB/s: 2 s), and is
#: refused.  Files are read where they have data, whatever their size.
_MOST_READ: Final = 1 << 30
_CHUNK: Final = 1 << 20

_BLKGETSIZE64: Final = 0x80081272  # include/uapi/linux/fs.h
_BLKZEROOUT: Final = 0x127F


@dataclass(frozen=True, slots=True)
class Label:
    """What stands in the last page of a named device, and in its first one as long as an engine has it."""

    #: of the engine that wrote to it last
    nonce: int
    #: what it may have written to: all from the beginning; 0 when nothing of it is left
    nbytes: int

    def encode(self) -> bytes:
        return _FIRST_LINE + f"engine {self.nonce:016x}\nin use {self.nbytes}\n".encode()

    @classmethod
    def decode(cls, page: bytes) -> Self | None:
        if not page.startswith(_FIRST_LINE):
            return None
        try:
            engine, nbytes = page.rstrip(b"\0").decode().splitlines()[1:3]
            return cls(int(engine.removeprefix("engine "), 16), int(nbytes.removeprefix("in use ")))
        except ValueError:
            return None


def device_size(fd: int) -> int:
    (size,) = struct.unpack("Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))
    return int(size)


def read_label(fd: int, size: int) -> Label | None:
    end = size // PAGE_SIZE * PAGE_SIZE
    return Label.decode(_read(fd, end - PAGE_SIZE, PAGE_SIZE)) if end else None


def write_label(fd: int, offset: int, label: Label) -> None:
    with mmap.mmap(-1, PAGE_SIZE) as page:
        content = label.encode()
        page[: len(content)] = content
        os.pwritev(fd, [page], offset)


def may_be_taken(fd: int, path: str, size: int, label: Label | None, is_device: bool) -> None:
    """Return when nobody can miss what is there.

    Raises
    ------
    OSError
        EEXIST: it holds data, or that is not known.
    """
    if label is not None:
        beginning = _read(fd, 0, min(_BEGINNING, size))
        if not any(beginning.rstrip(b"\0")) or _is_label(beginning[:PAGE_SIZE], label.nonce):
            return
    elif is_device and size > _MOST_READ:
        text = f"it has no label, and its {format_size(size)} are too much to look through"
        raise os_error(errno.EEXIST, f"{text}: if nobody wants what is on it, python -m uzswap.devices {path}", path)
    elif _is_blank(fd, size, is_device):
        return
    remedy = f"run python -m uzswap.devices {path}" if is_device else "remove the file"
    raise os_error(errno.EEXIST, f"it holds data: {remedy}, if nobody wants it", path)


def _is_label(page: bytes, nonce: int) -> bool:
    """Whether a page has the label of one engine, whole, and nothing else."""
    label = Label.decode(page)
    return label is not None and label.nonce == nonce and page == label.encode().ljust(PAGE_SIZE, b"\0")


def zero_device(fd: int, offset: int, nbytes: int) -> None:
    """Have a block device read zeros: a hundred segments at a time, so that a signal can get through."""
    end = offset + nbytes
    while offset < end:
        step = min(end - offset, 100 << 20)
        fcntl.ioctl(fd, _BLKZEROOUT, struct.pack("QQ", offset, step))
        offset += step


def _is_blank(fd: int, size: int, is_device: bool) -> bool:
    at = 0
    while at < size:
        data_end = size
        if not is_device:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but holes from here on
                    return True
                raise
            data_end = min(os.lseek(fd, at, os.SEEK_HOLE), size)
        while at < data_end:
            chunk = _read(fd, at, min(_CHUNK, data_end - at))
            if not chunk or chunk.count(0) != len(chunk):
                return False
            at += len(chunk)
    return True


def _read(fd: int, offset: int, count: int) -> bytes:
    """Read with O_DIRECT's alignment: whole pages into a page-aligned buffer."""
    begin = offset // PAGE_SIZE * PAGE_SIZE
    with mmap.mmap(-1, -(-(offset + count - begin) // PAGE_SIZE) * PAGE_SIZE) as pages:
        got = os.preadv(fd, [pages], begin)
        return pages[offset - begin : min(got, offset - begin + count)]
