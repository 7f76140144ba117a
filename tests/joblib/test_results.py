"""joblib.Memory with backend="uzswap": what it promises with files it promises in a cgroup."""

from __future__ import annotations

import copy
import datetime
import gc
import pickle
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.support.child import run

import uzswap
from uzswap.caches import Bounded
from uzswap.errors import InvalidArgumentError

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

joblib = pytest.importorskip("joblib", reason="joblib is not installed: pip install 'uzswap[joblib]'")
from joblib.memory import CacheWarning  # noqa: E402

import uzswap.joblib  # noqa: E402


@pytest.fixture
def group(engine: EngineFactory) -> uzswap.MemCgroup:
    return engine().cgroup("/results")


def memory(group: uzswap.MemCgroup, location: str = "here", **options: Any) -> Any:
    return joblib.Memory(location, backend="uzswap", backend_options={"cgroup": group, **options}, verbose=0)


def counted(memory: Any) -> tuple[Callable[[int], Any], list[int]]:
    calls: list[int] = []

    def squares(n: int) -> Any:
        calls.append(n)
        return {"n": n, "squares": np.arange(n) ** 2}

    return memory.cache(squares), calls


def pack(group: uzswap.MemCgroup) -> None:
    for store in group.members:
        store.reclaim(1 << 30)
    assert group.stats()["anon"] == 0


def test_a_result_is_computed_once_and_comes_back_from_the_disk(group: uzswap.MemCgroup) -> None:
    squares, calls = counted(memory(group))
    first = squares(50_000)
    pack(group)
    group.reclaim(int(group.read("memory.zswap.current")), source="zswap")
    again = squares(50_000)
    assert calls == [50_000]
    assert (first["squares"] == again["squares"]).all()
    assert squares.check_call_in_cache(50_000)  # type: ignore[attr-defined]
    assert group.stats()["pswpin"] > 0


def test_each_call_returns_an_object_of_its_own(group: uzswap.MemCgroup) -> None:
    squares, calls = counted(memory(group))
    squares(10)["squares"][:] = -1
    squares(10)["squares"][:] = -2
    assert squares(10)["squares"].tolist() == [n * n for n in range(10)]
    assert calls == [10]


def test_memories_of_one_location_have_the_same_results_and_those_of_others_do_not(group: uzswap.MemCgroup) -> None:
    calls: list[int] = []

    def work(n: int) -> int:
        calls.append(n)
        return n + 1

    one, other, elsewhere = (memory(group, location) for location in ("a", "a", "b"))
    assert [m.cache(work)(1) for m in (one, other, elsewhere)] == [2, 2, 2]
    assert calls == [1, 1]
    other.clear(warn=False)
    assert one.cache(work)(1) == 2
    assert elsewhere.cache(work)(1) == 2
    assert calls == [1, 1, 1]
    one.cache(work).clear(warn=False)
    assert not other.cache(work).check_call_in_cache(1)


def test_a_function_that_was_changed_computes_anew(group: uzswap.MemCgroup) -> None:
    here = memory(group)
    namespace: dict[str, Any] = {"__name__": "changing"}
    found = []
    for text in ("n + 1", "n + 1", "n + 2"):
        exec(f"def work(n): return {text}", namespace)  # without a file joblib takes the text of the code
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(here.cache(namespace["work"])(1))
    assert found == [2, 2, 3]


def test_references_to_results(group: uzswap.MemCgroup) -> None:
    squares, calls = counted(memory(group))
    reference = squares.call_and_shelve(100)  # type: ignore[attr-defined]
    pack(group)
    assert reference.get()["n"] == 100
    assert pickle.loads(pickle.dumps(reference)).get()["n"] == 100
    reference.clear()
    with pytest.raises(KeyError):
        reference.get()
    assert calls == [100]


def test_what_was_not_used_for_longest_is_reduced_first(group: uzswap.MemCgroup) -> None:
    here = memory(group)
    squares, calls = counted(here)
    for n in (10_000, 10_001, 10_002):
        squares(n)
    squares(10_000)
    sizes = sorted(item.size for item in here.store_backend.get_items())
    assert len(sizes) == 3
    assert 80_000 < sizes[0] < 90_000
    here.reduce_size(items_limit=2)
    assert [squares.check_call_in_cache(n) for n in (10_000, 10_001, 10_002)] == [True, False, True]  # type: ignore[attr-defined]
    here.reduce_size(bytes_limit="100K")
    assert [squares.check_call_in_cache(n) for n in (10_000, 10_002)] == [True, False]  # type: ignore[attr-defined]
    here.reduce_size(age_limit=datetime.timedelta(0))
    assert here.store_backend.get_items() == []
    assert calls == [10_000, 10_001, 10_002]


