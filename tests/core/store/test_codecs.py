"""Codecs of the data plane: byte shuffle, dictionaries, who keeps which alive."""

import ctypes
import errno
import json
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import failing
from tests.support.child import run

from uzswap.core.boundary import engine as core
from uzswap.core.boundary.writer import Writer

MIB = 1 << 20
WORDS = ("the", "of", "order", "shipping", "delayed", "payment", "accepted", "customer", "refund", "returned", "box")
CITIES = ("London", "Berlin", "Paris", "Madrid", "Lagos", "Tokyo", "Lima", "Oslo", "Cairo", "Austin", "Quito")


def records(n: int, seed: int = 1, kind: str = "order") -> list[bytes]:
    """JSON-like values of 100 to 1000 bytes."""
    choose = random.Random(seed)
    return [
        json.dumps(
            {
                f"{kind}_id": choose.getrandbits(40),
                "city": choose.choice(CITIES),
                "items": [
                    {"sku": f"{kind}-{choose.randrange(9999):04}", "qty": choose.randrange(9)} for _ in range(1 + i % 5)
                ],
                "note": " ".join(choose.choices(WORDS, k=choose.randrange(20))),
            }
        ).encode()
        for i in range(n)
    ]


def train(samples: list[bytes], capacity: int = 16384) -> bytes:
    return core.train_dictionary(b"".join(samples), np.array([len(one) for one in samples], np.uint64), capacity)


@cache
def content(kind: str) -> bytes:
    return train(records(600, 0, kind))


def dictionary(engine: core.Engine, kind: str = "order", level: int = 3) -> int:
    """A held slot."""
    slot = engine.dictionary_new(content(kind), level)
    assert slot > 0
    return slot


def store(engine: core.Engine, values: list[bytes], codec: int = -1, **how: int) -> np.ndarray:
    got = np.zeros(len(values), np.uint64)
    for i, value in enumerate(values):
        engine.store(value, len(value), 0, 0, got[i : i + 1], codec=codec, **how)
    assert got.all()
    return got


def load(engine: core.Engine, got: np.ndarray, values: list[bytes]) -> None:
    for i, value in enumerate(values):
        assert engine.load_bytes(got[i : i + 1], len(value), len(value))[0] == value


def write_back(engine: core.Engine) -> int:
    """Everything; returns the number of entries."""
    lrus, positions, writer = np.zeros(1, np.uint64), np.zeros(1, np.uint64), Writer(engine)
    while not writer.walk(lrus, positions, 1 << 20, 1 << 40, engine.stamp()).exhausted:
        pass
    return writer.finish().entries


@contextmanager
def attached(path: Path) -> Iterator[core.Engine]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, 16 * MIB)
    engine = core.Engine()
    try:
        assert engine.attach_device(fd, 16 * MIB, False) == 0
        yield engine
        assert engine.check() == []
    finally:
        engine.close()
        os.close(fd)


# Every codec brings back every byte


def contents() -> st.SearchStrategy[bytes]:
    def numbers(kind: str, n: int, step: int, tail: int) -> bytes:
        return (np.arange(n) * step).astype(kind).tobytes() + bytes(range(tail))

    return st.one_of(
        st.binary(min_size=1, max_size=3000),
        st.builds(
            numbers, st.sampled_from(["<u2", "<i4", "<f8", "<c16"]), st.integers(1, 4000), st.integers(1, 999),
            st.integers(0, 20),
        ),
        st.sampled_from(records(50)),
        st.builds(lambda one, n: (one * n)[:65536], st.binary(min_size=1, max_size=40), st.integers(1, 65536)),
    )  # fmt: skip


@settings(max_examples=60)
@given(st.lists(contents(), min_size=1, max_size=12), st.integers(0, 40), st.sampled_from([0, core.TRY_FILTER]),
       st.sampled_from(["engine", "lz4", "zstd", "dictionary"]), st.booleans())  # fmt: skip
def test_what_comes_back_is_what_was_stored(
    tmp_path_factory: pytest.TempPathFactory, values: list[bytes], item: int, flags: int, which: str, small: bool
) -> None:
    with attached(tmp_path_factory.mktemp("swap") / "swap") as engine:
        made = dictionary(engine)
        codec = {
            "engine": lambda: -1,
            "lz4": lambda: engine.codec_get(core.LZ4, 7, item),
            "zstd": lambda: engine.codec_get(core.ZSTD, 9),
            "dictionary": lambda: made,
        }[which]()
        values = [value[: core.MAX_ENTRY] for value in values]
        how = {"filter": item, "flags": flags, "small": made if small else -1, "small_bytes": 500}
        got = store(engine, values, codec, **how)
        again = store(engine, values, codec, **how)
        write_back(engine)
        fresh = store(engine, values, codec, **how)
        for handles in (got, fresh, again):
            load(engine, handles, values)
        assert engine.pool_pages() == 0


