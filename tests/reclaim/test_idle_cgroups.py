"""What reclaim costs depends on the cgroups that have something to give; it does not look at the others."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from tests.conftest import EngineFactory

from uzswap import MemCgroup, Store, Zswap
from uzswap.cgroup.surroundings import Reclaimed


class Watched:
    """A member that holds nothing, and counts how often it is looked at."""

    def __init__(self, cgroup: MemCgroup) -> None:
        self.cgroup = cgroup
        self.looks = 0

    @property
    def resident_bytes(self) -> int:
        self.looks += 1
        return 0

    def reclaim(self, nbytes: int) -> Reclaimed:
        self.looks += 1
        return Reclaimed(0, 0)


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


def idle_ones(z: Zswap, stack: ExitStack, n: int = 200) -> list[Watched]:
    members = [Watched(z.cgroup(f"/jobs/idle{i}/child")) for i in range(n)]
    for member in members:
        z.register(member)
        stack.callback(z.unregister, member)
    return members


def noise(i: int, nbytes: int = 50_000) -> bytes:
    return bytes((i * 37 + k * k // 7) % 251 for k in range(64)) * (nbytes // 64)


def test_a_request_without_anything_to_take_looks_at_nobody_and_says_eagain(z: Zswap) -> None:
    with ExitStack() as stack:
        members = idle_ones(z, stack)
        for source in (None, "zswap"):
            with pytest.raises(BlockingIOError):
                z.root.reclaim("1M", source=source)
        assert [member.looks for member in members] == [0] * len(members)


def test_a_charge_over_a_limit_looks_at_those_who_have_something(z: Zswap) -> None:
    jobs = z.cgroup("/jobs")
    jobs.write("memory.max", "1M")
    with ExitStack() as stack:
        members = idle_ones(z, stack)
        store = stack.enter_context(Store[int, bytes](z.cgroup("/jobs/busy")))
        for i in range(100):
            store[i] = noise(i)
        assert store.stats()["packed"] > 0
        assert [member.looks for member in members] == [0] * len(members)
        assert [store[i] for i in range(100)] == [noise(i) for i in range(100)]


def test_background_reclaim_and_the_shrink_worker_look_at_nobody_else(engine: EngineFactory) -> None:
    z = engine(max_pool=1 << 20)
    jobs = z.cgroup("/jobs")
    jobs.write("memory.high", "1M")
    with ExitStack() as stack:
        members = idle_ones(z, stack)
        visited = set()
        z.trace = lambda event: visited.add(event.cgroup)
        store = stack.enter_context(Store[int, bytes](z.cgroup("/jobs/busy")))
        for i in range(200):
            store[i] = noise(i)
        handles = z.swap_out_many(b"".join(noise(i, 4096) for i in range(600)), z.cgroup("/jobs/pages"))
        z.flush_work()
        z.trace = None
        assert visited <= {"/", "/jobs", "/jobs/busy", "/jobs/pages"}
        assert [member.looks for member in members] == [0] * len(members)
        z.free_many(handles)


@pytest.mark.parametrize("walk", ["fair", "coldest", "v5"])
def test_writeback_meets_only_cgroups_with_entries(engine: EngineFactory, walk: str) -> None:
    z = engine(walk=walk)
    for i in range(300):
        z.cgroup(f"/idle{i}")
    busy = [z.cgroup(f"/idle{i}") for i in (7, 150, 299)]
    handles = [z.swap_out(noise(i, 4096), cgroup) for i, cgroup in enumerate(busy) for _ in range(3)]
    visited = []
    z.trace = lambda event: visited.append(event.cgroup)
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            z.root.reclaim("1M", source="zswap")
    z.trace = None
    assert {z.where(handle) for handle in handles} == {"disk"}
    assert set(visited) <= {"/", *(cgroup.path for cgroup in busy)}
    for handle in handles:
        z.free(handle)


def test_the_next_in_turn_stays_the_next_in_turn_when_the_one_before_is_removed(z: Zswap) -> None:
    """Cursors are places in the order of all cgroups, so they outlive whom they point at."""
    cgroups = [z.cgroup(f"/jobs/{name}") for name in "abc"]
    for cgroup in cgroups:
        for i in range(4):
            z.swap_out(noise(i, 4096), cgroup)
    jobs = z.cgroup("/jobs")
    for cgroup in cgroups:  # no entry has a second chance left
        cgroup.reclaim("1", source="zswap")
    visited: list[str] = []

    def serve() -> str:
        before = {cgroup.path: cgroup.stats()["zswpwb"] for cgroup in cgroups if cgroup.online}
        jobs.reclaim("1", source="zswap")
        return next(path for path, count in before.items() if z.tree.lookup(path).stats()["zswpwb"] > count)

    visited.append(serve())
    cgroups[0].remove()
    visited.append(serve())
    visited.append(serve())
    assert visited == ["/jobs/a", "/jobs/b", "/jobs/c"]
