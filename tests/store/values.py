"""Values that act while they are pickled, and other things that several tests of the store need."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uzswap import MemCgroup, Store

_on_load: dict[int, Callable[[], object]] = {}


class Acting:
    """Calls something while it is pickled, and something while it comes back."""

    def __init__(
        self, on_save: Callable[[], object] | None = None, on_load: Callable[[], object] | None = None
    ) -> None:
        self.on_save = on_save
        self.ident = random.getrandbits(62)
        self.payload = bytearray(10_000)
        if on_load is not None:
            _on_load[self.ident] = on_load

    def __getstate__(self) -> dict[str, Any]:
        if self.on_save is not None:
            self.on_save()
        return {"on_save": None, "ident": self.ident, "payload": self.payload}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.ident in _on_load:
            _on_load[self.ident]()


def noise(size: int, seed: int = 0) -> bytearray:
    """Bytes that do not compress, in an object of their own."""
    return bytearray(random.Random(size + seed).randbytes(size))


def evict(store: Store[Any, Any]) -> None:
    """Swap out everything that can go."""
    while store.reclaim(1 << 40).freed_bytes:
        pass


def counters(cgroup: MemCgroup) -> dict[str, int]:
    """``memory.stat``, and ``memory.current`` with it, to the byte."""
    stat = {key: int(value) for key, value in map(str.split, cgroup.read("memory.stat").splitlines())}
    return {**stat, "current": cgroup.usage()}


def packed(store: Store[Any, Any]) -> list[Any]:
    """The keys of what went out."""
    return [key for key in store if store.where(key) != "resident"]
