"""SPEC 8 groups B and I on walk="fair" and walk="coldest": limits and the pool, where these do better."""

import errno

import numpy as np
import pytest
from tests.conftest import EngineFactory
from tests.reclaim.walks.test_v5_shrinkers import above_threshold
from tests.support.faulty import FaultySwap
from tests.support.pages import page_of_length, pages_of_length
from tests.support.states import fill, left, places, stat

from uzswap import MemCgroup, Zswap
from uzswap.units import PAGE_SIZE


@pytest.fixture(params=["fair", "coldest"])
def walk(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def z(engine: EngineFactory, walk: str) -> Zswap:
    return engine(walk=walk)


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


def test_B9_B11_B14_a_limit_of_0_is_off(z: Zswap, g: MemCgroup) -> None:
    """With v5, unreferenced entries that are still there let stores in."""
    old = fill(z, g, 4, 3000, referenced=False)
    g.write("memory.zswap.max", "1000")
    new = z.swap_out(page_of_length(300), g)
    assert z.where(new) == "disk"
    assert places(z, old) == ["zswap"] * 4
    assert stat(g, "zswpwb") == 0


def test_B10_zswap_max_0_and_writeback_off(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.zswap.max", "0")
    g.write("memory.zswap.writeback", "0")
    assert not z.swap_out_many(pages_of_length(300, 2000), g).any()
    assert stat(g, "pswpout") == 0


def test_B12_the_limit_holds(z: Zswap, g: MemCgroup) -> None:
    """A limit in whole pages, tested before each store: so it is passed by less than one entry."""
    g.write("memory.zswap.max", "64K")
    pages = pages_of_length(1000, 200)
    handles = z.swap_out_many(pages, g)
    assert (64 << 10) * 7 // 8 - 1000 < stat(g, "zswap") < (64 << 10) + 1000
    assert places(z, handles) == ["disk"] * (200 - left(z, g)) + ["zswap"] * left(z, g)
    assert z.fault_in_many(handles).tobytes() == pages


def test_B13_room_is_made_through_the_second_chance(z: Zswap, g: MemCgroup) -> None:
    """With v5 the first page goes to disk and younger data than the oldest is on it: an LRU inversion."""
    old = fill(z, g, 5, 2000)
    g.write("memory.zswap.max", "8192")
    new = z.swap_out(page_of_length(300, seed=9), g)
    assert z.where(new) == "zswap"
    assert places(z, old) == ["disk"] * 2 + ["zswap"] * 3
    assert stat(g, "zswpwb_proactive_b") == 0


def test_B13_room_for_more_than_one(z: Zswap, g: MemCgroup) -> None:
    """An eighth of the limit at once: 1000 stores over a limit of 128 KiB take few requests."""
    g.write("memory.zswap.max", "128K")
    requests = 0

    def trace(event: object) -> None:
        nonlocal requests
        requests += 1

    z.trace = trace
    z.swap_out_many(pages_of_length(1000, 1000), g)
    z.trace = None
    assert requests < 150  # of about 870 pages written


def test_B15_only_the_pages_own_cgroup_is_shrunk(z: Zswap) -> None:
    p, a, b = z.cgroup("/p"), z.cgroup("/p/a"), z.cgroup("/p/b")
    fill(z, b, 3, 2000, referenced=False)
    p.write("memory.zswap.max", "4096")
    assert z.where(z.swap_out(page_of_length(300), a)) == "disk"
    assert left(z, b) == 3


def test_B15_an_ancestors_limit_is_met_with_the_pages_own_cgroup(z: Zswap) -> None:
    p, a, b = z.cgroup("/p"), z.cgroup("/p/a"), z.cgroup("/p/b")
    fill(z, b, 3, 1000, referenced=False)
    mine = fill(z, a, 6, 1000, seed=3)
    p.write("memory.zswap.max", "8192")
    assert z.where(z.swap_out(page_of_length(300, seed=9), a)) == "zswap"
    assert places(z, mine) == ["disk"] * 2 + ["zswap"] * 4
    assert left(z, b) == 3


def test_B_refused_pages_of_a_long_call_go_out_in_few_writes(walk: str) -> None:
    with FaultySwap(16 << 20) as disk, Zswap(disk.path, "16M", walk=walk) as z:
        g = z.cgroup("/g")
        g.write("memory.zswap.max", "0")
        before = disk.writes
        pages = pages_of_length(2000, 1500)
        handles = z.swap_out_many(pages, g)
        assert places(z, handles) == ["disk"] * 1500
        assert disk.writes - before < 10  # 3 MB
        assert z.fault_in_many(handles).tobytes() == pages


def test_B_over_the_limit_with_a_failing_device(walk: str) -> None:
    """Nothing is lost: what cannot go stays in the pool, and what is refused stays with the caller."""
    with FaultySwap(16 << 20) as disk, Zswap(disk.path, "16M", walk=walk) as z:
        g = z.cgroup("/g")
        old = fill(z, g, 10, 1000)
        g.write("memory.zswap.max", "8192")
        disk.fail_writes(errno.EIO)
        with pytest.raises(OSError, match="failed") as failed:
            z.swap_out(page_of_length(500, seed=50), g)
        assert failed.value.errno == errno.EIO
        assert places(z, old) == ["zswap"] * 10
        disk.heal()
        assert z.where(z.swap_out(page_of_length(500, seed=50), g)) == "zswap"
        z.check()


def test_I4_the_shrink_worker_stops_at_the_threshold(engine: EngineFactory, walk: str) -> None:
    z = above_threshold(engine, walk, batches=3)
    z.wake_shrink_worker()
    z.flush_work()
    written = [256 - left(z, z.cgroup(path)) for path in ("/a", "/b")]
    assert 128 < sum(written) <= 192 + 15  # whole slabs of 16 pages
    if walk == "fair":
        assert abs(written[0] - written[1]) <= 1
    else:
        assert written[1] == 0
    assert z.pool_over_threshold() == 0


def test_I4_a_full_pool_wakes_it(engine: EngineFactory, walk: str) -> None:
    z = engine(walk=walk, max_pool="1M", swap_size="16M")
    g = z.cgroup("/g")
    pages = np.frombuffer(page_of_length(4000) * 600, np.uint8)
    handles = z.swap_out_many(pages, g)
    z.flush_work()
    assert handles.all()
    assert z.pool_over_threshold() == 0
    assert stat(g, "zswpwb") > 0
    assert (z.fault_in_many(handles) == pages).all()


def test_I4_the_worker_gives_up_when_the_device_fails(walk: str) -> None:
    with FaultySwap(16 << 20) as disk, Zswap(disk.path, "16M", max_pool="1M", walk=walk) as z:
        g = z.cgroup("/g")
        disk.fail_writes(errno.EIO)
        handles = z.swap_out_many(page_of_length(4000) * 400, g)
        z.flush_work()
        assert 0 < np.count_nonzero(handles) < 400
        assert "fail 0" in g.read("memory.swap.events")  # there was space: the device failed
        disk.heal()
        z.wake_shrink_worker()
        z.flush_work()
        assert z.pool_over_threshold() == 0
        assert z.fault_in_many(handles[handles != 0]).tobytes() == page_of_length(4000) * np.count_nonzero(handles)
        z.check()


def test_B13_over_the_limit_where_writeback_is_off(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.zswap.max", "4096")
    g.write("memory.zswap.writeback", "0")
    handles = z.swap_out_many(pages_of_length(1000, 10), g)
    assert (handles != 0).tolist() == [True] * 5 + [False] * 5
    assert left(z, g) == 5


def test_B13_over_the_limit_without_a_device(engine: EngineFactory, walk: str) -> None:
    z = engine(swap=None, walk=walk)
    g = z.cgroup("/g")
    g.write("memory.zswap.max", "4096")
    handles = z.swap_out_many(pages_of_length(1000, 10), g)
    assert (handles != 0).tolist() == [True] * 5 + [False] * 5


@pytest.mark.parametrize("limit", ["16K", "64K", "1M"])
def test_store_over_swap_max(z: Zswap, g: MemCgroup, limit: str) -> None:
    g.write("memory.swap.max", limit)
    handles = z.swap_out_many(pages_of_length(300, 300), g)
    stored = min(300, int(g.read("memory.swap.max")) // PAGE_SIZE)
    assert np.count_nonzero(handles) == stored
    assert handles[:stored].all()
    events = dict(line.split() for line in g.read("memory.swap.events").splitlines())
    assert events == {"high": "0", "max": str(300 - stored), "fail": str(300 - stored)}
