"""The files there is one of: module parameters, debugfs counters, vmstat, meminfo, swaps (SPEC 7.4)."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from tests.conftest import EngineFactory
from tests.support.pages import pages_of_length, random_page
from tests.support.states import stat

from uzswap import MemCgroup, Zswap
from uzswap.files.engine import DEBUG, ENGINE_FILES, PARAMETERS, engine_file


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/job")


def fails(code: int, match: str = "") -> Any:
    return pytest.raises(OSError, match=rf"\[Errno {code}\].*{match}")


def test_parameters_are_those_of_the_engine(z: Zswap) -> None:
    assert tuple(PARAMETERS) == z.parameters.names()


@pytest.mark.parametrize(
    ("name", "text", "result"),
    [
        ("enabled", "n\n", "N\n"), ("enabled", "on", "Y\n"), ("enabled", "2", errno.EINVAL),
        ("shrinker_enabled", "1", "Y\n"), ("shrinker_enabled", "", "N\n"),
        ("max_pool_percent", "0x10\n", "16\n"), ("max_pool_percent", "0", "0\n"), ("max_pool_percent", "150", "150\n"),
        ("max_pool_percent", "-1", errno.EINVAL), ("max_pool_percent", "20%", errno.EINVAL),
        ("max_pool_percent", "4294967296", errno.ERANGE), ("accept_threshold_percent", "100", "100\n"),
        ("compressor", "zstd\n", "zstd\n"), ("compressor", "lzo", errno.ENOENT), ("uzswap.walk", " v5 ", "v5\n"),
        ("uzswap.walk", "fastest", errno.ENOENT), ("same_filled_pages_enabled", "N", "N\n"),
    ],
)  # fmt: skip
def test_parameters(z: Zswap, name: str, text: str, result: str | int) -> None:
    row = engine_file(f"zswap/parameters/{name}")
    before = row.read(z, z.root)
    with row.open(z, z.root) as file:
        if isinstance(result, int):
            with fails(result, f"'/zswap/parameters/{name}"):
                file.write(text)
            assert file.read() == before
        else:
            assert file.write(text) == len(text)
            assert file.read() == result


@pytest.mark.parametrize("path", ["zswap/parameters/zpool", "zswap/debug/same_filled_pages", "vmstats", "", "zswap"])
def test_files_that_the_engine_has_not(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        engine_file(path)


def test_debug_counters(z: Zswap, g: MemCgroup) -> None:
    handles = z.swap_out_many(pages_of_length(500, 7) + random_page(), g)
    read = {name: row.read(z, z.root) for name, row in DEBUG.items()}
    assert read["stored_pages"] == "8\n"
    assert read["stored_incompressible_pages"] == "1\n"
    assert int(read["pool_total_size"]) >= 7 * 500 + 4096
    assert read["uzswap.pools"] == "lz4 level=1 entries=8 current=1\n"
    g.reclaim(stat(g, "zswap"), source="zswap")
    assert DEBUG["written_back_pages"].read(z, z.root) == "8\n"
    device = dict(line.split() for line in DEBUG["uzswap.device"].read(z, z.root).splitlines())
    assert int(device["live_bytes"]) >= 7 * 500 + 4096
    assert [stat.name for stat in DEBUG["uzswap.device"].keys] == list(device)
    z.free_many(handles)


def test_reading_about_the_device_opens_no_stream_to_it(z: Zswap, g: MemCgroup) -> None:
    """Nothing is asynchronous until something was written back, however often it is asked."""

    def asynchronous() -> bool:
        device = z.core.device()
        assert device is not None
        return device.asynchronous

    for row in ENGINE_FILES.values():
        row.read(z, z.root)
    assert not asynchronous()
    handles = z.swap_out_many(pages_of_length(500, 7), g)
    g.reclaim(stat(g, "zswap"), source="zswap")
    assert asynchronous() <= z.core.device().direct  # a seccomp filter, or aio-max-nr, may forbid it
    z.free_many(handles)


def test_debug_without_a_device(engine: EngineFactory) -> None:
    z = engine(swap=None)
    assert DEBUG["uzswap.device"].read(z, z.root) == ""
