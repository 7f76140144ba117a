"""numpy's data handler (NEP 49): arrays whose data lie in paged memory."""

from typing import Any

from uzswap.core.memory import Memory

class Handler:
    """Allocations of at least `least` bytes are areas of a memcg; `owner` lives as long as any array made here."""

    memory: Memory
    least: int
    owner: Any

    def __init__(self, memory: Memory, owner: object, memcg: int, least: int, item: int = 0) -> None: ...
    def install(self) -> object: ...  # in the current context; the handler that was there before
    def set(self, on: bool, memcg: int) -> None: ...  # off: every later allocation is malloc's

def restore(previous: object) -> None: ...
def find(memory: Memory, address: int) -> int: ...  # area, or 0
def set_item(memory: Memory, area: int, item: int) -> None: ...
def alive(memory: Memory) -> list[tuple[int, int]]: ...  # (memcg, bytes) of every area in use
