"""Paged memory when calls fail that hardly ever do: nothing is lost, nothing hangs, and the next call works."""

import errno
import signal
import textwrap

import pytest
from tests.support import child, failing

PREAMBLE = """
import ctypes, errno, os, sys
import numpy as np
from tests.support import failing
from uzswap.core.boundary import engine as core
from uzswap.core.boundary import memory as paged

MIB = 1 << 20
plane = core.Engine()
memcg = plane.memcg_new(0)

def array(memory, nbytes=MIB):
    area, address = memory.alloc(nbytes, memcg)
    return area, np.frombuffer((ctypes.c_char * nbytes).from_address(address), np.uint64)

def end(memory):
    memory.settle()
    assert plane.check() == []
    memory.close()
    plane.close()
"""


def run(code: str, *args: str) -> None:
    """Run a program to its good end."""
    child.run(PREAMBLE + textwrap.dedent(code), args, env=failing.preloaded()).check()


@pytest.mark.parametrize("kind", ["mmap", "calloc", "pthread_create"])
@pytest.mark.parametrize("after", range(6))
def test_memory_that_opens_while_a_call_fails_works_or_says_so(kind: str, after: int) -> None:
    """With fewer threads than there might be, or not at all: and then the next time."""
    run(
        """
        kind, after = sys.argv[1], int(sys.argv[2])
        failing.plan(kind, after, errno=errno.EAGAIN if kind == "pthread_create" else errno.ENOMEM, least=16384)
        if kind == "pthread_create":
            failing.plan(kind, after, errno=errno.EAGAIN)
        try:
            memory = paged.Memory(plane)
        except OSError as failed:
            assert failed.errno == (errno.EAGAIN if kind == "pthread_create" else errno.ENOMEM)
            memory = paged.Memory(plane)
        failing.plan(kind, count=0)
        area, x = array(memory, 8 * MIB)
        plane.set_limit(memcg, core.MEMORY_MAX, 2 * MIB)
        for _ in range(3):
            x[:] = np.arange(len(x))
            assert (x == np.arange(len(x))).all()
        memory.settle()
        assert not memory.info().broken
        memory.free(area)
        end(memory)
        """,
        kind,
        str(after),
    )


def test_freeing_needs_no_memory() -> None:
    run(
        """
        memory = paged.Memory(plane)
        area, x = array(memory)
        x[:] = np.arange(len(x))
        memory.evict(area, 0, 100)
        del x
        for kind in ("malloc", "calloc", "posix_memalign", "mmap"):
            failing.plan(kind, count=1 << 40, least=1024)
        memory.free(area)
        for kind in ("malloc", "calloc", "posix_memalign", "mmap"):
            failing.plan(kind, count=0)
        assert memory.info().areas == 0
        assert plane.counters(memcg)[core.COUNTERS.index("resident")] == 0
        end(memory)
        """
    )


@pytest.mark.parametrize("after", range(4))
def test_a_page_that_nothing_takes_and_that_cannot_go_back_is_kept_by_zswap(after: int) -> None:
    """It does not compress, there is no device, and the kernel has no memory for its old place."""
    run(
        """
        memory = paged.Memory(plane)
        area, x = array(memory, 128 << 10)
        noise = np.random.default_rng(1).integers(0, 1 << 64, len(x), np.uint64)
        x[:] = noise
        memory.settle()
        failing.plan("uffd_copy", count=1 << 40)
        failing.plan("uffd_move", after=int(sys.argv[1]) + 1, count=1 << 40)
        memory.evict(area, 0, 32)
        assert failing.met("uffd_copy") > 0
        failing.plan("uffd_copy", count=0)
        failing.plan("uffd_move", count=0)
        assert (x == noise).all()
        del x
        memory.free(area)
        end(memory)
        """,
        str(after),
    )


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EAGAIN, errno.EINVAL])
def test_memory_that_the_kernel_does_not_drop_is_not_read_as_another_array(number: int) -> None:
    """The advice fails and has changed nothing; what is freed has its address to itself."""
    run(
        """
        number = int(sys.argv[1])
        memory = paged.Memory(plane)
        area, x = array(memory)
        x[:] = np.arange(len(x))
        failing.plan("madvise", count=1 << 40, errno=number)
        try:
            memory.drop(area, 0, 16)
        except OSError as failed:
            assert failed.errno == number
        else:
            raise AssertionError("it says that it has dropped them")
        assert (x == np.arange(len(x))).all()
        memory.evict(area, 0, 256)
        memory.free(area)
        failing.plan("madvise", count=0)
        for _ in range(8):
            other, y = array(memory)
            assert not y.any()
            y[:] = 7
            assert memory.evict(other, 0, 256) == 256
            assert (y == 7).all()
        assert plane.check() == []
        os._exit(0)
        """,
        str(number),
    )


