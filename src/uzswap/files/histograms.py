"""Histograms of the data plane as files: how well pages compress, what loads take, how old entries get.

One line for each series: its name, the sum of all values, then how many values there were in each class, by the class's
upper bound: ``stored sum=6144 256=0 ... 2048=3 ...``.  They count since the engine was made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from uzswap.core.boundary.engine import LENGTH_BOUNDS, NS_BOUNDS
from uzswap.files.file import FileType

if TYPE_CHECKING:
    from uzswap.cgroup.stat import Unit
    from uzswap.files.view import EngineView

__all__ = ["HISTOGRAM_FILES", "Series", "parse_series"]


class Series(NamedTuple):
    """One line of a histogram."""

    name: str
    #: of all values
    sum: int
    #: (at most, how many); the last bound is infinite
    classes: list[tuple[float, int]]


def _histogram(
    name: str,
    text: str,
    unit: Unit,
    series: dict[str, str],
    bounds: tuple[int, ...],
    shown: tuple[int, ...],
) -> FileType[EngineView]:
    """A file of histograms.

    Parameters
    ----------
    series
        The data plane's names by ours.
    bounds, shown
        The upper bounds of the data plane's classes, and those of them that are told apart.
    """

    def read(engine: EngineView) -> str:
        found = engine.core.histograms()
        return "".join(f"{line} {' '.join(_pairs(found[key]))}\n" for line, key in series.items())

    def _pairs(histogram: tuple[int, list[int]]) -> Iterator[str]:
        total, counts = histogram
        yield f"sum={total}"
        below = 0
        for bound in shown:
            upto = sum(counts[: bounds.index(bound) + 1])
            yield f"{bound}={upto - below}"
            below = upto
        yield f"inf={sum(counts) - below}"

    return FileType(f"zswap/debug/{name}", text, "histogram", unit, reader=read)


def parse_series(text: str) -> Iterator[Series]:
    """Read the text of a histogram."""
    for line in text.splitlines():
        name, *words = line.split()
        pairs = [word.partition("=") for word in words]
        total, *classes = ((key, int(value)) for key, _, value in pairs)
        yield Series(name, total[1], [(float(key), count) for key, count in classes])


#: for the table
HISTOGRAM_FILES: Final = (
    _histogram(
        "uzswap.compressed_size",
        "compressed bytes of what was stored, by class: at most so many",
        "bytes",
        {"stored": "length"},
        LENGTH_BOUNDS,
        LENGTH_BOUNDS,
    ),
    _histogram(
        "uzswap.load_latency",
        "time that loads took, by where the data was; the loads of one call share its time",
        "ns",
        {"zswap": "load.zswap", "disk": "load.disk", "zero": "load.zero"},
        NS_BOUNDS,
        tuple(bound for bound in NS_BOUNDS if bound <= 1 << 34),  # 17 s
    ),
    _histogram(
        "uzswap.writeback_age",
        "time that entries were in the pool before they were written back, 17 ms exact",
        "ns",
        {"written_back": "age"},
        NS_BOUNDS,
        tuple(bound for bound in NS_BOUNDS[:-1] if bound >= 1 << 24),  # from 17 ms to 20 hours
    ),
)
