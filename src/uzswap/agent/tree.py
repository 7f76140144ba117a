"""A root: its cgroups, found anew each time, and what the machine below it says.

What a root can be: the kernel's cgroup2 file system, a mount of an engine's tree, an engine's socket, or a cluster of
Dask's.  The rest is the same for all of them.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import re
import stat as st
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from uzswap.client.deadlines import Deadlines
from uzswap.client.directory import DirectoryRoot
from uzswap.client.over_socket import SocketRoot
from uzswap.client.root import Cgroup, Root
from uzswap.client.schemes import is_url, open_url
from uzswap.errors import os_error

__all__ = ["KERNEL", "Machine", "Tree", "glob", "open_tree"]

#: where the kernel's cgroups usually are
KERNEL: Final = "/sys/fs/cgroup"


@dataclass(frozen=True, slots=True)
class Machine:
    """What the machine, or the engine, says of itself at one time.  Bytes; None is not told."""

    ram: int = 0
    swap_total: int = 0
    swap_free: int = 0
    #: what the pool occupies, and the most that it may
    pool: int | None = None
    pool_max: int | None = None
    zswap: bool | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """Cgroups below a root."""

    root: Root
    #: directory of the root cgroup
    top: str
    #: what the user called it
    name: str
    #: where meminfo and swaps are, and where zswap's parameters are
    proc: str
    zswap: str
    #: whether it is an engine's
    engine: bool

    def cgroup(self, path: str) -> Cgroup:
        """Return a cgroup by its path below the root, such as ``/jobs/a``."""
        return Cgroup(self.root, f"{self.top}{path}".rstrip("/") or "/", path)

    def again(self) -> Root:
        """Return the root, for another thread."""
        return self.root.again()

    def through(self, root: Root) -> Tree:
        """Return the same tree, seen through another root of it."""
        return replace(self, root=root)

    def find(self, patterns: Iterable[str]) -> list[tuple[str, int]]:
        """Return (path, inode) of the cgroups that one of the patterns matches, in order.

        ``*`` is anything within one name, ``**`` anything at all.  Only directories that can match are looked into.

        Raises
        ------
        OSError
            The root cannot be read.  What is removed meanwhile is left out.
        """
        found: dict[str, int] = {}
        listed: dict[str, list[tuple[str, int]]] = {}
        for pattern in patterns:
            self._find("", _parts(pattern), None, found, listed)
        return sorted(found.items())

    def _find(
        self,
        path: str,
        parts: list[str],
        inode: int | None,
        found: dict[str, int],
        listed: dict[str, list[tuple[str, int]]],
    ) -> None:
        if not parts or parts == ["**"]:
            found[path or "/"] = self.root.inode(self.top or "/") if inode is None else inode
        if not parts:
            return
        if path not in listed:
            try:
                listed[path] = self.root.directories(f"{self.top}{path}" or "/")
            except OSError as error:
                if not path or error.errno not in (errno.ENOENT, errno.ENODEV):
                    raise
                return
        matches = glob(parts[0]).fullmatch
        if len(parts) == 1 and parts[0] != "**":
            found.update((f"{path}/{name}", child) for name, child in listed[path] if matches(name))
            return
        for name, child in listed[path]:
            below = f"{path}/{name}"
            if parts[0] == "**":
                self._find(below, parts, child, found, listed)
                if parts[1:] and glob(parts[1]).fullmatch(name):
                    self._find(below, parts[2:], child, found, listed)
            elif matches(name):
                self._find(below, parts[1:], child, found, listed)

    def among(self, patterns: Iterable[str], cgroups: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        """Return what :meth:`find` finds where these are all the cgroups that there are."""
        matches = [_whole(pattern).fullmatch for pattern in patterns]
        return sorted(
            (path, inode) for path, inode in cgroups if any(match("" if path == "/" else path) for match in matches)
        )

    def common(self, patterns: Iterable[str]) -> str:
        """Return the directory of a cgroup that is above all that patterns can match, or is the only one."""
        literal = ["/" + "/".join(itertools.takewhile(_is_literal, _parts(pattern))) for pattern in patterns]
        return f"{self.top}{os.path.commonpath(literal or ['/'])}".rstrip("/") or "/"

    def machine(self) -> Machine:
        """Read what the machine says; what cannot be read is left out."""
        meminfo = self._table(f"{self.proc}/meminfo")
        total = meminfo.get("MemTotal", 0)
        percent = self._text(f"{self.zswap}/max_pool_percent").strip()
        enabled = self._text(f"{self.zswap}/enabled").strip()
        pool = meminfo.get("Zswap")
        return Machine(
            ram=total,
            swap_total=meminfo.get("SwapTotal", 0),
            swap_free=meminfo.get("SwapFree", 0),
            pool=pool,
            pool_max=total * int(percent) // 100 if percent.isdecimal() and total else None,
            zswap={"Y": True, "N": False}.get(enabled),
        )

    def _text(self, path: str) -> str:
        try:
            return self.root.read(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM):
                return ""
            raise

    def _table(self, path: str) -> dict[str, int]:
        lines = (line.split() for line in self._text(path).splitlines())
        return {words[0].rstrip(":"): int(words[1]) << 10 for words in lines if len(words) > 1 and words[1].isdecimal()}


def _parts(pattern: str) -> list[str]:
    """Return the names that a pattern is made of; ``**`` after another one says nothing more."""
    names = [name for name in pattern.split("/") if name]
    return [name for name, before in zip(names, ["", *names], strict=False) if (name, before) != ("**", "**")]


def _is_literal(name: str) -> bool:
    return not {"*", "?"} & set(name)


@functools.cache
def _whole(pattern: str) -> re.Pattern[str]:
    """Return what matches the paths that :meth:`Tree.find` finds; the root's is empty."""
    made = ["(?:/[^/]+)*" if name == "**" else "/" + glob(name.replace("**", "*")).pattern for name in _parts(pattern)]
    return re.compile("".join(made), re.DOTALL)


