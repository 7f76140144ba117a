"""The swap file: made or opened, checked that it can be ours, and closed without leaving data behind.

What is stored on it means nothing to anybody after the engine is gone.  So by default the file has no name: the kernel
frees it with the process, also after ``kill -9``.  A named file or a block device can be given instead.  It is taken
only when it is empty, blank (zeros where file systems and other formats put their marks) or marked as ours: a mistyped
path must not cost anybody's data.

Nobody else can read it: a file is made with mode 0600 and refused when others have rights on it, and one engine holds
its lock.
"""

from __future__ import annotations

import errno
import fcntl
import io
import mmap
import os
import stat
import struct
import tempfile
from dataclasses import dataclass
from typing import Final

from uzswap.errors import InvalidArgumentError, os_error
from uzswap.swap.place import choose_directory
from uzswap.units import PAGE_SIZE, format_size

__all__ = ["MIN_SIZE", "SwapFile", "open_swap"]

MIN_SIZE: Final = 4 << 20  # four segments: one to fill, one to clean into, two to live in
#: The mark in the last page of a named device, so that it is known again after a crash.
_LABEL: Final = b"uzswap swap device, contents void\n"
#: File systems, partition tables and mkswap put their first mark within this; btrfs, at 64 KiB, is the last one to.
_MARKS: Final = 128 << 10
_BLKGETSIZE64: Final = 0x80081272  # include/uapi/linux/fs.h


@dataclass(slots=True)
class SwapFile:
    """An open swap device."""

    #: owns the descriptor, so that a forgotten one is closed, with a ResourceWarning
    file: io.FileIO
    #: where it is, or where it was made; for people
    path: str
    #: capacity in bytes: a cap, nothing is reserved
    nbytes: int
    #: opened with O_DIRECT
    direct: bool
    #: size to which a named file is brought back when it is closed; None for what has no name, and for block devices
    restore: int | None = None

    @property
    def fd(self) -> int:
        return self.file.fileno()

    def close(self) -> None:
        """Discard the contents and close.  Calling it again does nothing."""
        if self.file.closed:
            return
        with self.file:
            if self.restore is not None:
                self.file.truncate(0)
                self.file.truncate(self.restore)

    def abandon(self) -> None:
        """Close without touching the contents: in a forked child they are the parent's."""
        self.file.close()


def open_swap(swap: str | os.PathLike[str] | None, nbytes: int) -> SwapFile | None:
    """Open a swap device.

    Parameters
    ----------
    swap
        None for none, "auto" for a file without a name, or the path of a file (made when missing) or block device.
    nbytes
        Capacity.  A block device or a blank file of another size gives the smaller of the two.

    Raises
    ------
    InvalidArgumentError
        The capacity is below 4 MiB.
    OSError
        EBUSY another engine uses it; EEXIST it holds data that is not ours; EPERM others have rights on it; or what the
        system says, with the path.
    """
    if swap is None:
        return None
    if nbytes < MIN_SIZE:
        raise InvalidArgumentError(f"swap_size={nbytes} is too small: give at least {format_size(MIN_SIZE)}")
    if swap == "auto":
        return _unnamed(choose_directory(nbytes), nbytes)
    path = os.fspath(swap)
    # The directory may be somebody else's: what a link there points at is not what was named.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd, direct = _open(path, flags)
    try:
        _claim(fd, path)
        return _take(fd, path, nbytes, direct)
    except BaseException:
        os.close(fd)
        raise


def _open(path: str, flags: int) -> tuple[int, bool]:
    """Open with O_DIRECT where that works, else without.  The second value tells which."""
    try:
        fd = os.open(path, flags | os.O_DIRECT, 0o600)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags, 0o600), False
    if _direct_works(fd):
        return fd, True
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_DIRECT)
    return fd, False


def _direct_works(fd: int) -> bool:
    """Some file systems accept the flag and then refuse the I/O, or want larger blocks than we use."""
    with mmap.mmap(-1, PAGE_SIZE) as page:
        try:
            os.preadv(fd, [page], 0)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
    return True


