"""What this machine offers an engine: libraries, memory, a swap file, userfaultfd, FUSE."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import errno
import fcntl
import importlib.machinery
import importlib.util
import os
import platform
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from uzswap.arrays.arena import refusal
from uzswap.core.boundary.engine import Engine
from uzswap.core.boundary.heap import CAN_TRIM
from uzswap.core.boundary.memory import Memory
from uzswap.devices import open_swap
from uzswap.devices.cipher import make_keys
from uzswap.devices.place import IN_MEMORY, file_system_type
from uzswap.probes.finding import Finding, Level, reason
from uzswap.units import PAGE_SIZE, format_size


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


# userfaultfd ----------------------------------------------------------------------------------------------------------

#: __NR_userfaultfd (arch/*/entry/syscalls/*.tbl and asm-generic/unistd.h).
_SYSCALL = {"x86_64": 323, "aarch64": 282, "riscv64": 282, "ppc64le": 364, "s390x": 355}
# include/uapi/linux/userfaultfd.h
_UFFD_USER_MODE_ONLY = 1
_USERFAULTFD_IOC_NEW = 0xAA00
_UFFDIO_API = 0xC018AA3F
_UFFD_API = 0xAA
_UFFD_FEATURE_SIGBUS = 1 << 7
_UFFD_FEATURE_MOVE = 1 << 16
# arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/linux/seccomp.h
_SECCOMP = 317
_SECCOMP_GET_ACTION_AVAIL = 2
_SECCOMP_RET_TRAP = 0x30000


def _uffd_by_syscall(flags: int) -> int:
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"number of userfaultfd unknown on {platform.machine()}")
    fd = _libc().syscall(ctypes.c_long(number), ctypes.c_int(os.O_CLOEXEC | flags))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(fd)


def _uffd_by_device() -> int:
    device = os.open("/dev/userfaultfd", os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(device, _USERFAULTFD_IOC_NEW, os.O_CLOEXEC)
    finally:
        os.close(device)


def userfaultfd() -> list[Finding]:
    """Which kind of userfaultfd this user gets, and whether it can move pages."""
    what = "userfaultfd"
    refusals: list[str] = []
    ways: tuple[tuple[str, Level, Callable[[], int]], ...] = (
        ("syscall, all faults", Level.OK, lambda: _uffd_by_syscall(0)),
        ("/dev/userfaultfd, all faults", Level.OK, _uffd_by_device),
        ("user-mode faults only", Level.LIMITED, lambda: _uffd_by_syscall(_UFFD_USER_MODE_ONLY)),
    )
    for how, level, make in ways:
        try:
            fd = make()
        except OSError as error:
            refusals.append(f"{how}: {reason(error)}")
            continue
        try:
            fix = "" if level is Level.OK else "sudo sysctl vm.unprivileged_userfaultfd=1"
            return [Finding(what, level, f"{how}{_sysctl()}", fix), _move(fd)]
        finally:
            os.close(fd)
    if any("ENOSYS" in refusal for refusal in refusals):
        fix = "a kernel with CONFIG_USERFAULTFD (in a container: docker run --security-opt seccomp=unconfined)"
    else:
        fix = "sudo sysctl vm.unprivileged_userfaultfd=1"
    return [Finding(what, Level.MISSING, "; ".join(refusals), fix)]


def kernel_waits() -> bool:
    """Whether this user gets faults of the kernel's own accesses, so that system calls find all pages."""
    ways: tuple[Callable[[], int], ...] = (lambda: _uffd_by_syscall(0), _uffd_by_device)
    for make in ways:
        with contextlib.suppress(OSError):
            os.close(make())
            return True
    return False


def arrays() -> Finding:
    """Which mode the paged arrays of this user have, found out by opening such memory."""
    what = "numpy arrays"
    fix = "sudo sysctl vm.unprivileged_userfaultfd=1"
    core = Engine()
    try:
        memory = Memory(core)
        info = memory.info()
        memory.close()
    except OSError as error:
        told = refusal(error)
        return Finding(what, Level.MISSING, f"{errno.errorcode.get(told.errno or 0, '?')}: {told.strerror}", fix)
    finally:
        core.close()
    if info.calls_trapped == 1:
        text = "user mode only: system calls into arrays are trapped, so that they work; setuid programs do not"
        return Finding(what, Level.LIMITED, text, fix)
    if info.user_mode_only:
        text = "user mode only: system calls into an array need uzswap.resident(array) around them, else EFAULT"
        text += f"; they cannot be trapped (seccomp: {os.strerror(-info.calls_trapped)}), so uzswap run manages none"
        return Finding(what, Level.LIMITED, text, fix)
    return Finding(what, Level.OK, "full mode: system calls into arrays work as well")


