"""memory.stat, memory.numa_stat and the machine's files: keys in the kernel's order, exact values, units (SPEC 7.3)."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from tests.conftest import EngineFactory
from tests.support.front_end import FrontEnd
from tests.support.pages import page_of_length, pages_of_length, random_page
from tests.support.states import fill, reclaim, stat, stat_delta, stats

from uzswap import Zswap
from uzswap.cgroup.stat import STATS
from uzswap.files.engine import engine_file

#: SPEC 7.3, written out
ORDER = """
anon file kernel kernel_stack pagetables sec_pagetables percpu sock vmalloc shmem
zswap zswapped zswap_incomp zswpwb_proactive_b file_mapped file_dirty file_writeback swapcached
anon_thp file_thp shmem_thp inactive_anon active_anon inactive_file active_file unevictable
slab_reclaimable slab_unreclaimable slab hugetlb workingset_refault_anon workingset_refault_file
workingset_activate_anon workingset_activate_file workingset_restore_anon workingset_restore_file workingset_nodereclaim
pgdemote_kswapd pgdemote_direct pgdemote_khugepaged pgdemote_proactive
pgsteal_kswapd pgsteal_direct pgsteal_khugepaged pgsteal_proactive
pgscan_kswapd pgscan_direct pgscan_khugepaged pgscan_proactive
pgrefill_kswapd pgrefill_direct pgrefill_khugepaged pgrefill_proactive
pgpromote_success pgscan pgsteal pswpin pswpout pgfault pgmajfault
pgrefill pgactivate pgdeactivate pglazyfree pglazyfreed swpin_zero swpout_zero zswpin zswpout zswpwb
thp_fault_alloc thp_collapse_alloc thp_swpout thp_swpout_fallback
numa_pages_migrated numa_pte_updates numa_hint_faults
uzswap.disk uzswap.clean_copies uzswap.metadata_bytes uzswap.same_filled
"""


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


def read(z: Zswap, path: str) -> str:
    return engine_file(path).read(z, z.root)


def keyed(text: str) -> dict[str, int]:
    return {line.split()[0].rstrip(":"): int(line.split()[1]) for line in text.splitlines()}


def test_every_key_in_the_kernels_order(z: Zswap) -> None:
    for cgroup in (z.root, z.cgroup("/job")):
        assert list(stats(cgroup)) == ORDER.split() == [row.name for row in STATS]
        assert cgroup.stats() == stats(cgroup)
        assert not any(stats(cgroup).values())


def test_T2_store(z: Zswap) -> None:
    g = z.cgroup("/job")
    with stat_delta(g) as delta:
        z.swap_out_many(pages_of_length(1000, 3) + random_page(), g)
    assert dict(delta) == {
        "kernel": 3000 + 4096,
        "zswap": 3000 + 4096,
        "zswapped": 4 * 4096,
        "zswap_incomp": 4096,
        "zswpout": 4,
    }


def test_T6_load(z: Zswap) -> None:
    g = z.cgroup("/job")
    handle = z.swap_out(page_of_length(1000), g)
    with stat_delta(g) as delta:
        z.fault_in(handle)
    assert dict(delta) == {
        "kernel": -1000,
        "zswap": -1000,
        "zswapped": -4096,
        "zswpin": 1,
        "pgfault": 1,
        "pgmajfault": 1,
        "workingset_refault_anon": 1,
    }


def test_T7_writeback(z: Zswap) -> None:
    g = z.cgroup("/job")
    fill(z, g, 5, 1000, referenced=False)
    with stat_delta(g) as delta:
        assert reclaim(g, 5000) == (0, 5000)
    disk = delta.pop("uzswap.disk")
    assert dict(delta) == {
        "kernel": -5000,
        "zswap": -5000,
        "zswapped": -5 * 4096,
        "zswpwb": 5,
        "zswpwb_proactive_b": 5000,
        "pswpout": 5,
    }
    assert disk == int(g.read("uzswap.disk")) >= 5000


def test_resident_memory_is_anon(z: Zswap) -> None:
    g = z.cgroup("/job")
    owner = FrontEnd(g.cgroup("child"), 1 << 20)
    assert stat(g, "anon") == stat(g, "inactive_anon") == stat(z.root, "anon") == 1 << 20
    freed = g.reclaim(3 * 4096).reclaimed
    assert freed >= 3 * 4096
    assert {key: value for key, value in stats(g).items() if value} == {
        "anon": (1 << 20) - freed,
        "inactive_anon": (1 << 20) - freed,
        "pgsteal_proactive": freed // 4096,
        "pgscan_proactive": freed // 4096,
        "pgscan": freed // 4096,
        "pgsteal": freed // 4096,
    }
    owner.close()


def test_the_tables_of_what_is_swapped_out_are_counted(z: Zswap) -> None:
    g = z.cgroup("/p/a")
    handles = [z.swap_out(page_of_length(1000, seed), g) for seed in range(10)]
    assert stat(g, "uzswap.metadata_bytes") == stat(g.parent, "uzswap.metadata_bytes") == 10 * 48
    reclaim(g, 10000)
    assert stat(g, "uzswap.metadata_bytes") == 10 * 48  # it is on disk, its entry is not
    z.free_many(np.array(handles, np.uint64))
    assert stat(g, "uzswap.metadata_bytes") == stat(g.parent, "uzswap.metadata_bytes") == 0


def test_F15_statistics_are_hierarchical(z: Zswap) -> None:
    p, a, b = z.cgroup("/p"), z.cgroup("/p/a"), z.cgroup("/p/b")
    fill(z, a, 5, 1000, referenced=False)
    assert reclaim(p, 5000) == (0, 5000)
    assert [stat(g, "zswpwb_proactive_b") for g in (a, b, p, z.root)] == [5000, 0, 5000, 5000]
    assert "zswpwb_proactive_b" not in keyed(read(z, "vmstat"))
    assert keyed(read(z, "vmstat"))["zswpwb"] == 5


def test_numa_stat(engine: EngineFactory) -> None:
    z = engine(nodes=2)
    g = z.cgroup("/job")
    owner = FrontEnd(g, 8192)
    z.swap_out(page_of_length(500), g)
    for seed in range(3):
        z.swap_out(page_of_length(500, seed), g.cgroup("child"), node=1)
    lines = dict(line.split(" ", 1) for line in g.read("memory.numa_stat").splitlines())
    assert lines["anon"] == "N0=8192 N1=0"
    assert lines["uzswap.zswap_entries"] == "N0=1 N1=3"
    assert "zswap" not in lines  # no item of a node in the kernel
    assert list(lines)[:3] == ["anon", "file", "kernel_stack"]
    assert z.root.read("memory.numa_stat").endswith("uzswap.zswap_entries N0=1 N1=3\n")
    owner.close()


def test_vmstat_is_of_the_whole_engine(z: Zswap) -> None:
    z.swap_out(page_of_length(500), z.root)  # the root's own
    z.free(z.swap_out(page_of_length(500), z.cgroup("/job")))
    z.cgroup("/job").count_event("pgsteal_kswapd", 7)
    owner = FrontEnd(z.cgroup("/job"), 8192)
    values = keyed(read(z, "vmstat"))
    assert values["zswpout"] == 2
    assert values["pgsteal_kswapd"] == 7
    assert values["nr_anon_pages"] == 2
    assert values["nr_zspages"] == z.core.pool_pages() > 0
    owner.close()


def test_meminfo(z: Zswap) -> None:
    fill(z, z.cgroup("/job"), 8, 4096)
    text = read(z, "meminfo")
    values = keyed(text)
    with open("/proc/meminfo") as machine:
        total = machine.readline()
    assert values["MemTotal"] == int(total.split()[1])
    assert text.splitlines()[0] == total.rstrip()  # columns and all
    assert values["Zswap"] == z.core.pool_pages() * 4
    assert values["Zswapped"] == 32
    assert values["SwapTotal"] == values["SwapFree"] == 64 << 10
    reclaim(z.cgroup("/job"), "32K")
    assert 32 <= values["SwapTotal"] - keyed(read(z, "meminfo"))["SwapFree"] < 64


def test_swaps(engine: EngineFactory) -> None:
    z = engine()
    heading, line = read(z, "swaps").splitlines()
    assert heading == "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority"
    assert z.swap_path is not None
    assert line.split() == [z.swap_path, "file", "65536", "0", "-2"]
    assert read(engine(swap=None), "swaps") == heading + "\n"
    assert keyed(read(engine(swap=None), "meminfo"))["SwapTotal"] == 0


def test_swaps_escapes_blanks(engine: EngineFactory, tmp_path: object) -> None:
    z = engine(swap=f"{tmp_path}/a swap\tfile")
    assert f"{tmp_path}/a\\040swap\\011file " in read(z, "swaps")


def test_without_a_device_nothing_is_written(engine: EngineFactory) -> None:
    z = engine(swap=None)
    g = z.cgroup("/job")
    fill(z, g, 3, 1000)
    assert reclaim(g, 1000) == (errno.EAGAIN, 0)
    assert stat(g, "uzswap.disk") == 0
