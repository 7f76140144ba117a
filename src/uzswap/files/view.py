"""What the files read of an engine, and nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uzswap.cgroup.tree import CgroupTree
    from uzswap.core.boundary.engine import Engine

__all__ = ["EngineView", "TextParameters"]


class TextParameters(Protocol):
    """Parameters by name, as text without a newline; see :class:`uzswap.engine.parameters.Parameters`."""

    def get(self, name: str) -> str: ...

    def set(self, name: str, text: str) -> None: ...


class EngineView(Protocol):
    """An engine as its files, and all that serves them, see it."""

    @property
    def core(self) -> Engine:
        """The data plane, for its counters."""
        ...

    @property
    def tree(self) -> CgroupTree: ...

    @property
    def parameters(self) -> TextParameters: ...

    @property
    def swap_path(self) -> str | None:
        """Where the swap device is; None for no device."""
        ...
