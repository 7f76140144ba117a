"""What the process has resident follows what the pool holds: in a process whose heap nobody else has used."""

from __future__ import annotations

from pathlib import Path

from tests.support.child import run

BEGIN = """
import os, sys
from pathlib import Path
import numpy as np
from tests.core.store.test_data_plane import MIB, attached, half_random
from uzswap.core.boundary import engine as core

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
"""

DRAINED = """
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
engine = attached(fd, 64 * MIB)
pages = half_random(16384)
out, got = np.zeros(pages.size, np.uint8), np.zeros(len(pages), np.uint64)
out[:] = 1
before = resident_bytes()
engine.store(pages.reshape(-1), 4096, 0, 0, got)
assert resident_bytes() > before + 30 * MIB
assert engine.load(got, out, 4096).failed == -1
assert (out.reshape(pages.shape) == pages).all()
assert engine.pool_pages() == 0
assert resident_bytes() < before * 1.05, (resident_bytes(), before)
engine.close()
"""

IN_ORDER = """
engine = core.Engine()
pages, got = half_random(8192), np.zeros(8192, np.uint64)
before = resident_bytes()
engine.store(pages.reshape(-1), 4096, 0, 0, got)
each = engine.pool_pages() * 4096 / len(got)
assert engine.pool_pages() * 4096 > 16 * MIB
for start in range(0, len(got), 64):
    assert engine.free(got[start : start + 64]) == (-1, 0)
    most = (len(got) - start - 64) * each * 1.125 + 6 * MIB
    assert engine.pool_pages() * 4096 <= most
    assert resident_bytes() - before <= most + 4 * MIB, start
    if start % 1024 == 0:
        assert engine.check() == []
assert engine.pool_pages() == 0
engine.close()
"""


def test_a_drained_engine_gives_its_memory_back(tmp_path: Path) -> None:
    """RSS after a full drain is within 5 % of where it started."""
    run(BEGIN + DRAINED, [str(tmp_path / "swap")], fresh=True).check()


def test_a_pool_that_is_drained_in_order_follows_what_it_holds() -> None:
    """It keeps an eighth of what is in use, and three extents: in stock, being drained, and the one it writes to."""
    run(BEGIN + IN_ORDER, fresh=True).check()
