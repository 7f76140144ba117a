"""SPEC 8 group G: nodes, races and device errors, on walk="v5"."""

import errno
import threading
from collections.abc import Callable

import pytest
from tests.conftest import EngineFactory
from tests.support.faulty import FaultySwap
from tests.support.pages import page_of_length
from tests.support.states import OK, Outcome, debug_delta, fill, left, lru_lengths, places, reclaim, stat, stat_delta

from uzswap import MemCgroup, ReclaimIncomplete, TraceEvent, Zswap

EAGAIN = errno.EAGAIN


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine(walk="v5")


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


def in_background(call: Callable[[], Outcome]) -> Callable[[], Outcome]:
    """Start a request in a thread; call the answer to wait for its outcome."""
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(call()))
    thread.start()

    def wait() -> Outcome:
        thread.join()
        return outcomes[0]

    return wait


def test_G1_node_0_is_drained_first(engine: EngineFactory) -> None:
    z = engine(walk="v5", nodes=2)
    g = z.cgroup("/g")
    fill(z, g, 100, 2000, referenced=False, node=0)
    fill(z, g, 100, 2000, referenced=False, node=1, seed=100)
    assert reclaim(g, 1) == (OK, 128_000)
    assert lru_lengths(z, g) == [36, 100]
    assert reclaim(g, 1) == (OK, 128_000)
    assert lru_lengths(z, g) == [0, 72]


def test_G2_node_0_is_unmarked_and_written_before_node_1_is_met(engine: EngineFactory) -> None:
    z = engine(walk="v5", nodes=2)
    g = z.cgroup("/g")
    fill(z, g, 64, 2000, node=0)
    fill(z, g, 64, 2000, referenced=False, node=1, seed=64)
    assert reclaim(g, 1) == (OK, 128_000)
    assert lru_lengths(z, g) == [0, 64]


def test_G4_load_wins(z: Zswap, g: MemCgroup) -> None:
    (handle,) = map(int, fill(z, g, 1, 1000, referenced=False))
    assert z.core.hold(handle) == 0  # the load is under way
    with debug_delta(z) as debug:
        assert reclaim(g, 1) == (EAGAIN, 0)
    assert debug["reject_reclaim_fail"] == 16  # EEXIST, once a batch
    z.core.release(handle)
    assert z.fault_in(handle) == page_of_length(1000)
    assert left(z, g) == 0


def test_G5_writeback_wins() -> None:
    """The kernel's fault finds the page in the swap cache.  Here it finds the copy that is still in the pool."""
    with FaultySwap(16 << 20) as disk, Zswap(disk.path, "16M", walk="v5") as z:
        g = z.cgroup("/g")
        handles = fill(z, g, 3, 1000, referenced=False)
        disk.block_writes()
        outcome = in_background(lambda: reclaim(g, 1))
        disk.wait_blocked()
        assert z.fault_in(int(handles[1])) == page_of_length(1000, 1)
        disk.release()
        assert outcome() == (OK, 2000)
        assert places(z, handles[[0, 2]]) == ["disk"] * 2
        assert z.fault_in(int(handles[0])) == page_of_length(1000)
        assert z.fault_in(int(handles[2])) == page_of_length(1000, 2)
        z.check()


def test_G6_slot_freed_while_it_is_written() -> None:
    with FaultySwap(16 << 20) as disk, Zswap(disk.path, "16M", walk="v5") as z:
        g = z.cgroup("/g")
        handles = fill(z, g, 3, 1000, referenced=False)
        disk.block_writes()
        outcome = in_background(lambda: reclaim(g, 1))
        disk.wait_blocked()
        z.free(int(handles[0]))
        disk.release()
        assert outcome() == (OK, 2000)
        assert g.last_reclaim is not None
        assert g.last_reclaim.failed == {"ENOENT": 1}
        assert int(g.read("memory.swap.current")) == 2 * 4096
        z.check()


