"""The strip: its shares are those of the pages, and its pictures show them."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uzswap import InvalidArgumentError
from uzswap.core.boundary.places import DISK, LOST, NONE, RESIDENT, ZSWAP
from uzswap.reports.strip import COLOURS, PLACES, Strip

pages_of = st.lists(st.sampled_from(list(PLACES)), max_size=300)


def read_png(data: bytes) -> tuple[np.ndarray, list[str]]:
    """Return its pixels, and its palette."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks = {}
    at = 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert (depth, colour) == (8, 3)
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    palette = [f"#{chunks[b'PLTE'][i : i + 3].hex()}" for i in range(0, len(chunks[b"PLTE"]), 3)]
    return lines[:, 1:], palette


@given(pages_of, st.integers(1, 40))
def test_every_page_is_in_one_column(pages: list[int], columns: int) -> None:
    strip = Strip(np.array(pages, np.uint8), columns)
    assert len(strip.shares) == min(columns, len(pages)) == len(strip.text())
    assert strip.shares.sum() == len(pages)
    for row, place in enumerate(PLACES):
        assert strip.shares[:, row].sum() == pages.count(place)
    assert not len(pages) or np.ptp(strip.shares.sum(axis=1)) <= 1


@given(pages_of.filter(bool), st.integers(1, 40), st.integers(1, 30))
def test_the_pictures_agree(pages: list[int], columns: int, height: int) -> None:
    strip = Strip(np.array(pages, np.uint8), columns)
    pixels, palette = read_png(strip.png(height))
    assert palette == list(COLOURS.values())
    assert pixels.shape == (height, len(strip.shares))
    exact = strip.shares * height / strip.shares.sum(axis=1, keepdims=True)
    drawn = np.stack([(pixels == row).sum(axis=0) for row in range(len(PLACES))], axis=1)
    assert (abs(drawn - exact) <= 1).all()
    painted = np.full(pixels.shape, 255, np.uint8)
    for box in ET.fromstring(strip.svg(height)):
        x, y, width, tall = (int(box.attrib[name]) for name in ("x", "y", "width", "height"))
        assert (painted[y : y + tall, x : x + width] == 255).all()
        painted[y : y + tall, x : x + width] = palette.index(box.attrib["fill"])
    assert (painted == pixels).all()


def test_a_page_a_column() -> None:
    strip = Strip(np.array([RESIDENT, ZSWAP, DISK, NONE, LOST], np.uint8))
    assert strip.text() == "Rzd.!"
    assert read_png(strip.png(2))[0].tolist() == [[0, 1, 2, 3, 4]] * 2


def test_columns_that_cannot_be() -> None:
    with pytest.raises(InvalidArgumentError, match="columns=0"):
        Strip(np.zeros(4, np.uint8), 0)
