"""A thread that cannot be had: what was asked for is refused or put off, nothing else changes, and later it works."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import uzswap
from tests.conftest import EngineFactory
from tests.serve.conftest import needs_fuse, private  # noqa: F401  a fixture
from tests.support.child import run
from uzswap import Zswap
from uzswap.client.client import Client
from uzswap.engine.worker import Worker
from uzswap.threads import start_thread

#: more than the address space, so that every pthread_create of Python's fails with EAGAIN
HUGE_STACK = 1 << 47
PAGES = os.urandom(4 << 20)


@contextmanager
def no_threads() -> Iterator[None]:
    before = threading.stack_size(HUGE_STACK)
    try:
        yield
    finally:
        threading.stack_size(before)


def refused(call: Callable[[], object]) -> None:
    with no_threads(), pytest.raises(OSError, match="no thread can be had for uzswap-") as raised:
        call()
    assert raised.value.errno == errno.EAGAIN


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine(max_pool="1M")


@pytest.fixture
def ran() -> list[threading.Thread]:
    return []


@pytest.fixture
def worker(ran: list[threading.Thread]) -> Iterator[Worker]:
    worker = Worker("uzswap-test", lambda: ran.append(threading.current_thread()))
    yield worker
    worker.close()


def test_a_refused_thread_is_an_oserror() -> None:
    refused(lambda: start_thread("uzswap-x", print))
    start_thread("uzswap-x", lambda: None).join()


def test_a_thread_that_finds_no_memory_to_begin_with_is_refused() -> None:
    """There is a stack for it, once the last one has let go of it, but nothing can be mapped for its first frame."""
    code = """
    import errno, faulthandler, resource, threading
    from uzswap.threads import start_thread

    faulthandler.dump_traceback_later(60, exit=True)
    start_thread("uzswap-x", print, "ran").join()
    ran = []
    said = ""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 20, limits[1]))
    while "no thread can be had for uzswap-x (no memory)" not in said:
        try:
            start_thread("uzswap-x", ran.append, 1)
        except OSError as error:
            assert error.errno == errno.EAGAIN, error
            said = str(error)
    resource.setrlimit(resource.RLIMIT_AS, limits)
    assert threading.enumerate() == [threading.main_thread()]
    start_thread("uzswap-x", ran.append, 2).join()
    assert ran == [2]
    """
    done = run(code, fresh=True).check()
    assert done.stdout == "ran\n"
    assert not done.stderr


def test_a_thread_is_one_of_pythons() -> None:
    code = """
    import os, signal, threading
    from uzswap.threads import start_thread

    go, began = threading.Event(), threading.Event()
    said = []

    def work(a, b):
        said.append((a, b, threading.current_thread(), signal.pthread_sigmask(signal.SIG_BLOCK, [])))
        began.set()
        go.wait()
        raise ZeroDivisionError

    def hook(args):
        said.append((args.exc_type, args.thread))

    threading.excepthook = hook
    thread = start_thread("uzswap-x", work, 1, b=2)
    began.wait()
    assert thread.is_alive() and thread.daemon and thread.ident and thread.native_id != os.getpid()
    assert thread in threading.enumerate()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert not thread.is_alive()
            thread.join()
            assert threading.enumerate() == [threading.main_thread()]
            start_thread("uzswap-y", said.append, "child").join()
            assert said[-1] == "child"
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    go.set()
    thread.join()
    assert not thread.is_alive() and thread not in threading.enumerate()
    a, b, me, blocked = said[0]
    assert (a, b, me) == (1, 2, thread)
    assert signal.SIGINT in blocked and signal.SIGSEGV not in blocked
    assert said[1:] == [(ZeroDivisionError, thread)], said
    """
    run(code).check()


def test_work_that_got_no_thread_is_begun_by_the_next_wake(
    worker: Worker, ran: list[threading.Thread], caplog: pytest.LogCaptureFixture
) -> None:
    with no_threads():
        for _ in range(100):
            worker.wake()
        assert not ran
    assert len(caplog.records) == 1  # and not one each time
    worker.wake()
    worker.flush()
    assert [thread.name for thread in ran] == ["uzswap-test"]


def test_work_that_got_no_thread_is_begun_by_a_flush(worker: Worker, ran: list[threading.Thread]) -> None:
    with no_threads():
        worker.wake()
    worker.flush()
    assert [thread.name for thread in ran] == ["uzswap-test"]


def test_flush_does_the_work_itself_while_no_thread_can_be_had(worker: Worker, ran: list[threading.Thread]) -> None:
    with no_threads():
        worker.wake()
        worker.flush()
        assert ran == [threading.current_thread()]
        worker.flush()
    assert len(ran) == 1


def test_a_worker_that_got_no_thread_can_be_closed(worker: Worker, ran: list[threading.Thread]) -> None:
    with no_threads():
        worker.wake()
    worker.close()
    worker.flush()
    assert not ran


def test_memory_high_is_kept_again_once_there_are_threads(z: Zswap) -> None:
    g = z.cgroup("/a")
    g.write("memory.high", "1M")
    with uzswap.Store(g) as store:
        with no_threads():
            for key in range(100):
                store[key] = f"{key} " * 10_000
        assert int(g.read("memory.current")) > 1 << 20
        store["one more"] = "x"
        z.flush_work()
        assert int(g.read("memory.current")) <= 1 << 20
        assert all(store[key] == f"{key} " * 10_000 for key in range(100))


def test_a_full_pool_is_relieved_once_there_are_threads(z: Zswap) -> None:
    g = z.cgroup("/a")
    with no_threads():
        z.swap_out_many(PAGES, g)
        assert z.core.reached_full()
    z.flush_work()
    assert z.pool_over_threshold() == 0


def test_arrays(z: Zswap) -> None:
    g = z.cgroup("/a")
    refused(lambda: uzswap.zeros(10, cgroup=g))
    array = uzswap.zeros(1 << 20, np.uint8, cgroup=g)
    array[:] = 7
    assert array.sum() == 7 << 20
    del array


def test_rows_are_taken_by_one_thread_where_there_are_no_more(z: Zswap) -> None:
    array = uzswap.zeros((4096, 1024), np.uint8, cgroup=z.cgroup("/a"))
    array[:] = np.random.default_rng(1).integers(0, 256, array.shape, np.uint8)
    uzswap.advise(array, "pageout")
    order = np.random.default_rng(2).permutation(len(array))
    with no_threads():
        found = uzswap.take(array, order)
    assert (found == array[order]).all()
    assert (uzswap.take(array, order) == found).all()
    del array


def test_a_socket(z: Zswap, private: Path) -> None:  # noqa: F811
    refused(lambda: z.serve(private / "s"))
    assert not (private / "s").exists()
    with z.serve(private / "s") as server, Client(server.path) as client:
        refused(lambda: client.list("/"))  # it has a thread of its own
        assert client.list("/")


@needs_fuse
def test_a_mount(z: Zswap, private: Path) -> None:  # noqa: F811
    refused(lambda: z.mount(private / "m"))
    assert not (private / "m").exists()
    with z.mount(private / "m") as mount:
        assert (mount.path / "vmstat").read_text()


def test_a_trigger(z: Zswap) -> None:
    g = z.cgroup("/a")
    with g.open("memory.pressure", privileged=True) as file:
        refused(lambda: file.write("some 150000 1000000"))
        file.write("some 150000 1000000")
        assert file.poll(0) == 0


def test_a_poll_through_the_socket(z: Zswap, private: Path) -> None:  # noqa: F811
    g = z.cgroup("/a")
    with (
        z.serve(private / "s") as server,
        Client(server.path) as client,
        client.open("/cgroup/a/memory.events") as file,
    ):
        refused(lambda: file.poll(60))
        g.count_event("high")
        assert file.poll(60) == select.POLLPRI


@needs_fuse
def test_a_poll_through_the_mount(z: Zswap, private: Path) -> None:  # noqa: F811
    g = z.cgroup("/a")
    with z.mount(private / "m") as mount, open(mount.path / "cgroup/a/memory.events") as file:
        polled = select.poll()
        polled.register(file, select.POLLPRI)
        file.read()
        with no_threads():
            assert polled.poll(60_000) == [(file.fileno(), select.POLLERR)]
        g.count_event("high")
        assert polled.poll(60_000) == [(file.fileno(), select.POLLPRI)]
