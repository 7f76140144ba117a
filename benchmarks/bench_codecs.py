"""Small values with a dictionary, or several in one chunk; arrays with and without the byte shuffle.

Targets: JSON-like records at least 3 times smaller in the pool than alone with lz4, at most 5 us to load one; arrays
within 5 % of what blosc2's shuffle and the same compressor make of them, in chunks of 64 KiB.
"""

from __future__ import annotations

import pickle
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import blosc2
import numpy as np
from numpy.typing import NDArray

import uzswap
from benchmarks.common import console, options, stopwatch, table, title, verdict
from uzswap.core.boundary.engine import LZ4, ZSTD, Engine
from uzswap.store.dictionaries import Dictionaries

SMALLER = 3.0
LOAD_US = 5.0
OF_BLOSC = 0.95
CHUNK: Final = 65536

_FIRST: Final = ("olivia", "liam", "emma", "noah", "amelia", "james", "sophia", "oliver", "ava", "theo", "mia", "zoe")
_LAST: Final = ("smith", "garcia", "mueller", "rossi", "tanaka", "novak", "silva", "kim", "dubois", "olsen", "khan")
_CITIES: Final = ("London", "Berlin", "Paris", "Madrid", "Lagos", "Tokyo", "Lima", "Oslo", "Cairo", "Austin", "Quito")
_WORDS: Final = ("the", "order", "shipping", "delayed", "payment", "accepted", "refund", "returned", "box", "express")


def user(r: random.Random, i: int) -> dict[str, Any]:
    first, last = r.choice(_FIRST), r.choice(_LAST)
    return {
        "id": i,
        "name": f"{first.title()} {last.title()}",
        "email": f"{first}.{last}{r.randrange(1000)}@example.com",
        "city": r.choice(_CITIES),
        "active": r.random() < 0.8,
        "created_at": f"202{r.randrange(6)}-{r.randrange(1, 13):02}-{r.randrange(1, 29):02}T{r.randrange(24):02}:00Z",
        "score": round(r.random() * 100, 2),
    }


def order(r: random.Random, i: int) -> dict[str, Any]:
    return {
        "order_id": f"{r.getrandbits(64):016x}",
        "user": user(r, i),
        "items": [
            {"sku": f"SKU-{r.randrange(10**5):05}", "qty": r.randrange(1, 5), "price": round(r.random() * 200, 2)}
            for _ in range(r.randrange(1, 6))
        ],
        "status": r.choice(["new", "paid", "shipped", "returned"]),
        "note": " ".join(r.choices(_WORDS, k=r.randrange(20))),
    }


def session(r: random.Random, _i: int) -> dict[str, Any]:
    return {
        "sid": f"{r.getrandbits(128):032x}",
        "ip": ".".join(str(r.randrange(256)) for _ in range(4)),
        "agent": r.choice(["Mozilla/5.0 (X11; Linux x86_64) Firefox/131.0", "Mozilla/5.0 (Win64) Chrome/129.0"]),
        "last_seen": 1.7e9 + r.random() * 1e7,
        "csrf": f"{r.getrandbits(64):016x}",
        "prefs": {"lang": r.choice(["en", "de", "fr"]), "tz": r.choice(["UTC", "Europe/Berlin"]), "dark": False},
    }


RECORDS: Final = {"users": user, "orders": order, "sessions": session}


@dataclass
class Stored:
    """One way to keep values: what it takes of the pool for a value, and what a value costs (us of CPU time)."""

    nbytes: float
    store_us: float
    load_us: float


@contextmanager
def engine(level: tuple[int, int]) -> Iterator[uzswap.Zswap]:
    with uzswap.Zswap(max_pool="50%", compressor=f"{'lz4' if level[0] == LZ4 else 'zstd'}:{level[1]}") as z:
        yield z


def one_by_one(z: uzswap.Zswap, values: list[bytes], codec: int) -> Stored:
    core: Engine = z.core
    before = core.pool_pages()
    handles = np.zeros(len(values), np.uint64)
    with stopwatch() as stored:
        for i, value in enumerate(values):
            core.store(value, len(value), 0, 0, handles[i : i + 1], codec=codec)
    pages = core.pool_pages() - before
    turns = list(range(len(values)))
    random.Random(1).shuffle(turns)
    with stopwatch() as loaded:
        for i in turns:
            data, _ = core.load_bytes(handles[i : i + 1], len(values[i]), len(values[i]), False)
            if data != values[i]:
                raise AssertionError(f"value {i} came back as another")
    z.free_many(handles)
    return Stored(pages * 4096 / len(values), stored() / len(values) * 1e6, loaded() / len(values) * 1e6)


