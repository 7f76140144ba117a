"""Cgroups that are told of all at once, and file by file: the same is seen."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.agent.trees import KernelTree, Looking
from tests.conftest import EngineFactory
from tests.serve.conftest import needs_fuse, private
from tests.support.front_end import FrontEnd
from tests.support.states import fill

from uzswap import REFUSED, MemCgroup, ReclaimError, Zswap
from uzswap.agent.observe import TOLD, Reader, number_of, numbers, stall_of
from uzswap.agent.policies import POLICIES
from uzswap.agent.policies.policy import MEMORY, Stall
from uzswap.agent.probes import probe
from uzswap.agent.reads import InlineReads
from uzswap.agent.sight import Sight
from uzswap.agent.tree import Machine, Tree, open_tree
from uzswap.client.client import Client
from uzswap.client.directory import DirectoryRoot
from uzswap.client.over_socket import SocketRoot
from uzswap.client.root import Root

__all__ = ["private"]

WANTS = frozenset().union(*(policy.WANTS for policy in POLICIES.values()))
MACHINE = Machine(ram=1 << 34, swap_total=1 << 30, swap_free=1 << 29, pool=1 << 20, pool_max=1 << 30, zswap=True)


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


@contextmanager
def served(z: Zswap, private: Path, door: str) -> Iterator[Tree]:
    """The engine's tree through a socket or a mount."""
    opened: Any = z.serve(private / "s") if door == "socket" else z.mount(private / "m")
    with opened as one:
        tree = open_tree(str(one.path))
        with tree.root:
            yield tree


@pytest.fixture(params=["socket", pytest.param("mount", marks=needs_fuse)])
def tree(request: pytest.FixtureRequest, z: Zswap, private: Path) -> Iterator[Tree]:
    with served(z, private, request.param) as tree:
        yield tree


def assert_both_ways(tree: Tree, paths: list[str]) -> None:
    """Compare the observations, field by field."""
    told = tree.root.stat(tree.top, TOLD)
    assert told is not None
    by_path = {one["cgroup"]: one for one in told}
    for path in paths:
        reader = Reader(tree.cgroup(path).path, probe(tree, tree.cgroup(path), MACHINE), WANTS)
        assert reader.is_told()
        by_file = reader.observation(reader.read(tree.root, 0.0), 0.0, MACHINE, 1 << 20, False, ())
        at_once = reader.observation(reader.of_told(by_path[path]), 0.0, MACHINE, 1 << 20, False, ())
        for name in by_file.__slots__:
            assert getattr(at_once, name) == getattr(by_file, name), (path, name)
        assert by_path[path]["inode"] == tree.cgroup(path).inode()


