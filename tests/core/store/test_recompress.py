"""Recompression: bytes, counters and order stay right, whatever else happens to the entries meanwhile."""

import ctypes
import errno
import random
import threading

import numpy as np
import pytest
from tests.core.store.test_codecs import dictionary, load, records, store, write_back

from uzswap.core.boundary import engine as core
from uzswap.core.boundary.writer import Writer

ALWAYS = 1 << 40


def texts(n: int, seed: int = 1, size: int = 4096) -> list[bytes]:
    """Pages that zstd makes notably smaller than lz4 does."""
    choose = random.Random(seed)
    words = [bytes(choose.choices(b"etaoinshrdlu", k=choose.randrange(2, 9))) for _ in range(400)]
    return [b" ".join(choose.choices(words, k=size))[:size] for _ in range(n)]


def recompress(
    engine: core.Engine,
    level: int = 3,
    flags: int = 0,
    memcg: int = 0,
    max_born: int | None = None,
    budget: int = ALWAYS,
) -> list[core.RecompressResult]:
    """One request, call by call."""
    results, position, since = [], 0, engine.stamp()
    more = {} if max_born is None else {"max_born": max_born}
    while True:
        left = budget - sum(one.nbytes for one in results)
        done = engine.recompress(memcg, 0, core.ZSTD, level, 64, left, since, position, flags=flags, **more)
        assert engine.check() == []
        assert done.errno == 0
        results.append(done)
        if done.exhausted or done.nbytes >= left:
            return results
        position = done.position


def chilled(engine: core.Engine) -> None:
    """Clear the referenced bit of everything, in its order."""
    assert sum(one.entries for one in recompress(engine)) == 0


def lengths(engine: core.Engine, handles: np.ndarray) -> list[int]:
    return [info.length for handle in handles.tolist() if (info := engine.info(handle))]


def test_what_is_cold_gets_smaller_and_what_was_referenced_a_second_chance(engine: core.Engine) -> None:
    values = texts(300)
    got = store(engine, values)
    before = lengths(engine, got)
    first = recompress(engine)
    assert sum(one.rotated for one in first) == 300
    assert lengths(engine, got) == before
    done = recompress(engine)
    after = lengths(engine, got)
    assert (sum(one.entries for one in done), sum(one.rotated for one in done)) == (300, 0)
    assert sum(one.bytes_before for one in done) == sum(before)
    assert sum(one.bytes_after for one in done) == sum(after) < sum(before) * 0.8
    assert dict(zip(core.GLOBALS, engine.globals(), strict=True))["zswap"] == sum(after)
    assert engine.recompressed() == (300, sum(before), sum(after), 0)
    assert [(pool.codec, pool.entries) for pool in engine.pools()] == [(core.LZ4, 0), (core.ZSTD, 300)]
    assert sum(one.scanned for one in recompress(engine)) == 0  # nothing is left to do
    load(engine, got, values)


def test_places_on_the_lru_and_ages_stay(engine: core.Engine) -> None:
    values = texts(40)
    got = store(engine, values)
    chilled(engine)
    engine.advance(10**12)
    young = store(engine, texts(5, 2))
    then = engine.now() - 5 * 10**11
    assert sum(one.entries for one in recompress(engine, max_born=then)) == 40
    # The coldest are written first, as they would have been.
    writer, position = Writer(engine), np.zeros(1, np.uint64)
    writer.walk(np.zeros(1, np.uint64), position, 10, ALWAYS, engine.stamp(), then)
    assert writer.finish().entries == 10
    states = [info.state for handle in got.tolist() if (info := engine.info(handle))]
    assert states == [core.DISK] * 10 + [core.ZSWAP] * 30
    load(engine, got, values)
    load(engine, young, texts(5, 2))


def test_min_age_and_budget_bound_it(engine: core.Engine) -> None:
    got = store(engine, texts(200))
    chilled(engine)
    assert sum(one.scanned for one in recompress(engine, max_born=0)) == 0
    half = sum(lengths(engine, got)) // 2
    taken = sum(one.nbytes for one in recompress(engine, budget=half))
    assert half <= taken < half + 4096
    load(engine, got, texts(200))


def test_what_does_not_get_smaller_is_refused_once(engine: core.Engine) -> None:
    noise = [np.random.default_rng(i).bytes(2000) + bytes(96) for i in range(20)]
    got = store(engine, noise)
    chilled(engine)
    done = recompress(engine)
    refused = sum(one.refused for one in done)
    assert refused + sum(one.entries for one in done) == 20
    assert refused > 0
    assert engine.recompressed().refused == refused
    assert sum(one.scanned for one in recompress(engine)) == 0
    assert sum(one.refused for one in recompress(engine, flags=core.AGAIN)) == refused
    load(engine, got, noise)


