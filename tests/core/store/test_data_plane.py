"""The data plane alone, driven at random against a dictionary: contents, invariants and what it gives back."""

import errno
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.support.soak import longer

from uzswap.core.boundary import engine as core
from uzswap.core.boundary.writer import Writer
from uzswap.units import NO_LIMIT

MIB = 1 << 20


@pytest.fixture
def device(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "swap", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
    yield fd
    os.close(fd)


def attached(fd: int, nbytes: int, nodes: int = 1) -> core.Engine:
    engine = core.Engine(nodes)
    os.ftruncate(fd, nbytes)
    assert engine.attach_device(fd, nbytes, True) == 0
    return engine


def handles(values: object) -> np.ndarray:
    return np.array(values, np.uint64)


class Driver:
    """Random operations on an engine, and what every handle must hold."""

    def __init__(self, engine: core.Engine, nodes: int, seed: int) -> None:
        self.engine, self.nodes = engine, nodes
        self.random = random.Random(seed)
        self.bytes = np.random.default_rng(seed)
        self.memcgs = [0]
        #: held
        self.codecs: list[int] = []
        self.model: dict[int, bytes] = {}

    def page(self, size: int) -> bytes:
        kind = self.random.randrange(6)
        if kind == 0:
            return bytes(size)
        if kind == 1:
            return (b"\xaa" * (size + 8))[:size]
        noise = size if kind == 2 else self.random.randrange(1, size + 1)
        return self.bytes.bytes(noise) + bytes(size - noise)

    def some(self) -> list[int]:
        return self.random.sample(list(self.model), min(len(self.model), self.random.randrange(1, 80)))

    def store(self) -> None:
        size = self.random.choice([4096, 4096, 4096, 65536, 8192, 512, 100, 1])
        folio = self.random.choice([1, 1, 1, 4, 16])
        pages = [self.page(size) for _ in range(self.random.randrange(1, 60))]
        pages[-1] = self.page(self.random.randrange(1, size + 1))
        got = np.zeros(len(pages), np.uint64)
        memcg, node, start, flags = self.random.choice(self.memcgs), self.random.randrange(self.nodes), 0, 0
        codec, small = (self.random.choice([-1, -1, *self.codecs]) for _ in range(2))
        item, once = self.random.choice([0, 0, 1, 2, 3, 8]), self.random.choice([0, core.TRY_FILTER])
        while start < len(pages):
            result = self.engine.store(
                b"".join(pages), size, memcg, node, got, start, folio, flags | once, codec, item, small, 600
            )
            start, flags = result.next, 0
            if result.reason == core.OVER_LIMIT:
                flags = self.random.choice([core.SKIP_LIMIT, core.REFUSE])
        self.model |= {int(h): page for h, page in zip(got, pages, strict=True) if h != core.REFUSED}

    def load(self) -> None:
        if not (chosen := self.some()):
            return
        page = max(len(self.model[h]) for h in chosen)
        out = bytearray(page * len(chosen))
        consume = self.random.random() < 0.7
        assert self.engine.load(handles(chosen), out, page, consume).failed == -1
        for i, h in enumerate(chosen):
            assert out[i * page : i * page + len(self.model[h])] == self.model[h]
            if consume:
                del self.model[h]

    def free(self) -> None:
        if chosen := self.some():
            assert self.engine.free(handles(chosen)) == (-1, 0)
            for h in chosen:
                del self.model[h]

    def reclaim(self) -> None:
        memcgs = self.random.sample(self.memcgs, self.random.randrange(1, len(self.memcgs) + 1))
        lrus = handles([m << 8 | node for m in memcgs for node in range(self.nodes)])
        positions, since = np.zeros(len(lrus), np.uint64), self.engine.stamp()
        budget, written = self.random.randrange(1, 2 * MIB), 0
        writer = Writer(self.engine, True)
        while written < budget:
            result = writer.walk(lrus, positions, self.random.choice([1, 64, 512]), budget - written, since)
            written += result.nbytes
            if result.exhausted or result.nospace:
                break
        flushed = writer.finish()
        assert flushed.errno == 0
        assert flushed.nbytes == written

    def codec(self) -> None:
        """Take a codec, or one with a dictionary of the pages there are, and let go of others."""
        if len(self.codecs) < 6 and self.random.random() < 0.6:
            slot = self.engine.codec_get(*self.random.choice([(core.LZ4, 3, 4), (core.ZSTD, 1, 0)]))
            samples = [page[:300] for page in self.model.values()][:400]
            if samples and self.random.random() < 0.7:
                made = core.train_dictionary(b"".join(samples), handles([len(some) for some in samples]), 4096)
                if made:
                    self.engine.codec_put(slot)
                    slot = self.engine.dictionary_new(made, self.random.choice([1, 3]))
            assert slot >= 0
            self.codecs.append(slot)
        elif self.codecs:
            self.engine.codec_put(self.codecs.pop(self.random.randrange(len(self.codecs))))

    def recompress(self) -> None:
        memcg, node, position = self.random.choice(self.memcgs), self.random.randrange(self.nodes), 0
        codec, level = self.random.choice([(core.ZSTD, 3), (core.ZSTD, 9), (core.LZ4, 1)])
        since, flags = self.engine.stamp(), self.random.choice([0, core.AGAIN])
        for _ in range(self.random.randrange(1, 20)):
            done = self.engine.recompress(memcg, node, codec, level, 16, MIB, since, position, flags=flags)
            assert done.errno == done.gone == 0
            if done.exhausted:
                break
            position = done.position

    def control(self) -> None:
        engine, choose = self.engine, self.random.choice
        match self.random.randrange(7):
            case 0 | 1 if len(self.memcgs) < 20:
                self.memcgs.append(engine.memcg_new(choose(self.memcgs)))
            case 2 if len(self.memcgs) > 1:
                engine.memcg_remove(self.memcgs.pop())
            case 3:
                assert engine.set_compressor(*choose([(core.LZ4, 1), (core.ZSTD, 3), (core.ZSTD, 1)])) == 0
            case 4:
                engine.set_enabled(self.random.random() < 0.7)
            case 5:
                engine.set_pool_limit(*choose([(1 << 60, 1 << 60), (500, 400), (100, 90)]))
            case 6:
                engine.set_limit(choose(self.memcgs), core.ZSWAP_MAX, choose([NO_LIMIT, 10, 100]))
            case _:
                engine.set_writeback(choose(self.memcgs), self.random.random() < 0.8)

    def step(self) -> None:
        weights = {self.store: 30, self.load: 25, self.free: 10, self.reclaim: 15, self.control: 20}
        weights |= {self.codec: 5, self.recompress: 8}
        self.random.choices(list(weights), list(weights.values()))[0]()
        assert self.engine.check() == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(longer(4, 20)))
