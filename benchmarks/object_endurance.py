"""Very many small objects, and very many operations on some, each in a process of its own: is memory what it should be?

``python -m benchmarks.object_endurance million NUMBER DIRECTORY``
``python -m benchmarks.object_endurance operations NUMBER DIRECTORY``

Each prints a line of JSON for every tenth of the way.
"""

from __future__ import annotations

import json
import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import uzswap
from benchmarks.object_candidates import scratch
from benchmarks.object_run import rss
from benchmarks.object_values import string

STEPS: Final = 10
#: values put between two reclaims: these are resident
BATCH: Final = 50_000
#: keys that the operations are on
KEYS: Final = 20_000
#: how often, of a hundred operations: get, set, del; the rest looks whether a key is there
GETS, SETS, DELETES = 60, 25, 5
#: how many keys are there when as many are set anew as are deleted
FULL: Final = KEYS * SETS // (SETS + DELETES)
#: operations between two reclaims, which take turns: half of the store, some of the pool to the disk, all of the store
BETWEEN: Final = 5000


def peak() -> int:
    """Bytes of RSS at most, until now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("/proc/self/status has no VmHWM")


def tell(**found: Any) -> None:
    print(json.dumps(found), flush=True)


def million(number: int, directory: str) -> None:
    """Put values of 100 bytes, all of which stay in memory, compressed but for the last ones."""
    before = rss()
    start = time.process_time()
    with uzswap.Zswap(swap=str(Path(directory) / "swap"), swap_size="64M", max_pool="90%") as z:
        store: uzswap.Store[int, str] = uzswap.Store(z.cgroup("/bench"))
        cgroup = store.cgroup
        for step in range(1, STEPS + 1):
            for key in range(number * (step - 1) // STEPS, number * step // STEPS):
                store[key] = string(key)
                if not key % BATCH:
                    store.reclaim("64G")
            store.reclaim("64G")
            tell(
                values=len(store),
                rss=rss() - before,
                peak=peak(),
                base=before,
                pool=cgroup.stats()["zswap"],
                cpu=time.process_time() - start,
            )
        for key in random.Random(1).sample(range(number), min(number, 1000)):
            if store[key] != string(key):
                raise RuntimeError(f"value {key} is not what was put")


def operations(number: int, directory: str) -> None:
    """Mixed operations on values of 100 bytes to 10 KB, with reclaim of both kinds in between."""
    turns = random.Random(1)
    texts = [string(i) for i in range(100)]
    start = time.process_time()
    with uzswap.Zswap(swap=str(Path(directory) / "swap"), swap_size="256M", max_pool="90%") as z:
        store: uzswap.Store[int, Any] = uzswap.Store(z.cgroup("/bench"))
        cgroup = store.cgroup
        done = reclaims = 0
        for step in range(STEPS + 1):
            # The first, which does not count, is there to fill it.
            target = number * step // STEPS if step else 0
            while done < target or (not step and len(store) < FULL):
                key, what = turns.randrange(KEYS), turns.randrange(100)
                if not step or GETS <= what < GETS + SETS:
                    store[key] = _value(texts, key, turns.randrange(100))
                elif what < GETS:
                    value = store.get(key)
                    if value is not None and value[0] != key:
                        raise RuntimeError(f"value {key} is another's")
                    del value
                elif what < GETS + SETS + DELETES:
                    store.discard(key)
                else:
                    key in store  # noqa: B015  that it is asked is the point
                done += bool(step)
                if step and not done % BETWEEN:
                    reclaims += 1
                    with suppress(uzswap.ReclaimError):
                        if reclaims % 3:
                            store.reclaim(store.resident_bytes // (reclaims % 3))
                        else:
                            cgroup.reclaim(1 << 20, source="zswap")
            if not step:
                start = time.process_time()
            tell(operations=done, rss=rss(), values=len(store), cpu=time.process_time() - start)


def _value(texts: list[str], key: int, size: int) -> list[Any]:
    """Mostly some 100 bytes, at times a list of lines, and some 10 KB of bytes."""
    if size < 80:
        return [key, texts[size] + str(key)]
    if size < 98:
        return [key, [f"{key} {text}" for text in texts[: size - 70]]]
    return [key, texts[size].encode() * 100]


def main(mode: str, number: int, parent: str | None) -> None:
    with scratch(parent) as directory:
        {"million": million, "operations": operations}[mode](number, directory)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
