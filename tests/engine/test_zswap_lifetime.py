"""Closing, forgetting and forking an engine: a clear error, never a crash, and nothing left behind."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import EngineFactory
from tests.reclaim.walks.test_v5_concurrency import in_background
from tests.support.child import Child, run
from tests.support.faulty import FaultySwap
from tests.support.pages import page_of_length, pages_of_length
from tests.support.states import Outcome, fill, reclaim

import uzswap
from uzswap import TraceEvent, Zswap

CALLS: dict[str, Callable[[Zswap, Any], object]] = {
    "cgroup": lambda z, g: z.cgroup("/other"),
    "swap_out": lambda z, g: z.swap_out(b"x", g),
    "swap_out_many": lambda z, g: z.swap_out_many(b"x", g),
    "fault_in": lambda z, g: z.fault_in(1 << 32 | 1),
    "fault_in_many": lambda z, g: z.fault_in_many([1 << 32 | 1]),
    "free": lambda z, g: z.free(1 << 32 | 1),
    "free_many": lambda z, g: z.free_many([1 << 32 | 1]),
    "where": lambda z, g: z.where(1 << 32 | 1),
    "reclaim": lambda z, g: g.reclaim(1, source="zswap"),
    "ordinary reclaim": lambda z, g: g.reclaim(4096),
    "read": lambda z, g: g.read("memory.stat"),
    "write": lambda z, g: g.write("memory.max", "1M"),
    "remove": lambda z, g: g.remove(),
    "charge": lambda z, g: z.charge(g, 4096),
    "uncharge": lambda z, g: z.uncharge(g, 0),
    "check": lambda z, g: z.check(),
}


@pytest.mark.parametrize("call", CALLS)
def test_use_after_close(engine: EngineFactory, call: str) -> None:
    z = engine()
    g = z.cgroup("/g")
    fill(z, g, 3, 300)
    z.close()
    with pytest.raises(OSError, match="closed") as closed:
        CALLS[call](z, g)
    assert closed.value.errno in (errno.EBADF, errno.ENODEV)


def test_close_again(engine: EngineFactory) -> None:
    with engine() as z:
        z.close()
    z.close()
    z.flush_work()


def test_close_from_within_a_call(engine: EngineFactory) -> None:
    z = engine()
    g = z.cgroup("/g")
    fill(z, g, 3, 300)

    def trace(event: TraceEvent) -> None:
        with pytest.raises(OSError, match="within") as busy:
            z.close()
        assert busy.value.errno == errno.EBUSY

    z.trace = trace
    assert reclaim(g, 1).errno == 0
    z.trace = None


@pytest.mark.parametrize("walk", ["v5", "fair", "coldest"])
def test_close_ends_a_request_and_waits_for_it(walk: str) -> None:
    with FaultySwap(64 << 20) as disk:
        z = Zswap(disk.path, "64M", walk=walk)
        g = z.cgroup("/g")
        fill(z, g, 2000, 4096, referenced=False)
        disk.block_writes()

        def request() -> Outcome:
            try:
                return Outcome(0, g.reclaim("8M", source="zswap").written)
            except OSError as error:
                return Outcome(error.errno or 0, 0)

        outcome = in_background(request)
        disk.wait_blocked()
        closing = threading.Thread(target=z.close)
        closing.start()
        while not z.closing:
            os.sched_yield()
        disk.release()
        closing.join()
        assert outcome().errno == errno.EINTR
        assert z.core.closed


def test_close_while_threads_use_it(engine: EngineFactory) -> None:
    z = engine()
    g = z.cgroup("/g")
    errors: list[BaseException] = []
    started = threading.Barrier(4)

    def work(n: int) -> None:
        started.wait()
        try:
            while True:
                handles = z.swap_out_many(pages_of_length(300, 20, seed=n), g)
                z.fault_in_many(handles)
                g.read("memory.stat")
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    started.wait()
    z.close()
    for thread in threads:
        thread.join()
    assert len(errors) == 3
    assert {error.errno for error in errors if isinstance(error, OSError)} <= {errno.EBADF, errno.ENODEV}


def test_no_array_is_made_while_the_engine_closes(engine: EngineFactory) -> None:
    """Not even by a call that it waits for, when there was no paged memory before."""
    z = engine()
    group = z.cgroup("/a")
    closing = threading.Thread(target=z.close)
    with z.lifetime:
        closing.start()
        while not z.closing:
            pass
        with pytest.raises(OSError, match="is closed") as refused:
            uzswap.zeros(10, cgroup=group)
        assert refused.value.errno == errno.EBADF
    closing.join()
    assert z.core.closed


def test_a_forgotten_engine_gives_its_file_back() -> None:
    run(
        """
        import gc, os, warnings
        import uzswap
        def files():
            return sum(os.path.exists(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))
        before = files()
        z = uzswap.Zswap(swap_size="16M")
        z.swap_out(b"x", z.cgroup("/g"))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            del z
            gc.collect()
        assert files() == before
        assert [warning.category for warning in told] == [ResourceWarning], told
        """
    ).check()


def test_nothing_is_left_after_kill_9(tmp_path: Path) -> None:
    code = """
        import uzswap
        z = uzswap.Zswap(swap_size="16M")
        g = z.cgroup("/g")
        h = z.swap_out(b"secret" * 100, g)
        g.reclaim(1, source="zswap")
        print(z.where(h), z.swap_path)
        input()
        """
    with Child(code, env={"TMPDIR": str(tmp_path)}) as child:
        where, path = child.read_line().split(maxsplit=1)
        assert where == "disk"
        assert path.endswith("(unlinked)")
        child.kill()
    if path.startswith(str(tmp_path)):
        assert list(tmp_path.iterdir()) == []


FORK = """
    import os, sys, threading
    import uzswap
    z = uzswap.Zswap(sys.argv[1], "16M")
    g = z.cgroup("/g")
    handles = z.swap_out_many(bytes(range(256)) * 160, g)
    g.reclaim(1, source="zswap")
