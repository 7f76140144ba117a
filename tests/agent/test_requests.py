"""Requests: one for each cgroup, each with a deadline, none in the way of another."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from tests.agent.trees import MIB, KernelTree, Looking
from tests.conftest import EngineFactory
from tests.serve.conftest import needs_fuse, private
from tests.support.child import PATIENCE
from tests.support.states import fill

from uzswap import TraceEvent, Zswap
from uzswap.agent.policies.policy import MEMORY, ZSWAP, Decision
from uzswap.agent.requests import Finished, Request, ThreadedRequests
from uzswap.agent.tree import Tree, open_tree
from uzswap.client.deadlines import Deadlines
from uzswap.client.directory import DirectoryRoot
from uzswap.signals import hold_back_signals

__all__ = ["private"]

LONG = 3600.0


@contextmanager
def blocking(path: Path) -> Iterator[None]:
    """Put a full pipe in the place of a file: writing to it blocks in the system call, as a reclaim that hangs does."""
    path.unlink()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        while True:
            os.write(writer, bytes(4096))
    except BlockingIOError:
        pass
    try:
        yield
    finally:
        os.close(writer)
        os.close(reader)


class Carrying:
    """Requests that are carried out by threads, on a kernel's tree or another one."""

    def __init__(self, tree: Tree, deadline: float, at_once: int = 8) -> None:
        self.ended = threading.Event()
        self.requests = ThreadedRequests(tree, deadline, self.ended.set, tree.again, at_once=at_once)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.requests.close()

    def ask(self, path: str, inode: int, stage: int = MEMORY, nbytes: int = MIB) -> None:
        self.requests.start(Request(inode, path, Decision(stage, nbytes, "open")))

    def wait(self, count: int = 1) -> list[Finished]:
        found: list[Finished] = []
        while len(found) < count:
            assert self.ended.wait(PATIENCE)
            self.ended.clear()
            found += self.requests.finished()
        return found


def test_a_write_that_blocks_is_interrupted_at_its_deadline(tmp_path: Path) -> None:
    path = tmp_path / "memory.reclaim"
    path.write_text("")
    with Deadlines() as deadlines, blocking(path):
        root = DirectoryRoot(deadlines)
        with pytest.raises(InterruptedError, match=r"longer than 0\.05 s"):
            root.write(str(path), b"1M", within=0.05)


def test_a_write_that_ends_in_time_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "memory.high"
    path.write_text("")
    with Deadlines() as deadlines:
        root = DirectoryRoot(deadlines)
        for _ in range(100):
            root.write(str(path), b"1M", within=LONG)
        with pytest.raises(FileNotFoundError):
            root.write(f"{path}.not", b"1", within=LONG)
    assert path.read_text() == "1M"


def test_one_that_hangs_holds_up_nobody_else(tmp_path: Path) -> None:
    kernel = KernelTree(tmp_path)
    a = kernel.make("/a")
    kernel.make("/b")
    with Deadlines() as deadlines, blocking(a / "memory.reclaim"):
        tree = Tree(DirectoryRoot(deadlines), str(kernel.top), "tree", "", "", engine=False)
        with Carrying(tree, 0.5) as carrying:
            carrying.ask("/a", 1)
            carrying.ask("/b", 2)
            first, second = carrying.wait(2)
            assert (first.request.path, first.done.errno) == ("/b", 0)
            assert (second.request.path, second.done.errno) == ("/a", errno.EINTR)
            assert carrying.requests.busy(1) is None


def test_so_many_at_once_and_not_even_all_that_hang_hold_up_the_rest(tmp_path: Path) -> None:
    kernel = KernelTree(tmp_path)
    names = [f"/{i}" for i in range(6)]
    directories = [kernel.make(name) for name in names]
    with Deadlines() as deadlines, blocking(directories[0] / "memory.reclaim"):
        tree = Tree(DirectoryRoot(deadlines), str(kernel.top), "tree", "", "", engine=False)
        with Carrying(tree, 0.2, at_once=1) as carrying:
            for inode, name in enumerate(names, 1):
                carrying.ask(name, inode)
            found = {one.request.path: one.done.errno for one in carrying.wait(6)}
    assert found == {name: errno.EINTR if name == "/0" else 0 for name in names}


def test_at_most_one_request_is_under_way_in_a_cgroup(tmp_path: Path) -> None:
    kernel = KernelTree(tmp_path)
    a = kernel.make("/a")
    with Deadlines() as deadlines, blocking(a / "memory.reclaim"):
        tree = Tree(DirectoryRoot(deadlines), str(kernel.top), "tree", "", "", engine=False)
        with Carrying(tree, 0.5) as carrying:
            carrying.ask("/a", 1)
            assert carrying.requests.busy(1) is not None
            with pytest.raises(OSError, match="under way") as caught:
                carrying.ask("/a", 1)
            assert caught.value.errno == errno.EBUSY
            assert carrying.wait()[0].done.errno == errno.EINTR


