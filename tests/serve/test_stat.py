"""One request for what a whole subtree tells; who looks at many cgroups makes one a turn."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from tests.conftest import EngineFactory
from tests.serve.doors import fails
from tests.support.states import fill

from uzswap import MemCgroup, ReclaimError, Zswap
from uzswap.cli.main import run
from uzswap.cli.top import Looks
from uzswap.client.client import Client
from uzswap.client.over_socket import SocketRoot
from uzswap.client.root import Cgroup
from uzswap.files.snapshot import take


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


@pytest.fixture
def tree(z: Zswap) -> list[MemCgroup]:
    cgroups = [z.cgroup(path) for path in ("/jobs", "/jobs/a", "/jobs/a/deep", "/jobs/b", "/other")]
    for cgroup in cgroups:
        fill(z, cgroup, 5, 1000)
    cgroups[1].write("memory.max", "1M")
    return cgroups


def test_of_one_and_of_all_below(z: Zswap, tree: list[MemCgroup], private: Path) -> None:
    with z.serve(private / "s") as server, Client(server.path) as client:
        assert client.stat("/jobs/a") == take(tree[1], recursive=False).as_json()
        told = client.stat("/jobs", recursive=True)
        assert told == take(tree[0]).as_json()
        assert [one["cgroup"] for one in told] == ["/jobs", "/jobs/a", "/jobs/a/deep", "/jobs/b"]
        assert told[1]["memory.max"] == 1 << 20
        assert len(client.stat(recursive=True)) == 6


def test_wrong_requests(z: Zswap, private: Path) -> None:
    with z.serve(private / "s") as server, Client(server.path) as client:
        with fails(errno.ENOENT):
            client.stat("/nobody")
        for query in ({"recursive": "2"}, {"recursive": ""}):
            with fails(errno.EINVAL):
                client._request("GET", "/v1/stat", query=query)
        for query in ({"files": ""}, {"files": "memory.stat,memory.stats"}):
            with fails(errno.EINVAL):
                client._request("GET", "/v1/stat", query=query)
        for query in ({"buckets": "few"}, {"zeros": "yes"}):
            with fails(errno.EINVAL):
                client._request("GET", "/metrics", query=query)


def test_of_some_files(z: Zswap, tree: list[MemCgroup], private: Path) -> None:
    with z.serve(private / "s") as server, Client(server.path) as client:
        names = ["memory.stat", "memory.max"]
        assert client.stat("/jobs", recursive=True, files=names) == take(tree[0]).as_json(names)


def test_a_file_has_the_same(z: Zswap, tree: list[MemCgroup], private: Path) -> None:
    """For who has a mount; and what it says is read in a thread, since of thousands of cgroups it takes a while."""
    with z.serve(private / "s") as server, Client(server.path) as client:
        text = client.read("/uzswap.stat")
        assert json.loads(text)["cgroups"] == client.stat(recursive=True)
        with fails(errno.EACCES):
            client.write("/uzswap.stat", "1")


def test_a_write_that_is_told_how_long_it_may_take(z: Zswap, tree: list[MemCgroup], private: Path) -> None:
    with z.serve(private / "s") as server, Client(server.path) as client:
        path = "/cgroup/jobs/b/memory.max"
        for query in ({"within": "long"}, {"within": "-1"}, {"within": "1e9"}):
            with fails(errno.EINVAL):
                client._request("POST", path, b"1M", query=query)
        for then in ("nothing", "../nobody/memory.stat"):
            with fails(errno.ENOENT):
                client._request("POST", path, b"1M", query={"within": "1", "then": then})
        with fails(errno.EISDIR):
            client._request("POST", path, b"1M", query={"within": "1", "then": "."})
        assert client.read(path) == "max\n"
        assert client.act(path, b"1M", "memory.max", 60.0) == (None, "1048576\n")
        failed, text = client.act("/cgroup/jobs/b/memory.reclaim", b"1G source=zswap", "uzswap.disk", 60.0)
        assert isinstance(failed, ReclaimError)
        assert failed.errno == errno.EAGAIN
        assert text == f"{failed.result.written}\n"


def test_a_cgroup_that_goes_while_it_is_written_to(z: Zswap, tree: list[MemCgroup], private: Path) -> None:
    z.trace = lambda event: tree[3].remove() if tree[3].online else None
    with z.serve(private / "s") as server, Client(server.path) as client:
        _, text = client.act("/cgroup/jobs/b/memory.reclaim", b"1G source=zswap", "memory.stat", 60.0)
    z.trace = None
    assert text is None


def test_a_name_that_is_no_text(z: Zswap, private: Path) -> None:
    z.tree.mkdir(z.root, "\udcff&=")
    with z.serve(private / "s") as server, Client(server.path) as client:
        assert [one["cgroup"] for one in client.stat("/\udcff&=")] == ["/\udcff&="]


def test_top_makes_one_request_a_turn(
    z: Zswap, tree: list[MemCgroup], private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    request = Client._request

    def counting(self: Client, method: str, path: str, *rest: object, **more: object) -> object:
        asked.append(f"{method} {path}")
        return request(self, method, path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "_request", counting)
    with z.serve(private / "s") as server, SocketRoot(str(server.path)) as root:
        rows = Looks([Cgroup(root, "/cgroup", "/")], None).look()
        assert asked == ["GET /v1/stat"]
        assert [row.cgroup.path for row in rows] == ["/cgroup", *(f"/cgroup{cgroup.path}" for cgroup in tree)]
        assert [row.now.zswap for row in rows] == [25_000, 20_000, 10_000, 5_000, 5_000, 5_000]
        jobs = Cgroup(root, "/cgroup/jobs", "/jobs")
        assert [row.now.cgroup for row in Looks([jobs], 1).look()] == ["/jobs", "/jobs/a", "/jobs/b"]
        assert [row.now.cgroup for row in Looks([jobs], 0).look()] == ["/jobs"]
        with fails(errno.ENOENT):
            Looks([Cgroup(root, "/cgroup/nobody", "/nobody")], None).look()


@pytest.mark.parametrize("everything", [False, True])
def test_stat_recursive(
    z: Zswap, tree: list[MemCgroup], private: Path, capsys: pytest.CaptureFixture[str], everything: bool
) -> None:
    with z.serve(private / "s"):
        options = ["--all"] if everything else []
        assert run(["stat", "--recursive", "--json", *options, "/jobs"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [one["cgroup"] for one in told] == ["/jobs", "/jobs/a", "/jobs/a/deep", "/jobs/b"]
        assert [one["memory.stat"]["zswap"] for one in told] == [20_000, 10_000, 5_000, 5_000]
        assert ("slab" in told[0]["memory.stat"]) is everything
        assert run(["stat", "--recursive", *options, "/jobs"]) == 0
        text = capsys.readouterr().out
        assert "/jobs/a/deep\n" in text.replace(" ", "")
        assert "memory.max" in text
