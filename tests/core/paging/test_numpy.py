"""Ordinary numpy on arrays larger than their budget."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.core.paging.rig import MIB, counting, in_each_mode, job, noise

import uzswap

if TYPE_CHECKING:
    from uzswap import Zswap

pytestmark = pytest.mark.slow

#: for the rig: threads of it may be there afterwards
BLAS = True


@in_each_mode()
def test_ufuncs_and_reductions(z: Zswap) -> None:
    group = job(z, "1M")
    plain = counting(MIB // 2).astype(float)
    x, out = uzswap.array(plain, cgroup=group), uzswap.zeros(MIB // 2, cgroup=group)
    assert np.multiply(x, 2, out=out) is out
    assert (out == plain * 2).all()
    np.sqrt(out, out=out)
    assert (out == np.sqrt(plain * 2)).all()
    x += out
    plain += np.sqrt(plain * 2)
    assert (x == plain).all()
    assert x.sum() == plain.sum()
    assert np.cumsum(x, out=out)[-1] == np.cumsum(plain)[-1]
    assert (x.min(), x.argmax(), x.mean(), x.std()) == (plain.min(), plain.argmax(), plain.mean(), plain.std())
    assert (np.where(x > 1000, x, -1) == np.where(plain > 1000, plain, -1)).all()
    assert (np.concatenate([x, out[:10]])[: len(plain)] == plain).all()
    assert np.shares_memory(x[5:], x)


@in_each_mode()
def test_matrices(z: Zswap) -> None:
    """BLAS has threads of its own."""
    group = job(z, "512K")
    rng = np.random.default_rng(1)
    a, b = rng.random((300, 256)), rng.random((256, 200))
    x, y, out = uzswap.array(a, cgroup=group), uzswap.array(b, cgroup=group), uzswap.zeros((300, 200), cgroup=group)
    np.matmul(x, y, out=out)
    np.testing.assert_allclose(out, a @ b)
    assert (np.ascontiguousarray(x.T) == a.T).all()
    np.testing.assert_allclose(np.linalg.solve(x[:100, :100], y[:100, 0]), np.linalg.solve(a[:100, :100], b[:100, 0]))
    np.testing.assert_allclose(np.fft.rfft(x, axis=1), np.fft.rfft(a, axis=1))


@pytest.mark.parametrize("protocol", [4, 5])
@in_each_mode()
def test_pickle(z: Zswap, protocol: int) -> None:
    x = uzswap.array(counting(MIB // 4), cgroup=job(z, "512K"))
    assert (pickle.loads(pickle.dumps(x, protocol)) == counting(MIB // 4)).all()
    if protocol == 5:
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(x, 5, buffer_callback=buffers.append)
        assert (pickle.loads(data, buffers=buffers) == counting(MIB // 4)).all()


@in_each_mode()
def test_sort(z: Zswap) -> None:
    """2 MiB with 512 KiB, random numbers: each pass touches every page."""
    plain = noise(MIB // 4)
    x = uzswap.array(plain, cgroup=job(z, "512K"))
    x.sort()
    assert (x == np.sort(plain)).all()
    assert (np.unique(x) == np.unique(plain)).all()
    assert (np.searchsorted(x, plain[:1000]) == np.searchsorted(np.sort(plain), plain[:1000])).all()


@in_each_mode()
def test_transposed_copies_are_slow_and_right(z: Zswap) -> None:
    plain = counting(128 * 512).reshape(-1, 512)
    x = uzswap.array(plain, cgroup=job(z, "256K"))
    assert (x.T.copy() == plain.T).all()


@in_each_mode()
def test_code_that_knows_nothing_of_it(z: Zswap) -> None:
    """NEP 49: temporaries and results of every kind are paged too."""
    with uzswap.managed(job(z, "512K"), min_bytes="16K"):
        x = np.arange(MIB // 16)
        y = x * 2 + 1
        both = np.concatenate([x, y])
        both.sort()
        assert (np.unique(both) == np.union1d(x, y)).all()
        grown = np.resize(y, MIB // 8)
        assert (grown[MIB // 16 :] == y).all()
        square = (x[:40000].reshape(200, 200) % 7).astype(float)
        assert (square @ np.eye(200) == square).all()
        table = np.zeros(5000, [("a", "i4"), ("b", "f8"), ("c", "S16")])
        table["b"] = np.arange(5000)
        assert table["b"].sum() == 4999 * 2500
        assert len(set(table["c"])) == 1
        objects = np.array([str(i) for i in range(5000)], object)
        assert "".join(objects[:3]) == "012"
    assert uzswap.info(both).cgroup == "/job"
