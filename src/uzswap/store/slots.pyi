"""The values of one store: which are resident, which are packed, and how they go from one to the other."""

from collections.abc import Callable, Container, Iterable
from typing import Any

from uzswap.cgroup.memcg import MemCgroup
from uzswap.cgroup.surroundings import Reclaimed
from uzswap.core.boundary.engine import Handles
from uzswap.store.compression import Compression
from uzswap.store.slot import Slot
from uzswap.store.weigh import Shared

class Slots:
    """Keys and their values.  All methods are thread-safe."""

    #: in the order in which the keys were added
    by_key: dict[Any, Slot]
    cgroup: MemCgroup
    #: the sum of the weights of the resident values
    resident_bytes: int
    #: how many values went out, came back, or were not taken by the engine
    evicted: int
    loaded: int
    refused: int
    closed: bool
    forked: bool

    def __init__(
        self,
        cgroup: MemCgroup,
        compression: Compression,
        shared: Shared | None = None,
        sizeof: Callable[[Any], Any] | None = None,
        immutable: bool = False,
    ) -> None: ...
    def peek(self, key: Any) -> Any:
        """Return the value of a key if it is resident, else NOTHING, and count no access.  KeyError without it."""

    def require_open(self) -> None:
        """Raise OSError (EBADF) when the store or its engine is closed, RuntimeError in a forked child."""

    def check(self) -> list[str]:
        """Return which invariants do not hold, in words; for quiet moments."""

    def fetch(self, key: Any) -> Any:
        """Return the value of a key, or NOTHING without one."""

    def take(self, key: Any) -> Any:
        """Delete a key and return its value, or NOTHING without one."""

    def insert(self, key: Any, value: Any, replace: bool = True, same: bool = False) -> bool:
        """Set a value; False when there is one already that is not to be replaced."""

    def fetch_part(self, key: Any, where: slice) -> Any:
        """Return a slice of the bytes that a key has, or NOTHING without one."""

    def remove(self, key: Any) -> None:
        """Delete a key without loading its value; KeyError without one."""

    def clear(self) -> None:
        """Delete all keys without loading anything.  Interrupted, it has deleted some."""

    def close(self) -> None:
        """Delete all keys, for good.  Interrupted, it can be called again."""

    def reweigh(self, slot: Slot) -> None:
        """Charge a resident value with what it weighs now; MemoryError when that can't be met."""

    def bring_in(self, keys: Iterable[Any], hold: list[Any] | None, force: bool = True) -> None:
        """Load those of the values that are packed, many at once; ``hold`` gets them.

        ``force``: limits are exceeded where no room can be made; else it ends where a limit is met.
        """

    def prefetch(self, keys: Iterable[Any]) -> None:
        """Have values brought in by a thread of our own, as far as there is room; nobody waits."""

    def settle(self) -> None:
        """Wait until nothing is left to be prefetched."""

    def reclaim(self, nbytes: int) -> Reclaimed:
        """Swap the coldest values out until so many bytes less are charged, none can go, or a signal comes.

        Returns pages looked at, and bytes freed: both of them as charged.
        """

    def family(self, key: Any) -> tuple[Container[int], int]: ...  # own memory of several; others that share memory
    def evict(self, key: Any) -> int:
        """Swap the value of one key out; return the bytes freed.  KeyError without the key."""

    def pin(self, key: Any) -> None:
        """Keep a value resident until it is unpinned as often as pinned; KeyError without one."""

    def unpin(self, key: Any) -> None:
        """Undo one :meth:`pin`; KeyError without the key, ValueError when it is not pinned."""

    def survey(self) -> tuple[int, int, int, dict[str, list[int]], Handles]:
        """Count values, resident ones, bytes that the others would be charged, and count and bytes by obstacle.

        And the handles of all chunks.
        """

    def rank(self, most: int) -> list[list[Any]]:
        """Return keys, at most 64 and ``most`` of each kind: of the heaviest values, of the resident ones that would go
        first, the coldest first, and of the heaviest ones that have to stay."""

    def lists(self) -> list[tuple[int, int]]:
        """Return (values, bytes) of the resident ones that reclaim looks at, has to find unused again, leaves alone."""

    def tell(self, key: Any) -> tuple[int, str | None, bool, bool]:
        """Return weight, obstacle, pinned and referenced of the value of a key.  KeyError without it."""
