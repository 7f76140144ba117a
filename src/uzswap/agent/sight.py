"""What is seen of a tree: all cgroups at once where one request tells of them, else file by file.

An engine tells what the files of all its cgroups tell in one answer (:meth:`uzswap.client.root.Root.stat`).  A kernel
does not, and an older engine neither: that is found out anew with each look, since another one may serve the root then.
Both ways lead to the same readings.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from uzswap.agent.observe import TOLD, Reader, Reading
from uzswap.agent.reads import Reads
from uzswap.agent.tree import Machine, Tree
from uzswap.client.root import Root
from uzswap.errors import os_error

__all__ = ["Sight", "World"]

#: cgroup -> what its files tell
_Told = Mapping[str, Mapping[str, Any]]


class World(NamedTuple):
    """Who is there, as (path, inode), and on what machine."""

    cgroups: list[tuple[str, int]]
    machine: Machine


class Sight:
    """See the module.  For one thread.

    Parameters
    ----------
    patterns
        Of the cgroups that are looked for.
    """

    def __init__(self, tree: Tree, reads: Reads, patterns: Sequence[str]) -> None:
        self._tree = tree
        self._reads = reads
        self._patterns = patterns
        self._top = tree.common(patterns)
        #: what all of them told at a time; None where they do not
        self._told: tuple[float, _Told] | None = None

    @property
    def at_once(self) -> bool:
        """Whether all were told of at once when they were looked for."""
        return self._told is not None

    def world(self, now: float) -> World | OSError:
        """Look who is there."""
        (found,) = self._reads.all([self._look])
        if isinstance(found, OSError):
            return found
        world, told = found
        self._told = None if told is None else (now, told)
        return world

    def readings(self, cgroups: Sequence[tuple[str, int, Reader]], now: float) -> list[Reading | OSError]:
        """Read some cgroups, told by path and inode; an error is that cgroup's."""
        told = self._tell(now) if any(reader.is_told() for _, _, reader in cgroups) else None
        if isinstance(told, OSError):
            return [told] * len(cgroups)
        if told is None:
            return self._reads.all([partial(reader.read, now=now) for _, _, reader in cgroups])
        others = [partial(reader.read, now=now) for _, _, reader in cgroups if not reader.is_told()]
        by_files = iter(self._reads.all(others) if others else [])
        return [
            _of(told, path, inode, reader) if reader.is_told() else next(by_files) for path, inode, reader in cgroups
        ]

    def _tell(self, now: float) -> _Told | OSError | None:
        if self._told is not None and self._told[0] != now:
            (told,) = self._reads.all([self._ask])
            if isinstance(told, OSError):
                return told
            self._told = None if told is None else (now, told)
        return None if self._told is None else self._told[1]

    # For the thread that reads

    def _look(self, root: Root) -> tuple[World, _Told | None]:
        tree, told = self._tree.through(root), self._ask(root)
        if told is None:
            cgroups = tree.find(self._patterns)
        else:
            cgroups = tree.among(self._patterns, [(path, one["inode"]) for path, one in told.items()])
        return World(cgroups, tree.machine()), told

    def _ask(self, root: Root) -> _Told | None:
        told = root.stat(self._top, TOLD) if self._tree.engine else None
        if not told or "inode" not in told[0]:
            return None
        return {one["cgroup"]: one for one in told}


def _of(told: _Told, path: str, inode: int, reader: Reader) -> Reading | OSError:
    one = told.get(path)
    if one is None or one["inode"] != inode:
        return os_error(errno.ENOENT, "the cgroup was removed", path)
    return reader.of_told(one)
