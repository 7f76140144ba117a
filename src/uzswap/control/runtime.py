"""Where engines are found: an entry for each, in a directory of the user's alone.

``$XDG_RUNTIME_DIR/uzswap``, or ``/tmp/uzswap-UID`` where that is not set, not there, or somebody else's (it is the
caller's, after sudo).  An entry names the process, by its number and
its time of start, since numbers are used again, so what a dead process has left is recognised and cleaned away.
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
from typing import Self

from uzswap.control.mounts import is_stale, take_away
from uzswap.errors import os_error

__all__ = ["Entry", "engines", "find", "runtime_directory"]


def runtime_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the directory, made when it is missing.

    Raises
    ------
    OSError
        EPERM: it is somebody else's, or others can enter it.
    """
    base = environment.get("XDG_RUNTIME_DIR")
    mine = False
    with contextlib.suppress(OSError):
        mine = bool(base) and os.stat(str(base)).st_uid == os.getuid()
    path = Path(str(base), "uzswap") if mine else Path(tempfile.gettempdir(), f"uzswap-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not st.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise os_error(
            errno.EPERM, "this has to be a directory of yours that nobody else can enter: remove it", str(path)
        )
    return path


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

    def write(self, directory: Path) -> None:
        """Make the entry visible, or what changed in it, at once."""
        new = directory / f".{self.name}.new"
        new.write_text(json.dumps(asdict(self)))
        new.rename(directory / f"{self.name}.json")

    def remove(self, directory: Path) -> None:
        (directory / f"{self.name}.json").unlink(missing_ok=True)

    def alive(self) -> bool:
        return _start_of(self.pid) == self.started


def _start_of(pid: int) -> int | None:
    """Return when a process started; None when there is none, or it is dead and was not waited for."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(rest[18])  # proc(5): field 22


def engines() -> list[Entry]:
    """Return every engine of this user that is served, oldest first; what dead processes left is removed."""
    directory = runtime_directory()
    found = []
    for path in directory.glob("*.json"):
        try:
            entry = Entry(**json.loads(path.read_text()))
        except FileNotFoundError:  # ended meanwhile
            continue
        except (ValueError, TypeError):
            path.unlink(missing_ok=True)
            continue
        if entry.alive():
            found.append(entry)
        else:
            entry.remove(directory)
            _tidy(entry, directory)
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