def test_random_operations_keep_contents_and_invariants(device: int, seed: int) -> None:
    engine = attached(device, 12 * MIB, nodes=2)
    driver = Driver(engine, 2, seed)
    for _ in range(longer(250, 5000)):
        driver.step()
    out = bytearray(core.MAX_ENTRY)
    for h, page in driver.model.items():
        assert engine.load(handles([h]), out, core.MAX_ENTRY).failed == -1
        assert out[: len(page)] == page
    info = engine.device()
    assert engine.check() == []
    for slot in driver.codecs:
        engine.codec_put(slot)
    assert [slot for slot in range(256) if (found := engine.codec_info(slot)) and (found.refs or found.users)] == []
    assert engine.pool_pages() == 0
    assert info is not None
    assert info.live_bytes == 0
    assert info.free_segments == info.segments
    engine.close()


@pytest.mark.slow
def test_threads_with_a_full_device_and_cleaning(device: int) -> None:
    """Three tenants store and load while two others write back to a device that is far too small."""
    engine = attached(device, 6 * MIB)
    memcgs = [engine.memcg_new(0) for _ in range(3)]
    done, wrong = threading.Event(), []

    def tenant(memcg: int) -> None:
        rng, choose, model = np.random.default_rng(memcg), random.Random(memcg), {}
        for _ in range(120):
            pages = [rng.bytes(n := choose.randrange(1, 4096)) + bytes(4096 - n) for _ in range(choose.randrange(600))]
            got, start = np.zeros(len(pages), np.uint64), 0
            while start < len(pages):
                start = engine.store(b"".join(pages), 4096, memcg, 0, got, start).next
            model |= dict(zip(got.tolist(), pages, strict=True))
            chosen = choose.sample(list(model), min(len(model), choose.randrange(1, 650)))
            out = bytearray(4096 * len(chosen))
            result = engine.load(handles(chosen), out, 4096)
            if result.failed != -1:
                wrong.append(result)
            wrong.extend(h for i, h in enumerate(chosen) if out[4096 * i : 4096 * (i + 1)] != model.pop(h))

    def writeback() -> None:
        lrus = handles([m << 8 for m in memcgs])
        while not done.is_set():
            writer, positions, since = Writer(engine, True), np.zeros(3, np.uint64), engine.stamp()
            for _ in range(50):
                result = writer.walk(lrus, positions, 64, MIB, since)
                if result.exhausted or result.nospace:
                    break
            writer.finish()

    tenants = [threading.Thread(target=tenant, args=(m,)) for m in memcgs]
    writers = [threading.Thread(target=writeback) for _ in range(2)]
    for thread in tenants + writers:
        thread.start()
    for thread in tenants:
        thread.join()
    done.set()
    for thread in writers:
        thread.join()
    info = engine.device()
    assert wrong == []
    assert engine.check() == []
    assert info is not None
    assert info.cleaned_segments > 0
    engine.close()


