"""All that serves one engine outward: its mounts, its socket, its entry in the runtime directory."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from uzswap.client.runtime import Entry, runtime_directory
from uzswap.engine.lifetime import on_fork
from uzswap.errors import os_error
from uzswap.locks import Order, make_lock

if TYPE_CHECKING:
    from uzswap.engine.lifetime import Lifetime
    from uzswap.files.view import EngineView
    from uzswap.serve.fuse import Mount
    from uzswap.serve.server import Server

__all__ = ["Serving"]

_numbers = itertools.count(1)


class Serving:
    """What ``z.mount()`` and ``z.serve()`` made, to be closed with the engine.

    The adapters are imported when they are first asked for: they need libraries that an engine does not.

    Parameters
    ----------
    engine
        Whose control files are served.
    lifetime
        Returns the engine's, which is another one in a forked child.
    """

    def __init__(self, engine: EngineView, lifetime: Callable[[], Lifetime]) -> None:
        self._engine = engine
        self._lifetime = lifetime
        self._lock = make_lock(Order.SERVING)
        self._mounts: list[Mount] = []
        self._servers: list[Server] = []
        self._sockets = itertools.count()
        self._entry: Entry | None = None
        self._directory: Path | None = None
        self._closed = False

    def mount(self, path: str | os.PathLike[str], *, allow_other: bool = False) -> Mount:
        """Mount the tree; see :class:`~uzswap.serve.fuse.Mount`."""
        from uzswap.serve.fuse import Mount

        # The engine first: in a forked child the lock may never be free.
        with self._lifetime(), self._lock:
            self._make_entry()
            made = Mount(self._engine, path, allow_other=allow_other, closed=self._closed_one)
            self._mounts.append(made)
            self._announce()
            return made

    def serve(
        self, path: str | os.PathLike[str] | None = None, *, port: int | None = None, web: bool = False
    ) -> Server:
        """Serve the tree on a socket; see :class:`~uzswap.serve.server.Server`."""
        from uzswap.serve.server import Server

        with self._lifetime(), self._lock:
            directory, entry = self._make_entry()
            if path is None:
                path = directory / f"{entry.name}-{next(self._sockets)}.sock"
            made = Server(self._engine, path, mount=self._mount_for_client, port=port, web=web, closed=self._closed_one)
            self._servers.append(made)
            self._announce()
            return made

    def _mount_for_client(self, path: str, allow_other: bool) -> None:
        self.mount(path, allow_other=allow_other)

    def close(self) -> None:
        """Unmount everything, end the servers, take the entry back; nothing can be served any more."""
        with self._lock:
            self._closed = True
            mounts, servers = self._mounts, self._servers
            self._mounts, self._servers = [], []
        for server in servers:
            server.close()
        for mount in mounts:
            mount.close()
        with self._lock:
            if self._entry is not None and self._directory is not None:
                self._entry.remove(self._directory)
                self._entry = None

    def _closed_one(self) -> None:
        """Called when a mount or server was closed, with none of its locks held."""
        with self._lock:
            if not self._closed:
                self._announce()

    def _make_entry(self) -> tuple[Path, Entry]:
        if self._closed:
            raise os_error(errno.EBADF, "the engine is being closed: make a new one")
        if self._entry is None or self._directory is None:
            self._directory = runtime_directory()
            self._entry = Entry.mine(next(_numbers))
            on_fork(self, Serving._forked)
        return self._directory, self._entry

    def _announce(self) -> None:
        """Write down where the engine can be reached now."""
        directory, entry = self._make_entry()
        self._mounts = [mount for mount in self._mounts if mount.mounted]
        self._servers = [server for server in self._servers if not server.closed]
        entry.socket = str(self._servers[0].path) if self._servers else None
        entry.mounts = [str(mount.path) for mount in self._mounts]
        entry.write(directory)

    def _forked(self) -> None:
        """In a forked child: all of it is the parent's.  The child may serve its own."""
        self._entry = None
        self._mounts, self._servers = [], []
