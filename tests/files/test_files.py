"""The control files of a cgroup against a real engine: SPEC 7, groups A and H."""

from __future__ import annotations

import errno
import re
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.conftest import EngineFactory
from tests.support.cases import A_ACCEPTED, A_EINVAL, H6_FLAGS, H_LIMITS, H_LIMITS_EINVAL, ROOT_HAS
from tests.support.front_end import FrontEnd, Stubborn
from tests.support.pages import page_of_length, pages_of_length, random_page
from tests.support.states import fill, reclaim, stat

from uzswap import MemCgroup, ReclaimError, ReclaimIncomplete, Zswap
from uzswap.cgroup.surroundings import Reclaimed
from uzswap.files.cgroup import FILES
from uzswap.units import NO_LIMIT

LIMITS = [name for name, row in FILES.items() if row.shape == "limit"]


@pytest.fixture(params=["v5", "fair", "coldest"])
def any_walk(engine: EngineFactory, request: pytest.FixtureRequest) -> Zswap:
    return engine(walk=request.param)


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/job")


def fails(code: int, match: str = "") -> Any:
    return pytest.raises(OSError, match=rf"\[Errno {code}\].*{match}")


@pytest.fixture
def owner(g: MemCgroup) -> Iterator[FrontEnd]:
    made = FrontEnd(g, 1 << 20)
    yield made
    made.close()


# A: memory.reclaim through the write path


def test_A1_zero_length(any_walk: Zswap) -> None:
    g = any_walk.cgroup("/job")
    assert g.write("memory.reclaim", "") == 0
    assert g.write("memory.reclaim", b"") == 0


@pytest.mark.parametrize("text", A_EINVAL)
def test_A_einval(any_walk: Zswap, text: str | bytes) -> None:
    g = any_walk.cgroup("/job")
    with fails(errno.EINVAL, "/job/memory.reclaim"):
        g.write("memory.reclaim", text)
    with fails(errno.EINVAL, "'/memory.reclaim'"):
        any_walk.root.write("memory.reclaim", text)


@pytest.mark.parametrize("text", A_ACCEPTED)
def test_A_accepted(any_walk: Zswap, text: str | bytes) -> None:
    for cgroup in (any_walk.root, any_walk.cgroup("/job")):
        assert cgroup.write("memory.reclaim", text) == len(text)


def test_A4_own_writeback_0(any_walk: Zswap) -> None:
    g = any_walk.cgroup("/job")
    g.write("memory.zswap.writeback", "0")
    with fails(errno.EINVAL, "/job"):
        g.write("memory.reclaim", "0 source=zswap")


def test_A6_empty_pool(any_walk: Zswap) -> None:
    g = any_walk.cgroup("/job")
    with pytest.raises(BlockingIOError) as caught:
        g.write("memory.reclaim", "1 source=zswap")
    assert isinstance(caught.value, ReclaimIncomplete)
    assert (caught.value.errno, caught.value.result.asked, caught.value.result.written) == (errno.EAGAIN, 1, 0)


def test_A20_more_than_4096_bytes(any_walk: Zswap) -> None:
    g = any_walk.cgroup("/job")
    assert g.write("memory.reclaim", " " * 4095 + "0") == 4096
    with fails(errno.E2BIG, "/job/memory.reclaim"):
        g.write("memory.reclaim", " " * 4096 + "0")
    with fails(errno.E2BIG):
        g.write("memory.reclaim", "é" * 2049)


def test_A23_removed_while_open(any_walk: Zswap) -> None:
    g = any_walk.cgroup("/job")
    with g.open("memory.reclaim") as file:
        g.remove()
        with fails(errno.ENODEV, "/job"):
            file.write("0 source=zswap")
        with fails(errno.ENODEV):
            file.write("")


def test_reclaim_can_not_be_read(g: MemCgroup) -> None:
    with pytest.raises(PermissionError, match=r"/job/memory\.reclaim"):
        g.read("memory.reclaim")
    with g.open("memory.reclaim") as file, fails(errno.EACCES):
        file.read()


def test_a_reclaim_runs_without_the_trees_lock(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 5, 1000, referenced=False)
    free = []

    def look(event: object) -> None:
        other = threading.Thread(target=lambda: free.append(g.read("memory.current")))
        other.start()
        other.join()

    z.trace = look
    g.write("memory.reclaim", "1 source=zswap")
    assert free


