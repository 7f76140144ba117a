"""An engine of the data plane with a device, and entries on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from uzswap.core.boundary import engine as core
from uzswap.core.boundary.writer import Writer

__all__ = ["MIB", "N", "attached", "errors", "stored", "write_back"]

MIB = 1 << 20
N = 64  # entries of incompressible bytes: 4096 and the header each, the first at 0


@contextmanager
def attached(
    path: Path | str, nbytes: int = 8 * MIB, nonce: int = 0, *, encrypt: bool = False
) -> Iterator[core.Engine]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    engine = core.Engine()
    try:
        if encrypt:
            assert engine.make_keys() == 0
        if os.fstat(fd).st_size < nbytes:
            os.ftruncate(fd, nbytes)
        assert engine.attach_device(fd, nbytes, False, nonce) == 0
        yield engine
        assert engine.check() == []
    finally:
        engine.close()
        os.close(fd)


def stored(engine: core.Engine, seed: int, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    data = np.random.default_rng(seed).integers(0, 256, (n, 4096), np.uint8)
    handles = np.zeros(n, np.uint64)
    assert engine.store(data.reshape(-1), 4096, 0, 0, handles).next == n
    return handles, data


def write_back(engine: core.Engine) -> core.FlushResult:
    """All that is in the pool, second chances used up."""
    writer, lru = Writer(engine), np.zeros(1, np.uint64)
    while not writer.walk(lru, np.zeros(1, np.uint64), 1 << 20, 1 << 40, engine.stamp()).exhausted:
        pass
    return writer.finish()


def errors(engine: core.Engine, handles: np.ndarray, data: np.ndarray) -> list[int]:
    """Load each; the errno of those that fail.  Bytes that are wrong fail the test."""
    found = []
    for i in range(len(handles)):
        got, result = engine.load_bytes(handles[i : i + 1], 4096, 4096)
        if result.errno:
            found.append(result.errno)
        else:
            assert got == data[i].tobytes()
    return found