def signal_faults() -> Finding:
    """Whether faults can be served by a handler of SIGBUS; nothing of the process is changed to find out."""
    what, fix = 'faults="signal"', 'Zswap(faults="thread"), the default'
    if platform.machine() != "x86_64":
        return Finding(what, Level.LIMITED, f"x86-64 only, this is {platform.machine()}", fix)
    try:
        fd = _uffd_by_syscall(_UFFD_USER_MODE_ONLY)
        try:
            features = _features(fd)
        finally:
            os.close(fd)
    except OSError as error:
        return Finding(what, Level.LIMITED, f"userfaultfd: {reason(error)}", fix)
    for name, bit in (("SIGBUS", _UFFD_FEATURE_SIGBUS), ("MOVE", _UFFD_FEATURE_MOVE)):
        if not features & bit:
            return Finding(what, Level.LIMITED, f"this kernel's userfaultfd has no {name}", fix)
    action = ctypes.c_uint32(_SECCOMP_RET_TRAP)
    asked = (ctypes.c_long(_SECCOMP), ctypes.c_uint(_SECCOMP_GET_ACTION_AVAIL), ctypes.c_uint(0))
    if _libc().syscall(*asked, ctypes.byref(action)):
        code = ctypes.get_errno()
        return Finding(what, Level.LIMITED, f"seccomp: {reason(OSError(code, os.strerror(code)))}", fix)
    return Finding(what, Level.OK, "can be had: random access without the switch to a serving thread")


def _sysctl() -> str:
    try:
        return f"; vm.unprivileged_userfaultfd = {Path('/proc/sys/vm/unprivileged_userfaultfd').read_text().strip()}"
    except OSError:
        return ""


def _features(fd: int) -> int:
    # Asked with no feature, the handshake answers with all that the kernel has.
    answer = bytearray(struct.pack("=QQQ", _UFFD_API, 0, 0))
    fcntl.ioctl(fd, _UFFDIO_API, answer)
    return int(struct.unpack("=QQQ", answer)[1])


def _move(fd: int) -> Finding:
    try:
        features = _features(fd)
    except OSError as error:
        return Finding("UFFDIO_MOVE", Level.MISSING, f"UFFDIO_API: {reason(error)}", "a newer kernel")
    if features & _UFFD_FEATURE_MOVE:
        return Finding("UFFDIO_MOVE", Level.OK, f"features 0x{features:x}")
    return Finding("UFFDIO_MOVE", Level.MISSING, f"features 0x{features:x} lack MOVE (bit 16)", "a newer kernel")


# FUSE -----------------------------------------------------------------------------------------------------------------


def fuse() -> Finding:
    """Everything a mount needs: the device, the mount helper, the library and its Python binding."""
    have: list[str] = []
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
        have.append("/dev/fuse")
    except OSError as error:
        if error.errno == errno.EACCES:
            fix = "sudo chmod a+rw /dev/fuse"
        else:
            fix = "sudo modprobe fuse (in a container: docker run --device /dev/fuse --cap-add SYS_ADMIN)"
        return Finding("FUSE", Level.MISSING, f"/dev/fuse: {reason(error)}", fix)
    helper = shutil.which("fusermount3")
    if helper is None:
        return Finding("FUSE", Level.MISSING, "fusermount3 is not on PATH", "sudo apt-get install fuse3")
    have.append(helper)
    library = ctypes.util.find_library("fuse3")
    if library is None:
        return Finding("FUSE", Level.MISSING, "libfuse3 not found", "sudo apt-get install fuse3")
    have.append(library)
    if importlib.util.find_spec("mfusepy") is None:
        return Finding("FUSE", Level.LIMITED, ", ".join(have), "pip install 'uzswap[fuse]'")
    return Finding("FUSE", Level.OK, ", ".join([*have, "mfusepy"]))


# The swap file --------------------------------------------------------------------------------------------------------

_FALLOC_FL_KEEP_SIZE_PUNCH_HOLE = 0x3


