"""Bytes that do not come back as they were given: on the device, where each record says whose it is, and in the pool.

What is damaged is found when it is read, by the record's checksum, handle, lengths, and the engine's nonce; an engine
that is paranoid keeps a checksum of each entry from store to load besides.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.store.values import evict
from tests.support.pages import PAGE_SIZE, page_of_length, random_page

from uzswap import IntegrityError, ReclaimError, ReclaimIncomplete, Store, Zswap

if TYPE_CHECKING:
    from tests.conftest import EngineFactory, Tally

    from uzswap.core.boundary.engine import Handles

#: of core/device/record.pxd: the seal, the handle, both lengths
RECORD = 32


def location(z: Zswap, handle: int) -> tuple[int, int]:
    """Where its bytes are, in the file or in memory, and how many."""
    info = z.core.info(int(handle))
    assert info is not None
    return info.location, info.length


def written(z: Zswap, n: int = 8, seed: int = 0) -> tuple[Handles, list[bytes]]:
    """Pages of equal compressed length, on the device."""
    pages = [page_of_length(1000, seed + i) for i in range(n)]
    handles = z.swap_out_many(b"".join(pages), z.cgroup("/a"))
    z.root.reclaim(n * 1000, source="zswap")
    assert {z.where(int(handle)) for handle in handles} == {"disk"}
    return handles, pages


def write_back(z: Zswap) -> None:
    """All that there is."""
    with contextlib.suppress(ReclaimIncomplete):
        z.root.reclaim("1M", source="zswap")


def is_eio(z: Zswap, handle: int) -> None:
    for load in (z.fault_in, lambda h: z.fault_in_many(np.array([h], np.uint64))):
        with pytest.raises(IntegrityError, match=r"/a.*checksum") as info:
            load(int(handle))
        assert info.value.errno == errno.EIO


def flip(blocks: bytearray, at: int, length: int) -> None:
    blocks[at + RECORD + length // 2] ^= 1


def wrong_length(blocks: bytearray, at: int, length: int) -> None:
    blocks[at + 24] ^= 1


def not_written(blocks: bytearray, at: int, length: int) -> None:
    """A write that was lost: what a new file reads there."""
    blocks[at : at + RECORD + length] = bytes(RECORD + length)


def torn(blocks: bytearray, at: int, length: int) -> None:
    blocks[at + RECORD + length - 7 : at + RECORD + length] = bytes(7)


def of_a_neighbour(blocks: bytearray, at: int, length: int) -> None:
    """A whole record, of another entry."""
    size = RECORD + length + 7 & ~7
    blocks[at : at + size] = blocks[at + size : at + 2 * size]


@pytest.mark.parametrize("damage", [flip, wrong_length, not_written, torn, of_a_neighbour])
def test_a_damaged_record_is_an_error_of_its_entry_alone(
    engine: EngineFactory, tmp_path: Path, tally: Tally, damage: Callable[[bytearray, int, int], None]
) -> None:
    swap = tmp_path / "named"
    z = engine(swap=str(swap))
    handles, pages = written(z)
    at, length = location(z, int(handles[3]))
    with swap.open("r+b") as file:
        blocks = bytearray(file.read())
        damage(blocks, at, length)
        file.seek(0)
        file.write(blocks)
        os.fsync(file.fileno())
    is_eio(z, int(handles[3]))
    for i in (0, 1, 2, 4, 5, 6, 7):
        assert z.fault_in(int(handles[i])) == pages[i]
    z.free(int(handles[3]))
    tally("bytes compared", 7 * PAGE_SIZE)


def test_a_block_of_an_earlier_time_is_not_taken_for_what_was_written_since(
    engine: EngineFactory, tmp_path: Path
) -> None:
    """The same place, the same lengths, an entry with the same index: its generation is another."""
    swap = tmp_path / "named"
    z = engine(swap=str(swap), swap_size="4M")
    handles, _ = written(z)
    places = [location(z, int(handle)) for handle in handles]
    before = swap.read_bytes()
    z.free_many(handles)
    # Each of the segments in turn, until the first is used again.
    for turn in range(1, 10):
        handles, _pages = written(z, seed=100 * turn)
        if [location(z, int(handle)) for handle in handles] == places:
            break
        z.free_many(handles)
    else:
        pytest.fail("no place was used again")
    swap.write_bytes(before)
    for handle in handles:
        is_eio(z, int(handle))


def test_a_block_of_another_engine_is_foreign(engine: EngineFactory, tmp_path: Path) -> None:
    """Written by an engine that did the very same, so that all but the nonce agrees."""
    first, second = (engine(swap=str(tmp_path / name)) for name in ("one", "two"))
    handles, _ = written(first)
    others, _ = written(second)
    assert handles.tolist() == others.tolist()
    assert [location(first, int(handle)) for handle in handles] == [location(second, int(h)) for h in others]
    (tmp_path / "one").write_bytes((tmp_path / "two").read_bytes())
    for handle in handles:
        is_eio(first, int(handle))


def test_the_cleaner_leaves_what_is_damaged_where_it_is(engine: EngineFactory, tmp_path: Path, tally: Tally) -> None:
    """Moved to another place it would be sealed anew, and be right."""
    swap = tmp_path / "named"
    z = engine(swap=str(swap), swap_size="4M")
    noise = [random_page(i) for i in range(512)]
    handles = z.swap_out_many(b"".join(noise), z.cgroup("/a"))
    z.root.reclaim("2M", source="zswap")
    kept = [i for i in range(512) if i % 8 == 0 and z.where(int(handles[i])) == "disk"]
    bad = kept[:: len(kept) // 4]
    with swap.open("r+b") as file:
        for i in bad:
            at, length = location(z, int(handles[i]))
            file.seek(at + RECORD + length // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 0x10]))
        os.fsync(file.fileno())
    z.free_many(handles[[i for i in range(512) if i not in kept]])
    cleaned = z.core.device().cleaned_segments
    more = z.swap_out_many(b"".join(random_page(1000 + i) for i in range(640)), z.cgroup("/b"))
    with contextlib.suppress(ReclaimError):  # what can't be moved keeps its segment
        z.cgroup("/b").reclaim("2560K", source="zswap")
    assert z.core.device().cleaned_segments > cleaned
    for i in kept:
        if i in bad:
            is_eio(z, int(handles[i]))
        else:
            assert z.fault_in(int(handles[i])) == noise[i]
            tally("bytes compared", PAGE_SIZE)
    z.free_many(more)


# The pool


def damage_pool(z: Zswap, handle: int, at: float = 0.5) -> None:
    """As a stray write of the program would."""
    address, length = location(z, handle)
    ctypes.c_ubyte.from_address(address + int(length * at)).value ^= 1


@pytest.mark.parametrize("kind", ["raw", "lz4", "zstd", "shuffled"])
def test_a_paranoid_engine_finds_damage_in_the_pool(engine: EngineFactory, kind: str) -> None:
    z = engine(paranoid=True)
    group = z.cgroup("/a")
    numbers = np.arange(50_000, 50_512, dtype=np.uint64).tobytes()
    page = {"raw": random_page(), "lz4": page_of_length(1500), "zstd": numbers, "shuffled": numbers}[kind]
    stored = z.swap_out_many(
        page * 3,
        group,
        compressor="zstd" if kind == "zstd" else None,
        filter=8 if kind == "shuffled" else 0,
    )
    damage_pool(z, int(stored[1]))
    with pytest.raises(IntegrityError, match="/a"):
        z.fault_in(int(stored[1]))
    with pytest.raises(IntegrityError, match="/a"):
        z.fault_in_many(stored)
    assert z.fault_in(int(stored[0])) == z.fault_in(int(stored[2])) == page
    z.free(int(stored[1]))


def test_damage_in_the_pool_is_found_whatever_is_done_to_the_entry_meanwhile(engine: EngineFactory) -> None:
    """On the device its record is right: it was sealed as it was in the pool."""
    z = engine(paranoid=True)
    group = z.cgroup("/a")
    noise = random_page()
    text = b"".join(bytes([65 + i % 7]) * (i % 5 + 1) for i in range(1500))[:PAGE_SIZE]
    handles = [z.swap_out(data, group) for data in (noise, noise, text, text)]
    for handle in (handles[0], handles[2]):
        damage_pool(z, handle)
    group.write("uzswap.recompress", "1M codec=zstd:9")
    write_back(z)
    assert {z.where(handle) for handle in handles} == {"disk"}
    for handle, data, good in zip(handles, (noise, noise, text, text), (False, True, False, True), strict=True):
        if good:
            assert z.fault_in(handle) == data
        else:
            with pytest.raises(IntegrityError):
                z.fault_in(handle)
            z.free(handle)


def test_a_paranoid_store_does_not_give_out_a_wrong_value(engine: EngineFactory) -> None:
    z = engine(paranoid=True)
    with Store[str, Any](z.cgroup("/a")) as store:
        store["good"] = random_page(1, 30_000)
        store["bad"] = random_page(2, 30_000)
        store["small"] = "".join(map(str, range(100)))
        evict(store)
        for key in ("bad", "small"):
            packed = store._slots.by_key[key].packed
            assert packed is not None
            damage_pool(z, int(packed.handles[0]))
            for _ in range(2):
                with pytest.raises(IntegrityError, match="/a"):
                    store[key]
        assert store["good"] == random_page(1, 30_000)


def test_a_buffer_that_another_thread_writes_to_is_no_damage(engine: EngineFactory) -> None:
    """The sum is that of the bytes that were compressed."""
    z = engine(paranoid=True)
    group = z.cgroup("/a")
    data = np.zeros(64 * PAGE_SIZE, np.uint8)
    done = threading.Event()

    def scribble() -> None:
        rng = np.random.default_rng(1)
        while not done.is_set():
            data[rng.integers(0, len(data), 4096)] = rng.integers(0, 256, 4096, np.uint8)

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        for _ in range(30):
            z.fault_in_many(z.swap_out_many(data, group))
    finally:
        done.set()
        thread.join()


def test_what_a_paranoid_engine_keeps_is_counted_and_given_back(engine: EngineFactory) -> None:
    plain, paranoid = engine(), engine(paranoid=True)
    for z, each in ((plain, 48), (paranoid, 56)):
        group = z.cgroup("/a")
        handles = z.swap_out_many(random_page(0, 16 * PAGE_SIZE), group)
        assert group.stats()["uzswap.metadata_bytes"] == 16 * each
        z.free_many(handles)
        assert group.stats()["uzswap.metadata_bytes"] == 0
