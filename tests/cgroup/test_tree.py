"""The tree of cgroups: names, creation, removal, order, members, protection."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import EngineFactory
from tests.support.front_end import Stubborn
from tests.support.pages import pages_of_length
from tests.support.states import fill, lengths, reclaim, stats

from uzswap import Zswap
from uzswap.core.boundary.engine import share_of_protection


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


def fails(code: int, match: str = "") -> Any:
    return pytest.raises(OSError, match=rf"\[Errno {code}\].*{match}")


# Paths and names


def test_a_cgroup_is_made_with_its_parents(z: Zswap) -> None:
    a = z.cgroup("/jobs/a")
    assert (a.path, a.name, a.parent) == ("/jobs/a", "a", z.cgroup("/jobs"))
    assert z.tree.lookup("/jobs").parent is z.root
    assert (z.root.path, z.root.name, z.root.parent) == ("/", "", None)
    assert repr(a) == "<MemCgroup /jobs/a>"


@pytest.mark.parametrize("path", ["/jobs/a", "jobs/a", "//jobs//a/", "/jobs/a/"])
def test_the_same_path_is_the_same_cgroup(z: Zswap, path: str) -> None:
    assert z.cgroup(path) is z.cgroup("/jobs/a")
    assert z.tree.lookup(path) is z.cgroup("/jobs/a")


@pytest.mark.parametrize("path", ["", "/", "//"])
def test_the_root(z: Zswap, path: str) -> None:
    assert z.cgroup(path) is z.tree.lookup(path) is z.root


def test_relative_paths(z: Zswap) -> None:
    a = z.cgroup("/a")
    assert a.cgroup("b/c") is z.cgroup("/a/b/c")
    assert a.cgroup("") is a
    with fails(errno.EINVAL, "slash"):
        a.cgroup("/b")
    assert z.root.cgroup("/a") is a


def test_lookup_makes_nothing(z: Zswap) -> None:
    with pytest.raises(FileNotFoundError, match="'b' in /a"):
        z.cgroup("/a").tree.lookup("/a/b")
    assert not z.cgroup("/a").children


@pytest.mark.parametrize("name", [".", "..", "new\nline", "nul\0", "\ud800"])
def test_names_that_no_directory_has(z: Zswap, name: str) -> None:
    with fails(errno.EINVAL):
        z.cgroup(f"/ok/{name}/x")
    assert not z.root.children


def test_name_length_is_in_bytes(z: Zswap) -> None:
    z.cgroup("/" + "é" * 127)
    with fails(errno.ENAMETOOLONG):
        z.cgroup("/" + "é" * 128)


@pytest.mark.parametrize("name", ["memory.max", "cgroup.procs"])
def test_names_of_control_files(z: Zswap, name: str) -> None:
    if name == "memory.max":
        with pytest.raises(FileExistsError):
            z.cgroup(f"/a/{name}")
        assert not z.root.children
    else:
        z.cgroup(f"/a/{name}")  # not a file here


def test_mkdir_is_one_level(z: Zswap) -> None:
    made = z.tree.mkdir(z.root, "a")
    with pytest.raises(FileExistsError, match="/a"):
        z.tree.mkdir(z.root, "a")
    with fails(errno.EINVAL):
        z.tree.mkdir(z.root, "b/c")
    made.remove()
    with fails(errno.ENODEV):
        z.tree.mkdir(made, "b")


# Removal


def test_H9_removal_with_members_or_children(z: Zswap) -> None:
    a = z.cgroup("/a")
    b = z.cgroup("/a/b")
    owner = Stubborn(b)
    with fails(errno.EBUSY, "1 children"):
        a.remove()
    with fails(errno.EBUSY, "1 members"):
        b.remove()
    owner.close()
    b.remove()
    a.remove()
    with fails(errno.EBUSY, "root"):
        z.root.remove()
    assert not z.root.children


def test_a_removed_cgroup_gives_enodev(z: Zswap) -> None:
    a = z.cgroup("/a")
    a.remove()
    operations = (
        a.remove,
        a.stats,
        lambda: a.read("memory.stat"),
        lambda: a.write("memory.max", "1G"),
        lambda: a.open("memory.events"),
        lambda: a.reclaim(0, source="zswap"),
        lambda: a.cgroup("b"),
        lambda: Stubborn(a),
        lambda: z.swap_out(b"x", a),
    )
    for operation in operations:
        with fails(errno.ENODEV):
            operation()
    assert repr(a) == "<MemCgroup /a (removed)>"
    assert z.cgroup("/a") is not a


def test_F14_entries_of_a_removed_cgroup_are_its_parents(engine: EngineFactory) -> None:
    z = engine(walk="v5")
    p = z.cgroup("/p")
    child = z.cgroup("/p/child")
    handles = fill(z, child, 10, 1000, referenced=False)
    child.remove()
    assert stats(p)["zswap"] == sum(lengths(z, handles)) == 10_000
    assert reclaim(p, 1) == (0, 10_000)
    assert stats(p)["zswpwb_proactive_b"] == 10_000
    z.free_many(handles)


def test_what_was_counted_stays_with_the_parent(z: Zswap) -> None:
    p, child = z.cgroup("/p"), z.cgroup("/p/child")
    z.free_many(z.swap_out_many(pages_of_length(500, 3), child))
    child.count_event("max", 2)
    before = stats(p)
    child.remove()
    assert stats(p) == before
    assert before["zswpout"] == 3
    assert p.events["max"] == 2
    assert p.local_events["max"] == 0


def test_ids_are_not_used_again(z: Zswap) -> None:
    seen = {z.root.id}
    for _ in range(5):
        a = z.cgroup("/a")
        assert z.tree.by_index(a.index) is a
        assert a.id not in seen
        seen.add(a.id)
        a.remove()
        with fails(errno.ENODEV):
            z.tree.by_index(a.index)


def test_on_remove_is_called_before(z: Zswap) -> None:
    told = []
    z.tree.on_remove.append(lambda cgroup: told.append((cgroup.path, cgroup.online, "a" in z.root.children)))
    z.cgroup("/a").remove()
    assert told == [("/a", True, True)]


# Order


def test_preorder_has_children_in_creation_order(z: Zswap) -> None:
    for path in ("/z/b", "/a", "/z/a/x", "/z/c"):
        z.cgroup(path)
    assert [cgroup.path for cgroup in z.root.preorder()] == ["/", "/z", "/z/b", "/z/a", "/z/a/x", "/z/c", "/a"]
    assert [cgroup.path for cgroup in z.cgroup("/z/a").preorder()] == ["/z/a", "/z/a/x"]


def test_G9_preorder_skips_what_is_removed_meanwhile(z: Zswap) -> None:
    for name in "abc":
        z.cgroup(f"/{name}")
    met = []
    for cgroup in z.root.preorder():
        met.append(cgroup.name)
        if cgroup.name == "a":
            z.cgroup("/b").remove()
    assert met == ["", "a", "c"]


def test_ancestry(z: Zswap) -> None:
    assert [cgroup.path for cgroup in z.cgroup("/a/b").ancestry()] == ["/a/b", "/a", "/"]


def test_depth_is_no_recursion(z: Zswap) -> None:
    deep = z.cgroup("/" + "/".join("d" * 2000))
    owner = Stubborn(deep)
    assert len(list(z.root.preorder())) == 2001
    assert deep.read("memory.min") == "0\n"
    assert deep.effective_protection(z.root) == (0, 0)
    assert z.cgroup("/d").populated()
    with deep.pressure.stall():
        pass
    owner.close()


# Members and events


def test_members_are_told_apart_by_identity(z: Zswap) -> None:
    a = z.cgroup("/a")

    class Equal(Stubborn):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    first, second = Equal(a), Equal(a)
    assert len(a.members) == 2
    second.close()
    assert a.members[0] is first
    first.close()
    assert not a.members


def test_populated_is_of_the_subtree(z: Zswap) -> None:
    owner = Stubborn(z.cgroup("/a/b"))
    assert z.cgroup("/a").populated()
    assert not z.cgroup("/a/c").populated()
    owner.close()
    assert not z.cgroup("/a").populated()


def test_events_are_counted_up_to_the_root(z: Zswap) -> None:
    b = z.cgroup("/a/b")
    b.count_event("high")
    b.count_event("pgscan_proactive", 32)
    assert [cgroup.events["high"] for cgroup in b.ancestry()] == [1, 1, 1]
    assert [cgroup.local_events["high"] for cgroup in b.ancestry()] == [1, 0, 0]
    assert stats(z.root)["pgscan_proactive"] == stats(z.root)["pgscan"] == 32
    with pytest.raises(KeyError):
        b.count_event("nonsense")


# Protection


def protection(z: Zswap, name: str, target: str, path: str) -> int:
    return z.tree.lookup(path).effective_protection(z.tree.lookup(target))[name == "memory.low"]


@pytest.fixture
def family(z: Zswap) -> Any:
    """Usage of /p/a, /p/b and /p/c in MiB: 4, 4, 0; yields a function that writes a setting to many."""
    owners = [Stubborn(z.cgroup(f"/p/{name}")) for name in "abc"]
    for owner, held in zip(owners, (4, 4, 0), strict=True):
        owner.hold(held << 20)

    def write(name: str, **values: str) -> None:
        for child, value in values.items():
            z.tree.lookup("/p" if child == "p" else f"/p/{child}").write(name, value)

    yield write
    for owner in owners:
        owner.close()


@pytest.mark.parametrize("name", ["memory.min", "memory.low"])
def test_protection_is_what_was_set_directly_below_the_target(z: Zswap, family: Any, name: str) -> None:
    family(name, p="6M", a="3M")
    assert protection(z, name, "/p", "/p/a") == 3 << 20
    assert protection(z, name, "/", "/p") == 6 << 20


def test_protection_never_holds_against_ones_own_reclaim(z: Zswap, family: Any) -> None:
    family("memory.min", p="6M", a="3M")
    assert z.cgroup("/p").effective_protection(z.cgroup("/p")) == (0, 0)
    assert z.root.effective_protection(z.root) == (0, 0)


def test_overcommitted_protection_is_shared_by_use(z: Zswap, family: Any) -> None:
    family("memory.low", p="4M", a="4M", b="4M", c="64M")
    assert [protection(z, "memory.low", "/", f"/p/{child}") >> 20 for child in "abc"] == [2, 2, 0]


def test_unclaimed_protection_is_shared_by_use(z: Zswap, family: Any) -> None:
    family("memory.min", p="6M", a="2M")
    # 2 MiB claimed; the other 4 go by unclaimed use, of which a has 2 MiB and b has 4
    assert protection(z, "memory.min", "/", "/p/a") == (2 << 20) + (4 << 20) * 2 // 6
    assert protection(z, "memory.min", "/", "/p/b") == (4 << 20) * 4 // 6


def test_without_a_protected_parent_a_childs_setting_is_void(z: Zswap, family: Any) -> None:
    family("memory.min", a="4M")
    assert protection(z, "memory.min", "/", "/p/a") == 0


def test_protection_of_a_stranger(z: Zswap) -> None:
    with pytest.raises(ValueError, match="/a is not in the subtree of /b"):
        z.cgroup("/a").effective_protection(z.cgroup("/b"))


MIB = st.integers(0, 1 << 40)


@given(st.lists(st.tuples(MIB, MIB), min_size=1, max_size=6), MIB, MIB)
def test_children_never_get_more_than_their_parent_has(
    children: list[tuple[int, int]], own: int, effective: int
) -> None:
    parent_usage = sum(usage for usage, _ in children) + own
    siblings = sum(min(usage, setting) for usage, setting in children)
    shares = [share_of_protection(usage, parent_usage, setting, effective, siblings) for usage, setting in children]
    assert sum(shares) <= effective
    assert all(share <= usage for share, (usage, _) in zip(shares, children, strict=True)) or parent_usage < effective
    if siblings <= effective:
        assert all(share >= min(child) for share, child in zip(shares, children, strict=True))


# Threads, closing


def test_many_threads_make_use_and_remove(z: Zswap) -> None:
    def work(seed: int) -> None:
        for i in range(50):
            path = f"/{(seed + i) % 3}/{i % 5}"
            try:
                cgroup = z.cgroup(path)
                cgroup.write("memory.high", "1G")
                handle = z.swap_out(b"x" * 4096, cgroup)
                cgroup.read("memory.stat")
                list(z.root.preorder())
                z.free(handle)
                cgroup.remove()
            except OSError as error:
                if error.errno not in (errno.ENODEV, errno.EBUSY):
                    raise

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    z.check()


def test_a_closed_engine_says_so(engine: EngineFactory) -> None:
    z = engine()
    a = z.cgroup("/a")
    file = a.open("memory.pressure", privileged=True)
    file.write("some 1 1000000")
    z.close()
    for operation in (lambda: a.read("memory.stat"), lambda: z.cgroup("/b"), a.remove, file.read, file.poll):
        with fails(errno.EBADF, "closed"):
            operation()
    file.close()


def test_closing_the_engine_wakes_who_polls(engine: EngineFactory) -> None:
    z = engine()
    files = [z.cgroup("/a").open(name, privileged=True) for name in ("memory.events", "memory.pressure")]
    files[1].write("some 1 1000000")
    polling = [threading.Thread(target=file.poll) for file in files]
    for thread in polling:
        thread.start()
    z.close()
    for thread in polling:
        thread.join()


def test_a_forked_child_has_its_parents_cgroups_as_its_own(z: Zswap) -> None:
    a = z.cgroup("/a")
    file = a.open("memory.events")
    child = os.fork()
    if child == 0:
        done = 0
        with contextlib.suppress(BaseException):
            assert "high 0" in a.read("memory.events")
            a.write("memory.max", "1M")
            assert a.read("memory.max") == f"{1 << 20}\n"
            file.close()
            a.remove()
            z.cgroup("/b")
            done = 1
        os._exit(done)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert a.read("memory.max") == "max\n"
    assert list(z.root.children) == ["a"]
    file.close()


def test_too_many_cgroups(z: Zswap) -> None:
    others = []
    while (index := z.core.memcg_new(0)) > 0:
        others.append(index)
    z.core.memcg_remove(others.pop())
    with fails(errno.EAGAIN, "/a/b"):
        z.cgroup("/a/b/c")
    assert not z.root.children
    z.cgroup("/b")
    for index in others:
        z.core.memcg_remove(index)
