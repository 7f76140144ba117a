"""The virtual tree: directories and files over the table of control files, whoever serves them.

::

    cgroup/             the root cgroup; a directory for each child, made and removed with mkdir and rmdir
    zswap/parameters/   the module parameters
    zswap/debug/        the debugfs counters
    vmstat meminfo swaps uzswap.stat

Nothing about a file is known here: names, modes, contents and errors are those of :mod:`uzswap.files.cgroup`.  What is
added is what a file system adds: paths, directories, and reads with an offset.

Threads: everything here can be used from several; a node is looked up anew for every request, so it cannot be stale.
"""

from __future__ import annotations

import errno
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from uzswap.errors import os_error
from uzswap.files.cgroup import FILES, cgroup_file, inode_of
from uzswap.files.engine import ENGINE_FILES
from uzswap.files.file import MAX_WRITE
from uzswap.units import is_path

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.files.file import ControlFile, FileType
    from uzswap.files.view import EngineView

__all__ = ["MAX_WRITE", "CgroupDirectory", "ControlTree", "Directory", "File", "Node", "OpenFile"]

#: include/linux/limits.h
_PATH_MAX: Final = 4096
_NAME_MAX: Final = 255


_POSITION: Final = {name: position for position, name in enumerate(FILES, 1)}


class OpenFile:
    """An open file as a file system has it: what is read stays the same until it is read from the beginning again."""

    def __init__(self, file: ControlFile[Any]) -> None:
        self.file = file
        self._text: bytes | None = None

    def read(self, size: int, offset: int = 0) -> bytes:
        """Return up to ``size`` bytes of a snapshot, taken by the last read from offset 0 (seq_file)."""
        text = self._text
        if text is None or not offset:
            text = self._text = self.file.read().encode()
        return text[offset : offset + size]

    def write(self, data: bytes) -> int:
        """Write ``data`` whole; where in the file does not matter, as in kernfs."""
        return self.file.write(data)

    def close(self) -> None:
        self.file.close()


@dataclass(frozen=True, slots=True)
class File:
    """A file of the tree."""

    type: FileType[Any]
    target: MemCgroup | EngineView
    owner: MemCgroup
    path: str
    inode: int

    @property
    def mode(self) -> int:
        """Permission bits."""
        return self.type.mode

    @property
    def is_quick(self) -> bool:
        """Whether a write takes no longer than a read, since nothing is reclaimed for it."""
        return self.target is self.owner and self.type.enforce is None and self.type.shape != "command"

    def check_access(self, *, reading: bool, writing: bool) -> None:
        """Raise EACCES when the file can not be opened that way, whoever asks: not even root can read a command."""
        if reading and self.type.reader is None:
            raise os_error(errno.EACCES, "this file cannot be read: write to it instead", self.path)
        if writing and not self.type.writable:
            raise os_error(errno.EACCES, "this file cannot be written to: it only tells", self.path)

    def open(self, *, nonblock: bool = False, privileged: bool | None = None) -> OpenFile:
        """Open the file; raises ENODEV when its cgroup was removed meanwhile."""
        return OpenFile(self.type.open(self.target, self.owner, nonblock=nonblock, privileged=privileged))

    def read(self) -> str:
        """Open, read and close."""
        return self.type.read(self.target, self.owner)

    def write(self, data: bytes, *, privileged: bool | None = None) -> int:
        """Open, write and close."""
        with self.type.open(self.target, self.owner, privileged=privileged) as file:
            return file.write(data)


class Directory(ABC):
    """A directory of the tree."""

    #: permission bits
    mode: Final = 0o755

    def __init__(self, path: str, inode: int) -> None:
        self.path = path
        self.inode: Final = inode

    @abstractmethod
    def names(self) -> list[str]:
        """Names of what is in it, directories last."""

    @abstractmethod
    def child(self, name: str) -> Node:
        """Return what has a name; raises ENOENT when nothing has."""

    def nodes(self) -> Iterator[tuple[str, Node]]:
        """Iterate over what is in it; what goes meanwhile is left out."""
        for name in self.names():
            try:
                yield name, self.child(name)
            except FileNotFoundError:
                continue

    def nr_directories(self) -> int:
        return sum(isinstance(node, Directory) for _, node in self.nodes())

    def mkdir(self, name: str) -> None:
        """Make a directory.  EPERM where that means nothing, as in the kernel's own file systems."""
        raise os_error(errno.EPERM, "only cgroups can be made, below cgroup/", self.join(name))

    def rmdir(self, name: str) -> None:
        """Remove a directory.  EPERM as :meth:`mkdir`."""
        self.require_directory(name)
        raise os_error(errno.EPERM, "only cgroups can be removed, below cgroup/", self.join(name))

    def join(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}"

    def require_directory(self, name: str) -> Directory:
        node = self.child(name)
        if not isinstance(node, Directory):
            raise os_error(errno.ENOTDIR, "this is a file, not a directory", self.join(name))
        return node


Node = Directory | File


class FixedDirectory(Directory):
    """A directory whose contents never change."""

    def __init__(self, path: str, inode: int) -> None:
        super().__init__(path, inode)
        self.entries: dict[str, Node] = {}

    def names(self) -> list[str]:
        return list(self.entries)

    def child(self, name: str) -> Node:
        try:
            return self.entries[name]
        except KeyError:
            raise os_error(errno.ENOENT, "there is no such file or directory", self.join(name)) from None

    def mkdir(self, name: str) -> None:
        if name in self.entries:
            raise os_error(errno.EEXIST, "it exists", self.join(name))
        super().mkdir(name)

    def rmdir(self, name: str) -> None:
        if isinstance(self.child(name), CgroupDirectory):
            raise os_error(errno.EBUSY, "the root cgroup cannot be removed", self.join(name))
        super().rmdir(name)


