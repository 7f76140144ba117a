"""What a reclaim request did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["ReclaimResult"]


@dataclass(frozen=True, slots=True)
class ReclaimResult:
    """The outcome of one ``memory.reclaim`` request, complete or not."""

    #: bytes requested: compressed bytes with ``source=``, resident bytes without
    asked: int
    #: compressed bytes that were written to the device and have left the pool
    written: int = 0
    #: entries that were written
    entries: int = 0
    #: entries that were met and were candidates
    scanned: int = 0
    #: entries whose referenced bit was cleared (their second chance)
    rotated: int = 0
    #: entries that could not be written, by the name of the reason's errno, such as ``{"ENOSPC": 12}``
    failed: Mapping[str, int] = field(default_factory=dict)
    #: wall time of the request
    seconds: float = 0.0
    #: resident bytes that were freed (ordinary reclaim only)
    reclaimed: int = 0

    def items(self) -> Iterator[tuple[str, int | float]]:
        """Iterate over flat (key, number) pairs; the reasons of ``failed`` become keys ``failed.<reason>``."""
        yield "asked", self.asked
        yield "written", self.written
        yield "entries", self.entries
        yield "scanned", self.scanned
        yield "rotated", self.rotated
        yield "reclaimed", self.reclaimed
        for reason in sorted(self.failed):
            yield f"failed.{reason}", self.failed[reason]
        yield "seconds", self.seconds
