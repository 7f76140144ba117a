"""SPEC 8 group B: what becomes of a page that is swapped out, on walk="v5"."""

import errno

import numpy as np
import pytest
from tests.conftest import EngineFactory
from tests.support.pages import PAGE_SIZE, filled_page, page_of_length, pages_of_length, random_page, zero_page
from tests.support.states import debug_delta, fill, left, lengths, places, reclaim, stat, stat_delta

from uzswap import MemCgroup, StaleHandleError, Zswap
from uzswap.core.boundary.engine import REFUSED
from uzswap.engine.parameters import PoolLimit

REJECTS = (
    "pool_limit_hit",
    "reject_reclaim_fail",
    "reject_alloc_fail",
    "reject_kmemcache_fail",
    "reject_compress_fail",
    "reject_compress_poor",
    "decompress_fail",
    "written_back_pages",
)


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine(walk="v5")


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


def stays(z: Zswap, g: MemCgroup, page: bytes) -> bool:
    """Swap a page out; whether it stayed in RAM."""
    try:
        z.swap_out(page, g)
    except OSError as error:
        return (error.errno, error.filename) == (errno.ENOMEM, g.path)
    return False


def test_B1_B4_pool_limit_of_a_4_GiB_machine() -> None:
    assert PoolLimit(percent=20, accept=90).pages(1_048_576) == (209_715, 188_743)


@pytest.mark.parametrize(
    ("percent", "accept", "pages"), [(0, 90, (0, 0)), (150, 100, (1500, 1500)), (20, 150, (200, 300))]
)
def test_B1_percentages_are_used_as_they_are(percent: int, accept: int, pages: tuple[int, int]) -> None:
    assert PoolLimit(percent, accept).pages(1000) == pages