def swap_file(nbytes: int) -> list[Finding]:
    """Make the swap file that ``Zswap(swap="auto")`` would make: its place, its room, direct I/O, hole punching."""
    elsewhere = "set TMPDIR to a directory on a disk, or give Zswap(swap=PATH)"
    try:
        file = open_swap("auto", nbytes)
    except OSError as error:
        return [Finding("swap file", Level.MISSING, str(error), elsewhere, required=True)]
    assert file is not None
    with contextlib.closing(file):
        directory = os.path.dirname(file.path)
        kind = file_system_type(directory)
        room = os.fstatvfs(file.fd)
        free = room.f_bavail * room.f_frsize
        detail = f"in {directory} on {kind}, {format_size(free)} free"
        if kind in IN_MEMORY:
            found = Finding("swap file", Level.LIMITED, f"{detail}: that is RAM", elsewhere)
        elif free < 1 << 30:
            found = Finding("swap file", Level.LIMITED, detail, elsewhere)
        else:
            found = Finding("swap file", Level.OK, detail)
        if file.direct:
            direct = Finding("O_DIRECT", Level.OK, f"works in {directory}")
        else:
            direct = Finding("O_DIRECT", Level.LIMITED, f"refused in {directory}: buffered writes instead", elsewhere)
        return [found, direct, _punch_hole(file.fd, elsewhere)]


def _punch_hole(fd: int, elsewhere: str) -> Finding:
    what = "FALLOC_FL_PUNCH_HOLE"
    mode, offset, length = ctypes.c_int(_FALLOC_FL_KEEP_SIZE_PUNCH_HOLE), ctypes.c_int64(0), ctypes.c_int64(PAGE_SIZE)
    if _libc().fallocate64(fd, mode, offset, length) == 0:
        return Finding(what, Level.OK, "works: what is free goes back to the file system")
    code = ctypes.get_errno()
    return Finding(
        what, Level.LIMITED, f"{reason(OSError(code, os.strerror(code)))}; the file never shrinks", elsewhere
    )


# Memory and libraries -------------------------------------------------------------------------------------------------


def memory() -> Finding:
    """RAM of the machine."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(fields[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    return Finding("RAM", Level.OK, f"{format_size(available)} of {format_size(total)} available")


def huge_pages() -> Finding:
    """Transparent huge pages: they make the first touch of pool memory cheaper."""
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    fix = f"echo madvise | sudo tee {path}"
    try:
        text = path.read_text().strip()
    except OSError as error:
        return Finding("transparent huge pages", Level.LIMITED, f"{path}: {reason(error)}", "")
    if "[never]" in text:
        return Finding("transparent huge pages", Level.LIMITED, text, fix)
    return Finding("transparent huge pages", Level.OK, text)


def heap() -> Finding:
    """Whether the C library gives back what objects leave."""
    if CAN_TRIM:
        return Finding("memory of objects", Level.OK, "goes back to the system (malloc_trim)")
    text = "the C library has no malloc_trim: RSS stays where it is when values are reclaimed"
    return Finding("memory of objects", Level.LIMITED, text, "a system with glibc")


def encryption() -> Finding:
    """Whether what is on the swap device can be encrypted."""
    what = "encryption"
    with contextlib.closing(Engine()) as engine:
        failed = make_keys(engine)
    if not failed:
        return Finding(what, Level.OK, "AES-256-GCM, with keys in locked memory")
    named = "a swap file with a name, or a device, needs encrypt=False"
    if failed == -errno.EPERM:
        return Finding(what, Level.LIMITED, f"keys cannot be locked in memory: {named}", "ulimit -l 64")
    return Finding(what, Level.LIMITED, f"no libcrypto: {named}", "install OpenSSL: apt-get install libssl3")


def core() -> Finding:
    """The compiled data plane."""
    what, fix = "compiled core", "pip install --force-reinstall uzswap"
    spec = importlib.util.find_spec("uzswap.core.boundary.engine")
    origin = (spec and spec.origin) or ""
    if not origin.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)):
        return Finding(what, Level.MISSING, "uzswap.core.boundary.engine is not compiled", fix, required=True)
    try:
        module = importlib.import_module("uzswap.core.boundary.engine")
        with contextlib.closing(module.Engine()):
            pass
    except (ImportError, MemoryError) as error:
        return Finding(what, Level.MISSING, str(error), fix, required=True)
    return Finding(what, Level.OK, os.path.basename(origin))


def compressors() -> list[Finding]:
    """The libraries that the core is linked to: the system's, or those inside the wheel."""
    rows = (line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines())
    mapped = {Path(row[5]) for row in rows if len(row) == 6}
    findings = []
    for name, function in ("liblz4", "LZ4_versionString"), ("libzstd", "ZSTD_versionString"):
        for library in (path for path in mapped if path.name.startswith(name)):
            version = getattr(ctypes.CDLL(str(library)), function)
            version.restype = ctypes.c_char_p
            place = ", inside the wheel" if library.parent.name == "uzswap.libs" else ""
            findings.append(Finding(name, Level.OK, f"{library.name}, {version().decode()}{place}"))
    return findings