def _unnamed(directory: str, nbytes: int) -> SwapFile:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        # With O_EXCL it can never be given a name.
        fd, direct = _open(directory, flags | os.O_TMPFILE | os.O_EXCL)
    except OSError as error:
        # open(2): what file systems and kernels without O_TMPFILE say
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            raise
        with tempfile.TemporaryDirectory(prefix="uzswap-", dir=directory) as private:
            path = os.path.join(private, "swap")
            fd, direct = _open(path, flags | os.O_CREAT | os.O_EXCL)
            os.unlink(path)
    try:
        os.ftruncate(fd, nbytes)
    except OSError as error:
        os.close(fd)
        raise _too_large(error, directory, nbytes) from None
    return SwapFile(io.FileIO(fd, "r+"), os.path.join(directory, "(unlinked)"), nbytes, direct)


def _claim(fd: int, path: str) -> None:
    """Make sure that the file is private and nobody else's swap device."""
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise os_error(errno.EPERM, f"others may access the swap file (mode {mode:04o}): chmod 600 it", path)
        if status.st_uid != os.geteuid():
            raise os_error(errno.EPERM, f"the swap file belongs to user {status.st_uid}: name one of your own", path)
    elif not stat.S_ISBLK(status.st_mode):
        raise os_error(errno.EINVAL, "a swap device is a regular file or a block device", path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise os_error(errno.EBUSY, "another engine uses this swap device: name another", path) from None


def _take(fd: int, path: str, nbytes: int, direct: bool) -> SwapFile:
    """Decide what the file's contents allow, size it, and mark it."""
    size = _size(fd, path)
    end = size // PAGE_SIZE * PAGE_SIZE
    ours = end > 0 and _read(fd, end - PAGE_SIZE, PAGE_SIZE).startswith(_LABEL)
    if size and not ours and any(_read(fd, 0, min(_MARKS, size))):
        raise os_error(
            errno.EEXIST, "it holds data: remove the file, or run wipefs on the device, if nobody wants it", path
        )
    is_file = stat.S_ISREG(os.fstat(fd).st_mode)
    restore = None
    if is_file:
        restore = 0 if ours else size
        nbytes = min(nbytes, size) if size and not ours else nbytes
    else:
        nbytes = min(nbytes, end - PAGE_SIZE)
    if nbytes < MIN_SIZE:
        raise InvalidArgumentError(
            f"{path} has {format_size(size)}: a swap device needs {format_size(MIN_SIZE)} at least"
        )
    nbytes -= nbytes % PAGE_SIZE
    if is_file:
        try:
            os.ftruncate(fd, 0)
            os.ftruncate(fd, nbytes + PAGE_SIZE)
        except OSError as error:
            raise _too_large(error, path, nbytes) from None
    _write_page(fd, nbytes if is_file else end - PAGE_SIZE, _LABEL)
    return SwapFile(io.FileIO(fd, "r+"), path, nbytes, direct, restore)


def _size(fd: int, path: str) -> int:
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        return status.st_size
    try:
        # The kernel grants this only while nothing on the device is mounted or otherwise in use.
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        raise os_error(error.errno or errno.EBUSY, "the block device is in use: unmount it first", path) from None
    (size,) = struct.unpack("Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))
    return int(size)


def _read(fd: int, offset: int, count: int) -> bytes:
    """Read with O_DIRECT's alignment: whole pages into a page-aligned buffer."""
    begin = offset // PAGE_SIZE * PAGE_SIZE
    with mmap.mmap(-1, -(-(offset + count - begin) // PAGE_SIZE) * PAGE_SIZE) as pages:
        got = os.preadv(fd, [pages], begin)
        return pages[offset - begin : min(got, offset - begin + count)]


def _write_page(fd: int, offset: int, content: bytes) -> None:
    with mmap.mmap(-1, PAGE_SIZE) as page:
        page[: len(content)] = content
        os.pwritev(fd, [page], offset)


def _too_large(error: OSError, path: str, nbytes: int) -> OSError:
    return os_error(
        error.errno or errno.EFBIG, f"no swap file of {format_size(nbytes)} can be made: give a smaller swap_size", path
    )
