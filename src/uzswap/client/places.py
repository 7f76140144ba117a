"""Where control files are: in an engine, reached by its socket, or in a directory of a file system.

A path that lies in a mounted tree or in the kernel's cgroup file system is taken there; any other is the path of an
engine's tree, or of one of its cgroups.  Who opens one sees no difference; see :mod:`uzswap.client.root`.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from uzswap.client.directory import DirectoryRoot
from uzswap.client.mounts import FSTYPE, mounted_type
from uzswap.client.over_socket import SocketRoot
from uzswap.client.root import Cgroup, Root
from uzswap.client.runtime import Entry, engines, find
from uzswap.client.schemes import is_url, open_url, split_url
from uzswap.errors import os_error

__all__ = ["open_cgroup", "open_cgroups", "open_engine", "open_path"]

#: file systems with cgroups in them; of these, "cgroup" is version 1, which has no memory.reclaim
_CGROUPS: Final = frozenset({FSTYPE, "cgroup2", "cgroup"})
#: and those with the kernel's other files of the same names
_FILES: Final = _CGROUPS | {"sysfs", "debugfs", "proc"}


#: what an engine's tree has at the top, and what its server has beside it
_TOP: Final = frozenset({"", "cgroup", "zswap", "vmstat", "meminfo", "swaps", "metrics", "openapi.yaml"})


def open_engine(name: str | None) -> SocketRoot:
    """Return the tree of the engine with a name, or of the only one.

    Raises
    ------
    OSError
        ENOENT there is no such engine; EINVAL there are several, and no name was given; ENOTCONN it has no socket.
    """
    return _socket_of(find(name))


def _socket_of(entry: Entry) -> SocketRoot:
    if entry.socket is None:
        where = f", use {entry.mounts[0]}" if entry.mounts else ""
        raise os_error(errno.ENOTCONN, f"engine {entry.name} ({entry.command}) has no socket: call z.serve(){where}")
    return SocketRoot(entry.socket)


def open_path(path: str, engine: str | None) -> tuple[Root, str]:
    """Return the tree that a path is in, and the path there; an engine that is named is always meant.

    What is not in the tree of an engine is taken for a path below its cgroups: ``/jobs/a/memory.max``.  A URL says
    which tree it is, whatever engine is named.
    """
    if is_url(path):
        url, inner = split_url(path)
        return open_url(url), _in_tree(inner)
    if engine is None and _file_system(path) in _FILES:
        return DirectoryRoot(), os.path.abspath(path)
    return open_engine(engine), _in_tree(path)


def _in_tree(path: str) -> str:
    inner = path.lstrip("/")
    return f"/{inner}" if inner.partition("/")[0] in _TOP else f"/cgroup/{inner}"


def open_cgroup(path: str, engine: str | None) -> Cgroup:
    """Return a cgroup by its path, with the rules of :func:`open_path`.  It need not exist.

    Raises
    ------
    OSError
        As :func:`open_engine`; EOPNOTSUPP for a cgroup of version 1; what connecting to a URL gave.
    """
    if is_url(path):
        url, inner = split_url(path)
        return Cgroup(open_url(url), f"/cgroup{inner.rstrip('/')}", path.rstrip("/"))
    found = None if engine is not None else _file_system(path)
    if found == "cgroup":
        raise os_error(
            errno.EOPNOTSUPP, "cgroups of version 1 have no memory.reclaim: boot with the unified hierarchy", path
        )
    if found in _CGROUPS:
        where = os.path.abspath(path)
        return Cgroup(DirectoryRoot(), where, where)
    return _in_engine(path, find(engine))


def open_cgroups(path: str, engine: str | None) -> list[Cgroup]:
    """Return a cgroup, as :func:`open_cgroup`; of every engine, when there are several and none is named.

    Their names begin with the engine's then: ``1234:/jobs``.
    """
    if engine is None and not is_url(path) and _file_system(path) not in _CGROUPS:
        served = [entry for entry in engines() if entry.socket is not None]
        if len(served) > 1:
            return [_in_engine(path, entry, prefix=f"{entry.name}:") for entry in served]
    return [open_cgroup(path, engine)]


def _in_engine(path: str, entry: Entry, prefix: str = "") -> Cgroup:
    name = f"/{path.strip('/')}"
    return Cgroup(_socket_of(entry), f"/cgroup{name.rstrip('/')}", f"{prefix}{name}", entry.pid)


def _file_system(path: str) -> str | None:
    """Return the type of the innermost mount that a path is in, of those known here; it need not exist."""
    real = Path(os.path.realpath(path))
    for directory in (real, *real.parents):
        if (found := mounted_type(directory)) is not None:
            return found
    return None
