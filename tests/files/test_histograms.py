"""Histograms: every value is counted once, in the class whose bound it does not exceed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.conftest import EngineFactory
from tests.support.pages import page_of_length, random_page, zero_page
from tests.support.states import fill, reclaim

from uzswap import MemCgroup, Zswap
from uzswap.files.engine import DEBUG
from uzswap.files.histograms import HISTOGRAM_FILES, Series, parse_series

SECOND = 10**9


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


def series(z: Zswap, name: str) -> dict[str, Series]:
    return {one.name: one for one in parse_series(DEBUG[name].read(z, z.root))}


def used(one: Series) -> dict[float, int]:
    return {bound: count for bound, count in one.classes if count}


@pytest.mark.parametrize("row", HISTOGRAM_FILES, ids=lambda row: row.name)
def test_bounds_rise_and_the_last_has_no_end(z: Zswap, row: object) -> None:
    for one in series(z, getattr(row, "name").rpartition("/")[2]).values():  # noqa: B009
        bounds = [bound for bound, _ in one.classes]
        assert all(low < high for low, high in pairwise(bounds))
        assert bounds[-1] == float("inf")
        assert (one.sum, used(one)) == (0, {})


def test_compressed_size(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 6, [40, 256, 257, 4095, 300, 2000])
    z.swap_out(random_page(), g)
    z.swap_out(random_page(size=65536), g)
    z.swap_out(random_page(size=8193), g)
    z.swap_out(zero_page(), g)
    stored = series(z, "uzswap.compressed_size")["stored"]
    assert used(stored) == {256: 2, 512: 2, 2048: 1, 4096: 2, 16384: 1, 65536: 1}
    assert stored.sum == 40 + 256 + 257 + 4095 + 300 + 2000 + 4096 + 65536 + 8193


def test_a_folio_that_is_taken_out_again_was_never_stored(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.zswap.writeback", "0")
    folio = page_of_length(1000) + page_of_length(2000) + random_page()
    assert not z.swap_out_many(folio, g, folio=3).any()
    stored = series(z, "uzswap.compressed_size")["stored"]
    assert (stored.sum, used(stored)) == (0, {})


def test_loads_are_counted_by_where_the_data_was(z: Zswap, g: MemCgroup) -> None:
    written = fill(z, g, 3, 1000, referenced=False)
    assert reclaim(g, 3000).wrote == 3000
    pooled = fill(z, g, 5, 1000, seed=3)
    zeros = z.swap_out_many(zero_page() * 2, g)
    z.fault_in_many([*written, *pooled, *zeros])
    found = series(z, "uzswap.load_latency")
    assert {name: sum(used(one).values()) for name, one in found.items()} == {"zswap": 5, "disk": 3, "zero": 2}
    # The device's part is counted for those that came from it.
    assert found["disk"].sum / 3 > found["zswap"].sum / 5 >= 0


def test_age_at_writeback(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 2, 1000, referenced=False)
    z.core.advance(100 * SECOND)
    fill(z, g, 1, 1000, referenced=False, seed=2)
    assert reclaim(g, 3000).wrote == 3000
    written_back = series(z, "uzswap.writeback_age")["written_back"]
    counts = used(written_back)
    assert sum(counts.values()) == 3
    assert sum(count for bound, count in counts.items() if 100 * SECOND < bound < 200 * SECOND) == 2
    assert written_back.sum >= 199 * SECOND


def test_what_never_was_in_the_pool_has_no_age(z: Zswap, g: MemCgroup) -> None:
    g.write("memory.zswap.max", "0")
    z.swap_out(page_of_length(1000), g)
    assert z.core.counters(g.index)[5] > 0  # on disk
    assert used(series(z, "uzswap.writeback_age")["written_back"]) == {}
