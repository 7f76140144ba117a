"""The walk over all that can be reached from a value."""

from collections.abc import Container
from typing import Any

class Survey:
    alone_bytes: int  # of what has one reference, and of attributes
    stuck: int  # objects in the value that can't come back as they were

    def __init__(self, once: list[Any] | None, thorough: bool) -> None: ...
    def estimated_bytes(self) -> int: ...  # without literals
    def blocks_of_arrays(  # their bytes
        self, blocks: list[tuple[int, int]], whether_shared_or_not: bool, copied: bool
    ) -> int: ...
    def plain_bytes(self) -> int: ...  # of a value that others hold nothing of, or -1
    def narrow(self, own: Container[int], copied: bool) -> None: ...  # what is seen of memory weighs, not all of it
    def pieces(self) -> dict[int, tuple[int, int, list[tuple[int, int, tuple[tuple[int, int], ...]]]]]: ...
    spans: dict[int, tuple[int, int]] | None  # of owners: first byte that is seen, and the one after the last
    def pinned(self) -> tuple[bool, Any]: ...  # whether something that can change is held outside, and what object
    def own_bytes(self) -> int: ...  # of what nobody outside holds directly
    def within_shared(self) -> tuple[int, int]: ...  # bytes reached through it, or -1 when some can change; shared data
    def refer(self) -> tuple[int, int, Any, int]: ...  # own bytes or -1; data that is copied; Apart; stuck parts
    def views_within(self) -> set[int]: ...  # addresses of the arrays that share memory with others in the value

def extent(view: Any) -> tuple[int, int]: ...
def shape_of(view: Any) -> tuple[int, int, tuple[tuple[int, int], ...]]: ...
