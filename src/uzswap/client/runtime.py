"""Where engines are found: an entry for each, in a directory of the user's alone.

``$XDG_RUNTIME_DIR/uzswap``, or ``/tmp/uzswap-UID`` where that is not set, not there, or open to others (it is the
caller's, after sudo).  Where somebody else has taken that name it is ``/tmp/uzswap-UID-...``, whatever else it takes:
all that are the user's own are looked into.

An entry names the process, by its number and its time of start, since numbers are used again, so what a dead process
has left is recognised and cleaned away.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat as st
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

from uzswap.client.mounts import is_stale, take_away
from uzswap.errors import os_error
from uzswap.units import is_path

__all__ = ["Entry", "engines", "find", "runtime_directory"]


def runtime_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the directory where entries are made, made when it is missing.

    Raises
    ------
    OSError
        EPERM: it is the user's, but no directory, or others can enter it.
    """
    base = environment.get("XDG_RUNTIME_DIR")
    if base and _is_private(base, others=0o022):
        return _made(Path(base, "uzswap"))
    temporary = tempfile.gettempdir()
    try:
        return _made(Path(temporary, f"uzswap-{os.getuid()}"))
    except PermissionError:
        if _is_mine(Path(temporary, f"uzswap-{os.getuid()}")):
            raise
    there = _fallbacks()
    return there[0] if there else Path(tempfile.mkdtemp(prefix=f"uzswap-{os.getuid()}-"))


def _directories() -> list[Path]:
    """Return every directory in which entries of this user may be."""
    return list(dict.fromkeys([runtime_directory(), *_fallbacks()]))


def _fallbacks() -> list[Path]:
    """Return those with names that nobody could take before, the same first for everybody."""
    there = Path(tempfile.gettempdir()).glob(f"uzswap-{os.getuid()}-*")
    return sorted(path for path in there if _is_private(path, others=0o077))


def _made(path: Path) -> Path:
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if not _is_private(path, others=0o077):
        raise os_error(
            errno.EPERM, "this has to be a directory of yours that nobody else can enter: remove it", str(path)
        )
    return path


def _is_private(path: str | Path, *, others: int) -> bool:
    """Whether something is a directory of this user's, no link to one, without these permissions of others."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return False
    return st.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & others


def _is_mine(path: Path) -> bool:
    return path.lstat().st_uid == os.getuid()


@dataclass(slots=True)
class Entry:
    """One engine."""

    pid: int
    #: of the process, in clock ticks since boot
    started: int
    #: which of the process's engines
    number: int
    command: str
    socket: str | None = None
    mounts: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return f"{self.pid}" if self.number == 1 else f"{self.pid}-{self.number}"

    @classmethod
    def mine(cls, number: int) -> Self:
        """Return an entry for an engine of this process, not yet written."""
        pid = os.getpid()
        return cls(pid, _start_of(pid) or 0, number, " ".join([Path(sys.executable).name, *sys.argv])[:200])

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what a file says.

        Raises
        ------
        OSError
            It cannot be read: it is gone, a directory, a link.
        ValueError
            It is no entry.
        """
        # Not a pipe either, which would have us wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not st.S_ISREG(os.fstat(fd).st_mode):
                raise ValueError(f"{path} is no file")
            raw = os.read(fd, _LONGEST)
        finally:
            os.close(fd)
        try:
            told = json.loads(raw)
            entry = cls(**told)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} is no entry: {error}") from None
        numbers = (entry.pid, entry.started, entry.number)
        socket = "" if entry.socket is None else entry.socket
        texts = (entry.command, socket, *(entry.mounts if isinstance(entry.mounts, list) else [None]))
        if not all(type(number) is int for number in numbers) or not all(map(_is_text, texts)):
            raise ValueError(f"{path} is no entry")
        return entry

    def write(self, directory: Path) -> None:
        """Make the entry visible, or what changed in it, at once."""
        new = directory / f".{self.name}.new"
        new.write_text(json.dumps(asdict(self)))
        new.rename(directory / f"{self.name}.json")

    def remove(self, directory: Path) -> None:
        (directory / f"{self.name}.json").unlink(missing_ok=True)

    def alive(self) -> bool:
        return _start_of(self.pid) == self.started


#: bytes; many mounts have long paths
_LONGEST: Final = 1 << 20


def _is_text(value: object) -> bool:
    """Whether it is text that could be a path."""
    return isinstance(value, str) and is_path(value)


def _start_of(pid: int) -> int | None:
    """Return when a process started; None when there is none, or it is dead and was not waited for."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(rest[18])  # proc(5): field 22


def engines() -> list[Entry]:
    """Return every engine of this user that is served, oldest first; what dead processes left is removed."""
    found = []
    for path in (path for directory in _directories() for path in directory.glob("*.json")):
        try:
            entry = Entry.read(path)
        except OSError:  # ended meanwhile, or nothing of ours
            continue
        except ValueError:
            with contextlib.suppress(OSError):
                path.unlink()
            continue
        if entry.alive():
            found.append(entry)
        else:
            path.unlink(missing_ok=True)
            _tidy(entry, path.parent)
    return sorted(found, key=lambda entry: (entry.started, entry.pid, entry.number))


def _tidy(entry: Entry, directory: Path) -> None:
    """Take away what a dead process has left: its socket, and mounts that nobody serves any more."""
    if entry.socket is not None and Path(entry.socket).parent == directory:
        Path(entry.socket).unlink(missing_ok=True)
    for path in map(Path, entry.mounts):
        with contextlib.suppress(OSError):  # it may be in another mount namespace, or taken over already
            if is_stale(path):
                take_away(path)
            if path.parent == directory:
                path.rmdir()


def find(name: str | None = None) -> Entry:
    """Return the engine with a name, or the only one.

    Raises
    ------
    OSError
        ENOENT there is none; EINVAL there are several, and no name was given.
    """
    there = engines()
    if name is not None:
        for entry in there:
            if entry.name == name:
                return entry
        raise os_error(errno.ENOENT, f"no engine is called {name}: there are {_list(there)}")
    if not there:
        raise os_error(errno.ENOENT, "no engine is served: call z.serve() in the program, or start it with uzswap run")
    if len(there) > 1:
        raise os_error(errno.EINVAL, f"there are several engines: choose one with --engine, of {_list(there)}")
    return there[0]


def _list(there: list[Entry]) -> str:
    return ", ".join(f"{entry.name} ({entry.command})" for entry in there) or "none"
