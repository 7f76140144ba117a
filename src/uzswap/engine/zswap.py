"""The engine as its users see it: :class:`Zswap`.

It owns the parts and says who acts when; what they do is in their own files:

=========================  =========================================================================================
engine/pages.py            entries by their handles
engine/paging.py           what is behind that: the swap-out decision, errors of loads
engine/parameters.py       the module parameters, the pool limit
engine/lifetime.py         closing, forking
reclaim/limits.py          front-ends and their charges: memory.high, memory.max
reclaim/resident.py        ordinary reclaim of resident memory, with shrinker.py beside it
reclaim/writeback.py       writeback requests; walks/ are the three ways to choose what is written
arrays/arena.py            numpy arrays, whose pages come and go on faults
serve/serving.py           mounts and sockets
=========================  =========================================================================================

The module is compiled, so that no signal handler runs between two of its steps (setup.py, ``UNTORN``).
"""

from __future__ import annotations

import errno
import operator
import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, NoReturn, Self, cast

from uzswap.arrays.arena import Arena
from uzswap.cgroup.memcg import MemCgroup, require_cgroup
from uzswap.cgroup.reclaim import ReclaimRequest
from uzswap.cgroup.recompress import RecompressRequest, RecompressResult
from uzswap.cgroup.tree import CgroupTree
from uzswap.core.boundary.engine import MAX_NODES, Engine
from uzswap.core.boundary.handler import find
from uzswap.devices import SwapFile, open_swap, use_encryption
from uzswap.engine.agreement import disagreements
from uzswap.engine.lifetime import ForkedEngine, ForkedLifetime, Lifetime, on_fork
from uzswap.engine.pages import Pages
from uzswap.engine.paging import Paging
from uzswap.engine.parameters import Compressor, Parameters, parse_max_pool
from uzswap.engine.worker import Worker
from uzswap.errors import InvalidArgumentError
from uzswap.files.cgroup import CGROUP_FILES
from uzswap.locks import Order, make_rlock
from uzswap.reclaim.limits import HARD_LIMITS, ResidentOwner, Residents
from uzswap.reclaim.proactive import proactive_writeback
from uzswap.reclaim.recompress import recompress
from uzswap.reclaim.resident import ResidentReclaim
from uzswap.reclaim.shrinker import DynamicShrinker
from uzswap.reclaim.state import ReclaimState
from uzswap.reclaim.trace import Trace
from uzswap.reclaim.walks import Walk, make_walks
from uzswap.serve.serving import Serving
from uzswap.signals import hold_back_signals
from uzswap.units import NO_LIMIT, is_path, parse_size

if TYPE_CHECKING:
    from uzswap.result import ReclaimResult
    from uzswap.serve.fuse import Mount
    from uzswap.serve.server import Server

__all__ = ["Zswap"]


