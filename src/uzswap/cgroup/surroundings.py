"""What cgroups know of what is around them, as protocols: the tree they stand in, and the engine above it.

C and D are the cgroup itself (:class:`~uzswap.cgroup.memcg.MemCgroup`), which these must not import.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

    from uzswap.cgroup.control_files import ControlFiles
    from uzswap.cgroup.pressure import PressureMonitor
    from uzswap.cgroup.reclaim import ReclaimRequest
    from uzswap.cgroup.recompress import RecompressRequest, RecompressResult
    from uzswap.condition import Condition
    from uzswap.core.boundary.engine import Engine
    from uzswap.result import ReclaimResult

__all__ = ["Host", "Inside", "Member", "Reclaimed", "Tree"]

C = TypeVar("C")
D = TypeVar("D", contravariant=True)


class Reclaimed(NamedTuple):
    """What a holder of memory did when it was asked to give some up."""

    #: pages of 4096 bytes that were looked at
    scanned_pages: int
    #: resident bytes that were given up (and uncharged)
    freed_bytes: int


class Member(Protocol):
    """Who holds resident memory of a cgroup.

    ``reclaim`` is called from any thread, also from within a charge of its own, and from another one's.  So it must not
    wait for a lock that is held across a charge: who is busy gives up nothing.
    """

    @property
    def resident_bytes(self) -> int:
        """What it holds uncompressed now."""
        ...

    def reclaim(self, nbytes: int) -> Reclaimed:
        """Swap out about ``nbytes`` of what was not used for longest, and uncharge it."""
        ...


class Inside(Protocol):
    """The lifetime of an engine: a context manager around each call."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Host(Protocol[D]):
    """The engine, as its cgroups and their files see it."""

    @property
    def core(self) -> Engine: ...

    @property
    def nodes(self) -> int: ...

    @property
    def lifetime(self) -> Inside: ...

    def reclaim(self, memcg: D, request: ReclaimRequest, cancel: Callable[[], bool] | None = None) -> ReclaimResult: ...

    def recompress(
        self, memcg: D, request: RecompressRequest, cancel: Callable[[], bool] | None = None
    ) -> RecompressResult: ...

    def limit_changed(self, memcg: D, name: str) -> None:
        """Act on a limit that was written."""
        ...

    def count_faults(self, memcg: D) -> None:
        """Have events and pressure of a subtree say what faults have met until now."""
        ...


class Tree(Protocol[C]):
    """The tree, as a cgroup in it sees it."""

    @property
    def zswap(self) -> Host[C]: ...

    @property
    def files(self) -> ControlFiles[C]: ...

    @property
    def lock(self) -> threading.RLock: ...

    @property
    def changed(self) -> Condition: ...

    @property
    def pressure(self) -> PressureMonitor: ...

    @property
    def closed(self) -> bool: ...

    def make(self, path: str, start: C | None = None) -> C: ...

    def mkdir(self, parent: C, name: str) -> C: ...

    def remove(self, cgroup: C) -> None: ...

    def wake(self) -> None: ...
