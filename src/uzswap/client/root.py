"""The seam: control files of anybody, by their paths.

A :class:`Root` is one tree of control files, and there are three of them: an engine's, reached by its socket
(:class:`~uzswap.client.over_socket.SocketRoot`), one that is mounted, and the kernel's (both are directories:
:class:`~uzswap.client.directory.DirectoryRoot`).  A :class:`Cgroup` is one directory with a cgroup's files in it.
Whoever watches or controls cgroups needs nothing else, and sees no difference.

What holds for all of them:

- Every read is made anew.  Nothing is kept between two calls, neither contents nor names.
- An error is the OSError that the operation gave, with its errno; only the words are ours.  EAGAIN of memory.reclaim is
  success in part; EINTR is what was interrupted, and it may have done something; ENOENT and ENODEV are a cgroup that is
  gone.
- A write is one write, taken whole or not at all, and may take long.  It can be given a time within which it has to
  end, and then ends with EINTR as for a signal; ETIMEDOUT when it does not even end then, and is left alone.
- A path may mean another cgroup at the next call.  The inode tells: it is a cgroup's own as long as it lives, and no
  other's afterwards.

Nothing here imports the engine.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

from uzswap.errors import os_error

__all__ = ["PATIENCE", "Cgroup", "Interrupts", "Name", "Root"]

#: seconds that a write has to end in once it was interrupted: it looks up between two batches, and a batch is one
#: segment of 1 MiB, or SWAP_CLUSTER_MAX pages in the kernel
PATIENCE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Name:
    """An entry of a directory."""

    name: str
    is_directory: bool
    #: permission bits
    mode: int
    inode: int


class Interrupts(Protocol):
    """What can interrupt a write that is under way, such as Ctrl-C."""

    def call(self, act: Callable[[], object]) -> AbstractContextManager[None]:
        """Call ``act`` when it comes during a block, or came before; ``act`` may raise.  Perhaps more than once."""
        ...


class Root(Protocol):
    """Control files by their paths.  A context manager, for one thread; :meth:`again` is for another one."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def close(self) -> None:
        """Let go of what it holds.  Calling it again does nothing."""
        ...

    def again(self) -> Root:
        """Return the same tree, for another thread."""
        ...

    def read(self, path: str) -> str:
        """Return the text of a file."""
        ...

    def write(
        self, path: str, data: bytes, *, within: float | None = None, interrupts: Interrupts | None = None
    ) -> None:
        """Write to a file, as one write.

        Parameters
        ----------
        within
            Seconds until it is interrupted; None waits for ever.
        interrupts
            What else interrupts it.

        Raises
        ------
        OSError
            What the file says; EINTR it was interrupted, ETIMEDOUT it was, and did not end in :data:`PATIENCE`.
        """
        ...

    def act(
        self, directory: str, file: str, data: bytes, then: str, *, within: float | None
    ) -> tuple[OSError | None, str | None]:
        """Write to one file of a cgroup, and read another one right afterwards, however the write ended.

        Returns
        -------
        tuple
            What :meth:`write` raised, and the text; without a text the error is that of the reading, if there was none
            before.
        """
        failed = None
        try:
            self.write(f"{directory}/{file}", data, within=within)
        except OSError as error:
            failed = error
        try:
            return failed, self.read(f"{directory}/{then}")
        except OSError as error:
            return failed or error, None

    def names(self, path: str) -> list[Name]:
        """Return what is in a directory, directories last."""
        ...

    def directories(self, path: str) -> list[tuple[str, int]]:
        """Return name and inode of the directories in a directory, without a look at its files."""
        ...

    def files(self, path: str) -> set[str]:
        """Return the names of the files in a directory, without a look at them where that takes one each."""
        return {name.name for name in self.names(path) if not name.is_directory}

    def inode(self, path: str) -> int:
        """Return the identity of a directory."""
        ...

    def stat(self, path: str, files: Collection[str] | None = None) -> list[dict[str, Any]] | None:
        """Return what the files of a cgroup and of all below it tell, in pre-order, when one request can tell it.

        Each is ``{"cgroup": path, "inode": number, file: number or {key: number}}`` without what is 0 or unlimited; the
        path is an engine's, "/" its root.  With ``files`` the others may be left out.  None where there is no such
        request: a kernel and older engines have none.
        """
        return None

    def report(self, path: str, key: str | None = None) -> dict[str, Any]:
        """Return where the memory below a cgroup is, or why the value of a key of its stores is where it is.

        Raises
        ------
        OSError
            EOPNOTSUPP: that is told over an engine's socket alone.
        """
        raise os_error(errno.EOPNOTSUPP, "only an engine tells where its memory is, over its socket: z.serve()", path)

    def mkdir(self, path: str) -> None: ...

    def rmdir(self, path: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A cgroup, by where it is in a tree.  It need not exist."""

    root: Root
    #: of its directory
    path: str
    #: as a user calls it
    name: str
    #: of the process that the engine is in; None for cgroups in a file system
    pid: int | None = None

    def read(self, file: str) -> str:
        """Return the text of a control file."""
        try:
            return self.root.read(f"{self.path}/{file}")
        except FileNotFoundError:
            self.names()
            raise

    def read_if_there(self, file: str) -> str | None:
        """Return the text of a control file, None when this cgroup does not have it."""
        try:
            return self.read(file)
        except (FileNotFoundError, PermissionError):
            return None
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):  # memory.pressure of a kernel without PSI
                return None
            raise

    def write(
        self, file: str, data: bytes, *, within: float | None = None, interrupts: Interrupts | None = None
    ) -> None:
        """Write to a control file; see :meth:`Root.write`."""
        self.root.write(f"{self.path}/{file}", data, within=within, interrupts=interrupts)

    def inode(self) -> int:
        """Return what tells it from every other cgroup, also one that has its path later."""
        return self.root.inode(self.path)

    def names(self) -> list[Name]:
        """Return its control files and children."""
        try:
            return self.root.names(self.path)
        except FileNotFoundError as error:
            raise os_error(errno.ENOENT, "there is no such cgroup", self.name) from error

    def children(self) -> Iterator[Cgroup]:
        """Iterate over its children."""
        for entry in self.names():
            if entry.is_directory:
                yield self.child(entry.name)

    def child(self, name: str) -> Cgroup:
        return self._below(name)

    def stats(self, depth: int | None = None) -> Iterator[tuple[int, Cgroup, dict[str, Any]]] | None:
        """Iterate over (level, cgroup, what its files tell) of the subtree, or return None: see :meth:`Root.stat`."""
        told = self.root.stat(self.path)
        if told is None:
            return None
        top = told[0]["cgroup"]
        below = len(top.rstrip("/")) + 1
        return (
            (level, self._below(one["cgroup"][below:]) if level else self, one)
            for one in told
            for level in [0 if one["cgroup"] == top else one["cgroup"].count("/", below) + 1]
            if depth is None or level <= depth
        )

    def _below(self, relative: str) -> Cgroup:
        path, name = (f"{above.rstrip('/')}/{relative}" for above in (self.path, self.name))
        return Cgroup(self.root, path, name, self.pid)

    def preorder(self, depth: int | None = None) -> Iterator[tuple[int, Cgroup]]:
        """Iterate over (level, cgroup) of the subtree, this one first; what is removed meanwhile is left out."""
        waiting = [(0, self)]
        while waiting:
            level, cgroup = waiting.pop()
            yield level, cgroup
            if depth is None or level < depth:
                try:
                    below = [(level + 1, child) for child in cgroup.children()]
                except OSError as error:
                    if level and error.errno in (errno.ENOENT, errno.ENODEV):
                        continue
                    raise
                waiting += reversed(below)

    def again(self) -> Cgroup:
        """Return the same cgroup, for another thread."""
        return Cgroup(self.root.again(), self.path, self.name, self.pid)
