"""Arrays in paged memory: plain ndarrays, charged to their cgroup, gone with their last view."""

from __future__ import annotations

import errno
import gc
import pickle
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.arrays.paged import MIB, current

import uzswap
from uzswap.errors import InvalidArgumentError

if TYPE_CHECKING:
    from tests.conftest import EngineFactory


@pytest.mark.parametrize(
    "make",
    [
        lambda g: (uzswap.empty((3, 4), np.int16, cgroup=g), np.empty((3, 4), np.int16)),
        lambda g: (uzswap.zeros(7, cgroup=g), np.zeros(7)),
        lambda g: (uzswap.zeros((2, 3), order="F", cgroup=g), np.zeros((2, 3), order="F")),
        lambda g: (uzswap.ones((5, 1), "c8", cgroup=g), np.ones((5, 1), "c8")),
        lambda g: (uzswap.full(4, 2.5, cgroup=g), np.full(4, 2.5)),
        lambda g: (uzswap.full((2, 2), [1, 2], cgroup=g), np.full((2, 2), [1, 2])),
        lambda g: (uzswap.array([[1, 2], [3, 4]], cgroup=g), np.array([[1, 2], [3, 4]])),
        lambda g: (uzswap.array(range(3), "f4", ndmin=2, cgroup=g), np.array(range(3), "f4", ndmin=2)),
        lambda g: (uzswap.array(np.ones((2, 3), order="F"), cgroup=g), np.array(np.ones((2, 3), order="F"))),
        lambda g: (uzswap.asarray(["x", "yz"], cgroup=g), np.asarray(["x", "yz"])),
        lambda g: (uzswap.zeros((), cgroup=g), np.zeros(())),
        lambda g: (uzswap.zeros(0, cgroup=g), np.zeros(0)),
        lambda g: (uzswap.array(np.datetime64("2026-11-01"), cgroup=g), np.array(np.datetime64("2026-11-01"))),
    ],
)
def test_constructors_are_those_of_numpy(group: uzswap.MemCgroup, make: object) -> None:
    ours, theirs = make(group)  # type: ignore[operator]
    assert type(ours) is type(theirs)
    assert (ours.shape, ours.dtype, ours.strides, ours.flags.owndata) == (
        theirs.shape,
        theirs.dtype,
        theirs.strides,
        theirs.flags.owndata,
    )
    if theirs.dtype != np.int16:
        np.testing.assert_array_equal(ours, theirs)


def test_an_array_larger_than_its_budget_keeps_its_contents(group: uzswap.MemCgroup) -> None:
    group.write("memory.max", "4M")
    x = uzswap.empty(2 * MIB, np.int64, cgroup=group)
    expected = np.arange(2 * MIB)
    x[:] = expected
    assert current(group) <= 4 * MIB
    assert (x == expected).all()
    x[::4097] += 1
    expected[::4097] += 1
    assert (x == expected).all()
    assert pickle.loads(pickle.dumps(x[:1000], 5)).tolist() == expected[:1000].tolist()


def test_memory_comes_at_the_first_touch_and_goes_with_the_last_view(group: uzswap.MemCgroup) -> None:
    x = uzswap.zeros((1024, 1024), cgroup=group)
    assert current(group) == 0
    x[:512] = 1
    assert 4 * MIB <= current(group) <= 8 * MIB  # a stream is read ahead
    view = memoryview(x[3])
    row = x[5]
    del x
    del view
    assert row.sum() == 1024
    assert current(group) >= 4 * MIB
    del row
    assert current(group) == 0


def test_reclaim_evicts_arrays_beside_the_values_of_a_store(group: uzswap.MemCgroup) -> None:
    x = uzswap.ones(MIB, "u1", cgroup=group)
    with uzswap.Store(group) as store:
        for i in range(16):
            store[i] = bytes([i]) * 65536
        assert group.stats()["anon"] > 2 * MIB - 16384
        group.reclaim("1500K")
        assert group.stats()["anon"] < MIB
        assert (x == 1).all()
        assert store[3] == b"\x03" * 65536


def test_memory_low_of_a_child_keeps_its_array(z: uzswap.Zswap) -> None:
    parent, low, other = z.cgroup("/p"), z.cgroup("/p/low"), z.cgroup("/p/other")
    low.write("memory.low", "1M")
    kept, rest, own = (uzswap.ones(MIB, "u1", cgroup=g) for g in (low, other, parent))
    parent.reclaim("1500K")
    assert low.stats()["anon"] == MIB
    assert kept.all()
    assert rest.all()
    assert own.all()


def test_closing_is_refused_while_arrays_live(engine: EngineFactory) -> None:
    z = engine()
    x, y = uzswap.zeros(10, cgroup=z.cgroup("/a")), uzswap.zeros(1000, cgroup=z.cgroup("/b/c"))
    view = x[2:]
    del x
    with pytest.raises(OSError, match=r"2 of its arrays are alive: 1 of /a \(.*\), 1 of /b/c \(") as caught:
        z.close()
    assert caught.value.errno == errno.EBUSY
    view[:] = y[:8] = 3
    assert uzswap.ones(3, cgroup=z.cgroup("/a")).sum() == 3
    del view, y
    z.close()
    with pytest.raises(OSError, match="closed"):
        uzswap.zeros(10, cgroup=z.root)