def test_the_agent_lets_a_cgroup_rest_whose_request_was_interrupted(tmp_path: Path) -> None:
    kernel = KernelTree(tmp_path)
    a = kernel.make("/a")
    kernel.make("/b")
    with Deadlines() as deadlines:
        tree = Tree(
            DirectoryRoot(deadlines), str(kernel.top), "tree", str(kernel.proc), str(kernel.zswap), engine=False
        )
        with Carrying(tree, 0.2) as carrying:
            look = Looking(tree, "[default]\ntwostage.writeback = false\n", requests=carrying.requests)
            look.agent.round()  # the probes write to memory.reclaim
            with blocking(a / "memory.reclaim"):
                look.clock.now += 6
                look.agent.round()
                while carrying.requests.busy(os.stat(a).st_ino) is not None:
                    assert carrying.ended.wait(PATIENCE)
                    carrying.ended.clear()
                    look.agent.round()
                for _ in range(3):
                    look.clock.now += 2
                    look.agent.round()
                errnos = {record.cgroup: record.errno for record in look.records.recent() if record.asked}
                assert errnos == {"/a": errno.EINTR, "/b": 0}
                assert [text for text in look.said if "EINTR" in text] == [
                    "/a: memory.reclaim gave EINTR: it rests a while"
                ]
                look.agent.close()


def test_an_agent_that_ends_begins_nothing_that_nobody_would_tell_of(tmp_path: Path) -> None:
    """The request of one stage is under way, that of the other waits for it."""
    kernel = KernelTree(tmp_path)
    a = kernel.make("/a")
    kernel.stat("/a", zswap=2000 * MIB, zswapped=6000 * MIB)
    kernel.machine(pool=3000)
    inode = os.stat(a).st_ino
    with Deadlines() as deadlines:
        root = DirectoryRoot(deadlines)
        tree = Tree(root, str(kernel.top), "tree", str(kernel.proc), str(kernel.zswap), engine=False)
        with Carrying(tree, 1.0) as carrying:
            look = Looking(tree, "[default]\ntwostage.age_max = 120\n", requests=carrying.requests)
            look.agent.round()  # the probes write to memory.reclaim
            with blocking(a / "memory.reclaim"):
                while not look.agent._watched["/a"].waiting:
                    look.clock.now += 6
                    look.agent.round()
                look.agent.close()
                told = [record for record in look.records.recent() if record.asked][-1]
                assert (told.stage, told.errno) == (MEMORY, errno.EINTR)
                assert carrying.requests.busy(inode) is None


@pytest.fixture(params=["socket", pytest.param("mount", marks=needs_fuse)])
def served(request: pytest.FixtureRequest, engine: EngineFactory, private: Path) -> Iterator[tuple[Zswap, str]]:
    """An engine, and where its tree is."""
    z = engine()
    if request.param == "socket":
        with z.serve(private / "s") as server:
            yield z, str(server.path)
    else:
        with z.mount(private / "m") as mount:
            yield z, str(mount.path)


def test_a_request_says_what_it_did_by_the_counters(served: tuple[Zswap, str]) -> None:
    z, where = served
    group = z.cgroup("/g")
    fill(z, group, 100, 2000, referenced=False)
    with Deadlines() as deadlines, Carrying(open_tree(where, deadlines), 60.0) as carrying:
        carrying.ask("/g", 1, ZSWAP, 50_000)
        (finished,) = carrying.wait()
        assert finished.done.errno == 0
        assert finished.done.done == int(dict(x.split() for x in group.read("memory.stat").splitlines())["uzswap.disk"])
        carrying.ask("/g", 1, ZSWAP, 1 << 30)
        (finished,) = carrying.wait()
        assert finished.done.errno == errno.EAGAIN
        assert finished.done.done > 100_000
        group.remove() if not group.children else None


def test_a_request_to_an_engine_is_interrupted_at_its_deadline(served: tuple[Zswap, str]) -> None:
    z, where = served
    group = z.cgroup("/g")
    fill(z, group, 1000, 2000, referenced=False)

    def hold(event: TraceEvent) -> None:
        with hold_back_signals() as guard:
            while not guard.pending():
                os.sched_yield()

    z.trace = hold
    with Deadlines() as deadlines, Carrying(open_tree(where, deadlines), 0.3) as carrying:
        carrying.ask("/g", 1, ZSWAP, 1 << 30)
        (finished,) = carrying.wait()
    z.trace = None
    assert finished.done.errno == errno.EINTR
    assert finished.done.done > 0


def test_a_cgroup_that_is_gone_is_told_by_its_errno(served: tuple[Zswap, str]) -> None:
    _, where = served
    with Deadlines() as deadlines, Carrying(open_tree(where, deadlines), 60.0) as carrying:
        carrying.ask("/nobody", 1)
        (finished,) = carrying.wait()
    assert (finished.done.errno, finished.done.done) == (errno.ENOENT, 0)
