"""Buffers in which entries were on their way are overwritten before they are given back.

Nobody sees memory that is unmapped; so it is not: every munmap() of the engine's fails (support/failing.c), which it
does not mind, and what it would have given back can be looked through afterwards.
"""

from __future__ import annotations

import pytest
from tests.support import failing
from tests.support.child import run

CODE = """
import os, re, sys
from contextlib import suppress
import numpy as np
import uzswap, uzswap.arrays.advice, uzswap.arrays.array, uzswap.arrays.take, uzswap.store.store
from tests.support import failing

failing.only("/uzswap/")
failing.plan("munmap", count=1 << 40)
compressor, encrypt = sys.argv[1], sys.argv[2] == "True"
# What is stored as it is, and what is longer in clear than compressed: so it tells a copy in clear from the pool's.
raw, word = os.urandom(64), os.urandom(16)
repeated = word * 4
STAGING = 16 * 64 * 4096

def private():
    "What core/libc_ext.pxd maps for plaintext, and the pager's staging; neither the pool nor arrays themselves."
    text = open("/proc/self/smaps").read()
    for begin, end, flags in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) .*?^VmFlags: ([a-z0-9 ]*)$", text, re.M | re.S):
        begin, end, flags = int(begin, 16), int(end, 16), flags.split()
        if "rd" in flags and "dd" in flags and ("nr" not in flags or end - begin == STAGING):
            yield begin, end

def copies():
    "How many there are of each mark."
    found = [0, 0]
    with open("/proc/self/mem", "rb", 0) as memory:
        for begin, end in private():
            for at in range(begin, end, 4096):
                memory.seek(at)
                with suppress(OSError):  # of staging there is only what is on its way
                    content = memory.read(4096)
                    found[0] += content.count(raw)
                    found[1] += content.count(repeated)
    return found

def page(mark):
    return os.urandom(4096 - 64) + raw if mark else word * 256

z = uzswap.Zswap(swap="auto", swap_size="64M", compressor=compressor, encrypt=encrypt, paranoid=True)
group = z.cgroup("/g")
def to_disk():
    with suppress(uzswap.ReclaimIncomplete):
        group.reclaim("1G")
    with suppress(uzswap.ReclaimIncomplete):
        z.root.reclaim("1G", source="zswap")

handles = z.swap_out_many(b"".join(page(i % 2) for i in range(256)), group)
with suppress(uzswap.ReclaimIncomplete):
    z.root.write("uzswap.recompress", "1G codec=zstd:9")
store = uzswap.Store(group)
for i in range(64):
    store[i] = page(i % 2) * (1 + i % 9)
x = uzswap.zeros((256, 4096), np.uint8, cgroup=group)
for i in range(256):
    x[i] = np.frombuffer(page(i % 2), np.uint8)
to_disk()
seen = copies()
z.fault_in_many(handles, consume=False)
for i in range(64):
    assert raw in store[i] or repeated in store[i]
uzswap.take(x, np.arange(0, 256, 3))
x.sum()
seen = np.add(seen, copies())
assert seen.all(), f"nothing is found where something has to be: {seen}"
z.free_many(handles)
store.close()
del x, store
z.flush_work()
z.close()
assert failing.struck("munmap") > 3
assert list(private())
assert copies() == [0, 0], copies()
"""


@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("compressor", ["lz4", "zstd"])
def test_buffers_are_overwritten_before_they_are_given_back(compressor: str, encrypt: bool) -> None:
    run(CODE, [compressor, str(encrypt)], env=failing.preloaded(), timeout=60).check()
