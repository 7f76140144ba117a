"""Memory that large buffers come back into."""

from typing import Any, SupportsIndex

class Memory:
    """Writable bytes of a fixed length, which are anything at first; they have the buffer protocol and little else.

    Raises
    ------
    ValueError
        ``nbytes`` is negative.
    MemoryError
        The system has not the memory.
    """

    nbytes: int
    def __init__(self, nbytes: int) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...
    def __sizeof__(self) -> int: ...
    def __reduce_ex__(self, protocol: SupportsIndex, /) -> tuple[Any, ...]: ...

def arena_bytes() -> int:
    """Return the bytes of all buffers that are there, pages that they fill in part included."""
