"""The public calls of Zswap: pages in and out, bad arguments, threads, integrity."""

import errno
import threading
from typing import Any

import numpy as np
import pytest
from tests.conftest import EngineFactory
from tests.support.faulty import FaultySwap
from tests.support.pages import PAGE_SIZE, page_of_length, pages_of_length, random_page, zero_page
from tests.support.states import fill, left, places, reclaim, stat, stat_delta

from uzswap import REFUSED, IntegrityError, InvalidArgumentError, MemCgroup, StaleHandleError, Zswap
from uzswap.core.boundary.engine import GLOBALS, MAX_ENTRY


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


@pytest.mark.parametrize("size", [1, 7, 4095, 4096, 4097, 10_000, MAX_ENTRY])
@pytest.mark.parametrize("kind", ["zeros", "text", "noise"])
def test_entries_of_any_size_come_back(z: Zswap, g: MemCgroup, size: int, kind: str) -> None:
    data = {"zeros": bytes(size), "text": (b"the quick brown fox " * 4000)[:size], "noise": random_page(1, size)}[kind]
    handle = z.swap_out(data, g)
    if z.where(handle) == "zswap":
        assert reclaim(g, 1).errno == 0
        assert z.where(handle) == "disk"
    assert z.fault_in(handle) == data
    again = z.swap_out(data, g)
    assert z.fault_in(again) == data
    assert int(g.read("memory.swap.current")) == 0


