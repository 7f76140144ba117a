"""The words of a report, for whoever shows one: text alone, so that a client needs no numpy for them."""

from __future__ import annotations

from typing import Final

__all__ = ["LETTERS", "PARTS", "PROCESS"]

#: part of the resident set -> what it is
PROCESS: Final = {
    "arrays": "arrays",
    "objects": "values of stores",
    "pool": "the pool",
    "tables": "page tables",
    "frames": "frames",
    "read_around": "read around values on the device",
    "python": "Python's own",
    "files": "programs and libraries",
}
#: what the values of a store are to reclaim -> in words
PARTS: Final = {
    "new": "new, or not used since: next to go",
    "hot": "used again: later",
    "stuck": "have to stay",
    "referenced": "  parts of them are held by others",
    "unpicklable": "  can't be pickled",
}
#: letter of a strip of an array -> where most pages of a column are
LETTERS: Final = {"R": "resident", "z": "zswap", "d": "disk", ".": "nowhere", "!": "lost"}
