"""The kernel's own accesses: they work in full mode; in user mode only those that are trapped, and resident() helps."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.core.paging.rig import BY_CHANCE, Mode, address, counting, in_each_mode, job, libc, out_of_memory, to_disk

import uzswap

if TYPE_CHECKING:
    from uzswap import Zswap

N = 128 * 1024  # 1 MiB: more than a pipe or a socket's buffer holds
EXPECTED = counting(N, 1)
Array = "NDArray[np.int64]"


def save(x: Array, path: Path) -> None:
    np.save(path.with_suffix(".npy"), x)
    assert (np.load(path.with_suffix(".npy")) == EXPECTED).all()


def file_write(x: Array, path: Path) -> None:
    with path.open("wb") as file:
        file.write(x.data)
    assert path.read_bytes() == EXPECTED.tobytes()


def os_write(x: Array, path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        assert os.write(fd, x.data) == x.nbytes
    finally:
        os.close(fd)
    assert path.read_bytes() == EXPECTED.tobytes()


def tofile(x: Array, path: Path) -> None:
    x.tofile(path)
    assert (np.fromfile(path, np.int64) == EXPECTED).all()


def sendall(x: Array, path: Path) -> None:
    ours, theirs = socket.socketpair()
    received: list[bytes] = []
    with ours, theirs:
        reader = threading.Thread(target=lambda: received.append(theirs.makefile("rb").read()))
        reader.start()
        try:
            ours.sendall(x.data)
        finally:
            ours.close()
            reader.join()
    assert received == [EXPECTED.tobytes()]


def readinto_raw(x: Array, path: Path) -> None:
    path.write_bytes(EXPECTED.tobytes())
    with path.open("rb", buffering=0) as file:
        assert file.readinto(x.data) == x.nbytes


def readinto_buffered(x: Array, path: Path) -> None:
    path.write_bytes(EXPECTED.tobytes())
    with path.open("rb") as file:
        assert file.readinto(x.data) == x.nbytes


def recv_into(x: Array, path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.ExitStack() as stack:
        writer = threading.Thread(target=lambda: suppress_broken_pipe(theirs.sendall, EXPECTED.tobytes()))
        writer.start()
        stack.callback(writer.join)
        stack.callback(ours.shutdown, socket.SHUT_RDWR)
        got, view = 0, memoryview(x).cast("B")
        while got < x.nbytes:
            got += ours.recv_into(view[got:])


def suppress_broken_pipe(call: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(OSError):
        call(data)


def direct_preadv(x: Array, path: Path) -> None:
    path.write_bytes(EXPECTED.tobytes())
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        assert os.preadv(fd, [x.data], 0) == x.nbytes
    finally:
        os.close(fd)


def direct_pwritev(x: Array, path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    try:
        assert os.pwritev(fd, [x.data], 0) == x.nbytes
    finally:
        os.close(fd)
    assert path.read_bytes() == EXPECTED.tobytes()


def process_vm(x: Array, path: Path) -> None:
    """One process reads another's memory, as debuggers do; here its own."""

    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    copy = np.zeros_like(x)
    mine, its = Vector(copy.ctypes.data, x.nbytes), Vector(x.ctypes.data, x.nbytes)
    got = libc.process_vm_readv(os.getpid(), ctypes.addressof(mine), 1, ctypes.addressof(its), 1, 0)
    assert got == x.nbytes
    assert (copy == EXPECTED).all()


OUTWARD = {call.__name__: call for call in (save, file_write, os_write, tofile, sendall, direct_pwritev, process_vm)}
#: What the filter cannot see the buffers of: vectors (unless wrappers are preloaded), and what another process does.
UNSEEN = (direct_pwritev, direct_preadv, process_vm)
INWARD = {call.__name__: call for call in (readinto_raw, readinto_buffered, recv_into, direct_preadv)}


