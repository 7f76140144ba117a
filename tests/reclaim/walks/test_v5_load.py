"""SPEC 8 groups C and D: loads, freed slots, and the LRU, on walk="v5"."""

import ctypes
import errno

import pytest
from tests.conftest import EngineFactory
from tests.support.pages import PAGE_SIZE, page_of_length, random_page
from tests.support.states import debug_delta, fill, left, places, stat, stat_delta

from uzswap import IntegrityError, MemCgroup, StaleHandleError, Zswap
from uzswap.core.boundary.engine import MAX_ENTRY
from uzswap.reclaim.walks.v5 import shrink_memcg
from uzswap.reclaim.writeback import Request


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine(walk="v5")


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


def walk(z: Zswap, g: MemCgroup, nr_to_scan: int) -> int:
    with Request(z.reclaim_state, g) as request:
        return shrink_memcg(request, g, nr_to_scan)


def test_C1_hit_is_exclusive(z: Zswap, g: MemCgroup) -> None:
    old = fill(z, g, 3, 1000, referenced=False)
    with stat_delta(g) as delta, debug_delta(z) as debug:
        page = z.fault_in(int(old[0]))
    assert (delta["zswpin"], delta["zswap"], delta["pswpin"]) == (1, -1000, 0)
    assert debug["stored_pages"] == -1
    assert page == page_of_length(1000)
    with pytest.raises(StaleHandleError):
        z.fault_in(int(old[0]))
    again = z.swap_out(page, g)
    info = z.core.info(again)
    assert info is not None
    assert info.referenced
    assert walk(z, g, 3) == 2000  # it is behind the other two
    assert z.where(again) == "zswap"


def test_C2_miss_reads_the_device(z: Zswap, g: MemCgroup) -> None:
    (handle,) = fill(z, g, 1, 1000, referenced=False)
    g.reclaim(1, source="zswap")
    with stat_delta(g) as delta:
        assert z.fault_in(int(handle)) == page_of_length(1000)
    assert (delta["pswpin"], delta["zswpin"]) == (1, 0)
    assert z.core.nr_disk_swapins(g.index, 0) == 1


def test_C3_corrupted_data(z: Zswap, g: MemCgroup) -> None:
    handle, other = map(int, fill(z, g, 2, 1000))
    info = z.core.info(handle)
    assert info is not None
    ctypes.memset(info.location, 0xFF, info.length)
    with debug_delta(z) as debug, pytest.raises(IntegrityError, match="/g") as corrupt:
        z.fault_in(handle)
    assert debug["decompress_fail"] == 1
    assert corrupt.value.errno == errno.EIO
    assert corrupt.value.cgroup == "/g"
    assert z.where(handle) == "zswap"
    assert z.fault_in(other) == page_of_length(1000, 1)
    z.free(handle)


def test_C4_freed_slot(z: Zswap, g: MemCgroup) -> None:
    (handle,) = map(int, fill(z, g, 1, 1000))
    with stat_delta(g) as delta:
        z.free(handle)
    assert (delta["zswap"], delta["zswpin"], delta["zswpwb"]) == (-1000, 0, 0)
    assert int(g.read("memory.swap.current")) == 0
    with pytest.raises(StaleHandleError):
        z.free(handle)


def test_C5_a_load_is_counted_on_the_owner(z: Zswap, g: MemCgroup) -> None:
    (handle,) = map(int, fill(z, g, 1, 1000))
    other = z.cgroup("/other")
    with stat_delta(g) as mine, stat_delta(other) as theirs:
        z.fault_in(handle)
    assert (mine["zswpin"], theirs["zswpin"]) == (1, 0)


def test_D1_D2_a_walk_over_fresh_entries_rotates(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 3, 1000)
    assert walk(z, g, 1) == 0
    marks = [info.referenced for handle in handles if (info := z.core.info(int(handle)))]
    assert marks == [False, True, True]
    assert walk(z, g, 3) == 1000  # b, c lose their mark; a is behind them
    assert places(z, handles) == ["disk", "zswap", "zswap"]


def test_D3_D4_a_whole_round_writes_nothing_the_next_step_the_oldest(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 3, 1000)
    assert walk(z, g, 3) == 0
    assert not any(info.referenced for handle in handles if (info := z.core.info(int(handle))))
    assert walk(z, g, 1) == 1000
    assert places(z, handles) == ["disk", "zswap", "zswap"]


def fill_the_device(z: Zswap, g: MemCgroup) -> None:
    """Leave room for small records only: a 64 KiB record takes 17 blocks of a segment's 256, so one block is left."""
    g.write("memory.zswap.max", "0")
    while z.swap_out_many(random_page(size=MAX_ENTRY), g, page=MAX_ENTRY).all():
        pass


def test_D6_a_failing_entry_moves_to_the_tail(engine: EngineFactory) -> None:
    z = engine(walk="v5", swap_size="4M")
    fill_the_device(z, z.cgroup("/ballast"))
    g = z.cgroup("/g")
    handles = fill(z, g, 2, [4096, 100], referenced=False)
    with debug_delta(z) as debug:
        assert walk(z, g, 1) == 0
    assert debug["reject_reclaim_fail"] == 1
    with debug_delta(z) as debug:
        assert walk(z, g, 2) == 100
    assert debug["reject_reclaim_fail"] == 1
    assert places(z, handles) == ["zswap", "disk"]
    assert z.fault_in(int(handles[0])) == random_page(0)
    assert (left(z, g), stat(g, "zswap")) == (0, 0)


def test_a_page_that_neither_zswap_nor_the_device_takes_is_told(engine: EngineFactory) -> None:
    z = engine(walk="v5", swap_size="4M")
    g = z.cgroup("/g")
    fill_the_device(z, g)
    assert "fail 1" in g.read("memory.swap.events")
    with pytest.raises(OSError, match="full") as full:
        z.swap_out(random_page(), g)
    assert full.value.errno == errno.ENOSPC
    handles = z.swap_out_many(random_page() * 2, g)
    assert handles.tolist() == [0, 0]
    assert "fail 4" in g.read("memory.swap.events")
    assert stat(g, "pswpout") * PAGE_SIZE == int(g.read("memory.swap.current"))
