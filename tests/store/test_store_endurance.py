"""Many operations leave nothing behind: a short form of ``benchmarks.bench_objects --operations 10000000``."""

from __future__ import annotations

import pytest
from tests.support.child import run
from tests.support.soak import longer

OPERATIONS = longer(60_000, 2_000_000)

CODE = """
    import contextlib, gc, random, sys
    import uzswap

    def rss():
        gc.collect()
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096

    number = int(sys.argv[1])
    turns = random.Random(1)
    found = []
    with uzswap.Zswap(swap_size="64M") as z, uzswap.Store(z.cgroup("/a")) as store:
        for done in range(number):
            key, what = turns.randrange(2000), turns.randrange(10)
            if what < 5:
                value = store.get(key)
                assert value is None or value[0] == key
                del value
            elif what < 9:
                store[key] = [key, str(key) * turns.randrange(1, 400)]
            else:
                store.discard(key)
            if not done % 2000:
                with contextlib.suppress(uzswap.ReclaimError):
                    store.reclaim(store.resident_bytes // (1 + done % 3))
                    z.cgroup("/a").reclaim("256K", source="zswap")
            if done % (number // 10) == number // 10 - 1:
                found.append(rss())
        store.check()
    print(found)
    assert max(found[5:]) < 1.05 * max(found[:3]) + (8 << 20), found
"""


@pytest.mark.slow
def test_memory_stays_what_it_was() -> None:
    run(CODE, [str(OPERATIONS)], fresh=True).check()
