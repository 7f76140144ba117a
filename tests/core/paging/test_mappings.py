"""What a program does to the mapping itself: it gets what it asked for, and never zeros for bytes or others' bytes."""

from __future__ import annotations

import errno
import mmap
import os
import re
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.core.paging.rig import (
    BY_CHANCE,
    MIB,
    PAGE,
    Mode,
    Rig,
    address,
    counting,
    in_each_mode,
    job,
    libc,
    out_of_memory,
    skip,
    unless_known,
)
from tests.support import uffd_filter

import uzswap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap import MemCgroup, Zswap

PAGES = 64
EXPECTED = counting(PAGES * 512, 1).reshape(PAGES, 512)
MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE, MADV_COLLAPSE, MADV_PAGEOUT = 4, 8, 14, 25, 21
PROT_NONE, READ, WRITE = 0, mmap.PROT_READ, mmap.PROT_WRITE
PRIVATE_ANONYMOUS, FIXED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 0x10
MAYMOVE, MREMAP_FIXED, DONTUNMAP = 1, 2, 4


#: Without UFFDIO_POISON (before 6.6) a lost page is one that is mapped over, which would wait for its own event.
NOT_TOLD = "kernels before 6.6 are not asked to tell of munmap() and mremap()"


def filled(group: MemCgroup) -> NDArray[np.int64]:
    x = uzswap.zeros((PAGES, 512), np.int64, cgroup=group)
    x[:] = EXPECTED
    return x


def room(nbytes: int) -> int:
    """Address space of that size that nobody uses."""
    return libc.mmap(None, nbytes, PROT_NONE, PRIVATE_ANONYMOUS, -1, 0)


# madvise


