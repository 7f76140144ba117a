"""An engine with pages, stores and arrays, and a plain model of what is in them.

A history of operations is drawn from a seed.  Each may fail, with an error that is documented, when something is made
to fail meanwhile; then it has had no effect, or all of it.  What is there afterwards has to be what the model says: not
one byte may be another.  Where a device is made to lie, an IntegrityError may stand for what it has lost.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

import uzswap
from uzswap import MemCgroup, Zswap
from uzswap.core.boundary.engine import COUNTERS

PAGE = 4096
#: what is no value
NOTHING = object()


def some_bytes(rng: random.Random, nbytes: int) -> bytes:
    """Zeros, one word, text, numbers, noise."""
    match rng.randrange(6):
        case 0:
            return bytes(nbytes)
        case 1:
            return rng.randbytes(8) * (nbytes // 8) + bytes(nbytes % 8)
        case 2:
            words = [rng.randbytes(5) for _ in range(9)]
            return b"".join(rng.choice(words) for _ in range(nbytes // 5 + 1))[:nbytes]
        case 3:
            start = rng.randrange(1 << 40)
            return np.arange(start, start + nbytes // 8 + 1, dtype=np.uint64).tobytes()[:nbytes]
    return rng.randbytes(nbytes)


def some_value(rng: random.Random) -> Any:
    """Made twice from the same state: once for the store and once for the model, so that neither holds the other's."""
    match rng.randrange(6):
        case 0:
            return some_bytes(rng, rng.randrange(1, 40_000))
        case 1:
            return [rng.random() for _ in range(rng.randrange(200))]
        case 2:
            return {"key": rng.random(), "text": [f"item {rng.randrange(9)}" for _ in range(rng.randrange(300))]}
        case 3:
            return np.frombuffer(some_bytes(rng, 8 * rng.randrange(1, 8000)), np.uint64).copy()
        case 4:
            return "".join(rng.choice("abc ") for _ in range(rng.randrange(1, 3000)))
    return [some_bytes(rng, rng.randrange(1, 9000)), np.arange(rng.randrange(1, 900)) * 0.5]


def same(one: Any, other: Any) -> bool:
    if isinstance(other, np.ndarray):
        return type(one) is np.ndarray and one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if isinstance(other, list):
        return type(one) is list and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def size(value: Any) -> int:
    if isinstance(value, list):
        return 8 + sum(map(size, value))
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    return len(value) if isinstance(value, bytes | str) else 8