"""


@pytest.mark.parametrize("call", CALLS)
def test_use_after_a_fork_of_c_code(tmp_path: Path, call: str) -> None:
    """The child has the memory in whatever state it was: nothing of it can be used."""
    run(
        FORK
        + """
    from tests.engine.test_zswap_lifetime import CALLS
    from tests.support.c_fork import c_fork
    if (pid := c_fork()) == 0:
        try:
            CALLS[sys.argv[2]](z, g)
        except RuntimeError as error:
            os._exit("parent" not in str(error))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    z.check()
    assert z.fault_in_many(handles).tobytes() == bytes(range(256)) * 160
    z.close()
    """,
        args=[str(tmp_path / "swap"), call],
    ).check()


def test_a_child_has_the_entries_of_its_parent(tmp_path: Path) -> None:
    run(
        FORK
        + """
    more = z.swap_out_many(b"abcdefgh" * 51200, g)
    for turn in range(3):
        if (pid := os.fork()) == 0:
            assert z.where(handles[0]) == "disk"
            assert z.fault_in_many(handles).tobytes() == bytes(range(256)) * 160
            more = z.swap_out_many(os.urandom(1 << 20), g)
            g.reclaim("512K", source="zswap")
            z.free_many(more)
            z.flush_work()
            z.check()
            z.close()
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        z.check()
    assert z.fault_in_many(handles).tobytes() == bytes(range(256)) * 160
    z.close()
    """,
        args=[str(tmp_path / "swap")],
    ).check()


def test_fork_while_other_threads_hold_the_locks(tmp_path: Path) -> None:
    """The child must not wait for a lock that nobody will release there."""
    run(
        FORK
        + """
    stop = False
    def work():
        while not stop:
            z.fault_in_many(z.swap_out_many(b"abcdefgh" * 51200, g))
            g.read("memory.stat")
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        if (pid := os.fork()) == 0:
            z.fault_in(z.swap_out(b"x", g))
            g.read("memory.stat")
            z.check()
            z.close()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    stop = True
    for thread in threads:
        thread.join()
    z.check()
    z.close()
    """,
        args=[str(tmp_path / "swap")],
    ).check()


def test_a_named_file_is_not_erased_while_a_child_reads_of_it(tmp_path: Path) -> None:
    """And no other engine is given it meanwhile; afterwards one is, which erases it first."""
    run(
        FORK
        + """
    ours, its = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(its)
        assert os.read(ours, 1) == b""
        assert z.fault_in_many(handles).tobytes() == bytes(range(256)) * 160
        os._exit(7)
    os.close(ours)
    z.close()
    try:
        uzswap.Zswap(sys.argv[1], "16M")
    except OSError as error:
        assert "another engine uses" in error.strerror
    else:
        raise AssertionError("two engines have the file")
    os.close(its)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    uzswap.Zswap(sys.argv[1], "16M").close()
    assert os.path.getsize(sys.argv[1]) == 0
    """,
        args=[str(tmp_path / "swap")],
    ).check()


def test_a_child_leaves_the_parents_file_alone_and_can_have_an_engine_of_its_own(tmp_path: Path) -> None:
    run(
        FORK
        + """
    if (pid := os.fork()) == 0:
        with z:
            pass
        with uzswap.Zswap(sys.argv[1] + "2", "16M") as mine:
            handle = mine.swap_out(b"mine", mine.cgroup("/c"))
            assert mine.fault_in(handle) == b"mine"
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert z.fault_in_many(handles).tobytes() == bytes(range(256)) * 160
    z.close()
    """,
        args=[str(tmp_path / "swap")],
    ).check()


def test_background_work_is_waited_for(engine: EngineFactory) -> None:
    before = set(threading.enumerate())
    z = engine(max_pool="1M", swap_size="16M")
    g = z.cgroup("/g")
    z.swap_out_many(page_of_length(4000) * 600, g)
    z.close()
    assert not set(threading.enumerate()) - before
