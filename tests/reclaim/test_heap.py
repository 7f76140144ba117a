"""What reclaim frees goes back to the system: RSS of a process of its own, before values come and after they went."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Final

import pytest
from tests.conftest import EngineFactory
from tests.support.child import run

import uzswap
from uzswap.core.boundary import heap
from uzswap.process import resident_set
from uzswap.reclaim.heap import LEAST, HeapTrim

trims = pytest.mark.skipif(not heap.CAN_TRIM, reason="the C library has no malloc_trim(): only glibc gives memory back")

#: what of it stays taken, of RSS and beside
SHARE: Final = 0.15
BYTES: Final = 8 << 20

#: kind -> (bytes of a value, bytes of all, how number i is made)
KINDS: Final = {
    "bytes of 1 KB": (1000, 32 << 20, "text[i % 50_000:][:1000] + b'%d' % i"),
    "bytes of 100 KB": (100_000, 64 << 20, "text[i:][:100_000] + b'%d' % i"),
    "bytes of 300 KB": (300_000, 64 << 20, "text[i:][:300_000] + b'%d' % i"),
    "lists of strings": (20_000, 64 << 20, "[f'{i} {j} ' + 'x' * 40 for j in range(200)]"),
    "ndarrays of 80 KB": (80_000, 64 << 20, "np.arange(i, i + 10_000)"),
    "DataFrames": (240_000, 64 << 20, "frame(i)"),
}

CHILD: Final = """
    import gc, json, sys
    from pathlib import Path
    import numpy as np
    import uzswap

    size, total, make = int(sys.argv[1]), int(sys.argv[2]), eval("lambda i: " + sys.argv[3])
    text = np.random.default_rng(1).integers(97, 123, 500_000, np.uint8)
    text[::2] = 97
    text = text.tobytes()

    if "frame" in sys.argv[3]:
        import pandas

        def frame(i):
            n = np.arange(10_000)
            return pandas.DataFrame({"a": n + i, "b": n * 0.5, "c": n % 7})

    def rss():
        gc.collect()
        [line] = (line for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if line.startswith("Rss:"))
        return int(line.split()[1]) << 10

    def reclaim(to_disk):
        group.reclaim(str(group.stats()["anon"]))
        if to_disk:
            group.reclaim(str(group.stats()["zswap"]), source="zswap")

    found = {}
    with uzswap.Zswap() as z, uzswap.Store(z.cgroup("/group")) as store:
        group = store.cgroup
        # What is imported, allocated and compiled by the first of a kind is not the values'.
        for i in range(8):
            store[i] = make(i)
        reclaim(True)
        for i in range(8):
            del store[i]
        keys = list(range(total // size))
        found["before"] = rss()
        for i in keys:
            store[i] = make(i)
        found["with"] = rss()
        reclaim(False)
        found["in zswap"], found["pool"] = rss(), group.stats()["zswap"]
        reclaim(True)
        assert store.stats()["resident"] == 0 and store.stats()["zswap_bytes"] == 0
        found["on disk"] = rss()
        for i in keys[::50]:
            assert repr(store[i]) == repr(make(i))
    print(json.dumps(found))
"""


@trims
@pytest.mark.parametrize("kind", KINDS)
def test_rss_is_where_it_was_before_the_values_came(kind: str) -> None:
    if kind == "DataFrames" and find_spec("pandas") is None:
        pytest.skip("pandas is missing: pip install 'uzswap[compat]'")
    size, total, make = KINDS[kind]
    done = run(CHILD, [str(size), str(total), make], fresh=True).check()
    found = json.loads(done.stdout)
    assert found["with"] >= found["before"] + 0.75 * total, found
    most = found["before"] * (1 + SHARE) + BYTES
    assert found["in zswap"] <= most + found["pool"] * (1 + SHARE), found
    assert found["on disk"] <= most, found


@trims
def test_values_that_threads_made_come_back_where_there_is_one_arena() -> None:
    """docs/semantics.md: glibc keeps the ends of the others."""
    done = run(
        """
        import json, sys, threading
        import uzswap
        from uzswap.process import resident_set

        del (large := [bytes(30_000_000)])[:]  # glibc's thresholds grow with what is freed
        with uzswap.Zswap() as z, uzswap.Store(z.cgroup("/group")) as store:
            before = resident_set()

            def make(first):
                for i in range(first, first + 200):
                    store[i] = bytes([i % 251, 1]) * 40_000

            threads = [threading.Thread(target=make, args=(i * 200,)) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            found = before, resident_set()
            store.cgroup.reclaim(str(store.resident_bytes))
            print(json.dumps([*found, resident_set()]))
        """,
        env={"MALLOC_ARENA_MAX": "1"},
    ).check()
    before, full, after = json.loads(done.stdout)
    assert full >= before + 0.75 * 800 * 80_000
    assert after <= before * (1 + SHARE) + BYTES


@trims
def test_operations_without_end_leave_rss_flat() -> None:
    """Under a limit, values of all sizes come, are read, change and go."""
    done = run(
        """
        import json, random
        import uzswap
        from uzswap.process import resident_set

        draw = random.Random(1)
        text = draw.randbytes(30_000).hex().encode()
        found = []
        with uzswap.Zswap() as z, uzswap.Store(z.cgroup("/group")) as store:
            store.cgroup.write("memory.max", "8M")
            for part in range(4):
                for _ in range(4000):
                    key, size = draw.randrange(1000), draw.choice((100, 1000, 5000, 20_000, 60_000))
                    if draw.random() < 0.4:
                        store[key] = text[draw.randrange(1000) :][:size] if size > 1000 else [text[:size]] * 3
                    elif draw.random() < 0.2:
                        store.discard(key)
                    else:
                        store.get(key)
                found.append(resident_set())
            z.check()
        print(json.dumps(found))
        """,
        fresh=True,
    ).check()
    found = json.loads(done.stdout)
    # A dictionary is made in the course of it, once: training takes some 10 MB, which its thread's arena keeps.
    assert max(found[1:]) <= found[0] + 2 * BYTES, found


@pytest.fixture
def z(engine: EngineFactory) -> uzswap.Zswap:
    return engine()


class Trims:
    """Counts, beside what the heap does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._trim = heap.trim
        monkeypatch.setattr(heap, "trim", self)

    def __call__(self) -> bool:
        self.count += 1
        return self._trim()


@pytest.fixture
def trimmed(monkeypatch: pytest.MonkeyPatch) -> Trims:
    return Trims(monkeypatch)


def test_what_the_last_steps_of_a_request_freed_goes_back_at_its_end(trimmed: Trims) -> None:
    held = [0]
    heap_trim = HeapTrim(lambda: held[0])
    least = max(LEAST, resident_set() // 16)
    held[0] = 8 * least
    for _ in range(3):
        with heap_trim:
            held[0] -= least * 3 // 4
    assert trimmed.count == 1
    heap_trim.after(least // 2)  # no more than a share of RSS in all
    assert trimmed.count == 1
    heap_trim.after(3 * least)
    assert trimmed.count == 2
    heap_trim.after(3 * least)  # nothing is left
    assert trimmed.count == 2


def test_the_heap_is_trimmed_when_what_is_held_has_fallen_by_a_share_of_rss(trimmed: Trims) -> None:
    held = [0]
    heap_trim = HeapTrim(lambda: held[0])
    least = max(LEAST, resident_set() // 16)
    held[0] = 4 * least
    with heap_trim:
        held[0] -= LEAST // 2
    assert trimmed.count == 0
    with heap_trim:
        held[0] -= least // 2
    with heap_trim:
        held[0] -= least
    assert trimmed.count == 1
    with heap_trim:
        pass
    assert trimmed.count == 1


def test_what_goes_to_make_room_for_what_comes_trims_nothing(z: uzswap.Zswap, trimmed: Trims) -> None:
    """In a steady state the memory is wanted again at once."""
    group = z.cgroup("/group")
    group.write("memory.max", "16M")
    with uzswap.Store(group) as store:
        for i in range(300):
            store[i] = bytes([i % 251, 1]) * 50_000
        evicted = store.stats()["evicted"]
        before = trimmed.count
        for i in range(300, 600):
            store[i] = bytes([i % 251, 1]) * 50_000
        assert store.stats()["evicted"] > evicted
        # The pool takes a share of the limit in the end, so what is held falls that far, once.
        assert trimmed.count - before <= 2


def test_pages_of_arrays_are_not_on_the_heap(z: uzswap.Zswap, trimmed: Trims) -> None:
    group = z.cgroup("/arrays")
    try:
        x = uzswap.zeros(32 << 20, "u1", cgroup=group)
    except OSError as refused:
        pytest.skip(f"no paged arrays here: {refused.strerror}")
    x[:] = 1
    group.reclaim(str(group.stats()["anon"]))
    assert group.stats()["anon"] == 0
    assert trimmed.count == 0
    del x


def test_what_malloc_keeps_goes_back_only_where_there_is_malloc_trim() -> None:
    """On other C libraries nothing happens."""
    assert heap.trim() in ((False, True) if heap.CAN_TRIM else (False,))
