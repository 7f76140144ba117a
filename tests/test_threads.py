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
