"""SPEC 8 group I: the dynamic shrinker and the shrink worker, on walk="v5"."""

import errno

import numpy as np
import pytest
from tests.conftest import EngineFactory
from tests.support.pages import page_of_length
from tests.support.states import fill, left, places, stat

from uzswap import MemCgroup, ReclaimIncomplete, TraceEvent, Zswap
from uzswap.reclaim.shrinker import freeable


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    z = engine(walk="v5")
    z.parameters.set("shrinker_enabled", "Y")
    return z


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


def test_I1_count() -> None:
    assert freeable(length=1000, swapins=200, backing=250, stored=1000) == (200, 200)


def test_I2_more_swapins_than_entries() -> None:
    assert freeable(length=1000, swapins=1500, backing=250, stored=1000) == (0, 1000)


def read_back(z: Zswap, g: MemCgroup, n: int) -> None:
    """Make n pages go to the device and come back."""
    handles = fill(z, g, n, 1024, referenced=False, seed=10_000)
    g.reclaim(n * 1024, source="zswap")
    z.fault_in_many(handles)


def test_I1_on_an_engine(z: Zswap, g: MemCgroup) -> None:
    read_back(z, g, 20)
    fill(z, g, 100, 1024)
    assert z.core.nr_disk_swapins(g.index, 0) == 20
    assert z.shrinker.count(g, 0) == (100 - 20) * 25 // 100
    assert z.core.nr_disk_swapins(g.index, 0) == 0


def test_I2_on_an_engine(z: Zswap, g: MemCgroup) -> None:
    read_back(z, g, 150)
    fill(z, g, 100, 1024)
    assert z.shrinker.count(g, 0) == 0
    assert z.core.nr_disk_swapins(g.index, 0) == 50


def test_I3_nothing_to_count(z: Zswap, g: MemCgroup) -> None:
    child = g.cgroup("child")
    assert z.shrinker.count(child, 0) == 0
    fill(z, child, 100, 1024)
    assert z.shrinker.count(child, 0) == 25
    g.write("memory.zswap.writeback", "0")
    assert z.shrinker.count(child, 0) == 0
    g.write("memory.zswap.writeback", "1")
    z.parameters.set("shrinker_enabled", "N")
    assert z.shrinker.count(child, 0) == 0


def test_I_the_shrinker_is_a_part_of_ordinary_reclaim(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 1000, 2048, referenced=False)
    with pytest.raises(ReclaimIncomplete) as incomplete:
        g.reclaim("1M")  # there is nothing resident
    assert incomplete.value.result.reclaimed == 0
    written = stat(g, "zswpwb")
    assert 0 < written == places(z, handles).count("disk")
    assert stat(g, "zswpwb_proactive_b") == 0


def test_I_priorities_and_deferred_scans(z: Zswap, g: MemCgroup) -> None:
    """mm/shrinker.c: 2048 * 4096 / 2 seeks >> 4 = 256 scans at priority 4, two batches of 128."""
    fill(z, g, 2048, 4096, referenced=False)
    assert z.shrinker.shrink(g, priority=12) == 0  # one scan: deferred, less than a batch
    assert z.shrinker.shrink(g, priority=4) == 256
    assert left(z, g) == 2048 - 256


def test_I_an_entry_that_is_being_loaded_stops_the_shrinker(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 300, 4096, referenced=False)
    z.core.hold(int(handles[10]))
    assert z.shrinker.shrink(g, priority=0) == 0
    assert places(z, handles).count("disk") == 10
    z.core.release(int(handles[10]))


def above_threshold(engine: EngineFactory, walk: str, batches: int) -> Zswap:
    """Two cgroups with 256 unreferenced raw pages each, and a pool that is `batches` * 64 pages above its threshold.

    The pool keeps up to 512 free pages for reuse; they are used up first, so that each page freed from here on counts.
    """
    z = engine(walk=walk, max_pool=5000 * 4096)
    for name in "ab":
        fill(z, z.cgroup(name), 256, 4096, referenced=False, seed=ord(name) * 1000)
    z.free_many(fill(z, z.cgroup("ballast"), 600, 4096))
    pages = z.core.pool_pages()
    (accept,) = [accept for accept in range(100) if (batches - 1) * 64 < pages - 5000 * accept // 100 <= batches * 64][
        :1
    ]
    z.parameters.set("accept_threshold_percent", str(accept))
    return z


def test_I4_the_shrink_worker_takes_turns_and_stops_at_the_threshold(engine: EngineFactory) -> None:
    z = above_threshold(engine, "v5", batches=3)
    served: list[TraceEvent] = []
    z.trace = served.append
    z.wake_shrink_worker()
    z.flush_work()
    assert [(event.cgroup, event.entries) for event in served] == [("/a", 64), ("/b", 64), ("/a", 64)]
    assert z.pool_over_threshold() == 0
    z.parameters.set("accept_threshold_percent", "0")
    served.clear()
    z.wake_shrink_worker()
    z.flush_work()
    z.trace = None
    assert [event.cgroup for event in served[:2]] == ["/b", "/a"]
    assert (left(z, z.cgroup("/a")), left(z, z.cgroup("/b"))) == (0, 0)


def test_I4_the_cursor_survives_the_removal_of_the_last_served(engine: EngineFactory) -> None:
    z = above_threshold(engine, "v5", batches=1)
    z.wake_shrink_worker()
    z.flush_work()
    z.cgroup("/a").remove()
    served: list[TraceEvent] = []
    z.trace = served.append
    z.parameters.set("accept_threshold_percent", "0")
    z.wake_shrink_worker()
    z.flush_work()
    z.trace = None
    assert served[0].cgroup == "/b"


def test_I4_a_full_pool_wakes_it(engine: EngineFactory) -> None:
    z = engine(walk="v5", max_pool="1M", swap_size="16M")
    g = z.cgroup("/g")
    pages = np.frombuffer(page_of_length(4000) * 600, np.uint8)
    handles = z.swap_out_many(pages, g)
    z.flush_work()
    assert handles.all()
    assert z.pool_over_threshold() == 0
    assert stat(g, "zswpwb") > 0
    assert stat(g, "zswpwb_proactive_b") == 0
    assert (z.fault_in_many(handles) == pages).all()


def test_I4_without_a_device_it_has_nothing_to_do(engine: EngineFactory) -> None:
    z = engine(walk="v5", swap=None, max_pool="1M")
    g = z.cgroup("/g")
    handles = z.swap_out_many(page_of_length(4000) * 600, g)
    z.flush_work()
    assert 0 < np.count_nonzero(handles) < 600
    with pytest.raises(OSError, match="refused") as refused:
        z.swap_out(page_of_length(4000), g)
    assert refused.value.errno == errno.ENOMEM
