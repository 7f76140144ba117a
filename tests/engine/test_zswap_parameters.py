"""Module parameters and arguments of Zswap (SPEC 3.3, 3.5, 7.4)."""

import errno
from typing import Any

import pytest
from tests.conftest import EngineFactory
from tests.support.pages import page_of_length, random_page
from tests.support.states import fill

from uzswap import InvalidArgumentError, Zswap
from uzswap.engine.parameters import Compressor, PoolLimit, parse_max_pool, total_ram_pages


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


def test_defaults(z: Zswap) -> None:
    assert {name: z.parameters.get(name) for name in z.parameters.names()} == {
        "accept_threshold_percent": "90",
        "compressor": "lz4",
        "enabled": "Y",
        "max_pool_percent": "20",
        "same_filled_pages_enabled": "Y",
        "shrinker_enabled": "N",
        "uzswap.walk": "fair",
    }
    assert z.parameters.pool_limit == PoolLimit().pages(total_ram_pages())


@pytest.mark.parametrize(
    ("name", "written", "read"),
    [
        ("accept_threshold_percent", "0x32", "50"),
        ("accept_threshold_percent", "4294967295", "4294967295"),
        ("max_pool_percent", "0", "0"),
        ("max_pool_percent", "150\n", "150"),
        ("enabled", "n", "N"),
        ("enabled", "off", "N"),
        ("shrinker_enabled", "1", "Y"),
        ("shrinker_enabled", "on", "Y"),
        ("same_filled_pages_enabled", "0", "N"),
        ("compressor", "zstd\n", "zstd"),
        ("compressor", "zstd:9", "zstd:9"),
        ("compressor", "zstd:3", "zstd"),
        ("compressor", "lz4:17", "lz4:17"),
        ("uzswap.walk", "v5\n", "v5"),
        ("uzswap.walk", "coldest", "coldest"),
    ],
)
def test_what_is_written_is_read(z: Zswap, name: str, written: str, read: str) -> None:
    z.parameters.set(name, written)
    assert z.parameters.get(name) == read


@pytest.mark.parametrize(
    ("name", "text", "number"),
    [
        ("accept_threshold_percent", "-1", errno.EINVAL),
        ("accept_threshold_percent", "4294967296", errno.ERANGE),
        ("max_pool_percent", "20%", errno.EINVAL),
        ("max_pool_percent", "", errno.EINVAL),
        ("enabled", "x", errno.EINVAL),
        ("shrinker_enabled", "", errno.EINVAL),
        ("compressor", "lzo", errno.ENOENT),
        ("compressor", "", errno.ENOENT),
        ("compressor", "LZ4", errno.ENOENT),
        ("compressor", "zstd:", errno.ENOENT),
        ("compressor", "zstd:23", errno.ENOENT),
        ("compressor", "lz4:0", errno.ENOENT),
        ("uzswap.walk", "v4", errno.ENOENT),
        ("zpool", "zsmalloc", errno.ENOENT),
    ],
)
def test_bad_text_changes_nothing(z: Zswap, name: str, text: str, number: int) -> None:
    before = {name: z.parameters.get(name) for name in z.parameters.names()}
    with pytest.raises(OSError) as refused:  # noqa: PT011 the errno is what matters
        z.parameters.set(name, text)
    assert refused.value.errno == number
    assert {name: z.parameters.get(name) for name in z.parameters.names()} == before


@pytest.mark.parametrize(
    ("max_pool", "limit"),
    [
        (None, PoolLimit(20, 80)),
        ("35%", PoolLimit(35, 80)),
        (" 0% ", PoolLimit(0, 80)),
        ("512M", PoolLimit(accept=80, fixed=131_072)),
        (10_000, PoolLimit(accept=80, fixed=2)),
    ],
)
def test_max_pool(max_pool: str | int | None, limit: PoolLimit) -> None:
    assert parse_max_pool(max_pool, 80) == limit


def test_a_fixed_limit_as_a_percentage(engine: EngineFactory) -> None:
    ram = total_ram_pages()
    z = engine(max_pool=(ram // 2 + 1) * 4096)
    assert z.parameters.get("max_pool_percent") == "50"
    z.parameters.set("accept_threshold_percent", "50")
    assert z.parameters.pool_limit == (ram // 2 + 1, (ram // 2 + 1) // 2)
    z.parameters.set("max_pool_percent", "10")
    assert z.parameters.pool_limit == (ram * 10 // 100, ram * 10 // 100 // 2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_pool": "20 %%"},
        {"max_pool": "-5%"},
        {"max_pool": "much"},
        {"max_pool": -1},
        {"accept_threshold_percent": -1},
        {"swap_size": "many"},
        {"swap_size": -1},
        {"swap_size": "3M"},
        {"nodes": 0},
        {"nodes": 9},
    ],
)
def test_bad_arguments(engine: EngineFactory, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        engine(**arguments)


@pytest.mark.parametrize("arguments", [{"compressor": "snappy"}, {"walk": "random"}])
def test_unknown_names(engine: EngineFactory, arguments: dict[str, Any]) -> None:
    with pytest.raises(FileNotFoundError, match="there are"):
        engine(**arguments)


@pytest.mark.parametrize("name", ["lz4", "lz4:9", "zstd", "zstd:1", "zstd:19"])
def test_every_compressor_brings_back_what_it_took(engine: EngineFactory, name: str) -> None:
    z = engine(compressor=name)
    g = z.cgroup("/g")
    pages = [b"some text to compress " * 180, random_page(3), b"\1" + bytes(4000)]
    handles = [z.swap_out(page, g) for page in pages]
    assert [z.fault_in(handle) for handle in handles] == pages
    assert str(Compressor.parse(name)) == z.parameters.get("compressor") == name


def test_too_many_compressors_at_once(z: Zswap) -> None:
    g = z.cgroup("/g")
    handles = []

    def use_more_and_more() -> None:
        for level in range(1, 1000):
            z.parameters.set("compressor", f"lz4:{level}")
            handles.append(z.swap_out(page_of_length(300), g))

    with pytest.raises(OSError, match="must wait") as busy:
        use_more_and_more()
    assert busy.value.errno == errno.EBUSY
    assert len(handles) >= 8
    assert z.parameters.get("compressor") == f"lz4:{len(handles)}"
    z.free(handles[1])
    z.parameters.set("compressor", "lz4:999")


def test_walk_changed_between_requests(z: Zswap) -> None:
    g = z.cgroup("/g")
    fill(z, g, 200, 1000, referenced=False)
    assert g.reclaim(1, source="zswap").entries == 1
    z.parameters.set("uzswap.walk", "v5")
    assert g.reclaim(1, source="zswap").entries == 64
    z.parameters.set("uzswap.walk", "coldest")
    assert g.reclaim(1, source="zswap").entries == 1
