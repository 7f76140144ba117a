"""Whatever is written is read back: every way pages can go, every order they can be touched in."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.core.paging.rig import (
    MIB,
    PAGE,
    Mode,
    Rig,
    address,
    counting,
    events,
    in_each_mode,
    job,
    noise,
    out_of_memory,
    skip,
    to_disk,
)
from tests.support.child import NobodysChild
from tests.support.small_disk import small_tmpfs
from tests.support.uffd_filter import Unsupported, kill_process

import uzswap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap import Zswap

NOBODY = 65534


def churn(arr: NDArray[np.uint32], rounds: int = 15, seed: int = 1) -> None:
    """Random slices and scattered elements are written, read and zeroed, all compared with a reference."""
    rng = np.random.default_rng(seed)
    expected = np.zeros_like(arr)
    contents = (
        lambda n: np.arange(n, dtype=np.uint32) * rng.integers(1, 99, dtype=np.uint32),
        lambda n: rng.integers(0, 1 << 32, n, np.uint32),
        lambda n: np.full(n, rng.integers(0, 1 << 32), np.uint32),
    )
    for i in range(rounds):
        first, after = sorted(rng.integers(0, len(arr) + 1, 2))
        scattered = rng.integers(0, len(arr), 200)
        expected[first:after] = arr[first:after] = contents[i % 3](after - first)
        expected[scattered] = arr[scattered] = contents[1](200)
        first, after = sorted(rng.integers(0, len(arr) + 1, 2))
        assert (arr[first:after] == expected[first:after]).all()
        assert (arr[scattered] == expected[scattered]).all()
        if i % 4 == 0:
            first = int(rng.integers(0, len(arr)))
            expected[first : first + 10_000] = arr[first : first + 10_000] = 0
    assert (arr == expected).all()


LIMITS: dict[str, dict[str, str]] = {
    "memory.max": {"memory.max": "256K"},
    "memory.high": {"memory.high": "256K"},
    "memory.zswap.max": {"memory.max": "256K", "memory.zswap.max": "128K"},
    "no zswap": {"memory.max": "256K", "memory.zswap.max": "0"},
    "no device": {"memory.max": "256K", "memory.zswap.writeback": "0"},
    "memory.swap.max": {"memory.max": "256K", "memory.swap.max": "256K"},
    "ancestor": {"../memory.max": "256K", "memory.max": "1M"},
}


@pytest.mark.slow
@pytest.mark.parametrize("limits", list(LIMITS))
@in_each_mode()
def test_random_writes_reads_and_zeroing_match_a_reference(z: Zswap, limits: str) -> None:
    group = z.cgroup("/a/job")
    for file, value in LIMITS[limits].items():
        (z.cgroup("/a") if file.startswith("../") else group).write(file.removeprefix("../"), value)
    churn(uzswap.zeros(MIB // 4, np.uint32, cgroup=group))
    if limits in ("memory.max", "ancestor"):
        assert int(group.read("memory.current")) <= 2 * MIB


@in_each_mode(max_pool="1M")
def test_contents_survive_a_pool_that_is_too_small(z: Zswap) -> None:
    group = job(z, "1M")
    churn(uzswap.zeros(MIB // 4, np.uint32, cgroup=group))
    z.flush_work()
    assert z.core.pool_pages() * PAGE <= MIB


@pytest.mark.parametrize("size", [PAGE, MIB // 2])
@in_each_mode()
def test_copies_backwards_are_right(z: Zswap, size: int) -> None:
    """memcpy may run backwards, and moves between overlapping parts must."""
    x = uzswap.zeros(8 * MIB, np.uint8, cgroup=job(z, "1M"))
    expected = np.frombuffer(counting(MIB).tobytes(), np.uint8).copy()
    for first in range(len(x) - size, -1, -size):
        x[first : first + size] = expected[first : first + size]
    assert (x == expected).all()
    for first in range(len(x) - size, -1, -size):
        assert bytes(x[first : first + size]) == expected[first : first + size].tobytes()
    x[5:] = x[:-5]
    expected[5:] = expected[:-5].copy()
    assert (x == expected).all()
    assert (x[::-1] == expected[::-1]).all()
    assert (x[::-PAGE] == expected[::-PAGE]).all()


@in_each_mode()
def test_streams_interleaved_and_across_states_are_right(z: Zswap) -> None:
    """Runs of pages of which some are empty, some zero, some swapped, some resident: readahead meets all of them."""
    group = job(z, "2M")
    x, y = (uzswap.zeros((1024, 512), np.int64, cgroup=group) for _ in range(2))
    expected = np.zeros((1024, 512), np.int64)
    for page in range(1024):
        if page % 5:
            expected[page] = x[page] = y[-1 - page] = noise(512, page) if page % 3 else counting(512, page)
    to_disk(z, group, x[:300])
    out_of_memory(z, y[300:600])
    for page in range(1024):
        assert (x[page] == expected[page]).all()
        assert (y[-1 - page] == expected[page]).all()
    assert (x == expected).all()
    assert (y == expected[::-1]).all()


@in_each_mode()
def test_clean_and_modified_pages_are_told_apart(z: Zswap) -> None:
    """A page that comes back, is changed by one byte or not at all, and goes again: many times, by reads and writes."""
    x = uzswap.zeros((256, PAGE), np.uint8, cgroup=job(z, "max"))
    expected = np.frombuffer(counting(256 * 512).tobytes(), np.uint8).reshape(256, PAGE).copy()
    x[:] = expected
    rng = np.random.default_rng(1)
    for _ in range(30):
        out_of_memory(z, x)
        assert (x[:, ::512].sum() == expected[:, ::512].sum()).all()
        changed = rng.integers(0, (256, PAGE), (20, 2))
        for page, byte in changed:
            expected[page, byte] ^= 1
            x[page, byte] ^= 1
        if rng.integers(2):
            out_of_memory(z, x)
        assert (x == expected).all()


@in_each_mode()
def test_a_write_of_the_same_or_the_old_bytes_is_right(z: Zswap) -> None:
    """A page that is modified and put back to what its compressed copy says, and one that is modified after that."""
    x = uzswap.zeros((64, 512), np.int64, cgroup=job(z, "max"))
    x[:] = first = counting(64 * 512).reshape(64, 512)
    out_of_memory(z, x)
    assert (x == first).all()
    x += 1
    x -= 1
    out_of_memory(z, x)
    assert (x == first).all()
    x[:, 7] = -1
    out_of_memory(z, x)
    assert (x[:, 7] == -1).all()
    assert (np.delete(x, 7, 1) == np.delete(first, 7, 1)).all()


@in_each_mode()
def test_pages_that_were_only_read_are_zeros_and_can_go(z: Zswap) -> None:
    """The kernel's shared zero page is not the array's own: it is not moved as others are."""
    group = job(z)
    x = uzswap.zeros((512, 512), np.int64, cgroup=group)
    assert not x.any()
    out_of_memory(z, x)
    assert not x.any()
    x[::2] = 3
    out_of_memory(z, x)
    assert (x[::2] == 3).all()
    assert not x[1::2].any()


@in_each_mode()
def test_random_access_brings_in_what_is_asked_for(z: Zswap) -> None:
    """Fault-around on random access would evict the hot set."""
    x = uzswap.zeros((4096, 512), np.int64, cgroup=job(z, "4M"))
    x[:] = counting(4096 * 512).reshape(4096, 512)
    before = uzswap.info(x).loads
    for page in np.random.default_rng(1).permutation(4096)[:1000]:
        assert x[page, 5] == page * 512 + 5
    # By chance a few in a thousand look like streams.
    assert uzswap.info(x).loads - before <= 1500


@pytest.mark.slow
@in_each_mode()
def test_memory_is_really_returned(z: Zswap) -> None:
    def rss() -> int:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmRSS"].split()[0]) * 1024

    group = job(z, "4M")
    warm = uzswap.zeros(MIB, np.int64, cgroup=group)
    warm[:] = counting(MIB)
    del warm
    before = rss()
    x = uzswap.zeros(8 * MIB, np.int64, cgroup=group)
    x[:] = counting(8 * MIB)
    pool = z.core.pool_pages() * PAGE
    assert 0 < pool < 32 * MIB
    # Resident pages, the pool, entries and page table (some 80 bytes a page), staging, numpy's temporaries.
    assert rss() - before < 4 * MIB + pool + 80 * 16384 + 8 * MIB + 64 * MIB
    x[:] = 0
    out_of_memory(z, x)
    assert rss() - before < 16 * MIB
    x[:] = counting(8 * MIB)
    del x
    assert rss() - before < 16 * MIB
    assert group.stats()["anon"] == group.stats()["zswapped"] == 0
    assert z.core.pool_pages() * PAGE < MIB


@in_each_mode()
def test_arrays_are_page_aligned_whatever_their_size(z: Zswap) -> None:
    group = job(z)
    arrays = [uzswap.full(n, 7, np.uint8, cgroup=group) for n in (1, 4095, 4096, 4097, 3 * MIB)]
    assert {address(x) % PAGE for x in arrays} == {0}
    assert all((x == 7).all() for x in arrays)


# Where there is no room left


@in_each_mode(max_pool="1M", swap_size="4M")
def test_what_neither_pool_nor_device_takes_stays_resident(z: Zswap) -> None:
    """memory.max is exceeded then, and memory.events says so: nobody is killed, nothing is lost."""
    group = job(z, "1M")
    x = uzswap.zeros(2 * MIB, np.int64, cgroup=group)
    expected = noise(2 * MIB)
    x[:] = expected
    assert (x == expected).all()
    assert int(group.read("memory.current")) > MIB
    assert group.stats()["anon"] > 8 * MIB
    assert events(group)["max"] > 0
    assert events(group)["oom"] > 0
    del x
    churn(uzswap.zeros(MIB // 4, np.uint32, cgroup=group), 20)


def fills_a_disk(z: Zswap) -> None:
    group = job(z, "1M")
    x = uzswap.zeros(MIB, np.int64, cgroup=group)
    expected = noise(MIB)
    x[:] = expected
    assert (x == expected).all()
    assert events(group)["oom"] > 0
    assert group.stats()["anon"] > 2 * MIB
    x[: MIB // 2] = expected[: MIB // 2] = 0
    assert (x == expected).all()
    x[::512] = expected[::512] = 1
    assert (x == expected).all()


def test_a_full_disk_loses_nothing(rig: Rig) -> None:
    with small_tmpfs(2 * MIB, owner=0 if rig.mode.kernel_faults else NOBODY) as disk:
        options = {"swap": str(disk / "swap"), "swap_size": "16M", "max_pool": "1M"}
        rig.run(fills_a_disk, options).check()


@in_each_mode(swap=None, max_pool="1M")
def test_a_full_pool_without_a_device_loses_nothing(z: Zswap) -> None:
    group = job(z, "1M")
    x = uzswap.zeros(MIB // 2, np.int64, cgroup=group)
    expected = noise(MIB // 2)
    x[:] = expected
    out_of_memory(z, x)
    assert (x == expected).all()
    assert group.stats()["anon"] > MIB


# Modes


def tells_its_mode(z: Zswap) -> None:
    print(uzswap.info(uzswap.zeros(1, cgroup=z.root)).mode)


def test_the_mode_is_told(rig: Rig) -> None:
    expected = "full" if rig.mode.kernel_faults else "trapped"
    assert rig.run(tells_its_mode).check().stdout.strip() == expected


def test_an_ordinary_user_gets_what_the_machine_allows() -> None:
    """Nothing forces the mode here: without privileges it is user mode only, unless the system allows more."""
    code = """
        import os
        import uzswap
        may = os.access("/dev/userfaultfd", os.R_OK | os.W_OK)
        may |= open("/proc/sys/vm/unprivileged_userfaultfd").read().strip() == "1"
        with uzswap.Zswap() as z:
            x = uzswap.ones(1 << 20, "u1", cgroup=z.root)
            uzswap.advise(x, "pageout")
            assert x.all()
            assert uzswap.info(x).mode == ("full" if may else "trapped"), uzswap.info(x)
            del x
    """
    with NobodysChild(code) as child:
        child.wait().check()


def uses_nothing_new(z: Zswap) -> None:
    try:
        kill_process("MOVE", "POISON")
    except Unsupported as why:
        skip(str(why))
    churn(uzswap.zeros(MIB, np.uint32, cgroup=job(z, "1M")))


def test_an_old_kernel_is_not_asked_for_what_it_lacks(rig: Rig) -> None:
    done = rig.run(uses_nothing_new)
    if rig.mode is Mode.OLD_KERNEL:
        done.check()
    else:
        assert done.signal == signal.SIGSYS  # else the filter says nothing
