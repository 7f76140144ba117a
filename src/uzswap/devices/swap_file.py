"""The swap file: made or opened, claimed for one engine, and closed without leaving data behind.

What is stored on it means nothing to anybody after the engine is gone.  So by default the file has no name: the kernel
frees it with the process, also after ``kill -9``.  A named file or a block device can be given instead, and contents.py
says which.

Nobody else can read it: a file is made with mode 0600 and refused when others have rights on it.  One engine has it: a
file by its lock, which every name of the file shares; a block device by the kernel's exclusive opening, for as long as
the engine lives, which also keeps mount, mkfs and swapon away, whichever node they are given.

What is written is compressed, and encrypted where cipher.py says so.  Closing erases it: a file is cut, what was
written to of a device reads zeros.  A process that was killed leaves noise there until the next engine takes the
device, which erases it first.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from uzswap.devices.contents import Label, device_size, may_be_taken, read_label, write_label, zero_device
from uzswap.devices.descriptor import Descriptor
from uzswap.devices.place import choose_directory
from uzswap.errors import InvalidArgumentError, os_error
from uzswap.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from uzswap.core.boundary.engine import Engine

__all__ = ["MIN_SIZE", "SwapFile", "open_block_device", "open_swap"]

MIN_SIZE: Final = 4 << 20  # four segments: one to fill, one to clean into, two to live in


@dataclass(slots=True)
class SwapFile:
    """An open swap device.

    Once :meth:`attach` gave it to an engine, that one's threads have a descriptor of their own: whatever the program
    does with its numbers, what is written, erased and closed is this device.
    """

    #: in the program's table, which may be cleared at any time
    file: Descriptor
    #: where it is, or where it was made; for people
    path: str
    #: capacity in bytes: a cap, nothing is reserved
    nbytes: int
    #: opened with O_DIRECT
    direct: bool
    #: tells what this engine wrote from what others did
    nonce: int = field(default_factory=lambda: int.from_bytes(os.urandom(8)))
    #: size to which a named file is brought back when it is closed; None for what has no name, and for block devices
    restore: int | None = None
    #: where a block device has its label
    label_at: int | None = None
    #: its first page is a label
    labelled: bool = False
    _engine: Engine | None = None
    _erased: bool = False

    @property
    def fd(self) -> int:
        return self.file.fileno()

    def attach(self, engine: Engine) -> None:
        """Give it to an engine.  OSError when that cannot take it."""
        error = engine.attach_device(
            self.fd,
            self.nbytes,
            self.direct,
            self.nonce,
            os.fsencode(self._directory_of_children()),
            PAGE_SIZE if self.labelled else 0,
        )
        if error:
            raise os_error(-error, "the swap device cannot be attached", self.path)
        self._engine = engine

    def _directory_of_children(self) -> str:
        """Where forked children make files of their own: beside this one, where that can be."""
        directory = os.path.dirname(self.path)
        beside = self.label_at is None and os.access(directory or ".", os.W_OK | os.X_OK)
        return os.path.abspath(directory or ".") if beside else choose_directory(self.nbytes)

    def erase(self) -> None:
        """Leave nothing of the contents behind.  What is stored is lost; the engine must still be open.

        Unless a forked child reads of it yet: then it is as with one that was killed, and the next engine that is given
        it erases it; none is, as long as that child lives.  Calling it again does nothing once it succeeded.

        Raises
        ------
        OSError
            The device fails.  What was written may still be there.
        """
        if self._erased or (self._engine is not None and self._engine.lent()):
            return
        if self.restore is not None:
            self._truncate(0)
            self._truncate(self.restore)
        elif self.label_at is not None and self._engine is not None:
            # Last the label: as long as it says "in use", the next engine erases.
            self._check(self._engine.wipe_device())
            self._check(self._engine.write_block(self.label_at, Label(self.nonce, 0).encode()))
        self._erased = True

    def _truncate(self, nbytes: int) -> None:
        if self._engine is not None:
            self._check(self._engine.truncate_device(nbytes))
        elif self.file.is_ours():
            os.ftruncate(self.fd, nbytes)

    def _check(self, error: int) -> None:
        if error:
            raise os_error(-error, "what was written to the swap device could not be erased", self.path)

    def close(self) -> None:
        """Close; erase first, unless an engine has it, which erases for itself.  Calling it again does nothing."""
        if self.file.closed:
            return
        try:
            if self._engine is None:
                self.erase()
        finally:
            self.file.close()

    def forked(self, came_along: bool) -> None:
        """In a forked child: the contents are the parent's, and not touched.

        An engine that came along has the descriptor, and makes a file without a name when it writes.
        """
        if came_along:
            self.file.give_up()
            self.path = os.path.join(self._directory_of_children(), "(unlinked)")
        else:
            self.file.close()
        self.restore = self.label_at = None


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
        EBUSY another engine uses it, or a block device is mounted or otherwise in use; EEXIST it holds data that is not
        ours, or may; EPERM others have rights on it; or what the system says, with the path.
    """
    if swap is None:
        return None
    if nbytes < MIN_SIZE:
        raise InvalidArgumentError(f"swap_size={nbytes} is too small: give at least {format_size(MIN_SIZE)}")
    if swap == "auto":
        return _unnamed(choose_directory(nbytes), nbytes)
    path = os.fspath(swap)
    fd, direct = _open_named(path)
    file = Descriptor(fd)
    try:
        _claim(fd, path)
        return _take(file, path, nbytes, direct)
    except BaseException:
        file.close()
        raise


