"""Where each page of an array is, drawn as a strip: from its first page at the left to its last at the right.

A column stands for one page or, of a large array, for a run of pages, and is divided as these are; from the top:
resident, zswap, disk, nowhere, lost.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

from uzswap.core.boundary.places import DISK, LOST, NONE, RESIDENT, ZSWAP
from uzswap.errors import InvalidArgumentError
from uzswap.reports.words import LETTERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["COLOURS", "PLACES", "Strip"]

#: what :mod:`uzswap.core.boundary.places` says of a page -> in a word, from the top of a column to its bottom
PLACES: Final = {RESIDENT: "resident", ZSWAP: "zswap", DISK: "disk", NONE: "nowhere", LOST: "lost"}
#: told apart by the colour-blind too, on white and on black (Okabe and Ito, 2008); nowhere is a grey
COLOURS: Final = {
    "resident": "#0072b2",
    "zswap": "#e69f00",
    "disk": "#009e73",
    "nowhere": "#bbbbbb",
    "lost": "#d55e00",
}
_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
#: colours of a palette, eight bits a pixel
_INDEXED: Final = 3


class Strip:
    """A picture of an array.

    Parameters
    ----------
    pages
        A byte for each page: see :func:`uzswap.core.boundary.places.pages`.
    columns
        Most columns of the picture.

    Attributes
    ----------
    shares : numpy.ndarray
        A row for each column, with the number of its pages in each place of :data:`PLACES`, in that order.
    """

    def __init__(self, pages: NDArray[np.uint8], columns: int = 512) -> None:
        if columns < 1:
            raise InvalidArgumentError(f"columns={columns}: a strip has one at least")
        n = min(columns, len(pages))
        begins = np.arange(n) * len(pages) // max(n, 1)
        self.shares: Final[NDArray[np.int64]] = np.zeros((n, len(PLACES)), np.int64)
        for row, place in enumerate(PLACES):
            if n:
                self.shares[:, row] = np.add.reduceat(pages == place, begins, dtype=np.int64)

    def text(self) -> str:
        """Return a letter for each column, of the place that most of its pages are in: R z d . !"""
        letters = list(LETTERS)
        return "".join(letters[row] for row in self.shares.argmax(axis=1).tolist())

    def _heights(self, height: int) -> NDArray[np.int64]:
        """Return where each place ends in each column, in pixels from the top; the last one ends at the bottom."""
        so_far = self.shares.cumsum(axis=1)
        ends: NDArray[np.int64] = (so_far * height + so_far[:, -1:] // 2) // so_far[:, -1:]
        return ends

    def png(self, height: int = 24) -> bytes:
        """Return it as a PNG, a pixel a column."""
        ends = self._heights(height)
        lines = np.zeros((height, len(ends)), np.uint8)
        for row in range(len(PLACES) - 1):
            lines += np.arange(height)[:, None] >= ends[:, row]
        palette = b"".join(bytes.fromhex(COLOURS[place][1:]) for place in PLACES.values())
        # Each line begins with its filter: none.
        data = np.pad(lines, ((0, 0), (1, 0))).tobytes()
        header = struct.pack(">IIBBBBB", len(ends), height, 8, _INDEXED, 0, 0, 0)
        chunks = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
        return _MAGIC + b"".join(map(_chunk, *zip(*chunks, strict=True)))

    def svg(self, height: int = 24) -> str:
        """Return it as an SVG, which is as wide as what it is put into."""
        ends = self._heights(height)
        n = len(ends)
        # Columns that are alike are one: of most arrays there are few others.
        firsts = [i for i in range(n) if not i or (ends[i] != ends[i - 1]).any()]
        parts = []
        for first, after in zip(firsts, [*firsts[1:], n], strict=True):
            top = 0
            for place, end in zip(PLACES.values(), ends[first].tolist(), strict=True):
                if end > top:
                    box = f'x="{first}" y="{top}" width="{after - first}" height="{end - top}"'
                    parts.append(f'<rect {box} fill="{COLOURS[place]}"/>')
                top = end
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {max(n, 1)} {height}" width="100%" '
            f'height="{height}" preserveAspectRatio="none" shape-rendering="crispEdges">{"".join(parts)}</svg>'
        )

    def _repr_svg_(self) -> str:
        return self.svg()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