class World:
    """One engine, and what should be in it.

    Parameters
    ----------
    seed
        Of the history.
    lies
        The device may lose and damage what it was given, which is no error but has to be found.
    z
        An engine that is shared with others; by default one is made.
    prefix
        Of the cgroups' paths.
    options
        Of the engine.

    Attributes
    ----------
    heal : callable
        Ends whatever makes calls fail.
    struck : callable
        How many it has made fail.
    """

    def __init__(self, seed: int, lies: bool = False, z: Zswap | None = None, prefix: str = "", **options: Any) -> None:
        self.rng = random.Random(seed)
        self.lies = lies
        self.compared = 0
        self.damaged = 0
        self.errors: Counter[str] = Counter()
        self.doing = ""
        self.heal: Callable[[], None] = lambda: None
        self.struck: Callable[[], int] = lambda: 0
        small = {"swap_size": self.rng.choice(("4M", "8M", "16M")), "max_pool": self.rng.choice(("96K", "384K", "1M"))}
        options = {"swap": "auto", **small, **options}
        self.prefix = prefix
        self.peers = [prefix]
        self.z = Zswap(**options) if z is None else z
        for name, limit in (("/n", "256K"), ("/s", "128K")):
            self.group(name).write("memory.high", limit)
        #: Of them some may be gone: who freed them was interrupted.
        self.doubtful: set[int] = set()
        #: Of an array: what an interrupted write would have put where.
        self.pending: tuple[Any, int, int, Any] | None = None
        self.pages: dict[int, bytes] = {}
        self.store: uzswap.Store[int, Any] | None = None
        self.closing = False
        self.values: dict[int, list[Any]] = {}
        self.arrays: list[tuple[Any, Any]] = []
        self.steps: list[Callable[[], None]] = [
            *[self.put] * 4,
            *[self.take] * 3,
            self.drop,
            *[self.set] * 4,
            *[self.get] * 4,
            self.delete,
            *[self.write_array] * 4,
            *[self.read_array] * 4,
            self.page_out,
            self.free_array,
            *[self.write_back] * 5,
            *[self.reclaim] * 2,
            self.limit,
            self.remove,
            self.codec,
            self.recompress,
            self.look,
            self.reopen,
            self.fork,
        ]

    # Small things

    def group(self, name: str | None = None) -> MemCgroup:
        return self.z.cgroup(self.prefix + (name or self.rng.choice(("/a", "/a/b", "/c"))))

    def anyones(self, *names: str) -> MemCgroup:
        """A cgroup, not only of its own."""
        return self.z.cgroup(self.rng.choice(self.peers) + self.rng.choice(names))

    def attempt(self, step: Callable[[], None]) -> None:
        """Do it, or have it fail in a way that is documented."""
        self.doing = getattr(step, "__name__", "")
        try:
            step()
        except uzswap.IntegrityError:
            if not self.lies:
                raise
            self.damaged += 1
        except uzswap.StaleHandleError:
            assert self.doubtful
            for handle in sorted(self.doubtful):
                try:
                    self.z.fault_in_many(np.array([handle], np.uint64), consume=False)
                except uzswap.StaleHandleError:
                    self.forget([handle])
                except OSError:
                    pass
        except uzswap.InvalidArgumentError:
            raise
        except (OSError, MemoryError) as error:
            name = type(error).__name__
            self.errors[f"{self.doing}: {name} {getattr(error, 'errno', '')}"] += 1

    def run(self, n: int) -> None:
        for _ in range(n):
            self.attempt(self.rng.choice(self.steps))

    def equal(self, one: Any, other: Any, what: object) -> None:
        assert same(one, other), f"{what} is wrong, while {self.doing}"
        self.compared += size(other)

    # Pages

    def put(self) -> None:
        n = self.rng.randrange(1, 150)
        parts = [some_bytes(self.rng, PAGE) for _ in range(n)]
        shuffled = self.rng.choice((0, 0, 8))
        compressor = self.rng.choice((None, None, "zstd"))
        for handle, part in zip(
            self.z.swap_out_many(b"".join(parts), self.group(), filter=shuffled, compressor=compressor),
            parts,
            strict=True,
        ):
            if handle:
                assert int(handle) not in self.pages
                self.pages[int(handle)] = part

    def some_pages(self, most: int) -> list[int]:
        known = sorted(self.pages)
        return self.rng.sample(known, min(len(known), self.rng.randrange(1, most)))

    def take(self) -> None:
        chosen = self.some_pages(30)
        if not chosen:
            return
        consume = self.rng.random() < 0.5
        if consume:
            self.doubtful.update(chosen)
        data = self.z.fault_in_many(np.array(chosen, np.uint64), consume=consume).tobytes()
        self.equal(data, b"".join(self.pages[handle] for handle in chosen), "a page")
        if consume:
            self.forget(chosen)

    def drop(self) -> None:
        chosen = self.some_pages(10)
        self.doubtful.update(chosen)
        self.z.free_many(np.array(chosen, np.uint64))
        self.forget(chosen)

    def forget(self, chosen: list[int]) -> None:
        for handle in chosen:
            self.pages.pop(handle, None)
        self.doubtful.difference_update(chosen)

    # Values

    def opened(self) -> uzswap.Store[int, Any]:
        if self.closing:
            self.shut()
        if self.store is None:
            self.store = uzswap.Store(self.group("/s"))
        return self.store

    def set(self) -> None:
        store = self.opened()
        key, state = self.rng.randrange(30), self.rng.getstate()
        value = some_value(self.rng)
        self.rng.setstate(state)
        mine = some_value(self.rng)
        may = self.values.get(key, [NOTHING])
        self.values[key] = [*may, mine]
        store[key] = value
        self.values[key] = [mine]

    def saw(self, key: int, value: Any) -> None:
        """It has to be one that may be there."""
        for may in self.values.get(key, [NOTHING]):
            if may is value or (may is not NOTHING and value is not NOTHING and same(value, may)):
                self.values[key] = [may]
                self.compared += 0 if may is NOTHING else size(may)
                return
        raise AssertionError(f"value {key} is wrong, while {self.doing}")

    def get(self) -> None:
        key = self.rng.randrange(30)
        self.saw(key, self.opened().get(key, NOTHING))

    def delete(self) -> None:
        key = self.rng.randrange(30)
        may = self.values.get(key, [NOTHING])
        self.values[key] = [*may, NOTHING]
        self.opened().discard(key)
        self.values[key] = [NOTHING]

    def reopen(self) -> None:
        """Seldom: all of it goes."""
        if self.rng.random() < 0.2 and self.store is not None:
            self.closing = True
            self.shut()

    def shut(self) -> None:
        """Interrupted anywhere, it is done again before the store is used."""
        if self.store is not None:
            self.store.close()
        self.values.clear()
        self.store = None
        self.closing = False

    # Arrays

    def one_array(self) -> tuple[Any, Any]:
        if len(self.arrays) < 3 and (not self.arrays or self.rng.random() < 0.3):
            n = self.rng.randrange(1, 200) * PAGE // 8 + self.rng.randrange(100)
            self.arrays.append((uzswap.zeros(n, np.uint64, cgroup=self.group("/n")), np.zeros(n, np.uint64)))
        return self.rng.choice(self.arrays)

    @contextlib.contextmanager
    def brought_in(self, part: Any, pair: tuple[Any, Any]) -> Any:
        """Where the device lies a plain access may be SIGBUS, which is as it should be."""
        if not self.lies:
            yield
            return
        try:
            with uzswap.resident(part):
                yield
        except uzswap.IntegrityError:
            self.arrays = [other for other in self.arrays if other is not pair]
            raise

    def write_array(self) -> None:
        pair = x, mine = self.one_array()
        first = self.rng.randrange(len(mine))
        last = min(len(mine), first + self.rng.randrange(1, 12 * PAGE // 8))
        new = np.frombuffer(some_bytes(self.rng, (last - first) * 8), np.uint64)
        with self.brought_in(x[first:last], pair):
            self.pending = mine, first, last, new
            x[first:last] = new
            mine[first:last] = new
            self.pending = None

    def read_array(self) -> None:
        pair = x, mine = self.one_array()
        first = self.rng.randrange(len(mine))
        last = min(len(mine), first + self.rng.randrange(1, 20 * PAGE // 8))
        with self.brought_in(x[first:last], pair):
            self.equal(x[first:last].copy(), mine[first:last], "an array")

    def page_out(self) -> None:
        uzswap.advise(self.one_array()[0], self.rng.choice(("pageout", "cold", "willneed")))

    def free_array(self) -> None:
        if self.arrays and self.rng.random() < 0.5:
            self.arrays.pop(self.rng.randrange(len(self.arrays)))

    # Control

    def write_back(self) -> None:
        self.z.root.reclaim(self.rng.randrange(1, 400) << 10, source="zswap")

    def reclaim(self) -> None:
        self.anyones("/a", "/s", "/n").reclaim(self.rng.randrange(1, 200) << 10)

    def limit(self) -> None:
        name, texts = self.rng.choice(
            (
                ("memory.zswap.max", ("max", "0", "64K", "256K")),
                ("memory.max", ("max", "256K", "1M")),
                ("memory.high", ("max", "128K", "1M")),
            )
        )
        self.anyones("/a", "/s", "/n").write(name, self.rng.choice(texts))

    def remove(self) -> None:
        """Its pages are its parent's, and its arrays; a store keeps it."""
        self.anyones("/a/b", "/a/b", "/n", "/s").remove()

    def codec(self) -> None:
        self.z.parameters.set("compressor", self.rng.choice(("lz4", "zstd", "zstd:1")))

    def recompress(self) -> None:
        self.z.root.write("uzswap.recompress", "256K codec=zstd:9")

    def look(self) -> None:
        self.z.root.read("memory.stat")
        self.z.flush_work()

    def fork(self) -> None:
        """Seldom: a child has all of it, goes on for a while, and ends; the parent does not notice.

        When something fails in the very fork, it may be that the child cannot have it: that is told there, not here.
        """
        if self.rng.random() < 0.7:
            return
        struck = self.struck()
        pid = os.fork()
        if pid:
            status = os.waitpid(pid, 0)[1]
            assert status == 0, f"the child ended with {os.waitstatus_to_exitcode(status)}"
            return
        status = 1
        try:
            if self.struck() == struck:
                self.run(8)
                self.heal()
                self.settle()
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)

    def churn(self) -> None:
        """So much is written and freed that there are blocks to be given back to the file system."""
        for _ in range(2):
            handles = [self.z.swap_out_many(self.rng.randbytes(1 << 20), self.group("/c")) for _ in range(12)]
            with contextlib.suppress(uzswap.ReclaimIncomplete):
                self.z.root.reclaim("12M", source="zswap")
            for some in handles:
                self.z.free_many(some)

    # The end

    def settle(self) -> None:
        """Nothing fails any more: all of it has to be there, and after it nothing.

        MemoryError and the like are no excuse now.
        """
        self.z.flush_work()
        self.z.check()
        self.compare()
        self.z.check()
        self.empty()
        self.z.flush_work()
        self.z.check()
        left = {
            name: value
            for name, value in zip(COUNTERS, self.z.core.globals(), strict=False)
            if name in ("resident", "zswap", "swap", "disk", "swapcached") and value
        }
        assert not left, left
        self.z.close()

    def compare(self) -> None:
        """All that there should be, with the limits off."""
        self.doing = "comparing"
        for name in ("/s", "/n", "/a"):
            for limit in ("memory.max", "memory.high"):
                self.group(name).write(limit, "max")
        for handle, data in sorted(self.pages.items()):
            with self.unless_damaged():
                try:
                    found = self.z.fault_in_many(np.array([handle], np.uint64), consume=False).tobytes()
                except uzswap.StaleHandleError:
                    assert handle in self.doubtful, handle
                    self.forget([handle])
                    continue
                self.equal(found, data, handle)
        self.look_into_store()
        if self.store is not None and not self.closing:
            for key in range(30):
                with self.unless_damaged():
                    self.saw(key, self.store.get(key, NOTHING))
        for pair in list(self.arrays):
            with self.unless_damaged(), self.brought_in(pair[0], pair):
                self.equal(pair[0].copy(), pair[1], "an array")

    def look_into_store(self) -> None:
        """What it knows of itself is of one piece; nobody else may be at work in it."""
        if self.store is not None and not self.closing:
            self.store.check()

    def interrupted(self) -> None:
        """A write to an array, if that is what was interrupted, was done or not."""
        if self.pending is None:
            return
        mine, first, last, new = self.pending
        for pair in self.arrays:
            if pair[1] is mine:
                with self.brought_in(pair[0][first:last], pair):
                    found = pair[0][first:last].copy()
                assert np.array_equal(found, new) or np.array_equal(found, mine[first:last]), "half written"
                mine[first:last] = found
        self.pending = None

    def empty(self) -> None:
        self.doing = "emptying"
        self.z.free_many(np.array(sorted(self.pages), np.uint64))
        self.pages.clear()
        if self.store is not None:
            self.store.close()
            self.store = None
        self.values.clear()
        self.arrays.clear()
        gc.collect()

    @contextlib.contextmanager
    def unless_damaged(self) -> Any:
        try:
            yield
        except uzswap.IntegrityError:
            if not self.lies:
                raise
            self.damaged += 1
