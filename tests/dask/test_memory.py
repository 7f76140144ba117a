"""The memory of a Dask worker by itself: a mapping with three tiers, and what Dask asks of it."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="pip install 'uzswap[dask]'")

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from uzswap import ReclaimError
from uzswap.dask import WorkerMemory

MIB = 1 << 20
#: four values of a MiB, and what there is around them
MOST = 4 * MIB + (64 << 10)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Any]:
    """Makes memories that are checked and closed; by default 4 MiB, of which 2 MiB are the pool."""
    made: list[WorkerMemory] = []

    def make(**given: Any) -> WorkerMemory:
        options = {"target": MOST, "headroom": 0, "pool": 2 * MIB, "disk": 64 * MIB, **given}
        made.append(WorkerMemory(str(tmp_path), **options))
        return made[-1]

    yield make
    for one in made:
        one.settle()
        if not one.zswap.closing:
            one.check()
        one.close()


def block(number: int, nbytes: int = MIB) -> Any:
    return np.full(nbytes // 8, number)


def noise(number: int, nbytes: int = MIB) -> bytes:
    return random.Random(number).randbytes(nbytes)


def test_the_least_recently_used_goes_first(memory: Any) -> None:
    data = memory()
    for i in range(4):
        data[i] = block(i)
    _ = data[0]
    data[4] = block(4)
    assert set(data.slow) == {1}
    assert list(data.fast) == [2, 3, 0, 4]
    assert list(data) == [0, 1, 2, 3, 4]


def test_all_three_tiers_and_back(memory: Any) -> None:
    data = memory()
    for i in range(16):
        data[i] = noise(i)
    assert data.cgroup.usage() <= MOST
    stats = data.stats()
    assert stats["zswap"] + stats["disk"] > 11 * MIB
    assert stats["disk"] > 0
    assert [data[i] == noise(i) for i in range(16)] == [True] * 16


def test_what_nobody_else_holds_goes_before_what_a_task_holds(memory: Any) -> None:
    data = memory()
    used = block(0)
    data[0] = used
    for i in range(1, 6):
        data[i] = block(i)
    assert 0 in data.fast
    del used
    data[6] = block(6)
    assert 0 in data.slow


def test_a_value_that_is_still_held_is_not_there_twice(memory: Any) -> None:
    data = memory()
    value = block(0)
    data["x"] = value
    while "x" in data.fast:
        assert data.evict() > 0
    assert data["x"] is value
    assert "x" in data.fast
    assert data.stats()["zswap"] == 0


def test_evict_goes_on_through_the_pool_to_the_disk_and_ends(memory: Any) -> None:
    data = memory(target="1 GiB", pool="1 GiB")
    for i in range(4):
        data[i] = noise(i)
    freed = []
    while data.fast:
        freed.append(data.evict())
        assert freed[-1] > 0
    assert data.evict() == -1
    assert data.cgroup.usage() == 0
    assert data.stats()["disk"] >= 4 * MIB
    assert all(data[i] == noise(i) for i in range(4))


def test_fast_is_true_while_the_pool_has_something(memory: Any) -> None:
    data = memory()
    assert not data.fast
    data["x"] = block(1)
    assert data.evict() == block(1).nbytes or data.evict() > 0
    assert len(data.fast) == 0
    assert bool(data.fast)


def test_no_pool_is_plain_spilling(memory: Any) -> None:
    data = memory(pool=0)
    for i in range(8):
        data[i] = noise(i)
    assert data.stats()["zswap"] == 0
    assert data.spilled_total.memory == data.stats()["bytes"] - data.fast.total_weight
    assert data.spilled_total.disk == data.stats()["disk"] >= 4 * MIB
    assert ("disk-write", "bytes") in data.cumulative_metrics
    assert ("zswap-write", "bytes") not in data.cumulative_metrics


def test_managed_memory_is_what_values_occupy_compressed_or_not(memory: Any) -> None:
    data = memory()
    for i in range(8):
        data[i] = noise(i)
    managed = data.stats()["bytes"] - data.spilled_total.memory
    assert managed == data.cgroup.usage()


def test_metrics_tell_tiers_apart(memory: Any) -> None:
    data = memory(target="1 GiB", pool="1 GiB")
    data["x"] = noise(1) + bytes(MIB)
    _ = data["x"]
    data.evict()
    _ = data["x"]
    data.evict()
    while data.stats()["zswap"]:
        data.evict()
    _ = data["x"]
    counts = {label: value for (label, unit), value in data.cumulative_metrics.items() if unit == "count"}
    assert counts == {"memory-read": 1, "zswap-write": 2, "zswap-read": 1, "disk-read": 1}
    written = data.cumulative_metrics["disk-write", "bytes"]
    assert written == data.cumulative_metrics["disk-read", "bytes"] >= MIB
    assert {unit for _, unit in data.cumulative_metrics} == {"bytes", "count", "seconds"}


class Bad:
    """Can't be serialized."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes

    def __sizeof__(self) -> int:
        return self.nbytes

    def __getstate__(self) -> object:
        raise ValueError("not me")


