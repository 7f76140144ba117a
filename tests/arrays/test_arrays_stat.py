"""What control files say of arrays: usage, counters, events, pressure."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import numpy as np
from tests.arrays.paged import MIB, PAGE, current, settle

import uzswap

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

PER_PAGE = PAGE // 8


def events(group: uzswap.MemCgroup, name: str = "memory.events") -> dict[str, int]:
    return {key: int(value) for key, value in map(str.split, group.read(name).splitlines())}


def test_usage_and_counters(z: uzswap.Zswap, group: uzswap.MemCgroup) -> None:
    x = uzswap.array(np.arange(256 * PER_PAGE), cgroup=group)
    settle(x)
    stat = group.stats()
    assert stat["anon"] == stat["inactive_anon"] == x.nbytes == current(group)
    assert (stat["pgfault"], stat["pgmajfault"], stat["zswpout"]) == (256, 0, 0)
    group.reclaim("512K")
    stat = group.stats()
    assert stat["anon"] == 128 * PAGE
    assert (stat["zswapped"], stat["zswpout"], stat["pgsteal_proactive"]) == (128 * PAGE, 128, 128)
    assert 0 <= current(group) - (stat["anon"] + stat["zswap"]) < PAGE  # a page counter rounds up
    assert int(group.read("memory.swap.current")) == 128 * PAGE
    group.reclaim("1K", source="zswap")
    assert group.stats()["uzswap.disk"] > 0
    assert (x == np.arange(256 * PER_PAGE)).all()
    settle(x)
    stat = group.stats()
    assert stat["pgmajfault"] == stat["workingset_refault_anon"] == stat["zswpin"] + stat["pswpin"] == 128
    assert stat["pgfault"] == 256 + 128
    assert z.root.stats()["anon"] == stat["anon"] == x.nbytes
    del x
    stat = group.stats()
    assert [stat[key] for key in ("anon", "zswap", "zswapped", "uzswap.disk", "uzswap.clean_copies")] == [0] * 5
    assert int(group.read("memory.swap.current")) == current(group) == 0


def test_clean_copies_are_shown_and_go_with_a_write(group: uzswap.MemCgroup) -> None:
    x = uzswap.array(np.arange(64 * PER_PAGE), cgroup=group)
    settle(x)
    uzswap.advise(x, "pageout")
    assert x[::PER_PAGE].sum() == PER_PAGE * 64 * 63 // 2
    settle(x)
    stat = group.stats()
    assert stat["anon"] == x.nbytes
    assert stat["uzswap.clean_copies"] == int(group.read("uzswap.clean_copies")) == uzswap.info(x).clean_copies > 0
    assert stat["swapcached"] == x.nbytes
    x += 1
    uzswap.advise(x, "pageout")
    assert group.stats()["uzswap.clean_copies"] == 0
    assert (x == np.arange(1, 64 * PER_PAGE + 1)).all()


def test_limits_of_ancestors_count_and_their_events_are_theirs(z: uzswap.Zswap) -> None:
    parent, child = z.cgroup("/p"), z.cgroup("/p/c")
    parent.write("memory.max", "1M")
    x = uzswap.zeros(4 * MIB // 8, np.int64, cgroup=child)
    with parent.open("memory.events") as file:
        x[:] = np.arange(len(x))
        assert file.poll(timeout=240) == select.POLLPRI
    assert current(parent) <= MIB
    assert events(parent)["max"] > 0
    assert events(parent, "memory.events.local")["max"] == events(parent)["max"]
    assert events(child)["max"] == 0
    assert events(z.cgroup("/p"))["oom"] == 0
    assert (x == np.arange(len(x))).all()


def test_memory_high_evicts_beside_the_program(group: uzswap.MemCgroup) -> None:
    group.write("memory.high", "1M")
    x = uzswap.zeros(8 * MIB // 8, np.int64, cgroup=group)
    x[:] = np.arange(len(x))
    assert events(group)["high"] > 0
    assert events(group)["max"] == 0
    assert int(group.read("memory.peak")) < 6 * MIB
    assert (x == np.arange(len(x))).all()


def test_a_lower_limit_evicts_at_once(group: uzswap.MemCgroup) -> None:
    x = uzswap.array(np.arange(2 * MIB // 8), cgroup=group)
    settle(x)
    group.write("memory.max", "1M")
    assert current(group) <= MIB
    group.write("memory.high", "512K")
    assert current(group) <= MIB // 2
    assert (x == np.arange(len(x))).all()


def test_what_does_not_fit_counts_as_oom_and_is_served(engine: EngineFactory) -> None:
    group = engine(swap=None).cgroup("/a")
    group.write("memory.max", "1M")
    noise = np.random.default_rng(1).integers(0, 1 << 63, 2 * MIB // 8)
    x = uzswap.array(noise, cgroup=group)
    assert (x == noise).all()
    assert events(group)["oom"] > 0
    assert events(group)["oom_kill"] == 0
    del x


def test_pressure_tells_of_threads_that_waited(group: uzswap.MemCgroup) -> None:
    group.write("memory.max", "1M")
    x = uzswap.zeros(8 * MIB // 8, np.int64, cgroup=group)
    for i in range(3):
        x[:: PER_PAGE * 3] = i
        x[::-PER_PAGE] += 1
    some = dict(pair.split("=") for pair in group.read("memory.pressure").splitlines()[0].split()[1:])
    assert int(some["total"]) > 0
    root = dict(pair.split("=") for pair in group.zswap.root.read("memory.pressure").splitlines()[0].split()[1:])
    assert int(root["total"]) >= int(some["total"])


def test_the_files_of_the_engine_count_arrays_too(z: uzswap.Zswap, group: uzswap.MemCgroup) -> None:
    from uzswap.files.engine import engine_file

    x = uzswap.array(np.arange(100 * PER_PAGE), cgroup=group)
    settle(x)
    vmstat = dict(map(str.split, engine_file("vmstat").read(z, z.root).splitlines()))
    assert vmstat["nr_anon_pages"] == "100"
    assert vmstat["pgfault"] == "100"
    del x