class Zswap(Pages):
    """A compressed pool in RAM in front of a swap file, with a tree of memory cgroups.

    Parameters
    ----------
    swap
        "auto" makes a file without a name, gone with the process whatever ends it; a path names a file (made with mode
        0600 when it is missing) or a block device; None is no device: nothing is written back, and what zswap refuses
        stays with the caller.
    swap_size
        Most that the file may hold, bytes or text such as "8G"; at least 4 MiB.  Nothing is reserved.
    max_pool
        Most memory of the pool: "20%" of the machine's RAM (also None), or a size.
    accept_threshold_percent
        Once the pool was full, it refuses until it is down to this share of its maximum.
    compressor
        "lz4", "zstd", or with a level: "zstd:9", "lz4:4" (acceleration).
    walk
        Which entry ``source=zswap`` writes next: "fair", "coldest" or "v5" (see :mod:`uzswap.reclaim.walks`).
    nodes
        NUMA nodes to keep LRUs for, 1 to 8.
    paranoid
        Keep a checksum of each entry's bytes from store to load: whatever happens to them in the pool, in a compressor
        or on the device is an :class:`~uzswap.errors.IntegrityError` of that entry.  What is on the device has a
        checksum always.
    encrypt
        Whether what is written to the device is encrypted (AES-256-GCM), with a key that ends with the process.  None:
        what has a name is, a file without one, whose blocks the kernel frees with the process, is not: see
        docs/benchmarks.md for what it costs.
    faults
        Who serves a fault on an array: "thread", a thread of the engine, which asks nothing of the program; or
        "signal", the thread that it is in, in a handler of SIGBUS, which has conditions (docs/semantics.md, arrays).

    Attributes
    ----------
    tree : CgroupTree
        All cgroups.
    parameters : Parameters
        The module parameters, by name.
    walk : Walk
        The one in use; ``parameters.set("uzswap.walk", name)`` changes it.
    trace : callable or None
        Called with a :class:`~uzswap.reclaim.trace.TraceEvent` after each batch of each walk.
    swap : SwapFile or None
    core : Engine
        The data plane.
    arena : Arena
        Where numpy arrays live; opened by the first of them.
    heap : HeapTrim
        Around what swaps objects out: gives the memory back to the system.

    Raises
    ------
    InvalidArgumentError
        A size, percentage or number of nodes that cannot be.
    FileNotFoundError
        There is no such compressor or walk.
    OSError
        The swap device cannot be used; see :func:`uzswap.devices.swap_file.open_swap`.  EOPNOTSUPP, EPERM it must be
        encrypted and cannot be; see :func:`uzswap.devices.cipher.use_encryption`.
    MemoryError
        An address-space limit leaves no room for the tables.

    Notes
    -----
    Threads may share an engine.  A forked child has its own copy of it, with all that is in it.

    Examples
    --------
    >>> with Zswap(swap_size="64M") as z:
    ...     job = z.cgroup("/job")
    ...     handle = z.swap_out(b"some text " * 400, job)
    ...     z.where(handle), job.reclaim("1", source="zswap").entries, z.where(handle)
    ...     z.fault_in(handle) == b"some text " * 400
    ('zswap', 1, 'disk')
    True
    """

    def __init__(
        self,
        swap: str | os.PathLike[str] | None = "auto",
        swap_size: str | int = "8G",
        max_pool: str | int | None = None,
        accept_threshold_percent: int = 90,
        compressor: str = "lz4",
        walk: str = "fair",
        nodes: int = 1,
        paranoid: bool = False,
        encrypt: bool | None = None,
        faults: Literal["thread", "signal"] = "thread",
    ) -> None:
        if faults not in ("thread", "signal"):
            raise InvalidArgumentError(f'faults={faults!r}: faults are served by "thread" or by "signal"')
        limit = parse_max_pool(max_pool, accept_threshold_percent)
        chosen = Compressor.parse(compressor)
        nbytes = parse_size(swap_size)
        if swap is not None and not is_path(os.fspath(swap)):
            raise InvalidArgumentError(
                f"swap={swap!r} is no path: it has a NUL in it, or characters that stand for no bytes"
            )
        if not 1 <= operator.index(nodes) <= MAX_NODES:
            raise InvalidArgumentError(f"nodes={nodes}: there can be 1 to {MAX_NODES}")
        if encrypt is not None and not isinstance(encrypt, bool):
            raise TypeError(f"encrypt is True, False or None, not {encrypt!r}")
        self.nodes: Final = nodes
        self.faults: Final = faults
        self._closed = False
        self.core = Engine(nodes, bool(paranoid))
        self.tree = CgroupTree(self, CGROUP_FILES)
        self.reclaim_state = ReclaimState(self.core, self.tree, nodes)
        self.heap: Final = self.reclaim_state.heap
        self.walks = make_walks(self.tree)
        self.parameters = Parameters(self.reclaim_state, self.walks, limit, chosen, walk)
        self.shrinker = DynamicShrinker(self.reclaim_state)
        self.reclaimer = ResidentReclaim(self.reclaim_state, self._walk_in_use, self.shrinker)
        self.arena = Arena(self)
        self.reclaim_state.others = self.arena.holder
        self.reclaim_state.others_bytes = self.arena.resident_bytes
        self._residents: Residents
        self._high_worker = Worker("uzswap-high", lambda: self._residents.reclaim_over())
        self._residents = Residents(self.reclaim_state, self.reclaimer, self._high_worker.wake)
        self._paging = Paging(self.reclaim_state, self._walk_in_use, self.wake_shrink_worker, self)
        self._shrink_worker = Worker("uzswap-shrink", lambda: self.walk.relieve_pool(self.reclaim_state))
        self.lifetime = Lifetime()
        # Reentrant: a signal handler may close the engine while its thread is closing it.
        self._closing_lock = make_rlock(Order.CLOSING)
        self._serving = Serving(self, lambda: self.lifetime)
        # Last: whatever fails above leaves no file behind.
        use_encryption(self.core, swap, encrypt)
        self.swap: SwapFile | None = open_swap(swap, nbytes)
        if self.swap is not None:
            try:
                self.swap.attach(self.core)
            except OSError:
                self.swap.close()
                raise
            self.reclaim_state.has_device = True
        on_fork(self, Zswap._forked)

    # Life

    def __copy__(self) -> Self:
        """There is one of each engine: a copy of what names it names the same."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("an engine can't be pickled: it is memory and files of this process; make one where it is used")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except OSError as busy:
            if error is None or busy.errno != errno.EBUSY:
                raise
            # The frames of an error on its way keep arrays alive: it must not be hidden behind that.
            error.add_note(f"uzswap: {busy.strerror}; this one closes itself with the last of them")

    def close(self) -> None:
        """Free everything: memory, file, threads.  Calling it again does nothing.

        Requests under way end with EINTR, other calls are waited for; later ones are OSError (EBADF).  A signal handler
        may raise out of it: then it is to be called again, and goes on.

        Raises
        ------
        OSError
            EBUSY: arrays are alive, or the call comes from within one of the engine's own.  Nothing was closed.
        """
        if isinstance(self.lifetime, ForkedLifetime):
            return
        self.lifetime.require_outside()
        with self._closing_lock:
            with hold_back_signals():
                if self._closed:
                    return
                self.arena.require_no_arrays()
                self.reclaim_state.closing = True
                self._serving.close()
                self._shrink_worker.close()
                self._high_worker.close()
            # Handlers run in here, and may raise: a call of another thread may take long.
            self.lifetime.end()
            with hold_back_signals():
                self._take_down()
        self.heap.trim()

    def _take_down(self) -> None:
        if self._closed:  # by a handler, just now
            return
        self.tree.close()
        if not self.core.closed:
            self.arena.close()
            try:
                if self.swap is not None:
                    self.swap.erase()
            finally:
                # Before its threads end: as long as they have the device, no other file can be taken for it.
                if self.swap is not None:
                    self.swap.close()
                self.core.close()
        self._closed = True

    @property
    def closing(self) -> bool:
        """Whether :meth:`close` has begun, or is over."""
        return self.reclaim_state.closing

    @property
    def walk(self) -> Walk:
        """The walk in use."""
        return self.walks[self.reclaim_state.walk]

    def _walk_in_use(self) -> Walk:
        return self.walk

    @property
    def trace(self) -> Trace | None:
        """Called with a :class:`~uzswap.reclaim.trace.TraceEvent` after each batch of each walk."""
        return self.reclaim_state.trace

    @trace.setter
    def trace(self, trace: Trace | None) -> None:
        self.reclaim_state.trace = trace

    def _forked(self) -> None:
        """Called in a forked child, where all locks have been renewed: go on with what came along, or with nothing."""
        here = self.core.is_here and (self._closed or not self.closing)
        if here:
            self.lifetime.forked()
            self._paging.forked()
            self._residents.forked()
            self.tree.forked()
            self._high_worker.forked()
            self._shrink_worker.forked()
        # It starts a thread, for which all else has to be there.
        self.arena.forked(here)
        if not here and not self._closed:
            self.lifetime = ForkedLifetime()
            self.core = self.reclaim_state.core = cast(Engine, ForkedEngine(self.core))
        if self.swap is not None and not self.swap.file.closed:
            self.swap.forked(here)

    # Cgroups

    @property
    def root(self) -> MemCgroup:
        """The cgroup "/"."""
        return self.tree.root

    def cgroup(self, path: str) -> MemCgroup:
        """Return the cgroup at an absolute path; it and its parents are made when they are missing.

        Raises
        ------
        OSError
            EINVAL for a name no directory could have, ENAMETOOLONG, EAGAIN for too many cgroups.
        """
        with self.lifetime:
            return self.tree.make(path)

    # Reclaim

    def reclaim(
        self, memcg: MemCgroup, request: ReclaimRequest, cancel: Callable[[], bool] | None = None
    ) -> ReclaimResult:
        """Carry out a ``memory.reclaim`` request; :meth:`MemCgroup.reclaim` is the friendlier form.

        Raises
        ------
        OSError
            EINVAL when writeback is off for the cgroup and ``source=zswap`` was asked for.
        ReclaimError
            Less was done than asked; see :func:`~uzswap.reclaim.proactive.proactive_writeback`.
        """
        require_cgroup(memcg, self)
        if not isinstance(request, ReclaimRequest):
            raise TypeError(f"a ReclaimRequest is needed, not {type(request).__name__}: use MemCgroup.reclaim()")
        with self.lifetime:
            if request.source == "zswap":
                return proactive_writeback(
                    self.reclaim_state, self.walk, memcg, request.nbytes, min_age=request.min_age, cancel=cancel
                )
            return self.reclaimer.proactive(memcg, request, cancel)

    def has_paged_memory(self) -> bool:
        """Return whether there is, or was, an array in paged memory."""
        return self.arena.memory is not None

    def is_paged(self, address: int) -> bool:
        """Return whether an address lies in such an array: what is there is charged as it comes and goes."""
        memory = self.arena.memory
        return memory is not None and find(memory, address) != 0

    def recompress(
        self, memcg: MemCgroup, request: RecompressRequest, cancel: Callable[[], bool] | None = None
    ) -> RecompressResult:
        """Carry out a ``uzswap.recompress`` request; :meth:`MemCgroup.recompress` is the friendlier form."""
        require_cgroup(memcg, self)
        compressor = Compressor.parse(request.codec)
        with self.lifetime:
            return recompress(self.reclaim_state, memcg, request, compressor.codec, compressor.level, cancel)

    def over_high(self, memcg: MemCgroup) -> None:
        """Have a cgroup brought back to its ``memory.high`` in the background."""
        self._residents.over_high(require_cgroup(memcg, self))

    def limit_changed(self, memcg: MemCgroup, name: str) -> None:
        """Reclaim down to a limit on memory that was just written: ``memory.high``, or a hard one (SPEC 7.2)."""
        if name in ("memory.high", *HARD_LIMITS) and memcg.limits[name] != NO_LIMIT:
            with self.lifetime, memcg.removal_told():
                self._residents.enforce(memcg, name)

    def wake_shrink_worker(self) -> None:
        """Have the pool brought down to its accept threshold in the background."""
        if self.swap is not None:
            with hold_back_signals():
                self._shrink_worker.wake()

    def pool_over_threshold(self) -> int:
        """Return the pages that the pool has above its accept threshold: what the shrink worker still has to do."""
        return self.reclaim_state.pool_over_threshold()

    def count_faults(self, memcg: MemCgroup) -> None:
        """Have events and pressure of a subtree say what faults on arrays have met until now."""
        self.arena.count_faults(memcg)

    def flush_work(self) -> None:
        """Wait until no background reclaim or writeback is under way, as it is at once when the engine is closed."""
        if self.core.closed and not isinstance(self.lifetime, ForkedLifetime):
            return
        with self.lifetime:
            self._shrink_worker.flush()
            self._high_worker.flush()
            self.arena.settle()
            if self.swap is not None and not self.core.closed:
                self.core.settle_device()

    # Front-ends

    def register(self, owner: ResidentOwner) -> None:
        """Make a front-end a member of its cgroup, to be asked for memory.

        Raises
        ------
        OSError
            ENODEV when the cgroup was removed; EINVAL when it is registered already.
        """
        require_cgroup(getattr(owner, "cgroup", owner), self)
        with self.lifetime:
            self._residents.register(owner)

    def unregister(self, owner: ResidentOwner) -> None:
        """Undo :meth:`register`."""
        self._residents.unregister(owner)

    def charge(self, memcg: MemCgroup, nbytes: int, *, force: bool = False) -> None:
        """Charge resident memory to a cgroup before it is taken into use; reclaims where a limit says so.

        Parameters
        ----------
        force
            For what must not fail, such as loading a value that was accepted: go over a limit that cannot be met.

        Raises
        ------
        MemoryError
            ``memory.max`` cannot be met and nothing more can go.  Nothing is charged.
        """
        require_cgroup(memcg, self).require_online()
        with self.lifetime, memcg.removal_told():
            self._residents.charge(memcg, parse_size(nbytes), force)

    def uncharge(self, memcg: MemCgroup, nbytes: int) -> None:
        """Take back a charge."""
        with self.lifetime, require_cgroup(memcg, self).removal_told():
            # No lock and nothing in Python on the usual way: a handler that raises there would leave it charged.
            if not memcg.online:
                memcg.require_online()
            plain = type(nbytes) is int and 0 <= nbytes < NO_LIMIT
            self._residents.uncharge(memcg, nbytes if plain else parse_size(nbytes))

    # Control files outward

    def mount(self, path: str | os.PathLike[str], *, allow_other: bool = False) -> Mount:
        """Mount the control files, until the mount or the engine is closed; see :class:`~uzswap.serve.fuse.Mount`."""
        return self._serving.mount(path, allow_other=allow_other)

    def serve(
        self, path: str | os.PathLike[str] | None = None, *, port: int | None = None, web: bool = False
    ) -> Server:
        """Serve the control files on a Unix socket, by default where the ``uzswap`` command finds it.

        See :class:`~uzswap.serve.server.Server`.
        """
        return self._serving.serve(path, port=port, web=web)

    # Looking inside

    @property
    def swap_path(self) -> str | None:
        """Where the swap device is; ``DIRECTORY/(unlinked)`` for a file without a name, None for no device."""
        return None if self.swap is None else self.swap.path

    def check(self) -> None:
        """Verify every invariant of the engine; meant for quiet moments, since other threads may be in between steps.

        The engine's own background work is waited for.

        Raises
        ------
        AssertionError
            With all that is off, in words.
        """
        self.flush_work()
        with self.lifetime:
            wrong = [
                *self.core.check(),
                *disagreements(self.core, self.tree, self.parameters.enabled, self._residents.owners()),
            ]
        if wrong:
            raise AssertionError("\n".join(wrong))
