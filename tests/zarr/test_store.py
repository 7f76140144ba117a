"""uzswap.zarr.Store: zarr's own tests of it, and what they don't ask: the event loop, pickles, limits, caches."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import os
import pickle
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.support.child import run

import uzswap
from uzswap.caches import Bounded, Dumped

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

zarr = pytest.importorskip("zarr", "3", reason="zarr 3 is not installed: pip install 'uzswap[zarr]'")
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest  # noqa: E402
from zarr.core.buffer import cpu, default_buffer_prototype  # noqa: E402
from zarr.core.sync import cleanup_resources, sync  # noqa: E402
from zarr.experimental.cache_store import CacheStore  # noqa: E402
from zarr.storage import LocalStore, MemoryStore  # noqa: E402

from uzswap.zarr import Store  # noqa: E402

ROOT = Path(__file__).parents[2]
PROTOTYPE = default_buffer_prototype()


def buffer(data: bytes) -> cpu.Buffer:
    return cpu.Buffer.from_bytes(data)


@pytest.fixture
def group(engine: EngineFactory) -> uzswap.MemCgroup:
    return engine().cgroup("/zarr")


@pytest.fixture
def no_loop() -> Iterator[None]:
    """End the event loop of zarr's own thread."""
    yield
    cleanup_resources()


