"""A missing value is computed once, whoever asks for it, and what comes of it goes to all who wait."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from tests.caches.mappings import PATIENCE, run
from tests.support.child import run as run_child

from uzswap import Store
from uzswap.caches import Bounded, Once

if TYPE_CHECKING:
    from tests.conftest import EngineFactory


@pytest.fixture
def store(engine: EngineFactory) -> Iterator[Store[Any, Any]]:
    with Store[Any, Any](engine().cgroup("/a")) as store:
        yield store


class Gate:
    """A computation that has begun, and that goes on when it is let."""

    def __init__(self, then: Callable[[], Any]) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.then = then
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        self.begun.set()
        assert self.go.wait(PATIENCE)
        return self.then()


def until_waiting(once: Once[Any, Any], number: int) -> None:
    """Wait until so many threads wait for a computation."""
    from uzswap.caches import once as module

    pause = threading.Event()
    while len(module._waiting) < number:  # type: ignore[attr-defined]
        pause.wait(0.001)


def meet(once: Once[Any, Any], gate: Gate, key: Any, number: int) -> Callable[[], None]:
    """Return what lets the computation go on when so many threads wait for it."""

    def let() -> None:
        assert gate.begun.wait(PATIENCE)
        until_waiting(once, number)
        gate.go.set()

    return let


def test_threads_that_ask_for_the_same_get_one_object(store: Store[Any, Any]) -> None:
    once = Once(store)
    gate = Gate(lambda: ["value"])

    def ask() -> Any:
        return once.get_or_compute("a", gate)

    *found, _ = run(ask, ask, ask, ask, meet(once, gate, "a", 3))
    assert gate.calls == 1
    assert all(value is found[0] for value in found)
    assert (once.hits, once.misses) == (3, 1)
    once.check()


def test_a_computation_of_another_key_does_not_wait(store: Store[Any, Any]) -> None:
    once = Once(store)
    gate = Gate(lambda: 1)

    def other() -> None:
        assert gate.begun.wait(PATIENCE)
        assert once.get_or_compute("b", lambda: 2) == 2
        gate.go.set()

    assert run(lambda: once.get_or_compute("a", gate), other) == [1, None]


def test_an_exception_goes_to_all_who_wait_and_is_not_kept(store: Store[Any, Any]) -> None:
    once = Once(store)
    error = LookupError("none")

    def fail() -> Any:
        raise error

    gate = Gate(fail)

    def ask() -> Any:
        with pytest.raises(LookupError) as caught:
            once.get_or_compute("a", gate)
        return caught.value

    *found, _ = run(ask, ask, ask, meet(once, gate, "a", 2))
    assert all(one is error for one in found)
    assert gate.calls == 1
    assert "a" not in store
    assert once.get_or_compute("a", lambda: 1) == 1
    once.check()


def test_an_interrupt_is_its_own_threads_and_another_computes(store: Store[Any, Any]) -> None:
    once = Once(store)

    def interrupt() -> Any:
        raise KeyboardInterrupt

    gate = Gate(interrupt)

    def ask() -> None:
        with pytest.raises(KeyboardInterrupt):
            once.get_or_compute("a", gate)

    def wait() -> Any:
        assert gate.begun.wait(PATIENCE)
        return once.get_or_compute("a", lambda: "computed")

    assert run(ask, wait, wait, meet(once, gate, "a", 2)) == [None, "computed", "computed", None]
    assert once.misses == 2
    once.check()


def test_a_computation_that_needs_itself_is_told(store: Store[Any, Any]) -> None:
    once = Once(store)

    def again() -> Any:
        return once.get_or_compute("a", again)

    with pytest.raises(RuntimeError, match="'a' needs itself"):
        once.get_or_compute("a", again)
    assert once.get_or_compute("a", lambda: 1) == 1
    once.check()


def test_computations_that_need_each_other_are_told(store: Store[Any, Any]) -> None:
    """Whichever closes the circle is told, and so are those who wait for it."""
    once, other = Once(store), Once[str, Any]({})
    both = threading.Barrier(2)

    def a() -> Any:
        both.wait(PATIENCE)
        return other.get_or_compute("b", lambda: "never")

    def b() -> Any:
        both.wait(PATIENCE)
        return once.get_or_compute("a", lambda: "never")

    def ask(mapping: Once[Any, Any], key: str, compute: Callable[[], Any]) -> Any:
        with pytest.raises(RuntimeError, match="needs itself"):
            mapping.get_or_compute(key, compute)

    run(lambda: ask(once, "a", a), lambda: ask(other, "b", b))
    once.check()
    other.check()


@pytest.mark.parametrize("change", ["set", "delete", "pop", "clear"])
def test_what_is_changed_meanwhile_wins(store: Store[Any, Any], change: str) -> None:
    once = Once(store)
    gate = Gate(lambda: "computed")

    def interfere() -> None:
        assert gate.begun.wait(PATIENCE)
        match change:
            case "set":
                once["a"] = "set"
            case "delete":
                assert not once.discard("a")
            case "pop":
                once.pop("a", None)
            case _:
                once.clear()
        gate.go.set()

    assert run(lambda: once.get_or_compute("a", gate), interfere)[0] == "computed"
    assert once.get("a") == ("set" if change == "set" else None)


def test_a_value_without_room_is_returned_and_not_kept(store: Store[Any, Any]) -> None:
    once = Once(Bounded(store, memory="64K", disk=0))
    assert len(once.get_or_compute("a", lambda: os.urandom(100_000))) == 100_000
    assert "a" not in once
    assert once.get_or_compute("b", lambda: 1) == 1
    assert "b" in once


def test_many_threads_and_keys_compute_each_once(store: Store[Any, Any]) -> None:
    once = Once(store)
    start = threading.Barrier(4)
    calls: list[int] = []

    def work() -> None:
        start.wait(PATIENCE)
        for key in range(100):

            def compute(key: int = key) -> list[int]:
                calls.append(key)
                return [key] * 100

            assert once.get_or_compute(key, compute) == [key] * 100
            if key % 10 == 0:
                store.reclaim(10_000)

    run(work, work, work, work)
    assert sorted(calls) == list(range(100))
    once.check()


FORK = """
import os, sys, threading
from uzswap.caches import Once
once = Once({})
begun, go = threading.Event(), threading.Event()
def compute():
    begun.set()
    go.wait()
    return 1
