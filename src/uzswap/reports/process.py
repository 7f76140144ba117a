"""The resident set of this process, told apart.

Every mapping of /proc/self/smaps counts for what it is: the engine says which are its own, by their addresses; what is
backed by a file is programs and libraries; all that is left is Python's own, from which what stores have charged for
their values is told apart.  So the sum is the RSS, but for what changes while it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Mapping", "ResidentSet", "mappings_in", "resident_set_of", "rolled_up", "told_apart"]

_SMAPS: Final = Path("/proc/self/smaps")
_ROLLUP: Final = Path("/proc/self/smaps_rollup")
_HEAD: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ")


class ResidentSet(NamedTuple):
    """Bytes of RSS, by what they are for."""

    #: pages of arrays in paged memory
    arrays: int
    #: values of stores, as they are charged
    objects: int
    #: compressed data
    pool: int
    #: the engine's page tables: of entries, cgroups and pages of arrays
    tables: int
    #: that pages of arrays pass through on their way in
    frames: int
    #: what was read of the device around values
    read_around: int
    #: all else that is in no file: the interpreter's heap, stacks, other libraries' memory, other engines
    python: int
    #: of programs and libraries, shared with other processes for the most part
    files: int

    @property
    def total(self) -> int:
        """The sum."""
        return sum(self)


class Mapping(NamedTuple):
    """One of /proc/self/smaps; bytes."""

    begin: int
    end: int
    resident: int
    #: of these, that are in no file, or in one no more
    anonymous: int


def mappings_in(lines: Iterable[str]) -> Iterator[Mapping]:
    """Read /proc/PID/smaps."""
    begin = end = resident = 0
    for line in lines:
        if line.startswith("Rss:"):
            resident = int(line.split()[1]) << 10
        elif line.startswith("Anonymous:"):
            yield Mapping(begin, end, resident, int(line.split()[1]) << 10)
        elif (head := _HEAD.match(line)) is not None:
            begin, end = int(head[1], 16), int(head[2], 16)


def rolled_up() -> int:
    """Return the RSS in bytes as /proc/self/smaps_rollup has it, counted by the kernel at once."""
    lines = _ROLLUP.read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Rss:"))


def resident_set_of(ours: Iterable[tuple[str, int, int]], counted: dict[str, int], object_bytes: int) -> ResidentSet:
    """Tell the RSS of this process apart; as :func:`told_apart`.

    Raises
    ------
    OSError
        There is no /proc.
    """
    with _SMAPS.open(encoding="utf-8", errors="surrogateescape") as lines:
        mappings = list(mappings_in(lines))
    return told_apart(mappings, ours, counted, object_bytes)


def told_apart(
    mappings: Iterable[Mapping], ours: Iterable[tuple[str, int, int]], counted: dict[str, int], object_bytes: int
) -> ResidentSet:
    """Return the sums of mappings, by what they are for.

    Parameters
    ----------
    ours
        (what it is for, address, bytes) of the engine's own mappings.
    counted
        Resident bytes of some of these, as the engine counts them: the kernel makes one mapping of two that follow one
        another, and then so much of it is theirs.
    object_bytes
        That stores have charged.
    """
    known = [(address, address + nbytes, what) for what, address, nbytes in ours]
    found = dict.fromkeys(ResidentSet._fields, 0)
    for mapping in mappings:
        within = [
            (what, min(end, mapping.end) - max(begin, mapping.begin))
            for begin, end, what in known
            if begin < mapping.end and mapping.begin < end
        ]
        if not within:
            found["python"] += mapping.anonymous
            found["files"] += mapping.resident - mapping.anonymous
            continue
        kinds = {what for what, _ in within}
        if sum(nbytes for _, nbytes in within) < mapping.end - mapping.begin:
            kinds.add("python")
        rest = mapping.resident
        for what in sorted(kinds & counted.keys()) if len(kinds) > 1 else ():
            part = min(rest, max(0, counted[what] - found[what]))
            found[what] += part
            rest -= part
        # Of two that are not counted, that which is the engine's.
        other = sorted(kinds - counted.keys() - {"python"}) or sorted(kinds - counted.keys()) or sorted(kinds)
        found[other[-1]] += rest
    found["objects"] = min(object_bytes, found["python"])
    found["python"] -= found["objects"]
    return ResidentSet(**found)