def test_what_cannot_be_serialized_stays_and_is_logged_once(memory: Any, caplog: pytest.LogCaptureFixture) -> None:
    data = memory()
    bad = Bad(3 * MIB)
    data["bad"] = bad
    with caplog.at_level(logging.ERROR, "distributed.worker.memory.uzswap"):
        data["x"] = block(1, 2 * MIB)
    assert "Failed to pickle 'bad'" in caplog.text
    assert data["bad"] is bad
    caplog.clear()
    for i in range(8):
        data[i] = block(i)
    assert "distributed.worker.memory.uzswap" not in {record.name for record in caplog.records}
    assert data["bad"] is bad


def test_one_that_is_larger_than_the_target_and_cannot_be_serialized_is_refused(memory: Any) -> None:
    data = memory()
    with pytest.raises(TypeError, match="Failed to pickle 'bad'") as caught:
        data["bad"] = Bad(5 * MIB)
    causes = []
    error: BaseException | None = caught.value
    while error is not None:
        causes.append(type(error))
        error = error.__cause__ or error.__context__
    assert ValueError in causes
    assert "bad" not in data
    assert data.evict() == -1


def test_one_that_is_larger_than_the_target_pushes_nothing_else_out(memory: Any) -> None:
    data = memory()
    data["small"] = block(1)
    data["large"] = block(2, 8 * MIB)
    assert set(data.fast) == {"small"}
    assert int(data["large"][7]) == 2
    assert set(data.fast) == {"small"}


def test_a_full_disk_keeps_the_value(memory: Any, faulty_swap: Any, caplog: pytest.LogCaptureFixture) -> None:
    data = memory(pool=2 * MIB, disk=4 * MIB)
    for i in range(16):
        data[i] = noise(i)
    assert "no room for more" in caplog.text
    assert data.evict() == -1
    assert data.stats()["disk"] <= MOST
    assert all(data[i] == noise(i) for i in range(16))
    for i in range(16):
        del data[i]
    for i in range(8):  # and it goes on when there is room
        data[i] = block(i)
    assert data.cgroup.usage() <= MOST


def written(data: Any) -> int:
    """Pages that the disk was given."""
    return int(data.stats()["written"])


@pytest.mark.parametrize("held", [False, True])
def test_what_was_only_read_goes_out_again_without_a_write(memory: Any, held: bool) -> None:
    """A value that comes back leaves its bytes on the disk, whether it was loaded or somebody had it still."""
    data = memory(pool=0)
    for i in range(8):
        data[i] = np.frombuffer(noise(i), np.uint8).copy()
    while len(data.fast):
        data.evict()
    before = written(data)
    kept = [data[i] for i in range(8)] if held else []
    while len(data.fast):
        data.evict()
    for _ in range(3):
        for i in range(8):
            assert bytes(data[i]) == noise(i)
            assert not held or data[i] is kept[i]
        stats = data.stats()
        here = len(data.fast)
        assert MIB * here <= stats["swapcached"] <= (MIB + (64 << 10)) * here
        assert data.spilled_total.disk == stats["disk"] - stats["cached"] > 0
    assert written(data) == before
    counts = {label: value for (label, unit), value in data.cumulative_metrics.items() if unit == "count"}
    assert counts["disk-write"] == 8
    data[0] = noise(99)
    while len(data.fast):
        data.evict()
    assert written(data) > before
    assert data[0] == noise(99)


def test_what_the_disk_has_of_values_in_memory_is_the_first_to_go(memory: Any) -> None:
    data = memory(pool=0, disk=16 * MIB)
    for i in range(6):
        data[i] = noise(i)
    while len(data.fast):
        data.evict()
    for i in range(4):
        assert data[i] == noise(i)
    assert data.stats()["cached"] > 0
    for i in range(6, 16):
        data[i] = noise(i)
    assert data.cgroup.usage() <= MOST
    assert all(data[i] == noise(i) for i in range(16))


def test_deleting_and_replacing_frees_all_tiers(memory: Any) -> None:
    data = memory()
    for i in range(16):
        data[i] = noise(i)
    data[0] = b"new"
    assert data[0] == b"new"
    with pytest.raises(KeyError):
        _ = data["none"]
    with pytest.raises(KeyError):
        del data["none"]
    with pytest.raises(NotImplementedError):
        data.pop(0)
    data.clear()
    assert len(data) == 0
    assert data.spilled_total == (0, 0)
    assert data.stats()["disk"] == data.cgroup.usage() == 0


