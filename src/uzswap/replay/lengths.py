"""How well pages compress: a distribution of compressed lengths, and pages that compress like it."""

from __future__ import annotations

import errno
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uzswap.errors import os_error
from uzswap.replay.traces import PAGE

__all__ = ["MEMORY", "class_of", "payloads", "read_lengths"]

#: Bytes of a page in lz4, at the quantiles 1/64, 3/64 and so on: the 42,000 anonymous pages of a Python process with
#: syntax trees, nested dicts, columns of prices and text; 3.4 to 1 (our measurement, November 2026).  Google's fleet
#: had 3 to 1 (Lagar-Cavilla et al., ASPLOS'19).
MEMORY: Final = (
    208, 288, 519, 555, 748, 837, 922, 954, 980, 1009, 1031, 1053, 1074, 1087, 1103, 1122,
    1139, 1150, 1169, 1268, 1347, 1384, 1413, 1443, 1487, 1576, 1622, 1665, 1875, 1964, 2207, 2468,
)  # fmt: skip
#: quantiles that a histogram is turned into
_CLASSES: Final = 32
#: what lz4 adds to bytes that do not compress: a token, lengths, the match of the zeros behind them
_ADDED: Final = 24


def class_of(pages: int, classes: int) -> NDArray[np.int64]:
    """Return the class of each page: scattered, the same in every run."""
    # Fibonacci hashing (Knuth, TAOCP 6.4): neighbours get different classes.
    hashed = np.arange(pages, dtype=np.uint64) * np.uint64(11400714819323198485)
    return (hashed >> np.uint64(32)).astype(np.int64) % classes


def payloads(lengths: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a page for each length that compresses to about that: as many random bytes, then zeros."""
    made = np.zeros((len(lengths), PAGE), np.uint8)
    random = np.random.default_rng(12)
    for row, length in zip(made, lengths, strict=True):
        nbytes = min(PAGE, max(8, length - _ADDED)) if length < PAGE else PAGE
        row[:nbytes] = random.integers(1, 256, nbytes, dtype=np.uint8)
    return made


def read_lengths(path: str) -> tuple[int, ...]:
    """Read a distribution: the text of ``zswap/debug/uzswap.compressed_size`` of an engine, or lengths, one a line.

    Raises
    ------
    OSError
        It cannot be read; EINVAL it is neither, or has no page in it.
    """
    with open(path, encoding="utf-8") as file:
        text = file.read()
    try:
        counts = _histogram(text) if "=" in text else [(int(line), 1) for line in text.split()]
    except ValueError as error:
        raise os_error(
            errno.EINVAL, f"neither a histogram of lengths nor lengths, one a line ({error})", path
        ) from error
    counts = [(min(length, PAGE), count) for length, count in sorted(counts) if length > 0 and count > 0]
    if not counts:
        raise os_error(errno.EINVAL, "there is no page in this distribution", path)
    every = np.repeat([length for length, _ in counts], [count for _, count in counts])
    return tuple(int(every[int((i + 0.5) / _CLASSES * len(every))]) for i in range(_CLASSES))


def _histogram(text: str) -> list[tuple[int, int]]:
    found = []
    for line in text.splitlines():
        for word in line.split()[1:]:
            bound, _, count = word.partition("=")
            if bound not in ("sum", "inf"):
                found.append((int(bound), int(count)))
    return found
