"""Who is at the other end of a door, and what the kernel would let them do."""

from __future__ import annotations

import socket
import struct
from typing import Final

from uzswap.cgroup.trigger import has_cap_sys_resource

__all__ = ["is_privileged", "peer_of"]

_UCRED: Final = struct.Struct("3i")  # unix(7): pid, uid, gid


def peer_of(connection: socket.socket) -> int:
    """Return the process at the other end of a Unix socket; 0 when it cannot be seen from here, or for another kind."""
    if connection.family != socket.AF_UNIX:
        return 0
    pid: int = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
    return pid


def is_privileged(pid: int) -> bool:
    """Whether a client, not this process, has CAP_SYS_RESOURCE; never one that is gone or cannot be seen.

    Parameters
    ----------
    pid
        As the kernel tells it: 0 for a process in a PID namespace that cannot be seen from here.
    """
    try:
        return pid > 0 and has_cap_sys_resource(pid)
    except OSError:
        return False