def test_last_reclaim(z: Zswap, g: MemCgroup) -> None:
    assert g.read("uzswap.last_reclaim") == ""
    fill(z, g, 3, 1000, referenced=False)
    result = g.reclaim(1500, source="zswap")
    lines = dict(line.split(" ") for line in g.read("uzswap.last_reclaim").splitlines())
    assert float(lines.pop("seconds")) >= 0
    assert {key: int(value) for key, value in lines.items()} == {
        "asked": 1500,
        "written": 2000,
        "entries": 2,
        "scanned": result.scanned,
        "rotated": 0,
        "reclaimed": 0,
    }
    with pytest.raises(ReclaimError):
        g.write("memory.reclaim", "1M source=zswap")
    assert "asked 1048576\nwritten 1000\n" in g.read("uzswap.last_reclaim")
    with fails(errno.EINVAL):
        g.write("memory.reclaim", "nonsense")
    assert "asked 1048576\n" in g.read("uzswap.last_reclaim")
    assert z.root.read("uzswap.last_reclaim") == ""


def test_last_reclaim_tells_why(z: Zswap, g: MemCgroup) -> None:
    (handle,) = fill(z, g, 1, 1000, referenced=False)
    assert z.core.hold(int(handle)) == 0
    assert reclaim(g, 1) == (errno.EAGAIN, 0)
    z.core.release(int(handle))
    assert "failed.EEXIST 1\n" in g.read("uzswap.last_reclaim")


# H: control files


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize(("text", "read"), H_LIMITS)
def test_limits(g: MemCgroup, name: str, text: str | bytes, read: str) -> None:
    assert g.write(name, text) == len(text)
    assert g.read(name) == read
    assert g.write(name, "") == 0
    assert g.read(name) == read


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("text", H_LIMITS_EINVAL)
def test_limits_refuse(g: MemCgroup, name: str, text: str) -> None:
    g.write(name, "1M")
    with fails(errno.EINVAL, f"/job/{name}"):
        g.write(name, text)
    assert g.read(name) == "1048576\n"


@pytest.mark.parametrize("name", ["memory.zswap.writeback", "memory.oom.group"])
@pytest.mark.parametrize(("text", "result"), H6_FLAGS)
def test_H6_flags(g: MemCgroup, name: str, text: str, result: str | int) -> None:
    before = g.read(name)
    if isinstance(result, int):
        with fails(result, f"/job/{name}"):
            g.write(name, text)
        assert g.read(name) == before
    else:
        g.write(name, text)
        assert g.read(name) == result


def test_H7_a_write_resets_the_peak_of_that_open_file_only(g: MemCgroup, owner: FrontEnd) -> None:
    with g.open("memory.peak") as first, g.open("memory.peak") as second:
        owner.hold(1 << 20)
        owner.drop(2 << 20)
        assert first.write("reset") == 5
        assert first.read() == "0\n"
        assert second.read() == g.read("memory.peak") == f"{2 << 20}\n"
        owner.hold(8192)
        owner.drop(8192)
        assert second.write("x") == 1
        owner.hold(4096)
        assert first.read() == "8192\n"
        assert second.read() == "4096\n"
        assert second.write("") == 0
        owner.hold(8192)
        assert first.read() == second.read() == "12288\n"
        assert g.read("memory.peak") == f"{2 << 20}\n"
    g.write("memory.peak", "x")  # belongs to an open file that is closed again
    assert g.read("memory.peak") == f"{2 << 20}\n"


def test_swap_peak(z: Zswap, g: MemCgroup) -> None:
    with g.open("memory.swap.peak") as file:
        z.free_many(z.swap_out_many(pages_of_length(500, 3), g))
        file.write("x")
        assert g.read("memory.swap.peak") == "12288\n"
        assert file.read() == "0\n"
        z.free(z.swap_out(page_of_length(500), g))
        assert file.read() == "4096\n"


def test_H10_triggers(g: MemCgroup) -> None:
    with g.open("memory.pressure", privileged=True) as root, g.open("memory.pressure", privileged=False) as other:
        assert root.write("some 150000 1000000") == 19
        with fails(errno.EINVAL, "CAP_SYS_RESOURCE.*/job/memory.pressure"):
            other.write("some 150000 1000000")
        other.write("some 150000 2000000\n")
        for file in (root, other):
            with fails(errno.EBUSY, "/job/memory.pressure"):
                file.write("some 150000 2000000")


