"""One order of what goes first, whoever needs room: see the docstring of uzswap.reclaim."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tests.conftest import EngineFactory

import uzswap
from uzswap import MemCgroup, Store, Zswap

MIB = 1 << 20


def half_random(seed: int, nbytes: int) -> bytes:
    """Compresses to about a half."""
    half = np.random.default_rng(seed).bytes(nbytes // 2)
    return bytes(nbytes - len(half)) + half


class StoreHolder:
    """Values of 64 KiB."""

    def __init__(self, z: Zswap, cgroup: MemCgroup) -> None:
        self._store = Store[int, bytes](cgroup)

    def hold(self, mib: int) -> None:
        for i in range(mib * 16):
            self._store[i] = half_random(i, MIB // 16)

    def close(self) -> None:
        self._store.close()


class ArrayHolder:
    """Pages of an array."""

    def __init__(self, z: Zswap, cgroup: MemCgroup) -> None:
        try:
            z.arena.open()
        except OSError as refused:
            pytest.skip(f"{refused.strerror}")
        self._z, self._cgroup = z, cgroup

    def hold(self, mib: int) -> None:
        self._array = uzswap.zeros(mib * MIB, np.uint8, cgroup=self._cgroup)
        for i in range(mib * 256):
            self._array[i * 4096 : (i + 1) * 4096] = np.frombuffer(half_random(i, 4096), np.uint8)
        self._z.flush_work()

    def close(self) -> None:
        del self._array


@pytest.fixture(params=[StoreHolder, ArrayHolder])
def holder(request: pytest.FixtureRequest) -> type[StoreHolder] | type[ArrayHolder]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def grown(
    engine: EngineFactory, holder: type[StoreHolder] | type[ArrayHolder], walk: str
) -> Iterator[tuple[Zswap, MemCgroup]]:
    """A cgroup of 4 MiB in which 24 are held."""
    z = engine(walk=walk)
    cgroup = z.cgroup("/job")
    cgroup.write("memory.max", "4M")
    held = holder(z, cgroup)
    held.hold(24)
    yield z, cgroup
    held.close()


@pytest.mark.parametrize("walk", ["fair", "coldest"])
def test_zswap_gives_first_when_it_has_more_than_its_share(grown: tuple[Zswap, MemCgroup]) -> None:
    """Not all of the limit ends up compressed: something stays resident, and the coldest is on the disk."""
    _, cgroup = grown
    stats = cgroup.stats()
    assert stats["uzswap.disk"] > 4 * MIB
    assert stats["anon"] >= MIB
    assert stats["anon"] + stats["zswap"] <= 4 * MIB + MIB // 16


@pytest.mark.parametrize("walk", ["v5"])
def test_v5_writes_nothing_back_for_a_charge(engine: EngineFactory, walk: str) -> None:
    """As the kernel does without its shrinker: what neither fits nor compresses any more is refused."""
    z = engine(walk=walk)
    cgroup = z.cgroup("/job")
    cgroup.write("memory.max", "1M")
    with Store[int, bytes](cgroup) as store, pytest.raises(MemoryError):
        store.update((i, half_random(i, 4096)) for i in range(10_000))
    assert cgroup.stats()["zswpwb"] == 0
