"""SPEC 8, groups A, E and F, through Python, the mount and the socket: the same tests, the same outcomes.

Not here: A21 (there is no node file: nodes are not machines') and A22 (there is no engine without source=zswap).
"""

from __future__ import annotations

import errno
import os
from contextlib import closing

import pytest
from tests.conftest import EngineFactory
from tests.serve.doors import Door, Enter, Writing, attempt, fails, pending
from tests.support.cases import A_ACCEPTED, A_EINVAL, E_AMOUNTS
from tests.support.pages import filled_page, random_page, zero_page
from tests.support.states import OK, debug_delta, fill, left, places, stats

from uzswap import MemCgroup, TraceEvent, Zswap
from uzswap.core.boundary.engine import MAX_ENTRY
from uzswap.reclaim.writeback import Request

EAGAIN, EINTR, EINVAL = errno.EAGAIN, errno.EINTR, errno.EINVAL


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine(walk="v5")


@pytest.fixture
def door(z: Zswap, enter: Enter) -> Door:
    return enter(z)


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


def stat(door: Door, path: str, key: str) -> int:
    lines = dict(line.split(" ") for line in door.read(f"/cgroup{path}/memory.stat").splitlines())
    return int(lines[key])


def reclaim(door: Door, path: str, nbytes: int | str, keys: str = "source=zswap") -> tuple[int, int]:
    """0 or the errno, and the rise of zswpwb_proactive_b, both seen through the door."""
    before = stat(door, path, "zswpwb_proactive_b")
    number = attempt(door, f"/cgroup{path}/memory.reclaim", f"{nbytes} {keys}")
    return number, stat(door, path, "zswpwb_proactive_b") - before


def wait_for_end(g: MemCgroup) -> None:
    """Wait until the first reclaim of a cgroup is over: whoever asked for it may know earlier that it was cut short."""
    while g.last_reclaim is None:
        os.sched_yield()


# A


def test_A1_zero_length(door: Door, g: MemCgroup) -> None:
    assert door.write("/cgroup/g/memory.reclaim", "") == 0


@pytest.mark.parametrize("text", A_EINVAL)
def test_A_einval(door: Door, g: MemCgroup, text: str | bytes) -> None:
    for path in ("/cgroup/g/memory.reclaim", "/cgroup/memory.reclaim"):
        assert attempt(door, path, text) == EINVAL


@pytest.mark.parametrize("text", A_ACCEPTED)
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


def test_A23_zero_length_too(door: Door, g: MemCgroup, kind: str) -> None:
    with closing(door.open("/cgroup/g/memory.reclaim")) as file:
        door.rmdir("/cgroup/g")
        if kind == "mount":  # the kernel itself says so: a write of no bytes does not reach a FUSE file system
            assert file.write("") == 0
        else:
            with fails(errno.ENODEV):
                file.write("")


def test_memory_reclaim_can_not_be_read(door: Door, g: MemCgroup) -> None:
    with fails(errno.EACCES):
        door.read("/cgroup/g/memory.reclaim")


# E


@pytest.mark.parametrize(("state", "budget", "outcome", "entries_left"), E_AMOUNTS)
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


def test_E18_each_write_fails(engine: EngineFactory, enter: Enter) -> None:
    z = engine(walk="v5", swap_size="4M")
    ballast, g = z.cgroup("/ballast"), z.cgroup("/g")
    ballast.write("memory.zswap.max", "0")
    while z.swap_out_many(random_page(size=MAX_ENTRY), ballast, page=MAX_ENTRY).all():
        pass
    fill(z, g, 5, 4096, referenced=False)
    door = enter(z)
    assert reclaim(door, "/g", 100) == (EAGAIN, 0)
    assert int(door.read("/zswap/debug/reject_reclaim_fail")) == 80
    assert "failed.ENOSPC 80\n" in door.read("/cgroup/g/uzswap.last_reclaim")
    assert left(z, g) == 5


def test_E19_an_entry_that_is_being_loaded_stops_its_batch(z: Zswap, door: Door, g: MemCgroup) -> None:
    held = int(fill(z, g, 1, 1000, referenced=False)[0])
    fill(z, g, 5, 1000, referenced=False, seed=1)
    assert z.core.hold(held) == 0
    assert reclaim(door, "/g", 100) == (OK, 5000)
    assert int(door.read("/zswap/debug/reject_reclaim_fail")) == 2
    z.core.release(held)


