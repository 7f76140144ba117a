"""Real seccomp filters for a child process: they refuse userfaultfd (system call and device alike), or any one call."""

import ctypes
import os
import platform
import struct

# include/uapi/linux/{seccomp,audit,filter}.h and arch/*/entry/syscalls
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_USERFAULTFD_IOC_NEW = 0xAA00
#: machine -> numbers of calls by name
_CALLS = {
    "x86_64": {"io_getevents": 208, "close_range": 436, "clone3": 435, "seccomp": 317},
    "aarch64": {"io_getevents": 4, "close_range": 436, "clone3": 435, "seccomp": 277},
    "riscv64": {"io_getevents": 4, "close_range": 436, "clone3": 435, "seccomp": 277},
}
#: machine -> numbers of userfaultfd and ioctl
_NUMBERS = {"x86_64": (323, 16), "aarch64": (282, 29), "riscv64": (282, 29)}


def can_refuse() -> bool:
    """Whether the numbers of this machine are known."""
    return platform.machine() in _NUMBERS


def refuse_userfaultfd(errno: int) -> None:
    """Have userfaultfd fail with an errno in this process, for good."""
    userfaultfd, ioctl = _NUMBERS[platform.machine()]
    program = [
        (_LOAD, 0, 0, 0),  # seccomp_data.nr
        (_JUMP_IF_EQUAL, 4, 0, userfaultfd),
        (_JUMP_IF_EQUAL, 0, 2, ioctl),
        (_LOAD, 0, 0, 24),  # lower half of args[1], on a little-endian machine
        (_JUMP_IF_EQUAL, 1, 0, _USERFAULTFD_IOC_NEW),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno),
    ]
    _install(program)


def refuse(call: str, errno: int) -> None:
    """Have a system call fail with an errno in this thread, and those it makes, for good."""
    _install(
        [
            (_LOAD, 0, 0, 0),
            (_JUMP_IF_EQUAL, 0, 1, _CALLS[platform.machine()][call]),
            (_RETURN, 0, 0, _ERRNO | errno),
            (_RETURN, 0, 0, _ALLOW),
        ]
    )


def _install(program: list[tuple[int, int, int, int]]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    nothing = ctypes.c_ulong(0)
    for call in (
        (_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), nothing, nothing, nothing),
        (_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), header, nothing, nothing),
    ):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
