"""The walk over all that can be reached from a value."""

from typing import Any

class Survey:
    alone_bytes: int  # of what has one reference, and of attributes
    stuck: bool  # something in the value can't come back as it was
    aliased: bool  # memory of arrays is shared

    def __init__(self, once: list[Any] | None, thorough: bool) -> None: ...
    def estimated_bytes(self) -> int: ...  # without literals
    def pinned(
        self,
    ) -> tuple[bool, Any]: ...  # whether somebody outside holds what can change, and an object if it is one
    def own_bytes(self) -> int: ...  # of what nobody outside holds directly
    def within_shared(self) -> tuple[int, int]: ...  # bytes reached through it, or -1 when some can change; shared data
