"""Records: whose bytes are taken from the device, and what can be read of them there."""

import errno
import itertools
import os
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.data_plane import MIB, N, attached, errors, stored, write_back

from uzswap.core.boundary import engine as core

#: bytes of a record before those of its entry, and of the seal at its beginning
HEADER = 32
SEAL = 16
RECORD = HEADER + 4096

both = pytest.mark.parametrize("encrypt", [False, True], ids=["checksum", "encrypted"])


# Whose bytes


@both
@pytest.mark.parametrize("other", ["the last run", "another engine"])
def test_what_another_engine_wrote_is_not_taken(tmp_path: Path, other: str, encrypt: bool) -> None:
    """Same program, same handles, same places, and the device lost all writes of this run."""
    with attached(tmp_path / "swap", nonce=1, encrypt=encrypt) as first:
        handles, _ = stored(first, 1)
        assert write_back(first).entries == N
        old = (tmp_path / "swap").read_bytes()
    with attached(tmp_path / "swap", nonce=2 if other == "another engine" else 0, encrypt=encrypt) as second:
        again, data = stored(second, 2)
        assert (again == handles).all()
        assert write_back(second).entries == N
        (tmp_path / "swap").write_bytes(old)
        assert errors(second, again, data) == [errno.EBADMSG] * N


@both
def test_two_engines_write_different_bytes(tmp_path: Path, encrypt: bool) -> None:
    with attached(tmp_path / "a", encrypt=encrypt) as a, attached(tmp_path / "b", encrypt=encrypt) as b:
        for engine in (a, b):
            stored(engine, 1)
            assert write_back(engine).entries == N
        one, other = ((tmp_path / name).read_bytes()[: N * RECORD] for name in "ab")
        assert one[:SEAL] != other[:SEAL]
        # Of noise one byte in 256 is the same.
        same = (np.frombuffer(one, np.uint8) == np.frombuffer(other, np.uint8)).mean()
        assert same < 0.01 if encrypt else same > 0.99


@both
def test_a_stale_block_is_not_taken(tmp_path: Path, encrypt: bool) -> None:
    """The place was another entry's before, and the write that gave it to this one was lost."""
    with attached(tmp_path / "swap", encrypt=encrypt) as engine:
        handles, _ = stored(engine, 1)
        write_back(engine)
        old = (tmp_path / "swap").read_bytes()
        assert engine.free(handles) == (-1, 0)
        handles, data = stored(engine, 2)
        write_back(engine)
        (tmp_path / "swap").write_bytes(old)
        assert errors(engine, handles, data) == [errno.EBADMSG] * N


@both
def test_misdirected_blocks_are_not_taken(tmp_path: Path, encrypt: bool) -> None:
    with attached(tmp_path / "swap", encrypt=encrypt) as engine:
        handles, data = stored(engine, 1)
        write_back(engine)
        content = (tmp_path / "swap").read_bytes()
        first, second = content[:RECORD], content[RECORD : 2 * RECORD]
        (tmp_path / "swap").write_bytes(second + first + content[2 * RECORD :])
        assert errors(engine, handles, data) == [errno.EBADMSG] * 2


@both
def test_every_part_of_a_record_is_covered(tmp_path: Path, encrypt: bool) -> None:
    """One bit at a time: it is damage of that entry, and of no other; turned back, all is there."""
    random_bits = random.Random(5)
    with attached(tmp_path / "swap", encrypt=encrypt) as engine:
        # 4093 bytes: the last three of the record are padding.
        data = np.random.default_rng(1).integers(0, 256, 3 * 4093, np.uint8)
        handles = np.zeros(3, np.uint64)
        assert engine.store(data, 4093, 0, 0, handles).next == 3
        assert write_back(engine).entries == 3
        second = RECORD
        covered = [*range(HEADER), *random_bits.sample(range(HEADER, RECORD - 3), 64), *range(RECORD - 3, RECORD)]
        fd = os.open(tmp_path / "swap", os.O_RDWR)
        for offset in covered:
            byte = os.pread(fd, 1, second + offset)[0]
            os.pwrite(fd, bytes([byte ^ 1 << random_bits.randrange(8)]), second + offset)
            got, result = engine.load_bytes(handles[1:2], 4093, 4093)
            assert result.errno == errno.EBADMSG, offset
            os.pwrite(fd, bytes([byte]), second + offset)
        os.close(fd)
        got, result = engine.load_bytes(handles, 4093, 3 * 4093)
        assert result.errno == 0
        assert got == data.tobytes()