def test_a_dead_thread_is_noticed_although_the_wall_clock_was_set_back() -> None:
    """The clock is a day ahead when the watch begins."""
    done = child.run(
        PREAMBLE
        + textwrap.dedent(
            """
        from tests.support import uffd_filter

        failing.set_clock(86400)
        memory = paged.Memory(plane)
        area, x = array(memory)
        x[:] = 1
        memory.evict(area, 0, 256)
        failing.set_clock(0)
        try:
            uffd_filter.kill_thread(*uffd_filter.FILLING)
        except uffd_filter.Unsupported as why:
            sys.exit(str(why))
        print(x[5], "was read")
        """
        ),
        env=failing.preloaded(),
    )
    if "seccomp filters cannot be made here" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.signal == signal.SIGBUS, done.said()
    assert done.stdout == ""


def test_a_page_that_the_program_dropped_is_zeros_though_there_was_no_memory_for_it_at_first() -> None:
    """Whoever waits for a page that could not be placed is woken, and faults again."""
    run(
        """
        memory = paged.Memory(plane)
        area, x = array(memory)
        x[:] = 1
        assert ctypes.CDLL(None).madvise(ctypes.c_void_p(x.ctypes.data), ctypes.c_size_t(x.nbytes), 4) == 0
        failing.plan("uffd_copy", count=3, errno=errno.ENOMEM)
        assert not x.any()
        assert failing.met("uffd_copy") > 3
        del x
        memory.free(area)
        end(memory)
        """
    )


@pytest.mark.parametrize("write", ["", "write"])
def test_pages_come_in_and_go_over_a_border_that_the_program_has_made_in_an_array(write: str) -> None:
    """The kernel places nothing in two mappings at once."""
    run(
        """
        memory = paged.Memory(plane)
        area, x = array(memory)
        memory.hint(area, paged.SEQUENTIAL)
        dodump = 17
        middle = ctypes.c_void_p(x.ctypes.data + 5 * 4096)
        assert ctypes.CDLL(None).madvise(middle, ctypes.c_size_t(9 * 4096), dodump) == 0
        if sys.argv[1]:
            x[::-1] = 1
        assert (x == (1 if sys.argv[1] else 0)).all()
        assert memory.evict(area, 0, MIB // 4096) == MIB // 4096
        assert (x == (1 if sys.argv[1] else 0)).all()
        del x
        memory.free(area)
        end(memory)
        """,
        write,
    )


@pytest.mark.parametrize("pages", [1, 40])
@pytest.mark.parametrize("after", range(3))
def test_what_the_kernel_has_moved_and_says_that_it_has_not_is_where_it_moved_it(pages: int, after: int) -> None:
    """Of pages that it is migrating Linux 6.18 says EEXIST, having done what it was asked for."""
    run(
        """
        pages, after = int(sys.argv[1]), int(sys.argv[2])
        memory = paged.Memory(plane)
        if not memory.info().can_move:
            sys.exit()
        area, x = array(memory)
        x[:] = np.arange(len(x))
        for turn in range(3):
            memory.settle()
            for first in range(0, 200, 2 * pages):
                failing.plan("uffd_move", after=after % 2, count=1 + after, errno=errno.EEXIST)
                memory.evict(area, first, pages)
                assert failing.met("uffd_move")
            # On the way back as well.
            failing.plan("uffd_move", after=after, count=1, errno=errno.EEXIST)
            assert (x == np.arange(len(x)) + turn).all()
            failing.plan("uffd_move", count=0)
            x += 1
        del x
        memory.free(area)
        end(memory)
        """,
        str(pages),
        str(after),
    )
