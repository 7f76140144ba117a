"""Where control files are: in an engine, reached by its socket, or in a directory of a file system.

A path that lies in a mounted tree or in the kernel's cgroup file system is taken there; any other is the path of an
engine's tree, or of one of its cgroups.  Commands see no difference: they read and write a :class:`Tree`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from uzswap.cli.interrupts import Interrupts
from uzswap.client.client import Client
from uzswap.client.kernel import explain
from uzswap.client.mounts import FSTYPE, mounted_type
from uzswap.client.runtime import find
from uzswap.errors import ReclaimError, os_error
from uzswap.threads import start_thread

__all__ = ["Cgroup", "FileTree", "Name", "SocketTree", "Tree", "open_cgroup", "open_engine", "open_path"]

#: file systems with cgroups in them; of these, "cgroup" is version 1, which has no memory.reclaim
_CGROUPS: Final = frozenset({FSTYPE, "cgroup2", "cgroup"})
#: and those with the kernel's other files of the same names
_FILES: Final = _CGROUPS | {"sysfs", "debugfs", "proc"}


@dataclass(frozen=True, slots=True)
class Name:
    """An entry of a directory."""

    name: str
    is_directory: bool
    #: permission bits
    mode: int


class Tree(ABC):
    """Control files by their paths.  A context manager, for one thread; :meth:`again` is for another one.

    Every method raises the OSError that the operation itself gave.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027  a file system has nothing to close
        """Let go of what it holds."""

    @abstractmethod
    def again(self) -> Tree:
        """Return the same tree, for another thread."""

    @abstractmethod
    def read(self, path: str) -> str:
        """Return the text of a file."""

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Write to a file, as one write."""

    @abstractmethod
    def write_interruptibly(self, path: str, data: bytes, interrupts: Interrupts) -> None:
        """Write what may take long; Ctrl-C ends it as a signal does, with EINTR.  For the main thread."""

    @abstractmethod
    def names(self, path: str) -> list[Name]:
        """Return what is in a directory, directories last."""

    @abstractmethod
    def mkdir(self, path: str) -> None: ...

    @abstractmethod
    def rmdir(self, path: str) -> None: ...


class SocketTree(Tree):
    """The tree of an engine.  Connects when it is first used."""

    def __init__(self, socket: str) -> None:
        self.socket: Final = socket
        self._client = Client(socket)

    def close(self) -> None:
        self._client.close()

    def again(self) -> Tree:
        return SocketTree(self.socket)

    def read(self, path: str) -> str:
        with self._told(path):
            return self._client.read(path)

    def write(self, path: str, data: bytes) -> None:
        with self._told(path):
            self._client.write(path, data)

    def write_interruptibly(self, path: str, data: bytes, interrupts: Interrupts) -> None:
        done: concurrent.futures.Future[int] = concurrent.futures.Future()

        def work() -> None:
            try:
                done.set_result(file.write(data))
            except BaseException as error:
                done.set_exception(error)

        def interrupt() -> None:
            with contextlib.suppress(OSError):
                file.interrupt()

        with self._told(path):
            file = self._client.open(path)
            try:
                start_thread("uzswap-write", work)
                with interrupts.call(interrupt):
                    done.result()
            except ReclaimError as error:
                error.filename = path  # to the engine it was a number
                raise
            finally:
                with contextlib.suppress(OSError):
                    file.close()

    def names(self, path: str) -> list[Name]:
        with self._told(path):
            entries = self._client.list(path)
        return [Name(entry["name"], entry["type"] == "directory", int(entry["mode"], 8)) for entry in entries]

    def mkdir(self, path: str) -> None:
        with self._told(path):
            self._client.mkdir(path)

    def rmdir(self, path: str) -> None:
        with self._told(path):
            self._client.rmdir(path)

    def mount(self, path: str, *, allow_other: bool) -> None:
        """Have the engine mount its tree; raises as :class:`~uzswap.serve.fuse.Mount`."""
        with self._told(path):
            self._client.mount(path, allow_other=allow_other)

    @contextlib.contextmanager
    def _told(self, path: str) -> Iterator[None]:
        """Say what a connection that breaks means; and never with EPIPE, which is for stdout."""
        try:
            yield
        except ConnectionRefusedError as error:
            text = "nobody answers at this socket: its process has ended, or serves no more"
            raise os_error(errno.ECONNREFUSED, text, self.socket) from error
        except (BrokenPipeError, ConnectionResetError) as error:
            raise os_error(errno.ECONNRESET, "the engine ended before it answered", path) from error


class FileTree(Tree):
    """A tree in a file system, the kernel's or a mounted one; paths are those of the file system."""

    def again(self) -> Tree:
        return self

    def read(self, path: str) -> str:
        with explain(path):
            return Path(path).read_text(errors="surrogateescape")

    def write(self, path: str, data: bytes) -> None:
        with explain(path, data):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                written = os.write(fd, data)
            finally:
                os.close(fd)
            if written != len(data):
                raise os_error(errno.EIO, f"only {written} of {len(data)} bytes were taken", path)

    def write_interruptibly(self, path: str, data: bytes, interrupts: Interrupts) -> None:
        def interrupt() -> None:
            # Out of the system call, which Python would make again (PEP 475).
            raise os_error(errno.EINTR, "interrupted", path)

        with interrupts.call(interrupt):
            self.write(path, data)

    def names(self, path: str) -> list[Name]:
        with explain(path), os.scandir(path) as entries:
            found = []
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    found.append(Name(entry.name, entry.is_dir(), entry.stat().st_mode & 0o7777))
        return sorted(found, key=lambda name: (name.is_directory, name.name))

    def mkdir(self, path: str) -> None:
        with explain(path):
            os.mkdir(path)

    def rmdir(self, path: str) -> None:
        with explain(path):
            os.rmdir(path)


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A cgroup of a tree."""

    tree: Tree
    #: of its directory
    path: str
    #: as a user calls it
    name: str

    def read(self, file: str) -> str:
        """Return the text of a control file."""
        try:
            return self.tree.read(f"{self.path}/{file}")
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

    def names(self) -> list[Name]:
        """Return its control files and children."""
        try:
            return self.tree.names(self.path)
        except FileNotFoundError as error:
            raise os_error(errno.ENOENT, "there is no such cgroup", self.name) from error

    def children(self) -> Iterator[Cgroup]:
        """Iterate over its children."""
        for entry in self.names():
            if entry.is_directory:
                yield self.child(entry.name)

    def child(self, name: str) -> Cgroup:
        return Cgroup(self.tree, f"{self.path.rstrip('/')}/{name}", f"{self.name.rstrip('/')}/{name}")

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
        return Cgroup(self.tree.again(), self.path, self.name)


def open_engine(name: str | None) -> SocketTree:
    """Return the tree of the engine with a name, or of the only one.

    Raises
    ------
    OSError
        ENOENT there is no such engine; EINVAL there are several, and no name was given; ENOTCONN it has no socket.
    """
    entry = find(name)
    if entry.socket is None:
        where = f", use {entry.mounts[0]}" if entry.mounts else ""
        raise os_error(errno.ENOTCONN, f"engine {entry.name} ({entry.command}) has no socket: call z.serve(){where}")
    return SocketTree(entry.socket)


def open_path(path: str, engine: str | None) -> tuple[Tree, str]:
    """Return the tree that a path is in, and the path there; an engine that is named is always meant."""
    if engine is None and _file_system(path) in _FILES:
        return FileTree(), os.path.abspath(path)
    return open_engine(engine), f"/{path.lstrip('/')}"


def open_cgroup(path: str, engine: str | None) -> Cgroup:
    """Return a cgroup by its path, with the rules of :func:`open_path`.  It need not exist.

    Raises
    ------
    OSError
        As :func:`open_engine`; EOPNOTSUPP for a cgroup of version 1.
    """
    found = None if engine is not None else _file_system(path)
    if found == "cgroup":
        raise os_error(
            errno.EOPNOTSUPP, "cgroups of version 1 have no memory.reclaim: boot with the unified hierarchy", path
        )
    if found in _CGROUPS:
        where = os.path.abspath(path)
        return Cgroup(FileTree(), where, where)
    name = f"/{path.strip('/')}"
    return Cgroup(open_engine(engine), f"/cgroup{name.rstrip('/')}", name)


def _file_system(path: str) -> str | None:
    """Return the type of the innermost mount that a path is in, of those known here; it need not exist."""
    real = Path(os.path.realpath(path))
    for directory in (real, *real.parents):
        if (found := mounted_type(directory)) is not None:
            return found
    return None
