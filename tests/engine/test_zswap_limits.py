"""Limits on resident memory, and ordinary reclaim, with a small front-end of its own (SPEC 6.3, 7.2)."""

import errno
import importlib
import os
import signal
import threading

import numpy as np
import pytest
from tests.conftest import EngineFactory
from tests.reclaim.walks.test_v5_proactive import handler
from tests.support.pages import PAGE_SIZE, page_of_length
from tests.support.states import fill, stat, stat_delta

from uzswap import MemCgroup, ReclaimIncomplete, ReclaimInterrupted, Zswap
from uzswap.cgroup.surroundings import Reclaimed
from uzswap.units import round_up_to_page

COMPRESSED = 500


class Blocks:
    """A front-end that owns pages, oldest first, and swaps them out when it is asked to."""

    def __init__(self, z: Zswap, cgroup: MemCgroup) -> None:
        self.zswap = z
        self.cgroup = cgroup
        self.pages: list[bytes] = []
        self.handles: list[int] = []
        self.added = 0
        self.lock = threading.RLock()
        z.register(self)

    @property
    def resident_bytes(self) -> int:
        return len(self.pages) * PAGE_SIZE

    def add(self, n: int) -> None:
        for _ in range(n):
            self.zswap.charge(self.cgroup, PAGE_SIZE)
            with self.lock:
                self.pages.append(page_of_length(COMPRESSED, self.added))
                self.added += 1

    def reclaim(self, nbytes: int) -> Reclaimed:
        with self.lock:
            n = min(-(-nbytes // PAGE_SIZE), len(self.pages))
            handles = self.zswap.swap_out_many(b"".join(self.pages[:n]), self.cgroup)
            gone = int(np.argmin(handles)) if not handles.all() else n
            self.zswap.free_many(handles[gone:])
            self.handles += map(int, handles[:gone])
            del self.pages[:gone]
        self.zswap.uncharge(self.cgroup, gone * PAGE_SIZE)
        return Reclaimed(n, gone * PAGE_SIZE)

    def close(self) -> None:
        """Verify that every page is still there."""
        with self.lock:
            data = self.zswap.fault_in_many(self.handles).tobytes() + b"".join(self.pages)
            assert data == b"".join(page_of_length(COMPRESSED, i) for i in range(self.added))
            self.zswap.uncharge(self.cgroup, self.resident_bytes)
            self.pages, self.handles = [], []
        self.zswap.unregister(self)


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


def events(g: MemCgroup, name: str = "memory.events") -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in g.read(name).splitlines())}


def test_memory_reclaim_moves_resident_memory_into_zswap(z: Zswap, g: MemCgroup) -> None:
    blocks = Blocks(z, g)
    blocks.add(1000)
    assert g.usage() == 1000 * PAGE_SIZE
    with stat_delta(g) as delta:
        result = g.reclaim("1M")
    assert result.reclaimed >= 1 << 20
    assert delta["zswpout"] * PAGE_SIZE == delta["pgsteal_proactive"] * PAGE_SIZE == result.reclaimed
    assert delta["pgscan_proactive"] == delta["zswpout"]
    assert g.usage() == 1000 * PAGE_SIZE - result.reclaimed + delta["zswap"]
    blocks.close()


def test_memory_reclaim_of_more_than_there_is(z: Zswap, g: MemCgroup) -> None:
    blocks = Blocks(z, g)
    blocks.add(100)
    with pytest.raises(ReclaimIncomplete) as incomplete:
        g.reclaim("1M")
    assert incomplete.value.errno == errno.EAGAIN
    assert incomplete.value.result.reclaimed == 100 * PAGE_SIZE
    assert g.usage() == 100 * COMPRESSED
    blocks.close()


def test_memory_reclaim_in_whole_pages(z: Zswap, g: MemCgroup) -> None:
    assert g.write("memory.reclaim", "4095") == 4
    with pytest.raises(ReclaimIncomplete):
        g.write("memory.reclaim", "4096")


def test_swappiness_0_leaves_anonymous_memory_alone(z: Zswap, g: MemCgroup) -> None:
    blocks = Blocks(z, g)
    blocks.add(100)
    with pytest.raises(ReclaimIncomplete):
        g.reclaim("100K", swappiness=0)
    assert stat(g, "pgscan") == 0
    assert g.reclaim("100K", swappiness="max").reclaimed >= 100 << 10
    blocks.close()