def test_H10_the_default_privilege_is_the_processes(g: MemCgroup) -> None:
    from uzswap.cgroup.trigger import has_cap_sys_resource

    if has_cap_sys_resource():
        g.write("memory.pressure", "some 150000 1000000")
    else:
        with fails(errno.EINVAL):
            g.write("memory.pressure", "some 150000 1000000")


@pytest.mark.parametrize("name", FILES)
def test_H11_files_of_the_root(z: Zswap, name: str) -> None:
    if name in ROOT_HAS:
        z.root.open(name).close()
    else:
        with pytest.raises(FileNotFoundError, match="root"):
            z.root.open(name)
        with pytest.raises(FileNotFoundError):
            z.root.read(name)


def test_H12_children_of_writeback_0(g: MemCgroup) -> None:
    g.write("memory.zswap.writeback", "0")
    child = g.cgroup("child")
    assert child.read("memory.zswap.writeback") == "1\n"
    assert not g.zswap.core.writeback_allowed(child.index)


def test_F16_writeback_is_hierarchical(any_walk: Zswap) -> None:
    p = any_walk.cgroup("/p")
    child = p.cgroup("child")
    p.write("memory.zswap.writeback", "0")
    assert child.read("memory.zswap.writeback") == "1\n"
    with fails(errno.EINVAL):
        child.write("memory.reclaim", "1 source=zswap")


# Rules for all files


DEFAULTS = {
    "memory.current": "0\n", "memory.peak": "0\n", "memory.min": "0\n", "memory.low": "0\n", "memory.high": "max\n",
    "memory.max": "max\n", "memory.oom.group": "0\n", "memory.swap.current": "0\n", "memory.swap.peak": "0\n",
    "memory.swap.high": "max\n", "memory.swap.max": "max\n", "memory.zswap.current": "0\n", "memory.zswap.max": "max\n",
    "memory.zswap.writeback": "1\n", "cgroup.type": "domain\n", "cgroup.controllers": "memory\n",
    "cgroup.subtree_control": "memory\n", "cgroup.events": "populated 0\nfrozen 0\n",
    "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\nsock_throttled 0\n",
    "memory.events.local": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\nsock_throttled 0\n",
    "memory.swap.events": "high 0\nmax 0\nfail 0\n",
    "memory.pressure": "".join(f"{state} avg10=0.00 avg60=0.00 avg300=0.00 total=0\n" for state in ("some", "full")),
    "uzswap.recompress": "asked 0\ntaken 0\nscanned 0\nrotated 0\nentries 0\n"
    "bytes_before 0\nbytes_after 0\nrefused 0\n",
    "uzswap.last_reclaim": "", "uzswap.same_filled": "0\n", "uzswap.disk": "0\n",
}  # fmt: skip


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_new_cgroup_reads(g: MemCgroup, name: str) -> None:
    assert g.read(name) == DEFAULTS[name]
    with g.open(name) as file:
        assert file.read() == DEFAULTS[name]
        assert file.name == f"/job/{name}"


@pytest.mark.parametrize("name", [name for name, row in FILES.items() if not row.writable])
def test_read_only_files(g: MemCgroup, name: str) -> None:
    with pytest.raises(PermissionError, match=f"/job/{name}"):
        g.write(name, "1")


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_a_removed_cgroup(g: MemCgroup, name: str) -> None:
    file = g.open(name)
    g.remove()
    row = FILES[name]
    if row.reader:
        with fails(errno.ENODEV, "/job"):
            file.read()
    if row.writable:
        with fails(errno.ENODEV):
            file.write("1")
    file.close()


@pytest.mark.parametrize("name", ["memory.nonsense", "", "memory.stat/", "cgroup.procs", "zswap/parameters/enabled"])
def test_files_that_there_are_not(g: MemCgroup, name: str) -> None:
    for operation in (g.read, g.open, lambda name: g.write(name, "1")):
        with pytest.raises(FileNotFoundError):
            operation(name)


def test_a_closed_file(g: MemCgroup) -> None:
    file = g.open("memory.max")
    file.close()
    file.close()
    for operation in (file.read, lambda: file.write("1"), file.poll):
        with fails(errno.EBADF, "/job/memory.max"):
            operation()


def test_bytes_that_are_no_text(g: MemCgroup) -> None:
    with fails(errno.EINVAL, re.escape(r"\\xff")):
        g.write("memory.max", b"\xff")
    with fails(errno.EINVAL):
        g.write("memory.max", "\ud800")


