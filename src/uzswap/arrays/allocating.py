"""Where numpy allocates, for the length of a block that a signal handler may end at any moment.

This module is compiled, so that no handler runs between two of its steps (setup.py, ``UNTORN``).
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from uzswap.arrays.arena import arena_in
from uzswap.cgroup.memcg import require_cgroup
from uzswap.core.boundary import handler as hook

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup

__all__ = ["Allocating"]


class Allocating:
    """A context manager: numpy allocates in a cgroup, in this context."""

    __slots__ = ("_cgroup", "_lifetime", "_previous")

    def __init__(self, cgroup: MemCgroup) -> None:
        self._cgroup = require_cgroup(cgroup)
        self._lifetime = cgroup.zswap.lifetime

    def __enter__(self) -> None:
        self._lifetime.__enter__()
        try:
            self._previous = arena_in(self._cgroup).handler(self._cgroup).install()
        except BaseException:
            self._lifetime.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hook.restore(self._previous)
        self._lifetime.__exit__(None, None, None)
