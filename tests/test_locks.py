"""The order of locks: there is one, every lock of the package has its place in it, and taking one out of order is told.

Two threads that take two locks in opposite order hang only when they meet, which no test can wait for.  The checking
locks, which the whole suite runs with, tell of the order itself.
"""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

import uzswap
from tests.conftest import EngineFactory
from uzswap.core.boundary.ordered import LockOrderError, OrderedLock
from uzswap.locks import Order, make_condition, make_lock, make_rlock

SOURCES = Path(uzswap.__file__).parent
DOCS = Path(__file__).parent.parent / "docs" / "locking.md"

#: where a plain lock is made, and why that needs no place in the order
PLAIN = {
    "agent/lowered.py": "a leaf, of a process without an engine",
    "__init__.py": "the outermost of all: held while a module is imported, and by a fork before all else",
    "agent/reads.py": "a leaf, of a process without an engine",
    "agent/requests.py": "a leaf, of a process without an engine",
    "web/history.py": "a leaf: held for a copy",
    "web/source.py": "leaves: it is a client, and asks the engine with none of them held",
    "client/deadlines.py": "a leaf, of a process without an engine",
    "locks.py": "they have one there",
    "core/boundary/ordered.py": "the lock within one that checks",
    "condition.py": "who waits waits for it, with nothing else",
    "caches/keys.py": "a key's, the outermost of all: it is held while the mapping below is used",
    "caches/once.py": "an event: who waits for another's computation has no lock",
    "dask/memory.py": "a leaf: held while a number is added to",
    "dask/tiers.py": "a leaf: held neither across a call of the store nor while a value is dropped",
    "engine/lifetime.py": "an event: closing waits for it, under CLOSING alone",
    "store/loading.py": "an event: who waits for another's load has no lock",
}


def test_the_suite_runs_with_locks_that_check_the_order() -> None:
    assert isinstance(make_lock(Order.TREE), OrderedLock)


def test_a_lock_is_not_waited_for_under_one_that_comes_after_it_and_both_stacks_are_told() -> None:
    first, second = make_lock(Order.KEPT), make_lock(Order.TREE)

    def take_the_second() -> None:
        second.acquire()

    take_the_second()
    with pytest.raises(
        LockOrderError, match=r"KEPT.*TREE.*(\n.*)* in .*take_the_second\n(.*\n)*  KEPT is taken at\n.*test_locks"
    ):
        first.acquire()
    second.release()
    with first, second:
        pass


def test_two_locks_of_one_rank_have_no_order_and_are_not_taken_together() -> None:
    one, other = make_rlock(Order.TREE), make_rlock(Order.TREE)
    with one, one, pytest.raises(LockOrderError):  # the same lock again is fine: it is reentrant
        other.acquire()
    with other:
        pass


def test_a_lock_that_is_not_reentrant_is_not_taken_twice() -> None:
    lock = make_lock(Order.TREE)
    with lock, pytest.raises(LockOrderError, match="wait for itself"):
        lock.acquire()


def test_a_lock_may_be_tried_in_any_order() -> None:
    early, late = make_lock(Order.KEPT), make_lock(Order.TREE)
    with late:
        assert early.acquire(blocking=False)
        early.release()


def test_a_condition_gives_its_lock_up_while_it_waits() -> None:
    condition, early = make_condition(Order.TREE), make_lock(Order.KEPT)
    told = []

    def tell() -> None:
        with early, condition:
            told.append(True)
            condition.notify_all()

    with condition, condition:  # both are given up
        thread = threading.Thread(target=tell)
        thread.start()
        assert condition.wait_for(lambda: told, timeout=240)
        with pytest.raises(LockOrderError):  # and both are back
            early.acquire()
    thread.join()
    with early:
        pass


def test_a_condition_has_its_lock_again_although_a_handler_raises_meanwhile() -> None:
    class Interrupt(Exception):
        pass

    condition = make_condition(Order.TREE)
    main = threading.main_thread().ident
    assert main is not None
    ran = threading.Semaphore(0)

    def handler(number: int, frame: object) -> None:
        ran.release()
        raise Interrupt

    def interrupt() -> None:
        with condition:
            for _ in range(3):  # the first ends the wait; the others come while it waits for the lock
                signal.pthread_kill(main, signal.SIGUSR1)
                # One that comes just before the lock is waited for is not handled before that is over.
                while not ran.acquire(timeout=0.1):
                    signal.pthread_kill(main, signal.SIGUSR1)

    def wait() -> None:
        with condition:  # which is released
            thread.start()
            condition.wait()

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=interrupt)
    try:
        with pytest.raises(Interrupt):
            wait()
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    with make_lock(Order.KEPT), condition:
        condition.notify_all()


def test_every_lock_of_the_package_has_a_place_in_the_order() -> None:
    made = re.compile(r"threading\.(Lock|RLock|Condition|Semaphore)\(\)")
    elsewhere = [
        f"{path.relative_to(SOURCES)}:{number}"
        for path in SOURCES.rglob("*.py")
        if path.relative_to(SOURCES).as_posix() not in PLAIN
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if made.search(line)
    ]
    assert elsewhere == []


def test_the_document_lists_all_locks_in_their_order() -> None:
    listed = re.findall(r"^\| `([A-Z_]+)` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == [order.name for order in Order]


def test_stores_come_and_go_in_a_cgroup_whose_arrays_are_above_memory_high(engine: EngineFactory) -> None:
    """A store that came took the members' lock, then the tree's; what faults had met was told the other way round."""
    z = engine()
    g = z.cgroup("/a")
    g.write("memory.high", "256K")
    with uzswap.Store(g) as keep:
        x = uzswap.zeros(1 << 20, np.uint8, cgroup=g)
        x[:] = 1
        while not g.events["high"]:
            z.arena.count_faults(g)
        with uzswap.Store(g) as other:
            other["a"] = 1
        keep["b"] = 2
        z.flush_work()
        del x
