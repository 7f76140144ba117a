"""What comes back: RSS of a process before values come, with them, and after each step of their way out and back.

Target: once all is on the disk, RSS is within 15 % and 8 MiB of where it was before.

Each kind of value in a process of its own for each candidate: uzswap's store; zict's Buffer over lz4 over File, whose
values are all flushed to files; and a dict whose values are deleted, with a garbage collection, which is all that a
program can do by itself.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click
import lz4.block
import numpy as np
import zict

import uzswap
from benchmarks.common import console, options, table, title, verdict

#: of RSS before, and bytes beside
TARGET: Final = 0.15
TARGET_BYTES: Final = 8 << 20
MIB: Final = 1 << 20
#: Values of a kind at most: zict makes a file of each.
MOST: Final = 50_000

OURS: Final = "uzswap Store"
STEPS: Final = ("before", "values", "zswap", "disk", "back", "closed")

_HALF: Final = np.random.default_rng(1).integers(97, 123, 500_000, np.uint8)
_HALF[::2] = 97
_TEXT: Final = _HALF.tobytes()


def _strings(i: int) -> list[str]:
    return [f"{i} {j} {'x' * 40}" for j in range(200)]


def _frame(i: int) -> Any:
    pandas = import_module("pandas")
    n = np.arange(10_000)
    return pandas.DataFrame({"a": n + i, "b": n * 0.5, "c": n % 7})


def _piece(i: int, nbytes: int) -> bytes:
    return _TEXT[i % 100_000 :][: nbytes - 8] + b"%8d" % i


#: kind -> (bytes of a value, maker of number i)
KINDS: Final[dict[str, tuple[int, Callable[[int], Any]]]] = {
    "bytes of 1 KB": (1000, lambda i: _piece(i, 1000)),
    "bytes of 100 KB": (100_000, lambda i: _piece(i, 100_000)),
    "bytes of 300 KB": (300_000, lambda i: _piece(i, 300_000)),
    "lists of strings": (20_000, _strings),
    "ndarrays of 80 KB": (80_000, lambda i: np.arange(i, i + 10_000)),
    "DataFrames": (240_000, _frame),
}


def rss() -> int:
    """Bytes, once garbage is collected."""
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Rss:"))


# Each candidate yields the name of a step after it; what it cannot do it leaves out.


def ours(keys: list[int], make: Callable[[int], Any]) -> Iterator[str]:
    z = uzswap.Zswap()
    store: uzswap.Store[int, Any] = uzswap.Store(z.cgroup("/bench"))
    group = store.cgroup

    def reclaim(source: str | None = None) -> None:
        with suppress(uzswap.ReclaimError):
            group.reclaim(str(group.stats()["zswap" if source else "anon"]), source=source)

    for i in keys[:8]:
        store[i] = make(i)
    reclaim()
    store.clear()
    yield "before"
    for i in keys:
        store[i] = make(i)
    yield "values"
    reclaim()
    yield "zswap"
    reclaim("zswap")
    yield "disk"
    for i in keys:
        store[i]
    yield "back"
    store.close()
    z.close()
    yield "closed"


def with_zict(keys: list[int], make: Callable[[int], Any]) -> Iterator[str]:
    import pickle

    with tempfile.TemporaryDirectory(prefix="uzswap-bench-") as directory:
        files: Any = zict.File(directory)
        slow: Any = zict.Func(
            lambda value: lz4.block.compress(pickle.dumps(value, 5)),
            lambda data: pickle.loads(lz4.block.decompress(data)),
            files,
        )
        buffer: Any = zict.Buffer({}, slow, n=len(keys) + 1)
        yield "before"
        for i in keys:
            buffer[str(i)] = make(i)
        yield "values"
        buffer.n = 0
        while buffer.fast:
            buffer.fast.evict()
        yield "disk"
        buffer.n = len(keys) + 1
        for i in keys:
            buffer[str(i)]
        yield "back"
        buffer.close()
        del buffer, slow, files
        yield "closed"


def plain(keys: list[int], make: Callable[[int], Any]) -> Iterator[str]:
    values: dict[int, Any] = {}
    yield "before"
    for i in keys:
        values[i] = make(i)
    yield "values"
    values.clear()
    yield "closed"


CANDIDATES: Final = {OURS: ours, "zict, lz4, File": with_zict, "dict, deleted": plain}


def child(candidate: str, kind: str, mib: int) -> dict[str, int]:
    """What one candidate has after each step, measured in this process."""
    size, make = KINDS[kind]
    make(0)
    keys = list(range(min(mib * MIB // size, MOST)))
    return {step: rss() for step in CANDIDATES[candidate](keys, make)}


def measured(candidate: str, kind: str, mib: int) -> dict[str, int]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_rss", "--child", candidate, "--only", kind, "--mib", str(mib)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[1])
    found: dict[str, int] = json.loads(done.stdout)
    return found


@options
@click.option("--mib", type=click.IntRange(1), default=None, help="Of values of each kind.  [default: 200, quick: 32]")
@click.option("--only", type=click.Choice(list(KINDS)), default=None, help="One kind of values.")
@click.option("--child", "one", type=click.Choice(list(CANDIDATES)), default=None, hidden=True)
def main(quick: bool, rounds: int | None, mib: int | None, only: str | None, one: str | None) -> None:
    """RSS in MiB before there are values, with them, and with all of them in zswap, on the disk, back, and gone.

    What is kept on the disk, or deleted, is above the start, as a share of what the values took.
    """
    mib = mib or (32 if quick else 200)
    if one is not None and only is not None:
        print(json.dumps(child(one, only, mib)))
        return
    title(f"bench_rss: {mib} MiB of values of each kind, at most {MOST} of them")
    results = table("values", "candidate", *STEPS, "kept", "target")
    for kind in [only] if only else KINDS:
        if kind == "DataFrames" and find_spec("pandas") is None:
            continue
        for candidate in CANDIDATES:
            found = measured(candidate, kind, mib)
            before, gone = found["before"], found.get("disk", found["closed"])
            kept = (gone - before) / (found["values"] - before)
            row = [f"{found[step] / MIB:.0f}" if step in found else "-" for step in STEPS]
            target = verdict((gone - TARGET_BYTES) / before, 1 + TARGET, at_most=True)
            results.add_row(kind, candidate, *row, f"{kept:.2f}", target if candidate == OURS else "")
        results.add_section()
    console.print(results)


if __name__ == "__main__":
    main()
