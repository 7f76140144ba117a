"""Each format of traces, from small excerpts made here."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from uzswap.replay.model import Costs, laid_out
from uzswap.replay.record import Record
from uzswap.replay.traces import Trace, read_trace


def made(path: Path, content: str | bytes) -> Trace:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_trace(str(path))


def test_addresses_are_pages_and_instructions_are_time(tmp_path: Path) -> None:
    trace = made(tmp_path / "gcc.trace", "s 0x1fffff50 1\nl 0x1fffff58 1\nl 0x20000000 6\ns 0x1fffff88 2\n")
    assert trace.pages.tolist() == [0, 0, 1, 0]
    assert trace.times.tolist() == [0.0, 1.0, 7.0, 9.0]
    assert (trace.name, trace.timed, trace.footprint) == ("gcc", False, 2)


def test_block_numbers_with_phases(tmp_path: Path) -> None:
    trace = made(tmp_path / "b.trace", "7\n8\n*\n\n7\n9\n")
    assert trace.pages.tolist() == [0, 1, 0, 2]
    assert trace.times.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert not trace.timed


def test_block_io_is_spread_over_its_pages(tmp_path: Path) -> None:
    """Sectors 8 to 23 are two pages; sector 23 alone is the second of them; 512 bytes at the end of a page are one."""
    text = "version,time,op,size,lbn\n1,100,2a,8192,8\n1,101,28,512,23\n1,103,28,1024,31\n"
    trace = made(tmp_path / "io.csv", text)
    assert trace.pages.tolist() == [0, 1, 1, 2, 3]
    assert trace.times.tolist() == [0.0, 0.0, 1.0, 3.0, 3.0]
    assert trace.together.tolist() == [2, 2, 1, 2, 2]
    assert trace.timed


def test_mooncake_blocks(tmp_path: Path) -> None:
    lines = '{"timestamp": 0, "hash_ids": [5, 6]}\n{"timestamp": 1500, "hash_ids": [5, 7, 8]}\n'
    trace = made(tmp_path / "m.jsonl", lines)
    assert trace.pages.tolist() == [0, 1, 0, 2, 3]
    assert trace.times.tolist() == [0.0, 0.0, 1.5, 1.5, 1.5]
    assert trace.together.tolist() == [2, 2, 3, 3, 3]


def test_oracle_general_objects_are_as_many_pages_as_they_have_bytes(tmp_path: Path) -> None:
    records = [(10, 1 << 63, 4096, 2), (11, 2, 8193, -1), (20, 1 << 63, 4096, -1)]
    raw = b"".join(struct.pack("<IQIq", *record) for record in records)
    trace = made(tmp_path / "t.oracleGeneral.bin", raw)
    assert trace.pages.tolist() == [0, 1, 2, 3, 0]
    assert trace.times.tolist() == [0.0, 1.0, 1.0, 1.0, 10.0]


def test_what_was_recorded_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "own.trace"
    ticks = iter([100.0, 100.5, 101.0, 103.25, 104.0])
    with Record(str(path), clock=lambda: next(ticks)) as record:
        mapping = record.mapping({"b": 1})
        mapping["a"] = 1
        mapping["b"]
        mapping["a"]
        with pytest.raises(KeyError):
            mapping["none"]
        assert "a" in mapping
        assert sorted(mapping) == ["a", "b"]
        del mapping["b"]
        assert len(mapping) == 1
    trace = read_trace(str(path))
    assert trace.pages.tolist() == [0, 1, 0]
    assert trace.times.tolist() == [0.0, 0.5, 2.75]
    assert trace.timed


@pytest.mark.parametrize("packed", [gzip.compress, lzma.compress, bz2.compress], ids=["gzip", "xz", "bzip2"])
def test_compressed(tmp_path: Path, packed: Callable[[bytes], bytes]) -> None:
    assert made(tmp_path / "t", packed(b"1\n2\n1\n")).pages.tolist() == [0, 1, 0]


def test_zstd(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard", reason="pip install zstandard")
    assert made(tmp_path / "t", zstandard.compress(b"1\n2\n1\n")).pages.tolist() == [0, 1, 0]


def test_a_clock_that_goes_back_stands_still(tmp_path: Path) -> None:
    trace = made(tmp_path / "m", '{"timestamp": 2000, "hash_ids": [1]}\n{"timestamp": 1000, "hash_ids": [2]}\n')
    assert trace.times.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "none of the formats"),
        (b"hello\n", "none of the formats"),
        (b"version,time,op,size,lbn\n", "no access|cannot be read"),
        (b"version,time,op,size,lbn\n1,2\n", "cannot be read"),
        (b"{}\n", "cannot be read"),
        (b"\x1f\x8bjunk", "cannot be decompressed"),
        (b"# uzswap trace\n", "no access"),
        (b"1\n2\nx\n", "cannot be read"),
    ],
)
def test_what_is_no_trace_is_einval(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(OSError, match=words) as caught:
        made(tmp_path / "t", content)
    assert caught.value.errno == errno.EINVAL


def test_a_trace_without_a_clock_is_laid_over_a_day(tmp_path: Path) -> None:
    trace = made(tmp_path / "t", "1\n2\n3\n")
    assert laid_out(trace, Costs()).tolist() == [0.0, 43200.0, 86400.0]
    timed = made(tmp_path / "m", '{"timestamp": 0, "hash_ids": [1]}\n{"timestamp": 500, "hash_ids": [2]}\n')
    assert laid_out(timed, Costs()).tolist() == [0.0, 0.5]
    alone = made(tmp_path / "one", "1\n")
    assert laid_out(alone, Costs()).tolist() == [0.0]


def test_reads_together_share_their_cost() -> None:
    costs = Costs(disk=0.8).of_disk(np.array([1, 2, 8, 100]))
    assert costs.tolist() == pytest.approx([0.8, 0.4, 0.1, 0.1])
