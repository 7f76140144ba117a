"""One memory cgroup: its settings, events, members and control files.

The data plane keeps what is counted per page (:mod:`uzswap.core.boundary.engine`); here is what a cgroup *is*.  An
entry knows its cgroup by the data plane's index, which is used again after a removal; whatever outlives a cgroup has to
go by its ``id``, which is not.

Invariants
----------
- An offline cgroup has no children and no members; every operation on it gives ENODEV.
- Children are kept in creation order, which is the order of every walk.
- Limits are whole pages, or NO_LIMIT; the data plane has the same values.

Threads: the tree's lock guards every setting.  It is held only for short: a reclaim runs without it.  The module is
compiled, so that no signal handler runs between two steps (setup.py, ``UNTORN``).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, NoReturn, SupportsIndex

from uzswap.cgroup.pressure import Pressure
from uzswap.cgroup.reclaim import ReclaimRequest, min_age_of, request
from uzswap.cgroup.recompress import DEFAULT_CODEC, RecompressRequest, RecompressResult
from uzswap.cgroup.stat import EVENTS, FILE_OF_EVENT, memory_stat
from uzswap.core.boundary.engine import (
    COUNTERS,
    MEMORY_HIGH,
    MEMORY_LOW,
    MEMORY_MAX,
    MEMORY_MIN,
    RESIDENT_MAX,
    SWAP_HIGH,
    SWAP_MAX,
    ZSWAP_MAX,
)
from uzswap.errors import InvalidArgumentError, ReclaimError, os_error
from uzswap.units import NO_LIMIT, PAGE_SIZE, parse_size

if TYPE_CHECKING:
    from weakref import WeakSet

    from uzswap.cgroup.control_files import Measurement, OpenControlFile
    from uzswap.cgroup.surroundings import Host, Member, Tree
    from uzswap.result import ReclaimResult

__all__ = ["MemCgroup", "require_cgroup"]


def require_cgroup(cgroup: object, zswap: object = None) -> MemCgroup:
    """Return what was given for a cgroup, if it is one, of this engine when that is given.

    Raises
    ------
    TypeError
        It is no cgroup; the text says how to get one.
    InvalidArgumentError
        It is another engine's.
    """
    if not isinstance(cgroup, MemCgroup):
        path = cgroup if isinstance(cgroup, str) and cgroup.startswith("/") else "/name"
        raise TypeError(f"a cgroup is needed, not {type(cgroup).__name__}: give z.cgroup({path!r}), of the engine z")
    if zswap is not None and cgroup.zswap is not zswap:
        raise InvalidArgumentError(f"{cgroup!r} belongs to another engine")
    return cgroup


_RESIDENT: Final = COUNTERS.index("resident")
_ZSWAP: Final = COUNTERS.index("zswap")
#: control file -> its limit in the data plane
_CORE_LIMITS: Final = {
    "memory.min": MEMORY_MIN,
    "memory.low": MEMORY_LOW,
    "memory.high": MEMORY_HIGH,
    "memory.max": MEMORY_MAX,
    "memory.swap.high": SWAP_HIGH,
    "memory.swap.max": SWAP_MAX,
    "memory.zswap.max": ZSWAP_MAX,
    "uzswap.resident.max": RESIDENT_MAX,
}
_DEFAULT_LIMITS: Final = dict.fromkeys(_CORE_LIMITS, NO_LIMIT) | {"memory.min": 0, "memory.low": 0}


class InUse:
    """The context manager of :meth:`MemCgroup.in_use`."""

    __slots__ = ("_lifetime", "_memcg")

    def __init__(self, memcg: MemCgroup) -> None:
        self._memcg = memcg
        self._lifetime = memcg.zswap.lifetime

    def __enter__(self) -> None:
        memcg = self._memcg
        # The engine is asked first: in a forked child the lock may never be free.
        self._lifetime.__enter__()
        try:
            memcg.tree.lock.acquire()
        except BaseException:  # of a signal handler, while it waits
            self._lifetime.__exit__(None, None, None)
            raise
        if not memcg.online:
            self.__exit__(None, None, None)
            raise os_error(errno.ENODEV, "the cgroup was removed: look its path up again", memcg.path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._memcg.tree.lock.release()
        self._lifetime.__exit__(None, None, None)


class RemovalTold:
    """The context manager of :meth:`MemCgroup.removal_told`.

    The data plane says ValueError to an index that is nobody's any more.
    """

    __slots__ = ("_memcg",)

    def __init__(self, memcg: MemCgroup) -> None:
        self._memcg = memcg

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ValueError) and not isinstance(error, OSError):
            self._memcg.require_online()


class MemCgroup:
    """One memory cgroup.  Made by :meth:`CgroupTree.make`; ``Zswap.cgroup("/path")`` for users.

    Attributes
    ----------
    path : str
        Absolute, "/" for the root.
    name : str
        Last part of the path, empty for the root.
    parent : MemCgroup or None
    children : dict of str to MemCgroup
        In creation order.  To be changed by the tree alone.
    online : bool
        False once it was removed.
    index : int
        Of the data plane; used again after a removal.
    id : int
        Grows with every cgroup, never used again.
    order : tuple of int
        The ids from the root's child down to this one: cgroups compared by it are in pre-order, elder siblings first.
    zswap : Zswap
        The engine.
    tree : CgroupTree
    limits : dict of str to int
        Bytes or NO_LIMIT, by control file; to be changed with :meth:`set_limit`.
    oom_group : bool
        ``memory.oom.group``; nothing is ever killed, so it changes nothing.
    controls_children : bool
        Whether ``cgroup.subtree_control`` says ``memory``.
    events, local_events : dict of str to int
        Counts since creation, of the subtree and of this cgroup alone; keys in :data:`~uzswap.cgroup.stat.EVENTS`.
    last_recompress : RecompressResult or None
        What the last write to ``uzswap.recompress`` did.
    last_reclaim : ReclaimResult or None
        What the last ``memory.reclaim`` here did, complete or not.
    pressure : Pressure
        Stall times of the subtree.
    """

    def __init__(self, tree: Tree[MemCgroup], parent: MemCgroup | None, name: str, index: int, ident: int) -> None:
        self.tree = tree
        self.zswap: Host[MemCgroup] = tree.zswap
        self.parent = parent
        self.name = name
        self.path: str = "/" if parent is None else f"{parent.path.rstrip('/')}/{name}"
        self.index = index
        self.id = ident
        self.order: tuple[int, ...] = () if parent is None else (*parent.order, ident)
        self.online = True
        self.children: dict[str, MemCgroup] = {}
        self.limits = dict(_DEFAULT_LIMITS)
        self.oom_group = False
        self.controls_children = True
        self.events = dict.fromkeys(EVENTS, 0)
        self.local_events = dict.fromkeys(EVENTS, 0)
        self.last_reclaim: ReclaimResult | None = None
        self.last_recompress: RecompressResult | None = None
        self.pressure: Pressure = Pressure(tree.pressure, None if parent is None else parent.pressure)
        self._writeback = True
        #: by id: they may be mappings, which are equal when their contents are
        self._members: dict[int, Member] = {}
        #: members of the subtree
        self._nr_members = 0
        self._notifications: dict[str, int] = {}
        #: measurements under way, by control file: memory.peak and memory.swap.peak
        self.peak_sessions: dict[str, WeakSet[Measurement]] = {}

    def __copy__(self) -> MemCgroup:
        """There is one of each cgroup: a copy of what names it names the same."""
        return self

    def __deepcopy__(self, memo: object) -> MemCgroup:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self.path} can't be pickled: it belongs to its engine; its path tells which it is")

    def __repr__(self) -> str:
        return f"<MemCgroup {self.path}{'' if self.online else ' (removed)'}>"

    # Control files

    def read(self, name: str) -> str:
        """Return the text of a control file, such as ``"memory.stat"``.

        Raises
        ------
        OSError
            ENOENT there is no such file here; ENODEV the cgroup was removed; EACCES the file cannot be read.
        """
        return self.tree.files.read(self, name)

    def write(self, name: str, data: str | bytes | SupportsIndex) -> int:
        """Write to a control file, as one open, write and close; return the number of bytes, always all of them.

        An integer is written in decimal digits.

        Raises
        ------
        OSError
            What the file says (SPEC 7), and ENOENT, ENODEV, EACCES as :meth:`read`; E2BIG above 4096 bytes.
        """
        with self.open(name) as file:
            return file.write(data)

    def open(self, name: str, *, nonblock: bool = False, privileged: bool | None = None) -> OpenControlFile:
        """Open a control file: for ``poll``, and for what belongs to an open file (memory.peak, triggers).

        Parameters
        ----------
        nonblock
            As O_NONBLOCK: a lower limit is set but nothing is reclaimed for it.
        privileged
            Whether trigger windows may have any length; None asks for this process's CAP_SYS_RESOURCE.

        Raises
        ------
        OSError
            ENOENT there is no such file here; ENODEV the cgroup was removed.
        """
        return self.tree.files.open(self, name, nonblock=nonblock, privileged=privileged)

    def stats(self) -> dict[str, int]:
        """Return ``memory.stat`` as numbers, in its order."""
        with self.in_use():
            return memory_stat(self.zswap.core.counters(self.index), self.events)

    # Reclaim

    def reclaim(
        self,
        size: str | SupportsIndex,
        *,
        source: str | None = None,
        swappiness: int | str | None = None,
        min_age: int | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> ReclaimResult:
        """Reclaim memory of the subtree: ``memory.reclaim`` with a result.

        Parameters
        ----------
        size
            Bytes, or text such as "10M": resident bytes, or compressed bytes to be written back (``source="zswap"``).
        source, swappiness, min_age
            As the keys of ``memory.reclaim``; ``min_age`` in seconds.
        cancel
            Asked between batches; returning true ends the request as a signal does.

        Raises
        ------
        OSError
            EINVAL for bad arguments, and when writeback is off here; ENODEV when the cgroup was removed.
        ReclaimError
            When less was done than asked: EAGAIN, EINTR, or the device's errno.  Its ``.result`` says how much was.

        >>> import uzswap
        >>> with uzswap.Zswap(swap="auto", swap_size="64M") as z:
        ...     z.cgroup("/job").reclaim("0", source="zswap").written
        0
        """
        arguments = request(size, source=source, swappiness=swappiness, min_age=min_age)
        return self.reclaim_request(arguments, cancel=cancel)

    def reclaim_request(self, arguments: ReclaimRequest, *, cancel: Callable[[], bool] | None = None) -> ReclaimResult:
        """Carry out a parsed request and keep its result for ``uzswap.last_reclaim``.  Raises as :meth:`reclaim`."""
        self.require_online()
        try:
            with self.removal_told():
                self.last_reclaim = self.zswap.reclaim(self, arguments, cancel=cancel)
        except ReclaimError as error:
            self.last_reclaim = error.result
            raise
        return self.last_reclaim

    def recompress(
        self,
        size: str | SupportsIndex,
        *,
        codec: str = DEFAULT_CODEC,
        min_age: int | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> RecompressResult:
        """Compress cold entries of the subtree's pool again with a slower codec: ``uzswap.recompress`` with a result.

        Parameters
        ----------
        size
            Compressed bytes to take up, or text such as "10M".
        codec
            ``"zstd"``, ``"zstd:LEVEL"``, ``"lz4"``.
        min_age
            Seconds; entries younger than that are left alone.

        Raises
        ------
        OSError
            ENOENT no such codec; EINVAL for other bad arguments; EINTR a signal or ``cancel`` ended it; ENODEV the
            cgroup was removed.
        """
        request = RecompressRequest(parse_size(size), codec, None if min_age is None else min_age_of(str(min_age)))
        return self.zswap.recompress(self, request, cancel)

    # Settings

    def set_limit(self, name: str, nbytes: int) -> None:
        """Set the limit of a control file, here and in the data plane, without enforcing it.

        Parameters
        ----------
        name
            A key of :attr:`limits`.
        nbytes
            Whole pages, or NO_LIMIT.
        """
        with self.in_use():
            self.limits[name] = nbytes
            if name in _CORE_LIMITS:
                value = nbytes // PAGE_SIZE if name == "memory.zswap.max" and nbytes != NO_LIMIT else nbytes
                self.zswap.core.set_limit(self.index, _CORE_LIMITS[name], value)

    @property
    def writeback(self) -> bool:
        """The cgroup's own ``memory.zswap.writeback``; an ancestor's 0 counts as well (SPEC 2.4)."""
        return self._writeback

    @writeback.setter
    def writeback(self, allowed: bool) -> None:
        with self.in_use():
            self._writeback = bool(allowed)
            self.zswap.core.set_writeback(self.index, self._writeback)

    # Members

    @property
    def members(self) -> tuple[Member, ...]:
        """The front-ends in this cgroup; while there are any it is populated and cannot be removed."""
        return tuple(self._members.values())

    def attach(self, owner: Member) -> None:
        """Make a front-end a member.  Raises ENODEV when the cgroup was removed."""
        with self.in_use():
            self._members[id(owner)] = owner
            self._count_members(1)

    def detach(self, owner: Member) -> None:
        """Undo :meth:`attach`; again, it does nothing.

        It takes no lock but the leaf that notifies: it may be a finalizer that closes a front-end, in a thread that
        holds any lock at all.
        """
        if self._members.pop(id(owner), None) is not None:
            self._count_members(-1)

    def populated(self) -> bool:
        """Whether this cgroup or a descendant has members."""
        return self._nr_members > 0

    def _count_members(self, more: int) -> None:
        for cgroup in self.ancestry():
            cgroup._nr_members += more
            if cgroup._nr_members == max(more, 0):
                cgroup.notify("cgroup.events")

    # Events

    def count_event(self, name: str, count: int = 1) -> None:
        """Count something that happened here, in this cgroup and every ancestor, and wake who polls for it.

        Parameters
        ----------
        name
            ``low high max oom oom_kill oom_group_kill sock_throttled`` of memory.events, ``swap.high swap.max
            swap.fail`` of memory.swap.events, ``pgscan_* pgsteal_*`` of memory.stat (in pages).
        """
        file = FILE_OF_EVENT.get(name)
        with self.tree.lock:
            self.local_events[name] += count
            for cgroup in self.ancestry():
                cgroup.events[name] += count
                if file:
                    cgroup.notify(file)
            if file == "memory.events":
                self.notify("memory.events.local")

    def notify(self, name: str) -> None:
        """Wake who polls a control file, because it changed."""
        with self.tree.changed:
            self._notifications[name] = self._notifications.get(name, 0) + 1
            self.tree.wake()

    def notifications(self, name: str) -> int:
        """Return how often :meth:`notify` was called for a control file."""
        return self._notifications.get(name, 0)

    # Shape

    def cgroup(self, relative: str) -> MemCgroup:
        """Return the cgroup at a path below this one; it and its parents are made when they are missing.

        Raises
        ------
        OSError
            As :meth:`CgroupTree.make`.
        """
        return self.tree.make(relative, start=self)

    def remove(self) -> None:
        """Remove the cgroup; its entries go to its parent.  Raises as :meth:`CgroupTree.remove`."""
        self.tree.remove(self)

    def require_online(self) -> None:
        """Raise ENODEV unless the cgroup is online; EBADF when the engine was closed."""
        with self.in_use():
            pass

    def in_use(self) -> InUse:
        """Keep the cgroup online, its engine open and the tree's lock held for the length of a block.

        Raises as :meth:`require_online`.
        """
        return InUse(self)

    def alive(self) -> bool:
        """Whether the cgroup is online and the engine open; for those who wait without holding on to either."""
        return self.online and not self.tree.closed

    def preorder(self) -> Iterator[MemCgroup]:
        """Iterate over the online cgroups of the subtree: itself first, children in creation order.

        A cgroup removed meanwhile is skipped, one made meanwhile may be missed.
        """
        with self.tree.lock:
            subtree = [self]
            position = 0
            while position < len(subtree):
                subtree[position + 1 : position + 1] = subtree[position].children.values()
                position += 1
        return (cgroup for cgroup in subtree if cgroup.online)

    def ancestry(self) -> Iterator[MemCgroup]:
        """Iterate over this cgroup and its ancestors, up to the root."""
        cgroup: MemCgroup | None = self
        while cgroup is not None:
            yield cgroup
            cgroup = cgroup.parent

    def usage(self) -> int:
        """Return memory.current in bytes: resident memory and compressed zswap bytes of the subtree."""
        counters = self._counters()
        return counters[_RESIDENT] + counters[_ZSWAP]

    def usage_under(self, limit: str) -> int:
        """Return what a limit on memory is about, in bytes: for ``uzswap.resident.max`` resident memory alone."""
        if limit == "uzswap.resident.max":
            return self._counters()[_RESIDENT]
        return self.usage()

    def _counters(self) -> Sequence[int]:
        """Return what the data plane counts here.  Raises ENODEV when the cgroup was removed."""
        with self.removal_told():
            return self.zswap.core.counters(self.index)

    def removal_told(self) -> RemovalTold:
        """Have what goes wrong in a block raise ENODEV, when it is that the cgroup was removed meanwhile."""
        return RemovalTold(self)

    def effective_protection(self, target: MemCgroup) -> tuple[int, int]:
        """Return (effective memory.min, effective memory.low) in bytes when ``target`` is reclaimed.

        The target itself is never protected from its own reclaim.

        Raises
        ------
        OSError
            ENODEV when the cgroup was removed.
        InvalidArgumentError
            It is not in the target's subtree.
        """
        if require_cgroup(target, self.zswap) not in self.ancestry():
            raise InvalidArgumentError(f"{self.path} is not in the subtree of {target.path}")
        with self.tree.lock:
            if target not in self.ancestry():
                raise ValueError(f"{self.path} is not in the subtree of {target.path}")
            return self.zswap.core.effective_protection(self.index, target.index)