@pytest.mark.parametrize("page", [1000, 4096, 65536])
def test_a_buffer_whose_last_page_is_short(z: Zswap, g: MemCgroup, page: int) -> None:
    data = random_page(1, 100_000)
    handles = z.swap_out_many(data, g, page=page)
    assert len(handles) == -(-len(data) // page)
    out = bytearray(len(data))
    assert z.fault_in_many(handles, out, page=page).nbytes == len(data)
    assert out == data


@pytest.mark.parametrize(
    "buffer",
    [
        b"abc" * 3000,
        bytearray(b"abc" * 3000),
        memoryview(b"abc" * 3000),
        np.arange(3000, dtype=np.float64),
        np.ones((30, 40, 5), np.int16),
    ],
    ids=["bytes", "bytearray", "memoryview", "float64", "3-dimensional"],
)
def test_any_contiguous_buffer(z: Zswap, g: MemCgroup, buffer: Any) -> None:
    handles = z.swap_out_many(buffer, g)
    out = bytearray(memoryview(buffer).nbytes)
    z.fault_in_many(handles, out)
    assert out == memoryview(buffer).tobytes()


def test_no_pages(z: Zswap, g: MemCgroup) -> None:
    handles = z.swap_out_many(b"", g)
    assert handles.tolist() == []
    assert z.fault_in_many(handles).tobytes() == b""
    z.free_many(handles)
    z.free_many([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": b""}, "1 to 65536 bytes, this has 0"),
        ({"data": bytes(MAX_ENTRY + 1)}, "this has 65537: split it"),
        ({"data": np.ones((4, 4))[:, ::2]}, "buffer"),
        ({"node": 1}, "nodes 0 to 0"),
        ({"node": -1}, "nodes 0 to 0"),
    ],
)
def test_bad_arguments_of_swap_out(z: Zswap, g: MemCgroup, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as invalid:
        z.swap_out(**{"data": b"x", "cgroup": g, **arguments})
    assert isinstance(invalid.value, ValueError)
    assert invalid.value.errno == errno.EINVAL


@pytest.mark.parametrize("arguments", [{"page": 0}, {"page": 65537}, {"page": -1}, {"folio": 0}, {"node": 3}])
def test_bad_arguments_of_swap_out_many(z: Zswap, g: MemCgroup, arguments: dict[str, int]) -> None:
    with pytest.raises(InvalidArgumentError):
        z.swap_out_many(bytes(8192), g, **arguments)
    assert int(g.read("memory.swap.current")) == 0


def test_text_is_no_buffer(z: Zswap, g: MemCgroup) -> None:
    with pytest.raises(TypeError):
        z.swap_out("text", g)  # type: ignore[arg-type]


def test_a_cgroup_of_another_engine(engine: EngineFactory, g: MemCgroup) -> None:
    other = engine()
    with pytest.raises(InvalidArgumentError, match="another engine"):
        other.swap_out(b"x", g)


def test_a_removed_cgroup(z: Zswap, g: MemCgroup) -> None:
    g.remove()
    with pytest.raises(OSError, match="removed") as gone:
        z.swap_out(b"x", g)
    assert gone.value.errno == errno.ENODEV
    with pytest.raises(OSError, match="removed"):
        z.swap_out_many(b"x", g)


@pytest.mark.parametrize("handle", [0, -1, 1, 1 << 64, 0xDEAD_BEEF_0000_0001])
def test_handles_that_never_were(z: Zswap, g: MemCgroup, handle: int) -> None:
    fill(z, g, 3, 300)
    for call in (z.fault_in, z.free, z.where):
        with pytest.raises(StaleHandleError) as stale:
            call(handle)
        assert stale.value.errno == errno.ESTALE


def test_a_handle_of_another_engine(engine: EngineFactory, z: Zswap, g: MemCgroup) -> None:
    other = engine()
    fill(other, other.cgroup("/g"), 2, 300)
    (handle,) = fill(other, other.cgroup("/g"), 1, 300, seed=5)
    with pytest.raises(StaleHandleError, match="another engine"):
        z.fault_in(int(handle))


def test_a_used_handle_stays_stale(z: Zswap, g: MemCgroup) -> None:
    """Its place in the table is used again; the handle is not."""
    handle = z.swap_out(page_of_length(300), g)
    z.fault_in(handle)
    for seed in range(100):
        z.swap_out(page_of_length(300, seed), g)
        with pytest.raises(StaleHandleError, match="consumes"):
            z.fault_in(handle)


def test_fault_in_many_is_all_or_nothing(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 100, 300)
    z.free(int(handles[70]))
    with stat_delta(g) as delta, pytest.raises(StaleHandleError, match="number 70"):
        z.fault_in_many(handles)
    assert (delta["zswpin"], delta["zswap"]) == (0, 0)
    rest = np.delete(handles, 70)
    assert z.fault_in_many(rest).tobytes()[: 70 * PAGE_SIZE] == pages_of_length(300, 70)


def test_fault_in_many_of_a_refused_page(z: Zswap, g: MemCgroup) -> None:
    with pytest.raises(StaleHandleError, match="handle 0, number 0: the page was refused"):
        z.fault_in_many([REFUSED])


def test_fault_in_many_twice_the_same(z: Zswap, g: MemCgroup) -> None:
    (handle,) = fill(z, g, 1, 300)
    with pytest.raises(OSError, match="given twice") as busy:
        z.fault_in_many([handle, handle])
    assert busy.value.errno == errno.EBUSY
    assert z.fault_in(int(handle)) == page_of_length(300)


def test_fault_in_many_with_too_little_room(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 3, 300)
    with pytest.raises(InvalidArgumentError, match="has 4096 bytes"):
        z.fault_in_many(handles, bytearray(3 * PAGE_SIZE - 1))
    with pytest.raises(InvalidArgumentError, match="has 4096 bytes"):
        z.fault_in_many(handles, page=1000)
    with pytest.raises(InvalidArgumentError, match="read-only"):
        z.fault_in_many(handles, bytes(3 * PAGE_SIZE))
    assert z.fault_in_many(handles).tobytes() == pages_of_length(300, 3)


def test_fault_in_many_without_consuming(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 3, 300)
    for _ in range(2):
        assert z.fault_in_many(handles, consume=False).tobytes() == pages_of_length(300, 3)
    z.free_many(handles)
    with pytest.raises(StaleHandleError):
        z.fault_in_many(handles, consume=False)


def test_free_many_is_all_or_nothing_and_skips_0(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 4, 300)
    with pytest.raises(StaleHandleError, match="is not valid"):
        z.free_many([*handles, 12345 << 32 | 1])
    assert left(z, g) == 4
    z.free_many([0, *handles, 0])
    assert left(z, g) == 0


def test_replace_a_stale_handle(z: Zswap, g: MemCgroup) -> None:
    with pytest.raises(StaleHandleError):
        z.swap_out(b"x", g, replace=77)
    assert int(g.read("memory.swap.current")) == 0


def test_a_bad_page_does_not_replace(z: Zswap, g: MemCgroup) -> None:
    (handle,) = map(int, fill(z, g, 1, 300))
    with pytest.raises(InvalidArgumentError):
        z.swap_out(b"", g, replace=handle)
    assert z.fault_in(handle) == page_of_length(300)


def test_without_a_device_what_zswap_refuses_stays(engine: EngineFactory) -> None:
    z = engine(swap=None)
    g = z.cgroup("/g")
    assert z.swap_path is None
    with pytest.raises(OSError, match="no device") as refused:
        z.swap_out(random_page(), g)
    assert (refused.value.errno, refused.value.filename) == (errno.ENOMEM, "/g")
    handles = z.swap_out_many(page_of_length(300) + random_page() + zero_page(), g)
    assert (handles != REFUSED).tolist() == [True, False, True]


def test_a_corrupted_block_costs_that_access_only() -> None:
    with FaultySwap(16 << 20) as disk, Zswap(disk.path, "16M") as z:
        g = z.cgroup("/jobs/a")
        handles = fill(z, g, 3, 1000, referenced=False)
        reclaim(g, 3000)
        info = z.core.info(int(handles[1]))
        assert info is not None
        disk.corrupt(info.location + 200)
        with pytest.raises(IntegrityError, match="/jobs/a") as corrupt:
            z.fault_in(int(handles[1]))
        assert (corrupt.value.errno, corrupt.value.cgroup) == (errno.EIO, "/jobs/a")
        assert z.core.globals()[GLOBALS.index("uzswap.checksum_fail")] == 1
        with pytest.raises(IntegrityError, match="number 1"):
            z.fault_in_many(handles)
        assert z.fault_in(int(handles[0])) == page_of_length(1000)
        assert z.fault_in(int(handles[2])) == page_of_length(1000, 2)
        assert z.where(int(handles[1])) == "disk"
        z.free(int(handles[1]))
        z.check()


def test_a_device_that_cannot_be_read() -> None:
    with FaultySwap(16 << 20) as disk, Zswap(disk.path, "16M") as z:
        g = z.cgroup("/g")
        (handle,) = map(int, fill(z, g, 1, 1000, referenced=False))
        reclaim(g, 1)
        disk.fail_reads(errno.EIO)
        with pytest.raises(OSError, match="could not be loaded") as failed:
            z.fault_in(handle)
        assert (failed.value.errno, failed.value.filename) == (errno.EIO, "/g")
        assert not isinstance(failed.value, IntegrityError)
        disk.heal()
        assert z.fault_in(handle) == page_of_length(1000)


class RemovedMeanwhile:
    """The data plane, but that a cgroup is removed while a load is under way."""

    def __init__(self, z: Zswap, g: MemCgroup) -> None:
        self._core = z.core
        self._g = g

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._core, name)
        if name not in ("load", "load_bytes"):
            return call

        def then_remove(*args: Any) -> Any:
            result = call(*args)
            if self._g.online:
                self._g.remove()
            return result

        return then_remove


@pytest.mark.parametrize("many", [False, True])
def test_a_load_survives_the_removal_of_its_cgroup(z: Zswap, many: bool) -> None:
    g = z.cgroup("/g")
    page = random_page(1)
    handle = z.swap_out(page, g)
    for _ in range(2):
        reclaim(g, 1 << 20)
    assert z.where(handle) == "disk"
    z._paging._core = RemovedMeanwhile(z, g)  # type: ignore[assignment]
    try:
        data = z.fault_in_many([handle]).tobytes() if many else z.fault_in(handle)
    finally:
        z._paging._core = z.core
    assert data == page
    assert not g.online
    with pytest.raises(StaleHandleError):
        z.where(handle)


def test_threads_share_an_engine(z: Zswap) -> None:
    """Every thread stores, loads and frees its own pages while others write back; each gets its own bytes again."""
    errors: list[BaseException] = []
    p = z.cgroup("/p")

    def work(n: int) -> None:
        try:
            g = p.cgroup(f"t{n}")
            for turn in range(20):
                pages = pages_of_length(100 + 37 * n, 60, seed=1000 * turn)
                handles = z.swap_out_many(pages, g)
                if turn % 3 == n % 3:
                    reclaim(g, 2000)
                one = int(handles[0])
                assert z.where(one) in ("zswap", "disk")
                assert z.fault_in(one) == pages[:PAGE_SIZE]
                if turn % 5 == 0:
                    z.free_many(handles[1:])
                else:
                    assert z.fault_in_many(handles[1:]).tobytes() == pages[PAGE_SIZE:]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        reclaim(p, 10_000)
    for thread in threads:
        thread.join()
    assert errors == []
    assert int(p.read("memory.swap.current")) == 0
    assert stat(p, "zswap") == 0


def test_places(z: Zswap, g: MemCgroup) -> None:
    handles = z.swap_out_many(zero_page() + page_of_length(300) + b"\x07" * PAGE_SIZE, g)
    assert places(z, handles) == ["zero", "zswap", "zero"]


def test_check_tells_what_is_off(z: Zswap, g: MemCgroup) -> None:
    z.check()
    g.cgroup("child")
    z.charge(g, PAGE_SIZE)
    g.children["child"].zswap.core.set_writeback(g.children["child"].index, False)
    with pytest.raises(AssertionError, match="/g/child: the data plane does not agree that writeback is True"):
        z.check()
    g.children["child"].writeback = True
    z.uncharge(g, PAGE_SIZE)
    z.check()


def test_check_waits_for_the_engines_own_work() -> None:
    with FaultySwap(64 << 20) as disk, Zswap(disk.path, "64M", max_pool="64M") as z:
        fill(z, z.cgroup("/g"), 1000, 3000, referenced=False)
        disk.block_writes()
        z.parameters.set("accept_threshold_percent", "0")
        z.wake_shrink_worker()
        disk.wait_blocked()
        assert z.pool_over_threshold() > 0
        disk.release()
        z.check()
        assert z.pool_over_threshold() == 0