def test_E20_a_signal_before_the_first_batch(
    z: Zswap, door: Door, g: MemCgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(z, g, 10, 1000)
    writing: list[Writing] = []
    run = z.walk.run

    def interrupt_first(request: Request) -> int:
        writing[0].interrupt()
        pending()
        return run(request)

    monkeypatch.setattr(z.walk, "run", interrupt_first)
    with debug_delta(z) as debug, door.start_write("/cgroup/g/memory.reclaim", "1M source=zswap", writing.append) as it:
        assert it.outcome() == EINTR
        wait_for_end(g)
    assert not debug
    assert stat(door, "/g", "zswpwb_proactive_b") == 0


def test_E21_a_signal_after_two_batches(z: Zswap, door: Door, g: MemCgroup) -> None:
    fill(z, g, 1000, 2000, referenced=False)
    writing: list[Writing] = []
    batches: list[TraceEvent] = []

    def trace(event: TraceEvent) -> None:
        batches.append(event)
        if len(batches) == 2:
            writing[0].interrupt()
            pending()

    z.trace = trace
    with door.start_write("/cgroup/g/memory.reclaim", "1G source=zswap", writing.append) as it:
        assert it.outcome() == EINTR
        wait_for_end(g)
    z.trace = None
    assert [(event.scanned, event.entries) for event in batches] == [(64, 64)] * 2
    assert stat(door, "/g", "zswpwb_proactive_b") == 256_000
    assert left(z, g) == 1000 - 128
    assert reclaim(door, "/g", 1) == (OK, 128_000)


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


def test_E26_same_filled_entry(z: Zswap, door: Door, g: MemCgroup) -> None:
    door.write("/zswap/parameters/same_filled_pages_enabled", "N")
    handle = z.swap_out(filled_page(7), g)
    length = stat(door, "/g", "zswap")
    assert reclaim(door, "/g", 1) == (OK, length)
    assert z.fault_in(handle) == filled_page(7)


def test_E27_zero_pages_only(z: Zswap, door: Door, g: MemCgroup) -> None:
    z.swap_out_many(zero_page() * 4, g)
    assert reclaim(door, "/g", 1) == (EAGAIN, 0)


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


def test_min_age(z: Zswap, door: Door, g: MemCgroup) -> None:
    old = fill(z, g, 10, 1000)
    z.core.advance(60 * 10**9)
    fill(z, g, 10, 1000, seed=10)
    assert reclaim(door, "/g", "1M", "source=zswap min_age=120") == (EAGAIN, 0)
    assert reclaim(door, "/g", "1M", "source=zswap min_age=60") == (EAGAIN, 10_000)
    assert places(z, old) == ["disk"] * 10


def test_the_last_reclaim_can_be_read(z: Zswap, door: Door, g: MemCgroup) -> None:
    fill(z, g, 3, 1000, referenced=False)
    reclaim(door, "/g", "1M")
    assert "asked 1048576\nwritten 3000\nentries 3\n" in door.read("/cgroup/g/uzswap.last_reclaim")


def test_a_long_write_holds_up_no_other_file(z: Zswap, door: Door, g: MemCgroup, enter: Enter) -> None:
    fill(z, g, 200, 2000, referenced=False)
    seen: list[str] = []

    def look(event: TraceEvent) -> None:
        with door.another() as other:
            seen.append(other.read("/cgroup/g/memory.current"))
            other.write("/cgroup/g/memory.low", str(4096 * len(seen)))

    z.trace = look
    assert reclaim(door, "/g", "1G") == (EAGAIN, 400_000)
    z.trace = None
    assert len(seen) >= 3
    assert door.read("/cgroup/g/memory.low") == f"{4096 * len(seen)}\n"


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
    assert [left(z, child) for child in z.cgroup("/p").children.values()] == [0, 0]


def test_F9_three_fresh_children(z: Zswap, door: Door) -> None:
    children = [z.cgroup(f"/p/{name}") for name in "abc"]
    for child in children:
        fill(z, child, 100, 2000)
    assert reclaim(door, "/p", 150_000) == (OK, 168_000)
    assert [left(z, child) for child in children] == [72] * 3


def test_F14_entries_of_a_removed_child(z: Zswap, door: Door) -> None:
    fill(z, z.cgroup("/p/c"), 10, 1000, referenced=False)
    door.rmdir("/cgroup/p/c")
    visited: list[str] = []
    z.trace = lambda event: visited.append(event.cgroup)
    assert reclaim(door, "/p", 1) == (OK, 10_000)
    z.trace = None
    assert visited == ["/p"]


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
