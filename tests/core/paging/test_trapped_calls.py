"""System calls on arrays as programs rely on them: the same in full mode, and where they are trapped."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.core.paging.rig import (
    MIB,
    PAGE,
    address,
    counting,
    events,
    in_each_mode,
    job,
    libc,
    out_of_memory,
)

import uzswap

if TYPE_CHECKING:
    from uzswap import Zswap

#: numbers in what a system call is given: four times the budget
N = MIB // 2
BUDGET = "1M"


@in_each_mode()
def test_a_call_may_be_larger_than_the_budget(z: Zswap) -> None:
    group = job(z, BUDGET)
    x = uzswap.zeros(N, np.int64, cgroup=group)
    x[:] = counting(N)
    with tempfile.TemporaryFile(buffering=0, dir="/var/tmp") as file:
        assert file.write(x.data) == x.nbytes
        x[:] = 0
        assert os.preadv(file.fileno(), [bytearray(8)], x.nbytes - 8) == 8
        assert os.pread(file.fileno(), 8, 8) == counting(2)[1:].tobytes()
        file.seek(0)
        assert file.readinto(x.data) == x.nbytes
        assert file.tell() == x.nbytes
        assert file.readinto(x.data) == 0
    assert (x == counting(N)).all()
    z.flush_work()
    assert int(group.read("memory.current")) <= MIB
    assert events(group)["oom"] == 0
    assert out_of_memory(z, x) == x.nbytes, "a call that is over holds nothing"


@in_each_mode()
def test_offsets_of_a_large_call_are_its_own(z: Zswap) -> None:
    x = uzswap.zeros(N, np.int64, cgroup=job(z, BUDGET))
    x[:] = counting(N)
    pread, pwrite = libc.pread, libc.pwrite
    with tempfile.TemporaryFile(buffering=0, dir="/var/tmp") as file:
        file.write(b"before")
        assert pwrite(file.fileno(), address(x), x.nbytes, 4096) == x.nbytes
        assert file.tell() == 6
        x[:] = 0
        assert pread(file.fileno(), address(x), x.nbytes, 4096) == x.nbytes
        assert pread(file.fileno(), address(x), x.nbytes, x.nbytes) == 4096, "the file ends there"
        assert file.tell() == 6
        assert (x[512:] == counting(N)[512:]).all()
        assert (x[:512] == counting(N)[-512:]).all()


@in_each_mode()
def test_a_stream_gives_what_is_there(z: Zswap) -> None:
    x = uzswap.zeros(N, np.int64, cgroup=job(z, BUDGET))
    view = memoryview(x).cast("B")
    ours, theirs = socket.socketpair()
    ends = os.pipe()
    with ours, theirs, os.fdopen(ends[0], "rb", buffering=0) as pipe, os.fdopen(ends[1], "wb", buffering=0) as into:
        theirs.sendall(b"some")
        assert ours.recv_into(view) == 4
        theirs.sendall(b"more")
        assert ours.recv_into(view, 0, socket.MSG_PEEK) == 4
        assert ours.recv_into(view) == 4
        into.write(b"a line\n")
        assert pipe.readinto(view) == 7
        assert bytes(view[:7]) == b"a line\n"
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv_into(view)


@in_each_mode()
def test_a_stream_may_be_waited_for(z: Zswap) -> None:
    """MSG_WAITALL, and a send() that blocks: all of it, however much it is."""
    group = job(z, BUDGET)
    x, y = uzswap.zeros(N, np.int64, cgroup=group), uzswap.zeros(N, np.int64, cgroup=group)
    x[:] = counting(N)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer = threading.Thread(target=ours.send, args=[x.data])
        writer.start()
        assert theirs.recv_into(y.data, 0, socket.MSG_WAITALL) == y.nbytes
        writer.join()
    assert (y == x).all()


@in_each_mode()
def test_a_datagram_is_one(z: Zswap) -> None:
    size = 128 << 10  # twice what is held at once of an array with this budget
    group = job(z, "256K")
    x, rest = uzswap.zeros(size, np.uint8, cgroup=group), uzswap.zeros(MIB, np.uint8, cgroup=group)
    data = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        for _ in range(4):
            x[:] = data
            rest[:] = 1
            assert ours.send(x.data) == size
            x[:] = 0
            rest[:] = 2
            assert theirs.recv_into(x.data) == size
            assert (x == data).all()


@in_each_mode()
def test_what_is_appended_by_one_call_stands_together(z: Zswap) -> None:
    group = job(z, BUDGET)
    size, times = 512 << 10, 8
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:

        def append(letter: int) -> None:
            x = uzswap.zeros(size, np.uint8, cgroup=group)
            x[:] = letter
            fd = os.open(file.name, os.O_WRONLY | os.O_APPEND)
            for _ in range(times):
                assert os.write(fd, x.data) == size
            os.close(fd)

        threads = [threading.Thread(target=append, args=[letter]) for letter in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = np.fromfile(file.name, np.uint8).reshape(2 * times, size)
        assert (found == found[:, :1]).all()
        assert sorted(found[:, 0]) == [1] * times + [2] * times


@in_each_mode()
def test_resident_pages_stay_resident_when_a_call_is_over(z: Zswap) -> None:
    group = job(z, "2M")
    x = uzswap.zeros(MIB // 8, np.int64, cgroup=group)
    rest = uzswap.zeros(MIB // 2, np.int64, cgroup=group)
    with tempfile.TemporaryFile(buffering=0) as file:
        with uzswap.resident(x[: MIB // 16]) as kept:
            kept[:] = counting(kept.size)
            file.write(x.data)
            rest[:] = 1
            assert out_of_memory(z, x) == x.nbytes // 2
        assert out_of_memory(z, x) == x.nbytes
    assert (x[: MIB // 16] == counting(MIB // 16)).all()


@in_each_mode()
def test_many_threads_may_share_a_page_in_their_calls(z: Zswap) -> None:
    group = job(z, "512K")
    part, times, nr = 1000, 200, 4  # neighbours share pages
    x, rest = uzswap.zeros(nr * part, np.uint8, cgroup=group), uzswap.zeros(2 * MIB, np.uint8, cgroup=group)
    data = np.random.default_rng(2).integers(0, 256, (nr, part), np.uint8)
    over = threading.Event()
    wrong: list[int] = []

    def transfer(k: int) -> None:
        mine = x[k * part : (k + 1) * part]
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(data[k].data)
            for _ in range(times):
                mine[:] = 0
                file.seek(0)
                if file.readinto(mine.data) != part or (mine != data[k]).any():
                    wrong.append(k)

    def press() -> None:
        while not over.is_set():
            uzswap.advise(x, "pageout")
            rest[:] += 1

    presser = threading.Thread(target=press)
    threads = [threading.Thread(target=transfer, args=[k]) for k in range(nr)]
    presser.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    presser.join()
    assert not wrong
    assert out_of_memory(z, x) == uzswap.info(x).bytes


@in_each_mode()
def test_pages_that_the_program_dropped_are_zeros(z: Zswap) -> None:
    x = uzswap.zeros(16 * PAGE, np.uint8, cgroup=job(z))
    x[:] = 7
    libc.madvise(address(x, 4), 4 * PAGE, mmap.MADV_DONTNEED)
    with tempfile.TemporaryFile(buffering=0) as file:
        assert file.write(x.data) == x.nbytes
        file.seek(0)
        found = np.frombuffer(file.read(), np.uint8).reshape(16, PAGE)
    assert [int(page[0]) for page in found] == [7] * 4 + [0] * 4 + [7] * 8


@in_each_mode()
def test_a_buffer_that_is_not_all_there_is_an_error_or_short(z: Zswap) -> None:
    x = uzswap.zeros(16 * PAGE, np.uint8, cgroup=job(z))
    x[:] = 7
    with tempfile.TemporaryFile(buffering=0) as file:
        # One page between arrays is nobody's.
        got = libc.write(file.fileno(), address(x), 64 * PAGE)
        assert 0 < got <= x.nbytes
        with pytest.raises(OSError) as caught:  # noqa: PT011
            libc.write(file.fileno(), address(x, 16), PAGE)
        assert caught.value.errno == errno.EFAULT
        with pytest.raises(OSError) as caught:  # noqa: PT011
            libc.write(-1, address(x), PAGE)
        assert caught.value.errno == errno.EBADF
        assert libc.write(file.fileno(), address(x), 0) == 0
    assert out_of_memory(z, x) == x.nbytes


@in_each_mode()
def test_a_program_that_closed_all_descriptors_still_reads_and_writes(z: Zswap) -> None:
    """As one does that becomes a daemon.  What is in the pool and what was never touched comes as ever."""
    group = job(z, "2M")
    x, y = uzswap.zeros(MIB // 8, np.int64, cgroup=group), uzswap.zeros(MIB // 8, np.int64, cgroup=group)
    x[:] = counting(MIB // 8)
    assert out_of_memory(z, x) == x.nbytes
    child = os.memfd_create("stays")
    os.dup2(child, 3)
    os.closerange(4, 1024)
    assert os.write(3, x.data) == x.nbytes
    assert libc.pread(3, address(y), y.nbytes, 0) == y.nbytes
    assert (x == y).all()
    os._exit(0)  # not even the engine can be closed


class Interrupted(Exception):
    """Raised by a signal handler."""


@in_each_mode()
def test_a_signal_ends_a_call_that_waits(z: Zswap) -> None:
    x = uzswap.zeros(N, np.uint8, cgroup=job(z))
    task = Path(f"/proc/self/task/{threading.get_native_id()}/syscall")
    main = threading.get_ident()

    def stop(*_: object) -> None:
        raise Interrupted

    def interrupt() -> None:
        """Wait until it waits in recvfrom()."""
        while task.read_text().split()[0] != "45":
            os.sched_yield()
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, stop)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(Interrupted):
            ours.recv_into(x.data)
        thread.join()
        theirs.sendall(b"lives")
        assert ours.recv_into(x.data) == 5
    signal.signal(signal.SIGUSR1, before)
    assert out_of_memory(z, x) == uzswap.info(x).bytes


@in_each_mode()
def test_children_and_what_they_execute_work(z: Zswap) -> None:
    """A child has its parent's arrays, and may have an engine of its own; what it becomes knows of nothing."""
    x = uzswap.zeros(N, np.uint8, cgroup=job(z))
    x[:] = 1
    child = os.fork()
    if not child:
        with tempfile.TemporaryFile(buffering=0) as file:
            assert file.write(x.data) == x.nbytes
            file.seek(0)
            with uzswap.Zswap(swap_size="16M") as mine:
                y = uzswap.zeros(N, np.uint8, cgroup=job(mine, "256K"))
                y[:] = 2
                assert file.write(y.data) == y.nbytes
                file.seek(0)
                y[:] = 0
                assert file.readinto(y.data) == y.nbytes
                assert (y == 2).all()
                del y
        os.execv("/bin/sh", ["sh", "-c", "head -c 100000 /dev/zero | wc -c >/dev/null && exit 42"])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert (x == 1).all()


