"""An array under limits that change, advice, eviction, drops and writeback, against a plain copy of it."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.core.paging.rig import counting, in_each_mode, noise

import uzswap
from uzswap import ReclaimError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap import Zswap

PAGES = 96
PAGE = st.integers(0, PAGES)
SIZES = st.sampled_from(["max", "0", "64K", "128K", "256K", "1M"])
CONTENTS = {
    "zeros": lambda n, seed: np.zeros(n, np.int64),
    "sevens": lambda n, seed: np.full(n, 7, np.int64),
    "counting": counting,
    "noise": noise,
    "half": lambda n, seed: noise(n, seed) & 0xFFFFFFFF,
}


class Array(RuleBasedStateMachine):
    """One array and its copy; a neighbour in the same cgroup competes with it."""

    z: Zswap
    seed = 0

    @initialize()
    def make(self) -> None:
        self.group = self.z.cgroup("/a/job")
        self.x: NDArray[np.int64] = uzswap.zeros((PAGES, 512), np.int64, cgroup=self.group)
        self.y: NDArray[np.int64] = uzswap.zeros((PAGES, 512), np.int64, cgroup=self.group)
        self.expected = np.zeros((PAGES, 512), np.int64)
        self.look = np.random.default_rng(1)

    def next_seed(self) -> int:
        self.seed += 1
        return self.seed

    # The program

    @rule(first=PAGE, after=PAGE, content=st.sampled_from(list(CONTENTS)), offset=st.integers(0, 511))
    def write(self, first: int, after: int, content: str, offset: int) -> None:
        n = max(0, after - first) * 512 - offset
        if n > 0:
            values = CONTENTS[content](n, self.next_seed())
            at = first * 512 + offset
            self.x.ravel()[at : at + n] = self.expected.ravel()[at : at + n] = values

    @rule(step=st.sampled_from([1, 3, 511, 512, 513, 4096, -512]))
    def add(self, step: int) -> None:
        self.x.ravel()[::step] += 1
        self.expected.ravel()[::step] += 1

    @rule()
    def scatter(self) -> None:
        at = np.random.default_rng(self.next_seed()).integers(0, PAGES * 512, 30)
        self.x.ravel()[at] = self.expected.ravel()[at] = self.seed

    @rule(first=PAGE, after=PAGE, to=PAGE)
    def move(self, first: int, after: int, to: int) -> None:
        n = min(max(0, after - first), PAGES - to)
        self.x[to : to + n] = self.x[first : first + n]
        self.expected[to : to + n] = self.expected[first : first + n].copy()

    @rule(down=st.booleans())
    def read(self, down: bool) -> None:
        step = -1 if down else 1
        assert (self.x[::step] == self.expected[::step]).all()

    @rule(content=st.sampled_from(list(CONTENTS)))
    def write_the_neighbour(self, content: str) -> None:
        self.y[:] = CONTENTS[content](PAGES * 512, self.next_seed()).reshape(PAGES, 512)

    @rule()
    def replace_the_neighbour(self) -> None:
        del self.y
        self.y = uzswap.ones((PAGES, 512), np.int64, cgroup=self.group)

    # Advice

    @rule(
        first=PAGE,
        after=PAGE,
        advice=st.sampled_from(["willneed", "cold", "pageout", "pageout", "sequential", "random", "normal"]),
    )
    def advise(self, first: int, after: int, advice: Any) -> None:
        uzswap.advise(self.x[first:after], advice)

    @rule(first=PAGE, after=PAGE)
    def drop(self, first: int, after: int) -> None:
        uzswap.advise(self.x[first:after], "dontneed")
        self.expected[first:after] = 0

    @rule(first=PAGE, n=st.integers(1, 8))
    def keep(self, first: int, n: int) -> None:
        part = self.x[first : first + n]
        with contextlib.suppress(MemoryError), uzswap.resident(part):
            uzswap.advise(self.x, "pageout")
            assert (part == self.expected[first : first + n]).all()
            part += 1
            self.expected[first : first + n] += 1

    # The administrator

    @rule(
        file=st.sampled_from(["memory.max", "memory.high", "memory.zswap.max", "memory.swap.max"]),
        size=SIZES,
        ancestor=st.booleans(),
    )
    def limit(self, file: str, size: str, ancestor: bool) -> None:
        (self.z.cgroup("/a") if ancestor else self.group).write(file, size)

    @rule(on=st.booleans())
    def write_back(self, on: bool) -> None:
        self.group.write("memory.zswap.writeback", str(int(on)))

    @rule(nbytes=st.sampled_from(["4K", "64K", "1M"]), source=st.sampled_from(["", " source=zswap"]))
    def reclaim(self, nbytes: str, source: str) -> None:
        with contextlib.suppress(ReclaimError, OSError):
            self.group.write("memory.reclaim", nbytes + source)

    # Always

    @invariant()
    def contents_and_counters_are_right(self) -> None:
        if not hasattr(self, "x"):
            return
        if self.look.integers(3):
            pages = self.look.integers(0, PAGES, 12)  # all of them would leave none where they are
            assert (self.x[pages] == self.expected[pages]).all()
        else:
            assert (self.x == self.expected).all()
        self.z.flush_work()
        self.z.check()
        found = uzswap.info(self.x)
        assert found.resident + found.zswap + found.disk + found.zero == found.bytes
        assert found.lost == 0

    def teardown(self) -> None:
        if not hasattr(self, "x"):
            return
        for path in ("/a/job", "/a"):
            for file in ("memory.max", "memory.high", "memory.zswap.max", "memory.swap.max"):
                self.z.cgroup(path).write(file, "max")
        self.group.write("memory.zswap.writeback", "1")
        assert (self.x == self.expected).all()
        del self.x, self.y
        gc.collect()
        self.z.flush_work()
        self.z.check()
        stats = self.group.stats()
        assert stats["anon"] == stats["zswapped"] == 0


@pytest.mark.slow
@in_each_mode(max_pool="1M", swap_size="4M")
def test_an_array_is_what_a_plain_copy_of_it_is(z: Zswap) -> None:
    limits = settings(
        max_examples=30,
        stateful_step_count=25,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(type("Bound", (Array,), {"z": z}), settings=limits)
