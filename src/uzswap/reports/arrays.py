"""Where the pages of an engine's arrays are, by array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uzswap.core.boundary import places
from uzswap.reports.strip import Strip
from uzswap.units import PAGE_SIZE

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.core.boundary.memory import Memory

__all__ = ["ArrayReport", "array_reports"]


@dataclass(frozen=True, slots=True)
class ArrayReport:
    """An array in paged memory; bytes before compression."""

    cgroup: str
    address: int
    bytes: int
    resident: int
    zswap: int
    disk: int
    #: never touched, dropped, or one repeated word
    nowhere: int
    #: could not be read back
    lost: int
    #: times that a thread waited for a page, and pages that were brought back
    faults: int
    loads: int
    #: where each page is
    strip: Strip

    def as_json(self) -> dict[str, Any]:
        """Return it as dicts and numbers, the strip as text."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return found | {"strip": self.strip.text()}

    def _repr_html_(self) -> str:
        return self.strip.svg()


def array_reports(memory: Memory, top: MemCgroup, most: int, columns: int) -> list[ArrayReport]:
    """Return the largest arrays of a subtree of cgroups, the largest first; costs 4 ns a page."""
    below = {cgroup.index: cgroup.path for cgroup in top.preorder()}
    known = [(pages, area) for area, memcg, pages in places.areas(memory) if memcg in below]
    found = []
    for _, area in sorted(known, reverse=True)[:most]:
        try:
            told, pages = memory.area(area), places.pages(memory, area)
        except ValueError:  # freed meanwhile
            continue
        found.append(
            ArrayReport(
                cgroup=below.get(told.memcg, top.path),
                address=told.address,
                bytes=told.pages * PAGE_SIZE,
                resident=told.resident * PAGE_SIZE,
                zswap=told.zswap * PAGE_SIZE,
                disk=told.disk * PAGE_SIZE,
                nowhere=told.zero * PAGE_SIZE,
                lost=told.lost * PAGE_SIZE,
                faults=told.faults,
                loads=told.loads,
                strip=Strip(pages, columns),
            )
        )
    return found
