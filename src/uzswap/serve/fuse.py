"""The control tree as a mount: ``z.mount(path)``.

libfuse runs its threads in this process, and each system call on the mount becomes a call of :class:`_Operations`.
An error keeps its errno all the way.  What is particular:

- *Long writes.*  Each request has a thread of its own, so a reclaim holds up no other file.  When the process that
  writes gets a signal, the kernel tells libfuse, and the request ends with EINTR between two batches.
- *Polls.*  A request must not wait, so a poll says what is known now, and the kernel is told when that changes.
- *Nothing is cached*, neither names nor contents: a cgroup can be made or removed by other ways at any time.
- *A process that uses its own mount* can be killed: /dev/fuse is in a table of descriptors of its own, see
  :mod:`uzswap.core.boundary.relay`.  So libfuse, which does not mount and unmount here either, is given a socket for
  it.
- *The end.*  libfuse leaves its loop when it is told to, and looks when it is woken: by the end of that socket.

libfuse was made to own its process.  It changes the working directory and the handlers of some signals (its
fuse_daemonize and fuse_set_signal_handlers), which is undone here.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import functools
import itertools
import logging
import os
import select
import signal
import socket
import stat as st
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from uzswap.client.mounts import attach, is_stale, mounted_on, prepare, take_away
from uzswap.core.boundary.relay import Relay
from uzswap.core.boundary.thread_state import keep_thread_state
from uzswap.engine.lifetime import on_fork
from uzswap.errors import os_error
from uzswap.locks import Order, make_condition, make_lock
from uzswap.serve.peer import is_privileged
from uzswap.serve.virtual_tree import ControlTree, Directory, File, Node, OpenFile
from uzswap.serve.watch import Watch
from uzswap.signals import on_behalf_of
from uzswap.threads import start_thread

if TYPE_CHECKING:
    from uzswap.files.view import EngineView

try:
    import mfusepy
except ImportError as error:
    raise ImportError("a mount needs mfusepy: pip install 'uzswap[fuse]'") from error
except OSError as error:
    raise ImportError("a mount needs libfuse: on Debian, apt install fuse3 libfuse3-3") from error

__all__ = ["Mount"]

_log = logging.getLogger(__name__)

#: what poll(2) says of every regular file (include/linux/poll.h, DEFAULT_POLLMASK)
_ALWAYS: Final = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
#: fuse_set_signal_handlers (libfuse, lib/fuse_signals.c)
_LIBFUSE_SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)
_CLONE_FS: Final = 0x200  # include/uapi/linux/sched.h
#: requests at a time, where libfuse limits them (10 by default): so many long writes would hold up the rest
_MOST_REQUESTS: Final = 1024
#: libfuse 3.14 complains on stderr about its own default
_IDLE_THREADS: Final = 10
#: bytes of the largest write that is not cut in two; any file refuses so much.  A packet of the relay holds it.
_MAX_WRITE: Final = 1 << 16
#: read with splice(2), which a socket of packets cannot (libfuse, fuse_common.h)
_CAP_SPLICE_READ: Final = 1 << 9

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libfuse: Final = mfusepy._libfuse
for _name in ("fuse_exit", "fuse_notify_poll", "fuse_pollhandle_destroy"):
    getattr(_libfuse, _name).argtypes = [ctypes.c_void_p]
#: void fuse_exit(struct fuse *), for who calls it without Python
_EXIT: Final = ctypes.cast(_libfuse.fuse_exit, ctypes.c_void_p).value or 0


class _Open(NamedTuple):
    """A descriptor on the mount."""

    node: File
    file: OpenFile


class _Operations(mfusepy.Operations):  # type: ignore[misc]
    """What libfuse calls, in many threads; ``fh`` numbers what is open, and with it ``path`` is None.

    What is called most keeps the state that Python has of libfuse's thread: every thread does it sooner or later.
    """

    use_ns = True
    # The path of an open file means nothing: its cgroup may be gone, and another may have its name.
    flag_nopath = True
    flag_nullpath_ok = True

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self._tree = mount.tree
        self._since = time.time_ns()
        self._uid, self._gid = os.getuid(), os.getgid()
        self._numbers = itertools.count(1)
        self.open_files: dict[int, _Open] = {}
        self.open_directories: dict[int, Directory] = {}
        self._watch = Watch(mount.tree.cgroups)

    def init_with_config(self, conn_info: Any, config_3: Any) -> None:
        conn_info.max_write = _MAX_WRITE
        conn_info.want &= ~_CAP_SPLICE_READ
        self._mount.started()

    def destroy(self, path: str) -> None:
        self._mount.ending()
        self._watch.close()
        for opened in self.open_files.values():
            opened.file.close()
        self.open_files.clear()

    # Names

    def getattr(self, path: str | None, fh: int | None = None) -> dict[str, int]:
        keep_thread_state()
        node: Node
        if path is not None:
            node = self._tree.lookup(path)
        else:
            assert fh is not None
            node = self.open_directories.get(fh) or self.open_files[fh].node
        kind, links = (st.S_IFDIR, 2 + node.nr_directories()) if isinstance(node, Directory) else (st.S_IFREG, 1)
        return {
            "st_mode": kind | node.mode,
            "st_ino": node.inode,
            "st_nlink": links,
            "st_uid": self._uid,
            "st_gid": self._gid,
            "st_blksize": 4096,
            "st_atime": self._since,
            "st_mtime": self._since,
            "st_ctime": self._since,
        }

    def opendir(self, path: str) -> int:
        directory = self._tree.directory(path)
        number = next(self._numbers)
        self.open_directories[number] = directory
        return number

    def releasedir(self, path: str | None, fh: int) -> int:
        del self.open_directories[fh]
        return 0

    def readdir(self, path: str | None, fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        directory = self.open_directories[fh]
        yield from ((name, {"st_mode": st.S_IFDIR, "st_ino": directory.inode}, 0) for name in (".", ".."))
        for name, node in directory.nodes():
            kind = st.S_IFDIR if isinstance(node, Directory) else st.S_IFREG
            yield name, {"st_mode": kind, "st_ino": node.inode}, 0

    def mkdir(self, path: str, mode: int) -> int:
        self._tree.mkdir(path)
        return 0

    def rmdir(self, path: str) -> int:
        self._tree.rmdir(path)
        return 0

    # What directories of the kernel's own file systems cannot do either

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        raise os_error(errno.EACCES, "files cannot be made", path)

    def mknod(self, path: str, mode: int, dev: int) -> int:
        raise os_error(errno.EPERM, "files cannot be made", path)

    def unlink(self, path: str) -> int:
        raise os_error(errno.EPERM, "files cannot be removed: remove their cgroup", path)

    def rename(self, old: str, new: str) -> int:
        raise os_error(errno.EPERM, "nothing can be renamed", old)

    def link(self, target: str, source: str) -> int:
        raise os_error(errno.EPERM, "links cannot be made", target)

    def symlink(self, target: str, source: str) -> int:
        raise os_error(errno.EPERM, "links cannot be made", target)

    def chmod(self, path: str, mode: int) -> int:
        raise os_error(errno.EPERM, "modes are what they are", path)

    def chown(self, path: str, uid: int, gid: int) -> int:
        raise os_error(errno.EPERM, "everything belongs to the owner of the engine", path)

    # Files

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> int:
        # The shell's > asks for it.  What a write then does is up to the file.
        return 0

    def utimens(self, path: str | None, times: tuple[int, int] | None = None) -> int:
        return 0

    def open(self, path: str, flags: int) -> int:
        node = self._tree.file(path)
        access = flags & os.O_ACCMODE
        writing = access != os.O_RDONLY
        node.check_access(reading=access != os.O_WRONLY, writing=writing)
        privileged = is_privileged(mfusepy.fuse_get_context()[2]) if writing and node.type.writes_per_open else None
        number = next(self._numbers)
        opened = node.open(nonblock=bool(flags & os.O_NONBLOCK), privileged=privileged)
        self.open_files[number] = _Open(node, opened)
        return number

    def release(self, path: str | None, fh: int) -> int:
        opened = self.open_files.pop(fh)
        self._watch.drop(fh)
        opened.file.close()
        return 0

    def read(self, path: str | None, size: int, offset: int, fh: int) -> bytes:
        keep_thread_state()
        return self.open_files[fh].file.read(size, offset)

    def write(self, path: str | None, data: bytes, offset: int, fh: int) -> int:
        with on_behalf_of(self._interrupted):
            return self.open_files[fh].file.write(data)

    def _interrupted(self) -> bool:
        """Whether the process that this thread serves got a signal, or the mount is being closed."""
        return self._mount.closing or bool(_libfuse.fuse_interrupted())

    def poll(self, path: str | None, fh: int, ph: int | None, reventsp: Any) -> int:
        opened = self.open_files[fh]
        if ph:
            self._watch.add(fh, opened.file.file, functools.partial(_answer_poll, ph))
        reventsp[0] = _ALWAYS
        if opened.file.file.ready():
            reventsp[0] |= opened.file.file.poll(0)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        return {"f_bsize": 4096, "f_frsize": 4096, "f_namemax": 255}


def _answer_poll(handle: int, news: bool) -> None:
    """Tell the kernel, if there is something to tell, and let go of libfuse's handle of the poll."""
    if news:
        _libfuse.fuse_notify_poll(handle)
    _libfuse.fuse_pollhandle_destroy(handle)


