"""However a process or an engine ends, it ends; whatever breaks, nobody waits for ever and nobody reads zeros."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.core.paging.rig import (
    MIB,
    Mode,
    Rig,
    address,
    counting,
    finish,
    in_each_mode,
    job,
    libc,
    out_of_memory,
    skip,
)
from tests.support import uffd_filter

import uzswap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap import Zswap


def swapped(z: Zswap) -> NDArray[np.int64]:
    """An array of which no page is resident."""
    x = uzswap.zeros(MIB // 8, np.int64, cgroup=job(z))
    x[:] = counting(MIB // 8)
    assert out_of_memory(z, x) == x.nbytes
    return x


def touch(x: NDArray[np.int64]) -> None:
    """Read a byte of the first page, without the GIL."""
    libc.memchr(address(x), 0, 1)


def hold_faults() -> uffd_filter.Held:
    try:
        return uffd_filter.hold(*uffd_filter.FILLING)
    except uffd_filter.Unsupported as why:
        skip(str(why))


# In the middle of a fault


def ends_in_the_middle_of_a_fault(z: Zswap, how: str) -> None:
    """A daemon thread is stuck in a fault; then the process ends."""
    x = swapped(z)
    held = hold_faults()
    threading.Thread(target=touch, args=(x,), daemon=True).start()
    held.wait()
    if how == "sys.exit":
        sys.exit(5)
    if how == "os._exit":
        os._exit(5)
    if how == "error":
        raise ZeroDivisionError
    if how == "SIGTERM":
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("how", "code"),
    [("sys.exit", 5), ("os._exit", 5), ("error", 1), ("SIGTERM", -signal.SIGTERM), ("SIGKILL", -signal.SIGKILL)],
)
def test_a_process_ends_while_a_daemon_thread_is_stuck_in_a_fault(rig: Rig, how: str, code: int) -> None:
    assert rig.run(ends_in_the_middle_of_a_fault, how=how).returncode == code


def is_stuck(z: Zswap, where: str) -> None:
    """The main thread faults and waits; another says so."""
    x = swapped(z)
    held = hold_faults()

    def tell() -> None:
        held.wait()
        print("stuck", flush=True)

    threading.Thread(target=tell, daemon=True).start()
    if where == "user":
        touch(x)
    else:
        os.write(os.memfd_create("x"), x.data)


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("where", ["user", "kernel"])
def test_a_signal_kills_a_process_that_waits_for_a_page(rig: Rig, where: str, number: int) -> None:
    held_back = rig.mode is Mode.SIGNAL or (where == "kernel" and not rig.mode.kernel_faults)
    if held_back and number != signal.SIGKILL:
        pytest.skip("a thread that brings its pages itself holds signals but SIGKILL back until they are there")
    with rig.start(is_stuck, where=where) as child:
        first = child._receive()
        if first:
            child.send_signal(number)
        assert finish(child).signal == number


def ends_with_arrays(z: Zswap) -> None:
    global kept
    kept = [swapped(z), uzswap.ones(MIB, np.int64, cgroup=z.root)]
    sys.modules["uzswap"].kept = kept  # type: ignore[attr-defined]
    sys.exit(3)


kept: list[NDArray[np.int64]] = []


def test_a_process_ends_with_arrays_alive(rig: Rig) -> None:
    done = rig.run(ends_with_arrays)
    assert (done.returncode, done.stderr) == (3, "")


# The engine


@in_each_mode()
def test_an_engine_with_arrays_does_not_close(z: Zswap) -> None:
    x = swapped(z)
    view = x[512:]
    del x
    with pytest.raises(OSError, match=r"1 of its arrays are alive: 1 of /job \(") as caught:
        z.close()
    assert caught.value.errno == errno.EBUSY
    assert (view == counting(MIB // 8)[512:]).all()
    another = uzswap.ones(1000, cgroup=z.root)
    assert another.all()


@in_each_mode()
def test_descriptors_closed_by_the_program_are_not_the_pagers(z: Zswap) -> None:
    """Daemons close all descriptors; and the number of one that was closed is another file's soon."""
    import uzswap.arrays.advice  # nobody has the sources by a descriptor where they are in a closed directory

    group = job(z, "256K")
    x = uzswap.zeros(MIB // 4, np.int64, cgroup=group)
    x[:] = counting(MIB // 4)
    os.closerange(3, 4096)
    assert (x == counting(MIB // 4)).all()
    x += 1
    files = [open("/dev/zero", "rb", buffering=0) for _ in range(8)]  # noqa: SIM115  they take the numbers
    ends = [os.pipe() for _ in range(8)]
    for _, writer in ends:
        os.write(writer, b"\xff" * 512)
    assert (x == counting(MIB // 4) + 1).all()
    uzswap.advise(x, "pageout")  # its calls are this thread's, and have no descriptor to be made on
    assert (x == counting(MIB // 4) + 1).all()
    for reader, writer in ends:
        assert os.read(reader, 4096) == b"\xff" * 512, "somebody read what was not theirs"
        os.close(reader)
        os.close(writer)
    for file in files:
        file.close()
    del x
    # What the engine had open it can no longer close: it must say so, or get away with it, but not close others' files.
    os._exit(0)


# The end of a fault thread


def loses_a_thread(z: Zswap, who: str) -> None:
    x = swapped(z)
    y = uzswap.zeros(512, np.int64, cgroup=z.cgroup("/other"))
    y[:] = 7
    try:
        uffd_filter.kill_thread(*uffd_filter.FILLING)
    except uffd_filter.Unsupported as why:
        skip(str(why))
    assert (y == 7).all(), "what is resident stays"
    print("ready", flush=True)
    if who == "threads":
        for page in range(1, 20):
            threading.Thread(target=lambda page=page: libc.memchr(address(x, page), 0, 1), daemon=True).start()
    print(x[0], "was read")


@pytest.mark.parametrize("who", ["main", "threads"])
def test_waiters_get_sigbus_when_a_fault_thread_dies(rig: Rig, who: str) -> None:
    if rig.mode is Mode.SIGNAL:
        pytest.skip("the thread that serves the fault is the program's own, and dies of it")
    done = rig.run(loses_a_thread, who=who)
    # faulthandler, which looks at the frames of threads that run, may come to grief itself.
    assert done.signal == signal.SIGBUS or (who == "threads" and done.signal == signal.SIGSEGV)
    assert "was read" not in done.stdout
    assert "ready" in done.stdout
    if who == "main":
        assert "Bus error" in done.stderr
        assert re.search(r'File ".*test_endings\.py", line \d+ in loses_a_thread', done.stderr)
    assert re.search("^uzswap: .*(thread|killed)", done.stderr, re.MULTILINE)


def survives_a_dead_pager(z: Zswap) -> None:
    """System calls are EFAULT, methods are OSError, resident pages are there; nothing hangs."""
    x = swapped(z)
    y = uzswap.zeros(512, np.int64, cgroup=z.cgroup("/other"))
    y[:] = 7
    try:
        uffd_filter.kill_thread(*uffd_filter.FILLING)
    except uffd_filter.Unsupported as why:
        skip(str(why))
    fd = os.memfd_create("x")
    with pytest.raises(OSError) as caught:  # noqa: PT011
        os.write(fd, x.data)
    assert caught.value.errno == errno.EFAULT
    os.close(fd)
    assert (y == 7).all()
    with pytest.raises(OSError):  # noqa: PT011
        uzswap.zeros(10, cgroup=z.root)[:] = 1
    os._exit(0)


def test_a_dead_pager_is_loud(rig: Rig) -> None:
    if not rig.mode.kernel_faults:
        pytest.skip("a call that is trapped brings its pages itself: here that would kill the thread that makes it")
    done = rig.run(survives_a_dead_pager)
    if rig.mode is Mode.OLD_KERNEL:
        # Without UFFDIO_POISON nothing but a signal ends a wait in the kernel; faulthandler, which then looks at the
        # frames of threads that run, may come to grief itself.
        assert done.signal in (signal.SIGBUS, signal.SIGSEGV)
        assert "Fatal Python error: Bus error" in done.stderr
    else:
        done.check()


# Calls that fail


def churns_while_calls_fail(z: Zswap, number: int, calls: list[str]) -> None:
    group = job(z, "256K")
    x = uzswap.zeros(MIB // 4, np.int64, cgroup=group)
    x[:] = counting(MIB // 4)
    try:
        uffd_filter.refuse(number, *calls)
    except uffd_filter.Unsupported as why:
        skip(str(why))
    y = uzswap.zeros(MIB // 8, np.int64, cgroup=group)
    for seed in range(3):
        y[:] = counting(MIB // 8, seed)
        assert (y == counting(MIB // 8, seed)).all()
        assert (x == counting(MIB // 4) + seed).all()
        x += 1
    assert uzswap.info(x).lost == uzswap.info(y).lost == 0


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EINVAL, errno.ENOMEM, errno.EPERM])
def test_pages_that_the_kernel_does_not_move_stay(rig: Rig, number: int) -> None:
    """Pinned, mprotected, mlocked, shared by a fork: they stay resident, over the limit if need be."""
    calls = ["WRITEPROTECT"] if rig.mode is Mode.OLD_KERNEL else ["MOVE"]
    rig.run(churns_while_calls_fail, number=number, calls=calls).check()


# Memory


@in_each_mode()
def test_a_core_dump_or_proc_mem_sees_no_zeros_as_data(z: Zswap) -> None:
    """/proc/PID/mem reads as the kernel does: the bytes, or an error."""
    x = swapped(z)
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        try:
            memory.seek(address(x))
            got = memory.read(4096)
        except OSError as error:
            assert error.errno in (errno.EIO, errno.EFAULT)
        else:
            assert got == counting(512).tobytes()
