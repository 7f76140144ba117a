"""Real seccomp filters for a child process: one that refuses userfaultfd, system call and device alike, or filters."""

import ctypes
import os
import platform
import struct

# include/uapi/linux/{seccomp,audit,filter}.h and arch/*/entry/syscalls
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_USERFAULTFD_IOC_NEW = 0xAA00
#: machine -> numbers of userfaultfd, ioctl and seccomp
_NUMBERS = {"x86_64": (323, 16, 317), "aarch64": (282, 29, 277), "riscv64": (282, 29, 277)}


def can_refuse() -> bool:
    """Whether the numbers of this machine are known."""
    return platform.machine() in _NUMBERS


def refuse_userfaultfd(errno: int) -> None:
    """Have userfaultfd fail with an errno in this process, for good."""
    userfaultfd, ioctl, _ = _NUMBERS[platform.machine()]
    _install(
        [
            (_LOAD, 0, 0, 0),  # seccomp_data.nr
            (_JUMP_IF_EQUAL, 4, 0, userfaultfd),
            (_JUMP_IF_EQUAL, 0, 2, ioctl),
            (_LOAD, 0, 0, 24),  # lower half of args[1], on a little-endian machine
            (_JUMP_IF_EQUAL, 1, 0, _USERFAULTFD_IOC_NEW),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _ERRNO | errno),
        ]
    )


def refuse_seccomp(errno: int) -> None:
    """Have further filters fail with an errno in this process, for good."""
    seccomp = _NUMBERS[platform.machine()][2]
    _install(
        [
            (_LOAD, 0, 0, 0),
            (_JUMP_IF_EQUAL, 1, 0, seccomp),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _ERRNO | errno),
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
