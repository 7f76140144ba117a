"""The awaitable face: nothing blocks the event loop, and a missing value is computed once among tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from tests.caches.mappings import PATIENCE

from uzswap import ReclaimIncomplete, Store
from uzswap.caches import TTL, Async, Bounded, Dumped

if TYPE_CHECKING:
    from tests.conftest import EngineFactory


@pytest.fixture
def store(engine: EngineFactory) -> Iterator[Store[Any, Any]]:
    with Store[Any, Any](engine().cgroup("/a")) as store:
        yield store


class Counting(ThreadPoolExecutor):
    """Threads, and how often they were needed."""

    def __init__(self) -> None:
        super().__init__(2)
        self.calls = 0

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return super().submit(*args, **kwargs)


def test_what_is_resident_is_answered_at_once_and_the_rest_in_a_thread(store: Store[Any, Any]) -> None:
    async def main(threads: Counting) -> None:
        cache = Async(store, threads)
        await cache.aset("a", ["value"] * 1000)
        assert threads.calls == 1
        assert len(await cache.aget("a")) == 1000
        assert await cache.aget("missing", 7) == 7
        assert threads.calls == 1
        await cache.aset("large", ["value"] * 10_000)
        store.reclaim(1 << 20)
        calls = threads.calls
        assert len(await cache.aget("large")) == 10_000
        assert threads.calls == calls + 1
        assert await cache.aget_many(["a", "missing"]) == {"a": ["value"] * 1000}
        assert await cache.adelete("a")
        assert not await cache.adelete("a")

    with Counting() as threads:
        asyncio.run(main(threads))


def test_what_is_small_and_in_the_pool_is_answered_at_once(store: Store[Any, Any]) -> None:
    if not hasattr(store, "info"):
        pytest.skip("this store does not tell what a value weighs: Store.info is missing")

    async def main(threads: Counting) -> None:
        store["small"] = ["value"] * 10
        store.reclaim(1 << 20)
        assert store.where("small") == "zswap"
        assert await Async(store, threads).aget("small") == ["value"] * 10
        assert threads.calls == 0

    with Counting() as threads:
        asyncio.run(main(threads))


def test_the_loop_goes_on_while_a_value_is_loaded() -> None:
    """Setting and loading wait for the loop itself: would they block it, they would wait for ever."""
    went_on = threading.Event()

    def slow(value: Any) -> bytes:
        assert went_on.wait(PATIENCE)
        return bytes(value)

    async def main() -> None:
        cache: Async[str, bytes] = Async(Dumped({}, dump=slow, load=slow))
        for call in (lambda: cache.aset("a", b"value"), lambda: cache.aget("a")):
            went_on.clear()
            task = asyncio.ensure_future(call())
            await asyncio.sleep(0)
            went_on.set()
            found = await task
        assert found == b"value"

    asyncio.run(main())


def test_tasks_that_ask_for_the_same_get_one_object(store: Store[Any, Any]) -> None:
    async def main() -> None:
        cache = Async(store)
        calls = 0

        async def compute() -> list[str]:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0)
            return ["value"]

        found = await asyncio.gather(*(cache.aget_or_compute("a", compute) for _ in range(5)))
        assert calls == 1
        assert all(value is found[0] for value in found)
        assert (cache.hits, cache.misses) == (4, 1)
        assert await cache.aget_or_compute("a", compute) == ["value"]
        assert calls == 1

    asyncio.run(main())


def test_a_computed_value_is_held_by_nobody_afterwards(store: Store[Any, Any]) -> None:
    async def main() -> None:
        cache = Async(store)

        async def compute() -> list[str]:
            return ["value"] * 1000

        await cache.aget_or_compute("a", compute)
        store.reclaim(1 << 20)
        assert store.where("a") == "zswap"

    asyncio.run(main())


def test_an_exception_goes_to_all_who_wait_and_is_not_kept(store: Store[Any, Any]) -> None:
    async def main() -> None:
        cache = Async(store)
        calls = 0

        async def fail() -> int:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0)
            raise LookupError("none")

        async def good() -> int:
            return 1

        waiting = (cache.aget_or_compute("a", fail) for _ in range(3))
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in found] == [LookupError] * 3
        assert calls == 1
        assert await cache.aget_or_compute("a", good) == 1

    asyncio.run(main())


def test_a_cancelled_task_leaves_the_computation_to_the_others(store: Store[Any, Any]) -> None:
    async def main() -> None:
        cache = Async(store)
        go = asyncio.Event()

        async def compute() -> int:
            await go.wait()
            return 1

        first = asyncio.ensure_future(cache.aget_or_compute("a", compute))
        second = asyncio.ensure_future(cache.aget_or_compute("a", compute))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        go.set()
        assert await second == 1
        assert first.cancelled()
        assert cache.misses == 1

    asyncio.run(main())


def test_with_the_last_task_the_computation_is_cancelled(store: Store[Any, Any]) -> None:
    async def main() -> None:
        cache = Async(store)
        cancelled = asyncio.Event()

        async def compute() -> int:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            return 1

        async def good() -> int:
            return 2

        task = asyncio.ensure_future(cache.aget_or_compute("a", compute))
        while not cache.misses:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.wait_for(cancelled.wait(), PATIENCE)
        assert await cache.aget_or_compute("a", good) == 2

    asyncio.run(main())


def test_computations_that_need_themselves_or_each_other_are_told(store: Store[Any, Any]) -> None:
    async def main() -> None:
        cache = Async(store)

        async def itself() -> Any:
            return await cache.aget_or_compute("a", itself)

        with pytest.raises(RuntimeError, match="'a' needs itself"):
            await cache.aget_or_compute("a", itself)

        async def one() -> Any:
            await asyncio.sleep(0)
            return await cache.aget_or_compute("other", other)

        async def other() -> Any:
            await asyncio.sleep(0)
            return await cache.aget_or_compute("one", one)

        asked = (cache.aget_or_compute("one", one), cache.aget_or_compute("other", other))
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(error, RuntimeError) for error in found)

    asyncio.run(main())


def test_what_is_set_meanwhile_wins(store: Store[Any, Any]) -> None:
    async def main() -> None:
        cache = Async(store)
        begun, go = asyncio.Event(), asyncio.Event()

        async def compute() -> str:
            begun.set()
            await go.wait()
            return "computed"

        task = asyncio.ensure_future(cache.aget_or_compute("a", compute))
        await begun.wait()
        await cache.aset("a", "set")
        go.set()
        assert await task == "computed"
        assert await cache.aget("a") == "set"

    asyncio.run(main())


def test_reclaim_frees_what_it_says_and_says_what_it_could_not(store: Store[Any, Any]) -> None:
    async def main() -> None:
        cache = Async(TTL(Bounded(store)))
        await cache.aset("a", ["value"] * 10_000)
        result = await cache.areclaim("16K")
        assert result.reclaimed >= 16384
        with pytest.raises(ReclaimIncomplete):
            await cache.areclaim("1G")
        with pytest.raises(TypeError, match=r"no uzswap\.Store"):
            await Async({}).areclaim("1M")

    asyncio.run(main())


def test_two_event_loops_may_use_one(store: Store[Any, Any]) -> None:
    cache = Async(store)
    start = threading.Barrier(2)

    def work() -> None:
        async def compute() -> int:
            await asyncio.sleep(0)
            return 1

        async def main() -> None:
            for key in range(50):
                assert await cache.aget_or_compute(key, compute) == 1

        start.wait(PATIENCE)
        asyncio.run(main())

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(work) for _ in range(2)]:
            future.result(PATIENCE)