def test_B1_B2_B3_B4_hysteresis(z: Zswap, g: MemCgroup) -> None:
    """The pool stays as it is and the limits move around it: only the differences matter."""
    fill(z, g, 100, 4096)
    cur = z.core.pool_pages()
    page = random_page(1000)

    def outcome() -> tuple[str, int]:
        with debug_delta(z) as delta:
            handle = z.swap_out(page, g)
        where = z.where(handle)
        z.free(handle)
        return where, delta["pool_limit_hit"]

    z.core.set_pool_limit(cur, cur * 9 // 10)
    assert outcome() == ("disk", 1)  # B1: cur = max
    z.core.set_pool_limit(cur + 9_715, cur - 11_257)
    assert outcome() == ("disk", 0)  # B2: cur = 200,000 between 188,743 and 209,715
    z.core.set_pool_limit(cur + 20_971, cur - 1)
    assert outcome() == ("disk", 0)  # B3: cur = 188,744
    z.core.set_pool_limit(cur + 20_972, cur)
    assert outcome() == ("zswap", 0)  # B4: cur = 188,743
    z.core.set_pool_limit(z.core.pool_pages() + 1, 0)
    assert outcome() == ("zswap", 0)  # B4: later, cur = 209,714


def test_B5_zero_page(z: Zswap, g: MemCgroup) -> None:
    with stat_delta(g) as out:
        handle = z.swap_out(zero_page(), g)
    assert (out["swpout_zero"], out["zswpout"], out["zswap"], out["pswpout"]) == (1, 0, 0, 0)
    assert z.where(handle) == "zero"
    with stat_delta(g) as back:
        assert z.fault_in(handle) == zero_page()
    assert (back["swpin_zero"], back["zswpin"]) == (1, 0)


def test_B6_same_filled_page_as_an_ordinary_entry(z: Zswap, g: MemCgroup) -> None:
    z.parameters.set("same_filled_pages_enabled", "N")
    with stat_delta(g) as delta:
        handle = z.swap_out(filled_page(0xAA), g)
    assert (delta["zswpout"], delta["zswap"], delta["zswapped"]) == (1, 26, 4096)
    assert left(z, g) == 1
    assert reclaim(g, 1) == (0, 26)
    assert z.where(handle) == "disk"
    assert z.fault_in(handle) == filled_page(0xAA)


def test_B7_incompressible_page_is_kept_raw(z: Zswap, g: MemCgroup) -> None:
    with stat_delta(g) as delta, debug_delta(z) as debug:
        handle = z.swap_out(random_page(), g)
    assert (delta["zswap"], delta["zswapped"], delta["zswap_incomp"]) == (4096, 4096, 4096)
    assert debug["stored_incompressible_pages"] == 1
    assert lengths(z, np.array([handle], np.uint64)) == [4096]


def test_B8_incompressible_page_stays_where_writeback_is_off(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.zswap.writeback", "0")
    with stat_delta(g) as delta, debug_delta(z) as debug:
        assert stays(z, g, random_page())
    assert debug["reject_compress_fail"] + debug["reject_compress_poor"] == 1
    assert (delta["zswpout"], delta["pswpout"], delta["zswap"]) == (0, 0, 0)
    assert int(g.read("memory.swap.current")) == 0


def test_B9_zswap_max_0_sends_the_page_to_disk(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.zswap.max", "0")
    with stat_delta(g) as delta, debug_delta(z) as debug:
        handle = z.swap_out(page_of_length(300), g)
    assert z.where(handle) == "disk"
    assert (delta["pswpout"], delta["zswpout"]) == (1, 0)
    assert not any(debug[name] for name in REJECTS)


def test_B10_zswap_max_0_and_writeback_off(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.zswap.max", "0")
    g.write("memory.zswap.writeback", "0")
    with stat_delta(g) as delta:
        assert stays(z, g, page_of_length(300))
    assert (delta["pswpout"], delta["zswpout"]) == (0, 0)


def test_B11_zswap_max_below_a_page_is_0(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.zswap.max", "1000")
    assert g.read("memory.zswap.max") == "0\n"
    assert z.where(z.swap_out(page_of_length(300), g)) == "disk"


def test_B12_the_limit_is_tested_in_whole_pages(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.zswap.max", "8192")
    fill(z, g, 2, [4096, 4095])
    assert stat(g, "zswap") == 8191
    last = z.swap_out(page_of_length(1000, seed=5), g)
    assert z.where(last) == "zswap"
    z.free(last)
    fill(z, g, 1, 26, seed=6)
    assert stat(g, "zswap") >= 8192
    assert z.where(z.swap_out(page_of_length(1000, seed=7), g)) == "disk"


def test_B13_over_the_limit_with_fresh_entries(z: Zswap, g: MemCgroup) -> None:
    old = fill(z, g, 3, 2000)
    g.write("memory.zswap.max", "4096")
    assert z.where(z.swap_out(page_of_length(300), g)) == "disk"
    referenced = [info.referenced for handle in old if (info := z.core.info(int(handle)))]
    assert referenced == [False, True, True]
    assert left(z, g) == 3


@pytest.mark.parametrize("limit", ["4096", "0"])
def test_B14_over_the_limit_with_an_unreferenced_entry(z: Zswap, g: MemCgroup, limit: str) -> None:
    old = fill(z, g, 4, 3000, referenced=False)
    g.write("memory.zswap.max", limit)
    new = z.swap_out(page_of_length(300, seed=9), g)
    assert places(z, old) == ["disk", "zswap", "zswap", "zswap"]
    assert z.where(new) == "zswap"  # although 9300 bytes are still over the limit
    assert stat(g, "zswpwb_proactive_b") == 0


def test_B13_over_the_limit_without_a_device(engine: EngineFactory) -> None:
    z = engine(walk="v5", swap=None)
    g = z.cgroup("/g")
    g.write("memory.zswap.max", "4096")
    handles = z.swap_out_many(pages_of_length(1000, 10), g)
    assert (handles != 0).tolist() == [True] * 5 + [False] * 5


def test_B15_only_the_pages_own_cgroup_is_shrunk(z: Zswap) -> None:
    p, a, b = z.cgroup("/p"), z.cgroup("/p/a"), z.cgroup("/p/b")
    fill(z, b, 3, 2000, referenced=False)
    p.write("memory.zswap.max", "4096")
    assert z.where(z.swap_out(page_of_length(300), a)) == "disk"
    assert (left(z, a), left(z, b)) == (0, 3)
    assert stat(b, "zswpwb") == 0


def test_B16_store_to_a_slot_that_has_an_entry(z: Zswap, g: MemCgroup) -> None:
    old = fill(z, g, 3, 1000, referenced=False)
    with debug_delta(z) as debug, stat_delta(g) as delta:
        new = z.swap_out(page_of_length(300, seed=9), g, replace=int(old[0]))
    assert debug["stored_pages"] == 0
    assert (delta["zswap"], delta["zswapped"]) == (300 - 1000, 0)
    assert int(g.read("memory.swap.current")) == 3 * PAGE_SIZE
    info = z.core.info(new)
    assert info is not None
    assert info.referenced
    with pytest.raises(StaleHandleError):
        z.fault_in(int(old[0]))
    assert reclaim(g, 1) == (0, 2000)  # the two older ones; the new one is at the tail and has its second chance
    assert z.where(new) == "zswap"


def test_B17_refused_store_to_a_slot_that_has_an_entry(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.zswap.writeback", "0")
    (old,) = fill(z, g, 1, 1000)
    g.write("memory.zswap.max", "0")
    with pytest.raises(OSError, match="refused") as refused:
        z.swap_out(page_of_length(300, seed=9), g, replace=int(old))
    assert refused.value.errno == errno.ENOMEM
    assert stat(g, "zswap") == 0
    with pytest.raises(StaleHandleError):
        z.where(int(old))


def test_B18_disabled_zswap_stores_nothing_and_loads_what_it_has(z: Zswap, g: MemCgroup) -> None:
    (old,) = fill(z, g, 1, 1000)
    z.parameters.set("enabled", "N")
    assert z.where(z.swap_out(page_of_length(300), g)) == "disk"
    with stat_delta(g) as delta:
        assert z.fault_in(int(old)) == page_of_length(1000)
    assert delta["zswpin"] == 1


def test_B19_a_folio_is_kept_whole_or_not_at_all(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.zswap.writeback", "0")
    pages = bytearray(pages_of_length(300, 16))
    pages[9 * PAGE_SIZE : 10 * PAGE_SIZE] = random_page()
    with stat_delta(g) as delta:
        handles = z.swap_out_many(pages, g, folio=16)
    assert handles.tolist() == [REFUSED] * 16
    assert (delta["zswpout"], delta["zswap"]) == (0, 0)
    assert left(z, g) == 0


def test_B19_the_next_folio_is_another_decision(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.zswap.writeback", "0")
    pages = bytearray(pages_of_length(300, 32))
    pages[9 * PAGE_SIZE : 10 * PAGE_SIZE] = random_page()
    handles = z.swap_out_many(pages, g, folio=16)
    assert (handles != 0).tolist() == [False] * 16 + [True] * 16
    assert stat(g, "zswpout") == 16


def test_B20_compressor_changed_with_entries_stored(z: Zswap, g: MemCgroup) -> None:
    old = fill(z, g, 10, 1000)
    z.parameters.set("compressor", "zstd")
    new = fill(z, g, 1, 500)
    assert [(pool.entries, pool.current) for pool in z.core.pools()] == [(1, True), (10, False)]
    assert z.core.pool_pages() * PAGE_SIZE >= 10 * 1000 + 500
    for i, handle in enumerate(old[:9]):
        assert z.fault_in(int(handle)) == page_of_length(1000, i)
    assert len(z.core.pools()) == 2
    assert z.fault_in(int(old[9])) == page_of_length(1000, 9)
    assert [(pool.entries, pool.current) for pool in z.core.pools()] == [(1, True)]
    assert z.fault_in(int(new[0])) == page_of_length(500, 0, "zstd")


def test_B20_unknown_compressor(z: Zswap) -> None:
    with pytest.raises(FileNotFoundError, match="lzo"):
        z.parameters.set("compressor", "lzo")
    assert z.parameters.get("compressor") == "lz4"


def test_B20_old_compressor_is_promoted_again(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 2, 1000)
    z.parameters.set("compressor", "zstd:7")
    z.parameters.set("compressor", "zstd:7")
    z.parameters.set("compressor", "lz4")
    assert [(pool.entries, pool.current) for pool in z.core.pools()] == [(2, True)]