@pytest.mark.parametrize("where", ["resident", "pool"])
@in_each_mode()
def test_madvise_dontneed(z: Zswap, where: str) -> None:
    """Of resident pages: they read as zero, as of any memory.  Of others the kernel knows nothing: they are kept."""
    group = job(z, "1M")
    x = filled(group)
    x += 1
    if where == "pool":
        assert out_of_memory(z, x) == x.nbytes
    libc.madvise(address(x, 8), 16 * PAGE, MADV_DONTNEED)
    if where == "resident":
        assert not x[8:24].any()
    else:
        assert (x[8:24] == EXPECTED[8:24] + 1).all()
    assert (x[:8] == EXPECTED[:8] + 1).all()
    x[8:24] = 9
    out_of_memory(z, x)
    rest = uzswap.zeros(MIB // 2, np.int64, cgroup=group)
    rest[:] = 1
    assert (x[8:24] == 9).all()
    assert (x[24:] == EXPECTED[24:] + 1).all()


@in_each_mode()
def test_madvise_dontneed_again_and_again(z: Zswap) -> None:
    """Clean copies, zero pages and holes in every state."""
    x = filled(job(z, "1M"))
    expected = EXPECTED.copy()
    rng = np.random.default_rng(1)
    for i in range(40):
        first, after = sorted(rng.integers(0, PAGES + 1, 2))
        x[first:after] += i  # resident from here on
        expected[first:after] += i
        if i % 3 == 0:
            part = x[first:after]
            with uzswap.resident(part):
                if first < after:
                    libc.madvise(address(x, int(first)), int(after - first) * PAGE, MADV_DONTNEED)
            expected[first:after] = 0
        if i % 2:
            out_of_memory(z, x)
        assert (x == expected).all()


@in_each_mode()
def test_huge_pages_are_never_made(z: Zswap) -> None:
    """MADV_HUGEPAGE is a wish; a huge page would be filled with zeros where pages are elsewhere."""
    x = uzswap.zeros((1024, 512), np.int64, cgroup=job(z, "max"))
    libc.madvise(address(x), x.nbytes, MADV_HUGEPAGE)
    expected = counting(x.size).reshape(x.shape)
    x[:] = expected
    aligned = -(-address(x) // (2 * MIB)) * 2 * MIB
    for _ in range(2):
        try:
            libc.madvise(aligned, 2 * MIB, MADV_COLLAPSE)
        except OSError as error:
            assert error.errno in (errno.EBUSY, errno.EINVAL, errno.EAGAIN, errno.ENOMEM)
        assert (x == expected).all()
        out_of_memory(z, x)
    x += 1
    assert (x == expected + 1).all()
    maps = Path("/proc/self/smaps").read_text()
    huge = re.search(rf"^{address(x):x}-.*?^AnonHugePages: *(\d+) kB", maps, re.MULTILINE | re.DOTALL)
    assert huge is None or huge[1] == "0"


@in_each_mode()
def test_the_machines_own_swap_may_take_pages(z: Zswap) -> None:
    x = filled(job(z, "1M"))
    libc.madvise(address(x), x.nbytes, MADV_PAGEOUT)
    assert (x == EXPECTED).all()
    libc.madvise(address(x), x.nbytes, MADV_PAGEOUT)
    out_of_memory(z, x)
    assert (x == EXPECTED).all()


# mprotect, mlock


@in_each_mode()
def test_mprotect_of_a_part(z: Zswap) -> None:
    """The kernel does not move pages that are read-only: they stay, and are tried again."""
    group = job(z, "128K")
    x = uzswap.zeros((PAGES, 512), np.int64, cgroup=z.cgroup("/job"))
    with uzswap.resident(x[:16]):
        x[:16] = EXPECTED[:16]
        libc.mprotect(address(x), 16 * PAGE, READ)
    x[16:] = EXPECTED[16:]
    out_of_memory(z, x)
    assert (x == EXPECTED).all()
    assert (x[::-1] == EXPECTED[::-1]).all()
    libc.mprotect(address(x), 16 * PAGE, READ | WRITE)
    x += 1
    out_of_memory(z, x)
    assert (x == EXPECTED + 1).all()
    assert group.stats()["anon"] <= 128 * 1024


@in_each_mode()
def test_mprotect_of_pages_that_are_out(z: Zswap) -> None:
    x = filled(job(z, "1M"))
    assert out_of_memory(z, x) == x.nbytes
    libc.mprotect(address(x), 16 * PAGE, READ)
    assert (x == EXPECTED).all()
    out_of_memory(z, x)
    assert (x == EXPECTED).all()
    libc.mprotect(address(x), 16 * PAGE, READ | WRITE)
    x[:] = 3
    out_of_memory(z, x)
    assert (x == 3).all()


@in_each_mode()
def test_mlock_of_a_part(z: Zswap) -> None:
    """Locked pages are not moved."""
    x = uzswap.zeros((PAGES, 512), np.int64, cgroup=job(z, "128K"))
    with uzswap.resident(x[:8]):
        x[:8] = EXPECTED[:8]
        libc.mlock(address(x), 8 * PAGE)
    x[8:] = EXPECTED[8:]
    out_of_memory(z, x)
    assert (x == EXPECTED).all()
    libc.munlock(address(x), 8 * PAGE)
    out_of_memory(z, x)
    assert (x == EXPECTED).all()


@pytest.mark.parametrize("fate", ["dropped", "freed"])
@in_each_mode()
def test_what_was_locked_in_memory_is_forgotten_all_the_same(z: Zswap, fate: str) -> None:
    """The next owner of the address reads zeros, whosever the bytes were, and may page."""
    x = filled(job(z, "max", "/mine"))
    at = address(x)
    libc.mlock(at, x.nbytes)
    if fate == "dropped":
        assert uzswap.advise(x, "dontneed") == x.nbytes
        assert not x.any()
        x[:] = EXPECTED
    del x
    y = uzswap.zeros((PAGES, 512), np.int64, cgroup=job(z, "max", "/theirs"))
    assert address(y) == at
    assert not y.any()
    y[:] = EXPECTED
    assert out_of_memory(z, y) == y.nbytes
    assert (y == EXPECTED).all()


@pytest.mark.parametrize("protection", [PROT_NONE, READ])
@in_each_mode()
def test_what_was_protected_is_anybodys_again_when_it_is_freed(z: Zswap, protection: int) -> None:
    x = filled(job(z, "max"))
    at = address(x)
    libc.mprotect(at, 8 * PAGE, protection)
    del x
    y = uzswap.zeros((PAGES, 512), np.int64, cgroup=job(z, "max"))
    assert address(y) == at
    y[:] = EXPECTED
    assert out_of_memory(z, y) == y.nbytes
    assert (y == EXPECTED).all()


# munmap, mremap


@in_each_mode()
def test_partial_munmap(z: Zswap) -> None:
    """The rest works; freeing the array touches nothing that others map in the hole, which is never an array again."""
    group = job(z, "1M")
    x = filled(group)
    out_of_memory(z, x)
    x[20:28] += 1
    libc.munmap(address(x, 16), 8 * PAGE)
    hole = address(x, 16)
    assert libc.mmap(hole, 8 * PAGE, READ | WRITE, PRIVATE_ANONYMOUS | FIXED, -1, 0) == hole
    theirs = np.lib.stride_tricks.as_strided(x[16:24], writeable=True)
    theirs[:] = 77
    for _ in range(2):
        uzswap.advise(x, "pageout")
        uzswap.advise(x, "willneed")
        assert (x[:16] == EXPECTED[:16]).all()
        assert (x[24:28] == EXPECTED[24:28] + 1).all()
        assert (x[28:] == EXPECTED[28:]).all()
        assert (theirs == 77).all()
    begin, nbytes = address(x), x.nbytes
    window = np.ctypeslib.as_array((np.ctypeslib.as_ctypes_type(np.int64) * (8 * 512)).from_address(hole))
    del x, theirs
    assert (window == 77).all()
    arrays = [uzswap.ones((PAGES, 512), np.int64, cgroup=group) for _ in range(20)]
    assert all(x.all() for x in arrays)
    assert (window == 77).all()
    assert not any(begin <= address(x) < begin + nbytes for x in arrays)


def theirs(at: int, nbytes: int) -> NDArray[np.int64]:
    """Memory of the program's own, as an array."""
    return np.ctypeslib.as_array((np.ctypeslib.as_ctypes_type(np.int64) * (nbytes // 8)).from_address(at))


def put_own_memory(at: int, nbytes: int, how: str) -> None:
    """Have memory of the program's own where an array was."""
    if how == "unmapped":
        libc.munmap(at, nbytes)
        flags = PRIVATE_ANONYMOUS | FIXED
    elif how == "mapped over":
        flags = PRIVATE_ANONYMOUS | FIXED
    elif how == "shared":
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | FIXED
    else:
        to = room(nbytes)
        assert libc.mremap(at, nbytes, nbytes, MAYMOVE | MREMAP_FIXED, to) == to
        flags = PRIVATE_ANONYMOUS | FIXED
    assert libc.mmap(at, nbytes, READ | WRITE, flags, -1, 0) == at


@pytest.mark.parametrize("how", ["unmapped", "mapped over", "shared", "moved away"])
@in_each_mode()
def test_memory_of_the_programs_own_in_the_place_of_an_array_is_never_taken(z: Zswap, how: str) -> None:
    """Resident pages were there: eviction still has them on its lists, and whoever drops or frees the array, too."""
    group = job(z, "max")
    x = filled(group)
    put_own_memory(address(x, 16), 8 * PAGE, how)
    own = theirs(address(x, 16), 8 * PAGE)
    own[:] = 77
    uzswap.advise(x[17:20], "pageout")  # of the hole alone
    assert (own == 77).all()
    with suppress(uzswap.ReclaimIncomplete):
        group.reclaim("1G")
    assert (own == 77).all()
    uzswap.advise(x[18:20], "dontneed")
    uzswap.advise(x[30:32], "dontneed")
    assert (own == 77).all()
    assert not x[30:32].any()
    expected = EXPECTED.copy()
    expected[30:32] = 0
    assert (x[:16] == expected[:16]).all()
    assert (x[24:] == expected[24:]).all()
    del x
    assert group.stats()["anon"] == 0
    assert (own == 77).all()
    arrays = [filled(group) for _ in range(20)]
    assert all((x == EXPECTED).all() for x in arrays)
    assert (own == 77).all()


@in_each_mode(known={Mode.OLD_KERNEL: NOT_TOLD})
def test_address_space_that_was_unmapped_is_never_an_array(z: Zswap) -> None:
    """Beyond an array, and where one was freed."""
    group = job(z, "max")
    x = filled(group)
    holes = [address(x, PAGES), address(x, PAGES + 3)]
    for hole in holes:
        put_own_memory(hole, PAGE, "unmapped")
        theirs(hole, PAGE)[:] = 77
    del x
    arrays = [filled(group) for _ in range(20)]
    assert all((x == EXPECTED).all() for x in arrays)
    assert all((theirs(hole, PAGE) == 77).all() for hole in holes)
    taken = [range(address(x), address(x) + x.nbytes) for x in arrays]
    assert not any(hole in one for hole in holes for one in taken)


def is_in_munmap(thread: int) -> bool:
    number = {"x86_64": 11, "aarch64": 215}[os.uname().machine]
    return Path(f"/proc/self/task/{thread}/syscall").read_text().startswith(f"{number} ")


@in_each_mode()
def test_munmap_returns_only_when_its_pages_can_no_longer_be_taken(z: Zswap) -> None:
    """A page is being moved out at that very moment: the program has its hole afterwards, or the kernel refuses."""
    x = filled(job(z, "max"))
    if not z.arena.open().info().can_move:
        skip("without UFFDIO_MOVE (before Linux 6.8) pages are copied where they are")
    try:
        held = uffd_filter.hold("MOVE")
    except uffd_filter.Unsupported as why:
        skip(str(why))
    evicting = threading.Thread(target=uzswap.advise, args=(x[16:24], "pageout"))
    evicting.start()
    number = held.wait()
    has_hole = threading.Event()

    def unmap() -> None:
        put_own_memory(address(x, 16), 8 * PAGE, "unmapped")
        theirs(address(x, 16), 8 * PAGE)[:] = 77
        has_hole.set()

    unmapping = threading.Thread(target=unmap)
    unmapping.start()
    while not has_hole.is_set() and not is_in_munmap(unmapping.native_id or 0):
        os.sched_yield()
    held.go_on(number)
    held.let_all_go_on()
    evicting.join()
    unmapping.join()
    assert (theirs(address(x, 16), 8 * PAGE) == 77).all()
    assert (x[:16] == EXPECTED[:16]).all()
    os._exit(0)  # what is held cannot be let go of otherwise


@in_each_mode(known={Mode.OLD_KERNEL: BY_CHANCE + NOT_TOLD})
def test_holes_made_while_pages_are_evicted(z: Zswap) -> None:
    """Again and again, with eviction under way all the time: what is in the holes is the program's."""
    group = job(z, "1M")
    stop = threading.Event()
    busy = uzswap.zeros((512, 512), np.int64, cgroup=group)

    def churn() -> None:
        while not stop.is_set():
            busy[:] += 1

    churning = threading.Thread(target=churn)
    churning.start()
    own = []
    try:
        for _ in range(30):
            x = filled(group)
            for page in range(0, PAGES, 8):
                x[page : page + 8] += 1
                put_own_memory(address(x, page), 4 * PAGE, "unmapped")
                own.append(theirs(address(x, page), 4 * PAGE))
                own[-1][:] = len(own)
            uzswap.advise(x, "pageout")
            assert (x.reshape(-1, 8, 512)[:, 4:] == EXPECTED.reshape(-1, 8, 512)[:, 4:] + 1).all()
            del x
    finally:
        stop.set()
        churning.join()
    assert all((one == number).all() for number, one in enumerate(own, 1))


def touches_what_was_unmapped(z: Zswap) -> None:
    x = filled(job(z))
    out_of_memory(z, x[:32])
    libc.munmap(address(x), x.nbytes)
    print("unmapped", flush=True)
    print(x[3, 3], "was read")


def test_memory_that_was_unmapped_is_a_segmentation_fault(rig: Rig) -> None:
    done = rig.run(touches_what_was_unmapped)
    assert done.signal == signal.SIGSEGV
    assert done.stdout == "unmapped\n"


@in_each_mode()
def test_munmap_while_others_fault(z: Zswap) -> None:
    """The kernel tells the pager of each munmap and waits for it to listen: nobody may wait for the other."""
    group = job(z, "256K")
    arrays = [filled(group) for _ in range(8)]
    stop = threading.Event()
    wrong: list[int] = []

    def read() -> None:
        while not stop.is_set():
            for i in range(4, 8):
                if not (arrays[i] == EXPECTED).all():
                    wrong.append(i)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(4):
        for page in range(0, PAGES, 4):
            libc.munmap(address(arrays[i], page), PAGE)
            uzswap.advise(arrays[i][page + 1], "pageout")
            assert (arrays[i][page + 1] == EXPECTED[page + 1]).all()
    stop.set()
    reader.join()
    assert wrong == []
    del arrays[:4]


def reads_what_was_moved(z: Zswap, where: str, part: bool) -> None:
    """mremap() takes the pages that are resident along; the others were never in the kernel's page table."""
    group = job(z, "1M")
    x = filled(group)
    if where == "pool":
        assert out_of_memory(z, x) == x.nbytes
    first, n = (16, 8) if part else (0, PAGES)
    to = room(n * PAGE)
    assert libc.mremap(address(x, first), n * PAGE, n * PAGE, MAYMOVE | MREMAP_FIXED, to) == to
    moved = np.ctypeslib.as_array((np.ctypeslib.as_ctypes_type(np.int64) * (n * 512)).from_address(to)).reshape(n, 512)
    if part:
        out_of_memory(z, x)
        assert (x[:16] == EXPECTED[:16]).all()
        assert (x[24:] == EXPECTED[24:]).all()
    print("moved", flush=True)
    if where == "resident":
        assert (moved == EXPECTED[first : first + n]).all()
        print("right", flush=True)
        # What the kernel moved is the program's own from here on, also when the array is gone.
        del x
        assert (moved == EXPECTED[first : first + n]).all()
        return
    print(moved[3, 3], "was read")


@pytest.mark.parametrize("part", [True, False])
def test_mremap_takes_resident_pages_along(rig: Rig, part: bool) -> None:
    done = rig.run(reads_what_was_moved, where="resident", part=part).check()
    assert done.stdout == "moved\nright\n"


@pytest.mark.parametrize("part", [True, False])
def test_mremap_of_pages_that_are_out_is_a_sigbus_and_never_zeros(rig: Rig, part: bool) -> None:
    done = rig.run(reads_what_was_moved, where="pool", part=part)
    if rig.mode is Mode.OLD_KERNEL:
        unless_known(done.signal == signal.SIGBUS, NOT_TOLD)
    assert done.signal == signal.SIGBUS, done.said()
    assert done.stdout == "moved\n"


def reads_beyond(z: Zswap) -> None:
    x = filled(job(z))
    beyond = np.ctypeslib.as_array((np.ctypeslib.as_ctypes_type(np.int64)).from_address(address(x, PAGES)))
    print("ready", flush=True)
    print(beyond, "was read")


def test_beyond_an_array_is_a_sigbus(rig: Rig) -> None:
    """Not the next array's bytes."""
    done = rig.run(reads_beyond)
    assert done.signal == signal.SIGBUS
    assert done.stdout == "ready\n"


def reads_after_free(z: Zswap) -> None:
    x = filled(job(z))
    at = address(x)
    del x
    gone = np.ctypeslib.as_array((np.ctypeslib.as_ctypes_type(np.int64)).from_address(at))
    print("freed", flush=True)
    print(gone, "was read")


def test_a_freed_array_is_a_sigbus(rig: Rig) -> None:
    done = rig.run(reads_after_free)
    assert done.signal == signal.SIGBUS
    assert done.stdout == "freed\n"
