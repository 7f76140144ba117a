"""numpy's data handler (NEP 49): arrays whose data lie in paged memory."""

from typing import Any

from uzswap.core.boundary.memory import Memory

class Handler:
    """Allocations of at least `least` bytes are areas of a memcg; `owner` lives as long as any array made here."""

    memory: Memory
    owner: Any
    shared: bool

    def __init__(
        self, memory: Memory, owner: object, memcg: int, least: int, item: int, shared: bool
    ) -> None: ...  # item: size in bytes of the numbers of arrays that do not tell it
    def install(self) -> object: ...  # in the current context; returns the handler that was there before
    def turn_off(self) -> None: ...  # every later allocation is malloc's
    def hold(self, held: bool) -> None: ...  # as long as held every allocation fails
    def move(self, memcg: int) -> None: ...

def restore(previous: object) -> None: ...  # undo Handler.install() in this context
def find(memory: Memory, address: int) -> int: ...  # area, or 0
def set_item(memory: Memory, area: int, item: int) -> None: ...
def alive(memory: Memory) -> list[tuple[int, int]]: ...  # (memcg, bytes) of every area in use