@pytest.mark.parametrize("item", [*range(1, 34), 255, 4096, 65536])
@pytest.mark.parametrize("size", [1, 15, 4095, 4096, 65536])
def test_the_shuffle_of_any_item_size_is_undone(engine: core.Engine, item: int, size: int) -> None:
    value = (b"some text of no particular length, " * 2000)[:size]
    load(engine, store(engine, [value], filter=item), [value])


def test_shuffled_bytes_are_those_that_blosc_has() -> None:
    """The first bytes of all items, then the second, ...: what lz4 makes of them is known from shuffling by hand."""
    engine = core.Engine()
    engine.set_enabled(True)
    counts = np.random.default_rng(1).poisson(40, 16384).astype(np.int32)
    by_hand = np.ascontiguousarray(counts.view(np.uint8).reshape(-1, 4).T).tobytes()
    shuffled, plain = store(engine, [counts.tobytes()], filter=4), store(engine, [by_hand])
    lengths = [info.length for one in (shuffled, plain) if (info := engine.info(int(one[0])))]
    assert lengths[0] == lengths[1] < 65536 / 3.5
    engine.close()


@pytest.mark.parametrize(("name", "better"), [("counts", True), ("prices", False)])
def test_the_filter_is_tried_where_that_was_asked_for(engine: core.Engine, name: str, better: bool) -> None:
    rng = np.random.default_rng(1)
    data = {
        "counts": rng.poisson(40, 32768).astype(np.int64),
        "prices": np.round(100 + np.cumsum(rng.normal(0, 0.05, 32768)), 2),
    }[name]
    got = np.zeros(4, np.uint64)
    engine.store(data.view(np.uint8), 65536, 0, 0, got, flags=core.TRY_FILTER, filter=8)
    filters = set()
    for handle in got.tolist():
        info = engine.info(handle)
        assert info is not None
        codec = engine.codec_info(info.codec)
        assert codec is not None
        filters.add(codec.filter)
    assert filters == {8 if better else 0}
    out = bytearray(data.nbytes)
    assert engine.load(got, out, 65536).failed == -1
    assert out == data.tobytes()


# Dictionaries


def test_records_are_three_times_smaller_than_alone_with_lz4(engine: core.Engine) -> None:
    values = records(8000)
    alone = store(engine, values)
    pages = engine.pool_pages()
    engine.free(alone)
    got = store(engine, values, dictionary(engine))
    assert engine.pool_pages() * 3 <= pages
    load(engine, got, values)


def test_only_small_entries_use_the_codec_for_small_ones(engine: core.Engine) -> None:
    slot, got = dictionary(engine), np.zeros(3, np.uint64)
    page = records(20)
    data = b"".join(page)[:2148]
    engine.store(data, 1024, 0, 0, got, small=slot, small_bytes=100)
    found = [info.codec for handle in got.tolist() if (info := engine.info(handle))]
    assert found == [0, 0, slot]
    engine.free(got)


def test_a_dictionary_lives_as_long_as_an_entry_refers_to_it(engine: core.Engine) -> None:
    values = records(300)
    before = engine.metadata_bytes()
    slot = dictionary(engine)
    whole = engine.metadata_bytes()
    got = store(engine, values, slot)
    engine.codec_put(slot)
    # What only compressing needs is gone.
    assert before < engine.metadata_bytes() < whole
    assert write_back(engine) == 300
    load(engine, got[:299], values[:299])
    info = engine.codec_info(slot)
    assert info is not None
    assert (info.entries, info.refs, info.users) == (0, 1, 0)
    load(engine, got[299:], values[299:])
    assert engine.codec_info(slot) is None
    assert engine.metadata_bytes() < before + 100_000


