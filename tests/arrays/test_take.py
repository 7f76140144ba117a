"""take() and put(): numpy's answers, without faults and without displacing anything."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.arrays.paged import PAGE, current, settle
from tests.support.child import run_as_nobody

import uzswap
from uzswap.errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tests.conftest import EngineFactory

PER_PAGE = PAGE // 8


def scattered(group: uzswap.MemCgroup, shape: tuple[int, ...], seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """An array whose pages are everywhere: resident, in zswap, on the device, one word, never touched; and a copy."""
    random = np.random.default_rng(seed)
    x = uzswap.zeros(shape, np.int64, cgroup=group)
    flat = x.reshape(-1)
    fifth = len(flat) // 5
    flat[:fifth] = random.integers(0, 1 << 62, fifth)
    uzswap.advise(x, "pageout")
    group.reclaim(fifth * 8, source="zswap")
    flat[fifth : 2 * fifth] = random.integers(0, 100, fifth)
    flat[2 * fifth : 3 * fifth] = 7
    uzswap.advise(x, "pageout")
    flat[3 * fifth : 4 * fifth] = random.integers(0, 1 << 40, fifth)
    settle(x[:0])
    expected = np.zeros(shape, np.int64)
    known = expected.reshape(-1)
    again = np.random.default_rng(seed)
    known[:fifth] = again.integers(0, 1 << 62, fifth)
    known[fifth : 2 * fifth] = again.integers(0, 100, fifth)
    known[2 * fifth : 3 * fifth] = 7
    known[3 * fifth : 4 * fifth] = again.integers(0, 1 << 40, fifth)
    return x, expected


def places(x: NDArray[Any]) -> tuple[int, ...]:
    found = uzswap.info(x)
    return found.resident, found.zswap, found.disk, found.zero


@pytest.fixture
def z(engine: EngineFactory) -> uzswap.Zswap:
    z = engine(swap="auto", swap_size="64M")
    try:
        z.arena.open()
    except OSError as refused:
        pytest.skip(f"{refused.strerror}")
    return z


@pytest.mark.parametrize("row", [1, 5, PER_PAGE, PER_PAGE + 1, 3 * PER_PAGE, 100 * PER_PAGE])
def test_rows_are_numpys_wherever_their_pages_are(group: uzswap.MemCgroup, row: int) -> None:
    rows = 500 * PER_PAGE // row
    x, expected = scattered(group, (rows, row))
    before, charged, faults = places(x), current(group), uzswap.info(x).faults
    assert min(before) > 0
    indices = np.random.default_rng(1).integers(-rows, rows, 2 * rows)
    np.testing.assert_array_equal(uzswap.take(x, indices), expected[indices])
    assert places(x) == before
    assert (current(group), uzswap.info(x).faults) == (charged, faults)
    np.testing.assert_array_equal(x, expected)


def test_take_counts_as_loads_and_as_no_fault(group: uzswap.MemCgroup) -> None:
    x = uzswap.array(np.arange(64 * PER_PAGE).reshape(64, PER_PAGE), cgroup=group)
    uzswap.advise(x, "pageout")
    before, faults = group.stats()["zswpin"], uzswap.info(x).faults
    uzswap.take(x, [3, 9, 3, 3])
    assert group.stats()["zswpin"] == before + 2
    assert uzswap.info(x).faults == faults


def test_promoted_rows_become_resident(group: uzswap.MemCgroup) -> None:
    x, expected = scattered(group, (100, PER_PAGE))
    uzswap.advise(x, "pageout")
    indices = [3, 50, 51, 52, 99]
    np.testing.assert_array_equal(uzswap.take(x, indices, promote=True), expected[indices])
    settle(x[:0])
    assert uzswap.info(x).resident == len(indices) * PAGE


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_take_and_put_are_numpys(group: uzswap.MemCgroup, data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(3000,), (700, 9), (40, 3, 70), (6, 5, 1, 600), (1, 9000)]))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    indices = np.array(data.draw(st.lists(st.integers(-n, n - 1), max_size=12)), np.intp)
    if indices.size % 2 == 0:
        indices = indices.reshape(2, -1)
    x = uzswap.array(np.arange(np.prod(shape)).reshape(shape), cgroup=group)
    expected = x.copy()
    if data.draw(st.booleans()):
        uzswap.advise(x, "pageout")
    else:
        uzswap.advise(x.reshape(-1)[: x.size // 2], "pageout")
    np.testing.assert_array_equal(uzswap.take(x, indices, axis), np.take(expected, indices, axis))
    where = (slice(None),) * (axis % len(shape)) + (indices,)
    values = np.random.default_rng(indices.size).integers(0, 1 << 40, expected[where].shape)
    uzswap.put(x, indices, values, axis)
    for at in np.ndindex(indices.shape):  # of equal indices the last wins, which numpy's assignment does not promise
        expected[(slice(None),) * (axis % len(shape)) + (indices[at],)] = values[
            (slice(None),) * (axis % len(shape)) + at
        ]
    np.testing.assert_array_equal(x, expected)


def test_put_changes_what_is_swapped_out_where_it_is(group: uzswap.MemCgroup) -> None:
    x, expected = scattered(group, (300, PER_PAGE // 2))
    resident = uzswap.info(x).resident
    indices = np.random.default_rng(2).permutation(180)[:90]
    values = np.random.default_rng(3).integers(0, 1 << 30, (90, PER_PAGE // 2))
    uzswap.put(x, indices, values)
    expected[indices] = values
    assert uzswap.info(x).resident == resident
    np.testing.assert_array_equal(uzswap.take(x, np.arange(300)), expected)
    np.testing.assert_array_equal(x, expected)
    group.zswap.check()


def test_put_broadcasts_and_casts_as_an_assignment(group: uzswap.MemCgroup) -> None:
    x, expected = scattered(group, (50, PER_PAGE))
    uzswap.put(x, [1, 2], 2.9)
    expected[[1, 2]] = 2.9
    uzswap.put(x, [[4], [5]], np.arange(PER_PAGE))
    expected[[4, 5]] = np.arange(PER_PAGE)
    np.testing.assert_array_equal(x, expected)
    with pytest.raises(ValueError, match="broadcast"):
        uzswap.put(x, [1, 2], np.zeros((3, PER_PAGE)))
    np.testing.assert_array_equal(x, expected)


def test_put_of_its_own_rows(group: uzswap.MemCgroup) -> None:
    x, expected = scattered(group, (50, PER_PAGE))
    uzswap.put(x, np.arange(50), x[::-1])
    np.testing.assert_array_equal(x, expected[::-1])


def test_put_what_neither_pool_nor_device_take_is_written_all_the_same(group: uzswap.MemCgroup) -> None:
    x, _ = scattered(group, (50, PER_PAGE))
    uzswap.advise(x, "pageout")
    group.write("memory.swap.max", "0")
    values = np.random.default_rng(4).integers(0, 1 << 62, (50, PER_PAGE))
    uzswap.put(x, np.arange(50), values)
    np.testing.assert_array_equal(x, values)
    group.zswap.check()


def test_views(group: uzswap.MemCgroup) -> None:
    x, expected = scattered(group, (60, 4, PER_PAGE))
    indices = [3, 7, -1]
    for view, model in (
        (x[5:50], expected[5:50]),
        (x[::-1], expected[::-1]),
        (x[::3], expected[::3]),
        (x[:, 1], expected[:, 1]),
        (x.T, expected.T),
        (x[:, :, ::2], expected[:, :, ::2]),
        (x.view(np.float64), expected.view(np.float64)),
    ):
        i = [k % len(view) for k in indices]
        np.testing.assert_array_equal(uzswap.take(view, i), np.take(model, i, 0))
        np.testing.assert_array_equal(uzswap.take(view, [0, 1], 1), np.take(model, [0, 1], 1))
    assert uzswap.take(x.reshape(-1), 5) == expected.reshape(-1)[5]
    np.testing.assert_array_equal(uzswap.take(x, [1, 2], None), np.take(expected, [1, 2]))


def test_an_array_that_is_not_paged_is_numpys() -> None:
    plain = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(uzswap.take(plain, [2, 0]), plain[[2, 0]])
    np.testing.assert_array_equal(uzswap.take([1, 2, 3], [2]), [3])
    uzswap.put(plain, [0], 9)
    assert plain[0].tolist() == [9] * 4


def test_wrong_arguments_change_nothing(group: uzswap.MemCgroup) -> None:
    x, expected = scattered(group, (10, PER_PAGE))
    out = np.full((2, PER_PAGE), 5)
    with pytest.raises(IndexError, match="index 10 is out of bounds for axis 0 with size 10"):
        uzswap.take(x, [1, 10], out=out)
    with pytest.raises(IndexError, match="-11"):
        uzswap.put(x, [-11], 1)
    with pytest.raises(TypeError, match="float64"):
        uzswap.take(x, [0.5])
    with pytest.raises(TypeError, match="flatnonzero"):
        uzswap.take(x, np.ones(10, bool))
    with pytest.raises(InvalidArgumentError, match="give one that fits"):
        uzswap.take(x, [1], out=out)
    with pytest.raises(np.exceptions.AxisError):
        uzswap.take(x, [1], 2)
    x.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        uzswap.put(x, [1], 1)
    assert (out == 5).all()
    np.testing.assert_array_equal(x, expected)


def test_out_may_be_a_view_or_paged_or_the_array_itself(group: uzswap.MemCgroup) -> None:
    x, expected = scattered(group, (40, PER_PAGE))
    wide = np.zeros((2, 2 * PER_PAGE), np.int64)
    assert uzswap.take(x, [30, 3], out=wide[:, ::2]).base is wide
    np.testing.assert_array_equal(wide[:, ::2], expected[[30, 3]])
    paged = uzswap.zeros((2, PER_PAGE), np.int64, cgroup=group)
    uzswap.take(x, [30, 3], out=paged)
    np.testing.assert_array_equal(paged, expected[[30, 3]])
    uzswap.take(x, [30, 3], out=x[:2])
    np.testing.assert_array_equal(x[:2], expected[[30, 3]])


@pytest.mark.slow
def test_take_and_put_while_others_evict_and_write(z: uzswap.Zswap, group: uzswap.MemCgroup) -> None:
    """Rows 0, 2, 4 ... stay; each other row is written by one thread, always with one value in all of it."""
    rows = 400
    x = uzswap.array(np.repeat(np.arange(rows), PER_PAGE // 2).reshape(rows, -1), cgroup=group)
    group.write("uzswap.resident.max", str(100 * PAGE))
    wrong: list[str] = []
    over = threading.Event()

    def evict() -> None:
        while not over.is_set():
            with suppress(uzswap.ReclaimIncomplete):
                group.reclaim(50 * PAGE)
            with suppress(uzswap.ReclaimIncomplete):
                group.reclaim(20 * PAGE, source="zswap")

    def fault() -> None:
        random = np.random.default_rng(9)
        while not over.is_set():
            row = int(random.integers(0, rows // 2)) * 2
            if (x[row] != row).any():
                wrong.append(f"row {row}: {x[row, 0]}")

    def write(seed: int) -> None:
        random = np.random.default_rng(seed)
        for turn in range(60):
            indices = random.integers(0, rows // 4, 30) * 4 + 2 * seed + 1
            indices = indices[indices < rows]
            uzswap.put(x, indices, (indices + rows * turn)[:, None])
            if (uzswap.take(x, indices) != (indices + rows * turn)[:, None]).any():
                wrong.append(f"thread {seed}, turn {turn}")

    helpers = [threading.Thread(target=each) for each in (evict, fault)]
    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(2)]
    for thread in (*helpers, *writers):
        thread.start()
    for _ in range(60):
        indices = np.random.default_rng(len(wrong)).integers(0, rows // 2, 100) * 2
        if (uzswap.take(x, indices) != indices[:, None]).any():
            wrong.append("a row that nobody writes")
    for thread in writers:
        thread.join()
    over.set()
    for thread in helpers:
        thread.join()
    assert not wrong
    assert (x[::2] == np.arange(0, rows, 2)[:, None]).all()
    z.check()


def test_bytes_that_were_changed_on_disk_are_an_error_and_others_can_be_taken(
    engine: EngineFactory, tmp_path: Path
) -> None:
    swap = tmp_path / "swap"
    z = engine(swap=swap, swap_size="16M", encrypt=False)
    group = z.cgroup("/damaged")
    x = uzswap.array(np.random.default_rng(0).integers(0, 1 << 62, (64, PER_PAGE)), cgroup=group)
    expected = x.copy()
    uzswap.advise(x, "pageout")
    group.reclaim(x.nbytes, source="zswap")
    assert uzswap.info(x).disk == x.nbytes
    blob = bytearray(swap.read_bytes())
    at = blob.find(expected[20].tobytes())
    assert at > 0
    with swap.open("r+b") as file:
        file.seek(at + 100)
        file.write(bytes([blob[at + 100] ^ 1]))
    with pytest.raises(
        uzswap.IntegrityError, match=r"page 20 of an array of 256.0 KiB in /damaged can't be read back"
    ) as caught:
        uzswap.take(x, np.arange(64))
    assert caught.value.cgroup == "/damaged"
    with pytest.raises(uzswap.IntegrityError, match="page 20"):
        uzswap.put(x, np.arange(18, 22), np.zeros(PER_PAGE // 2, np.int64).repeat(2))
    others = [row for row in range(64) if row != 20]
    np.testing.assert_array_equal(uzswap.take(x, others), expected[others])
    np.testing.assert_array_equal(uzswap.take(x, [19, 21]), expected[[19, 21]])
    del x


def test_take_as_an_ordinary_user() -> None:
    run_as_nobody("""
    import numpy as np, uzswap
    with uzswap.Zswap() as z:
        group = z.cgroup("/a")
        expected = np.arange(1 << 19).reshape(-1, 512)
        x = uzswap.array(expected, cgroup=group)
        group.write("uzswap.resident.max", "1M")
        indices = np.random.default_rng(0).integers(0, len(x), 3000)
        assert (uzswap.take(x, indices) == expected[indices]).all()
        uzswap.put(x, indices, expected[indices] + 1)
        again = expected.copy()
        again[indices] += 1
        assert (x == again).all()
        del x
    """).check()