def open_block_device(path: str) -> tuple[int, bool]:
    """Open a block device for nobody else to use; the second value tells whether O_DIRECT works."""
    try:
        # Without O_CREAT the kernel takes O_EXCL for a claim on the device, under all its names, with its partitions.
        return _open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        text = "the block device is in use: unmount it, or stop what uses it (lsblk, fuser)"
        raise os_error(errno.EBUSY, text, path) from None


def _open_named(path: str) -> tuple[int, bool]:
    # The directory may be somebody else's: what a link there points at is not what was named.
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        kind = stat.S_IFMT(os.lstat(path).st_mode)
    except FileNotFoundError:
        return _open(path, flags | os.O_CREAT | os.O_EXCL)
    if kind == stat.S_IFBLK:
        return open_block_device(path)
    if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        # Not even opened: some devices act on that.
        raise _neither(path)
    return _open(path, flags)


def _neither(path: str) -> OSError:
    return os_error(errno.EINVAL, "a swap device is a regular file or a block device", path)


def _open(path: str, flags: int) -> tuple[int, bool]:
    """Open with O_DIRECT where that works, else without.  The second value tells which."""
    fd = os.open(path, flags, 0o600)
    try:
        # Not at once: where it is refused (tmpfs before 6.6) the file has been made then, and O_EXCL meets it.
        plain = fcntl.fcntl(fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, plain | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return fd, False
        if _direct_works(fd):
            return fd, True
        fcntl.fcntl(fd, fcntl.F_SETFL, plain)
    except BaseException:
        os.close(fd)
        raise
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
    return SwapFile(Descriptor(fd), os.path.join(directory, "(unlinked)"), nbytes, direct)


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
        raise _neither(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise os_error(errno.EBUSY, "another engine uses this swap device: name another", path) from None


def _take(file: Descriptor, path: str, nbytes: int, direct: bool) -> SwapFile:
    """Decide what the file's contents allow, size it, and mark it."""
    fd = file.fileno()
    is_device = stat.S_ISBLK(os.fstat(fd).st_mode)
    size = device_size(fd) if is_device else os.fstat(fd).st_size
    label = read_label(fd, size)
    may_be_taken(fd, path, size, label, is_device)
    restore, label_at = None, None
    if is_device:
        label_at = size // PAGE_SIZE * PAGE_SIZE - PAGE_SIZE
        nbytes = _whole_pages(path, size, min(nbytes, label_at))
        if label is not None and label.nbytes:
            # Of an engine that was killed.
            zero_device(fd, 0, min(label.nbytes, label_at))
    else:
        restore = size if label is None else 0
        nbytes = _whole_pages(path, size, min(nbytes, restore) if restore else nbytes)
        try:
            os.ftruncate(fd, 0)
            os.ftruncate(fd, nbytes + PAGE_SIZE)
        except OSError as error:
            raise _too_large(error, path, nbytes) from None
    swap = SwapFile(file, path, nbytes, direct, restore=restore, label_at=label_at, labelled=True)
    for at in (0, nbytes if label_at is None else label_at):
        write_label(fd, at, Label(swap.nonce, nbytes))
    if is_device:
        # Records that came there without it would be somebody's data.
        os.fsync(fd)
    return swap


def _whole_pages(path: str, size: int, nbytes: int) -> int:
    if nbytes < MIN_SIZE:
        raise InvalidArgumentError(
            f"{path} has {format_size(size)}: a swap device needs {format_size(MIN_SIZE)} at least"
        )
    return nbytes - nbytes % PAGE_SIZE


def _too_large(error: OSError, path: str, nbytes: int) -> OSError:
    return os_error(
        error.errno or errno.EFBIG, f"no swap file of {format_size(nbytes)} can be made: give a smaller swap_size", path
    )
