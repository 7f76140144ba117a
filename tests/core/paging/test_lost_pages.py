"""Bytes that cannot be had: SIGBUS where they are touched, a line that says whose they are, and nothing else harmed."""

from __future__ import annotations

import errno
import os
import re
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.core.paging.rig import MIB, Rig, counting, finish, in_each_mode, job, noise, out_of_memory, to_disk
from tests.support.faulty import FaultySwap

import uzswap
from uzswap import IntegrityError, Zswap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap import MemCgroup

NOBODY = 65534
PAGES = 64


def on_disk(z: Zswap, group: MemCgroup) -> NDArray[np.int64]:
    """An array of which every page is on the device alone."""
    x = uzswap.zeros((PAGES, 512), np.int64, cgroup=group)
    x[:] = noise(PAGES * 512).reshape(PAGES, 512)
    assert to_disk(z, group, x) == x.nbytes
    return x


def lost_pages(x: NDArray[np.int64]) -> list[int]:
    """Find out without being killed."""
    found = []
    for page in range(len(x)):
        try:
            with uzswap.resident(x[page]):
                pass
        except IntegrityError as error:
            assert error.cgroup == "/job"
            found.append(page)
    return found


def check_the_rest(z: Zswap, x: NDArray[np.int64], lost: list[int]) -> None:
    """All pages but the lost ones can be read, written, and go and come."""
    expected = noise(PAGES * 512).reshape(PAGES, 512)
    good = [page for page in range(PAGES) if page not in lost]
    assert uzswap.info(x).lost == len(lost) * 4096
    for page in good:
        assert (x[page] == expected[page]).all()
        x[page] += 1
    out_of_memory(z, x)
    for page in good:
        assert (x[page] == expected[page] + 1).all()
    another = uzswap.array(counting(MIB // 8), cgroup=job(z, "256K", "/another"))
    assert (another == counting(MIB // 8)).all()


def is_loud(stderr: str, program: str) -> None:
    """faulthandler's line of Python, and ours with the cgroup and the array."""
    assert "Fatal Python error: Bus error" in stderr
    assert re.search(rf'File ".*test_lost_pages\.py", line \d+ in {program}', stderr)
    assert re.search(r"^uzswap: .*array.*/job.*|^uzswap: .*/job.*array.*", stderr, re.MULTILINE)


def touches_a_corrupt_page(z: Zswap) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        swap = Path(directory, "swap")
        with Zswap(swap=swap, swap_size="64M") as named:
            x = on_disk(named, job(named))
            with swap.open("r+b") as file:
                file.seek(5 * 4096 + 100)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 0xFF]))
                os.fsync(file.fileno())
            lost = lost_pages(x)
            assert len(lost) == 1
            check_the_rest(named, x, lost)
            fd = os.memfd_create("copy")
            with pytest.raises(OSError, match="Bad address") as caught:
                os.write(fd, x[lost[0]].data)
            assert caught.value.errno == errno.EFAULT
            with pytest.raises(IntegrityError), uzswap.resident(x):
                pass
            swap.unlink()
            os.rmdir(directory)
            print("others are fine", flush=True)
            print(x[lost[0], 3], "was read")


def test_a_corrupt_page_is_a_sigbus_of_that_page_alone(rig: Rig) -> None:
    done = rig.run(touches_a_corrupt_page)
    assert done.signal == signal.SIGBUS, done.said()
    assert done.stdout == "others are fine\n"
    is_loud(done.stderr, "touches_a_corrupt_page")


def forgets_a_corrupt_page(z: Zswap) -> None:
    """Advice "dontneed" makes zeros of it, which is what was asked for; freeing it is as ever."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        swap = Path(directory, "swap")
        with Zswap(swap=swap, swap_size="64M") as named:
            x = on_disk(named, job(named))
            with swap.open("r+b") as file:
                file.write(b"nonsense" * (MIB // 8))
                os.fsync(file.fileno())
            lost = lost_pages(x)
            assert len(lost) == PAGES
            uzswap.advise(x[:10], "dontneed")
            assert not x[:10].any()
            x[:10] = 5
            out_of_memory(named, x)
            assert (x[:10] == 5).all()
            assert uzswap.info(x).lost == (PAGES - 10) * 4096
            del x
            assert named.cgroup("/job").stats()["anon"] == 0
            named.check()


def test_lost_pages_can_be_forgotten_and_freed(rig: Rig) -> None:
    done = rig.run(forgets_a_corrupt_page).check()
    assert done.stderr.count("uzswap: ") >= 1


def asks_again_for_what_the_disk_did_not_give(z: Zswap) -> None:
    """The array is as it was, with no byte lost."""
    x = on_disk(z, job(z))
    print("written", flush=True)
    input()
    lost = lost_pages(x[:1])
    assert lost == [0]
    assert uzswap.info(x).lost == 4096
    print("lost", flush=True)
    input()
    assert lost_pages(x) == []
    check_the_rest(z, x, [])


def test_a_page_that_could_not_be_read_is_there_when_it_is_asked_for_again(rig: Rig) -> None:
    with FaultySwap(64 * MIB, owner=None if rig.mode.kernel_faults else NOBODY) as disk:
        options = {"swap": disk.path, "swap_size": disk.size}
        with rig.start(asks_again_for_what_the_disk_did_not_give, options) as child:
            assert child.read_line() == "written"
            disk.fail_reads(errno.EIO)
            child.write_line("")
            assert child.read_line() == "lost"
            disk.heal()
            child.write_line("")
            done = finish(child).check()
    assert re.search(r"^uzswap: /job: bytes 0 to 4095 of .* cannot be read for now: Input/output error", done.stderr)


def reads_until_the_disk_gives_again(z: Zswap) -> None:
    """The kernel's own access fails with EFAULT, as it would with SIGBUS: no need to ask by name."""
    x = on_disk(z, job(z))
    fd = os.memfd_create("copy")
    print("written", flush=True)
    input()
    with pytest.raises(OSError, match="Bad address"):
        os.write(fd, x[0].data)
    print("failed", flush=True)
    input()
    while True:
        try:
            assert os.write(fd, x[0].data) == 4096
            break
        except OSError as error:
            assert error.errno == errno.EFAULT
    assert os.pread(fd, 4096, 0) == noise(PAGES * 512)[:512].tobytes()
    check_the_rest(z, x, [])
    os.close(fd)


def test_a_later_access_reads_again(rig: Rig) -> None:
    if not rig.mode.kernel_faults:
        pytest.skip("a write() does not reach the pager in user mode only")
    with FaultySwap(64 * MIB) as disk:
        options = {"swap": disk.path, "swap_size": disk.size}
        with rig.start(reads_until_the_disk_gives_again, options) as child:
            assert child.read_line() == "written"
            disk.fail_reads(errno.EIO)
            child.write_line("")
            assert child.read_line() == "failed"
            disk.heal()
            child.write_line("")
            finish(child).check()


def reads_a_page_once(z: Zswap) -> None:
    x = on_disk(z, job(z))
    print("written", flush=True)
    input()
    assert (x == noise(PAGES * 512).reshape(PAGES, 512)).all()


def test_one_error_of_the_disk_is_not_seen(rig: Rig) -> None:
    with FaultySwap(64 * MIB, owner=None if rig.mode.kernel_faults else NOBODY) as disk:
        options = {"swap": disk.path, "swap_size": disk.size}
        with rig.start(reads_a_page_once, options) as child:
            assert child.read_line() == "written"
            disk.fail_reads(errno.EIO, count=1)
            child.write_line("")
            finish(child).check()


def drops_what_the_disk_did_not_give(z: Zswap) -> None:
    group = job(z)
    x = on_disk(z, group)
    print("written", flush=True)
    input()
    assert len(lost_pages(x)) == PAGES
    uzswap.advise(x[:10], "dontneed")
    assert not x[:10].any()
    del x
    assert group.stats()["anon"] == int(group.read("memory.swap.current")) == 0
    y = uzswap.zeros((PAGES, 512), np.int64, cgroup=group)
    assert not y.any()


def test_a_page_that_could_not_be_read_can_be_forgotten_and_freed(rig: Rig) -> None:
    with FaultySwap(64 * MIB, owner=None if rig.mode.kernel_faults else NOBODY) as disk:
        options = {"swap": disk.path, "swap_size": disk.size}
        with rig.start(drops_what_the_disk_did_not_give, options) as child:
            assert child.read_line() == "written"
            disk.fail_reads(errno.EIO)
            child.write_line("")
            finish(child).check()


def reads_straight_into_an_error(z: Zswap) -> None:
    """The fault itself meets the error; with readahead under way."""
    x = on_disk(z, job(z))
    print("written", flush=True)
    input()
    print(int(x.sum()), "was read")


def test_a_fault_that_meets_a_read_error_is_a_sigbus(rig: Rig) -> None:
    with FaultySwap(64 * MIB, owner=None if rig.mode.kernel_faults else NOBODY) as disk:
        options = {"swap": disk.path, "swap_size": disk.size}
        with rig.start(reads_straight_into_an_error, options) as child:
            assert child.read_line() == "written"
            disk.fail_reads(errno.EIO)
            child.write_line("")
            done = finish(child)
    assert done.signal == signal.SIGBUS, done.said()
    assert "was read" not in done.stdout
    is_loud(done.stderr, "reads_straight_into_an_error")


def writes_to_a_failing_disk(z: Zswap) -> None:
    group = job(z, "256K")
    x = uzswap.zeros((512, 512), np.int64, cgroup=group)
    print("made", flush=True)
    input()
    expected = noise(512 * 512).reshape(512, 512)
    x[:] = expected
    assert (x == expected).all()
    print("read", flush=True)
    input()
    x += 1
    assert (x == expected + 1).all()
    assert to_disk(z, group, x) > 0
    assert (x == expected + 1).all()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_write_errors_lose_nothing(rig: Rig, number: int) -> None:
    with FaultySwap(64 * MIB, owner=None if rig.mode.kernel_faults else NOBODY) as disk:
        options = {"swap": disk.path, "swap_size": disk.size, "max_pool": "1M"}
        with rig.start(writes_to_a_failing_disk, options) as child:
            assert child.read_line() == "made"
            disk.fail_writes(number)
            child.write_line("")
            assert child.read_line() == "read"
            disk.heal()
            child.write_line("")
            finish(child).check()


@in_each_mode()
def test_an_array_that_was_freed_reads_as_no_other(z: Zswap) -> None:
    """New arrays are zeros wherever they lie, whatever lay there before."""
    group = job(z, "512K")
    for seed in range(30):
        x = uzswap.empty((100 + seed, 512), np.int64, cgroup=group)
        assert not x.any()
        x[:] = counting(x.size, seed).reshape(x.shape)
        if seed % 2:
            out_of_memory(z, x)
        assert (x == counting(x.size, seed).reshape(x.shape)).all()
        del x
