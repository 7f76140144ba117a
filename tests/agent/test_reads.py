"""Reads that hang: of a mount whose server is stopped, or of a single cgroup.  They hold up nobody else."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.agent.trees import KernelTree, Looking
from tests.cli.command import started
from tests.serve.conftest import needs_fuse, private
from tests.support.child import PATIENCE, Child

from uzswap.agent.reads import ThreadedReads
from uzswap.client.directory import DirectoryRoot
from uzswap.client.root import Root

__all__ = ["private"]


@contextmanager
def hanging(path: Path) -> Iterator[None]:
    """Put a pipe without a writer in the place of a file: opening it to read waits until the block is over."""
    text = path.read_text()
    path.unlink()
    os.mkfifo(path)
    try:
        yield
    finally:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        path.unlink()
        path.write_text(text)
        os.close(fd)


@pytest.fixture
def reads() -> Iterator[ThreadedReads]:
    reads = ThreadedReads(DirectoryRoot, 0.2)
    yield reads
    reads.close()


def reading(path: Path) -> Callable[[Root], str]:
    return lambda root: root.read(str(path))


def test_each_job_has_its_result_or_its_error_in_order(reads: ThreadedReads, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    jobs = [reading(tmp_path / name) for name in ("a", "none", "a")]
    for _ in range(3):
        first, second, third = reads.all(jobs)
        assert (first, third) == ("1", "1")
        assert isinstance(second, FileNotFoundError)
    assert reads.all([]) == []


def test_one_that_hangs_is_left_alone_and_the_rest_goes_on(reads: ThreadedReads, tmp_path: Path) -> None:
    ran = []

    def read(name: str) -> Callable[[Root], str]:
        def job(root: Root) -> str:
            ran.append(name)
            return root.read(f"{tmp_path}/{name}")

        return job

    for name in "abc":
        (tmp_path / name).write_text(name)
    with hanging(tmp_path / "b"):
        before = set(threading.enumerate())
        first, second, third = reads.all([read(name) for name in "abc"])
        assert (first, third) == ("a", "c")
        assert isinstance(second, OSError)
        assert second.errno == errno.ETIMEDOUT
        assert len(set(threading.enumerate()) - before) == 2
    # What came back late does nothing more: each was done once.
    assert ran == ["a", "b", "c"]
    assert reads.all([read("a")]) == ["a"]


def test_where_everything_hangs_no_more_threads_are_begun_until_one_comes_back(
    reads: ThreadedReads, tmp_path: Path
) -> None:
    names = [f"{i}" for i in range(5)]
    for name in names:
        (tmp_path / name).write_text(name)
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(hanging(tmp_path / name))
        before = set(threading.enumerate())
        found = reads.all([reading(tmp_path / name) for name in names])
        assert [one.errno for one in found if isinstance(one, OSError)] == [errno.ETIMEDOUT] * 5
        assert len(set(threading.enumerate()) - before) == 2
        left = [thread for thread in threading.enumerate() if thread.name == "uzswap-reads"]
    for thread in left:
        thread.join(PATIENCE)
    assert reads.all([reading(tmp_path / "0")]) == ["0"]


def test_another_file_system_in_the_place_of_one_that_hangs_is_found(
    reads: ThreadedReads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        for name in "ab":
            (tmp_path / name).write_text(name)
            stack.enter_context(hanging(tmp_path / name))
        (tmp_path / "c").write_text("c")
        assert all(isinstance(one, OSError) for one in reads.all([reading(tmp_path / name) for name in "abc"]))
        assert isinstance(reads.all([reading(tmp_path / "c")])[0], OSError)
        monkeypatch.setattr("uzswap.agent.reads._AGAIN", 0.0)
        assert reads.all([reading(tmp_path / "c")]) == ["c"]


def test_a_mistake_of_ours_is_not_taken_for_one_of_the_root_s(reads: ThreadedReads) -> None:
    def wrong(root: Root) -> int:
        return 1 // 0

    with pytest.raises(ZeroDivisionError):
        reads.all([wrong])


def test_a_cgroup_whose_files_hang_holds_up_nobody_else(tmp_path: Path, reads: ThreadedReads) -> None:
    kernel = KernelTree(tmp_path)
    a = kernel.make("/a")
    kernel.make("/b")
    look = Looking(kernel.tree, "[default]\ntwostage.writeback = false\n", reads=reads)
    look.run(6)
    kernel.asked("/b")
    before = len(look.gates())
    with hanging(a / "memory.stat"):
        look.run(12, 3)
        assert [text for text in look.said if text.startswith("/a: it was not read within 0.2 s")]
        assert kernel.asked("/b")
        assert {one.cgroup for one in look.records.recent()[before:]} == {"/b"}
    kernel.asked("/a")
    look.run(30, 3)
    assert kernel.asked("/a")
    look.agent.close()


_ENGINE = """
    import sys
    from uzswap import Store, Zswap
    z = Zswap(swap=None)
    store = Store(z.cgroup("/jobs/a"))
    for i in range(100):
        store[i] = b"%d" % i * 100
    where = sys.argv[1]
    held = z.mount(where) if where.endswith("m") else z.serve(where)
    print("ready")
    input()
"""


@contextmanager
def awake(child: Child) -> Iterator[None]:
    """Have a child go on after a block: whoever has a request there cannot even be killed before."""
    try:
        yield
    finally:
        child.send_signal(signal.SIGCONT)


def until_said(process: subprocess.Popen[str], words: str) -> None:
    """Read what the agent says until it says something."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    pytest.fail(f"it ended before it said {words!r}")


@needs_fuse
@pytest.mark.slow
@pytest.mark.parametrize("door", ["m", "s"])
def test_an_engine_that_is_stopped_does_not_stop_the_agent(private: Path, tmp_path: Path, door: str) -> None:
    """SIGSTOP: a FUSE server, or a socket's, that does not answer, without an end of anything to see."""
    where = private / door
    with Child(_ENGINE, [str(where)]) as child, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        assert child.read_line() == "ready"
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        options = (
            "--root", str(where), "--state", str(tmp_path), "--set", "agent.watch=/jobs/*", "--set",
            "agent.deadline=200ms", "--set", "twostage.tick=50ms",
        )  # fmt: skip
        with started("agent", "run", *options, env=env) as process, awake(child):
            assert b"STATUS=1 cgroups" in manager.recv(1000)
            child.send_signal(signal.SIGSTOP)
            # It beats all the same.
            until_said(process, "cannot be read")
            for _ in range(20):
                assert b"WATCHDOG=1" in manager.recv(1000)
            child.send_signal(signal.SIGCONT)
            until_said(process, "is there again")
            child.send_signal(signal.SIGSTOP)
            for _ in range(20):
                manager.recv(1000)
            process.send_signal(signal.SIGTERM)
            while manager.recv(1000) != b"STOPPING=1":
                pass
        child.write_line("end")
        child.wait().check()
