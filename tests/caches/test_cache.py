"""The decorator does what that of functools does."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import json
import os
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.caches.mappings import PATIENCE, Dropped, run

import uzswap
from uzswap import MemCgroup, Store
from uzswap.caches import TTL, decorator
from uzswap.engine import default
from uzswap.errors import InvalidArgumentError

if TYPE_CHECKING:
    from tests.conftest import EngineFactory


@pytest.fixture
def group(engine: EngineFactory) -> MemCgroup:
    return engine().cgroup("/work")


@pytest.fixture
def no_default_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default, "_engine", None)


CALLS = [
    ((1,), {}),
    ((1,), {}),
    ((1.0,), {}),
    ((True,), {}),
    ((1,), {"b": 2}),
    ((), {"a": 1, "b": 2}),
    ((), {"b": 2, "a": 1}),
    ((1, 2), {}),
    (("1",), {}),
    (((1, 2),), {}),
    ((), {"a": "1"}),
]


@pytest.mark.parametrize("typed", [False, True])
def test_it_tells_arguments_apart_as_functools_does(group: MemCgroup, typed: bool) -> None:
    def function(a: Any, b: Any = None) -> Any:
        return [type(a).__name__, repr((a, b))]

    ours = uzswap.cache(typed=typed, cgroup=group)(function)
    theirs = functools.lru_cache(maxsize=None, typed=typed)(function)
    for args, kwargs in CALLS:
        assert ours(*args, **kwargs) == theirs(*args, **kwargs)
        assert ours.cache_info()[:2] == theirs.cache_info()[:2]
    with pytest.raises(TypeError, match="unhashable"):
        ours([])


def test_it_has_the_interface_of_functools(group: MemCgroup) -> None:
    @uzswap.cache(maxsize="1M", typed=True, ttl=60, cgroup=group)
    def function(a: int) -> list[int]:
        """Doc."""
        return [a] * 100

    assert function.cache_info() == (0, 0, 1 << 20, 0)
    assert function(1) is function(1)
    info = function.cache_info()
    assert (info.hits, info.misses, info.maxsize) == (1, 1, 1 << 20)
    assert 0 < info.currsize < 1 << 20
    assert function.cache_parameters() == {"maxsize": "1M", "typed": True, "disk": None, "ttl": 60}
    function.cache_clear()
    assert function.cache_info() == (0, 0, 1 << 20, 0)
    assert function.__wrapped__(3) == [3] * 100
    assert function.cache_info().misses == 0
    assert (function.__name__, function.__doc__) == ("function", "Doc.")
    assert inspect.signature(function) == inspect.signature(function.__wrapped__)


@uzswap.cache
def by_name(a: int) -> int:
    return a


def test_without_arguments_it_uses_the_default_engine(engine: EngineFactory, no_default_engine: None) -> None:
    @uzswap.cache
    def function(a: int) -> int:
        return a + 1

    with pytest.raises(OSError, match="no default engine"):
        function(1)
    z = engine()
    uzswap.set_default_engine(z)
    assert function(1) == function(1) == 2
    assert function.cache_info()[:3] == (1, 1, None)
    [made] = z.cgroup("/cache").children
    assert made.endswith("function")
    assert pickle.loads(pickle.dumps(by_name)) is by_name


def test_results_come_back_from_zswap(group: MemCgroup) -> None:
    calls = []

    @uzswap.cache(cgroup=group)
    def function(a: int) -> list[int]:
        calls.append(a)
        return [a] * 10_000

    assert len(function(1)) == 10_000
    with pytest.raises(uzswap.ReclaimIncomplete):
        group.reclaim("1G")
    assert function.cache_info().currsize < 10_000
    assert function(1) == [1] * 10_000
    assert calls == [1]


def test_methods_are_cached_for_each_instance(group: MemCgroup) -> None:
    class Thing:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        @uzswap.cache(cgroup=group)
        def times(self, number: int) -> int:
            return self.factor * number

    one, other = Thing(2), Thing(3)
    assert [one.times(5), one.times(5), other.times(5), other.times(number=5)] == [10, 10, 15, 15]
    assert Thing.times.cache_info()[:2] == (1, 3)


def test_recursion_works_and_on_the_same_arguments_is_told(group: MemCgroup) -> None:
    @uzswap.cache(cgroup=group)
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(50) == 12586269025
    assert fibonacci.cache_info()[:2] == (48, 51)

    @uzswap.cache(cgroup=group)
    def endless(n: int) -> int:
        return endless(n)

    with pytest.raises(RuntimeError, match="needs itself"):
        endless(1)


def test_it_is_called_once_among_threads(group: MemCgroup) -> None:
    start = threading.Barrier(4)
    calls = []

    @uzswap.cache(cgroup=group)
    def function(a: int) -> int:
        calls.append(a)
        return a

    def work() -> None:
        start.wait(PATIENCE)
        for a in range(50):
            assert function(a) == a

    run(work, work, work, work)
    assert sorted(calls) == list(range(50))
    info = function.cache_info()
    assert (info.hits, info.misses) == (150, 50)
    assert len(group.children) == 1


def test_a_cgroup_that_a_late_thread_has_removed_is_looked_for_again(
    group: MemCgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of threads that call a function for the first time all but one remove again what they made."""
    look = decorator._free_cgroup
    found = []

    def look_and_lose(parent: MemCgroup, name: str) -> MemCgroup:
        found.append(look(parent, name))
        if len(found) < 3:
            found[-1].remove()
        return found[-1]

    monkeypatch.setattr(decorator, "_free_cgroup", look_and_lose)

    @uzswap.cache(cgroup=group)
    def function(a: int) -> int:
        return a

    assert function(1) == 1
    assert len(found) == 3
    assert found[-1].online