class CgroupDirectory(Directory):
    """A cgroup: its control files, and its children."""

    def __init__(self, cgroup: MemCgroup, path: str) -> None:
        super().__init__(path, inode_of(cgroup))
        self.cgroup = cgroup

    def names(self) -> list[str]:
        with self.cgroup.in_use():
            is_root = self.cgroup.parent is None
            own = [name for name, row in FILES.items() if row.on_root or not is_root]
            return own + list(self.cgroup.children)

    def child(self, name: str) -> Node:
        child = self.cgroup.children.get(name)
        if child is not None:
            return CgroupDirectory(child, self.join(name))
        row, inode = cgroup_file(self.cgroup, name), self.inode + _POSITION[name]
        return File(row, self.cgroup, self.cgroup, self.join(name), inode)

    def nr_directories(self) -> int:
        return len(self.cgroup.children)

    def mkdir(self, name: str) -> None:
        self.cgroup.tree.mkdir(self.cgroup, name)

    def rmdir(self, name: str) -> None:
        directory = self.require_directory(name)
        assert isinstance(directory, CgroupDirectory)
        self.cgroup.tree.remove(directory.cgroup)


class ControlTree:
    """The tree of one engine.

    >>> import uzswap
    >>> with uzswap.Zswap(swap_size="64M") as z:
    ...     tree = ControlTree(z)
    ...     tree.mkdir("/cgroup/job")
    ...     _ = tree.file("/cgroup/job/memory.max").write(b"1G")
    ...     tree.file("/cgroup/job/memory.max").read()
    '1073741824\\n'
    """

    def __init__(self, engine: EngineView) -> None:
        self.cgroups: Final = engine.tree
        inodes = itertools.count(1)  # of the root, as everywhere
        self.root = FixedDirectory("/", next(inodes))
        self.root.entries["cgroup"] = CgroupDirectory(engine.tree.root, "/cgroup")
        for path, row in ENGINE_FILES.items():
            directory = self.root
            *parents, name = path.split("/")
            for parent in parents:
                inner = directory.entries.get(parent)
                if inner is None:
                    inner = directory.entries[parent] = FixedDirectory(directory.join(parent), next(inodes))
                assert isinstance(inner, FixedDirectory)
                directory = inner
            directory.entries[name] = File(row, engine, engine.tree.root, f"/{path}", next(inodes))

    def lookup(self, path: str) -> Node:
        """Return what is at an absolute path; ``..`` goes up, as everywhere, and stays at the root.

        Raises
        ------
        OSError
            ENOENT, ENOTDIR, ENAMETOOLONG as a file system; EINVAL for a NUL.
        """
        _check_length(path)
        node: Node = self.root
        above: list[Directory] = []
        for name in path.split("/"):
            if not name:
                continue
            if not isinstance(node, Directory):
                raise os_error(errno.ENOTDIR, "a file has nothing in it", path)
            if name == ".":
                continue
            if name == "..":
                node = above.pop() if above else self.root
                continue
            above.append(node)
            node = node.child(name)
        if path.endswith("/") and not isinstance(node, Directory):
            raise os_error(errno.ENOTDIR, "this is a file, not a directory", path)
        return node

    def directory(self, path: str) -> Directory:
        """Return the directory at a path; raises as :meth:`lookup`, and ENOTDIR."""
        node = self.lookup(path)
        if not isinstance(node, Directory):
            raise os_error(errno.ENOTDIR, "this is a file, not a directory", path)
        return node

    def file(self, path: str) -> File:
        """Return the file at a path; raises as :meth:`lookup`, and EISDIR."""
        node = self.lookup(path)
        if not isinstance(node, File):
            raise os_error(errno.EISDIR, "this is a directory", path)
        return node

    def mkdir(self, path: str) -> None:
        """Make a cgroup; its parent has to exist.

        Raises
        ------
        OSError
            As :meth:`CgroupTree.mkdir` and :meth:`lookup`; EEXIST; EPERM outside of ``/cgroup``.
        """
        parent, name = self._split(path)
        parent.mkdir(name)

    def rmdir(self, path: str) -> None:
        """Remove a cgroup.

        Raises
        ------
        OSError
            As :meth:`CgroupTree.remove` and :meth:`lookup`; ENOTDIR for a file; EPERM outside of ``/cgroup``.
        """
        parent, name = self._split(path)
        parent.rmdir(name)

    def _split(self, path: str) -> tuple[Directory, str]:
        """Return the directory that the last part of a path is in, and that part."""
        _check_length(path)
        before, _, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            # What rmdir(2) says to these; mkdir(2) says EEXIST, and the directory does exist.
            raise os_error(errno.EBUSY if name != "." else errno.EINVAL, "this directory is always there", path)
        return self.directory(before + "/"), name


def _check_length(path: str) -> None:
    if not is_path(path):
        raise os_error(errno.EINVAL, "a path has no NUL in it, and no characters that stand for no bytes", ascii(path))
    encoded = os.fsencode(path)
    if len(encoded) >= _PATH_MAX:
        raise os_error(errno.ENAMETOOLONG, f"a path has less than {_PATH_MAX} bytes", path[:64] + "...")
    if any(len(name) > _NAME_MAX for name in encoded.split(b"/")):
        raise os_error(errno.ENAMETOOLONG, f"a name has at most {_NAME_MAX} bytes", path[:64] + "...")
