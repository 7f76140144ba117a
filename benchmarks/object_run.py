"""One candidate on one kind of objects, in a process of its own: a line of JSON says what it took.

``python -m benchmarks.object_run KIND CANDIDATE NUMBER SEED DIRECTORY``
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Final

from benchmarks.object_candidates import CANDIDATES, Candidate, scratch
from benchmarks.object_values import KINDS, Kind, same
from benchmarks.reference import PAGE

#: values that are made, and then put, at once: so few that they hardly matter in memory
BATCH: Final = 256
#: values compared with what was put
SAMPLE: Final = 4
WARM_UP: Final = 64


class _MallInfo(ctypes.Structure):
    """mallinfo(3)"""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "k")
    ]


def in_use() -> int:
    """Bytes that the program has of malloc(3); all that Python has, with PYTHONMALLOC=malloc."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _MallInfo
    gc.collect()
    found = mallinfo2()
    return int(found.uordblks) + int(found.hblkhd)


def rss() -> int:
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE


class Watch:
    """Microseconds of this process's CPU, and of the clock on the wall, in a ``with`` block; they add up."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0

    def __enter__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.cpu += (time.process_time() - self._cpu) * 1e6
        self.wall += (time.perf_counter() - self._wall) * 1e6

    def each(self, number: int) -> list[float]:
        return [self.cpu / number, self.wall / number]


def put(candidate: Candidate, kind: Kind, keys: Sequence[int]) -> list[float]:
    watch = Watch()
    # Large values are made one at a time.
    batch = max(1, min(BATCH, (1 << 20) // kind.nbytes))
    for start in range(0, len(keys), batch):
        some = list(keys[start : start + batch])
        values = [kind.make(key) for key in reversed(some)]
        with watch:
            for key in some:
                # Nobody else holds the value.
                candidate.put(key, values.pop())
    return watch.each(len(keys))


def read(get: Callable[[int], Any], keys: Iterable[int]) -> list[float]:
    watch = Watch()
    order = list(keys)
    with watch:
        for key in order:
            get(key)
    return watch.each(len(order))


def compare(get: Callable[[int], Any], kind: Kind, keys: Sequence[int]) -> None:
    for key in keys[:SAMPLE]:
        if not same(get(key), kind.make(key)):
            raise RuntimeError(f"value {key} is not what was put")


def life(candidate: Candidate, kind: Kind, keys: Sequence[int], seed: int) -> dict[str, list[float]]:
    """Put all, and take them through all places that the candidate has: us of CPU and wall, and bytes, a value."""
    number = len(keys)
    order = random.Random(seed).sample(keys, number)
    found: dict[str, list[float]] = {}
    before = rss()

    def note_memory(where: str) -> None:
        if candidate.settle is not None:
            candidate.settle()
        found[f"RSS {where}"] = [(rss() - before) / number]

    found["put"] = put(candidate, kind, keys)
    note_memory("put")
    if candidate.hot is not None:
        compare(candidate.hot, kind, order)
        found["hot get"] = read(candidate.hot, order)
    if candidate.reclaim is not None and candidate.get is not None:
        watch = Watch()
        with watch:
            candidate.reclaim()
        found["reclaim"] = watch.each(number)
        note_memory("in zswap")
        found["get from zswap"] = read(candidate.get, order)
        # They came back: by hand and in zict they are objects again.
        compare(candidate.hot or candidate.get, kind, order)
    if candidate.to_disk is not None and candidate.from_disk is not None:
        candidate.to_disk()
        note_memory("on disk")
        sample, rest = order[:SAMPLE], order[SAMPLE:]
        compare(candidate.from_disk, kind, sample)
        alone, together = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        found["get from disk"] = read(candidate.from_disk, alone)
        if candidate.many_from_disk is not None:
            watch = Watch()
            with watch:
                candidate.many_from_disk(together)
            found["get_many from disk"] = watch.each(len(together))
    return found


def bookkeeping(candidate: Candidate, kind: Kind, keys: Sequence[int]) -> float:
    """Bytes a value that are left when all are on the disk; the keys themselves do not count.

    What a candidate has once, however many values there are, is there before they come.
    """

    def fill(some: Sequence[int]) -> int:
        put(candidate, kind, some)
        if candidate.to_disk is not None:
            candidate.to_disk()
        if candidate.settle is not None:
            candidate.settle()
        return in_use() + (0 if candidate.tables is None else candidate.tables())

    before = fill(range(WARM_UP))
    return (fill(keys) - before) / len(keys)


def main(kind_name: str, name: str, number: int, seed: int, directory: str) -> None:
    kind, make = KINDS[kind_name], CANDIDATES[name]
    keys = list(range(1000, 1000 + number))
    measures_memory = os.environ.get("PYTHONMALLOC") == "malloc"
    with ExitStack() as stack:
        candidates = []
        for _ in range(2):
            candidates.append(make(stack.enter_context(scratch(directory))))
            stack.callback(candidates[-1].close)
        warm_up, candidate = candidates
        life(warm_up, kind, keys[:WARM_UP], seed)
        if measures_memory:
            found = {"bookkeeping": [bookkeeping(candidate, kind, keys)]}
        else:
            found = life(candidate, kind, keys, seed)
        print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
