"""distributed's own tests of spilling, with a worker's memory of ours in the place of SpillBuffer.

A plugin for a pytest of its own (test_distributed.py starts it).  Nothing in the tests is changed but what is put in
here: SpillBuffer, and how the two helpers of test_spill.py look at a buffer, which is by the names of its files.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed.worker_memory
import pytest
from dask.sizeof import sizeof

import uzswap.dask.tiers
from uzswap.dask import WorkerMemory

#: test -> why it does not apply
NOT_FOR_US = {
    "test_spill.py::test_spillbuffer_maxlim": "caps of a few hundred bytes: the smallest swap file has 4 MiB",
    "test_spill.py::test_spillbuffer_oserror": "takes away the right to make files: there is one, which is open",
    "test_spill.py::test_compression_settings": "distributed.worker.memory.spill-compression: uzswap.compressor",
    "test_spill.py::test_metrics": "compression is part of the write, and of the read, and not metered by itself",
    "test_worker_memory.py::test_pause_while_spilling": "counts what goes before a pause: a set makes room",
    "test_worker_memory.py::test_release_evloop_while_spilling": "asks for the loop to be held: room is made elsewhere",
    "test_worker_memory.py::test_spill_constrained": "a cap of 600 bytes, as test_spillbuffer_maxlim",
}

#: the same, with a pool
NOT_WITH_A_POOL = {
    "test_spill.py::test_spillbuffer": "the target is of what values occupy, compressed ones included",
    "test_spill.py::test_str_collision": "`fast` is true as long as the pool has something that can go",
}

_made: weakref.WeakValueDictionary[str, WorkerMemory] = weakref.WeakValueDictionary()


def buffer(directory: str, target: int, max_spill: Any = False) -> WorkerMemory:
    """What SpillBuffer is called with: two tiers, and room is made before a call returns."""
    pool = "1 GiB" if _POOL else 0
    made = WorkerMemory(directory, target=int(target), headroom=0, pool=pool, disk=max_spill or "64 MiB")
    _made[str(directory)] = made
    return made


def size_of(directory: Path, **values: object) -> tuple[int, int]:
    """Bytes of values in memory, and as they are stored."""
    store = _made[str(directory)]._tiers.store
    return sum(map(sizeof, values.values())), sum(store.info(key).stored_bytes for key in values)


def assert_buffer(buf: WorkerMemory, directory: Path, fast: dict[str, Any], slow: dict[str, Any]) -> None:
    assert dict(buf.fast) == fast
    assert buf.fast.weights == {key: sizeof(value) for key, value in fast.items()}
    assert buf.fast.total_weight == sum(map(sizeof, fast.values()))
    for key, value in buf.fast.items():
        assert buf[key] is value
    assert set(buf.slow) == set(slow)
    memory, stored = size_of(directory, **slow)
    spilled = buf.spilled_total
    if _POOL:
        assert spilled.disk == 0
        assert buf.stats()["zswap"] == stored
        assert spilled.memory == max(0, memory - stored)
    else:
        assert spilled == (memory, stored)
    buf.check()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pool", action="store_true", help="three tiers and not two")


_POOL = False


def pytest_configure(config: pytest.Config) -> None:
    global _POOL
    _POOL = config.getoption("--pool")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name, why in (NOT_FOR_US | (NOT_WITH_A_POOL if _POOL else {})).items():
            if item.nodeid.split("[")[0].endswith(name):
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(autouse=True)
def ours(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts our memory where the tests, and workers, make a SpillBuffer."""
    monkeypatch.setattr(distributed.worker_memory, "SpillBuffer", buffer)
    # What somebody holds goes last; the tests hold everything, or a copy that is as good, and tell by the order alone.
    monkeypatch.setattr(uzswap.dask.tiers, "_references", lambda held: 0)
    monkeypatch.setattr(uzswap.dask.tiers, "log", logging.getLogger("distributed.spill"))
    for name, what in (("SpillBuffer", buffer), ("psize", size_of), ("assert_buf", assert_buffer)):
        if hasattr(request.module, name):
            monkeypatch.setattr(request.module, name, what)
    yield
    for made in list(_made.values()):
        made.settle()
