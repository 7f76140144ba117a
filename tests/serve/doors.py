"""The three ways in: Python, the mount, the socket.  All speak of files by their path in the tree."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

import pytest
from tests.support.child import Child

from uzswap import Zswap, signals
from uzswap.client.client import Client
from uzswap.serve.virtual_tree import ControlTree, Directory, OpenFile

#: more than any control file has
PLENTY = 1 << 16


class Opened(Protocol):
    """An open file."""

    def read(self) -> str: ...
    def write(self, data: str | bytes) -> int: ...
    def poll(self, timeout: float) -> int: ...
    def close(self) -> None: ...


class Writing(Protocol):
    """A write that somebody else does, and that can be interrupted as that door allows."""

    def interrupt(self) -> None: ...
    def outcome(self) -> int:
        """Wait; 0 or the errno."""
        ...


Started = Callable[[Writing], object]


class Door(Protocol):
    """A way in."""

    def read(self, path: str) -> str: ...
    def write(self, path: str, data: str | bytes) -> int: ...
    def open(self, path: str, *, nonblock: bool = False) -> Opened: ...
    def names(self, path: str) -> list[str]: ...
    def mkdir(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def another(self) -> AbstractContextManager[Door]:
        """A way in for another thread."""
        ...

    def start_write(self, path: str, data: str, started: Started) -> AbstractContextManager[Writing]:
        """Begin a write elsewhere; ``started`` is called before it can have begun."""
        ...


Enter = Callable[[Zswap], Door]


def fails(code: int) -> Any:
    return pytest.raises(OSError, match=rf"\[Errno {code}\]")


def attempt(door: Door, path: str, data: str | bytes) -> int:
    """Write; 0 or the errno."""
    try:
        assert door.write(path, data) == len(data)
    except OSError as error:
        return error.errno or 0
    return 0


def pending() -> None:
    """In the thread that does a write: wait until it knows of the interrupt."""
    served: Callable[[], bool] | None = getattr(signals._served, "pending", None)
    while served is not None and not served():
        os.sched_yield()


def as_bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


class PythonFile:
    def __init__(self, file: OpenFile) -> None:
        self._file = file

    def read(self) -> str:
        return self._file.read(PLENTY).decode()

    def write(self, data: str | bytes) -> int:
        return self._file.write(as_bytes(data))

    def poll(self, timeout: float) -> int:
        return self._file.file.poll(timeout)

    def close(self) -> None:
        self._file.close()


class ThreadWriting:
    """In a thread; subclasses say how it is interrupted."""

    def __init__(self, write: Callable[[], object]) -> None:
        self._write = write
        self._errno = 0
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._write()
        except OSError as error:
            self._errno = error.errno or 0

    def interrupt(self) -> None:
        assert self.thread.ident is not None
        signal.pthread_kill(self.thread.ident, signal.SIGUSR1)

    def outcome(self) -> int:
        self.thread.join()
        return self._errno


class PythonDoor:
    """Calls in this process."""

    def __init__(self, z: Zswap) -> None:
        self._tree = ControlTree(z)

    @contextmanager
    def another(self) -> Iterator[Door]:
        yield self

    @contextmanager
    def start_write(self, path: str, data: str, started: Started) -> Iterator[Writing]:
        before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
        writing = ThreadWriting(lambda: self.write(path, data))
        started(writing)
        writing.thread.start()
        yield writing
        writing.thread.join()
        signal.signal(signal.SIGUSR1, before)

    def read(self, path: str) -> str:
        return self._tree.file(path).read()

    def write(self, path: str, data: str | bytes) -> int:
        return self._tree.file(path).write(as_bytes(data))

    def open(self, path: str, *, nonblock: bool = False) -> Opened:
        return PythonFile(self._tree.file(path).open(nonblock=nonblock))

    def names(self, path: str) -> list[str]:
        node = self._tree.lookup(path)
        assert isinstance(node, Directory)
        return node.names()

    def mkdir(self, path: str) -> None:
        self._tree.mkdir(path)

    def rmdir(self, path: str) -> None:
        self._tree.rmdir(path)


class MountFile:
    def __init__(self, path: str, flags: int) -> None:
        self.fd = os.open(path, flags)

    def read(self) -> str:
        return os.pread(self.fd, PLENTY, 0).decode()

    def write(self, data: str | bytes) -> int:
        return os.write(self.fd, as_bytes(data))

    def poll(self, timeout: float) -> int:
        waiting = select.poll()
        waiting.register(self.fd, select.POLLPRI)
        return sum(events for _, events in waiting.poll(timeout * 1000))

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class ChildWriting:
    """A process of its own, whose write(2) a signal interrupts."""

    CODE = """
        import ctypes, os, signal, sys
        signal.signal(signal.SIGUSR1, lambda number, frame: None)
        fd = os.open(sys.argv[1], os.O_WRONLY)
        libc = ctypes.CDLL(None, use_errno=True)
        print("ready")
        input()
        data = sys.argv[2].encode()
        print(0 if libc.write(fd, data, len(data)) == len(data) else ctypes.get_errno())
    """

    def __init__(self, path: str, data: str) -> None:
        self.child = Child(self.CODE, [path, data])
        assert self.child.read_line() == "ready"

    def interrupt(self) -> None:
        self.child.send_signal(signal.SIGUSR1)

    def outcome(self) -> int:
        return int(self.child.read_line())


class MountDoor:
    """System calls on a mount."""

    @contextmanager
    def another(self) -> Iterator[Door]:
        yield self

    @contextmanager
    def start_write(self, path: str, data: str, started: Started) -> Iterator[Writing]:
        writing = ChildWriting(self._path(path), data)
        with writing.child:
            started(writing)
            writing.child.write_line("go")
            yield writing
            writing.child.wait().check()

    def __init__(self, mountpoint: Path) -> None:
        self._mountpoint = mountpoint

    def _path(self, path: str) -> str:
        return str(self._mountpoint) + path

    def read(self, path: str) -> str:
        with MountFile(self._path(path), os.O_RDONLY) as file:
            return file.read()

    def write(self, path: str, data: str | bytes) -> int:
        with MountFile(self._path(path), os.O_WRONLY | os.O_TRUNC) as file:
            return file.write(data)

    def open(self, path: str, *, nonblock: bool = False) -> Opened:
        mode = os.stat(self._path(path)).st_mode & 0o600
        access = {0o400: os.O_RDONLY, 0o200: os.O_WRONLY, 0o600: os.O_RDWR}[mode]
        return MountFile(self._path(path), access | (os.O_NONBLOCK if nonblock else 0))

    def names(self, path: str) -> list[str]:
        return os.listdir(self._path(path))

    def mkdir(self, path: str) -> None:
        os.mkdir(self._path(path))

    def rmdir(self, path: str) -> None:
        os.rmdir(self._path(path))


class GoneWriting(ThreadWriting):
    """A client that goes away in the middle of its request: who is left can only be told by uzswap.last_reclaim."""

    def __init__(self, client: Client, path: str, data: str) -> None:
        super().__init__(lambda: client.write(path, data))
        self._client = client

    def interrupt(self) -> None:
        connection: socket.socket = self._client._connection.sock
        connection.shutdown(socket.SHUT_RDWR)

    def outcome(self) -> int:
        assert super().outcome() == errno.ECONNRESET
        return errno.EINTR


class SocketDoor:
    """Requests on the socket."""

    def __init__(self, client: Client, path: Path) -> None:
        self._client = client
        self._socket = path
        self.read = client.read
        self.write = client.write
        self.mkdir = client.mkdir
        self.rmdir = client.rmdir

    @contextmanager
    def another(self) -> Iterator[Door]:
        with Client(self._socket) as client:
            yield SocketDoor(client, self._socket)

    @contextmanager
    def start_write(self, path: str, data: str, started: Started) -> Iterator[Writing]:
        with Client(self._socket) as client:
            client.read("/vmstat")  # be connected
            writing = GoneWriting(client, path, data)
            started(writing)
            writing.thread.start()
            yield writing
            writing.thread.join()

    def open(self, path: str, *, nonblock: bool = False) -> Opened:
        return self._client.open(path, nonblock=nonblock)

    def names(self, path: str) -> list[str]:
        return [entry["name"] for entry in self._client.list(path)]


@contextmanager
def open_door(kind: str, z: Zswap, directory: Path) -> Iterator[Door]:
    """Serve an engine one way; ``directory`` is private, and gets the mount or the socket."""
    if kind == "python":
        yield PythonDoor(z)
    elif kind == "mount":
        with z.mount(directory / "m") as mount:
            yield MountDoor(mount.path)
    else:
        with z.serve(directory / "s") as server, Client(server.path) as client:
            yield SocketDoor(client, server.path)
