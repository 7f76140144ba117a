"""SPEC 8, groups A, E, F and H, through Python, the mount and the socket: the same tests, the same outcomes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tests.cgroup.front_end import FrontEnd
from tests.conftest import EngineFactory
from tests.control.doors import Door
from tests.support.states import OK, debug_delta, fill, left, stats
from uzswap import MemCgroup, TraceEvent, Zswap
from uzswap.cgroup.files import ENGINE_FILES, FILES

EAGAIN, EINTR, EINVAL = errno.EAGAIN, errno.EINTR, errno.EINVAL
Enter = Callable[[Zswap], Door]
FRESH, UNREFERENCED = True, False
LIMITS = [name for name, row in FILES.items() if row.kind == "limit"]


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine(walk="v5")


@pytest.fixture
def door(z: Zswap, enter: Enter) -> Door:
    return enter(z)


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


def fails(code: int) -> Any:
    return pytest.raises(OSError, match=rf"\[Errno {code}\]")


def attempt(door: Door, path: str, data: str | bytes) -> int:
    """Write; 0 or the errno."""
    try:
        assert door.write(path, data) == len(data)
    except OSError as error:
        return error.errno or OK
    return OK


def stat(door: Door, path: str, key: str) -> int:
    lines = dict(line.split(" ") for line in door.read(f"/cgroup{path}/memory.stat").splitlines())
    return int(lines[key])


def reclaim(door: Door, path: str, nbytes: int | str) -> tuple[int, int]:
    """0 or the errno, and the rise of zswpwb_proactive_b, both seen through the door."""
    before = stat(door, path, "zswpwb_proactive_b")
    number = attempt(door, f"/cgroup{path}/memory.reclaim", f"{nbytes} source=zswap")
    return number, stat(door, path, "zswpwb_proactive_b") - before


# A


def test_A1_zero_length(door: Door, g: MemCgroup) -> None:
    assert door.write("/cgroup/g/memory.reclaim", "") == 0


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\n", id="A2"),
        pytest.param("-1 source=zswap", id="A7"),
        pytest.param("1 source=zswap swappiness=10", id="A8"),
        pytest.param("1 swappiness=10 source=zswap", id="A8-reversed"),
        pytest.param("1 source=", id="A9"),
        pytest.param("1 source=zswapzswapzswapz", id="A11"),
        pytest.param("1 source=zswap\tx", id="A13"),
        pytest.param("source=zswap 1", id="A14"),
        pytest.param("0 swappiness=201", id="A16"),
        pytest.param("08", id="A19"),
        pytest.param(b"\xff\xfe", id="no-text"),
    ],
)
def test_A_einval(door: Door, g: MemCgroup, text: str | bytes) -> None:
    for path in ("/cgroup/g/memory.reclaim", "/cgroup/memory.reclaim"):
        assert attempt(door, path, text) == EINVAL


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("K source=zswap", id="A3"),
        pytest.param("0 source=zswap", id="A4"),
        pytest.param("010", id="A19"),
        pytest.param(b"0 source=zswap\0 nonsense", id="NUL"),
    ],
)
def test_A_accepted(door: Door, g: MemCgroup, text: str | bytes) -> None:
    for path in ("/cgroup/g/memory.reclaim", "/cgroup/memory.reclaim"):
        assert attempt(door, path, text) == OK


def test_A4_own_writeback_0(door: Door, g: MemCgroup) -> None:
    door.write("/cgroup/g/memory.zswap.writeback", "0")
    assert attempt(door, "/cgroup/g/memory.reclaim", "0 source=zswap") == EINVAL


def test_A6_empty_pool(door: Door, g: MemCgroup) -> None:
    assert attempt(door, "/cgroup/g/memory.reclaim", "1 source=zswap") == EAGAIN


@pytest.mark.parametrize("length", [4097, 4098, 200_000])
def test_A20_more_than_4096_bytes(door: Door, g: MemCgroup, length: int) -> None:
    assert attempt(door, "/cgroup/g/memory.reclaim", "0".rjust(4096)) == OK
    assert attempt(door, "/cgroup/g/memory.reclaim", "0".rjust(length)) == errno.E2BIG


def test_A23_removed_while_open(door: Door, g: MemCgroup) -> None:
    with closing(door.open("/cgroup/g/memory.reclaim")) as file:
        door.rmdir("/cgroup/g")
        door.mkdir("/cgroup/g")
        with fails(errno.ENODEV):
            file.write("0 source=zswap")
    assert attempt(door, "/cgroup/g/memory.reclaim", "0 source=zswap") == OK


def test_memory_reclaim_can_not_be_read(door: Door, g: MemCgroup) -> None:
    with fails(errno.EACCES):
        door.read("/cgroup/g/memory.reclaim")


# E


@pytest.mark.parametrize(
    ("state", "budget", "outcome", "entries_left"),
    [
        pytest.param(None, 1, (EAGAIN, 0), 0, id="E1"),
        pytest.param((FRESH, 1, 2000), 1, (OK, 2000), 0, id="E2"),
        pytest.param((FRESH, 1, 2000), "1M", (EAGAIN, 2000), 0, id="E3"),
        pytest.param((UNREFERENCED, 1, 300), 1, (OK, 300), 0, id="E4"),
        pytest.param((UNREFERENCED, 1, 300), 301, (EAGAIN, 300), 0, id="E5"),
        pytest.param((UNREFERENCED, 100, 2000), 1, (OK, 128_000), 36, id="E6"),
        pytest.param((UNREFERENCED, 100, 2000), 128_000, (OK, 128_000), 36, id="E7"),
        pytest.param((UNREFERENCED, 10, 100), 1, (OK, 1000), 0, id="E9"),
        pytest.param((FRESH, 10, 1000), 5000, (OK, 10_000), 0, id="E11"),
        pytest.param((FRESH, 1023, 2000), "1G", (EAGAIN, 2_046_000), 0, id="E12"),
        pytest.param((UNREFERENCED, 64, 4096), 1, (OK, 262_144), 0, id="E24"),
    ],
)
def test_E_amounts(
    z: Zswap,
    door: Door,
    g: MemCgroup,
    state: tuple[bool, int, int] | None,
    budget: int | str,
    outcome: tuple[int, int],
    entries_left: int,
) -> None:
    if state is not None:
        referenced, n, length = state
        fill(z, g, n, length, referenced)
    assert reclaim(door, "/g", budget) == outcome
    assert left(z, g) == entries_left
    assert stat(door, "/g", "zswpwb") == int(door.read("/zswap/debug/written_back_pages"))


def test_E19_an_entry_that_is_being_loaded_stops_its_batch(z: Zswap, door: Door, g: MemCgroup) -> None:
    held = int(fill(z, g, 1, 1000, referenced=False)[0])
    fill(z, g, 5, 1000, referenced=False, seed=1)
    assert z.core.hold(held) == 0
    assert reclaim(door, "/g", 100) == (OK, 5000)
    assert int(door.read("/zswap/debug/reject_reclaim_fail")) == 2
    z.core.release(held)


def test_E22_writeback_off(z: Zswap, door: Door, g: MemCgroup) -> None:
    fill(z, g, 3, 300)
    door.write("/cgroup/g/memory.zswap.writeback", "0")
    with debug_delta(z) as debug:
        assert reclaim(door, "/g", 1) == (EINVAL, 0)
    assert not debug


def test_E23_disabled_zswap_lifts_the_ban(z: Zswap, door: Door, g: MemCgroup) -> None:
    fill(z, g, 1, 300, referenced=False)
    door.write("/cgroup/g/memory.zswap.writeback", "0")
    door.write("/zswap/parameters/enabled", "N")
    assert reclaim(door, "/g", 1) == (OK, 300)


def test_E28_protection_is_ignored(z: Zswap, door: Door, g: MemCgroup) -> None:
    fill(z, g, 10, 100, referenced=False)
    door.write("/cgroup/g/memory.min", "1M")
    assert reclaim(door, "/g", 1) == (OK, 1000)


def test_E29_what_a_success_changes(z: Zswap, door: Door, g: MemCgroup) -> None:
    fill(z, g, 10, 2000, referenced=False)
    before = stats(g)
    assert reclaim(door, "/g", 1) == (OK, 20_000)
    assert door.read("/cgroup/g/memory.swap.current") == f"{10 * 4096}\n"
    assert stat(door, "/g", "zswap") == before["zswap"] - 20_000
    assert stat(door, "/g", "zswapped") == before["zswapped"] - 10 * 4096
    assert stat(door, "/g", "pswpout") == before["pswpout"] + 10


def test_the_last_reclaim_can_be_read(z: Zswap, door: Door, g: MemCgroup) -> None:
    fill(z, g, 3, 1000, referenced=False)
    reclaim(door, "/g", "1M")
    assert "asked 1048576\nwritten 3000\nentries 3\n" in door.read("/cgroup/g/uzswap.last_reclaim")


def test_a_long_write_holds_up_no_other_file(z: Zswap, door: Door, g: MemCgroup, enter: Enter, kind: str) -> None:
    if kind == "socket":
        pytest.skip("a client is one connection; test_server.py has two")
    fill(z, g, 200, 2000, referenced=False)
    seen: list[str] = []

    def look(event: TraceEvent) -> None:
        seen.append(door.read("/cgroup/g/memory.current"))

    z.trace = look
    assert reclaim(door, "/g", "1G") == (EAGAIN, 400_000)
    z.trace = None
    assert len(seen) >= 3


# F


Tree = list[MemCgroup]


@pytest.fixture
def tree(z: Zswap, door: Door) -> Tree:
    """r{A{B},C}, u×10@1000 each, made through the door."""
    made = []
    for i, path in enumerate(("/r", "/r/A", "/r/A/B", "/r/C")):
        door.mkdir(f"/cgroup{path}")
        made.append(z.tree.lookup(path))
        fill(z, made[-1], 10, 1000, referenced=False, seed=10 * i)
    return made


def test_F1_pre_order(z: Zswap, door: Door, tree: Tree) -> None:
    assert reclaim(door, "/r", 15_000) == (OK, 20_000)
    assert [left(z, memcg) for memcg in tree] == [0, 0, 10, 10]


def test_F2_a_child_with_writeback_off_is_skipped_with_its_subtree(z: Zswap, door: Door, tree: Tree) -> None:
    door.write("/cgroup/r/A/memory.zswap.writeback", "0")
    assert reclaim(door, "/r", "1M") == (EAGAIN, 20_000)
    assert [left(z, memcg) for memcg in tree] == [0, 10, 10, 0]


def test_F3_target_below_one_with_writeback_off(door: Door, tree: Tree) -> None:
    door.write("/cgroup/r/A/memory.zswap.writeback", "0")
    assert reclaim(door, "/r/A/B", 1) == (EINVAL, 0)


def test_F4_two_fresh_children(z: Zswap, door: Door) -> None:
    for name in "ab":
        fill(z, z.cgroup(f"/p/{name}"), 64, 2000)
    assert reclaim(door, "/p", "1G") == (EAGAIN, 256_000)


def test_F9_three_fresh_children(z: Zswap, door: Door) -> None:
    children = [z.cgroup(f"/p/{name}") for name in "abc"]
    for child in children:
        fill(z, child, 100, 2000)
    assert reclaim(door, "/p", 150_000) == (OK, 168_000)
    assert [left(z, child) for child in children] == [72] * 3


def test_F14_entries_of_a_removed_child(z: Zswap, door: Door) -> None:
    fill(z, z.cgroup("/p/c"), 10, 1000, referenced=False)
    door.rmdir("/cgroup/p/c")
    assert reclaim(door, "/p", 1) == (OK, 10_000)


def test_F15_counters_of_a_subtree(z: Zswap, door: Door) -> None:
    fill(z, z.cgroup("/p/a"), 5, 1000, referenced=False)
    fill(z, z.cgroup("/p/b"), 5, 1000, referenced=False, seed=5)
    assert reclaim(door, "/p", 1) == (OK, 5000)
    assert [stat(door, path, "zswpwb_proactive_b") for path in ("/p/a", "/p", "/p/b")] == [5000, 5000, 0]
    assert "zswpwb_proactive_b" not in door.read("/vmstat")


def test_F16_writeback_of_an_ancestor(door: Door) -> None:
    door.mkdir("/cgroup/p")
    door.mkdir("/cgroup/p/child")
    door.write("/cgroup/p/memory.zswap.writeback", "0")
    assert door.read("/cgroup/p/child/memory.zswap.writeback") == "1\n"
    assert reclaim(door, "/p/child", 1) == (EINVAL, 0)


# H


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize(
    ("text", "read"),
    [
        pytest.param("\n", "0\n", id="H1"),
        pytest.param("max", "max\n", id="H2"),
        pytest.param("4097", "4096\n", id="H3"),
        pytest.param("-1", EINVAL, id="H4"),
        pytest.param("1 K", EINVAL, id="H5"),
    ],
)
def test_H_limits(door: Door, g: MemCgroup, name: str, text: str, read: str | int) -> None:
    path = f"/cgroup/g/{name}"
    assert attempt(door, path, "1M") == OK
    assert attempt(door, path, text) == (read if isinstance(read, int) else OK)
    assert door.read(path) == (read if isinstance(read, str) else "1048576\n")
    assert attempt(door, path, "") == OK
    assert door.read(path) == (read if isinstance(read, str) else "1048576\n")


@pytest.mark.parametrize(
    ("text", "result"),
    [("2", EINVAL), ("-1", EINVAL), ("x", EINVAL), ("99999999999", errno.ERANGE), ("0x1", OK)],
)
def test_H6_writeback(door: Door, g: MemCgroup, text: str, result: int) -> None:
    assert attempt(door, "/cgroup/g/memory.zswap.writeback", text) == result
    assert door.read("/cgroup/g/memory.zswap.writeback") == "1\n"


def test_H7_a_write_resets_the_peak_of_that_open_file_only(door: Door, g: MemCgroup) -> None:
    owner = FrontEnd(g, 1 << 20)
    owner.drop(1 << 20)
    path = "/cgroup/g/memory.peak"
    with closing(door.open(path)) as first, closing(door.open(path)) as second:
        first.write("reset")
        assert first.read() == "0\n"
        assert second.read() == door.read(path) == f"{1 << 20}\n"
    owner.close()


def test_H9_rmdir(door: Door, g: MemCgroup) -> None:
    owner = FrontEnd(g)
    with fails(errno.EBUSY):
        door.rmdir("/cgroup/g")
    owner.close()
    door.mkdir("/cgroup/g/child")
    with fails(errno.EBUSY):
        door.rmdir("/cgroup/g")
    door.rmdir("/cgroup/g/child")
    door.rmdir("/cgroup/g")
    with fails(errno.ENOENT):
        door.rmdir("/cgroup/g")


def test_H10_one_trigger_an_open_file(door: Door, g: MemCgroup) -> None:
    path = "/cgroup/g/memory.pressure"
    with closing(door.open(path)) as file, closing(door.open(path)) as other:
        file.write("some 150000 2000000")
        with fails(errno.EBUSY):
            file.write("some 150000 2000000")
        other.write("some 150000 2000000")
        with fails(errno.EBUSY):
            other.write("full 150000 2000000")
    assert attempt(door, path, "some 150000 10000001") == EINVAL


def test_H11_files_of_the_root(door: Door, g: MemCgroup) -> None:
    root = {name for name, row in FILES.items() if row.on_root}
    assert set(door.names("/cgroup")) == root | {"g"}
    assert set(door.names("/cgroup/g")) == set(FILES)
    for name in ("memory.zswap.max", "memory.zswap.current", "memory.current"):
        with fails(errno.ENOENT):
            door.read(f"/cgroup/{name}")


def test_H12_children_of_writeback_0(door: Door, g: MemCgroup) -> None:
    door.write("/cgroup/g/memory.zswap.writeback", "0")
    door.mkdir("/cgroup/g/child")
    assert door.read("/cgroup/g/child/memory.zswap.writeback") == "1\n"


# The tree


def test_every_file_reads_as_in_python(z: Zswap, door: Door, g: MemCgroup) -> None:
    fill(z, g, 3, 1000)
    for name, row in FILES.items():
        if row.reader is not None:
            assert door.read(f"/cgroup/g/{name}") == g.read(name)
    for path, engine_row in ENGINE_FILES.items():
        text = door.read(f"/{path}")
        assert text == engine_row.read(z, z.root) or path == "meminfo"


def test_parameters(z: Zswap, door: Door) -> None:
    door.write("/zswap/parameters/compressor", "zstd\n")
    assert z.parameters.get("compressor") == "zstd"
    assert attempt(door, "/zswap/parameters/compressor", "rot13") == errno.ENOENT
    assert attempt(door, "/zswap/parameters/max_pool_percent", "x") == EINVAL


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/nothing", errno.ENOENT),
        ("/cgroup/nothing/memory.max", errno.ENOENT),
        ("/cgroup/g/memory.max/x", errno.ENOTDIR),
        ("/vmstat/", errno.ENOTDIR),
        ("/cgroup/g/" + "x" * 256, errno.ENAMETOOLONG),
        ("/" + "x/" * 5000, errno.ENAMETOOLONG),
    ],
)
def test_paths_that_there_are_not(door: Door, g: MemCgroup, path: str, code: int) -> None:
    with fails(code):
        door.read(path)


def test_dots_stay_inside(door: Door, g: MemCgroup) -> None:
    assert door.read("/cgroup/g/../g/./memory.max") == "max\n"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/cgroup/g", errno.EEXIST),
        ("/cgroup/g/memory.max", errno.EEXIST),
        ("/cgroup/no/child", errno.ENOENT),
        ("/zswap", errno.EEXIST),
        ("/new", errno.EPERM),
        ("/zswap/new", errno.EPERM),
        ("/cgroup/two\nlines", EINVAL),
        ("/cgroup/" + "x" * 256, errno.ENAMETOOLONG),
    ],
)
def test_mkdir_refuses(door: Door, g: MemCgroup, path: str, code: int) -> None:
    with fails(code):
        door.mkdir(path)


@pytest.mark.parametrize(
    ("path", "code"),
    [("/cgroup", errno.EBUSY), ("/zswap", errno.EPERM), ("/cgroup/no", errno.ENOENT)],
)
def test_rmdir_refuses(door: Door, path: str, code: int) -> None:
    with fails(code):
        door.rmdir(path)


def test_names_of_any_characters(z: Zswap, door: Door) -> None:
    for name in ("ü ñ", "a%2Fb", "a?b#c", "x" * 255, "\\"):
        door.mkdir(f"/cgroup/{name}")
        assert name in z.root.children
        assert door.read(f"/cgroup/{name}/memory.max") == "max\n"
        door.rmdir(f"/cgroup/{name}")


def test_read_only_files(door: Door, g: MemCgroup) -> None:
    for path in ("/cgroup/g/memory.current", "/vmstat"):
        assert attempt(door, path, "1") == errno.EACCES


def test_garbage_harms_nothing(z: Zswap, door: Door, g: MemCgroup) -> None:
    for name, row in FILES.items():
        for data in (os.urandom(8), os.urandom(4096), b"\0", b"\xff" * 100, b"max\0", b"9" * 4096):
            if row.writable:
                attempt(door, f"/cgroup/g/{name}", data)
    z.check()