def test_a_signal_ends_ordinary_reclaim(z: Zswap, g: MemCgroup) -> None:
    blocks = Blocks(z, g)
    blocks.add(2000)
    asked: list[None] = []

    def arrive() -> bool:
        asked.append(None)
        if len(asked) == 3:
            os.kill(os.getpid(), signal.SIGUSR1)
        return False

    with handler(signal.SIGUSR1) as came, pytest.raises(ReclaimInterrupted) as interrupted:
        g.reclaim("8M", cancel=arrive)
    assert came == [signal.SIGUSR1]
    assert 0 < interrupted.value.result.reclaimed < 2000 * PAGE_SIZE
    blocks.close()


def test_members_are_asked_in_turn(z: Zswap) -> None:
    p = z.cgroup("/p")
    made = [Blocks(z, p.cgroup(name)) for name in "abc"]
    for blocks in made:
        blocks.add(1000)
    for _ in range(30):
        p.reclaim("128K")
    gone = [1000 - len(blocks.pages) for blocks in made]
    assert max(gone) - min(gone) <= 32
    for blocks in made:
        blocks.close()


def test_memory_min_is_never_touched(z: Zswap) -> None:
    p = z.cgroup("/p")
    protected, other = Blocks(z, p.cgroup("protected")), Blocks(z, p.cgroup("other"))
    p.write("memory.min", "4M")
    protected.cgroup.write("memory.min", "4M")
    for blocks in (protected, other):
        blocks.add(500)
    with pytest.raises(ReclaimIncomplete):
        p.reclaim("4M")
    assert (len(protected.pages), len(other.pages)) == (500, 0)
    for blocks in (protected, other):
        blocks.close()


def test_memory_low_is_touched_last(z: Zswap) -> None:
    p = z.cgroup("/p")
    protected, other = Blocks(z, p.cgroup("protected")), Blocks(z, p.cgroup("other"))
    p.write("memory.low", "4M")
    protected.cgroup.write("memory.low", "4M")
    for blocks in (protected, other):
        blocks.add(500)
    p.reclaim(500 * PAGE_SIZE)
    assert (len(protected.pages), len(other.pages)) == (500, 0)
    assert events(protected.cgroup)["low"] == 0
    p.reclaim("1M")
    assert len(protected.pages) <= 500 - 256
    assert events(protected.cgroup)["low"] > 0
    for blocks in (protected, other):
        blocks.close()


