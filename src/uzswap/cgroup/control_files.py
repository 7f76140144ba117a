"""What a cgroup knows of its control files: that they can be opened by name.

Which files there are, and what is in them, is the table's affair (:mod:`uzswap.files.cgroup`), which is above this room
and given to the tree by the engine.
"""

from __future__ import annotations

from typing import Protocol, Self, SupportsIndex, TypeVar

__all__ = ["ControlFiles", "Measurement", "OpenControlFile"]

#: a cgroup, which this must not import
C = TypeVar("C", contravariant=True)


class OpenControlFile(Protocol):
    """An open control file; a context manager.  See :class:`uzswap.files.file.ControlFile`."""

    @property
    def name(self) -> str:
        """Path in the tree."""
        ...

    def read(self) -> str: ...

    def write(self, data: str | bytes | SupportsIndex) -> int: ...

    def poll(self, timeout: float | None = None) -> int: ...

    def ready(self) -> bool: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class ControlFiles(Protocol[C]):
    """The files that every cgroup has, by name."""

    def __contains__(self, name: object) -> bool: ...

    def read(self, cgroup: C, name: str) -> str: ...

    def open(self, cgroup: C, name: str, *, nonblock: bool, privileged: bool | None) -> OpenControlFile: ...


class Measurement(Protocol):
    """A measurement of a peak that one open file has begun."""

    def note(self, usage: int) -> None:
        """Take down a usage in bytes that the data plane is about to forget."""
        ...
