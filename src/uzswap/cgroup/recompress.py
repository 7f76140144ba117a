"""The grammar of ``uzswap.recompress``, and what a request did.

    size [codec=NAME[:LEVEL]] [min_age=SECONDS]

Words and errors are those of ``memory.reclaim`` (:mod:`uzswap.cgroup.reclaim`): the size comes first, only SPACE
separates the keys, and the first bad piece ends with EINVAL before any work is done.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

from uzswap.cgroup.reclaim import min_age_of
from uzswap.errors import os_error
from uzswap.units import WHITESPACE, memparse

__all__ = ["RecompressRequest", "RecompressResult", "parse"]

#: Slower than lz4 by ten times, and half as large again: text 2.1 -> 3.1, prices 2.2 -> 3.7 (4 KiB pages, 2026-11).
DEFAULT_CODEC: Final = "zstd"


@dataclass(frozen=True, slots=True)
class RecompressRequest:
    """One write to ``uzswap.recompress``."""

    #: compressed bytes that are taken up
    nbytes: int
    #: a compressor's name, as in the engine's parameter
    codec: str = DEFAULT_CODEC
    #: seconds; entries younger than that are not candidates
    min_age: int | None = None


@dataclass(frozen=True, slots=True)
class RecompressResult:
    """The outcome of one request, complete or not."""

    #: compressed bytes requested, and taken up
    asked: int
    taken: int = 0
    #: entries that were met and were candidates, and those of them whose referenced bit was cleared
    scanned: int = 0
    rotated: int = 0
    #: entries that were compressed again; their compressed bytes before and after
    entries: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    #: entries that would not have become smaller: they stay as they are
    refused: int = 0
    #: wall time of the request
    seconds: float = 0.0


def parse(text: str) -> RecompressRequest:
    """Read one write to ``uzswap.recompress``.

    Raises
    ------
    OSError
        EINVAL, for every error but the name of a codec, which the engine judges.

    >>> parse("10M codec=zstd:7 min_age=60")
    RecompressRequest(nbytes=10485760, codec='zstd:7', min_age=60)
    """
    text = text.strip(WHITESPACE)
    nbytes, rest = memparse(text)
    if len(rest) == len(text):
        raise _invalid(f"{text!r} does not begin with a size: write bytes such as 10M, then the keys")
    codec, min_age = DEFAULT_CODEC, None
    for piece in rest.strip(WHITESPACE).split(" "):
        key, equals, value = piece.partition("=")
        if equals and key == "codec":
            codec = value
        elif equals and key == "min_age":
            min_age = min_age_of(value)
        elif piece:
            raise _invalid(f"{piece!r} is not one of codec= min_age=")
    return RecompressRequest(nbytes, codec, min_age)


def _invalid(text: str) -> OSError:
    return os_error(errno.EINVAL, f"uzswap.recompress: {text}")