def test_memory_max_reclaims_before_it_admits(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.max", "1M")
    blocks = Blocks(z, g)
    blocks.add(1000)
    assert g.usage() <= 1 << 20
    # A cluster of 32 pages is charged twice while it moves, compressed and not.
    assert int(g.read("memory.peak")) <= round_up_to_page((1 << 20) + 32 * COMPRESSED)
    assert events(g)["max"] > 0
    assert events(g)["oom"] == 0
    assert stat(g, "pgsteal_direct") > 700
    assert "total=0\n" not in g.read("memory.pressure")
    blocks.close()


def test_memory_max_of_an_ancestor(z: Zswap) -> None:
    p = z.cgroup("/p")
    p.write("memory.max", "1M")
    a, b = Blocks(z, p.cgroup("a")), Blocks(z, p.cgroup("b"))
    a.add(200)
    b.add(200)
    assert p.usage() <= 1 << 20
    assert events(p)["max"] > 0
    assert events(p.cgroup("b"))["max"] == 0
    a.close()
    b.close()


def test_memory_max_with_zswap_alone_over_it_writes_back(z: Zswap, g: MemCgroup) -> None:
    """With the compressed bytes of the cgroup at its limit the kernel would give up; fair goes on to the device."""
    g.write("memory.max", "256K")
    blocks = Blocks(z, g)
    blocks.add(2000)
    assert stat(g, "zswpwb") > 0
    assert events(g)["oom"] == 0
    blocks.close()


def test_memory_max_that_cannot_be_met(engine: EngineFactory) -> None:
    z = engine(swap=None)
    g = z.cgroup("/g")
    g.write("memory.max", "256K")
    blocks = Blocks(z, g)
    with pytest.raises(MemoryError, match=r"/g: 4.0 KiB more do not fit below memory.max = 256.0 KiB"):
        blocks.add(2000)
    assert g.usage() <= 256 << 10
    assert events(g)["oom"] == 1
    assert events(g)["max"] >= 1
    assert events(g)["oom_kill"] == 0
    blocks.close()


def test_a_charge_that_never_fits_changes_nothing(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.max", "64K")
    with pytest.raises(MemoryError):
        z.charge(g, 1 << 20)
    assert g.usage() == 0


def test_memory_max_written_below_usage_reclaims_at_once(z: Zswap, g: MemCgroup) -> None:
    blocks = Blocks(z, g)
    blocks.add(500)
    g.write("memory.max", "512K")
    assert g.usage() <= 512 << 10
    assert events(g)["oom"] == 0
    blocks.close()


def test_memory_max_written_below_what_can_go(engine: EngineFactory) -> None:
    z = engine(swap=None)
    g = z.cgroup("/g")
    blocks = Blocks(z, g)
    blocks.add(500)
    assert g.write("memory.max", "64K") == 3
    assert g.read("memory.max") == "65536\n"
    assert g.usage() == 500 * COMPRESSED
    assert events(g)["oom"] == 1
    blocks.close()


def test_memory_high_reclaims_in_the_background(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.high", "1M")
    blocks = Blocks(z, g)
    blocks.add(1000)
    z.flush_work()
    assert g.usage() <= 1 << 20
    assert events(g)["high"] > 0
    assert events(g)["max"] == 0
    assert stat(g, "pgsteal_kswapd") > 0
    blocks.close()


def test_memory_high_written_below_usage_reclaims_at_once(z: Zswap, g: MemCgroup) -> None:
    blocks = Blocks(z, g)
    blocks.add(500)
    g.write("memory.high", "512K")
    assert g.usage() <= 512 << 10
    blocks.close()


def test_where_zswap_refuses_reclaim_goes_to_the_device(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.zswap.max", "0")
    blocks = Blocks(z, g)
    blocks.add(500)
    with stat_delta(g) as delta:
        g.reclaim("1M")
    assert delta["pswpout"] >= 256
    assert delta["zswpout"] == 0
    blocks.close()


def test_a_cgroup_with_a_front_end_cannot_be_removed(z: Zswap, g: MemCgroup) -> None:
    blocks = Blocks(z, g)
    with pytest.raises(OSError, match="member") as busy:
        g.remove()
    assert busy.value.errno == errno.EBUSY
    with pytest.raises(OSError, match="registered already"):
        z.register(blocks)
    blocks.close()
    g.remove()
    with pytest.raises(OSError, match="removed") as gone:
        Blocks(z, g)
    assert gone.value.errno == errno.ENODEV


def test_swap_high_is_counted(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.swap.high", "40K")
    fill(z, g, 10, 300)
    assert events(g, "memory.swap.events")["high"] == 0
    fill(z, g, 1, 300)
    assert events(g, "memory.swap.events")["high"] == 1


def test_charges_of_many_threads_stay_below_the_limit(z: Zswap) -> None:
    p = z.cgroup("/p")
    p.write("memory.max", "2M")
    made = [Blocks(z, p.cgroup(f"t{i}")) for i in range(4)]
    threads = [threading.Thread(target=blocks.add, args=(300,)) for blocks in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert p.usage() <= 2 << 20
    for blocks in made:
        blocks.close()


@pytest.mark.parametrize(
    ("walk", "step"), [("fair", "shrink_for_store"), ("coldest", "shrink_for_store"), ("v5", "shrink_memcg")]
)
def test_a_cgroup_that_is_removed_while_a_store_makes_room_in_it(
    engine: EngineFactory, monkeypatch: pytest.MonkeyPatch, walk: str, step: str
) -> None:
    """By another thread, say: ENODEV, as before and after, and what had been stored is freed."""
    z = engine(walk=walk, swap_size="16M")
    group = z.cgroup("/parent/child")
    group.write("memory.zswap.max", "64K")
    group.write("memory.swap.high", "32K")
    module = importlib.import_module(f"uzswap.reclaim.walks.{walk}")
    makes_room = getattr(module, step)

    def remove_first(*arguments: object) -> object:
        if group.online:
            group.remove()
        return makes_room(*arguments)

    monkeypatch.setattr(module, step, remove_first)
    with pytest.raises(OSError, match="removed") as gone:
        z.swap_out_many(os.urandom(1 << 20), group)
    assert gone.value.errno == errno.ENODEV
    z.check()
    assert z.cgroup("/parent").read("memory.swap.current") == "0\n"
