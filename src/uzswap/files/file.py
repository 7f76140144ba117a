"""What a control file is, and what an open one is.

A :class:`FileType` is one row of the table in :mod:`uzswap.files.cgroup`: everything there is to know about a control
file, so that each adapter (Python, FUSE, HTTP, CLI, metrics) can be made from the table alone.  A :class:`ControlFile`
is one of them, open.  The rules that hold for all files (SPEC 6.1, 7.1) are here and nowhere else:

- A write is taken whole or not at all.  More than 4096 bytes are E2BIG, none at all have no effect.
- What is written is a C string: bytes from the first NUL on do not count.
- Reading what is write-only, or writing what is read-only, is EACCES.
- ENODEV once the cgroup is gone, also for what was opened before.
- An error names the file.
"""

from __future__ import annotations

import contextlib
import errno
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Literal, NamedTuple, Self, SupportsIndex, TypeVar

from uzswap.errors import os_error

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.cgroup.stat import Stat, Unit

__all__ = ["MAX_WRITE", "ControlFile", "FileType", "OpenFlags", "Session", "Shape"]

#: cgroup_kf_ops.atomic_write_len (kernel/cgroup/cgroup.c)
MAX_WRITE: Final = 4096

#: how the text of a file is made up
Shape = Literal[
    "value",  # one number
    "limit",  # one number, or "max"
    "flag",  # a boolean: 0 and 1, or N and Y
    "flat_keyed",  # "key value" lines
    "nested_keyed",  # "key name=value name=value" lines
    "list",  # words separated by blanks
    "histogram",  # "series sum=value bound=count" lines
    "table",  # a heading and rows
    "word",  # one word
    "json",  # one object of JSON, in a line
    "command",  # write-only
]

T = TypeVar("T")


class OpenFlags(NamedTuple):
    """How a file was opened."""

    #: as O_NONBLOCK
    nonblock: bool
    #: with CAP_SYS_RESOURCE; None for what this process has
    privileged: bool | None


@dataclass(frozen=True, slots=True)
class FileType(Generic[T]):
    """A control file of every target of type T: a cgroup, or the engine."""

    name: str
    #: one line, for people and API descriptions
    help: str
    shape: Shape
    #: of the numbers in it; keys that differ say so themselves
    unit: Unit = ""
    #: the number in it only grows
    counter: bool = False
    #: the keys of a file of key-value lines, in order
    keys: tuple[Stat, ...] = ()
    #: of a file of one number: the counters of the data plane whose sum it is
    sources: tuple[str, ...] = ()
    #: returns the text, newline included
    reader: Callable[[T], str] | None = None
    #: takes what was written, cut at the first NUL; raises OSError and changes nothing, or changes it all
    writer: Callable[[T, str], None] | None = None
    #: called after a write, except for O_NONBLOCK: brings the world in line with what was written
    enforce: Callable[[T], None] | None = None
    #: makes what belongs to one open file
    session: Callable[[FileType[T], T, OpenFlags], Session[T]] | None = None
    #: what is written belongs to the open file
    writes_per_open: bool = False
    #: the root cgroup has it too
    on_root: bool = True
    #: the tree's lock is held while it is read; if not, the reader takes it itself, for as long as it needs it
    locks: bool = True

    @property
    def writable(self) -> bool:
        return self.writer is not None or self.writes_per_open

    @property
    def mode(self) -> int:
        """Permission bits."""
        return (0o444 if self.reader else 0) | (0o200 if self.writable else 0)

    def read(self, target: T, owner: MemCgroup) -> str:
        """Open, read and close.  ``owner`` is the cgroup that the file is in, the root for files of the engine."""
        try:
            if self.reader is None:
                raise os_error(errno.EACCES, "this file cannot be read: write to it instead")
            if not self.locks:
                return self.reader(target)
            with owner.in_use():
                return self.reader(target)
        except OSError as error:
            self._name(error, owner)
            raise

    def open(
        self, target: T, owner: MemCgroup, *, nonblock: bool = False, privileged: bool | None = None
    ) -> ControlFile[T]:
        """Open the file; raises ENODEV when its cgroup is gone."""
        return ControlFile(self, target, owner, OpenFlags(nonblock, privileged))

    def path(self, owner: MemCgroup) -> str:
        """Return the file's path in the tree, for messages."""
        return f"{owner.path.rstrip('/')}/{self.name}"

    @contextmanager
    def naming(self, owner: MemCgroup) -> Iterator[None]:
        """Let an error that does not name anything name the file."""
        try:
            yield
        except OSError as error:
            self._name(error, owner)
            raise

    def _name(self, error: OSError, owner: MemCgroup) -> None:
        if error.filename is None:
            error.filename = self.path(owner)


