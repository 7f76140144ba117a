"""SPEC 8, group H, and the tree itself, through Python, the mount and the socket: the same tests, the same outcomes."""

from __future__ import annotations

import errno
import os
from contextlib import closing

import pytest
from tests.conftest import EngineFactory
from tests.serve.doors import Door, Enter, attempt, fails
from tests.support.cases import H6_FLAGS, H_LIMITS, H_LIMITS_EINVAL, ROOT_HAS
from tests.support.front_end import FrontEnd
from tests.support.states import OK, fill

from uzswap import MemCgroup, Zswap
from uzswap.cgroup.trigger import has_cap_sys_resource
from uzswap.files.cgroup import FILES
from uzswap.files.engine import ENGINE_FILES

EINVAL = errno.EINVAL
LIMITS = [name for name, row in FILES.items() if row.shape == "limit"]


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


@pytest.fixture
def door(z: Zswap, enter: Enter) -> Door:
    return enter(z)


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize(("text", "read"), H_LIMITS)
def test_limits(door: Door, g: MemCgroup, name: str, text: str | bytes, read: str) -> None:
    path = f"/cgroup/g/{name}"
    assert door.write(path, text) == len(text)
    assert door.read(path) == read
    assert door.write(path, "") == 0
    assert door.read(path) == read


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("text", H_LIMITS_EINVAL)
def test_limits_refuse(door: Door, g: MemCgroup, name: str, text: str) -> None:
    path = f"/cgroup/g/{name}"
    assert attempt(door, path, "1M") == OK
    assert attempt(door, path, text) == EINVAL
    assert door.read(path) == "1048576\n"


@pytest.mark.parametrize("name", ["memory.zswap.writeback", "memory.oom.group"])
@pytest.mark.parametrize(("text", "result"), H6_FLAGS)
def test_H6_flags(door: Door, g: MemCgroup, name: str, text: str, result: str | int) -> None:
    path = f"/cgroup/g/{name}"
    before = door.read(path)
    assert attempt(door, path, text) == (result if isinstance(result, int) else OK)
    assert door.read(path) == (before if isinstance(result, int) else result)


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


def test_H10_triggers(door: Door, g: MemCgroup) -> None:
    path = "/cgroup/g/memory.pressure"
    with closing(door.open(path)) as file, closing(door.open(path)) as other:
        # Which windows a trigger may have depends on the capabilities of whoever opened the file.
        if has_cap_sys_resource():
            file.write("some 150000 1000000")
        else:
            with fails(EINVAL):
                file.write("some 150000 1000000")
            file.write("some 150000 2000000")
        with fails(errno.EBUSY):
            file.write("some 150000 2000000")
        other.write("some 150000 2000000")
        with fails(errno.EBUSY):
            other.write("full 150000 2000000")
    assert attempt(door, path, "some 150000 10000001") == EINVAL
    assert attempt(door, path, "some 150000 2000000") == OK


def test_H11_files_of_the_root(door: Door, g: MemCgroup) -> None:
    assert set(door.names("/cgroup")) == ROOT_HAS | {"g"}
    assert set(door.names("/cgroup/g")) == set(FILES)
    for name in FILES.keys() - ROOT_HAS:
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
        assert text == engine_row.read(z, z.root) or path in ("meminfo", "uzswap.stat")  # time moves on


def test_what_there_is(door: Door, g: MemCgroup) -> None:
    assert set(door.names("/")) == {"cgroup", "zswap", "vmstat", "meminfo", "swaps", "uzswap.stat"}
    assert set(door.names("/zswap")) == {"parameters", "debug"}
    for place in ("parameters", "debug"):
        inside = {path.rpartition("/")[2] for path in ENGINE_FILES if path.startswith(f"zswap/{place}/")}
        assert set(door.names(f"/zswap/{place}")) == inside


def test_totals_of_the_machine(z: Zswap, door: Door, g: MemCgroup) -> None:
    fill(z, g, 3, 1000)
    meminfo = dict(line.split(":") for line in door.read("/meminfo").splitlines())
    assert int(meminfo["Zswapped"].split()[0]) == 3 * 4
    assert int(meminfo["Zswap"].split()[0]) * 1024 == int(door.read("/zswap/debug/pool_total_size"))
    assert int(meminfo["SwapTotal"].split()[0]) == 64 << 10
    assert "\nzswpout 3\n" in door.read("/vmstat")
    heading, device = door.read("/swaps").splitlines()
    assert heading.split() == ["Filename", "Type", "Size", "Used", "Priority"]
    assert device.split()[1:3] == ["file", str(64 << 10)]


def test_a_read_is_a_snapshot(z: Zswap, door: Door, g: MemCgroup) -> None:
    """Two lines of one read never contradict each other, whatever happens in between."""
    handles = fill(z, g, 50, 1000)
    for _ in range(20):
        text = door.read("/cgroup/g/memory.stat")
        lines = dict(line.split() for line in text.splitlines())
        assert int(lines["zswapped"]) == 4096 * (int(lines["zswpout"]) - int(lines["zswpin"]))
        z.fault_in(int(handles[0]))
        handles = handles[1:]


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


@pytest.mark.parametrize("length", [4096, 4097, 10_000, 200_000])
def test_lengths(door: Door, g: MemCgroup, length: int) -> None:
    """All of it or nothing: never a short count."""
    expected = OK if length <= 4096 else errno.E2BIG
    assert attempt(door, "/cgroup/g/memory.low", "8192".ljust(length)) == expected
    assert door.read("/cgroup/g/memory.low") == ("8192\n" if expected == OK else "0\n")
    assert attempt(door, "/zswap/parameters/compressor", "x" * length) == (expected or errno.ENOENT)


def test_an_open_file_of_a_removed_cgroup(door: Door, g: MemCgroup) -> None:
    opened = {name: door.open(f"/cgroup/g/{name}") for name in ("memory.max", "memory.stat", "memory.peak")}
    door.rmdir("/cgroup/g")
    for name, file in opened.items():
        with fails(errno.ENODEV):
            file.read()
        if name != "memory.stat":
            with fails(errno.ENODEV):
                file.write("1M")
        file.close()
    with fails(errno.ENOENT):
        door.read("/cgroup/g/memory.max")


def test_garbage_harms_nothing(z: Zswap, door: Door, g: MemCgroup) -> None:
    for name, row in FILES.items():
        for data in (os.urandom(8), os.urandom(4096), b"\0", b"\xff" * 100, b"max\0", b"9" * 4096):
            if row.writable:
                attempt(door, f"/cgroup/g/{name}", data)
    z.check()