def together(z: uzswap.Zswap, values: list[bytes], n: int) -> Stored:
    """`n` values a chunk; loading one means loading its chunk."""
    core: Engine = z.core
    before = core.pool_pages()
    chunks = [values[i : i + n] for i in range(0, len(values), n)]
    handles = np.zeros(len(chunks), np.uint64)
    with stopwatch() as stored:
        for i, chunk in enumerate(chunks):
            data = b"".join(chunk)
            core.store(data, len(data), 0, 0, handles[i : i + 1])
    pages = core.pool_pages() - before
    sizes = [sum(map(len, chunk)) for chunk in chunks]
    starts = [sum(len(value) for value in values[i // n * n : i]) for i in range(len(values))]
    turns = list(range(len(values)))
    random.Random(1).shuffle(turns)
    with stopwatch() as loaded:
        for i in turns:
            whole, _ = core.load_bytes(handles[i // n : i // n + 1], sizes[i // n], sizes[i // n], False)
            if whole is None or whole[starts[i] : starts[i] + len(values[i])] != values[i]:
                raise AssertionError(f"value {i} came back as another")
    z.free_many(handles)
    return Stored(pages * 4096 / len(values), stored() / len(values) * 1e6, loaded() / len(values) * 1e6)


def trained(z: uzswap.Zswap, values: list[bytes]) -> Dictionaries:
    """What a store has after it has packed these."""
    chosen = Dictionaries(z)
    for value in values:
        chosen.sample(value)
    chosen.after_batch()
    chosen.flush()
    return chosen


def ways_of(
    lz4: uzswap.Zswap, zstd: uzswap.Zswap, values: list[bytes], dictionary: int
) -> dict[str, Callable[[], Stored]]:
    return {
        "alone, lz4": lambda: one_by_one(lz4, values, -1),
        "alone, zstd": lambda: one_by_one(zstd, values, -1),
        "alone, dictionary": lambda: one_by_one(lz4, values, dictionary),
        "16 in a chunk, lz4": lambda: together(lz4, values, 16),
        "16 in a chunk, zstd": lambda: together(zstd, values, 16),
        "64 in a chunk, zstd": lambda: together(zstd, values, 64),
    }


def measure_records(n: int, rounds: int) -> None:
    results = table("values", "kept", "bytes in the pool", "smaller", "store, us", "load, us", "target")
    for name, make in RECORDS.items():
        r = random.Random(5)
        every = [pickle.dumps(make(r, i), 5) for i in range(n + 3000)]
        values, seen = every[:n], every[n:]
        with engine((LZ4, 1)) as lz4, engine((ZSTD, 3)) as zstd:
            chosen = trained(lz4, seen)
            ways = ways_of(lz4, zstd, values, chosen.slot)
            found: dict[str, list[Stored]] = {way: [] for way in ways}
            for _ in range(rounds):
                for way, run in ways.items():
                    found[way].append(run())
            chosen.close()
        base = found["alone, lz4"][0].nbytes
        mean = sum(map(len, values)) / len(values)
        for way, runs in found.items():
            load_us = statistics.median(run.load_us for run in runs)
            smaller = base / runs[0].nbytes
            target = ""
            if way == "alone, dictionary":
                target = f"{verdict(smaller, SMALLER)}, {verdict(load_us, LOAD_US, at_most=True)}"
            results.add_row(
                f"{name}, {mean:.0f} bytes", way, f"{runs[0].nbytes:.1f}", f"{smaller:.2f}",
                f"{statistics.median(run.store_us for run in runs):.2f}", f"{load_us:.2f}", target,
            )  # fmt: skip
        results.add_section()
    console.print(results)


def arrays(nbytes: int) -> Iterator[tuple[str, NDArray[Any]]]:
    r = np.random.default_rng(3)
    n = nbytes // 8
    yield "int32 counts", r.poisson(40, 2 * n).astype(np.int32)
    yield "minutes, regular", np.arange(n, dtype=np.int64) * 60 + 1_700_000_000
    yield "ms, irregular", 1_700_000_000_000 + np.cumsum(r.integers(1, 2000, n))
    yield "float32 sensor", (20 + np.cumsum(r.normal(0, 0.01, 2 * n))).astype(np.float32)
    yield "float64 random walk", np.cumsum(r.normal(0, 1, n))
    yield "float64 prices", np.round(100 + np.cumsum(r.normal(0, 0.05, n)), 2)
    yield "uint16 image", (1000 + 200 * np.sin(np.arange(4 * n) / 500) + r.normal(0, 5, 4 * n)).astype(np.uint16)


def ours(z: uzswap.Zswap, array: NDArray[Any], page: int, compressor: str, filter: int) -> tuple[float, float, float]:
    """(times smaller, GB/s in, GB/s out)."""
    out = np.full(array.nbytes, 1, np.uint8)  # touched: fresh memory is no part of it
    with stopwatch() as stored:
        handles = z.swap_out_many(array, z.root, page=page, compressor=compressor, filter=filter)
    places = z.core.places(handles)
    with stopwatch() as loaded:
        z.fault_in_many(handles, out, page=page)
    if (out != array.view(np.uint8)).any():
        raise AssertionError("the array came back as another")
    gb = array.nbytes / 1e9
    return array.nbytes / (places.zswap_bytes + places.disk_bytes), gb / stored(), gb / loaded()


def blosc(array: NDArray[Any], codec: blosc2.Codec, level: int) -> tuple[float, float, float]:
    """What :func:`ours` returns, of blosc2 with one thread and chunks as large."""
    data = array.view(np.uint8)
    how: dict[str, Any] = {"codec": codec, "clevel": level, "typesize": array.itemsize, "nthreads": 1}
    with stopwatch() as stored:
        chunks = [
            blosc2.compress2(data[begin : begin + CHUNK], filters=[blosc2.Filter.SHUFFLE], **how)
            for begin in range(0, array.nbytes, CHUNK)
        ]
    out = np.full(CHUNK, 1, np.uint8)
    with stopwatch() as loaded:
        for chunk in chunks:
            blosc2.decompress2(chunk, dst=out, nthreads=1)
    gb = array.nbytes / 1e9
    return array.nbytes / sum(map(len, chunks)), gb / stored(), gb / loaded()


def measure_arrays(nbytes: int, rounds: int) -> None:
    results = table(
        "array", "by", "4K", "4K shuffled", "64K", "64K shuffled", "in", "out", "blosc2", "in", "out", "target"
    )
    with uzswap.Zswap(swap_size="1G", max_pool="50%") as z:
        for name, array in arrays(nbytes):
            for compressor, codec, level in (("lz4", blosc2.Codec.LZ4, 5), ("zstd:1", blosc2.Codec.ZSTD, 1)):
                runs, theirs = [], []
                for _ in range(rounds):
                    runs.append(ours(z, array, CHUNK, compressor, array.itemsize))
                    theirs.append(blosc(array, codec, level))
                ways = ((4096, 0), (4096, array.itemsize), (CHUNK, 0))
                numbers = [ours(z, array, page, compressor, item)[0] for page, item in ways]
                for some in (runs, theirs):
                    numbers += (statistics.median(run[k] for run in some) for k in range(3))
                results.add_row(
                    name,
                    compressor,
                    *(f"{number:.2f}" for number in numbers),
                    verdict(runs[0][0] / theirs[0][0], OF_BLOSC),
                )
            results.add_section()
    console.print(results)


@options
def main(quick: bool, rounds: int | None) -> None:
    """Compress small values and arrays: bytes in the pool, and us a value."""
    n, rounds = (4000, rounds or 1) if quick else (20000, rounds or 5)
    title(f"bench_codecs: {n} records of each kind, {rounds} rounds")
    measure_records(n, rounds)
    console.print('\ntimes smaller; "in" and "out": GB/s of 64 KiB shuffled', style="dim")
    measure_arrays(4 << 20 if quick else 16 << 20, rounds)


if __name__ == "__main__":
    main()