def half_random(n: int) -> np.ndarray:
    pages = np.zeros((n, 4096), np.uint8)
    pages[:, :2048] = np.random.default_rng(1).integers(0, 256, (n, 2048), np.uint8)
    return pages


@pytest.mark.parametrize("stay", ["a slab in four", "one value of each slab", "any tenth"])
def test_what_stays_when_a_pool_gives_back_parts_of_itself_is_not_touched(stay: str) -> None:
    engine = core.Engine()
    pages, got = half_random(8192), np.zeros(8192, np.uint64)
    engine.store(pages.reshape(-1), 4096, 0, 0, got)
    index = np.arange(len(got))
    stays = {
        "a slab in four": index // 30 % 4 == 0,  # 30 values of a little more than 2048 bytes are one
        "one value of each slab": index % 30 == 0,
        "any tenth": np.random.default_rng(2).random(len(got)) < 0.1,
    }[stay]
    for some in np.array_split(got[~stays], 16):
        assert engine.free(some) == (-1, 0)
        assert engine.check() == []
    again = np.zeros(2048, np.uint64)
    engine.store(pages[:2048].reshape(-1), 4096, 0, 0, again)  # into what was given back, too
    assert engine.check() == []
    for expected, kept in ((pages[stays], got[stays]), (pages[:2048], again)):
        out = np.zeros_like(expected)
        assert engine.load(kept, out.reshape(-1), 4096).failed == -1
        assert (out == expected).all()
    assert engine.pool_pages() == 0
    engine.close()


def test_an_entry_costs_48_bytes_of_metadata() -> None:
    engine = core.Engine()
    before = engine.metadata_bytes()
    n = 1024 * 64
    got = np.zeros(n, np.uint64)
    engine.store(np.arange(n * 64, dtype=np.uint64).view(np.uint8), 512, 0, 0, got)
    tables = engine.metadata_bytes() - before
    assert tables <= 48 * n + 49152 + 1024 * 16 * 32
    engine.close()


def test_loading_is_all_or_nothing() -> None:
    engine = core.Engine()
    got = np.zeros(4, np.uint64)
    engine.store(np.arange(2048, dtype=np.uint64).view(np.uint8), 4096, 0, 0, got)
    out = bytearray(4 * 4096)
    assert engine.free(got[2:3]) == (-1, 0)
    result = engine.load(got, out, 4096)
    assert (result.failed, result.errno) == (2, errno.ESTALE)
    assert engine.check() == []
    assert engine.load(got[[0, 1, 3]], out, 4096).failed == -1
    engine.close()


def test_a_handle_twice_in_one_call_is_refused_whole() -> None:
    engine = core.Engine()
    got = np.zeros(1, np.uint64)
    engine.store(bytes(range(256)) * 16, 4096, 0, 0, got)
    twice = np.repeat(got, 2)
    assert engine.load(twice, bytearray(8192), 4096)[:2] == (1, errno.EBUSY)
    assert engine.free(twice)[0] == 1
    assert engine.info(int(got[0])) is not None
    assert engine.check() == []
    engine.close()


def test_objects_of_every_length_keep_their_bytes(device: int) -> None:
    engine = attached(device, 4 * MIB)
    engine.set_same_filled(False)
    rng = np.random.default_rng(3)
    stored = []
    for size in [*range(1, 4200, 7), *range(4200, 65537, 611), 65536]:
        data, got = rng.bytes(size), np.zeros(1, np.uint64)
        engine.store(data, size, 0, 0, got)
        info = engine.info(int(got[0]))
        assert info is not None
        assert info.length == size
        stored.append((got, data))
    assert engine.check() == []
    for got, data in stored:
        assert engine.load_bytes(got, core.MAX_ENTRY, len(data))[0] == data
    assert engine.pool_pages() == 0
    engine.close()
