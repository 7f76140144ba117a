"""Clean copies: kept while the pool has room, never stale, the first to go."""

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest

from uzswap.core.boundary import engine as core
from uzswap.core.boundary import memory as paged

MIB = 1 << 20
PAGES = 256


@pytest.fixture(params=[False, True], ids=["", "old_kernel"])
def memory(engine: core.Engine, request: pytest.FixtureRequest) -> Iterator[paged.Memory]:
    try:
        memory = paged.Memory(engine, old_kernel=request.param)
    except OSError as refused:
        pytest.skip(f"userfaultfd is refused here ({refused}): run where a seccomp filter does not forbid it")
    yield memory
    memory.close()


class Array:
    """An array of one MiB whose pages were evicted, and brought in again by reading."""

    def __init__(self, engine: core.Engine, memory: paged.Memory, memcg: int) -> None:
        self.engine, self.memory, self.memcg = engine, memory, memcg
        self.area, address = memory.alloc(MIB, memcg, 8)
        self.values = np.frombuffer((ctypes.c_char * MIB).from_address(address), np.uint64)
        self.values[:] = self.expected = np.arange(MIB // 8, dtype=np.uint64) * 3 + 1
        assert memory.evict(self.area, 0, PAGES) == PAGES
        assert (self.values == self.expected).all()
        self.settle()

    def settle(self) -> None:
        """Wait for what was only just put in place: its reader runs before the rest is done."""
        self.memory.bring(self.area, 0, PAGES)

    def level(self, name: str) -> int:
        return self.engine.counters(self.memcg)[core.COUNTERS.index(name)]

    def free(self) -> None:
        assert (self.values == self.expected).all()
        del self.values
        self.memory.free(self.area)
        assert self.level("zswap") == self.level("swap") == self.level("resident") == 0
        assert self.level("uzswap.clean_copies") == self.level("swapcached") == 0


@pytest.fixture
def array(engine: core.Engine, memory: paged.Memory) -> Iterator[Array]:
    array = Array(engine, memory, engine.memcg_new(0))
    yield array
    array.free()


def test_pages_that_were_only_read_go_by_their_copies(array: Array, memory: paged.Memory) -> None:
    assert array.level("uzswap.clean_copies") == array.level("zswap") == memory.area(array.area).clean_copies > 0
    assert array.level("swapcached") == array.level("resident") == MIB
    assert array.engine.lru_len(array.memcg, 0) == 0
    assert memory.evict(array.area, 0, PAGES) == PAGES
    assert memory.info().evicted_clean == PAGES
    assert array.engine.lru_len(array.memcg, 0) == PAGES
    assert array.level("uzswap.clean_copies") == array.level("swapcached") == 0
    assert array.level("zswpout") == 2 * PAGES


def test_a_page_that_was_written_to_is_compressed_anew(array: Array, memory: paged.Memory) -> None:
    changed = np.arange(0, PAGES, 3) * 512 + 511  # the last word of every third page
    array.values[changed] = array.expected[changed] = 7
    assert memory.evict(array.area, 0, PAGES) == PAGES
    assert memory.info().evicted_clean == PAGES - len(changed)
    assert array.engine.lru_len(array.memcg, 0) == PAGES


def test_what_is_about_to_be_written_gets_no_copy(array: Array, memory: paged.Memory) -> None:
    memory.evict(array.area, 0, PAGES)
    array.values[:] = array.expected[:] = np.arange(len(array.expected))[::-1]
    array.settle()
    assert array.level("uzswap.clean_copies") == 0


@pytest.mark.parametrize("limit", [core.MEMORY_MAX, core.MEMORY_HIGH])
def test_copies_go_before_pages_under_limits_on_memory(array: Array, memory: paged.Memory, limit: int) -> None:
    used = array.level("resident") + array.level("zswap")
    copies = array.level("uzswap.clean_copies")
    array.engine.set_limit(array.memcg, limit, used - copies // 2)
    evicted = memory.info().evicted
    area, address = memory.alloc(4096, array.memcg)
    ctypes.memset(address, 1, 4096)
    while array.level("resident") + array.level("zswap") > used - copies // 2:
        memory.bring(area, 0, 1)  # workers are at it
    assert memory.info().evicted == evicted
    assert array.level("uzswap.clean_copies") < copies
    memory.free(area)


def test_a_limit_on_resident_memory_leaves_copies_alone(array: Array, memory: paged.Memory) -> None:
    zswap = array.level("zswap")
    array.engine.set_limit(array.memcg, core.RESIDENT_MAX, MIB // 2)
    area, address = memory.alloc(4096, array.memcg)
    ctypes.memset(address, 1, 4096)
    assert array.level("resident") <= MIB
    memory.free(area)
    assert array.level("zswap") == zswap


def test_copies_are_dropped_where_they_are_asked_for(array: Array, engine: core.Engine, memory: paged.Memory) -> None:
    sibling = Array(engine, memory, engine.memcg_new(0))
    copies = array.level("uzswap.clean_copies")
    freed = engine.drop_clean(array.memcg, 1)
    assert 0 < freed < 4096
    assert array.level("uzswap.clean_copies") == array.level("zswap") == copies - freed
    assert engine.drop_clean(array.memcg, 1 << 40) == copies - freed
    assert engine.drop_clean(array.memcg, 1 << 40) == 0
    assert sibling.level("uzswap.clean_copies") > 0
    assert engine.drop_clean(0, 1 << 40) > 0
    assert sibling.level("uzswap.clean_copies") == 0
    sibling.free()


def test_copies_make_room_for_stores_below_zswap_max(array: Array, engine: core.Engine) -> None:
    engine.set_limit(array.memcg, core.ZSWAP_MAX, -(-array.level("zswap") // 4096))
    noise = np.random.default_rng(1).integers(0, 256, 64 * 4096, np.uint8)
    handles = np.zeros(64, np.uint64)
    done = engine.store(noise.data, 4096, array.memcg, 0, handles, 0, 1, 0)
    assert done.reason == core.DONE or done.next > 0
    assert handles[0] != 0
    engine.free(handles[handles != 0])


def test_copies_make_room_in_a_full_pool(array: Array, engine: core.Engine) -> None:
    engine.set_pool_limit(engine.pool_pages(), engine.pool_pages())
    handles = np.zeros(1, np.uint64)
    noise = np.random.default_rng(1).integers(0, 256, 4096, np.uint8)
    engine.store(noise.data, 4096, array.memcg, 0, handles, 0, 1, 0)
    assert array.level("uzswap.clean_copies") < array.level("zswap") or array.level("zswap") == 0
    engine.free(handles[handles != 0])


def test_copies_are_on_no_lru(array: Array, engine: core.Engine) -> None:
    assert engine.lru_len(array.memcg, 0) == 0
    assert engine.local_stored(array.memcg) == PAGES


def test_dropped_pages_take_their_copies_along(array: Array, memory: paged.Memory) -> None:
    memory.drop(array.area, 0, PAGES // 2)
    array.expected[: len(array.expected) // 2] = 0
    assert array.level("swapcached") == MIB // 2
    memory.evict(array.area, 0, PAGES)


def test_copies_of_a_removed_memcg_are_its_parents(engine: core.Engine, memory: paged.Memory) -> None:
    parent = engine.memcg_new(0)
    child = engine.memcg_new(parent)
    array = Array(engine, memory, child)
    copies = array.level("uzswap.clean_copies")
    array.memcg = parent
    engine.memcg_remove(child)
    assert array.level("uzswap.clean_copies") == copies
    assert engine.check() == []
    assert memory.evict(array.area, 0, PAGES) == PAGES
    assert memory.info().evicted_clean == PAGES
    array.free()