# What can be read


PATTERN = b"TOP-SECRET-PASSWORD-0123456789"


@both
def test_what_is_on_the_device_is_noise(tmp_path: Path, encrypt: bool) -> None:
    """Not even where records begin, how large they are and whose they are can be seen."""
    with attached(tmp_path / "swap", encrypt=encrypt) as engine:
        pages = [os.urandom(3000) + PATTERN + bytes(4096 - 3000 - len(PATTERN)) for _ in range(200)]
        handles = np.zeros(len(pages), np.uint64)
        engine.store(np.frombuffer(b"".join(pages), np.uint8), 4096, 0, 0, handles)
        assert write_back(engine).entries == len(pages)
        info = engine.device()
        assert info is not None
        assert info.encrypted == encrypt
        written = (tmp_path / "swap").read_bytes()[: info.live_bytes]
        assert (PATTERN in written) != encrypt
        if encrypt:
            assert len(zlib.compress(written)) > len(written)
            counts = np.bincount(np.frombuffer(written, np.uint8), minlength=256)
            expected = len(written) / 256
            # chi-squared with 255 degrees of freedom: 400 is exceeded by chance once in 10**8
            assert ((counts - expected) ** 2 / expected).sum() < 400
        out = b"".join(engine.load_bytes(handles[i : i + 1], 4096, 4096)[0] for i in range(len(pages)))
        assert out == b"".join(pages)


class Keystreams:
    """What was added to data that is known: the same twice would tell what two entries have in common."""

    def __init__(self) -> None:
        self.seen: dict[bytes, tuple[int, int, bytes]] = {}

    def look(self, path: Path, engine: core.Engine, handles: np.ndarray, data: np.ndarray) -> None:
        """Of entries that are stored as they are; those on the device count."""
        fd = os.open(path, os.O_RDONLY)
        for handle, plain in zip(handles.tolist(), data, strict=True):
            entry = engine.info(handle)
            if entry is None or entry.state != core.DISK:
                continue
            stored = os.pread(fd, 16, entry.location + HEADER)
            keystream = bytes(a ^ b for a, b in zip(stored, plain[:16].tolist(), strict=True))
            who = (handle, entry.location, stored)
            assert self.seen.setdefault(keystream, who) == who
        os.close(fd)


def test_no_nonce_is_used_twice(tmp_path: Path) -> None:
    """In places that are used again, and for what cleaning has moved."""
    keystreams = Keystreams()
    with attached(tmp_path / "swap", 4 * MIB, encrypt=True) as engine:
        held: list[tuple[np.ndarray, np.ndarray]] = []
        for turn in range(12):
            held.append(stored(engine, turn, 256))
            write_back(engine)
            for handles, data in held:
                keystreams.look(tmp_path / "swap", engine, handles, data)
            if len(held) > 2:
                # Every other of them: what is left has to be moved before there is room.
                handles, data = held[0] if turn % 3 else held[1]
                assert engine.free(handles[::2].copy()) == (-1, 0)
                held = [(handles[1::2].copy(), data[1::2]), held[-1]]
        info = engine.device()
        assert info is not None
        assert info.cleaned_segments > 0
        for handles, data in held:
            assert errors(engine, handles, data) == []
    assert len(keystreams.seen) > 1000


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 65536), st.integers(0, 2**32 - 1)), max_size=60))
def test_what_was_stored_comes_back(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, int]]
) -> None:
    """Entries of all sizes, compressible and not, through a device that has to be cleaned."""
    path = tmp_path_factory.mktemp("record") / "swap"
    model: dict[int, bytes] = {}
    with attached(path, 4 * MIB, encrypt=True) as engine:
        for kind, size, seed in steps:
            if kind < 3:
                for _ in range(4):
                    head = random.Random(seed).randbytes(size if kind else size // 3)
                    content = head.ljust(size, b"x")
                    handles = np.zeros(1, np.uint64)
                    engine.store(np.frombuffer(content, np.uint8), size, 0, 0, handles)
                    model[int(handles[0])] = content
                write_back(engine)
            for handle in list(itertools.islice(model, seed % 4 if len(model) < 40 else 8)):
                content = model.pop(handle)
                got, result = engine.load_bytes(np.array([handle], np.uint64), len(content), len(content))
                assert result.errno == 0
                assert got == content
        for handle, content in model.items():
            got, result = engine.load_bytes(np.array([handle], np.uint64), len(content), len(content))
            assert result.errno == 0
            assert got == content
