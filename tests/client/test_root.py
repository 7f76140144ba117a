"""The seam: an engine's socket and a directory of control files, each as good as the other."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import EngineFactory
from tests.serve.conftest import needs_fuse
from tests.serve.doors import fails, pending
from tests.support.states import fill

from uzswap import MemCgroup, ReclaimInterrupted, Zswap
from uzswap.client import client, directory, over_socket
from uzswap.client.client import Client
from uzswap.client.directory import DirectoryRoot
from uzswap.client.over_socket import SocketRoot
from uzswap.client.root import Cgroup
from uzswap.errors import os_error
from uzswap.files.snapshot import take


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


@pytest.fixture(params=["socket", pytest.param("mount", marks=needs_fuse)])
def top(request: pytest.FixtureRequest, z: Zswap, private: Path) -> Iterator[Cgroup]:
    """The root cgroup through each kind of root."""
    if request.param == "socket":
        with z.serve(private / "s") as server, SocketRoot(str(server.path)) as root:
            yield Cgroup(root, "/cgroup", "/")
    else:
        with z.mount(private / "m") as mount:
            yield Cgroup(DirectoryRoot(), f"{mount.path}/cgroup", "/")


def test_every_read_is_anew(g: MemCgroup, top: Cgroup) -> None:
    there = top.child("g")
    for limit in (1 << 20, 2 << 20):
        g.write("memory.high", str(limit))
        assert there.read("memory.high") == f"{limit}\n"
    g.cgroup("below")
    assert [child.name for child in there.children()] == ["/g/below"]
    g.cgroup("below").remove()
    assert list(there.children()) == []


@pytest.mark.parametrize("within", [None, 60.0], ids=["", "within a minute"])
@pytest.mark.parametrize(
    ("file", "data", "code"),
    [
        ("memory.max", b"junk", errno.EINVAL),
        ("memory.reclaim", b"1G source=zswap", errno.EAGAIN),
        ("memory.stat", b"1", errno.EACCES),
        ("memory.none", b"1", errno.ENOENT),
        ("memory.oom.group", b"99999999999999999999", errno.ERANGE),
        ("memory.max", b" " * 4097, errno.E2BIG),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_the_errno_is_the_engine_s(
    g: MemCgroup, top: Cgroup, file: str, data: bytes, code: int, within: float | None
) -> None:
    with fails(code):
        top.child("g").write(file, data, within=within)


@pytest.mark.parametrize("within", [None, 60.0], ids=["", "within a minute"])
def test_a_write_arrives_whole(g: MemCgroup, top: Cgroup, within: float | None) -> None:
    top.child("g").write("memory.max", b"4M\n", within=within)
    assert g.read("memory.max") == f"{4 << 20}\n"


def test_a_cgroup_of_the_same_name_is_another_one(z: Zswap, g: MemCgroup, top: Cgroup) -> None:
    there = top.child("g")
    first = there.inode()
    assert first == there.inode() == next(name.inode for name in top.names() if name.name == "g")
    g.remove()
    with fails(errno.ENOENT):
        there.inode()
    z.cgroup("/g")
    assert there.inode() != first


def test_no_two_things_have_the_same_inode(g: MemCgroup, top: Cgroup) -> None:
    cgroups = [cgroup for _, cgroup in top.preorder()]
    inodes = [name.inode for cgroup in cgroups for name in cgroup.names()] + [top.inode()]
    assert len(set(inodes)) == len(inodes)


def test_a_write_that_takes_too_long_is_interrupted(z: Zswap, g: MemCgroup, top: Cgroup) -> None:
    """It ends between two batches; what was done until then stays done."""
    fill(z, g, 1000, 2000, referenced=False)
    z.trace = lambda event: pending()
    with fails(errno.EINTR):
        top.child("g").write("memory.reclaim", b"1G source=zswap", within=0.1)
    z.trace = None
    assert top.child("g").read("memory.max") == "max\n"


def test_an_interrupted_request_says_how_far_it_came(z: Zswap, g: MemCgroup, private: Path) -> None:
    fill(z, g, 1000, 2000, referenced=False)
    begun = threading.Event()

    def trace(event: object) -> None:
        begun.set()
        pending()

    class WhenBegun:
        """Comes when a batch is done."""

        @contextmanager
        def call(self, act: object) -> Iterator[None]:
            assert callable(act)
            thread = threading.Thread(target=lambda: (begun.wait(), act()))
            thread.start()
            yield
            thread.join()

    z.trace = trace
    with (
        z.serve(private / "s") as server,
        SocketRoot(str(server.path)) as root,
        pytest.raises(ReclaimInterrupted) as caught,
    ):
        root.write("/cgroup/g/memory.reclaim", b"1G source=zswap", interrupts=WhenBegun())
    z.trace = None
    assert caught.value.result.written > 0


def test_a_write_that_does_not_even_end_when_interrupted_is_left_alone(
    z: Zswap, g: MemCgroup, top: Cgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (client, directory, over_socket):
        monkeypatch.setattr(module, "PATIENCE", 0.1)
    fill(z, g, 1000, 2000, referenced=False)
    entered, let_go = threading.Event(), threading.Event()

    def trace(event: object) -> None:
        entered.set()
        let_go.wait()

    z.trace = trace
    try:
        with fails(errno.ETIMEDOUT):
            top.child("g").write("memory.reclaim", b"1G source=zswap", within=1.0)
    finally:
        let_go.set()
        z.trace = None


def test_an_engine_that_does_not_answer_is_not_waited_for(private: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mute:
        mute.bind(str(private / "s"))
        mute.listen()
        with SocketRoot(str(private / "s")) as root, fails(errno.ETIMEDOUT):
            root.write("/cgroup/memory.reclaim", b"1", within=0.1)


def test_all_is_told_at_once_and_the_same_through_each(z: Zswap, g: MemCgroup, top: Cgroup) -> None:
    g.cgroup("cgroup").cgroup("below")
    fill(z, g, 3, 1000)
    g.write("memory.max", "1M")
    root, where = top.root, top.path
    assert root.stat(where) == take(z.root).as_json()
    assert root.stat(f"{where}/g/cgroup") == take(g.cgroup("cgroup")).as_json()
    some = root.stat(f"{where}/g", ["memory.stat"])
    assert some is not None
    assert [one["memory.stat"]["zswap"] for one in some[:1]] == [3000]
    assert [one["inode"] for one in some] == [
        top.child(name).inode() for name in ("g", "g/cgroup", "g/cgroup/below")
    ]  # fmt: skip
    assert root.stat(f"{where}/nobody") is None
    assert root.files(where) == {name.name for name in top.names() if not name.is_directory}


@pytest.mark.parametrize("below", ["", "cgroup", "cgroup/a"])
def test_a_directory_that_is_no_engine_s_tells_nothing_at_once(tmp_path: Path, below: str) -> None:
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    assert DirectoryRoot().stat(f"{tmp_path}/{below}") is None
    for nonsense in ("", "{}", "[]", '{"cgroups": []}', "no json"):
        (tmp_path / "uzswap.stat").write_text(nonsense)
        assert DirectoryRoot().stat(f"{tmp_path}/{below}") is None


def test_a_write_and_what_is_read_then(z: Zswap, g: MemCgroup, top: Cgroup) -> None:
    fill(z, g, 10, 1000, referenced=False)
    root, there = top.root, f"{top.path}/g"
    failed, text = root.act(there, "memory.reclaim", b"3000 source=zswap", "memory.stat", within=60.0)
    assert failed is None
    assert text == g.read("memory.stat")
    assert "\nzswpwb_proactive_b 3000\n" in text
    failed, text = root.act(there, "memory.reclaim", b"1G source=zswap", "uzswap.last_reclaim", within=60.0)
    assert failed is not None
    assert failed.errno == errno.EAGAIN
    assert text == g.read("uzswap.last_reclaim")
    failed, text = root.act(there, "memory.max", b"many", "memory.max", within=60.0)
    assert failed is not None
    assert (failed.errno, text) == (errno.EINVAL, "max\n")
    failed, text = root.act(f"{top.path}/nobody", "memory.max", b"1M", "memory.max", within=60.0)
    assert failed is not None
    assert (failed.errno, text) == (errno.ENOENT, None)


def test_it_is_interrupted_in_time_and_the_rest_is_read(z: Zswap, g: MemCgroup, top: Cgroup) -> None:
    fill(z, g, 1000, 2000, referenced=False)
    z.trace = lambda event: pending()
    failed, text = top.root.act(f"{top.path}/g", "memory.reclaim", b"1G source=zswap", "memory.stat", within=0.1)
    z.trace = None
    assert failed is not None
    assert failed.errno == errno.EINTR
    assert text == g.read("memory.stat")
    assert "\nzswpwb_proactive_b 0\n" not in text


def test_over_a_socket_it_is_one_request(
    z: Zswap, g: MemCgroup, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And several with an engine that does not know it; one that does not even end is left alone."""
    asked: list[str] = []
    request = Client._request

    def counting(self: Client, method: str, path: str, *rest: Any, **more: Any) -> Any:
        asked.append(method)
        if method == "POST" and "open" not in more["query"] and refuses:
            raise os_error(errno.EOPNOTSUPP, "POST opens a file: say ?open, or write to it with PUT", path)
        return request(self, method, path, *rest, **more)

    refuses = False
    monkeypatch.setattr(Client, "_request", counting)
    fill(z, g, 10, 1000, referenced=False)
    with z.serve(private / "s") as server, SocketRoot(str(server.path)) as root:

        def act(within: float) -> tuple[OSError | None, str | None]:
            return root.act("/cgroup/g", "memory.reclaim", b"1000 source=zswap", "memory.stat", within=within)

        assert act(60.0) == (None, g.read("memory.stat"))
        assert asked == ["POST"]
        entered, let_go = threading.Event(), threading.Event()

        def trace(event: object) -> None:
            entered.set()
            let_go.wait()

        monkeypatch.setattr(client, "PATIENCE", 0.1)
        z.trace = trace
        try:
            failed, text = act(0.1)
        finally:
            let_go.set()
            z.trace = None
        assert failed is not None
        assert (failed.errno, text) == (errno.ETIMEDOUT, None)
        refuses = True
        asked.clear()
        assert act(60.0) == (None, g.read("memory.stat"))
        assert asked == ["POST", "POST", "PUT", "DELETE", "GET"]
        asked.clear()
        assert act(60.0) == (None, g.read("memory.stat"))
        assert asked == ["POST", "PUT", "DELETE", "GET"]
