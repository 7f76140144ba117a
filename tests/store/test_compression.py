"""What a store's values are compressed with, as it was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import uzswap
from uzswap.core.boundary.engine import TRY_FILTER, ZSTD
from uzswap.store.compression import Compression


@pytest.fixture
def z(engine) -> uzswap.Zswap:  # type: ignore[no-untyped-def]
    return engine()  # type: ignore[no-any-return]


def test_the_compressor_is_held_until_it_is_closed(z: uzswap.Zswap) -> None:
    chosen = Compression(z, "zstd:7")
    info = z.core.codec_info(chosen.codec)
    assert info is not None
    assert (info.codec, info.level, info.users) == (ZSTD, 7, 1)
    slot = chosen.codec
    chosen.close()
    chosen.close()
    assert chosen.codec == -1
    assert z.core.codec_info(slot) is None


def test_by_default_it_is_the_engines(z: uzswap.Zswap) -> None:
    chosen = Compression(z)
    assert (chosen.codec, chosen.small) == (-1, -1)
    chosen.close()


@pytest.mark.parametrize(
    ("filter", "buffer", "expected"),
    [
        ("auto", np.zeros(9, np.int32), (4, TRY_FILTER)),
        ("shuffle", np.zeros(9, "c16"), (16, 0)),
        ("shuffle", memoryview(np.zeros(9)), (8, 0)),
        ("none", np.zeros(9), (0, 0)),
        ("auto", np.zeros(9, bool), (0, 0)),
        ("auto", b"bytes", (0, 0)),
        ("shuffle", np.zeros(9, "S300"), (0, 0)),
    ],
)
def test_the_filter_goes_by_the_items(z: uzswap.Zswap, filter: Any, buffer: Any, expected: tuple[int, int]) -> None:
    chosen = Compression(z, filter=filter, dictionary=False)
    assert chosen.filter_of(buffer) == expected
    assert chosen.dictionaries is None
    chosen.close()


@pytest.mark.parametrize("arguments", [{"compressor": "lzo"}, {"compressor": "zstd:99"}, {"filter": "bits"}])
def test_what_there_is_not_is_said(z: uzswap.Zswap, arguments: dict[str, Any]) -> None:
    with pytest.raises(OSError, match=r"there (are|is)"):
        Compression(z, **arguments)
    assert z.core.codec_info(1) is None
