"""What an array has can be had where there is no memory for anything: its reader cannot be told that it failed."""

from __future__ import annotations

import pytest
from tests.support import failing
from tests.support.child import run

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
