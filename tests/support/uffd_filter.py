"""Kill, refuse or hold chosen userfaultfd calls of this process: what can happen to a fault thread, for real.

    held = hold("COPY", "MOVE")
    threading.Thread(target=touch, daemon=True).start()
    held.wait()  # its fault is being served, and will be for as long as we like

A filter is for good, and for every thread of the process, those included that run already: use it in a child.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import struct
import threading
from typing import Final

#: The type and number of each ioctl: the low 16 bits of its request (linux/userfaultfd.h).
CALLS: Final = {
    "WAKE": 0xAA02,
    "COPY": 0xAA03,
    "ZEROPAGE": 0xAA04,
    "MOVE": 0xAA05,
    "WRITEPROTECT": 0xAA06,
    "POISON": 0xAA08,
}
#: What puts a page in place.
FILLING: Final = ("COPY", "ZEROPAGE", "MOVE")

# linux/seccomp.h
_SET_MODE_FILTER, _TSYNC, _NEW_LISTENER, _TSYNC_ESRCH = 1, 1, 8, 16
_ALLOW, _KILL_THREAD, _KILL_PROCESS, _ERRNO, _USER_NOTIF = 0x7FFF0000, 0, 0x80000000, 0x00050000, 0x7FC00000
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1
_NO_NEW_PRIVS = 38  # linux/prctl.h
# linux/filter.h: load a word; jump if equal; and; return
_LOAD, _EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
#: by machine: the system calls seccomp() and ioctl()
_NUMBERS: Final = {"x86_64": (317, 16), "aarch64": (277, 29)}


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


class Unsupported(Exception):
    """There is no seccomp here; the text says why."""


def _install(action: int, calls: tuple[str, ...], flags: int = 0) -> int:
    if platform.machine() not in _NUMBERS:
        raise Unsupported(f"the system call numbers of {platform.machine()} are not known to this test")
    seccomp, ioctl = _NUMBERS[platform.machine()]
    steps = [
        (_LOAD, 0, 0, 0),  # the system call
        (_EQUAL, 0, len(calls) + 2, ioctl),
        (_LOAD, 0, 0, 24),  # the low word of its second argument
        (_AND, 0, 0, 0xFFFF),
        *((_EQUAL, len(calls) - i, 0, CALLS[name]) for i, name in enumerate(calls)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, action),
    ]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    program = _Program(len(steps), code)
    result = libc.syscall(seccomp, _SET_MODE_FILTER, flags | _TSYNC, ctypes.byref(program))
    if result < 0:
        raise Unsupported(f"seccomp filters cannot be made here: {os.strerror(ctypes.get_errno())}")
    return int(result)


def kill_thread(*calls: str) -> None:
    """The thread that makes such a call dies, alone and without a word."""
    _install(_KILL_THREAD, calls)


def kill_process(*calls: str) -> None:
    """Such a call is the end of the process: SIGSYS."""
    _install(_KILL_PROCESS, calls)


def refuse(errno: int, *calls: str) -> None:
    """Such a call fails."""
    _install(_ERRNO | errno, calls)


class Held:
    """Calls that wait; see :func:`hold`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def wait(self) -> int:
        """Return the number of a waiting call as soon as there is one that was not returned before."""
        notification = bytearray(80)
        fcntl.ioctl(self._fd, _RECEIVE, notification)
        (number,) = struct.unpack_from("Q", notification)
        return int(number)

    def go_on(self, number: int) -> None:
        """Let a waiting call be made."""
        fcntl.ioctl(self._fd, _SEND, bytearray(struct.pack("QqiI", number, 0, 0, _CONTINUE)))

    def let_all_go_on(self) -> None:
        """Hold nothing any more."""

        def serve() -> None:
            while True:
                self.go_on(self.wait())

        threading.Thread(target=serve, daemon=True).start()


def hold(*calls: str) -> Held:
    """Such a call waits until it is let go on; whoever waits in it can be killed."""
    return Held(_install(_USER_NOTIF, calls, _NEW_LISTENER | _TSYNC_ESRCH))
