"""memory.events and memory.swap.events: for each situation exactly those counters that it has to count (SPEC 7.2).

``low`` what memory.low protects was taken; ``high`` and ``max`` usage was over that limit; ``oom`` nothing more could
go; ``swap.high`` and ``swap.max`` the same of swap; ``swap.fail`` swap space could not be had, for memory.swap.max or
because the device is full.
"""

from __future__ import annotations

import errno
import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.conftest import EngineFactory, FaultyDisks

import uzswap

KIB = 1 << 10
MIB = 1 << 20
Array = np.ndarray[Any, Any]


def noise(nbytes: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8)


def counted(group: uzswap.MemCgroup) -> set[str]:
    """The counters that are not 0."""
    names = set()
    for file, prefix in (("memory.events", ""), ("memory.swap.events", "swap.")):
        for key, value in (line.split() for line in group.read(file).splitlines()):
            if int(value):
                names.add(prefix + key)
    return names


def array_of_4_mib(group: uzswap.MemCgroup) -> Array:
    return uzswap.array(noise(4 * MIB), cgroup=group)


def array_by_many_threads(group: uzswap.MemCgroup) -> Array:
    """All that fits is on its way in or out now and then, which is no reason to give up."""
    x = uzswap.array(noise(16 * MIB), cgroup=group)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(100):
            at = int(rng.integers(0, x.size - 256 * KIB))
            x[at : at + 256 * KIB] = seed

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return x


def store_of_4_mib(group: uzswap.MemCgroup) -> None:
    with uzswap.Store(group) as store:
        for i in range(40):
            store[i] = noise(100 * KIB, i).tobytes()
        group.zswap.flush_work()


def store_of_too_much(group: uzswap.MemCgroup) -> None:
    with uzswap.Store(group) as store, pytest.raises(MemoryError):
        store["a"] = noise(4 * MIB).tobytes()


def pages_of_4_mib(group: uzswap.MemCgroup) -> None:
    z = group.zswap
    z.free_many(z.swap_out_many(noise(4 * MIB), group))


def array_then_limit(name: str) -> Callable[[uzswap.MemCgroup], Array]:
    def lower(group: uzswap.MemCgroup) -> Array:
        x = array_of_4_mib(group)
        group.write(name, "1M")
        return x

    return lower


#: what is done, the settings of the cgroup, the options of the engine, what counts
CASES: list[tuple[str, Callable[[uzswap.MemCgroup], Any], dict[str, str], dict[str, Any], set[str]]] = [
    ("array-without-limits", array_of_4_mib, {}, {}, set()),
    ("array-over-max", array_of_4_mib, {"memory.max": "1M"}, {}, {"max"}),
    ("array-over-resident.max", array_of_4_mib, {"uzswap.resident.max": "1M"}, {}, {"max"}),
    ("array-over-high", array_of_4_mib, {"memory.high": "1M"}, {}, {"high"}),
    ("array-over-max-by-many-threads", array_by_many_threads, {"memory.max": "1M"}, {"swap_size": "1G"}, {"max"}),
    ("array-device-full", array_of_4_mib, {"memory.max": "256K"}, {"swap_size": "4M"}, {"max", "oom", "swap.fail"}),
    ("array-no-device", array_of_4_mib, {"memory.max": "1M"}, {"swap": None}, {"max", "oom"}),
    (
        "array-no-writeback",
        array_of_4_mib,
        {"memory.max": "1M", "memory.zswap.writeback": "0"},
        {},
        {"max", "oom"},
    ),
    (
        "array-over-swap.max",
        array_of_4_mib,
        {"memory.max": "1M", "memory.swap.max": "1M"},
        {},
        {"max", "oom", "swap.max", "swap.fail"},
    ),
    (
        "array-over-swap.high",
        array_of_4_mib,
        {"memory.max": "1M", "memory.swap.high": "1M"},
        {},
        {"max", "swap.high"},
    ),
    ("max-is-lowered", array_then_limit("memory.max"), {}, {}, set()),
    ("high-is-lowered", array_then_limit("memory.high"), {}, {}, set()),
    ("store-over-max", store_of_4_mib, {"memory.max": "1M"}, {}, {"max"}),
    ("store-over-high", store_of_4_mib, {"memory.high": "1M"}, {}, {"high"}),
    ("store-too-much-for-max", store_of_too_much, {"memory.max": "1M"}, {}, {"max", "oom"}),
    ("store-over-swap.high", store_of_4_mib, {"memory.max": "1M", "memory.swap.high": "1M"}, {}, {"max", "swap.high"}),
    ("pages-without-limits", pages_of_4_mib, {}, {}, set()),
    ("pages-device-full", pages_of_4_mib, {}, {"swap_size": "4M", "max_pool": "256K"}, {"swap.fail"}),
    ("pages-no-device", pages_of_4_mib, {}, {"swap": None, "max_pool": "256K"}, set()),
    ("pages-no-writeback", pages_of_4_mib, {"memory.zswap.writeback": "0"}, {"max_pool": "256K"}, set()),
    ("pages-over-swap.max", pages_of_4_mib, {"memory.swap.max": "1M"}, {}, {"swap.max", "swap.fail"}),
    ("pages-over-swap.high", pages_of_4_mib, {"memory.swap.high": "1M"}, {}, {"swap.high"}),
]


@pytest.mark.parametrize(("do", "limits", "options", "counts"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_a_situation_counts_what_it_is_and_nothing_else(
    engine: EngineFactory,
    do: Callable[[uzswap.MemCgroup], Any],
    limits: dict[str, str],
    options: dict[str, Any],
    counts: set[str],
) -> None:
    z = engine(**options)
    if "array" in do.__name__ or do.__name__ == "lower":
        try:
            z.arena.open()
        except OSError as refused:
            pytest.skip(f"{refused.strerror}")
    group = z.cgroup("/g")
    bystander = z.cgroup("/other")
    for name, value in limits.items():
        group.write(name, value)
    made = do(group)
    z.flush_work()
    assert counted(group) == counts
    assert counted(bystander) == set()
    if made is not None and do is array_of_4_mib:
        assert (made == noise(made.size)).all()
    del made
    gc.collect()


def test_a_device_that_fails_is_no_want_of_swap_space(engine: EngineFactory, faulty_swap: FaultyDisks) -> None:
    disk = faulty_swap()
    z = engine(swap=disk.path, swap_size=disk.size, max_pool="256K")
    group = z.cgroup("/g")
    disk.fail_writes(errno.EIO)
    handles = z.swap_out_many(noise(MIB), group)
    assert (handles == 0).any()
    z.free_many(handles)
    assert counted(group) == set()


def test_memory_high_that_is_lowered_is_met_though_all_is_compressed(engine: EngineFactory) -> None:
    """What front-ends give up goes into zswap, and counts there: zswap is written back until the limit is met."""
    z = engine(swap_size="64M")
    group = z.cgroup("/g")
    pages = noise(8 * MIB).reshape(-1, 4096)
    pages[:, 2048:] = 0
    with uzswap.Store(group) as store:
        for i in range(80):
            store[i] = pages[i * 20 : (i + 1) * 20].tobytes()
        group.write("memory.high", "1M")
        assert int(group.read("memory.current")) <= MIB
        assert group.stats()["uzswap.disk"] > 0
        assert all(store[i] == pages[i * 20 : (i + 1) * 20].tobytes() for i in range(80))
    assert counted(group) <= {"high"}
