"""All that serves one engine outward: its mounts, its socket, its entry in the runtime directory."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from uzswap.control.runtime import Entry, runtime_directory
from uzswap.lifetime import on_fork

if TYPE_CHECKING:
    from uzswap.control.fuse import Mount
    from uzswap.control.server import Server
    from uzswap.zswap import Zswap

__all__ = ["Serving"]

_numbers = itertools.count(1)


class Serving:
    """What ``z.mount()`` and ``z.serve()`` made, to be closed with the engine.

    The adapters are imported when they are first asked for: they need libraries that an engine does not.
    """

    def __init__(self, zswap: Zswap) -> None:
        self._zswap = zswap
        self._lock = threading.Lock()
        self._mounts: list[Mount] = []
        self._servers: list[Server] = []
        self._entry: Entry | None = None
        self._directory: Path | None = None

    def mount(self, path: str | os.PathLike[str], *, allow_other: bool = False) -> Mount:
        """Mount the tree; see :class:`~uzswap.control.fuse.Mount`."""
        from uzswap.control.fuse import Mount

        with self._lock, self._zswap.lifetime:
            made = Mount(self._zswap, path, allow_other=allow_other)
            self._mounts = [mount for mount in self._mounts if mount.mounted] + [made]
            self._announce()
            return made

    def serve(self, path: str | os.PathLike[str] | None = None, *, port: int | None = None) -> Server:
        """Serve the tree on a socket; see :class:`~uzswap.control.server.Server`."""
        from uzswap.control.server import Server

        with self._lock, self._zswap.lifetime:
            entry = self._make_entry()
            if path is None:
                assert self._directory is not None
                path = self._directory / f"{entry.name}-{len(self._servers)}.sock"
            made = Server(self._zswap, path, port=port)
            self._servers.append(made)
            self._announce()
            return made

    def close(self) -> None:
        """Unmount everything, end the servers, take the entry back."""
        with self._lock:
            for server in self._servers:
                server.close()
            for mount in self._mounts:
                mount.close()
            self._servers, self._mounts = [], []
            if self._entry is not None and self._directory is not None:
                self._entry.remove(self._directory)
                self._entry = None

    def _make_entry(self) -> Entry:
        if self._entry is None:
            self._directory = runtime_directory()
            self._entry = Entry.mine(next(_numbers))
            on_fork(self, Serving._forked)
        return self._entry

    def _announce(self) -> None:
        entry = self._make_entry()
        entry.socket = str(self._servers[0].path) if self._servers else None
        entry.mounts = [str(mount.path) for mount in self._mounts]
        assert self._directory is not None
        entry.write(self._directory)

    def _forked(self) -> None:
        """In a forked child: the entry is the parent's."""
        self._entry = None