def test_G7_slot_stored_anew_while_it_is_written() -> None:
    with FaultySwap(16 << 20) as disk, Zswap(disk.path, "16M", walk="v5") as z:
        g = z.cgroup("/g")
        (old,) = map(int, fill(z, g, 1, 1000, referenced=False))
        disk.block_writes()
        outcome = in_background(lambda: reclaim(g, 1))
        disk.wait_blocked()
        new = z.swap_out(page_of_length(500), g, replace=old)
        disk.release()
        assert outcome() == (OK, 0)
        assert z.where(new) == "zswap"
        assert z.fault_in(new) == page_of_length(500)
        z.check()


def test_G8_two_writers_at_the_same_time(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 2000, 1000, referenced=False)
    with stat_delta(g) as delta:
        outcomes = [in_background(lambda: Outcome(OK, g.reclaim(500_000, source="zswap").written)) for _ in range(2)]
        wrote = [outcome().wrote for outcome in outcomes]
    assert min(wrote) >= 500_000
    assert sum(wrote) == delta["zswpwb_proactive_b"] == 1000 * delta["zswpwb"]
    assert left(z, g) == 2000 - delta["zswpwb"]
    assert places(z, handles).count("disk") == delta["zswpwb"]


def test_G9_child_made_during_the_call(z: Zswap) -> None:
    p = z.cgroup("/p")
    fill(z, p.cgroup("a"), 100, 1000, referenced=False)
    page = page_of_length(777)
    late: list[int] = []

    def trace(event: TraceEvent) -> None:
        if not late:
            late.append(z.swap_out(page, p.cgroup("late")))

    z.trace = trace
    assert reclaim(p, "1M") == (EAGAIN, 100_777)
    z.trace = None
    assert z.where(late[0]) == "disk"


def test_G9_child_removed_during_the_call(z: Zswap) -> None:
    p, a, b = z.cgroup("/p"), z.cgroup("/p/a"), z.cgroup("/p/b")
    own = fill(z, p, 1, 100, referenced=False, seed=50)
    fill(z, a, 1, 100, referenced=False, seed=60)
    theirs = fill(z, b, 10, 1000, referenced=False)
    visited: list[str] = []

    def trace(event: TraceEvent) -> None:
        visited.append(event.cgroup)
        if b.online:
            b.remove()

    z.trace = trace
    assert reclaim(p, 10_000) == (OK, 10_200)
    z.trace = None
    assert visited == ["/p", "/p/a", "/p"]
    assert places(z, own) + places(z, theirs) == ["disk"] * 11


def test_G10_device_error_after_submission() -> None:
    """The kernel has counted the entry as written and keeps the page dirty in RAM; here it is in the pool again."""
    with FaultySwap(16 << 20) as disk, Zswap(disk.path, "16M", walk="v5") as z:
        g = z.cgroup("/g")
        handles = fill(z, g, 3, 1000, referenced=False)
        disk.fail_writes(errno.EIO)
        with stat_delta(g) as delta, pytest.raises(ReclaimIncomplete) as incomplete:
            g.reclaim(1, source="zswap")
        result = incomplete.value.result
        assert (result.written, result.scanned, result.failed) == (0, 3, {"EIO": 3})
        assert (delta["zswpwb"], delta["zswpwb_proactive_b"], delta["zswap"]) == (0, 0, 0)
        assert left(z, g) == 3
        disk.heal()
        assert reclaim(g, 1) == (OK, 3000)
        for i, handle in enumerate(handles):
            assert z.fault_in(int(handle)) == page_of_length(1000, i)
        z.check()


def test_G10_a_full_file_system() -> None:
    with FaultySwap(16 << 20) as disk, Zswap(disk.path, "16M", walk="v5") as z:
        g = z.cgroup("/g")
        fill(z, g, 3, 1000, referenced=False)
        disk.fail_writes(errno.ENOSPC)
        assert reclaim(g, 1) == (EAGAIN, 0)
        assert g.last_reclaim is not None
        assert g.last_reclaim.failed == {"ENOSPC": 3}
        disk.heal()
        assert reclaim(g, 1) == (OK, 3000)


def test_a_load_that_waits_for_the_device_is_a_stall(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 2, 1000, referenced=False)
    reclaim(g, 1)
    before = g.read("memory.pressure")
    z.fault_in(int(handles[0]))
    assert g.read("memory.pressure") != before
    assert stat(g, "pgmajfault") == 1
