"""Parts of large bytes: no more is loaded than what has some of them."""

from __future__ import annotations

import contextlib
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.values import counters, evict, noise

from uzswap import ReclaimError, Store, Zswap
from uzswap.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import EngineFactory

CHUNK = 1 << 16
SIZE = 10 * CHUNK + 1234
LARGE = bytes(noise(SIZE))
ENDS = st.one_of(st.none(), st.integers(-SIZE - 9, SIZE + 9), st.integers(-12, 12).map(lambda n: n * CHUNK))


@pytest.fixture(scope="module")
def cold() -> Iterator[Store[Any, bytes]]:
    """A store with a value in the pool, one on the disk, one in memory, and a small one."""
    with Zswap(swap_size="16M") as z, Store[Any, bytes](z.cgroup("/a")) as store:
        for place in ("disk", "zswap", "resident"):
            store[place] = bytes(bytearray(LARGE))
        store.evict("disk")
        with contextlib.suppress(ReclaimError):
            z.cgroup("/a").reclaim("1G", source="zswap")
        store.evict("zswap")
        yield store


@given(start=ENDS, stop=ENDS, place=st.sampled_from(["disk", "zswap", "resident"]))
def test_a_part_is_what_a_slice_is(cold: Store[Any, bytes], start: int | None, stop: int | None, place: str) -> None:
    assert cold.get_part(place, slice(start, stop)) == LARGE[start:stop]
    cold.check()


def test_only_what_has_some_of_it_is_loaded_and_it_stays(engine: EngineFactory) -> None:
    z = engine(swap_size="16M")
    with Store[str, bytes](z.cgroup("/a")) as store:
        store["x"] = bytes(bytearray(LARGE))
        evict(store)
        for place, counter in (("zswap", "zswpin"), ("disk", "pswpin")):
            if place == "disk":
                with contextlib.suppress(ReclaimError):
                    store.cgroup.reclaim("1G", source="zswap")
            before = counters(store.cgroup)
            assert store.get_part("x", slice(3 * CHUNK + 5, 3 * CHUNK + 50)) == LARGE[3 * CHUNK + 5 : 3 * CHUNK + 50]
            assert store.get_part("x", slice(-20, None)) == LARGE[-20:]
            assert store.get_part("x", slice(CHUNK - 1, CHUNK + 1)) == LARGE[CHUNK - 1 : CHUNK + 1]
            assert store.get_part("x", slice(7, 7)) == b""
            now = counters(store.cgroup)
            assert now[counter] - before[counter] == 3 * CHUNK // 4096 + 1  # the last one has 1234 bytes
            assert store.where("x") == place
            assert now["anon"] == 0
            z.check()


def test_what_is_asked_for_again_and_again_is_loaded(engine: EngineFactory) -> None:
    z = engine()
    with Store[str, bytes](z.cgroup("/a")) as store:
        store["x"] = bytes(bytearray(LARGE))
        evict(store)
        asked = 0
        while asked <= SIZE:
            assert store.where("x") == "zswap"
            assert store.get_part("x", slice(0, CHUNK)) == LARGE[:CHUNK]
            asked += CHUNK
        assert store.get_part("x", slice(0, CHUNK)) == LARGE[:CHUNK]
        assert store.where("x") == "resident"
        evict(store)  # and from the beginning
        store.get_part("x", slice(0, CHUNK))
        assert store.where("x") == "zswap"


def test_what_has_no_such_part(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["list"] = [1, 2, 3]
        store["str"] = "x" * 200_000
        store["small"] = b"small"
        evict(store)
        assert store.get_part("small", slice(1, 3)) == b"ma"
        with pytest.raises(KeyError):
            store.get_part("nobody", slice(0, 1))
        for key in ("list", "str"):
            with pytest.raises(TypeError):
                store.get_part(key, slice(0, 1))
        with pytest.raises(InvalidArgumentError):
            store.get_part("small", slice(0, 4, 2))


def test_parts_while_others_take_the_value_away(engine: EngineFactory) -> None:
    """Deleted, replaced, loaded and evicted by other threads: a part is of one value, and no chunk is left."""
    z = engine(swap_size="16M")
    values = {n: bytes(noise(3 * CHUNK, n)) for n in range(3)}
    wrong: list[object] = []
    with Store[int, bytes](z.cgroup("/a")) as store:
        begun = threading.Barrier(4)

        def read(name: int) -> None:
            chosen = random.Random(name)
            begun.wait()
            for _ in range(150):
                start = chosen.randrange(3 * CHUNK)
                with contextlib.suppress(KeyError):
                    found = store.get_part(0, slice(start, start + 5000))
                    if found not in [value[start : start + 5000] for value in values.values()]:
                        wrong.append(start)

        def change() -> None:
            chosen = random.Random(9)
            begun.wait()
            for _ in range(300):
                match chosen.randrange(5):
                    case 0:
                        store.discard(0)
                    case 1:
                        store.get(0)
                    case _:
                        store[0] = bytes(bytearray(values[chosen.randrange(3)]))
                        evict(store)

        threads = [threading.Thread(target=read, args=(n,)) for n in range(3)] + [threading.Thread(target=change)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        store.check()
        store.clear()
        z.check()
        assert counters(store.cgroup)["zswap"] == counters(store.cgroup)["uzswap.disk"] == 0