def test_arrays_in_a_cycle_do_not_keep_an_engine_from_closing(engine: EngineFactory) -> None:
    z = engine()
    cycle: list[object] = [uzswap.zeros(10, cgroup=z.root)]
    cycle.append(cycle)
    del cycle
    z.close()


def test_an_error_on_its_way_is_not_hidden_by_the_refusal_to_close(engine: EngineFactory) -> None:
    z = engine()
    x = uzswap.zeros(10, cgroup=z.root)
    with pytest.raises(ZeroDivisionError) as caught, z:
        x[0] = 1 // 0
    assert "1 of its arrays are alive" in caught.value.__notes__[0]
    del x, caught
    z.close()


def test_the_engine_lives_as_long_as_its_arrays() -> None:
    z = uzswap.Zswap(swap=None)
    x = uzswap.ones(MIB, "u1", cgroup=z.cgroup("/a"))
    z.cgroup("/a").reclaim("512K")
    del z
    gc.collect()
    assert x.all()
    del x
    gc.collect()  # descriptors and threads are gone: no_leaks looks


def test_resize_stays_in_the_cgroup_and_keeps_the_values(group: uzswap.MemCgroup) -> None:
    x = uzswap.array(np.arange(100_000), cgroup=group)
    x.resize(300_000, refcheck=False)
    assert (x[:100_000] == np.arange(100_000)).all()
    assert not x[100_000:].any()
    assert current(group) >= x.nbytes
    x.resize(1000, refcheck=False)
    assert (x == np.arange(1000)).all()
    assert current(group) == 2 * 4096
    assert uzswap.asarray(x, cgroup=group) is x


def test_asarray_returns_what_is_in_the_cgroup_already(z: uzswap.Zswap, group: uzswap.MemCgroup) -> None:
    x = uzswap.asarray([1.0, 2.0], cgroup=group)
    view = x[1:]
    assert uzswap.asarray(x, cgroup=group) is x
    assert uzswap.asarray(view, cgroup=group) is view
    other = uzswap.asarray(x, "f4", cgroup=group)
    assert other.dtype == "f4"
    assert uzswap.array(x, copy=False, cgroup=group) is x
    assert uzswap.array(x, cgroup=group) is not x
    elsewhere = uzswap.asarray(x, cgroup=z.cgroup("/b"))
    assert elsewhere is not x
    with pytest.raises(ValueError, match="copy=False"):
        uzswap.array(x, copy=False, cgroup=z.cgroup("/b"))
    with pytest.raises(ValueError, match="copy=False"):
        uzswap.array(np.ones(3), copy=False, cgroup=group)


def test_objects_are_refused(group: uzswap.MemCgroup) -> None:
    for make in (
        lambda: uzswap.empty(3, object, cgroup=group),
        lambda: uzswap.full(3, None, cgroup=group),
        lambda: uzswap.array([object()], cgroup=group),
        lambda: uzswap.zeros(3, [("a", "O")], cgroup=group),
    ):
        with pytest.raises(InvalidArgumentError, match=r"uzswap\.Store"):
            make()
    assert current(group) == 0


def test_impossible_sizes_are_memory_errors(group: uzswap.MemCgroup) -> None:
    with pytest.raises(MemoryError):
        uzswap.empty(1 << 60, "u1", cgroup=group)


def test_arrays_of_a_removed_cgroup_become_its_parents(z: uzswap.Zswap) -> None:
    parent, child = z.cgroup("/p"), z.cgroup("/p/c")
    x = uzswap.array(np.arange(MIB // 8), cgroup=child)
    x.setflags(write=True)
    child.remove()
    assert current(parent) == MIB
    newcomer = z.cgroup("/q")  # has the index that the child had
    assert parent.reclaim("512K").reclaimed >= MIB // 2
    assert (x == np.arange(MIB // 8)).all()
    x.resize(MIB // 4, refcheck=False)
    x[:] = 7
    assert current(newcomer) == 0
    assert current(parent) == 2 * MIB
    with pytest.raises(OSError, match="removed") as caught:
        uzswap.zeros(1, cgroup=child)
    assert caught.value.errno == errno.ENODEV
    del x
    assert current(parent) == 0


def test_engines_and_cgroups_side_by_side(engine: EngineFactory) -> None:
    groups = [engine().cgroup(f"/{i}/{j}") for i in range(2) for j in range(2)]
    for group in groups:
        group.write("memory.max", "1M")
    arrays = [uzswap.empty(MIB // 2, np.int64, cgroup=group) for group in groups]

    def work(i: int) -> None:
        for round in range(3):
            arrays[i][:] = np.arange(MIB // 2) * (i + round)
        assert (arrays[i] == np.arange(MIB // 2) * (i + 2)).all()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, group in enumerate(groups):
        assert current(group) <= MIB
        assert (arrays[i] == np.arange(MIB // 2) * (i + 2)).all()