class Mount:
    """The control tree, mounted.  Made by ``z.mount(path)``; a context manager.

    Parameters
    ----------
    engine
        Whose control files are mounted.
    path
        An empty directory; made, and removed in the end, when there is none.
    allow_other
        Let other users in, as far as the modes of the files allow: they can read.  Unless root mounts, it needs
        ``user_allow_other`` in /etc/fuse.conf.
    closed
        Called at the end of :meth:`close`.

    Raises
    ------
    OSError
        EBUSY something is mounted there; ENOTDIR, ENOTEMPTY it is no empty directory; EACCES /dev/fuse cannot be used;
        EPERM it may not be mounted there; EAGAIN no thread can be had; EIO libfuse cannot serve it, and has said why on
        stderr.

    Notes
    -----
    Only the owner of the process gets in; everybody else, also root, gets EACCES from the kernel.  Unmounting takes
    nothing from the engine, and the tree can be mounted again, or in several places.
    """

    def __init__(
        self,
        engine: EngineView,
        path: str | os.PathLike[str],
        *,
        allow_other: bool = False,
        closed: Callable[[], object] = lambda: None,
    ) -> None:
        self.path = Path(os.path.abspath(path))
        self.tree = ControlTree(engine)
        self.closing = False
        self._told_closed = closed
        self._operations = _Operations(self)
        self._fuse: int | None = None
        self._device = -1
        self._error: BaseException | None = None
        self._changed = make_condition(Order.MOUNT_STATE)
        self._ended = False
        self._lock = make_lock(Order.MOUNT)
        self._made_directory = prepare(self.path)
        #: what libfuse takes over, as it was before
        self._dispositions: dict[int, ctypes.Array[ctypes.c_char]] = {}
        try:
            self._begin(allow_other)
        except BaseException:
            self._remove_directory()
            raise
        on_fork(self, Mount._forked)
        # An engine that nobody closed: a mount without a server would be left.
        atexit.register(self.close)

    def __enter__(self) -> Mount:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Mount {self.path}{'' if self.mounted else ' (unmounted)'}>"

    @property
    def mounted(self) -> bool:
        """Whether it is served.  False after :meth:`close`, and when somebody else has unmounted it."""
        return not self._ended

    def close(self) -> None:
        """Unmount.  Requests under way end with EINTR; files that others have open give ENOTCONN afterwards.

        Calling it again does nothing, also in a forked child.
        """
        with self._lock:
            if self.closing:
                return
            self.closing = True
            self._end()
            self._thread.join()
            self._unmount_own()
            self._remove_directory()
            atexit.unregister(self.close)
        self._told_closed()

    def started(self) -> None:
        """Called by libfuse's first request, when all is set up."""
        for number, action in self._dispositions.items():
            _libc.sigaction(number, action, None)
        fuse = _libfuse.fuse_get_context().contents.fuse
        self._relay.tell(_EXIT, fuse)
        with self._changed:
            self._fuse = fuse
            self._changed.notify_all()

    def ending(self) -> None:
        """Called when libfuse is about to free what it has."""
        self._relay.tell(0, 0)
        with self._changed:
            self._fuse = None

    def _begin(self, allow_other: bool) -> None:
        """Mount, and serve it."""
        device = attach(self.path, allow_other=allow_other)
        self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._relay = Relay(device, its.fileno())
        except BaseException:
            os.close(device)
            its.close()
            self._unmount()
            self._socket.close()
            raise
        its.detach()
        try:
            self._thread = start_thread("uzswap-fuse", self._serve, allow_other)
        except BaseException:
            self._hang_up()
            self._unmount()
            raise
        with self._changed:
            self._changed.wait_for(lambda: self._fuse is not None or self._ended)
        if self._ended:
            self._unmount()
            raise os_error(errno.EIO, f"libfuse cannot serve it ({self._error}), stderr says why", str(self.path))
        self._device = os.stat(self.path).st_dev

    def _end(self) -> None:
        """Unmount, and have libfuse leave its loop when the requests under way are answered."""
        # It may fail for now: no descriptor is free, or the program closed them all, and libfuse, which closes its own
        # a second time, closes the one that was opened here.
        with contextlib.suppress(OSError):
            self._unmount_own()
        # The lock keeps libfuse from freeing it meanwhile: see ending().
        with self._changed, contextlib.suppress(OSError):
            if self._fuse is not None:
                _libfuse.fuse_exit(self._fuse)
                self._socket.shutdown(socket.SHUT_RD)

    def _unmount_own(self) -> None:
        """Unmount, unless somebody else was faster."""
        there = mounted_on(self.path)
        if there is not None and there.device == self._device:
            self._unmount()

    def _unmount(self) -> None:
        with contextlib.suppress(OSError):
            take_away(self.path)

    def _hang_up(self) -> None:
        """Close /dev/fuse: whoever still uses the mount, by a file that is open or a lazy unmount, gets ENOTCONN."""
        with contextlib.suppress(OSError):  # the program closed it
            self._socket.shutdown(socket.SHUT_RDWR)
        self._relay.join()
        with contextlib.suppress(OSError):
            self._socket.close()

    def _serve(self, allow_other: bool) -> None:
        options: dict[str, Any] = {"allow_other": True} if allow_other else {}
        if (mfusepy.fuse_version_major, mfusepy.fuse_version_minor) >= (3, 12):
            options |= {"max_threads": _MOST_REQUESTS, "max_idle_threads": _IDLE_THREADS}
        # The working directory that libfuse changes to / shall be this thread's, and its threads', alone.
        _libc.unshare(_CLONE_FS)
        self._dispositions = {number: _disposition(number) for number in _LIBFUSE_SIGNALS}
        try:
            mfusepy.FUSE(
                self._operations,
                f"/dev/fd/{os.dup(self._socket.fileno())}",  # libfuse closes it
                foreground=True,
                direct_io=True,
                use_ino=True,
                attr_timeout=0,
                entry_timeout=0,
                negative_timeout=0,
                **options,
            )
        except BaseException as error:  # whatever it is, the engine lives on
            self._error = error
        finally:
            self._hang_up()
            # A server that failed, or whose connection was aborted, leaves its mount behind.
            if self._device != -1 and is_stale(self.path):
                _log.error("%s: the mount is not served any more (%s); mount it again", self.path, self._error)
                with contextlib.suppress(OSError):
                    take_away(self.path)
            with self._changed:
                self._fuse = None
                self._ended = True
                self._changed.notify_all()

    def _remove_directory(self) -> None:
        if self._made_directory:
            self._made_directory = False
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def _forked(self) -> None:
        """In a forked child: the mount is the parent's.  The copies of its sockets do no harm."""
        atexit.unregister(self.close)
        self._lock = make_lock(Order.MOUNT)  # the parent's may never be free
        self.closing = self._ended = True
        self._socket.close()


def _disposition(number: int) -> ctypes.Array[ctypes.c_char]:
    """Return how a signal is handled: a struct sigaction, which is the platform's."""
    action = ctypes.create_string_buffer(256)  # more than any
    if _libc.sigaction(number, None, action):
        raise OSError(ctypes.get_errno(), "sigaction")
    return action
