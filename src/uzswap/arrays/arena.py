"""The paged memory of an engine: opened by its first array, closed with the engine.

numpy arrays are areas of a :class:`uzswap.core.boundary.memory.Memory`.  To the engine they are one more holder of
resident memory, beside the front-ends that are members of cgroups.  They are not members: like anonymous memory in the
kernel they stay when their cgroup goes, and become its parent's.

Threads: everything may be called from any thread.  One thread waits for what the fault threads have to tell; it begins
with the memory and ends with it.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import threading
import warnings
import weakref
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final, Literal, Protocol, cast

from uzswap.arrays.kept import Kept
from uzswap.cgroup.surroundings import Reclaimed
from uzswap.core.boundary import handler as hook
from uzswap.core.boundary import memory as paged
from uzswap.errors import os_error
from uzswap.locks import Order, make_lock
from uzswap.signals import hold_back_signals
from uzswap.threads import start_thread
from uzswap.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.cgroup.tree import CgroupTree
    from uzswap.core.boundary.engine import Engine

__all__ = ["Arena", "ArraysOf", "arena_in", "arena_of", "refusal"]


def refusal(error: OSError) -> OSError:
    """Return the error that tells why there can be no arrays here, what works without them, and the remedy."""
    if error.errno == errno.ENOSYS:
        why = "the kernel has no userfaultfd, or a seccomp filter hides it"
        remedy = "use a kernel with CONFIG_USERFAULTFD; in a container: docker run --security-opt seccomp=unconfined"
    elif error.errno in (errno.EPERM, errno.EACCES):
        why = "a seccomp filter or the system's settings forbid userfaultfd"
        remedy = (
            "sudo sysctl vm.unprivileged_userfaultfd=1; in a container: docker run --security-opt seccomp=unconfined"
        )
    else:
        why, remedy = f"userfaultfd failed: {os.strerror(error.errno or 0)}", "see `uzswap doctor`"
    return os_error(
        error.errno or errno.ENOSYS,
        f"no paged arrays here: {why}.  uzswap.Store and Zswap.swap_out() work without it.  Remedy: {remedy}",
    )


def refusal_by_signal(error: OSError) -> OSError:
    """Return the error that tells why faults cannot be served by signal, and the remedy."""
    if error.errno == errno.EBUSY:
        why = "this thread blocks SIGBUS, so that the kernel would kill the process at its first fault"
        remedy = "signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGBUS}) first"
    elif error.errno == errno.EOPNOTSUPP:
        why = "it takes x86-64, Linux 6.8 and a seccomp filter of the process's own"
        remedy = "another machine, or in a container: docker run --security-opt seccomp=unconfined"
    else:
        return refusal(error)
    return os_error(error.errno, f'no faults="signal" here: {why}.  Remedy: faults="thread", the default; or {remedy}')


def _warn_of_blockers() -> None:
    if blocking := paged.sigbus_blockers():
        warnings.warn(
            f'threads {", ".join(map(str, blocking))} block SIGBUS: with faults="signal" the kernel kills the process '
            "when one of them touches an array of which a page is not resident.  If they do so, have them unblock it, "
            'or use faults="thread"',
            RuntimeWarning,
            stacklevel=2,
        )


#: seconds between two looks at what faults have met: what memory.events shows is taken when it is read
EVENTS_PAUSE: Final = 0.05


#: the events that :class:`~uzswap.core.boundary.memory.Counts` has, in its order
_COUNTED: Final = ("low", "high", "max", "oom", "swap.high", "swap.max", "swap.fail")


class ArraysOf:
    """The arrays of one cgroup as a holder of resident memory; see :class:`uzswap.reclaim.limits.ResidentOwner`."""

    def __init__(self, cgroup: MemCgroup, memory: paged.Memory) -> None:
        self.cgroup: Final = cgroup
        self._memory = memory

    @property
    def resident_bytes(self) -> int:
        return self._memory.own_pages(self.cgroup.index) * PAGE_SIZE

    def reclaim(self, nbytes: int) -> Reclaimed:
        asked = -(-nbytes // PAGE_SIZE)
        gone = self._memory.reclaim_own(self.cgroup.index, asked)
        return Reclaimed(asked if gone else 0, gone * PAGE_SIZE)


class ArrayHost(Protocol):
    """The engine, as its arena sees it."""

    arena: Arena

    @property
    def core(self) -> Engine: ...

    @property
    def tree(self) -> CgroupTree: ...

    @property
    def root(self) -> MemCgroup: ...

    @property
    def faults(self) -> Literal["thread", "signal"]: ...

    @property
    def closing(self) -> bool: ...

    def over_high(self, memcg: MemCgroup) -> None: ...

    def wake_shrink_worker(self) -> None: ...


def arena_in(cgroup: MemCgroup) -> Arena:
    """Return the arena of a cgroup's engine; cgroups know nothing of arrays."""
    return cast(ArrayHost, cgroup.zswap).arena