def test_dictionaries_replace_one_another_while_entries_are_everywhere(engine: core.Engine) -> None:
    stored = []
    for kind in ("order", "user", "session"):
        slot = dictionary(engine, kind)
        values = records(200, 3, kind)
        first = store(engine, values, slot)
        write_back(engine)
        stored.append((first, store(engine, values, slot), values))
        engine.codec_put(slot)
    assert sum(pool.entries for pool in engine.pools() if pool.dictionary) == 200
    for first, second, values in stored:
        load(engine, first, values)
        load(engine, second, values)
    assert [pool for pool in engine.pools() if pool.dictionary] == []


def test_a_codec_that_nobody_holds_any_more_is_not_used(engine: core.Engine) -> None:
    slot = dictionary(engine)
    engine.codec_put(slot)
    got = store(engine, records(1), slot)
    info = engine.info(int(got[0]))
    assert info is not None
    assert info.codec == 0
    with pytest.raises(ValueError, match="not held"):
        engine.codec_put(slot)
    load(engine, got, records(1))


def test_slots_run_out_and_come_back(engine: core.Engine) -> None:
    content = train(records(300), 512)
    held = []
    while (slot := engine.dictionary_new(content, 1)) >= 0:
        held.append(slot)
    assert slot == -errno.EBUSY
    assert len(held) == 255
    assert engine.codec_get(core.ZSTD, 17) == -errno.EBUSY
    assert engine.set_compressor(core.ZSTD, 17) == -errno.EBUSY
    values = records(5)
    got = [store(engine, values, slot) for slot in held]
    for slot in held:
        engine.codec_put(slot)
    assert engine.codec_get(core.ZSTD, 17) == -errno.EBUSY
    for handles in got:
        load(engine, handles, values)
    slot = engine.codec_get(core.ZSTD, 17)
    assert slot > 0
    engine.codec_put(slot)


def test_the_same_codec_is_the_same_slot(engine: core.Engine) -> None:
    slot = engine.codec_get(core.ZSTD, 5, 4)
    assert engine.codec_get(core.ZSTD, 5, 4) == slot
    assert engine.codec_get(core.ZSTD, 5, 8) != slot
    engine.codec_put(slot)
    info = engine.codec_info(slot)
    assert info is not None
    assert info.users == 1


@pytest.mark.parametrize("content", [b"", b"no dictionary", b"\x37\xa4\x30\xec" + bytes(20)])
def test_what_is_no_dictionary_is_refused(engine: core.Engine, content: bytes) -> None:
    assert engine.dictionary_new(content, 3) in (-errno.EINVAL, -errno.ENOMEM)
    assert engine.codec_info(1) is None


