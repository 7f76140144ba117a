"""A front-end that holds as much memory as it is told to."""

from __future__ import annotations

from uzswap import MemCgroup
from uzswap.cgroup.surroundings import Reclaimed


class FrontEnd:
    """A member of a cgroup with some resident bytes, which it gives up, page by page, when it is asked to."""

    def __init__(self, cgroup: MemCgroup, nbytes: int = 0) -> None:
        self.cgroup = cgroup
        self.resident_bytes = 0
        cgroup.zswap.register(self)
        self.hold(nbytes)

    def hold(self, nbytes: int) -> None:
        self.cgroup.zswap.charge(self.cgroup, nbytes)
        self.resident_bytes += nbytes

    def drop(self, nbytes: int) -> None:
        self.resident_bytes -= nbytes
        self.cgroup.zswap.uncharge(self.cgroup, nbytes)

    def reclaim(self, nbytes: int) -> Reclaimed:
        freed = min(self.resident_bytes, -(-nbytes // 4096) * 4096)
        self.drop(freed)
        return Reclaimed(freed // 4096, freed)

    def close(self) -> None:
        self.drop(self.resident_bytes)
        self.cgroup.zswap.unregister(self)


class Stubborn(FrontEnd):
    """One that never gives anything up."""

    def reclaim(self, nbytes: int) -> Reclaimed:
        return Reclaimed(0, 0)
