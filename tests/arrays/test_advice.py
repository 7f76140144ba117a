"""What advise() and resident() do to the pages of an array, and what info() tells."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from tests.arrays.paged import MIB, PAGE, current, settle

import uzswap
from uzswap.errors import InvalidArgumentError

PER_PAGE = PAGE // 8


def counting(group: uzswap.MemCgroup, pages: int) -> np.ndarray:
    """An array of that many pages, all resident."""
    x = uzswap.array(np.arange(pages * PER_PAGE), cgroup=group)
    settle(x)
    return x


def resident_pages(x: np.ndarray) -> int:
    return uzswap.info(x).resident // PAGE


def test_info_tells_where_the_bytes_are(group: uzswap.MemCgroup) -> None:
    x = uzswap.zeros(64 * PER_PAGE, np.int64, cgroup=group)
    assert uzswap.info(x)[:6] == (64 * PAGE, 0, 0, 0, 64 * PAGE, 0)
    x[:] = np.arange(len(x))
    settle(x)
    assert resident_pages(x) == 64
    uzswap.advise(x, "pageout")
    found = uzswap.info(x)
    assert (found.resident, found.zswap, found.disk) == (0, 64 * PAGE, 0)
    group.reclaim("1K", source="zswap")
    found = uzswap.info(x[5:7])  # of the whole array, by any view
    assert found.disk > 0
    assert found.zswap + found.disk == found.bytes == 64 * PAGE
    assert (found.cgroup, found.lost) == ("/a", 0)
    before = found.faults
    assert x[0] == 0
    assert x[-1] == len(x) - 1
    settle(x)
    found = uzswap.info(x)
    assert found.faults >= before + 2
    assert found.loads == 64
    assert found.mode in ("full", "user-mode-only")


@pytest.mark.parametrize(
    "ask", [uzswap.info, lambda x: uzswap.advise(x, "cold"), lambda x: uzswap.resident(x).__enter__()]
)
def test_arrays_that_are_not_paged_are_refused(ask: object) -> None:
    with pytest.raises(InvalidArgumentError, match="not in paged memory"):
        ask(np.arange(10))  # type: ignore[operator]
    with pytest.raises(TypeError, match="list"):
        ask([1, 2])  # type: ignore[operator]


def test_pageout_and_willneed(group: uzswap.MemCgroup) -> None:
    x = counting(group, 100)
    assert uzswap.advise(x[10 * PER_PAGE : 30 * PER_PAGE], "pageout") == 20 * PAGE
    assert resident_pages(x) == 80
    assert uzswap.advise(x[10 * PER_PAGE : 30 * PER_PAGE], "pageout") == 0
    assert uzswap.advise(x[15 * PER_PAGE + 5 : 16 * PER_PAGE + 5], "willneed") == 2 * PAGE  # parts count
    assert resident_pages(x) == 82
    assert uzswap.advise(x, "willneed") == 100 * PAGE
    assert resident_pages(x) == 100
    assert (x == np.arange(len(x))).all()


def test_willneed_brings_no_more_than_the_budget_has_room_for(group: uzswap.MemCgroup) -> None:
    group.write("memory.max", "256K")
    x = uzswap.zeros(1000 * PER_PAGE, cgroup=group)
    assert uzswap.advise(x, "willneed") == 64 * PAGE


def test_cold_pages_go_first(group: uzswap.MemCgroup) -> None:
    old, new = counting(group, 64), counting(group, 64)
    assert uzswap.advise(new, "cold") == 64 * PAGE
    group.reclaim(64 * PAGE)
    assert (resident_pages(old), resident_pages(new)) == (64, 0)


@pytest.mark.parametrize("evicted", [False, True])
def test_dontneed_forgets_whole_pages_only(group: uzswap.MemCgroup, evicted: bool) -> None:
    x = counting(group, 10)
    x += 1
    expected = x.copy()
    if evicted:
        uzswap.advise(x, "pageout")
    view = x[2 * PER_PAGE - 3 : 5 * PER_PAGE + 7]
    assert uzswap.advise(view, "dontneed") == 3 * PAGE
    expected[2 * PER_PAGE : 5 * PER_PAGE] = 0
    np.testing.assert_array_equal(x, expected)
    assert uzswap.advise(x[1:PER_PAGE], "dontneed") == 0
    np.testing.assert_array_equal(x, expected)


def test_dontneed_of_a_whole_array_takes_its_last_page_too(group: uzswap.MemCgroup) -> None:
    x = uzswap.ones(PER_PAGE + 10, cgroup=group)
    assert uzswap.advise(x, "dontneed") == 2 * PAGE
    assert current(group) == 0
    assert not x.any()


def test_dontneed_does_not_change_a_read_only_array(group: uzswap.MemCgroup) -> None:
    x = uzswap.ones(PER_PAGE, cgroup=group)
    x.flags.writeable = False
    with pytest.raises(InvalidArgumentError, match="read-only"):
        uzswap.advise(x, "dontneed")
    assert x.all()


def test_advice_about_views(group: uzswap.MemCgroup) -> None:
    x = uzswap.ones((16, PER_PAGE), cgroup=group)
    settle(x)
    assert uzswap.advise(x.T, "pageout") == 16 * PAGE  # the same bytes
    assert uzswap.advise(x[3:5], "willneed") == 2 * PAGE
    assert uzswap.advise(x[:0], "pageout") == 0
    for view in (x[:, 3:], x[::2], x[::-1], np.broadcast_to(x[0], (3, PER_PAGE))):
        with pytest.raises(InvalidArgumentError, match="not contiguous"):
            uzswap.advise(view, "dontneed")
    assert x.all()
    with pytest.raises(InvalidArgumentError, match="'whatever' is unknown, there is: willneed, cold"):
        uzswap.advise(x, "whatever")  # type: ignore[arg-type]


@pytest.mark.parametrize("hint", ["sequential", "random", "normal"])
def test_hints_count_for_the_whole_array(group: uzswap.MemCgroup, hint: str) -> None:
    x = counting(group, 20)
    assert uzswap.advise(x[:5], hint) == 20 * PAGE
    uzswap.advise(x, "pageout")
    assert (x == np.arange(len(x))).all()


def test_resident_pages_stay(group: uzswap.MemCgroup) -> None:
    x = counting(group, 100)
    uzswap.advise(x, "pageout")
    with uzswap.resident(x[10 * PER_PAGE : 20 * PER_PAGE]) as part:
        assert part[0] == 10 * PER_PAGE
        assert resident_pages(x) == 10
        with pytest.raises(BlockingIOError):
            group.reclaim("1M")
        assert resident_pages(x) == 10
    group.reclaim("40K")
    assert resident_pages(x) == 0


def test_resident_blocks_nest_and_overlap(group: uzswap.MemCgroup) -> None:
    x = counting(group, 30)
    a, b, c = (uzswap.resident(x[i * PER_PAGE : j * PER_PAGE]) for i, j in ((0, 20), (10, 30), (12, 14)))
    for one in (a, b, c):
        one.__enter__()
    for one, left in ((a, 20), (c, 20), (b, 0)):
        one.__exit__(None, None, None)
        uzswap.advise(x, "pageout")
        assert resident_pages(x) == left
    assert (x == np.arange(len(x))).all()


def test_resident_keeps_strided_views_and_what_lies_between(group: uzswap.MemCgroup) -> None:
    x = counting(group, 20)
    with uzswap.resident(x[PER_PAGE : 5 * PER_PAGE : 700]):
        uzswap.advise(x, "pageout")
        assert resident_pages(x) in (3, 4)
        assert uzswap.advise(x, "pageout") == 0


def test_resident_needs_room(group: uzswap.MemCgroup) -> None:
    x = uzswap.zeros(100 * PER_PAGE, cgroup=group)
    group.write("memory.max", "64K")
    with pytest.raises(MemoryError, match=r"400.0 KiB cannot be resident at once: /a/memory.max is 64.0 KiB"):
        uzswap.resident(x).__enter__()
    with uzswap.resident(x[: 8 * PER_PAGE]):
        x[:] = 1
    assert x.all()


def test_resident_in_many_threads(group: uzswap.MemCgroup) -> None:
    group.write("memory.max", "1M")
    x = uzswap.array(np.arange(512 * PER_PAGE), cgroup=group)
    wrong = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(100):
            first = int(rng.integers(0, 500)) * PER_PAGE
            with uzswap.resident(x[first : first + 4 * PER_PAGE]) as part:
                if part[0] != first or part[-1] != first + 4 * PER_PAGE - 1:
                    wrong.append(first)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    uzswap.advise(x, "pageout")
    assert resident_pages(x) == 0


@pytest.mark.parametrize("order", ["C", "F"])
def test_from_file(group: uzswap.MemCgroup, tmp_path: Path, order: str) -> None:
    group.write("memory.max", "1M")
    path = tmp_path / "numbers"
    expected = np.arange(MIB // 2).reshape(1024, -1)
    path.write_bytes(b"head" + expected.tobytes(order="C"))
    x = uzswap.from_file(path, np.int64, (1024, MIB // 2048), 4, order, cgroup=group)
    assert x.flags.owndata
    np.testing.assert_array_equal(x.reshape(-1, order="A"), expected.reshape(-1))
    flat = uzswap.from_file(str(path), "u1", offset=4, cgroup=group)
    assert flat.shape == (expected.nbytes,)
    assert uzswap.from_file(path, ">i4", 3, cgroup=group).shape == (3,)
    assert uzswap.from_file(path, "i4", offset=4 + expected.nbytes, cgroup=group).shape == (0,)


def test_from_file_with_a_file_that_does_not_fit(group: uzswap.MemCgroup, tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    path.write_bytes(bytes(100))
    with pytest.raises(InvalidArgumentError, match="100 bytes from 0 on are not whole items of 8 bytes"):
        uzswap.from_file(path, cgroup=group)
    with pytest.raises(InvalidArgumentError, match="the array has 104 bytes, the file only 100"):
        uzswap.from_file(path, float, 13, cgroup=group)
    for offset in (-1, 101):
        with pytest.raises(InvalidArgumentError, match=f"offset={offset} is not within 100 bytes"):
            uzswap.from_file(path, "u1", offset=offset, cgroup=group)
    with pytest.raises(InvalidArgumentError, match="has no bytes"):
        uzswap.from_file(path, "S", cgroup=group)
    with pytest.raises(FileNotFoundError):
        uzswap.from_file(tmp_path / "missing", cgroup=group)
