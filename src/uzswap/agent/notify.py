"""The service manager: sd_notify(3), a datagram to the socket that NOTIFY_SOCKET names."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

__all__ = ["notify", "watchdog_interval"]


def notify(text: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell the service manager something, such as ``READY=1``; whether there is one that was told.  Never an error."""
    where = environment.get("NOTIFY_SOCKET", "")
    if not where.startswith(("/", "@")):
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.connect("\0" + where[1:] if where.startswith("@") else where)
        # A manager that does not listen holds up nobody: the next beat comes soon.
        to.send(text.encode(), socket.MSG_DONTWAIT)
        return True
    return False


def watchdog_interval(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return seconds from one ``WATCHDOG=1`` to the next, half of what the manager waits; None when it does not."""
    text = environment.get("WATCHDOG_USEC", "")
    meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(text) / 2e6 if meant and text.isdecimal() and int(text) > 0 else None