def test_exceptions_are_not_kept(group: MemCgroup) -> None:
    answers = iter([ValueError("first"), 1])

    @uzswap.cache(cgroup=group)
    def function() -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(ValueError, match="first"):
        function()
    assert function() == function() == 1


def test_its_size_bounds_memory_and_nothing_goes_to_the_disk(group: MemCgroup) -> None:
    dropped = Dropped()

    @uzswap.cache("256K", cgroup=group, on_evict=dropped)
    def function(a: int) -> bytes:
        return os.urandom(10_000)

    first = function(0)
    for a in range(1, 60):
        function(a)
    assert function.cache_info().currsize <= 256 << 10
    assert group.stats()["uzswap.disk"] == 0
    assert dropped[0][2] == "full"
    assert function(0) != first


def test_results_live_for_their_time(group: MemCgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    store: Store[Any, Any] = Store(group)
    calls = []

    @uzswap.cache(store=TTL(store, 10, clock=lambda: now[0]))
    def function(a: int) -> int:
        calls.append(a)
        return a

    assert [function(1), function(1)] == [1, 1]
    now[0] = 10
    assert function(1) == 1
    assert calls == [1, 1]
    with pytest.raises(InvalidArgumentError):
        uzswap.cache(ttl=0)


def test_formats_of_the_users(group: MemCgroup) -> None:
    store: Store[Any, Any] = Store(group)

    @uzswap.cache(store=store, dump=lambda value: json.dumps(value).encode(), load=json.loads)
    def function(a: int) -> dict[str, int]:
        return {"a": a}

    assert function(1) == function(1) == {"a": 1}
    assert list(store.values()) == [b'{"a": 1}']


def test_coroutine_functions(group: MemCgroup) -> None:
    calls = []

    @uzswap.cache(maxsize="1M", cgroup=group)
    async def function(a: int) -> list[int]:
        calls.append(a)
        await asyncio.sleep(0)
        return [a] * 1000

    async def main() -> None:
        found = await asyncio.gather(function(1), function(1), function(2))
        assert [len(value) for value in found] == [1000] * 3
        assert await function(1) == [1] * 1000

    assert inspect.iscoroutinefunction(function)
    asyncio.run(main())
    assert sorted(calls) == [1, 2]
    assert function.cache_info()[:2] == (2, 2)
    function.cache_clear()
    assert function.cache_info().currsize == 0


def test_memory_comes_back_with_the_function(group: MemCgroup) -> None:
    def use() -> None:
        @uzswap.cache(cgroup=group)
        def function(a: int) -> bytes:
            return os.urandom(10_000)

        function(1)
        assert group.usage() > 10_000

    use()
    gc.collect()
    assert group.usage() == 0
    use()
    gc.collect()
    assert len(group.children) == 1  # the cgroup is used again


def test_bad_arguments_are_told_at_once(group: MemCgroup) -> None:
    for bad in ({"maxsize": "much"}, {"maxsize": -1}, {"maxsize": "1M", "disk": "x"}, {"ttl": -1}):
        with pytest.raises(InvalidArgumentError):
            uzswap.cache(**bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="belong together"):
        uzswap.cache(dump=bytes)
    with pytest.raises(TypeError, match="not both"):
        uzswap.cache(cgroup=group, store=Store(group))
    with pytest.raises(TypeError, match="a cgroup is needed"):
        uzswap.cache(cgroup="/work")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="store= is a"):
        uzswap.cache(store={})
    with pytest.raises(TypeError, match="a function is needed"):
        uzswap.cache("1M")(3)  # type: ignore[arg-type]
