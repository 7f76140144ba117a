"""uzswap.recompress: cold entries of the pool, compressed again before they go to disk."""

from __future__ import annotations

import errno
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.support.states import stat

from uzswap import Zswap
from uzswap.cgroup.recompress import RecompressRequest, parse
from uzswap.files.engine import engine_file

if TYPE_CHECKING:
    from uzswap import MemCgroup

PAGE = 4096
WORDS = np.array([b"the", b"quick", b"brown", b"fox", b"jumps", b"over", b"lazy", b"dog", b"again"], "S8")


def text(seed: int, pages: int = 1) -> bytes:
    """Words in random order: zstd makes them smaller than lz4 does."""
    return np.random.default_rng(seed).choice(WORDS, pages * PAGE // 8).tobytes()


def fill(z: Zswap, group: MemCgroup, pages: int, seed: int = 0) -> np.ndarray:
    return z.swap_out_many(text(seed, pages), group)


@pytest.fixture
def z(engine: object) -> Zswap:
    return engine(nodes=2)  # type: ignore[operator, no-any-return]


def test_cold_entries_become_smaller_and_stay_what_they_were(z: Zswap) -> None:
    group = z.cgroup("/a/b")
    handles = fill(z, group, 100)
    before = stat(group, "zswap")
    first = group.recompress("1G")  # all of them are referenced, and have a second chance until the next request
    assert (first.scanned, first.rotated, first.taken) == (100, 100, 0)
    second = group.recompress("1G")
    assert (second.scanned, second.rotated, second.entries) == (100, 0, 100)
    assert second.taken == second.bytes_before == before
    assert stat(group, "zswap") == second.bytes_after < 0.9 * before
    assert group.recompress("1G").taken == 0  # nothing is left that is not compressed so
    assert z.fault_in_many(handles).tobytes() == text(0, 100)
    z.check()


def test_the_budget_is_of_compressed_bytes_and_shared_among_the_subtree(z: Zswap) -> None:
    parts = [z.cgroup(f"/p/{name}") for name in "abc"]
    for seed, part in enumerate(parts):
        fill(z, part, 200, seed)
    had = [stat(part, "zswap") for part in parts]
    budget = sum(had) // 2
    z.cgroup("/p").recompress("1G")
    done = z.cgroup("/p").recompress(budget)
    assert budget <= done.taken < budget + PAGE
    assert all(stat(part, "zswap") < before for part, before in zip(parts, had, strict=True))
    assert z.cgroup("/q").recompress("1M").taken == 0


def test_what_is_young_is_left_alone(z: Zswap) -> None:
    group = z.cgroup("/a")
    old = fill(z, group, 10)
    z.core.advance(100 * 1_000_000_000)
    fill(z, group, 10, 1)
    assert group.recompress("1G", min_age=60).rotated == 10
    assert group.recompress("1G", min_age=60).entries == 10
    assert group.recompress("1G", min_age=0).rotated == 10
    assert group.recompress("1G", min_age=0).entries == 10
    assert z.fault_in_many(old).tobytes() == text(0, 10)


def test_the_file_says_what_was_done(z: Zswap) -> None:
    group = z.cgroup("/a")
    assert group.read("uzswap.recompress").startswith("asked 0\ntaken 0\n")
    fill(z, group, 20)
    group.recompress("1M")
    group.write("uzswap.recompress", "1M codec=zstd:9 min_age=0\n")
    told = dict(line.split() for line in group.read("uzswap.recompress").splitlines())
    assert told["asked"] == str(1 << 20)
    assert int(told["bytes_after"]) == stat(group, "zswap") < int(told["bytes_before"]) == int(told["taken"])
    assert "zstd level=9 entries=20 current=0" in engine_file("zswap/debug/uzswap.pools").read(z, z.root)


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("", 0),
        ("max", errno.EINVAL),
        ("1M codec", errno.EINVAL),
        ("1M swappiness=3", errno.EINVAL),
        ("1M min_age=-1", errno.EINVAL),
        ("1M min_age=x", errno.EINVAL),
        ("1M codec=lzo", errno.ENOENT),
        ("1M codec=zstd:99", errno.ENOENT),
    ],
)
def test_bad_input_changes_nothing(z: Zswap, line: str, number: int) -> None:
    group = z.cgroup("/a")
    fill(z, group, 5)
    before = group.stats()
    if number:
        with pytest.raises(OSError, match=r".") as caught:
            group.write("uzswap.recompress", line)
        assert caught.value.errno == number
    assert group.stats() == before


def test_the_grammar() -> None:
    assert parse("4k") == RecompressRequest(4096)
    assert parse(" 1M  min_age=0x10 codec=lz4 \n") == RecompressRequest(1 << 20, "lz4", 16)


def test_a_cancelled_request_keeps_what_it_did(z: Zswap) -> None:
    group = z.cgroup("/a")
    fill(z, group, 500)
    answers = iter([False, False, False])
    with pytest.raises(InterruptedError, match="recompression was interrupted"):
        group.recompress("1G", cancel=lambda: next(answers, True))
    assert group.last_recompress is not None
    assert 0 < group.last_recompress.scanned < 500
    z.check()


def test_a_signal_ends_it(z: Zswap) -> None:
    class Rang(Exception):
        pass

    def ring(*_: object) -> None:
        raise Rang

    group = z.cgroup("/a")
    fill(z, group, 300)
    previous = signal.signal(signal.SIGUSR1, ring)
    asked = []

    def raise_then_go_on() -> bool:
        if not asked:
            signal.raise_signal(signal.SIGUSR1)
        asked.append(1)
        return False

    try:
        with pytest.raises(Rang):
            group.recompress("1G", cancel=raise_then_go_on)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert len(asked) <= 1
    z.check()


def test_totals_are_in_debugfs(z: Zswap) -> None:
    group = z.cgroup("/a")
    fill(z, group, 10)
    group.recompress("1G")
    done = group.recompress("1G")
    assert done.entries == 10
    assert engine_file("zswap/debug/uzswap.recompressed.entries").read(z, z.root) == "10\n"
    assert engine_file("zswap/debug/uzswap.recompressed.bytes_after").read(z, z.root) == f"{done.bytes_after}\n"