@pytest.mark.parametrize("where", ["pool", "disk"])
@in_each_mode()
def test_system_calls_with_an_array(z: Zswap, where: str) -> None:
    group = job(z, "4M")
    x = uzswap.zeros(N, np.int64, cgroup=group)
    trapped = uzswap.info(x).mode == "trapped"
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:  # where swap files are, and O_DIRECT works
        for name, call in (OUTWARD | INWARD).items():
            x[:] = EXPECTED if call in OUTWARD.values() else counting(N, 2)
            gone = to_disk(z, group, x) if where == "disk" else out_of_memory(z, x)
            assert gone == x.nbytes, f"{gone} of {x.nbytes} bytes went before {name}"
            path = Path(directory, name)
            if trapped and call in UNSEEN:
                with pytest.raises(OSError) as caught:  # noqa: PT011
                    call(x, path)
                assert caught.value.errno == errno.EFAULT, name
                with uzswap.resident(x):
                    call(x, path)
            else:
                call(x, path)
            assert (x == EXPECTED).all(), name


@in_each_mode()
def test_resident_pages_stay_while_they_are_wanted(z: Zswap) -> None:
    group = job(z, "2M")
    x, rest = uzswap.zeros(N, np.int64, cgroup=group), uzswap.zeros(4 * N, np.int64, cgroup=group)
    x[:] = EXPECTED
    with uzswap.resident(x), uzswap.resident(x[: N // 2]):
        rest[:] = counting(4 * N)
        uzswap.advise(x, "pageout")
        assert uzswap.info(x).resident == x.nbytes
        with open(os.devnull, "wb", buffering=0) as null:
            assert null.write(x.data) == x.nbytes
        with tempfile.TemporaryFile(buffering=0) as file:
            assert file.write(x.data) == x.nbytes
    rest[:] = 0
    assert out_of_memory(z, x) == x.nbytes
    assert (x == EXPECTED).all()


@in_each_mode()
def test_a_file_beside_the_swap_file(z: Zswap) -> None:
    """A fault inside write() comes while the kernel holds the lock of that file; serving it reads another's."""
    group = job(z, "1M")
    x = uzswap.zeros(4 * N, np.int64, cgroup=group)
    x[:] = counting(4 * N)
    assert z.swap_path is not None
    with tempfile.TemporaryFile(dir=os.path.dirname(z.swap_path), buffering=0) as file:
        for first in range(0, 4 * N, N // 2):
            part = x[first : first + N // 2]
            to_disk(z, group, part)
            assert file.write(part.data) == part.nbytes
        file.seek(0)
        assert file.read() == counting(4 * N).tobytes()


def lends(z: Zswap, keep: bool) -> None:
    """Give pages to a pipe; then evict, and let others come and go, before they are read from it."""
    lent = uzswap.zeros((16, 512), np.int64, cgroup=z.cgroup("/lender"))
    lent[:] = counting(16 * 512, 5).reshape(16, 512)
    x = uzswap.zeros((256, 512), np.int64, cgroup=job(z, "1M"))
    iov = np.array([address(lent), lent.nbytes], np.uint64)
    ends = os.pipe()
    try:
        with contextlib.ExitStack() as kept:
            kept.enter_context(uzswap.resident(lent))
            assert libc.vmsplice(ends[1], iov.ctypes.data, 1, 0) == lent.nbytes
            if not keep:
                kept.close()
            out_of_memory(z, lent)
            for seed in range(20):
                x[:] = counting(256 * 512, seed).reshape(256, 512)
                out_of_memory(z, x)
            assert io.FileIO(ends[0], closefd=False).read(lent.nbytes) == counting(16 * 512, 5).tobytes()
        assert (lent == counting(16 * 512, 5).reshape(16, 512)).all()
    finally:
        os.close(ends[0])
        os.close(ends[1])


@in_each_mode()
def test_resident_pages_can_be_lent_to_the_kernel(z: Zswap) -> None:
    """vmsplice() and MSG_ZEROCOPY lend the very pages, for longer than the call."""
    lends(z, keep=True)


LENT = (
    BY_CHANCE
    + "an evicted page's frame becomes another page's while a pipe or a socket still has it (staging is recycled)"
)


@in_each_mode(known={Mode.FULL: LENT, Mode.USER_ONLY: LENT, Mode.SIGNAL: LENT})
def test_pages_lent_to_the_kernel_keep_their_bytes(z: Zswap) -> None:
    lends(z, keep=False)
