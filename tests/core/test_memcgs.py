"""Memcgs that come and go while others count: in a child process, since what was wrong never ended."""

import pytest
from tests.support.child import run

from uzswap.core.boundary import engine as core


def test_counting_beside_removals_in_reverse_order_ends() -> None:
    """A memcg that was removed between a call's first look and the lock: its number leads nowhere.

    check() of many entries holds the lock for long, so that everybody else waits there in turn.
    """
    code = """
        import threading
        import numpy as np
        from uzswap.core.boundary import engine as core
        engine = core.Engine()
        engine.store(bytes(100_000), 1, 0, 0, np.zeros(100_000, np.uint64))
        resident = core.COUNTERS.index("resident")
        online = []
        done = threading.Event()

        def count(which):
            while not done.is_set():
                for memcg in online[which:]:
                    try:
                        engine.count(memcg, resident, 4096)
                        engine.count(memcg, resident, -4096)
                    except ValueError:
                        pass

        def check():
            while not done.is_set():
                engine.check()

        threads = [threading.Thread(target=count, args=[which]) for which in range(-3, 0)]
        threads.append(threading.Thread(target=check))
        for thread in threads:
            thread.start()
        for _ in range(100):
            online[:] = [engine.memcg_new(0) for _ in range(10)]
            for memcg in reversed(list(online)):
                engine.memcg_remove(memcg)
        done.set()
        for thread in threads:
            thread.join()
        wrong = [line for line in engine.check() if "resident" not in line]
        assert wrong == [], wrong
        engine.close()
        """
    run(code).check()


def test_nothing_can_be_made_below_or_counted_for_what_was_removed() -> None:
    engine = core.Engine()
    parent = engine.memcg_new(0)
    child = engine.memcg_new(parent)
    engine.memcg_remove(child)
    for call in (
        lambda: engine.memcg_new(child),
        lambda: engine.count(child, 0, 1),
        lambda: engine.uncharge(child, 1),
        lambda: engine.charge(child, 1),
    ):
        with pytest.raises(ValueError, match="not online"):
            call()
    assert engine.check() == []
    engine.close()


def test_numbers_are_used_again_in_the_order_in_which_they_became_free() -> None:
    engine = core.Engine()
    made = [engine.memcg_new(0) for _ in range(1500)]
    for memcg in reversed(made):
        engine.memcg_remove(memcg)
    again = [engine.memcg_new(0) for _ in range(400)]
    assert again == made[::-1][:400]
    assert engine.check() == []
    engine.close()