def test_raw_entries_that_compress_after_all(engine: core.Engine) -> None:
    """Only the entropy coder of zstd finds what they have."""
    rng = np.random.default_rng(1)
    values = [rng.integers(0, 64, 4096, np.uint8).tobytes() for _ in range(20)]
    got = store(engine, values)
    assert lengths(engine, got) == [4096] * 20
    assert engine.counters(0)[core.COUNTERS.index("zswap_incomp")] == 0  # of the root's own: see globals
    chilled(engine)
    assert sum(one.entries for one in recompress(engine)) == 20
    assert max(lengths(engine, got)) < 3300
    assert dict(zip(core.GLOBALS, engine.globals(), strict=True))["stored_incompressible_pages"] == 0
    load(engine, got, values)


def test_a_shuffle_stays_and_dictionaries_are_left_alone(engine: core.Engine) -> None:
    counts = [np.random.default_rng(i).poisson(40, 8192).astype(np.int32).tobytes() for i in range(6)]
    shuffled = store(engine, counts, filter=4)
    small = store(engine, records(50), dictionary(engine))
    chilled(engine)
    assert sum(one.entries for one in recompress(engine)) == 6
    codecs = {info.codec for handle in shuffled.tolist() if (info := engine.info(handle))}
    [found] = [engine.codec_info(slot) for slot in codecs]
    assert found is not None
    assert (found.codec, found.filter) == (core.ZSTD, 4)
    load(engine, shuffled, counts)
    load(engine, small, records(50))


def test_damaged_entries_stay_as_they_are(engine: core.Engine) -> None:
    values = texts(20)
    got = store(engine, values)
    chilled(engine)
    info = engine.info(int(got[7]))
    assert info is not None
    ctypes.memset(info.location, 0xFF, info.length)
    assert sum(one.entries for one in recompress(engine)) == 19
    assert engine.load_bytes(got[7:8], 4096, 4096)[1].errno == errno.EILSEQ
    engine.free(got[7:8].copy())
    load(engine, np.delete(got, 7), values[:7] + values[8:])


def test_a_removed_memcg_has_nothing_and_its_parent_has_it(engine: core.Engine) -> None:
    memcg = engine.memcg_new(0)
    got = np.zeros(30, np.uint64)
    engine.store(b"".join(texts(30)), 4096, memcg, 0, got)
    since = engine.stamp()
    engine.memcg_remove(memcg)
    with pytest.raises(ValueError, match="not online"):
        engine.recompress(memcg, 0, core.ZSTD, 3, 64, ALWAYS, since)
    chilled(engine)
    assert sum(one.entries for one in recompress(engine)) == 30
    load(engine, got, texts(30))


def test_entries_are_loaded_freed_and_written_meanwhile(engine: core.Engine) -> None:
    wrong: list[object] = []
    done = threading.Event()
    start = threading.Barrier(6)

    def tenant(seed: int) -> None:
        start.wait()
        choose = random.Random(seed)
        for turn in range(12):
            values = texts(100, seed * 100 + turn, choose.choice([700, 4096, 20000]))
            got = store(engine, values, filter=choose.choice([0, 0, 3]))
            order = list(range(100))
            choose.shuffle(order)
            for i in order:
                if choose.random() < 0.2:
                    if engine.free(got[i : i + 1]) != (-1, 0):
                        wrong.append((seed, turn, i, "free"))
                    continue
                data, result = engine.load_bytes(got[i : i + 1], len(values[i]), len(values[i]))
                if data != values[i]:
                    wrong.append((seed, turn, i, result))

    def again(level: int) -> None:
        start.wait()
        while not done.is_set():
            position, since = 0, engine.stamp()
            for _ in range(100):
                result = engine.recompress(0, 0, core.ZSTD, level, 16, ALWAYS, since, position)
                if result.errno:
                    wrong.append(result)
                if result.exhausted:
                    break
                position = result.position

    def writeback() -> None:
        start.wait()
        while not done.is_set():
            write_back(engine)

    tenants = [threading.Thread(target=tenant, args=(seed,)) for seed in range(3)]
    others = [*(threading.Thread(target=again, args=(level,)) for level in (1, 6)), threading.Thread(target=writeback)]
    for thread in (*tenants, *others):
        thread.start()
    for thread in tenants:
        thread.join()
    done.set()
    for thread in others:
        thread.join()
    assert wrong == []
    assert engine.check() == []
    assert engine.pool_pages() == 0


def test_impossible_arguments(engine: core.Engine) -> None:
    for codec, memcg, node in ((7, 0, 0), (core.ZSTD, 9, 0), (core.ZSTD, 0, 1)):
        with pytest.raises(ValueError, match=r"codec|memcg|node"):
            engine.recompress(memcg, node, codec, 3, 64, ALWAYS, 0)
    assert engine.recompress(0, 0, core.ZSTD, 3, 0, ALWAYS, 0).scanned == 0