@pytest.mark.slow
def test_zarrs_own_tests_pass() -> None:
    pytest.importorskip("pytest_asyncio", reason="zarr's tests need pytest-asyncio: pip install pytest-asyncio")
    settings = ["-c", "tests/zarr/suite.ini", "--rootdir=.", "-q", "tests/zarr/suite.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *settings], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 140


# Reading and writing


def test_byte_ranges_of_what_is_on_the_disk(group: uzswap.MemCgroup) -> None:
    store = Store(group)
    data = np.random.default_rng(1).bytes(200_000)
    store.set_sync("c/0", buffer(data))
    group.reclaim("200000")
    group.reclaim(int(group.read("memory.zswap.current")), source="zswap")
    assert store.mapping.where("c/0") == "disk"  # type: ignore[attr-defined]
    wanted = {
        RangeByteRequest(70_000, 140_001): data[70_000:140_001],
        RangeByteRequest(199_999, 300_000): data[-1:],
        RangeByteRequest(5, 5): b"",
        OffsetByteRequest(199_000): data[199_000:],
        SuffixByteRequest(16): data[-16:],
        SuffixByteRequest(300_000): data,
        None: data,
    }

    async def read() -> list[bytes]:
        found = await store.get_partial_values(PROTOTYPE, [("c/0", part) for part in wanted])
        assert await store.get_partial_values(PROTOTYPE, [("c/1", None), ("c/1", SuffixByteRequest(1))]) == [None, None]
        return [part.to_bytes() for part in found if part is not None]

    assert asyncio.run(read()) == list(wanted.values())


@pytest.mark.usefixtures("no_loop")
def test_a_chunk_of_a_shard_is_all_that_is_loaded(group: uzswap.MemCgroup) -> None:
    """64 KiB of shards of 4 MiB, and the index at their end."""
    x = zarr.create_array(
        Store(group), shape=(2048, 1024), chunks=(16, 1024), shards=(1024, 1024), dtype="f4", compressors=None
    )
    data = np.random.default_rng(1).random((2048, 1024), np.float32)
    x[:] = data
    with contextlib.suppress(uzswap.ReclaimError):
        group.reclaim("1G")
    before = group.stats()
    for row in (40, 1500, 41):
        assert (x[row] == data[row]).all()
    now = group.stats()
    assert 0 < now["pgmajfault"] - before["pgmajfault"] <= 3 * 4 * 16
    assert now["anon"] < 1 << 20
    assert (x[:] == data).all()


def test_a_part_that_is_held_does_not_keep_the_value(group: uzswap.MemCgroup) -> None:
    store = Store(group)
    store.set_sync("a", buffer(bytes(range(250)) * 400))
    part = store.get_sync("a", byte_range=RangeByteRequest(0, 10))
    assert group.reclaim("100000").reclaimed >= 100_000
    assert part is not None
    assert part.to_bytes() == bytes(range(10))


def test_what_is_set_is_a_copy_and_what_is_read_cannot_be_written_to(group: uzswap.MemCgroup) -> None:
    store = Store(group)
    mine = np.arange(10, dtype="u1")
    store.set_sync("a", cpu.Buffer.from_array_like(mine))
    mine[:] = 0
    found = store.get_sync("a")
    assert found is not None
    assert found.to_bytes() == bytes(range(10))
    assert not found.as_numpy_array().flags.writeable


def test_sizes_are_told_without_loading(group: uzswap.MemCgroup) -> None:
    store = Store(group)
    for n in (0, 1, 5000, 300_000):
        store.set_sync(f"c/{n}", buffer(bytes(n)))
    group.reclaim("300000")

    async def sizes() -> int:
        assert [await store.getsize(f"c/{n}") for n in (0, 1, 5000, 300_000)] == [0, 1, 5000, 300_000]
        return await store.getsize_prefix("c/")

    assert asyncio.run(sizes()) == 305_001
    assert store.mapping.where("c/300000") == "zero"  # type: ignore[attr-defined]


def test_set_if_not_exists_is_one_step_and_loads_nothing(group: uzswap.MemCgroup) -> None:
    store = Store(group)

    async def race() -> bytes:
        await asyncio.gather(*(store.set_if_not_exists("a", buffer(bytes([n]) * 5000)) for n in range(1, 20)))
        first = await store.get("a", PROTOTYPE)
        assert first is not None
        data = first.to_bytes()
        del first
        store.mapping.evict("a")  # type: ignore[attr-defined]
        await store.set_if_not_exists("a", buffer(b"late"))
        assert store.mapping.where("a") != "resident"  # type: ignore[attr-defined]
        return data

    data = asyncio.run(race())
    found = store.get_sync("a")
    assert found is not None
    assert found.to_bytes() == data
    assert len(set(data)) == 1


def test_where_there_is_no_room_the_old_value_stays(group: uzswap.MemCgroup) -> None:
    store = Store(group)
    store.set_sync("a", buffer(b"old"))
    group.write("memory.max", "1M")
    with pytest.raises(MemoryError, match="/zarr"):
        asyncio.run(store.set("a", buffer(bytes(2 << 20))))
    found = store.get_sync("a")
    assert found is not None
    assert found.to_bytes() == b"old"
    with pytest.raises(TypeError, match=r"zarr\.abc\.buffer\.Buffer"):
        store.set_sync("a", b"bytes")  # type: ignore[arg-type]


def test_a_directory_is_deleted_whatever_its_size(group: uzswap.MemCgroup) -> None:
    store = Store(group)
    for n in range(1200):
        store.mapping[f"a/{n}"] = b"1"
    store.mapping["ab/1"] = store.mapping["a.b"] = b"2"

    async def delete() -> list[list[str]]:
        lists = [[name async for name in store.list_dir("a")], [name async for name in store.list_prefix("a/11")]]
        await store.delete_dir("a")
        return [*lists, [key async for key in store.list()]]

    names, elevens, left = asyncio.run(delete())
    assert sorted(names, key=int) == [str(n) for n in range(1200)]
    assert len(elevens) == 111
    assert left == ["ab/1", "a.b"]


def test_nothing_blocks_the_event_loop(group: uzswap.MemCgroup) -> None:
    """What reads and writes waits until the loop, which goes on meanwhile, lets it."""
    let_go = threading.Event()

    def waits(data: bytes) -> bytes:
        assert let_go.wait(60)
        return data

    store = Store(Dumped(uzswap.Store(group), dump=waits, load=waits))

    async def main() -> bytes:
        async def other() -> None:
            let_go.set()

        waiting = asyncio.create_task(store.set("a", buffer(b"1" * 100_000)))
        await asyncio.gather(waiting, other())
        let_go.clear()
        reading = asyncio.create_task(store.get("a", PROTOTYPE))
        await asyncio.sleep(0)  # let it begin
        await other()
        found = await reading
        assert found is not None
        return found.to_bytes()

    assert asyncio.run(main()) == b"1" * 100_000


# What a store is of


def test_stores_of_a_cgroup_have_the_same_chunks_and_those_of_others_do_not(group: uzswap.MemCgroup) -> None:
    store, reader = Store(group), Store(group, read_only=True)
    other = Store(group.zswap.cgroup("/other"))  # type: ignore[attr-defined]
    store.set_sync("a", buffer(b"1"))
    assert reader.get_sync("a") == buffer(b"1")
    assert other.get_sync("a") is None
    assert store == Store(group) == reader.with_read_only(False)
    assert store != reader
    assert store != other
    assert store != MemoryStore()
    with pytest.raises(ValueError, match="read-only"):
        reader.set_sync("a", buffer(b"2"))
    for change in (reader.clear, lambda: reader.delete_dir("a"), lambda: reader.set_if_not_exists("b", buffer(b"2"))):
        with pytest.raises(ValueError, match="read-only"):
            asyncio.run(change())
    assert reader.get_sync("a") == buffer(b"1")


def test_chunks_go_with_the_last_store_that_has_them(group: uzswap.MemCgroup) -> None:
    store, again = Store(group), Store(group)
    store.set_sync("a", buffer(bytes(100_000)))
    del store
    gc.collect()
    assert again.get_sync("a") is not None
    del again
    gc.collect()
    assert not group.members
    assert group.stats()["anon"] == 0
    group.remove()
    with pytest.raises(OSError, match="was removed"):
        Store(group)


def test_what_is_no_cgroup_and_no_mapping_is_refused() -> None:
    with pytest.raises(TypeError, match="a cgroup is needed"):
        Store("/zarr")  # type: ignore[arg-type]


def test_a_pickle_stands_for_the_chunks(group: uzswap.MemCgroup) -> None:
    store = Store(group, read_only=True)
    text = pickle.dumps(store)
    assert pickle.loads(text) == store
    del store
    gc.collect()
    with pytest.raises(FileNotFoundError, match="are gone"):
        pickle.loads(text)


def test_a_pickle_is_an_error_in_any_other_process(group: uzswap.MemCgroup) -> None:
    store = Store(group)
    store.set_sync("a", buffer(b"1"))
    text = pickle.dumps(store)
    code = f"import pickle\ntry: pickle.loads({text!r})\nexcept ProcessLookupError as error: print(error)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"in the memory of process {os.getpid()}" in said
    assert "LocalStore" in said
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads are running, 3.12
        pid = os.fork()
    if not pid:
        try:  # its own copy is there; the pickle means the parent's
            pickle.loads(text)
        except ProcessLookupError:
            os._exit(0 if store.get_sync("a") == buffer(b"1") else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# Others on it


@pytest.mark.usefixtures("no_loop")
def test_caches_of_any_number_of_groups_have_one_budget(engine: EngineFactory, tmp_path: Path) -> None:
    z = engine(swap_size="4M")
    budget = z.cgroup("/cache")
    budget.write("memory.max", "2M")
    rng = np.random.default_rng(2)
    arrays = []
    for number in range(3):
        source = zarr.create_array(
            LocalStore(tmp_path / str(number)), shape=(40, 50_000), chunks=(1, 50_000), dtype="u1", compressors=None
        )
        source[:] = rng.integers(0, 256, (40, 50_000), dtype="u1")  # 2 MB that cannot be compressed
        cache = Store(Bounded(uzswap.Store(z.cgroup(f"/cache/{number}"))))
        cached = CacheStore(source.store, cache_store=cache)
        arrays.append((source, zarr.open_array(cached, mode="r+"), cached))
    for _ in range(2):
        for source, array, _ in arrays:
            for row in range(40):
                assert (array[row] == source[row]).all()
            assert budget.usage() <= 2 << 20
    arrays[0][1][3] = 9
    assert (arrays[0][0][3] == 9).all()
    assert (arrays[0][1][3] == 9).all()
    assert budget.stats()["zswpwb"] > 0
    assert sum(cached.cache_stats()["hits"] for *_, cached in arrays) > 0
    for *_, cached in arrays:
        sync(cached.clear_cache())
    assert budget.usage() < 1 << 20


@pytest.mark.slow
def test_xarray_writes_and_reads_through_it() -> None:
    """In a process of its own, since pandas, which it takes, starts threads that never end."""
    if importlib.util.find_spec("xarray") is None:
        pytest.skip("xarray is not installed: pip install xarray")
    run(
        """
        import warnings
        import numpy as np, uzswap, xarray
        from uzswap.zarr import Store

        z = uzswap.Zswap(swap_size="64M")
        group = z.cgroup("/zarr")
        store = Store(group)
        data = np.arange(24 * 100 * 50, dtype="f4").reshape(24, 100, 50)
        written = xarray.Dataset(
            {"t": (("time", "lat", "lon"), data), "station": ("time", [f"s{n}" for n in range(24)])},
            coords={"time": np.arange(24), "lat": np.linspace(-90, 90, 100)},
            attrs={"title": "a title"},
        )
        warnings.simplefilter("ignore")  # of zarr, of strings without a specification
        written.to_zarr(store, encoding={"t": {"chunks": (6, 100, 50)}}, consolidated=False)
        store.mapping.reclaim("1G")
        assert group.stats()["anon"] == 0
        found = xarray.open_zarr(store, chunks=None, consolidated=False)
        xarray.testing.assert_identical(found.load(), written)
        assert group.stats()["zswpin"] > 0
        """
    ).check()