#: A program of its own: an engine, and an array that is written and read again.
ROUND_TRIP = """
import os, sys, tempfile
import numpy as np
import uzswap.engine.zswap
from uzswap.core.boundary import memory
import functools
memory.Memory = functools.partial(memory.Memory, user_mode_only=True)
with uzswap.Zswap(swap_size="16M") as z:
    group = z.cgroup("/a")
    group.write("memory.max", "512K")
    x = uzswap.zeros(1 << 20, np.uint8, cgroup=group)
    x[:] = 3
    with tempfile.TemporaryFile(buffering=0) as file:
        assert file.write(x.data) == x.nbytes
        x[:] = 0
        file.seek(0)
        assert file.readinto(x.data) == x.nbytes
        assert (x == 3).all()
    print(uzswap.info(x).mode)
    del x
"""


@in_each_mode()
def test_a_program_within_a_program_traps_its_own(z: Zswap) -> None:
    x = uzswap.zeros(N, np.uint8, cgroup=job(z))
    x[:] = 1
    ends = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(ends[1], 1)
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        os.execv(sys.executable, [sys.executable, "-c", ROUND_TRIP])
    os.close(ends[1])
    with os.fdopen(ends[0]) as said:
        assert said.read() == "trapped\n"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def filters() -> int:
    """How many seccomp filters this process has."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("Seccomp_filters:")[2].split()[0])


@in_each_mode()
def test_one_filter_serves_all_engines(z: Zswap) -> None:
    before = filters()
    first = uzswap.zeros(N, np.uint8, cgroup=job(z))
    trapped = uzswap.info(first).mode == "trapped"
    # The other one keeps the handler of SIGBUS.
    expected = before if not trapped else 2 if z.faults == "signal" else 1
    assert filters() == expected
    for _ in range(3):
        with uzswap.Zswap(swap_size="16M") as one, uzswap.Zswap(swap_size="16M") as other:
            arrays = [uzswap.zeros(N, np.uint8, cgroup=job(each, "256K")) for each in (one, other)]
            for k, x in enumerate(arrays):
                x[:] = k
            with tempfile.TemporaryFile(buffering=0) as file:
                for x in arrays:
                    assert file.write(x.data) == x.nbytes
                file.seek(0)
                assert file.read() == bytes(N) + b"\1" * N
            del arrays, x
    assert filters() == expected