class Arena:
    """Where the arrays of an engine live.

    Attributes
    ----------
    memory : Memory or None
        None until there is an array.
    """

    def __init__(self, zswap: ArrayHost) -> None:
        self.zswap: Final = zswap
        self.memory: paged.Memory | None = None
        self._lock = make_lock(Order.ARENA)
        #: set when the memory goes
        self.closing = threading.Event()
        #: by index of the cgroup that they allocate in now; guarded by the tree's lock
        self._handlers: defaultdict[int, weakref.WeakSet[hook.Handler]] = defaultdict(weakref.WeakSet)
        self._listener: threading.Thread | None = None
        self._finalizer: weakref.finalize[[], ArrayHost] | None = None
        #: no arrays are made any more
        self._ends = False
        self.kept: Final = Kept()
        zswap.tree.on_remove.append(self._cgroup_goes)

    def open(self) -> paged.Memory:
        """Return the memory, opened when there is none yet.

        Raises
        ------
        OSError
            userfaultfd is refused: its errno, and a text that says what still works; EAGAIN no thread can be had; EBADF
            the engine is being closed.  With ``faults="signal"``: EOPNOTSUPP it cannot be had here, EBUSY the calling
            thread blocks SIGBUS.

        Warns
        -----
        RuntimeWarning
            With ``faults="signal"``: other threads block SIGBUS.
        """
        with self._lock:
            if self._ends:
                raise os_error(errno.EBADF, "the engine is closed: make a new one")
            if self.memory is None:
                by_signal = self.zswap.faults == "signal"
                # An exception of a handler in here would leave the engine with memory that nobody has.
                with hold_back_signals():
                    try:
                        memory = paged.Memory(self.zswap.core, by_signal=by_signal)
                    except OSError as error:
                        raise (refusal_by_signal if by_signal else refusal)(error) from None
                    try:
                        self._listener = start_thread("uzswap-arrays", _listen, weakref.ref(self.zswap), memory)
                    except OSError:
                        memory.close()
                        raise
                    self.memory = memory
                    with _registering:
                        _add(self)
                    # Not at exit: arrays may outlive everything else.
                    self._finalizer = weakref.finalize(self.zswap, self.memory.close)
                    self._finalizer.atexit = False
                if by_signal:
                    _warn_of_blockers()
            return self.memory

    def handler(self, cgroup: MemCgroup, least: int = 0, item: int = 0, *, shared: bool = True) -> hook.Handler:
        """Return a data handler that allocates in a cgroup; raises as :meth:`open`, and ENODEV.

        Parameters
        ----------
        least
            Bytes; what is smaller is left to malloc.
        item
            Bytes of a number, until an array tells its own.
        shared
            It may be one that others use as well: it is never turned off.
        """
        with cgroup.in_use():
            memory = self.open()
            handlers = self._handlers[cgroup.index]
            handler = next((known for known in handlers if known.shared), None) if shared else None
            if handler is None:
                memory.name_memcg(cgroup.index, os.fsencode(cgroup.path))
                handler = hook.Handler(memory, self, cgroup.index, least, item, shared)
                handlers.add(handler)
            return handler

    def holder(self, cgroup: MemCgroup) -> tuple[ArraysOf, ...]:
        """Return what holds the arrays of a cgroup, if there may be any."""
        return () if self.memory is None else (ArraysOf(cgroup, self.memory),)

    def resident_bytes(self) -> int:
        """Return what all arrays have resident."""
        return 0 if self.memory is None else self.memory.info().resident * PAGE_SIZE

    def _cgroup_goes(self, cgroup: MemCgroup) -> None:
        """Called under the tree's lock: arrays, and what will yet be allocated in the cgroup, become the parent's."""
        if self.memory is None or cgroup.parent is None:
            return
        parent = cgroup.parent.index
        for handler in (orphans := self._handlers.pop(cgroup.index, weakref.WeakSet())):
            handler.move(parent)
        self._handlers[parent] |= orphans

    def count_faults(self, cgroup: MemCgroup, *, acts: bool = False) -> None:
        """Count what faults have met since the last call, in the events and the pressure of a cgroup's subtree.

        Whoever only wants to read the counts does not act on them: the listener does that, soon.
        """
        if self.memory is None:
            return
        with cgroup.in_use():
            for memcg in cgroup.preorder():
                met = self.memory.take_counts(memcg.index, acts)
                for name, times in zip(_COUNTED, met, strict=False):
                    if times:
                        memcg.count_event(name, times)
                if acts and met.over_high and memcg.members:
                    # The data plane evicts pages of arrays; other front-ends do their part.
                    self.zswap.over_high(memcg)
                if met.some_ns:
                    memcg.pressure.add(met.some_ns, met.full_ns)

    def settle(self) -> None:
        """Wait until all is done that faults have set off: eviction in the background, reading ahead."""
        if self.memory is not None and not self.memory.info().broken:
            self.memory.settle()

    # The end

    def require_no_arrays(self) -> None:
        """Have no more arrays made, or raise EBUSY when some are alive; then nothing has changed.

        When a thread that serves faults was killed they keep what they have, and do not keep the engine from closing.
        """
        with self._lock:
            # Also those of other threads that are inside a call yet.
            self._ends = True
        if self.memory is None or self.memory.info().broken:
            return
        if hook.alive(self.memory):
            gc.collect()
        with self.zswap.tree.lock:
            handlers = [handler for members in self._handlers.values() for handler in members]
            for handler in handlers:
                handler.hold(True)
            if not (alive := hook.alive(self.memory)):
                return
            for handler in handlers:
                handler.hold(False)
            self._ends = False
        number, nbytes = Counter(memcg for memcg, _ in alive), Counter[int]()
        for memcg, size in alive:
            nbytes[memcg] += size
        told = ", ".join(
            f"{number[memcg]} of {self.zswap.tree.by_index(memcg).path} ({format_size(nbytes[memcg])})"
            for memcg in sorted(number)
        )
        raise os_error(
            errno.EBUSY,
            f"the engine cannot be closed while {len(alive)} of its arrays are alive: {told}; "
            "delete them, their views and whatever else refers to them first",
        )

    def close(self) -> None:
        """Give everything back.  No array is alive; the data plane is still open."""
        if self.memory is None:
            return
        self.closing.set()
        broken = self.memory.info().broken
        self.memory.close()
        if self._listener is not None and not broken:
            self._listener.join()

    def forked(self, here: bool) -> None:
        """In a forked child, where an engine came along or not: begin the thread anew, or forget everything."""
        if self.memory is None:
            return
        self.closing = threading.Event()
        if here and self.memory.forked():
            # Without it limits are met all the same, later.
            with contextlib.suppress(OSError):
                self._listener = None
                self._listener = start_thread("uzswap-arrays", _listen, weakref.ref(self.zswap), self.memory)
            return
        _abandoned.append(self.memory)
        if self._finalizer is not None:
            self._finalizer.detach()
        self.memory = None
        # What they would have allocated there is malloc's.
        for handlers in self._handlers.values():
            for handler in handlers:
                handler.turn_off()
        self._handlers.clear()


