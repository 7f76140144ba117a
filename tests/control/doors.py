"""The three ways in: Python, the mount, the socket.  All speak of files by their path in the tree."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, Self

from uzswap import Zswap
from uzswap.control.client import Client
from uzswap.control.tree import ControlTree, Directory, OpenFile

#: more than any control file has
PLENTY = 1 << 16


class Opened(Protocol):
    """An open file."""

    def read(self) -> str: ...
    def write(self, data: str | bytes) -> int: ...
    def close(self) -> None: ...


class Door(Protocol):
    """A way in."""

    def read(self, path: str) -> str: ...
    def write(self, path: str, data: str | bytes) -> int: ...
    def open(self, path: str, *, nonblock: bool = False) -> Opened: ...
    def names(self, path: str) -> list[str]: ...
    def mkdir(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...


def as_bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


class PythonFile:
    def __init__(self, file: OpenFile) -> None:
        self._file = file

    def read(self) -> str:
        return self._file.read(PLENTY).decode()

    def write(self, data: str | bytes) -> int:
        return self._file.write(as_bytes(data))

    def close(self) -> None:
        self._file.close()


class PythonDoor:
    """Calls in this process."""

    def __init__(self, z: Zswap) -> None:
        self._tree = ControlTree(z)

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

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class MountDoor:
    """System calls on a mount."""

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


class SocketDoor:
    """Requests on the socket."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.read = client.read
        self.write = client.write
        self.mkdir = client.mkdir
        self.rmdir = client.rmdir

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
            yield SocketDoor(client)
