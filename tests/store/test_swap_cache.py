"""A store of immutable values leaves on the disk what it loads from there: going out again writes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.store.values import counters, evict, noise
from tests.support.child import run

from uzswap import ReclaimError, Store, Zswap

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

PAGE = 4096
VALUES: dict[str, Callable[[], Any]] = {
    "bytes": lambda: bytes(noise(3000)),
    "large bytes": lambda: bytes(noise(200_000)),
    "str": lambda: noise(2000).hex(),
    "pickled": lambda: [noise(5000)],
    "array": lambda: np.frombuffer(noise(300_000), np.uint8).copy(),
}


def to_disk(store: Store[Any, Any]) -> None:
    evict(store)
    with contextlib.suppress(ReclaimError):
        store.cgroup.reclaim("1G", source="zswap")


def same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(one, other)) if isinstance(other, np.ndarray) else bool(one == other)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("kind", VALUES)
def test_what_was_only_read_goes_out_without_a_write(engine: EngineFactory, kind: str, many: bool) -> None:
    z = engine(swap_size="16M")
    with Store(z.cgroup("/a"), immutable=True) as store:
        store["x"] = VALUES[kind]()
        to_disk(store)
        assert store.where("x") == "disk"
        before = counters(store.cgroup)
        for _ in range(3):
            value = store.get_many(["x"])["x"] if many else store["x"]
            assert same(value, VALUES[kind]())
            del value
            now = counters(store.cgroup)
            assert now["swapcached"] >= PAGE
            assert now["uzswap.disk"] == before["uzswap.disk"]
            store.check()
            z.check()
            assert store.evict("x") > 0
            assert store.where("x") == "disk"
        after = counters(store.cgroup)
        assert (after["pswpout"], after["zswpout"]) == (before["pswpout"], before["zswpout"])
        assert after["swapcached"] == 0
        assert after["pswpin"] >= before["pswpin"] + 3


@pytest.mark.parametrize("how", ["replaced", "deleted", "popped", "cleared"])
def test_what_is_no_longer_the_value_leaves_the_disk(engine: EngineFactory, how: str) -> None:
    z = engine(swap_size="16M")
    with Store(z.cgroup("/a"), immutable=True) as store:
        store["x"] = VALUES["array"]()
        to_disk(store)
        assert len(store["x"]) == 300_000
        assert counters(store.cgroup)["swapcached"] > 0
        match how:
            case "replaced":
                store["x"] = b"new"
            case "deleted":
                del store["x"]
            case "popped":
                store.pop("x")
            case "cleared":
                store.clear()
        now = counters(store.cgroup)
        assert now["swapcached"] == now["uzswap.disk"] == 0
        assert "x" not in store or store["x"] == b"new"
        z.check()


def test_others_give_up_what_they_load(engine: EngineFactory) -> None:
    """A list may be changed by whoever asks for it: a store that was not promised anything writes it anew."""
    z = engine(swap_size="16M")
    with Store(z.cgroup("/a")) as store:
        store["x"] = [1, noise(5000)]
        to_disk(store)
        store["x"].append(2)
        assert counters(store.cgroup)["uzswap.disk"] == 0
        evict(store)
        assert store["x"][2] == 2


def test_the_very_object_is_put_back(engine: EngineFactory) -> None:
    z = engine(swap_size="16M")
    with Store(z.cgroup("/a"), shared="copy", immutable=True) as store:
        value = store["x"] = VALUES["array"]()
        to_disk(store)
        written = counters(store.cgroup)["pswpout"]
        store.put_back("x", value)
        assert store["x"] is value
        assert counters(store.cgroup)["swapcached"] > 0
        store.check()
        to_disk(store)
        assert store.where("x") == "disk"
        assert counters(store.cgroup)["pswpout"] == written
        store.put_back("new", b"a key that was not there")
        assert store["new"] == b"a key that was not there"


def test_none_stay_on_a_disk_that_is_more_than_half_full(engine: EngineFactory) -> None:
    z = engine(swap_size="4M")
    with Store(z.cgroup("/a"), immutable=True) as store:
        for i in range(12):
            store[i] = bytes(noise(200_000, i))
        to_disk(store)
        assert same(store[0], bytes(noise(200_000, 0)))
        assert counters(store.cgroup)["swapcached"] == 0
        # Of a cgroup's swap as of the device.
        for i in range(1, 12):
            del store[i]
        to_disk(store)
        store.cgroup.write("memory.swap.max", 300_000)
        assert same(store[0], bytes(noise(200_000, 0)))
        assert counters(store.cgroup)["swapcached"] == 0
        to_disk(store)
        store.cgroup.write("memory.swap.max", "max")
        assert same(store[0], bytes(noise(200_000, 0)))
        assert counters(store.cgroup)["swapcached"] > 0


def test_they_are_the_first_to_go_when_the_disk_is_full(engine: EngineFactory) -> None:
    z = engine(swap_size="8M", max_pool="64K")
    with Store(z.cgroup("/a"), immutable=True) as store, Store(z.cgroup("/b")) as other:
        for i in range(8):
            store[i] = bytes(noise(400_000, i))
        to_disk(store)
        loaded = [store[i] for i in range(8)]
        assert counters(store.cgroup)["swapcached"] > 0
        for i in range(16):  # of 8 MiB, the other one needs 6.4
            other[i] = bytes(noise(400_000, 100 + i))
        to_disk(other)
        assert {other.where(i) for i in range(16)} <= {"disk", "disk+zswap", "zswap"}
        now = counters(store.cgroup)
        assert now["uzswap.disk"] < 8 * 400_000
        assert now["swapcached"] < 8 * 400_000
        z.check()
        del loaded
        evict(store)  # some to what is there, some anew, some not at all
        assert all(same(store[i], bytes(noise(400_000, i))) for i in range(8))
        assert all(same(other[i], bytes(noise(400_000, 100 + i))) for i in range(16))
        z.check()


def test_a_forked_child_has_them_too() -> None:
    code = """
        import os, uzswap, numpy as np
        z = uzswap.Zswap(swap_size="16M")
        store = uzswap.Store(z.cgroup("/a"), immutable=True)
        values = [np.random.default_rng(i).bytes(150_000) for i in range(8)]
        for i in range(8):
            store[i] = bytes(bytearray(values[i]))
        store.reclaim("1G")
        try:
            z.cgroup("/a").reclaim("1G", source="zswap")
        except uzswap.ReclaimError:
            pass
        for i in range(4):
            assert store[i] == values[i]
        def use(first):
            for turn in range(3):
                store.reclaim("1G")
                assert {store.where(i) for i in range(4)} == {"disk"}
                assert [store[i] for i in range(8)] == values
            store[first] = b"new"
            del store[7]
            store.check()
            z.check()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                use(0)
                code = 0
            finally:
                os._exit(code)
        use(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert store[1] == b"new" and store[0] == values[0]
        z.close()
    """
    run(code).check()


class Machine(RuleBasedStateMachine):
    """Whatever is done, in whatever order, on a disk that is too small, the values are those of a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.z = Zswap(swap_size="4M", max_pool="256K")
        self.store: Store[int, Any] = Store(self.z.cgroup("/a"), shared="copy", immutable=True)
        self.model: dict[int, tuple[str, int]] = {}
        self.held: list[Any] = []

    def made(self, recipe: tuple[str, int]) -> Any:
        kind, seed = recipe
        data = noise({"small": 900, "chunk": 40_000, "large": 400_000}[kind], seed)
        return bytes(data) if seed % 2 else np.frombuffer(data, np.uint8).copy()

    @rule(key=st.integers(0, 7), kind=st.sampled_from(["small", "chunk", "large"]), seed=st.integers(0, 9))
    def set(self, key: int, kind: str, seed: int) -> None:
        self.store[key] = self.made((kind, seed))
        self.model[key] = (kind, seed)

    @precondition(lambda self: self.model)
    @rule(pick=st.data(), hold=st.booleans())
    def get(self, pick: Any, hold: bool) -> None:
        key = pick.draw(st.sampled_from(sorted(self.model)))
        value = self.store[key]
        assert same(value, self.made(self.model[key]))
        self.held = [value] if hold else []

    @rule(keys=st.sets(st.integers(0, 7)))
    def get_many(self, keys: set[int]) -> None:
        found = self.store.get_many(keys)
        assert set(found) == keys & set(self.model)
        assert all(same(value, self.made(self.model[key])) for key, value in found.items())

    @precondition(lambda self: self.model)
    @rule(pick=st.data())
    def put_back(self, pick: Any) -> None:
        key = pick.draw(st.sampled_from(sorted(self.model)))
        self.store.put_back(key, self.made(self.model[key]))

    @precondition(lambda self: self.model)
    @rule(pick=st.data(), pop=st.booleans())
    def delete(self, pick: Any, pop: bool) -> None:
        key = pick.draw(st.sampled_from(sorted(self.model)))
        if pop:
            assert same(self.store.pop(key), self.made(self.model[key]))
        else:
            del self.store[key]
        del self.model[key]

    @rule(nbytes=st.integers(1, 1_000_000))
    def reclaim(self, nbytes: int) -> None:
        self.store.reclaim(nbytes)

    @rule(nbytes=st.integers(1, 1_000_000))
    def write_back(self, nbytes: int) -> None:
        with contextlib.suppress(ReclaimError):
            self.store.cgroup.reclaim(nbytes, source="zswap")

    @invariant()
    def is_whole(self) -> None:
        self.store.check()
        self.z.check()
        assert set(self.store) == set(self.model)

    def teardown(self) -> None:
        self.store.close()
        assert self.z.core.device().cached_bytes == 0
        self.z.close()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
