"""One policy on one trace, and many of them beside one another."""

from __future__ import annotations

import concurrent.futures
import importlib
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uzswap import MemCgroup, Zswap
from uzswap.agent.budget import Budget
from uzswap.agent.config import Config
from uzswap.agent.loop import Agent
from uzswap.agent.observe import numbers
from uzswap.agent.records import Record, Records
from uzswap.agent.requests import InlineRequests
from uzswap.agent.tree import Tree
from uzswap.replay.belady import Belady
from uzswap.replay.lengths import MEMORY, class_of, payloads
from uzswap.replay.machine import Pages, Virtual, VirtualRoot
from uzswap.replay.model import Costs, laid_out
from uzswap.replay.traces import PAGE, Trace, read_trace

__all__ = ["NO_FLOORS", "Case", "Outcome", "replay", "replay_many"]

#: seconds: longest step of virtual time
_STEP: Final = 6.0
#: A trace is a small model of a workload; floors in bytes are for large ones.
NO_FLOORS: Final[Mapping[str, object]] = {"senpai.limit_min": 0}
#: a file system in memory
_MEMORY: Final = "/dev/shm"
#: points of a course over time
_POINTS: Final = 200


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be replayed."""

    trace: str
    policy: str
    #: ``policy.setting`` or ``agent.setting`` -> value
    given: Mapping[str, object] = field(default_factory=dict)
    costs: Costs = field(default_factory=Costs)
    lengths: tuple[int, ...] = MEMORY

    @property
    def config(self) -> Config:
        """What the agent is configured with.

        Raises
        ------
        InvalidArgumentError
            There is no such policy or setting.
        """
        given = {"agent.watch": (VirtualRoot.PATH,), **NO_FLOORS, **self.given, "policy": self.policy}
        return Config().with_default(given)


@dataclass(slots=True)
class Outcome:
    """What came of it.  Shares are of the bytes of all pages touched so far, averaged over virtual time; ``lost_share``
    is of the run's virtual time."""

    case: Case
    accesses: int = 0
    seconds: float = 0.0
    saved_share: float = 0.0
    lost_share: float = 0.0
    from_zswap: int = 0
    from_disk: int = 0
    written_bytes: int = 0
    best: float = 0.0
    #: (virtual seconds, share saved then)
    course: list[tuple[float, float]] = field(default_factory=list)
    #: the curve of the best, (lost, saved)
    curve: list[tuple[float, float]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the figures."""
        return {
            "policy": self.case.policy,
            "accesses": self.accesses,
            "saved_share": self.saved_share,
            "lost_share": self.lost_share,
            "refaults": {"zswap": self.from_zswap, "disk": self.from_disk},
            "written_bytes": self.written_bytes,
            "belady": {"saved_share": self.best, "lost_share": self.lost_share},
        }


def replay(case: Case) -> Outcome:
    """Replay a trace under a policy.  It takes an engine of its own, with an unlinked swap file.

    Raises
    ------
    OSError
        The trace cannot be read; there is no room for the swap file.
    InvalidArgumentError
        There is no such policy or setting.
    """
    config = case.config
    trace = read_trace(case.trace)
    times = laid_out(trace, case.costs)
    kind = class_of(trace.footprint, len(case.lengths))
    made = payloads(case.lengths)
    disk = case.costs.of_disk(trace.together)
    footprint = trace.footprint * PAGE
    outcome = Outcome(case, accesses=len(times))
    # A pool that is never full, so that nothing happens in the background: what is replayed once comes out again.
    size = max(2 * footprint, 64 << 20)
    with (
        tempfile.TemporaryDirectory(dir=_fastest(size)) as where,
        Zswap(swap=f"{where}/swap", swap_size=size, max_pool=2 * footprint + (16 << 20)) as z,
    ):
        cgroup = z.cgroup(VirtualRoot.PATH)
        pages = Pages(z, cgroup, trace.footprint, made, kind)
        clock = Virtual(z)
        root = VirtualRoot(z, pages, clock, footprint)
        tree = Tree(root, "/cgroup", case.trace, "", "/zswap/parameters", engine=True)
        records = Records(None, 1, 1, _ignore)
        budget = Budget(config.agent.swapout_rate, config.agent.swapout_day, None, _ignore)
        agent = Agent(tree, config, InlineRequests(tree), records, budget, clock=clock, say=_ignore)
        try:
            _drive(outcome, trace, times, disk, agent, clock, root, pages)
        finally:
            agent.close()
            pages.close()
        outcome.written_bytes = int(_counters(cgroup)["zswpwb_proactive_b"])
        outcome.records = records.recent()
    packed = np.array(_measured(made))[kind]
    best = Belady.of(trace.pages, times, packed, PAGE, case.costs.zswap, disk)
    outcome.best = best.at(outcome.lost_share)
    grid = np.geomspace(1e-6, 0.1, 60)
    outcome.curve = [(float(lost), best.at(float(lost))) for lost in grid]
    return outcome


def _fastest(nbytes: int) -> str | None:
    """Return where the swap file is best: in memory, if there is plenty; times are the model's, not the disk's."""
    try:
        there = os.statvfs(_MEMORY)
    except OSError:
        return None
    return _MEMORY if there.f_bavail * there.f_frsize > 2 * nbytes else None


def _ignore(text: str) -> None:
    """Say nothing."""


def _drive(
    outcome: Outcome,
    trace: Trace,
    times: NDArray[np.float64],
    disk: NDArray[np.float64],
    agent: Agent,
    clock: Virtual,
    root: VirtualRoot,
    pages: Pages,
) -> None:
    """Let accesses and the agent take turns until the trace is over.

    Its accesses come later by what has been lost until then: a workload that waits does nothing else meanwhile.
    """
    pages_at, whens, costs = trace.pages.tolist(), times.tolist(), disk.tolist()
    zswap_cost = outcome.case.costs.zswap
    now, lost, at, saved, area = 0.0, 0.0, 0, 0.0, 0.0
    end = whens[-1]
    every, due = end / _POINTS, 0.0
    while True:
        until = min(now + min(max(agent.round(), 1e-3), _STEP), end + lost)
        upto = int(np.searchsorted(times, until - lost, side="right"))
        loads = pages.access(pages_at[at:upto], whens[at:upto], costs[at:upto], zswap_cost)
        at = upto
        seconds = loads.zswap_seconds + loads.disk_seconds
        before, now = now, until + seconds
        lost += seconds
        outcome.from_zswap += loads.zswap
        outcome.from_disk += loads.disk
        elapsed = max(now - before, 1e-9)
        root.memory.add(seconds, elapsed)
        root.io.add(loads.disk_seconds, elapsed)
        clock.set(now)
        # What was in use at the end of a step is taken for all of it: never less than it was.
        saved = _saved(pages)
        area += saved * (now - before)
        if now >= due:
            outcome.course.append((now, saved))
            due += every
        if at >= len(pages_at) and now >= end + lost - 1e-9:
            break
    outcome.seconds = now
    outcome.saved_share = area / now if now else 0.0
    outcome.lost_share = lost / now if now else 0.0


def _saved(pages: Pages) -> float:
    touched = pages.touched_bytes
    if not touched:
        return 0.0
    return max(0.0, 1 - (pages.resident_bytes + pages.packed_bytes) / touched)


def _counters(cgroup: MemCgroup) -> dict[str, str]:
    return numbers(cgroup.read("memory.stat"))


def _measured(made: NDArray[np.uint8]) -> list[int]:
    """Return what each payload compresses to in this engine."""
    with Zswap(swap=None) as z:
        group = z.cgroup("/lengths")
        found = []
        for row in made:
            handles = z.swap_out_many(row, group)
            # What does not compress is refused where there is no device; elsewhere it is kept as it is.
            found.append(int(_counters(group)["zswap"]) if handles[0] else PAGE)
            z.free_many(handles[handles != 0])
    return found


def replay_many(cases: Sequence[Case], workers: int | None = None, scheduler: str | None = None) -> Iterator[Outcome]:
    """Replay cases beside one another, in processes, or on a Dask cluster; yields outcomes in the order of the cases.

    Parameters
    ----------
    workers
        How many; by default as many as there are CPUs.
    scheduler
        Address of a Dask scheduler, whose workers can read the traces.

    Raises
    ------
    ImportError
        A scheduler is given, and distributed is not there.
    OSError
        As :func:`replay`.
    """
    for case in cases:
        _ = case.config  # what is wrong is told at once
    if scheduler is not None:
        yield from _on_dask(cases, scheduler)
    elif len(cases) == 1 or workers == 1:
        yield from map(replay, cases)
    else:
        # Not forked: an engine of the parent's could not be used in there, and threads would not be.
        context = multiprocessing.get_context("spawn")
        count = min(workers or len(os.sched_getaffinity(0)), len(cases))
        with concurrent.futures.ProcessPoolExecutor(count, mp_context=context) as pool:
            yield from pool.map(replay, cases)


def _on_dask(cases: Sequence[Case], scheduler: str) -> Iterator[Outcome]:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise ImportError("a cluster needs distributed: pip install 'uzswap[dask]'") from error
    with distributed.Client(scheduler) as client:
        run: Callable[[Case], Outcome] = replay
        for future in client.map(run, cases, pure=False):
            yield future.result()
