"""SPEC 8 groups E, F and G on walk="fair" and walk="coldest": what these do in the same situations (SPEC 10)."""

import errno
import os
import signal

import pytest
from tests.conftest import EngineFactory
from tests.reclaim.walks.test_v5_concurrency import in_background
from tests.reclaim.walks.test_v5_proactive import handler
from tests.support.cases import FRESH, UNREFERENCED
from tests.support.faulty import FaultySwap
from tests.support.pages import filled_page, page_of_length, random_page, zero_page
from tests.support.states import OK, debug_delta, fill, left, lru_lengths, places, reclaim, stat, stat_delta

from uzswap import MemCgroup, ReclaimError, ReclaimInterrupted, TraceEvent, Zswap
from uzswap.core.boundary.engine import MAX_ENTRY

EAGAIN, EINTR, EINVAL, EIO, ENOSPC = errno.EAGAIN, errno.EINTR, errno.EINVAL, errno.EIO, errno.ENOSPC


@pytest.fixture(params=["fair", "coldest"])
def walk(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def z(engine: EngineFactory, walk: str) -> Zswap:
    return engine(walk=walk)


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


@pytest.mark.parametrize(
    ("state", "budget", "outcome", "entries_left"),
    [
        pytest.param(None, 1, (EAGAIN, 0), 0, id="E1"),
        pytest.param((FRESH, 1, 2000), 1, (OK, 2000), 0, id="E2"),
        pytest.param((FRESH, 1, 2000), "1M", (EAGAIN, 2000), 0, id="E3"),
        pytest.param((UNREFERENCED, 1, 300), 1, (OK, 300), 0, id="E4"),
        pytest.param((UNREFERENCED, 1, 300), 300, (OK, 300), 0, id="E4-exact"),
        pytest.param((UNREFERENCED, 1, 300), 301, (EAGAIN, 300), 0, id="E5"),
        pytest.param((UNREFERENCED, 100, 2000), 1, (OK, 2000), 99, id="E6-one-entry"),
        pytest.param((UNREFERENCED, 100, 2000), 128_000, (OK, 128_000), 36, id="E7"),
        pytest.param((UNREFERENCED, 100, 2000), 128_001, (OK, 130_000), 35, id="E7-and-one-byte"),
        pytest.param((UNREFERENCED, 10, 100), 1, (OK, 100), 9, id="E9-one-entry"),
        pytest.param((FRESH, 10, 1000), 5000, (OK, 5000), 5, id="E11-exact"),
        pytest.param((FRESH, 1023, 2000), "1G", (EAGAIN, 2_046_000), 0, id="E12"),
        pytest.param((FRESH, 2000, 2000), "1G", (EAGAIN, 4_000_000), 0, id="E12-no-starvation"),
        pytest.param((FRESH, 2000, 2000), "1M", (OK, 525 * 2000), 1475, id="E12-no-starvation-exact"),
        pytest.param((UNREFERENCED, 64, 4096), 1, (OK, 4096), 63, id="E24-no-overshoot"),
    ],
)
def test_E_amounts(
    z: Zswap,
    g: MemCgroup,
    state: tuple[bool, int, int] | None,
    budget: int | str,
    outcome: tuple[int, int],
    entries_left: int,
) -> None:
    if state is not None:
        referenced, n, length = state
        fill(z, g, n, length, referenced)
    with stat_delta(g) as delta, debug_delta(z) as debug:
        assert reclaim(g, budget) == outcome
    assert left(z, g) == entries_left
    assert delta["zswpwb"] == delta["pswpout"] == debug["written_back_pages"]
    assert delta["zswap"] == -outcome[1]


def test_E_oldest_first(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 20, 1000, referenced=False)
    assert reclaim(g, 7000) == (OK, 7000)
    assert places(z, handles) == ["disk"] * 7 + ["zswap"] * 13


def test_E_the_second_chance_stays(z: Zswap, g: MemCgroup) -> None:
    """A referenced entry is only unmarked at its first meeting; those behind it that are not go first."""
    first = fill(z, g, 3, 1000)
    second = fill(z, g, 3, 1000, referenced=False, seed=3)
    assert reclaim(g, 3000) == (OK, 3000)
    assert places(z, first) == ["zswap"] * 3
    assert places(z, second) == ["disk"] * 3


def test_E_observed_on_a_7_1_5_kernel(z: Zswap, g: MemCgroup) -> None:
    """SPEC 10.1: 1 MiB from the first call on, over by less than one entry."""
    fill(z, g, 2048, 2082)
    for _ in range(4):
        outcome = reclaim(g, "1M")
        assert outcome.errno == OK
        assert 0 <= outcome.wrote - (1 << 20) < 2082
    assert reclaim(g, "1M") == (EAGAIN, 2048 * 2082 - 4 * 504 * 2082)


def full_device(engine: EngineFactory, walk: str) -> Zswap:
    z = engine(walk=walk, swap_size="4M")
    ballast = z.cgroup("/ballast")
    ballast.write("memory.zswap.max", "0")
    while z.swap_out_many(random_page(size=MAX_ENTRY), ballast, page=MAX_ENTRY).all():
        pass
    return z


def test_E18_full_device_ends_the_call(engine: EngineFactory, walk: str) -> None:
    z = full_device(engine, walk)
    g = z.cgroup("/g")
    handles = fill(z, g, 5, 4096, referenced=False)
    with debug_delta(z) as debug, pytest.raises(ReclaimError, match="full") as full:
        g.reclaim(100, source="zswap")
    assert full.value.errno == ENOSPC
    assert debug["reject_reclaim_fail"] == 5  # each of the batch once
    assert (full.value.result.written, full.value.result.failed) == (0, {"ENOSPC": 5})
    assert left(z, g) == 5
    for i, handle in enumerate(handles):
        assert z.fault_in(int(handle)) == random_page(i)


def test_E18_works_again_when_there_is_room(engine: EngineFactory, walk: str) -> None:
    z = engine(walk=walk, swap_size="4M")
    ballast, g = z.cgroup("/ballast"), z.cgroup("/g")
    ballast.write("memory.zswap.max", "0")
    stored = []
    while (handles := z.swap_out_many(random_page(size=MAX_ENTRY), ballast, page=MAX_ENTRY)).all():
        stored.append(int(handles[0]))
    fill(z, g, 5, 4096, referenced=False)
    assert reclaim(g, 1) == (ENOSPC, 0)
    z.free_many(stored)
    assert reclaim(g, 20_000) == (OK, 5 * 4096)


def test_E19_an_entry_that_is_being_loaded_is_passed_over(z: Zswap, g: MemCgroup) -> None:
    held = int(fill(z, g, 1, 1000, referenced=False)[0])
    fill(z, g, 5, 1000, referenced=False, seed=1)
    assert z.core.hold(held) == 0
    with debug_delta(z) as debug:
        assert reclaim(g, 100) == (OK, 1000)
    assert debug["reject_reclaim_fail"] == 1
    with debug_delta(z) as debug:
        assert reclaim(g, "1M") == (EAGAIN, 4000)
    assert debug["reject_reclaim_fail"] == 1  # not met again in the same call
    assert left(z, g) == 1
    z.core.release(held)
    assert reclaim(g, 1) == (OK, 1000)


def test_E20_signal_before_the_first_batch(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 10, 1000)

    def arrive() -> bool:
        os.kill(os.getpid(), signal.SIGUSR1)
        return False

    with handler(signal.SIGUSR1), debug_delta(z) as debug, pytest.raises(ReclaimInterrupted) as interrupted:
        g.reclaim("1M", source="zswap", cancel=arrive)
    assert interrupted.value.result.scanned == 0
    assert not any(debug.values())


def test_E21_signal_after_two_batches(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 2000, 2000, referenced=False)
    batches: list[TraceEvent] = []

    def trace(event: TraceEvent) -> None:
        batches.append(event)
        if len(batches) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    with handler(signal.SIGUSR1) as came:
        z.trace = trace
        outcome = reclaim(g, "1G")
        z.trace = None
    assert came == [signal.SIGUSR1]
    assert len(batches) == 2
    assert outcome == (EINTR, sum(event.nbytes for event in batches))
    assert 0 < outcome.wrote < 4_000_000
    assert outcome.wrote == stat(g, "zswpwb_proactive_b")


def test_E22_E23_writeback_off(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 3, 300)
    g.write("memory.zswap.writeback", "0")
    assert reclaim(g, 1) == (EINVAL, 0)
    assert reclaim(g, 0) == (EINVAL, 0)
    assert all(info.referenced for handle in handles if (info := z.core.info(int(handle))))
    z.parameters.set("enabled", "N")
    assert reclaim(g, 1) == (OK, 300)


def test_E26_E27_same_filled_pages_have_nothing_to_write(z: Zswap, g: MemCgroup) -> None:
    handles = z.swap_out_many(zero_page() + filled_page(7), g)
    assert (stat(g, "zswap"), stat(g, "swpout_zero"), stat(g, "zswpout")) == (0, 1, 0)
    assert reclaim(g, 1) == (EAGAIN, 0)
    assert z.fault_in(int(handles[1])) == filled_page(7)


def test_E28_E29_protection_is_ignored_and_what_a_success_changes(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 10, 2000, referenced=False)
    g.write("memory.min", "1M")
    with stat_delta(g) as delta:
        assert reclaim(g, 20_000) == (OK, 20_000)
    assert (delta["zswap"], delta["zswapped"], delta["pswpout"]) == (-20_000, -10 * 4096, 10)
    assert int(g.read("memory.swap.current")) == 10 * 4096
    assert int(g.read("memory.current")) == 0


def test_F2_F3_writeback_off_in_the_subtree(z: Zswap) -> None:
    tree = z.cgroup("/r"), z.cgroup("/r/A"), z.cgroup("/r/A/B"), z.cgroup("/r/C")
    for i, memcg in enumerate(tree):
        fill(z, memcg, 10, 1000, referenced=False, seed=10 * i)
    tree[1].write("memory.zswap.writeback", "0")
    assert reclaim(tree[0], "1M") == (EAGAIN, 20_000)
    assert [left(z, memcg) for memcg in tree] == [0, 10, 10, 0]
    assert reclaim(tree[2], 1) == (EINVAL, 0)


def test_F4_two_fresh_children(z: Zswap) -> None:
    p = z.cgroup("/p")
    for name in "ab":
        fill(z, p.cgroup(name), 64, 2000)
    assert reclaim(p, "1G") == (EAGAIN, 256_000)


def test_F14_entries_of_a_removed_child(z: Zswap) -> None:
    p = z.cgroup("/p")
    theirs = fill(z, p.cgroup("c"), 10, 1000, referenced=False)
    p.cgroup("c").remove()
    assert reclaim(p, 1) == (OK, 1000)
    assert places(z, theirs) == ["disk"] + ["zswap"] * 9
    assert stat(p, "zswpwb_proactive_b") == 1000


def test_F15_counters_of_a_subtree(z: Zswap) -> None:
    p, a, b = z.cgroup("/p"), z.cgroup("/p/a"), z.cgroup("/p/b")
    fill(z, a, 5, 1000, referenced=False)
    assert reclaim(p, 5000) == (OK, 5000)
    assert [stat(memcg, "zswpwb_proactive_b") for memcg in (a, p, b)] == [5000, 5000, 0]


def test_F_fresh_neighbours_cannot_end_a_call_early(z: Zswap) -> None:
    """SPEC 10.1: with v5 the 16 failures of fresh neighbours ended a call with most of the data still there."""
    p = z.cgroup("/p")
    for i in range(20):
        fill(z, p.cgroup(f"fresh{i}"), 128, 500, seed=1000 * i)
    fill(z, p.cgroup("old"), 500, 2000, referenced=False)
    budget = 20 * 128 * 500 + 500 * 2000
    assert reclaim(p, budget) == (OK, budget)


def test_G4_load_wins(z: Zswap, g: MemCgroup) -> None:
    (handle,) = map(int, fill(z, g, 1, 1000, referenced=False))
    assert z.core.hold(handle) == 0
    with debug_delta(z) as debug:
        assert reclaim(g, 1) == (EAGAIN, 0)
    assert debug["reject_reclaim_fail"] == 1
    z.core.release(handle)
    assert z.fault_in(handle) == page_of_length(1000)


@pytest.mark.parametrize("how", ["load", "free", "replace"])
def test_G5_G6_G7_what_goes_while_it_is_written_is_made_up_for(walk: str, how: str) -> None:
    """The budget is met by what is safely on the device, so the next entry takes the place of one that went away."""
    with FaultySwap(16 << 20) as disk, Zswap(disk.path, "16M", walk=walk) as z:
        g = z.cgroup("/g")
        handles = fill(z, g, 10, 1000, referenced=False)
        disk.block_writes()
        outcome = in_background(lambda: reclaim(g, 2000))
        disk.wait_blocked()
        if how == "load":
            assert z.fault_in(int(handles[0])) == page_of_length(1000)
        elif how == "free":
            z.free(int(handles[0]))
        else:
            assert z.where(z.swap_out(page_of_length(500), g, replace=int(handles[0]))) == "zswap"
        disk.release()
        assert outcome() == (OK, 2000)
        assert places(z, handles[1:]) == ["disk"] * 2 + ["zswap"] * 7
        assert g.last_reclaim is not None
        assert g.last_reclaim.failed == {"ENOENT": 1}
        for i, handle in enumerate(handles[1:], 1):
            assert z.fault_in(int(handle)) == page_of_length(1000, i)
        z.check()


def test_G8_two_writers_at_the_same_time(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 2000, 1000, referenced=False)
    with stat_delta(g) as delta:
        waits = [in_background(lambda: reclaim(g, 500_000)) for _ in range(2)]
        assert [wait().errno for wait in waits] == [OK, OK]
    assert delta["zswpwb_proactive_b"] == 1000 * delta["zswpwb"] == 1_000_000
    assert places(z, handles).count("disk") == 1000


def test_G9_children_made_and_removed_during_the_call(z: Zswap) -> None:
    p, a, b = z.cgroup("/p"), z.cgroup("/p/a"), z.cgroup("/p/b")
    fill(z, a, 400, 1000, referenced=False)
    theirs = fill(z, b, 10, 1000, referenced=False, seed=400)

    def trace(event: TraceEvent) -> None:
        if b.online:
            b.remove()
            p.cgroup("new")

    z.trace = trace
    assert reclaim(p, 410_000) == (OK, 410_000)
    z.trace = None
    assert places(z, theirs) == ["disk"] * 10


def test_G9_entries_that_come_back_to_an_lru_that_was_done_with(z: Zswap) -> None:
    """The parent's own LRU is empty or passed over when its child goes and hands it entries."""
    p, a, b = z.cgroup("/p"), z.cgroup("/p/a"), z.cgroup("/p/b")
    held = int(fill(z, p, 1, 1000, referenced=False, seed=900)[0])
    fill(z, a, 1500, 1000, referenced=False)
    theirs = fill(z, b, 700, 1000, referenced=False, seed=2000)
    z.core.hold(held)
    batches = 0

    def trace(event: TraceEvent) -> None:
        nonlocal batches
        batches += 1
        if batches == 3:
            b.remove()

    z.trace = trace
    assert reclaim(p, "1G") == (EAGAIN, 2_200_000)
    z.trace = None
    assert places(z, theirs) == ["disk"] * 700
    z.core.release(held)


def test_G10_device_error(walk: str) -> None:
    with FaultySwap(16 << 20) as disk, Zswap(disk.path, "16M", walk=walk) as z:
        g = z.cgroup("/g")
        handles = fill(z, g, 3, 1000, referenced=False)
        disk.fail_writes(EIO)
        with stat_delta(g) as delta, pytest.raises(ReclaimError) as failed:
            g.reclaim(3000, source="zswap")
        assert (failed.value.errno, failed.value.result.failed) == (EIO, {"EIO": 3})
        assert not any(delta[key] for key in ("zswap", "zswpwb", "zswpwb_proactive_b", "pswpout"))
        disk.heal()
        assert reclaim(g, 3000) == (OK, 3000)
        for i, handle in enumerate(handles):
            assert z.fault_in(int(handle)) == page_of_length(1000, i)
        z.check()


def test_G10_a_large_request_stops_soon_after_the_first_error(walk: str) -> None:
    with FaultySwap(64 << 20) as disk, Zswap(disk.path, "64M", walk=walk) as z:
        g = z.cgroup("/g")
        z.swap_out_many(b"".join(random_page(seed) for seed in range(4096)), g)
        before = disk.writes
        disk.fail_writes(EIO, after=2)
        with pytest.raises(ReclaimError) as failed:
            g.reclaim("16M", source="zswap")
        assert failed.value.errno == EIO
        assert disk.writes - before < 8  # of 16
        assert failed.value.result.written == stat(g, "zswpwb_proactive_b") > 1 << 20
        disk.heal()
        assert reclaim(g, "16M", "source=zswap").errno == EAGAIN  # all that was left
        assert left(z, g) == 0
        z.check()


def test_min_age(z: Zswap, g: MemCgroup) -> None:
    old = fill(z, g, 10, 1000)
    z.core.advance(60 * 10**9)
    young = fill(z, g, 10, 1000, seed=10)
    assert reclaim(g, "1M", "source=zswap min_age=120") == (EAGAIN, 0)
    assert reclaim(g, 4000, "source=zswap min_age=60") == (OK, 4000)
    assert reclaim(g, "1M", "source=zswap min_age=30") == (EAGAIN, 6000)
    assert places(z, old) == ["disk"] * 10
    assert places(z, young) == ["zswap"] * 10
    assert all(info.referenced for handle in young if (info := z.core.info(int(handle))))
    assert reclaim(g, "1M", "source=zswap min_age=0") == (EAGAIN, 10_000)


def test_min_age_a_rotation_by_the_walk_does_not_make_younger(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 10, 1000)
    z.core.advance(60 * 10**9)
    assert reclaim(g, 1) == (OK, 1000)  # and the other nine were rotated
    assert reclaim(g, 9000, "source=zswap min_age=60") == (OK, 9000)


def test_without_a_device_nothing_is_a_candidate(engine: EngineFactory, walk: str) -> None:
    z = engine(walk=walk, swap=None)
    g = z.cgroup("/g")
    handles = fill(z, g, 3, 300)
    assert reclaim(g, 1) == (EAGAIN, 0)
    assert all(info.referenced for handle in handles if (info := z.core.info(int(handle))))
    assert lru_lengths(z, g) == [3]
