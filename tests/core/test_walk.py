"""The walk over several LRUs at once, at the level of the data plane."""

import numpy as np
import pytest

from uzswap.core.boundary import engine as core
from uzswap.core.boundary.writer import Writer


def stored(engine: core.Engine, memcg: int, n: int) -> np.ndarray:
    data = np.random.default_rng(memcg).integers(0, 256, n * 4096, np.uint8)
    handles = np.zeros(n, np.uint64)
    assert engine.store(data, 4096, memcg, 0, handles).next == n
    return handles


@pytest.mark.parametrize("order", [[1, 0, 2], [0, 1, 2], [2, 1, 0]])
def test_a_walk_that_empties_the_coldest_lru_is_not_at_its_end(engine: core.Engine, order: list[int]) -> None:
    """The last entry that it may meet is the only one of its LRU; two other LRUs have more."""
    memcgs = [engine.memcg_new(0) for _ in range(3)]
    for memcg, n in zip(memcgs, (1, 5, 5), strict=True):
        stored(engine, memcg, n)
    lrus = np.array([memcgs[i] << 8 for i in order], np.uint64)
    writer = Writer(engine)
    # The second chance of all of them, then the first one alone.
    assert writer.walk(lrus, np.zeros(3, np.uint64), 11, 1, engine.stamp()).rotated == 11
    met = writer.walk(lrus, np.zeros(3, np.uint64), 1, 1 << 40, engine.stamp())
    assert (met.scanned, met.entries, engine.lru_len(memcgs[0], 0)) == (1, 1, 0)
    assert not met.exhausted
    rest = writer.walk(lrus, np.zeros(3, np.uint64), 100, 1 << 40, engine.stamp())
    assert (rest.entries, rest.exhausted) == (10, True)
    assert writer.finish().entries == 11