def test_both_ways_of_reading_see_the_same(z: Zswap, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroups = [z.cgroup(path) for path in ("/a", "/a/b", "/idle", "/full")]
    for n, cgroup in enumerate(cgroups[:2]):
        handles = fill(z, cgroup, 10 + n, 1000, referenced=False)
        cgroup.reclaim("3000", source="zswap")
        z.fault_in_many(handles[:3])
    front_end = FrontEnd(cgroups[1], 5 * 4096)
    with pytest.raises(ReclaimError):
        cgroups[0].reclaim("1G", source="zswap")
    cgroups[0].write("memory.min", "1M")
    cgroups[1].write("memory.zswap.writeback", "0")
    cgroups[1].write("memory.swap.max", "64M")
    cgroups[3].write("memory.swap.max", "0")
    z.swap_out_many(np.arange(512), cgroups[3])
    with cgroups[0].pressure.stall():
        pass
    now = cgroups[0].pressure.monitor.clock()
    monkeypatch.setattr(cgroups[0].pressure.monitor, "clock", lambda: now)  # averages move with time
    assert_both_ways(tree, [cgroup.path for cgroup in (z.root, *cgroups)])
    front_end.close()


@st.composite
def acts(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """What happens to a cgroup."""
    one = st.one_of(
        st.tuples(st.just("fill"), st.integers(1, 20)),
        st.tuples(st.just("write back"), st.integers(1, 20_000)),
        st.tuples(st.just("load"), st.integers(1, 5)),
        st.tuples(st.just("memory.min"), st.sampled_from(["0", "4096", "1G"])),
        st.tuples(st.just("memory.swap.max"), st.sampled_from(["max", "0", "8192", "1G"])),
        st.tuples(st.just("memory.zswap.writeback"), st.sampled_from(["0", "1"])),
    )
    return draw(st.lists(one, max_size=6))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(each=st.lists(acts(), min_size=1, max_size=3))
def test_whatever_has_happened_both_ways_see_the_same(
    z: Zswap, private: Path, each: list[list[tuple[str, Any]]]
) -> None:
    cgroups: list[MemCgroup] = []
    with served(z, private, "socket") as tree:
        for n, happened in enumerate(each):
            cgroups.append(z.cgroup(f"/jobs/{n}"))
            handles = np.array([], np.uint64)
            for what, value in happened:
                if what == "fill":
                    pages = np.random.default_rng(value).integers(0, 9, (value, 4096), dtype=np.uint8)
                    handles = z.swap_out_many(pages.reshape(-1), cgroups[-1], page=4096)
                    handles = handles[handles != REFUSED]
                elif what == "load":
                    z.fault_in_many(handles[:value])
                    handles = handles[value:]
                elif what == "write back":
                    try:
                        cgroups[-1].reclaim(value, source="zswap")
                    except OSError as error:
                        assert error.errno in (errno.EAGAIN, errno.EINVAL)
                else:
                    cgroups[-1].write(what, value)
        assert_both_ways(tree, ["/", "/jobs", *(cgroup.path for cgroup in cgroups)])
    for cgroup in reversed(cgroups):
        cgroup.remove()


@settings(max_examples=30)
@given(
    averages=st.lists(st.integers(0, 10_000), min_size=3, max_size=3),
    total=st.integers(0, 1 << 63),
    values=st.dictionaries(st.from_regex(r"[a-z_]{1,20}", fullmatch=True), st.integers(0, 1 << 63), min_size=2),
)
def test_texts_are_read_as_they_are_written(averages: list[int], total: int, values: dict[str, int]) -> None:
    ten, sixty, three_hundred = (f"{average / 100:.2f}" for average in averages)
    line = f"avg10={ten} avg60={sixty} avg300={three_hundred} total={total}\n"
    assert stall_of(f"some {line}full {line}") == Stall(float(ten), float(sixty), total)
    text = "".join(f"{key} {value}\n" for key, value in values.items())
    assert {key: int(value) for key, value in numbers(text).items()} == values
    for key in [*values][1:]:
        assert number_of(text, key) == values[key]


class Directories(Root):
    """A root of directories alone."""

    def __init__(self, paths: set[str]) -> None:
        self._paths = paths

    def inode(self, path: str) -> int:
        return hash(path)

    def directories(self, path: str) -> list[tuple[str, int]]:
        below = path.rstrip("/") + "/"
        return [
            (one[len(below) :], hash(one))
            for one in sorted(self._paths)
            if one.startswith(below) and "/" not in one[len(below) :] and one != below
        ]


NAMES = st.sampled_from(["a", "b", "ab", "a.b", "x\ny"])
PARTS = st.one_of(NAMES, st.sampled_from(["*", "**", "a*", "?", "*b", "a**"]))


@settings(max_examples=60)
@given(
    leaves=st.lists(st.lists(NAMES, min_size=1, max_size=4)),
    patterns=st.lists(st.lists(PARTS, max_size=4).map("/".join), min_size=1, max_size=3),
)
def test_who_is_looked_for_is_found_among_all_as_in_directories(leaves: list[list[str]], patterns: list[str]) -> None:
    paths = {"/".join(["", *leaf[:n]]) for leaf in leaves for n in range(1, len(leaf) + 1)}
    tree = Tree(Directories(paths), "", "", "", "", engine=True)
    everyone = [("/", hash("/")), *((path, hash(path)) for path in paths)]
    found = tree.find(patterns)
    assert tree.among(patterns, everyone) == found
    above = tree.common(patterns)
    assert all(f"{path.rstrip('/')}/".startswith(f"{above.rstrip('/')}/") for path, _ in found)


def count(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have all that is asked of an engine noted."""
    asked: list[str] = []
    request, read = Client._request, DirectoryRoot.read

    def requesting(self: Client, method: str, path: str, *rest: Any, **more: Any) -> Any:
        asked.append(f"{method} {path}")
        return request(self, method, path, *rest, **more)

    def reading(self: DirectoryRoot, path: str) -> str:
        asked.append(f"GET {path}")
        return read(self, path)

    monkeypatch.setattr(Client, "_request", requesting)
    monkeypatch.setattr(DirectoryRoot, "read", reading)
    return asked


def test_one_request_a_tick_however_many_cgroups(z: Zswap, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [z.cgroup(f"/jobs/{i}") for i in range(20)]
    handles = [fill(z, group, 2, 1000) for group in groups]
    look = Looking(tree, '[agent]\nwatch = ["/jobs/*"]\n', dry_run=True)
    look.agent.round()
    asked = count(monkeypatch)
    look.run(60)
    told = [one for one in asked if one.endswith(("/v1/stat", "/uzswap.stat"))]
    assert len(told) == 10
    # The rest is the machine, at each look; no file of a cgroup.
    assert {one.rpartition("/")[2] for one in asked} - {"stat", "uzswap.stat"} == {
        "meminfo", "max_pool_percent", "enabled",
    }  # fmt: skip
    assert {record.cgroup for record in look.records.recent()} == {group.path for group in groups}
    for some in handles:
        z.free_many(some)


@pytest.mark.parametrize("tells", ["nothing", "no inode"])
def test_an_older_engine_is_read_file_by_file(
    z: Zswap, private: Path, monkeypatch: pytest.MonkeyPatch, tells: str
) -> None:
    group = z.cgroup("/jobs/a")
    front_end = FrontEnd(group, 1 << 20)
    stat = SocketRoot.stat

    def older(self: SocketRoot, path: str, files: object = None) -> list[dict[str, Any]] | None:
        told = stat(self, path) if tells == "no inode" else None
        return told and [{key: value for key, value in one.items() if key != "inode"} for one in told]

    monkeypatch.setattr(SocketRoot, "stat", older)
    with served(z, private, "socket") as tree:
        look = Looking(tree, '[agent]\nwatch = ["/jobs/*"]\n[default]\ntwostage.worth = 0\n')
        asked = count(monkeypatch)
        look.run(12)
        assert "GET /cgroup/jobs/a/memory.stat" in asked
        assert look.gates(MEMORY)[0] == "open"
        # Another one, that tells of all at once, is found out at the next look.
        monkeypatch.setattr(SocketRoot, "stat", stat)
        look.run(6)
        asked.clear()
        look.run(12)
        assert "GET /v1/stat" in asked
        assert "GET /cgroup/jobs/a/memory.pressure" not in asked
    front_end.close()


def test_a_cgroup_that_another_one_took_the_place_of_is_gone(z: Zswap, tree: Tree) -> None:
    first = z.cgroup("/jobs/a")
    sight = Sight(tree, InlineReads(tree.root), ["/jobs/*"])
    world = sight.world(0.0)
    assert not isinstance(world, OSError)
    assert sight.at_once
    ((path, inode),) = world.cgroups
    reader = Reader(tree.cgroup(path).path, probe(tree, tree.cgroup(path), MACHINE))
    (there,) = sight.readings([(path, inode, reader)], 0.0)
    assert not isinstance(there, OSError)
    first.remove()
    (gone,) = sight.readings([(path, inode, reader)], 6.0)
    assert isinstance(gone, OSError)
    assert gone.errno == errno.ENOENT
    z.cgroup("/jobs/a")
    (another,) = sight.readings([(path, inode, reader)], 12.0)
    assert isinstance(another, OSError)
    assert another.errno == errno.ENOENT


def test_where_it_goes_away_every_cgroup_is_told(z: Zswap, private: Path) -> None:
    z.cgroup("/jobs/a")
    with served(z, private, "socket") as tree:
        sight = Sight(tree, InlineReads(tree.root), ["/jobs/*"])
        world = sight.world(0.0)
        assert not isinstance(world, OSError)
        reader = Reader("/cgroup/jobs/a", probe(tree, tree.cgroup("/jobs/a"), MACHINE))
    told = sight.readings([(*world.cgroups[0], reader)] * 2, 6.0)
    assert [isinstance(one, OSError) for one in told] == [True, True]
    assert isinstance(sight.world(12.0), OSError)


def test_a_kernel_is_read_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = KernelTree(tmp_path)
    kernel.make("/a")
    (tmp_path / "uzswap.stat").write_text('{"cgroups": [{"cgroup": "/a", "inode": 1}]}')  # nobody asks for it
    sight = Sight(kernel.tree, InlineReads(kernel.tree.root), ["/*"])
    asked = count(monkeypatch)
    world = sight.world(0.0)
    assert not isinstance(world, OSError)
    assert not sight.at_once
    assert [path for path, _ in world.cgroups] == ["/a"]
    assert not [one for one in asked if one.endswith("uzswap.stat")]


def test_farmem_says_once_what_an_engine_has_not(z: Zswap, tree: Tree) -> None:
    """Its uzswap.writeback_age, and /v1/ages, are ages in the pool: of what has left memory already."""
    for name in ("a", "b"):
        z.cgroup(f"/jobs/{name}")
    look = Looking(tree, '[agent]\nwatch = ["/jobs/*"]\n[default]\npolicy = "farmem"\n')
    look.run(130)
    (said,) = [text for text in look.said if "farmem" in text]
    assert "\n" not in said
    assert "uzswap.cold_age" in said
    assert set(look.gates()) == {"no ages"}
