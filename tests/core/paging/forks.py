"""Forks in tests of arrays: a child that works, and an array for it."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from tests.core.paging.rig import MIB, counting, job

import uzswap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap import MemCgroup, Zswap

N = MIB // 2  # numbers: 4 MiB


def fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on: the process has threads
        return os.fork()


def child(work: Callable[[], object]) -> int:
    """Fork a child that works, and exits with 0 unless that raises."""
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(120)  # hung, it ends the test
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def filled(z: Zswap, memory_max: str = "1M", seed: int = 0) -> tuple[MemCgroup, NDArray[np.int64]]:
    """An array of four times its budget."""
    group = job(z, memory_max)
    x = uzswap.zeros(N, np.int64, cgroup=group)
    x[:] = counting(N, seed)
    return group, x


def is_counting(x: NDArray[np.int64], seed: int = 0, more: int = 0) -> None:
    assert (x == counting(len(x), seed) + more).all()


def rows_of(x: NDArray[np.int64]) -> NDArray[np.int64]:
    return x.reshape(-1, 512)