@pytest.mark.parametrize("name", [name for name, row in FILES.items() if row.session is None])
def test_a_poll_that_would_never_end_is_refused(g: MemCgroup, name: str) -> None:
    with g.open(name) as file, fails(errno.EOPNOTSUPP, f"/job/{name}"):
        file.poll(0)


# Limits at work


def test_the_data_plane_has_the_limits(g: MemCgroup, owner: FrontEnd) -> None:
    g.write("memory.max", str(owner.resident_bytes))
    assert g.zswap.core.charge(g.index, 4096) == (g.index, -1)
    g.write("memory.max", "max")
    g.write("memory.high", str(owner.resident_bytes))
    assert g.zswap.core.charge(g.index, 4096) == (-1, g.index)
    g.zswap.core.uncharge(g.index, 4096)
    g.write("memory.high", "max")
    assert g.limits["memory.max"] == g.limits["memory.high"] == NO_LIMIT
    assert g.zswap.core.charge(g.index, 1 << 50) == (-1, -1)
    g.zswap.core.uncharge(g.index, 1 << 50)


@pytest.mark.parametrize(("text", "stored"), [("8192", 2), ("8191", 1), ("0", 0), ("max", 4)])
def test_B12_zswap_max_is_in_pages(engine: EngineFactory, text: str, stored: int) -> None:
    z = engine(walk="v5")
    g = z.cgroup("/job")
    g.write("memory.zswap.max", text)
    for seed in range(4):  # a raw page is a page of the pool
        z.swap_out(random_page(seed), g)
    assert stat(g, "zswap_incomp") == stored * 4096
    assert g.read("memory.zswap.current") == f"{stored * 4096}\n"


@pytest.mark.parametrize("name", ["memory.high", "memory.max"])
def test_lowering_a_limit_reclaims_at_once(g: MemCgroup, owner: FrontEnd, name: str) -> None:
    g.write(name, "256K")
    assert int(g.read("memory.current")) <= 256 << 10


@pytest.mark.parametrize("name", ["memory.high", "memory.max"])
def test_lowering_a_limit_with_nonblock_does_not(g: MemCgroup, owner: FrontEnd, name: str) -> None:
    with g.open(name, nonblock=True) as file:
        file.write("256K")
    assert g.read("memory.current") == f"{1 << 20}\n"
    assert g.read(name) == f"{256 << 10}\n"


def test_current_is_resident_and_compressed(z: Zswap, g: MemCgroup, owner: FrontEnd) -> None:
    fill(z, g.cgroup("child"), 3, 1000)
    assert g.usage() == (1 << 20) + 3000
    assert g.read("memory.current") == f"{(1 << 20) + 4096}\n"  # the kernel counts whole pages
    assert g.read("memory.zswap.current") == "3000\n"
    assert g.read("memory.swap.current") == "12288\n"
    g.reclaim(1000, source="zswap")
    assert g.usage() == (1 << 20) + 2000
    fill(z, g, 3, 1000, seed=3)
    assert g.read("memory.current") == g.read("memory.peak") == f"{(1 << 20) + 8192}\n"
    assert g.read("memory.swap.current") == f"{6 * 4096}\n"
    assert int(g.read("uzswap.disk")) >= 1000


def test_same_filled(z: Zswap, g: MemCgroup) -> None:
    z.swap_out(b"\xaa" * 4096, g)
    z.swap_out(bytes(4096), g)
    assert g.read("uzswap.same_filled") == z.root.read("uzswap.same_filled") == "1\n"
    assert stat(g, "swpout_zero") == 1


def test_memory_max_that_can_not_be_met(g: MemCgroup) -> None:
    front_end = Stubborn(g, 4096)
    g.write("memory.max", "4096")
    with pytest.raises(MemoryError, match="/job"):
        front_end.hold(4096)
    assert re.search(r"max [1-9]\d*\noom 1\n", g.read("memory.events"))
    front_end.close()


class Interrupted(FrontEnd):
    """One that is hit by a signal while it gives up a page."""

    def reclaim(self, nbytes: int) -> Reclaimed:
        signal.raise_signal(signal.SIGUSR1)
        return super().reclaim(min(nbytes, 4096))


def test_a_signal_ends_the_reclaim_of_a_limit_early_but_well(g: MemCgroup) -> None:
    front_end = Interrupted(g, 1 << 20)
    came: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: came.append(number))
    try:
        assert g.write("memory.high", "4096") == 4
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert came
    assert g.read("memory.current") == f"{(1 << 20) - 4096}\n"
    assert g.read("memory.high") == "4096\n"
    front_end.close()
