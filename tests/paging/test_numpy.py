"""Ordinary numpy on arrays larger than their budget."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.paging.rig import MIB, counting, in_each_mode, job, noise

import uzswap

if TYPE_CHECKING:
    from uzswap import Zswap


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
    group = job(z, "1M")
    rng = np.random.default_rng(1)
    a, b = rng.random((600, 500)), rng.random((500, 400))
    x, y, out = uzswap.array(a, cgroup=group), uzswap.array(b, cgroup=group), uzswap.zeros((600, 400), cgroup=group)
    np.matmul(x, y, out=out)
    np.testing.assert_allclose(out, a @ b)
    assert (np.ascontiguousarray(x.T) == a.T).all()
    np.testing.assert_allclose(np.linalg.solve(x[:300, :300], y[:300, 0]), np.linalg.solve(a[:300, :300], b[:300, 0]))
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
    """4 MiB with 1 MiB, random numbers: each pass touches every page."""
    plain = noise(MIB // 2)
    x = uzswap.array(plain, cgroup=job(z, "1M"))
    x.sort()
    assert (x == np.sort(plain)).all()
    assert (np.unique(x) == np.unique(plain)).all()
    assert (np.searchsorted(x, plain[:1000]) == np.searchsorted(np.sort(plain), plain[:1000])).all()


@in_each_mode()
def test_transposed_copies_are_slow_and_right(z: Zswap) -> None:
    plain = counting(256 * 1024).reshape(-1, 1024)
    x = uzswap.array(plain, cgroup=job(z, "512K"))
    assert (x.T.copy() == plain.T).all()


@in_each_mode()
def test_code_that_knows_nothing_of_it(z: Zswap) -> None:
    """NEP 49: temporaries and results of every kind are paged too."""
    with uzswap.managed(job(z, "1M"), min_bytes="16K"):
        x = np.arange(MIB // 4)
        y = x * 2 + 1
        both = np.concatenate([x, y])
        both.sort()
        assert (np.unique(both) == np.union1d(x, y)).all()
        grown = np.resize(y, MIB // 2)
        assert (grown[MIB // 4 :] == y).all()
        square = (x[:90000].reshape(300, 300) % 7).astype(float)
        assert (square @ np.eye(300) == square).all()
        table = np.zeros(20000, [("a", "i4"), ("b", "f8"), ("c", "S16")])
        table["b"] = np.arange(20000)
        assert table["b"].sum() == 19999 * 10000
        assert len(set(table["c"])) == 1
        objects = np.array([str(i) for i in range(20000)], object)
        assert "".join(objects[:3]) == "012"
    assert uzswap.info(both).cgroup == "/job"