thread = threading.Thread(target=lambda: once.get_or_compute("a", compute))
thread.start()
begun.wait()
pid = os.fork()
if not pid:
    os._exit(once.get_or_compute("a", lambda: 7))
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
go.set()
thread.join()
assert code == 7, code
assert once["a"] == 1
print("done")
"""


def test_a_forked_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    assert "done" in run_child(FORK).stdout


FORK_IN_A_HANDLER = """
import os, signal, threading
from uzswap.caches import once as module
from uzswap.caches.once import Once

begun, go = threading.Event(), threading.Event()
once = Once({})
children = []

def compute():
    begun.set()
    go.wait()
    return 1

def fork(*_):
    children.append(os.fork())
    if children[0]:
        go.set()

def interrupt():
    while threading.main_thread().ident not in module._waiting:
        os.sched_yield()
    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

signal.signal(signal.SIGUSR1, fork)
thread = threading.Thread(target=lambda: once.get_or_compute("a", compute))
thread.start()
begun.wait()
threading.Thread(target=interrupt).start()
value = once.get_or_compute("a", lambda: 7)
if not children[0]:
    os._exit(value)
assert value == 1
thread.join()
code = os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])
assert code == 7, code
print("done")
"""


def test_a_child_that_a_handler_forks_does_not_wait_on_for_its_parents_thread() -> None:
    assert "done" in run_child(FORK_IN_A_HANDLER).stdout
