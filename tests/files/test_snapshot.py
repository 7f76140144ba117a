"""A snapshot tells what the files tell, of every cgroup, and of one moment."""

from __future__ import annotations

import errno
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.conftest import EngineFactory
from tests.support.states import fill, reclaim

from uzswap import MemCgroup, ReclaimError, Zswap
from uzswap.cgroup.stat import EVENTS
from uzswap.cli.stat import Value, parse_file
from uzswap.core.boundary.engine import Engine
from uzswap.core.boundary.snapshot import COLUMNS, ages, snapshot
from uzswap.files.cgroup import FILES, inode_of
from uzswap.files.snapshot import take


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


def without_nothing(value: Value) -> Value:
    """Leave out what is 0."""
    if isinstance(value, dict):
        kept = {key: without_nothing(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one not in (0, {})}
    return value


def told_by_files(cgroup: MemCgroup) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, row in FILES.items():
        if row.reader is None or (cgroup.parent is None and not row.on_root):
            continue
        value = without_nothing(parse_file(cgroup.read(name)))
        if row.shape == "limit" and value == ("max" if name not in ("memory.min", "memory.low") else 0):
            continue
        if row.shape in ("word", "list") or value in ({}, ""):
            continue
        if value == 0 and row.shape != "limit" and name != "memory.current":
            continue
        found[name] = value
    if found.get("memory.zswap.writeback") == 1:
        del found["memory.zswap.writeback"]
    else:
        found["memory.zswap.writeback"] = 0
    return found


def busy_tree(z: Zswap) -> list[MemCgroup]:
    """A tree with something of everything."""
    cgroups = [z.cgroup(path) for path in ("/a", "/a/b", "/a/b/c", "/a/d", "/e")]
    for n, cgroup in enumerate(cgroups):
        cgroup.write("memory.max", f"{100 + n}M")
        handles = fill(z, cgroup, 10 + n, 1000, referenced=False)
        reclaim(cgroup, 2000)
        z.fault_in_many(handles[:3])
    cgroups[1].write("memory.low", "1M")
    cgroups[2].write("memory.zswap.writeback", "0")
    cgroups[3].write("memory.oom.group", "1")
    cgroups[4].write("memory.swap.max", "0")
    z.swap_out_many(np.arange(512), cgroups[4])  # refused, which is an event
    with pytest.raises(ReclaimError):
        cgroups[0].reclaim("1G", source="zswap")
    with cgroups[0].pressure.stall():
        pass
    return cgroups


def test_it_tells_what_the_files_tell(z: Zswap) -> None:
    cgroups = [z.root, *busy_tree(z)]
    told = take(z.tree.root).as_json()
    assert [one.pop("cgroup") for one in told] == [cgroup.path for cgroup in cgroups]
    assert [one.pop("inode") for one in told] == [inode_of(cgroup) for cgroup in cgroups]
    for cgroup, one in zip(cgroups, told, strict=True):
        expected = told_by_files(cgroup)
        # Told although they are 0, since they were something once; averages move with time.
        for levels in ("memory.swap.current", "memory.zswap.current", "uzswap.disk", "uzswap.resident.current"):
            assert one.pop(levels, 0) == expected.pop(levels, 0), levels
        told_pressure, pressure = one.pop("memory.pressure", {}), expected.pop("memory.pressure", {})
        assert _totals(told_pressure) == _totals(pressure)
        expected.pop("memory.numa_stat", None)  # of one node: memory.stat
        if expected.get("cgroup.stat") == {"nr_subsys_memory": 1}:
            del expected["cgroup.stat"]
        assert one == expected, cgroup.path


def test_of_some_files_alone(z: Zswap) -> None:
    busy_tree(z)
    found = take(z.tree.root)
    names = ["memory.stat", "memory.max"]
    whole = found.as_json()
    assert found.as_json(names) == [
        {key: value for key, value in one.items() if key in ("cgroup", "inode", *names)} for one in whole
    ]
    with pytest.raises(OSError, match="no file") as caught:
        found.as_json(["memory.stats"])
    assert caught.value.errno == errno.EINVAL
    assert json.loads(found.as_text()) == {"time": found.wall, "cgroups": whole}


def _totals(pressure: Any) -> dict[str, int]:
    return {state: numbers["total"] for state, numbers in pressure.items() if "total" in numbers}


def test_of_a_subtree_and_of_one(z: Zswap) -> None:
    busy_tree(z)
    a = z.cgroup("/a")
    assert [cgroup.path for cgroup in take(a).cgroups] == ["/a", "/a/b", "/a/b/c", "/a/d"]
    alone = take(a, recursive=False)
    assert [cgroup.path for cgroup in alone.cgroups] == ["/a"]
    assert alone.as_json()[0]["cgroup.stat"] == {"nr_descendants": 3, "nr_subsys_memory": 4}


def test_several_nodes(engine: EngineFactory) -> None:
    z = engine(nodes=3)
    a, b = z.cgroup("/a"), z.cgroup("/a/b")
    for node, cgroup in enumerate((a, b, b)):
        z.swap_out_many(np.arange(512 * (node + 1)), cgroup, node=node)
    (told, _) = take(a).as_json()
    assert told["memory.numa_stat"] == {
        node: {"uzswap.zswap_entries": entries} for node, entries in (("0", 1), ("1", 2), ("2", 3))
    }


def test_removed_meanwhile(z: Zswap) -> None:
    gone, there = z.cgroup("/gone"), z.cgroup("/there")
    indexes = np.array([gone.index, there.index, 60_000], np.uint32)
    gone.remove()
    counted = snapshot(z.core, indexes)
    assert counted.shape == (3, len(COLUMNS))
    assert (counted[0] == -1).all()
    assert (counted[2] == -1).all()
    assert counted[1, COLUMNS.index("memory.zswap.writeback")] == 1
    with pytest.raises(OSError, match="removed") as caught:
        take(gone)
    assert caught.value.errno == errno.ENODEV


def test_events_have_their_columns(z: Zswap) -> None:
    busy_tree(z)
    found = take(z.tree.root)
    for position, name in enumerate(EVENTS):
        assert found.events[:, position].tolist() == [cgroup.events[name] for cgroup in found.cgroups]
        assert found.local_events[:, position].tolist() == [cgroup.local_events[name] for cgroup in found.cgroups]


SECOND = 1_000_000_000


def test_ages_are_what_min_age_takes(z: Zswap) -> None:
    """The sum from an age on is what a request with that min_age writes, to the byte."""
    a, b = z.cgroup("/a"), z.cgroup("/a/b")
    bounds = np.array([0, 10, 20, 30], np.int64) * SECOND
    fill(z, a, 4, 1000, referenced=False)
    z.core.advance(10 * SECOND)
    fill(z, b, 3, 500, referenced=False)
    z.core.advance(15 * SECOND)
    fill(z, a, 2, 300, referenced=False)
    found = ages(z.core, np.array([a.index, b.index], np.uint32), bounds)
    assert found[0].tolist() == [[600, 0, 4000, 0], [0, 1500, 0, 0]]
    assert found[1].tolist() == [[2, 0, 4, 0], [0, 3, 0, 0]]
    assert a.reclaim("4000", source="zswap", min_age=20).written == 4000
    with pytest.raises(ReclaimError):
        a.reclaim("1", source="zswap", min_age=20)
    found = ages(z.core, np.array([a.index, b.index], np.uint32), bounds)
    assert found[0].tolist() == [[600, 0, 0, 0], [0, 1500, 0, 0]]


def test_ages_of_what_went_to_the_parent(z: Zswap) -> None:
    a, b = z.cgroup("/a"), z.cgroup("/a/b")
    fill(z, b, 3, 500)
    b.remove()
    assert ages(z.core, np.array([a.index], np.uint32), np.array([0], np.int64)).ravel().tolist() == [1500, 3]


def test_nobody_is_asked_for_nothing(z: Zswap) -> None:
    nobody = np.array([], np.uint32)
    assert snapshot(z.core, nobody).shape == (0, len(COLUMNS))
    assert ages(z.core, nobody, np.array([0], np.int64)).shape == (2, 0, 1)


def test_its_root_is_removed_meanwhile(z: Zswap, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, and not an empty answer."""
    gone = z.cgroup("/gone")

    def removing(engine: Engine, memcgs: NDArray[np.uint32]) -> NDArray[np.int64]:
        gone.remove()
        return snapshot(engine, memcgs)

    monkeypatch.setattr("uzswap.files.snapshot.snapshot", removing)
    with pytest.raises(OSError, match="removed") as caught:
        take(gone)
    assert caught.value.errno == errno.ENODEV
