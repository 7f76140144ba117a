"""The tree of memory cgroups: paths, creation and removal.

Invariants
----------
- Exactly the cgroups that :meth:`CgroupTree.by_index` finds are online, and each is in its parent's ``children``.
- An index of the data plane belongs to one online cgroup at a time.

Threads: :attr:`CgroupTree.lock` guards the shape of the tree and every setting of a cgroup.  It is reentrant, and held
only for short.  The module is compiled, so that no signal handler runs between two steps (setup.py, ``UNTORN``); what
calls others in between holds the handlers back.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from uzswap.cgroup.memcg import MemCgroup
from uzswap.cgroup.pressure import PressureMonitor
from uzswap.errors import os_error
from uzswap.locks import Order, make_condition, make_rlock
from uzswap.signals import hold_back_signals

if TYPE_CHECKING:
    from uzswap.cgroup.control_files import ControlFiles
    from uzswap.cgroup.surroundings import Host

__all__ = ["CgroupTree", "MemCgroup"]

#: include/linux/limits.h
_NAME_MAX: Final = 255


class CgroupTree:
    """All cgroups of one engine.

    Parameters
    ----------
    zswap
        The engine; its ``core`` has to exist already.
    files
        The control files of cgroups.

    Attributes
    ----------
    root : MemCgroup
    lock : threading.RLock
        Guards the shape of the tree and every setting.
    on_remove : list of callable
        Each is called with a cgroup that is about to go, while it is still online and in its place, under the lock.
    changed : Condition
        Notified when a control file that can be polled changed.  Its lock is a leaf.
    changes : int
        How often that happened, for who watches many files.
    closed : bool
    """

    def __init__(self, zswap: Host[MemCgroup], files: ControlFiles[MemCgroup]) -> None:
        self.zswap = zswap
        self.files: Final = files
        self.lock = make_rlock(Order.TREE)
        self.changed = make_condition(Order.CHANGED)
        self.changes = 0
        self.on_remove: list[Callable[[MemCgroup], object]] = []
        self.pressure = PressureMonitor()
        self.pressure.on_event = self.wake
        self.closed = False
        self._last_id = 0
        self.root = MemCgroup(self, None, "", 0, 0)
        self._by_index = {0: self.root}

    def forked(self) -> None:
        """In a forked child: forget what threads of the parent's were waiting for."""
        for cgroup in self.root.preorder():
            cgroup.pressure.forked()
        self.pressure.forked()

    def by_index(self, index: int) -> MemCgroup:
        """Return the online cgroup with an index of the data plane.  Raises ENODEV when there is none."""
        cgroup = self._by_index.get(index)
        if cgroup is None:
            raise os_error(errno.ENODEV, "the cgroup was removed meanwhile: try again")
        return cgroup

    def find_index(self, index: int) -> MemCgroup | None:
        """Return the online cgroup with an index of the data plane; None when it was removed since that was read."""
        return self._by_index.get(index)

    def lookup(self, path: str) -> MemCgroup:
        """Return the cgroup at an absolute path.

        Raises
        ------
        FileNotFoundError
            ENOENT: there is none.
        """
        with self.root.in_use():
            cgroup = self.root
            for name in _split(path, self.root):
                child = cgroup.children.get(name)
                if child is None:
                    raise os_error(errno.ENOENT, f"there is no cgroup {name!r} in {cgroup.path}: make it first", path)
                cgroup = child
            return cgroup

    def make(self, path: str, start: MemCgroup | None = None) -> MemCgroup:
        """Return the cgroup at a path; it and its parents are made when they are missing, all of them or none.

        Parameters
        ----------
        path
            Absolute; below ``start`` when that is given.

        Raises
        ------
        OSError
            As :meth:`mkdir`; ENODEV when ``start`` was removed.
        """
        start = start or self.root
        with start.in_use():
            cgroup = start
            made: list[MemCgroup] = []
            try:
                for name in _split(path, start):
                    child = cgroup.children.get(name)
                    if child is None:
                        child = self.mkdir(cgroup, name)
                        made.append(child)
                    cgroup = child
            except BaseException:
                with hold_back_signals():
                    for new in reversed(made):
                        self.remove(new)
                raise
            return cgroup

    def mkdir(self, parent: MemCgroup, name: str) -> MemCgroup:
        """Make one cgroup and return it.

        Raises
        ------
        OSError
            EEXIST there is a cgroup or control file of that name; EINVAL a name no directory could have, or with a
            newline in it; ENAMETOOLONG more than 255 bytes; ENODEV the parent was removed; EAGAIN too many cgroups.
        """
        where = f"{parent.path.rstrip('/')}/{name}"
        with parent.in_use():
            _check_name(name, where)
            if name in parent.children:
                raise os_error(errno.EEXIST, "the cgroup exists", where)
            if name in self.files:
                raise os_error(errno.EEXIST, "a control file has this name: choose another", where)
            index = self.zswap.core.memcg_new(parent.index)
            if index < 0:
                # The number of cgroups is limited, and cgroup.max.descendants says EAGAIN to that.
                raise os_error(errno.EAGAIN, "there are too many cgroups: remove some", where)
            self._last_id += 1
            try:
                cgroup = MemCgroup(self, parent, name, index, self._last_id)
            except BaseException:
                self.zswap.core.memcg_remove(index)
                raise
            # A cgroup without the memory controller would have nothing, so a child always turns it on.
            parent.controls_children = True
            parent.children[name] = cgroup
            self._by_index[index] = cgroup
            return cgroup

    def remove(self, cgroup: MemCgroup) -> None:
        """Remove a cgroup.  Its entries and what it counted stay with its parent.

        Raises
        ------
        OSError
            EBUSY it has children or members, or is the root; ENODEV it was removed already.
        """
        with hold_back_signals(), cgroup.in_use():
            parent = cgroup.parent
            if parent is None:
                raise os_error(errno.EBUSY, "the root cgroup cannot be removed", cgroup.path)
            if cgroup.children:
                raise os_error(errno.EBUSY, f"the cgroup has {len(cgroup.children)} children: remove them", cgroup.path)
            if cgroup.members:
                raise os_error(errno.EBUSY, f"the cgroup has {len(cgroup.members)} members: close them", cgroup.path)
            for callback in self.on_remove:
                callback(cgroup)
            # Before the data plane lets others run.
            cgroup.online = False
            self.zswap.core.memcg_remove(cgroup.index)
            del parent.children[cgroup.name]
            del self._by_index[cgroup.index]
            cgroup.pressure.remove()
        self.wake()

    def wake(self) -> None:
        """Let everybody who polls look again."""
        with self.changed:
            self.changes += 1
            self.changed.notify_all()

    def close(self) -> None:
        """End all triggers and the worker behind them, and wake everybody who polls.  The engine is being closed."""
        self.pressure.close()
        with self.changed:
            self.closed = True
            self.wake()


def _split(path: str, start: MemCgroup) -> list[str]:
    """Return the names in a path; repeated and final slashes do not count, as everywhere.

    Below another cgroup than the root a path has to be relative: joined, an absolute one would be ambiguous.
    """
    if not isinstance(path, str):
        raise TypeError(f"the path of a cgroup is text such as '/jobs/a', not {type(path).__name__}")
    if start.parent is not None and path.startswith("/"):
        raise os_error(errno.EINVAL, f"a path below {start.path} must not begin with a slash", path)
    return [name for name in path.split("/") if name]


def _check_name(name: str, where: str) -> None:
    if name in ("", ".", "..") or "/" in name or "\0" in name or "\n" in name:
        raise os_error(errno.EINVAL, f"{name!r} cannot be the name of a cgroup", where)
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError:
        raise os_error(errno.EINVAL, f"{name!r} cannot be the name of a cgroup", ascii(where)) from None
    if length > _NAME_MAX:
        raise os_error(errno.ENAMETOOLONG, f"the name has {length} bytes, {_NAME_MAX} is the most", where)
