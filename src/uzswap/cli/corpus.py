"""Real files of this machine, as data for the demo and the benchmarks."""

from __future__ import annotations

import os
import re
import stat
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

#: Below, a file says little about compression; above, one file would be most of a small demo.
_SMALLEST = 512
_LARGEST = 8 << 20


def text_files() -> Iterator[Path]:
    """Files that are UTF-8 text, in a fixed order: documentation, data, headers, Python's own library."""
    return _files(("/usr/share", "/usr/include", sysconfig.get_path("stdlib"), "/usr/lib"), _is_text)


def shared_objects() -> Iterator[Path]:
    """Shared objects, in a fixed order: the system's, then Python's own."""
    roots = ("/usr/lib", "/usr/lib64", "/lib", sysconfig.get_path("platstdlib"))
    # By name first: opening every file below /usr/lib would take longer than reading the ones that are wanted.
    return _files(roots, lambda head: head.startswith(b"\x7fELF"), re.compile(r"\.so(\.|$)"))


def take(files: Iterator[Path], nbytes: int) -> list[Path]:
    """The first of `files` that hold `nbytes` together; fewer when this machine has no more."""
    taken: list[Path] = []
    for path in files:
        if nbytes <= 0:
            break
        nbytes -= path.stat().st_size
        taken.append(path)
    return taken


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # The head may end inside a character.
        return error.start >= len(head) - 3
    return True


def _files(
    roots: tuple[str, ...], wanted: Callable[[bytes], bool], named: re.Pattern[str] | None = None
) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for root in roots:
        for directory, subdirectories, names in os.walk(root):
            subdirectories.sort()
            for name in sorted(names):
                if named and not named.search(name):
                    continue
                path = Path(directory, name)
                try:
                    status = path.lstat()
                    key = (status.st_dev, status.st_ino)
                    if not stat.S_ISREG(status.st_mode) or not _SMALLEST <= status.st_size <= _LARGEST or key in seen:
                        continue
                    with path.open("rb") as file:
                        head = file.read(4096)
                except OSError:
                    continue
                if wanted(head):
                    seen.add(key)
                    yield path