_globs: dict[str, re.Pattern[str]] = {}


def glob(pattern: str) -> re.Pattern[str]:
    """Return what a pattern of cgroups matches.

    >>> bool(glob("/user/*").fullmatch("/user/a")), bool(glob("/user/*").fullmatch("/user/a/b"))
    (True, False)
    >>> bool(glob("/user/**").fullmatch("/user/a/b"))
    True
    """
    if pattern not in _globs:
        words = re.split(r"(\*\*|\*|\?)", pattern)
        made = "".join({"**": ".*", "*": "[^/]*", "?": "[^/]"}.get(word) or re.escape(word) for word in words)
        _globs[pattern] = re.compile(made, re.DOTALL)
    return _globs[pattern]


def open_tree(path: str, deadlines: Deadlines | None = None) -> Tree:
    """Return the tree at a path: a directory with cgroups, a mount of an engine, its socket, or a cluster's URL.

    Raises
    ------
    OSError
        ENOENT there is nothing; EINVAL it has no cgroups; EOPNOTSUPP they are of version 1.
    """
    if is_url(path):
        return Tree(open_url(path), "/cgroup", path, "", "/zswap/parameters", engine=True)
    where = os.path.abspath(path)
    try:
        mode = os.stat(where).st_mode
    except OSError as error:
        text = f"there is no cgroup tree here ({error.strerror}): give a cgroup2 mount, or a mount or socket of uzswap"
        raise os_error(error.errno or errno.EIO, text, path) from error
    if st.S_ISSOCK(mode):
        return Tree(SocketRoot(where), "/cgroup", path, "", "/zswap/parameters", engine=True)
    root = DirectoryRoot(deadlines)
    names = set(os.listdir(where)) if st.S_ISDIR(mode) else set()
    if {"cgroup", "vmstat", "zswap"} <= names:
        return Tree(root, f"{where}/cgroup", path, where, f"{where}/zswap/parameters", engine=True)
    if "cgroup.controllers" in names:
        above = os.path.dirname(where)
        if "uzswap.disk" in names and os.path.exists(f"{above}/zswap/parameters"):
            return Tree(root, where, path, above, f"{above}/zswap/parameters", engine=True)
        top = where.rstrip("/")
        return Tree(root, top, path, "/proc", "/sys/module/zswap/parameters", engine="uzswap.disk" in names)
    if "memory" in names or "tasks" in names:
        raise os_error(
            errno.EOPNOTSUPP, "cgroups of version 1 have no memory.reclaim: boot with the unified hierarchy", path
        )
    raise os_error(
        errno.EINVAL, "there are no cgroups here: give a cgroup2 mount, or a mount or socket of uzswap", path
    )