def test_one_and_its_name_are_two_keys(memory: Any) -> None:
    data = memory()
    data[1], data["1"], data["a", 2] = 10, 20, 30
    while len(data.fast):
        data.evict()
    assert dict(data) == {1: 10, "1": 20, ("a", 2): 30}


def test_reclaim_through_the_control_file_is_seen(memory: Any) -> None:
    """The engine's own reclaim, as the agent asks for it, takes what it takes; nothing here is told of it."""
    data = memory(target="1 GiB")
    for i in range(4):
        data[i] = block(i)
    data.cgroup.write("memory.reclaim", 2 * MIB)
    assert len(data.fast) == len(data.slow) == 2
    assert [int(data[i][0]) for i in range(4)] == [0, 1, 2, 3]


def test_the_background_makes_room_below_the_headroom(memory: Any) -> None:
    data = memory(headroom=64 * MIB)
    for i in range(16):
        data[i] = noise(i)
    data.settle()
    assert data.cgroup.usage() <= MOST


def test_threads_share_it(memory: Any) -> None:
    data = memory(headroom=MIB)
    wrong: list[object] = []

    def work(name: int) -> None:
        chosen = random.Random(name)
        for turn in range(60):
            key = (name, chosen.randrange(12))
            if key in data and chosen.random() < 0.2:
                del data[key]
            elif key in data:
                if int(data[key][0]) != key[1]:
                    wrong.append(key)
            else:
                data[key] = block(key[1], MIB // 2)
            if turn % 7 == 0:
                data.evict()

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_nothing_is_left_on_the_disk_and_it_ends_with_its_last_user(tmp_path: Path) -> None:
    data = WorkerMemory(str(tmp_path), target=MIB, headroom=0, pool=0, disk=16 * MIB)
    data["x"] = block(1, 4 * MIB)
    assert os.listdir(tmp_path) == []
    zswap = data.zswap
    here = weakref.ref(data)
    del data
    gc.collect()
    assert here() is None
    assert zswap.closing


def test_the_configuration_is_dasks(tmp_path: Path) -> None:
    import dask.config

    with dask.config.set({"uzswap.target": "3 MiB", "uzswap.pool": "1 MiB", "uzswap.headroom": 0, "uzswap.disk": "8M"}):
        data = WorkerMemory(str(tmp_path), memory_limit="100 MiB")
    with data:
        for i in range(8):
            data[i] = noise(i)
        assert data.cgroup.usage() <= 3 * MIB
        assert data.cgroup.read("memory.zswap.max") == f"{MIB}\n"
    with dask.config.set({"distributed.worker.memory.max-spill": "8 MiB"}), WorkerMemory(str(tmp_path)) as other:
        assert other.zswap.swap is not None
        assert other.zswap.swap.nbytes == 8 << 20


class Machine(RuleBasedStateMachine):
    """Whatever is done, in whatever order, the values are those of a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.data = WorkerMemory(target=64 << 10, headroom=0, pool=32 << 10, disk="4 MiB")
        self.model: dict[int, Any] = {}
        self.held: list[Any] = []

    @rule(key=st.integers(0, 9), kind=st.sampled_from(["noise", "list", "array", "large"]), seed=st.integers(0, 99))
    def set(self, key: int, kind: str, seed: int) -> None:
        value: Any = {
            "noise": noise(seed, 9000),
            "list": [seed] * 2000,
            "array": block(seed, 20_000),
            "large": block(seed, 80_000),
        }[kind]
        self.data[key] = value
        self.model[key] = value.tolist() if isinstance(value, np.ndarray) else value

    @precondition(lambda self: self.model)
    @rule(pick=st.data(), hold=st.booleans())
    def get(self, pick: Any, hold: bool) -> None:
        key = pick.draw(st.sampled_from(sorted(self.model)))
        value = self.data[key]
        assert (value.tolist() if isinstance(value, np.ndarray) else value) == self.model[key]
        if hold:
            self.held = [value]

    @precondition(lambda self: self.model)
    @rule(pick=st.data())
    def delete(self, pick: Any) -> None:
        key = pick.draw(st.sampled_from(sorted(self.model)))
        del self.data[key]
        del self.model[key]

    @rule()
    def evict(self) -> None:
        self.data.evict()

    @rule(nbytes=st.integers(1, 100_000), source=st.sampled_from([None, "zswap"]))
    def reclaim(self, nbytes: int, source: str | None) -> None:
        with contextlib.suppress(ReclaimError):
            self.data.cgroup.reclaim(nbytes, source=source)

    @invariant()
    def is_whole(self) -> None:
        self.data.check()
        assert set(self.data) == set(self.model)
        assert set(self.data.fast) | set(self.data.slow) == set(self.model)

    def teardown(self) -> None:
        self.data.close()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
