"""``swap_out_many(compressor=, filter=)``: what a caller may ask for one call."""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
import pytest

import uzswap
from uzswap.core.boundary.engine import LZ4, ZSTD


@pytest.fixture
def z(engine) -> uzswap.Zswap:  # type: ignore[no-untyped-def]
    return engine(swap_size="64M")  # type: ignore[no-any-return]


COUNTS = np.random.default_rng(1).poisson(40, 65536).astype(np.int32)


def codec_of(z: uzswap.Zswap, handle: int) -> tuple[int, int, int]:
    info = z.core.info(int(handle))
    assert info is not None
    codec = z.core.codec_info(info.codec)
    assert codec is not None
    return codec.codec, codec.level, codec.filter


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, (LZ4, 1, 0)),
        ({"filter": 4}, (LZ4, 1, 4)),
        ({"filter": 1}, (LZ4, 1, 0)),
        ({"compressor": "zstd:7"}, (ZSTD, 7, 0)),
        ({"compressor": "zstd", "filter": 4}, (ZSTD, 3, 4)),
        ({"compressor": "lz4:3", "filter": 4}, (LZ4, 3, 4)),
    ],
)
def test_entries_are_compressed_as_asked_and_come_back(
    z: uzswap.Zswap, arguments: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    handles = z.swap_out_many(COUNTS, z.root, page=65536, **arguments)
    assert {codec_of(z, handle) for handle in handles} == {expected}
    assert (z.fault_in_many(handles, page=65536).view(np.int32) == COUNTS).all()
    # The next call is as ever, and nothing is held.
    handle = z.swap_out(COUNTS[:9], z.root)
    assert codec_of(z, handle) == (LZ4, 1, 0)
    z.free(handle)
    assert z.core.codec_info(1) is None


def test_a_shuffle_makes_counts_twice_as_small(z: uzswap.Zswap) -> None:
    plain = z.core.places(z.swap_out_many(COUNTS, z.root, page=65536))
    shuffled = z.core.places(z.swap_out_many(COUNTS, z.root, page=65536, filter=4))
    assert shuffled.zswap_bytes * 2 < plain.zswap_bytes


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        ({"compressor": "lzo"}, errno.ENOENT),
        ({"compressor": "zstd:0"}, errno.ENOENT),
        ({"filter": -1}, errno.EINVAL),
        ({"filter": 65537}, errno.EINVAL),
    ],
)
def test_what_there_is_not_stores_nothing(z: uzswap.Zswap, arguments: dict[str, Any], number: int) -> None:
    with pytest.raises(OSError, match=r"there (is|are)|has no level|filter=") as caught:
        z.swap_out_many(COUNTS, z.root, **arguments)
    assert caught.value.errno == number
    assert z.core.pools() == [(LZ4, 1, 0, True, False)]