@pytest.mark.parametrize("first", [0, 1, 6, 7, 8, 63])
def test_samples_with_hardly_a_byte_make_none(first: int) -> None:
    """libzstd divides by zero where the first three quarters of them have 7 bytes, and reads elsewhere with fewer."""
    small = [b"a" * (first // 6 + (i < first % 6)) for i in range(6)]
    assert train([*small, os.urandom(300), os.urandom(300)]) == b""


def test_too_few_samples_make_none() -> None:
    assert train([]) == b""
    assert train([b"a"]) == b""
    with pytest.raises(ValueError, match="samples of 5 bytes"):
        core.train_dictionary(b"abc", np.array([2, 3], np.uint64), 1000)
    with pytest.raises(ValueError, match="capacity"):
        core.train_dictionary(b"abc", np.array([3], np.uint64), 0)


# Damage


def test_damaged_bytes_on_the_device_are_never_given_out(tmp_path: Path) -> None:
    values = records(64)
    with attached(tmp_path / "swap") as engine:
        got = store(engine, values, dictionary(engine))
        assert write_back(engine) == 64
        content = bytearray((tmp_path / "swap").read_bytes())
        places = []
        for handle in got.tolist():
            info = engine.info(handle)
            assert info is not None
            places.append(info.location + 32 + info.length // 2)
        for place in places[::2]:
            content[place] ^= 0x10
        (tmp_path / "swap").write_bytes(content)
        for i, value in enumerate(values):
            data, result = engine.load_bytes(got[i : i + 1], len(value), len(value))
            assert (data, result.errno) == ((None, errno.EBADMSG) if i % 2 == 0 else (value, 0))
        engine.free(got[::2].copy())


def test_damaged_bytes_in_the_pool_are_never_taken_for_a_value(engine: core.Engine) -> None:
    values = records(200)
    got = store(engine, values, dictionary(engine))
    met = set()
    choose = random.Random(1)
    for i, value in enumerate(values):
        info = engine.info(int(got[i]))
        assert info is not None
        place = (ctypes.c_ubyte * info.length).from_address(info.location)
        for k in range(choose.randrange(1, 9)):
            place[(k * 7) % info.length] = choose.randrange(256)
        data, result = engine.load_bytes(got[i : i + 1], len(value), len(value))
        met.add(result.errno)
        assert data is None or len(data) == len(value)
        if data is None:
            engine.free(got[i : i + 1])
    assert errno.EILSEQ in met
    assert met <= {0, errno.EILSEQ}


# Threads


def test_threads_compress_with_different_dictionaries_at_once(engine: core.Engine) -> None:
    wrong: list[object] = []
    start = threading.Barrier(5)

    def tenant(kind: str, seed: int) -> None:
        start.wait()
        for turn in range(6):
            slot = dictionary(engine, kind, 1 + turn % 3)
            values = records(150, seed * 10 + turn, kind)
            got = store(engine, values, slot)
            engine.codec_put(slot)
            for i, value in enumerate(values):
                data, result = engine.load_bytes(got[i : i + 1], len(value), len(value))
                if data != value:
                    wrong.append((kind, turn, i, result))

    def writeback() -> None:
        start.wait()
        while any(thread.is_alive() for thread in tenants):
            write_back(engine)

    tenants = [threading.Thread(target=tenant, args=(kind, i)) for i, kind in enumerate(("a", "bc", "order", "user"))]
    writer = threading.Thread(target=writeback)
    for thread in (*tenants, writer):
        thread.start()
    for thread in (*tenants, writer):
        thread.join()
    assert wrong == []
    assert engine.check() == []
    assert [pool for pool in engine.pools() if pool.dictionary] == []


# Memory


def test_without_memory_nothing_is_lost() -> None:
    """Each allocation fails in turn while a dictionary is made, a value stored with it and loaded."""
    done = run(
        """
        import errno
        import numpy as np
        from tests.core.store.test_codecs import records, train
        from tests.support import failing
        from uzswap.core.boundary import engine as core

        content, values, outcomes = train(records(300)), records(8), set()
        for kind in ("mmap", "calloc"):
            for after in range(24):
                engine = core.Engine()
                failing.plan(kind, after, least=32)
                slot = engine.dictionary_new(content, 3)
                outcomes.add(slot if slot < 0 else 0)
                got = np.zeros(8, np.uint64)
                for i, value in enumerate(values):
                    try:
                        engine.store(value, len(value), 0, 0, got[i : i + 1], codec=slot)
                    except MemoryError:
                        outcomes.add("store")
                loaded = []
                for i, value in enumerate(values):
                    if got[i]:
                        for attempt in range(3):
                            try:
                                data, result = engine.load_bytes(got[i : i + 1], len(value), len(value))
                            except MemoryError:
                                outcomes.add("load")
                                continue
                            if data is None:
                                assert result.errno == errno.ENOMEM, result
                                outcomes.add(result.errno)
                                continue
                            assert data == value
                            break
                        else:
                            raise AssertionError(f"{kind} {after}: value {i} was not loaded")
                failing.plan(kind, count=0)
                assert engine.check() == []
                if slot >= 0:
                    engine.codec_put(slot)
                engine.close()
        print(sorted(map(str, outcomes)))
        """,
        env=failing.preloaded(),
    ).check()
    assert f"-{errno.ENOMEM}" in done.stdout
    assert str(errno.ENOMEM) in done.stdout


def test_an_engine_is_closed_with_dictionaries_in_use() -> None:
    engine = core.Engine()
    store(engine, records(10), dictionary(engine))
    slot = dictionary(engine, "user")
    store(engine, records(10), slot)
    engine.codec_put(slot)
    engine.close()
    with pytest.raises(ValueError, match="closed"):
        engine.codec_get(core.LZ4, 1)


@pytest.mark.parametrize("arguments", [{"codec": 256}, {"small": 1000}, {"filter": -1}, {"filter": 65537}])
def test_impossible_arguments_store_nothing(engine: core.Engine, arguments: dict[str, int]) -> None:
    got = np.zeros(1, np.uint64)
    with pytest.raises(ValueError, match="="), suppress(OverflowError):
        engine.store(b"abc", 3, 0, 0, got, **arguments)
    assert got[0] == 0
    assert engine.codec_get(core.LZ4, 1, -1) == -errno.EINVAL
    assert engine.codec_get(9, 1) == -errno.EINVAL