_registering = make_lock(Order.ARENAS)
#: those with a memory; replaced, never changed, so that it can be gone through without a lock
_arenas: tuple[weakref.ref[Arena], ...] = ()
_abandoned: list[object] = []


def _add(arena: Arena) -> None:
    global _arenas
    _arenas = (*(known for known in _arenas if known() is not None), weakref.ref(arena))


def arena_of(address: int) -> tuple[Arena, int] | None:
    """Return the arena and the area that an address is in, if it is in any."""
    for known in _arenas:
        arena = known()
        memory = None if arena is None else arena.memory
        if arena is not None and memory is not None and (area := hook.find(memory, address)):
            return arena, area
    return None


def _listen(engine: weakref.ref[ArrayHost], memory: paged.Memory) -> None:
    """Pass on what the fault threads tell, until the memory is closed.  Keeps no engine alive."""
    while events := _next_events(memory):
        zswap = engine()
        if zswap is None:
            return
        if events & paged.POOL_FULL:
            zswap.wake_shrink_worker()
        if events & paged.SWAP and zswap.core.device() is not None:
            # Whether what is kept for forked children is wanted yet only the program's threads can tell.
            zswap.core.lent()
        if events & ~paged.POOL_FULL:
            try:
                zswap.arena.count_faults(zswap.root, acts=True)
            except OSError:
                if not zswap.closing:
                    raise
        closing = zswap.arena.closing
        del zswap
        # Faults may meet a limit thousands of times a second.
        closing.wait(EVENTS_PAUSE)


def _next_events(memory: paged.Memory) -> int:
    try:
        return memory.wait_events()
    except ValueError:  # closed since the last look
        return 0