class Session(Generic[T]):
    """What belongs to one open file; this one is for files where nothing does."""

    def __init__(self, filetype: FileType[T], target: T, flags: OpenFlags) -> None:
        self.type = filetype
        self.target = target

    def read(self) -> str:
        assert self.type.reader is not None
        return self.type.reader(self.target)

    def write(self, text: str) -> None:
        assert self.type.writer is not None
        self.type.writer(self.target, text)

    def poll(self, timeout: float | None) -> int:
        raise os_error(errno.EOPNOTSUPP, "nothing ever wakes a poll of this file: read it instead")

    def ready(self) -> bool:
        """Whether a poll would return at once.  Asking takes nothing away."""
        return False

    def close(self) -> None:
        pass


class ControlFile(Generic[T]):
    """An open control file; a context manager.

    Can be used from several threads; then each call is on its own, as with a descriptor.
    """

    def __init__(self, filetype: FileType[T], target: T, owner: MemCgroup, flags: OpenFlags) -> None:
        self.type = filetype
        self.target = target
        self.owner = owner
        self.flags = flags
        self._closed = False
        with filetype.naming(owner), owner.in_use():
            self._session = (filetype.session or Session)(filetype, target, flags)

    @property
    def name(self) -> str:
        """Path in the tree."""
        return self.type.path(self.owner)

    def read(self) -> str:
        """Return the text as it is now; every call reads from the beginning."""
        with self.type.naming(self.owner):
            self._require_open()
            if self.type.reader is None:
                raise os_error(errno.EACCES, "this file cannot be read: write to it instead")
            if not self.type.locks:
                return self._session.read()
            with self.owner.in_use():
                return self._session.read()

    def write(self, data: str | bytes | SupportsIndex) -> int:
        """Write ``data`` at once, an integer in decimal digits; return its length in bytes.

        Raises what the file says, naming the file.
        """
        raw = _bytes_of(data)
        with self.type.naming(self.owner):
            self._require_open()
            if not self.type.writable:
                raise os_error(errno.EACCES, "this file cannot be written to: it only tells")
            if len(raw) > MAX_WRITE:
                raise os_error(errno.E2BIG, f"{len(raw)} bytes are too many: at most {MAX_WRITE}")
            self.owner.require_online()
            if raw:
                # Undecodable bytes become text that no file accepts, and that a message can show.
                self._session.write(raw.partition(b"\0")[0].decode(errors="backslashreplace"))
                if self.type.enforce is not None and not self.flags.nonblock:
                    self.type.enforce(self.target)
        return len(raw)

    def poll(self, timeout: float | None = None) -> int:
        """Wait until the file has something to tell.

        Parameters
        ----------
        timeout
            Seconds; None waits for ever.

        Returns
        -------
        int
            ``select.POLLPRI`` for an event; ``POLLERR | POLLPRI`` when the cgroup or trigger is gone; 0 after the
            timeout.

        Raises
        ------
        OSError
            EOPNOTSUPP when this file never tells anything.
        """
        with self.type.naming(self.owner):
            self._require_open()
            with self.owner.zswap.lifetime:
                pass  # only asked, not held: closing the engine ends the wait
            return self._session.poll(timeout)

    def ready(self) -> bool:
        """Whether :meth:`poll` would return at once; unlike that, asking does not take the event.

        Who watches many files asks each of them when :attr:`CgroupTree.changes` has moved.
        """
        return self._session.ready()

    def close(self) -> None:
        """Close the file.  Calling it again does nothing."""
        if not self._closed:
            self._closed = True
            if not self.owner.zswap.core.closed:
                self._session.close()

    def _require_open(self) -> None:
        if self._closed:
            raise os_error(errno.EBADF, "the file is closed: open it again")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _bytes_of(data: object) -> bytes:
    """Return what is written to a file."""
    if isinstance(data, str):
        return data.encode(errors="backslashreplace")
    if hasattr(type(data), "__index__"):  # numpy's integers are buffers too
        with contextlib.suppress(TypeError):
            return b"%d" % operator.index(data)  # type: ignore[arg-type]
    try:
        return bytes(memoryview(data))  # type: ignore[arg-type]
    except TypeError:
        text = f"text, bytes or an integer can be written to a control file, not {type(data).__name__}"
        raise TypeError(text) from None