def test_a_result_without_room_is_returned_and_not_kept(group: uzswap.MemCgroup) -> None:
    squares, calls = counted(memory(group))
    assert squares(10)["n"] == 10
    group.write("memory.max", "64K")
    for _ in range(2):
        with pytest.warns(CacheWarning, match=r"is not kept: there is no room: .*/results"):
            assert squares(100_000)["n"] == 100_000
    assert squares(10)["n"] == 10
    assert calls == [10, 100_000, 100_000]


def test_what_cannot_be_pickled_is_returned_and_not_kept(group: uzswap.MemCgroup) -> None:
    here = memory(group)

    def work() -> Any:
        return threading.Lock()

    with pytest.warns(CacheWarning, match="cannot pickle"):
        here.cache(work)()
    assert not here.cache(work).check_call_in_cache()


def test_a_bounded_store_drops_what_was_not_used_for_longest(engine: EngineFactory) -> None:
    z = engine()
    store = Bounded(uzswap.Store(z.cgroup("/results")), memory="1M", disk=0)
    here = joblib.Memory("here", backend="uzswap", backend_options={"store": store}, verbose=0)
    calls: list[int] = []

    def noise(n: int) -> bytes:
        calls.append(n)
        return np.random.default_rng(n).bytes(200_000)

    cached = here.cache(noise)
    for n in range(8):
        assert cached(n) == noise(n)
    assert cached(7) == cached(7)
    assert calls.count(7) == 2
    assert cached(0) == noise(0)
    assert calls.count(0) == 4
    assert store.cgroup.usage() <= 1 << 20


def test_threads_share_results(group: uzswap.MemCgroup) -> None:
    squares, _ = counted(memory(group))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: squares(n % 5)["n"], range(100)))
    assert found == [n % 5 for n in range(100)]


def test_arguments_of_memory(group: uzswap.MemCgroup) -> None:
    with pytest.raises(InvalidArgumentError, match=r"\['size'\] are unknown, there are: cgroup, store"):
        memory(group, size=3)
    with pytest.raises(TypeError, match="not both"):
        memory(group, store={})
    with pytest.raises(TypeError, match="a cgroup is needed"):
        joblib.Memory("here", backend="uzswap", backend_options={"cgroup": 3})
    with pytest.warns(UserWarning, match="compress is for files"):
        joblib.Memory("here", backend="uzswap", compress=True, backend_options={"cgroup": group})
    with pytest.raises(OSError, match="no default engine"):
        joblib.Memory("here", backend="uzswap")


def test_copies_and_pickles_have_the_same_results(group: uzswap.MemCgroup) -> None:
    here = joblib.Memory(uzswap.joblib.StoreBackend(group), verbose=0)
    squares, calls = counted(here)
    squares(10)
    for again in (copy.deepcopy(here), pickle.loads(pickle.dumps(here))):
        assert len(again.store_backend.get_items()) == 1
        assert again.store_backend.location == "joblib"
        again.reduce_size(items_limit=0)
        squares(10)
    assert calls == [10, 10, 10]


def test_results_go_with_the_last_that_has_them(group: uzswap.MemCgroup) -> None:
    squares, calls = counted(memory(group))
    squares(100_000)
    del squares
    gc.collect()
    assert not group.members
    assert calls == [100_000]


@pytest.mark.slow
def test_in_a_worker_a_function_computes_and_keeps_nothing() -> None:
    run(
        """
        import joblib, uzswap, uzswap.joblib

        z = uzswap.Zswap(swap_size="64M")
        uzswap.set_default_engine(z)
        memory = joblib.Memory("here", backend="uzswap", verbose=0)

        def work(n):
            import os
            return os.getpid()

        cached = memory.cache(work)
        mine = cached(1)
        with joblib.parallel_config(n_jobs=2):
            pids = joblib.Parallel()(joblib.delayed(cached)(n) for n in (1, 2, 2))
            assert mine not in pids, pids
            shelved, = joblib.Parallel()([joblib.delayed(cached.call_and_shelve)(3)])
            by_threads = joblib.Parallel(backend="threading")(joblib.delayed(cached)(n) for n in (1, 2))
        try:
            shelved.get()
        except KeyError:
            pass
        else:
            raise AssertionError("a result of another process")
        assert by_threads == [mine, mine]
        assert cached.check_call_in_cache(2) and not cached.check_call_in_cache(3)
        joblib.externals.loky.get_reusable_executor().shutdown(wait=True, kill_workers=True)
        """
    ).check()
