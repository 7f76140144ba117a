"""Where there is no memory for anything: what an array has can be had, since its reader cannot be told that it failed;
what is to be freed is freed; and the rest fails without a loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support import failing
from tests.support.child import run
from tests.support.soak import longer

if TYPE_CHECKING:
    from tests.conftest import Tally

#: Who asks for values or pages can be told, by MemoryError: world.py.
ARRAY = """
import sys
import numpy as np
import uzswap
from tests.support import failing

compressor, where, encrypt = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
z = uzswap.Zswap(swap="auto", swap_size="64M", compressor=compressor, encrypt=encrypt)
group = z.cgroup("/g")
def out():
    try:
        group.reclaim("1G")
    except uzswap.ReclaimIncomplete:
        pass
    if where == "device":
        try:
            z.root.reclaim("1G", source="zswap")
        except uzswap.ReclaimIncomplete:
            pass

rng = np.random.default_rng(1)
data = np.repeat(rng.integers(0, 1 << 60, 64 * 512 // 4, np.uint64), 4)
x = uzswap.zeros(len(data), np.uint64, cgroup=group)
x[:] = data
out()
assert int(group.read("memory.zswap.current")) > 0 or where == "device"
got = np.ones_like(data)
z.flush_work()
failing.refuse_memory(False)
failing.refuse_memory(True)
np.copyto(got, x)
refused = failing.refuse_memory(False)
assert refused or (compressor == "lz4" and where == "pool"), refused
assert (got == data).all()
"""


@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("where", ["pool", "device"])
@pytest.mark.parametrize("compressor", ["lz4", "zstd"])
def test_what_an_array_has_can_be_had_without_memory(compressor: str, where: str, encrypt: bool) -> None:
    run(ARRAY, [compressor, where, str(encrypt)], env=failing.preloaded(), timeout=60).check()


#: From one moment on there is none for the engine, until the history is over.
HISTORY = """
import errno, faulthandler, json, os, sys
from tests.faults.world import World
from tests.support import failing
import uzswap.arrays.advice, uzswap.arrays.array, uzswap.store.store

kind, after, seed, steps = sys.argv[1], *map(int, sys.argv[2:])
faulthandler.dump_traceback_later(200, exit=True)
failing.only("/uzswap/")
failing.plan(kind, after, count=1 << 40, errno=errno.ENOMEM)
world = World(seed)
world.heal = lambda: failing.plan(kind, count=0)
world.struck = lambda: failing.struck(kind)
world.run(steps)
struck = failing.struck(kind)
world.heal()
world.settle()
print(json.dumps({"compared": world.compared, "struck": struck}))
"""


@pytest.mark.parametrize("seed", longer([2], [1, 2, 3, 4, 5]))
@pytest.mark.parametrize(("kind", "after"), [("calloc", 11), ("malloc", 200), ("mmap", 20), ("realloc", 3)])
def test_nothing_is_lost_where_there_is_no_memory_any_more(
    tmp_path: Path, tally: Tally, kind: str, after: int, seed: int
) -> None:
    env = {"TMPDIR": str(tmp_path), **failing.preloaded()}
    done = run(HISTORY, [kind, str(after), str(seed), str(longer(60, 150))], env=env).check()
    told = json.loads(done.stdout)
    tally("faults injected", told["struck"])
    tally("bytes compared", told["compared"])
