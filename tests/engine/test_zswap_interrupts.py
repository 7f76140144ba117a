"""Signal handlers that raise, or use the engine, at any moment: nothing is lost, leaked or stuck.

Most of these run in a child process with a deadline: what goes wrong here hangs.  A whole soak runs many storms
instead of one, each with a seed of its own, which is in the test's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.child import run
from tests.support.soak import longer
from tests.support.storm import DEADLINE

if TYPE_CHECKING:
    from tests.conftest import Tally

pytestmark = pytest.mark.slow

STORMS = longer(1, 20)
INTERRUPTS = 3000

PREAMBLE = """
    import errno, faulthandler, gc, os, random, signal, threading
    import numpy as np
    import uzswap

    faulthandler.dump_traceback_later(200, exit=True)

    class Stop(KeyboardInterrupt):
        pass

    def stop(number, frame):
        raise Stop

    def after(seconds):
        signal.setitimer(signal.ITIMER_REAL, seconds)

    signal.signal(signal.SIGALRM, stop)
"""


@pytest.mark.parametrize("seed", range(1, STORMS + 1))
def test_interrupts_at_random_moments_of_store_and_page_loops(tally: Tally, seed: int) -> None:
    """Every value can be read, nothing hangs, an empty store is charged nothing, and the engine can be closed."""
    code = "from tests.support import storm; storm.main()"
    done = run(code, args=[str(seed), str(INTERRUPTS)], timeout=DEADLINE + 10).check()
    assert f"{INTERRUPTS} interrupts" in done.stdout
    tally("interrupts", INTERRUPTS)


@pytest.mark.parametrize("holds", ["entries", "arrays", "stores"])
def test_an_interrupted_close_can_be_called_again_and_finishes(holds: str) -> None:
    code = """
    seed, holds = 1, os.sys.argv[1]
    rng = random.Random(seed)
    files = len(os.listdir("/proc/self/fd"))
    data = rng.randbytes(1 << 20)
    hit = 0
    for i in range(60):
        z = uzswap.Zswap(swap_size="64M", max_pool="512K")
        g = z.cgroup("/a")
        z.swap_out_many(data, g)
        if holds == "arrays":
            try:
                x = uzswap.zeros(1 << 12, cgroup=g)
            except OSError:
                print("skipped")
                os._exit(0)
            x[:] = 1
            del x
        if holds == "stores":
            store = uzswap.Store(g)
            for key in range(100):
                store[key] = [key] * 100
            store.reclaim(1 << 16)
        try:
            after(rng.choice((2e-5, 1e-4, 4e-4, 2e-3)) * (0.5 + rng.random()))
            if holds == "stores":
                store.close()
            z.close()
            after(0)
        except Stop:
            hit += 1
        if holds == "stores":
            store.close()
        z.close()
        assert z.core.closed and z.swap.file.closed, (seed, i)
        z.close()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= files + 2, (seed, os.listdir("/proc/self/fd"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("uzswap")]
    print("interrupted" if hit else "never interrupted")
    """
    done = run(PREAMBLE + code, args=[holds]).check()
    if "skipped" in done.stdout:
        pytest.skip("userfaultfd is refused here: sudo sysctl vm.unprivileged_userfaultfd=1")
    assert done.stdout == "interrupted\n"


def test_close_can_be_interrupted_while_it_waits_for_a_call_of_another_thread() -> None:
    run(
        PREAMBLE
        + """
    z = uzswap.Zswap(swap_size="64M")
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with z.lifetime:
            inside.set()
            leave.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait()
    after(0.01)
    try:
        z.close()
        raise AssertionError("not interrupted")
    except Stop:
        pass
    assert not z.core.closed
    leave.set()
    z.close()
    assert z.core.closed and z.swap.file.closed
    thread.join()
    """
    ).check()


def test_a_handler_may_use_the_engine_and_the_store_that_it_interrupts() -> None:
    run(
        PREAMBLE
        + """
    z = uzswap.Zswap(swap_size="64M")
    g = z.cgroup("/a")
    g.write("memory.max", "256K")
    store = uzswap.Store(g)
    handle = z.swap_out(b"abc" * 1000, g)
    served = refused = 0

    def use(number, frame):
        global served, refused
        assert z.where(handle) == "zswap"
        key = served % 200
        try:
            assert store.get(key, [key] * 400) == [key] * 400
            store[key] = [key] * 400
        except RuntimeError as error:
            assert "needs itself" in str(error)
            refused += 1
        g.read("memory.stat")
        z.cgroup(f"/b/{served % 3}")
        try:
            g.reclaim("16K")
        except uzswap.ReclaimIncomplete:
            pass
        if served % 50 == 0:
            uzswap.Store(g).close()
        served += 1
        after(0.0005)

    signal.signal(signal.SIGALRM, use)
    after(0.0005)
    key = 0
    while served < 400:
        key = (key + 7) % 200
        store[key] = [key] * 400
        z.where(handle)
        for other in (key, key // 2):
            try:
                assert store.get(other, [other] * 400) == [other] * 400
            except RuntimeError as error:
                assert "needs itself" in str(error)
        uzswap.Store(g).close()
        g.read("memory.pressure")
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    assert not z.lifetime._inside
    z.flush_work()
    store.check()
    z.check()
    z.close()
    """
    ).check()


def test_a_handler_may_close_the_engine_that_its_thread_is_closing() -> None:
    run(
        PREAMBLE
        + """
    rng = random.Random(1)
    for i in range(60):
        z = uzswap.Zswap(swap_size="64M")
        z.swap_out_many(bytes(range(256)) * 256, z.cgroup("/a"))

        def close(number, frame):
            try:
                z.close()
            except OSError as error:
                assert error.errno == errno.EBUSY

        signal.signal(signal.SIGALRM, close)
        after(rng.random() * 1e-3 + 1e-5)
        z.close()
        after(0)
        assert z.core.closed and z.swap.file.closed
    """
    ).check()


def test_a_finalizer_may_close_a_store_while_another_is_made() -> None:
    """Garbage collection runs it in a thread that holds any lock."""
    run(
        PREAMBLE
        + """
    z = uzswap.Zswap(swap_size="64M")
    g = z.cgroup("/a")

    class Cache:
        def __init__(self):
            self.store = uzswap.Store(g)
            self.store["a"] = [1, 2, 3]
            self.me = self

        def __del__(self):
            self.store.close()

    gc.set_threshold(7)
    for i in range(3000):
        Cache()
        z.cgroup(f"/b/{i % 5}")
        g.read("memory.stat")
    gc.collect()
    assert g.members == () and int(g.read("memory.current")) == 0
    g.remove()
    z.check()
    z.close()
    """
    ).check()


LONG = """
    z = uzswap.Zswap(swap_size="64M", max_pool="512M")
    g = z.cgroup("/a")
    page = np.frombuffer(random.Random(1).randbytes(1000) * 4, np.uint8)
    data = np.tile(page, 16384)
    used = lambda: int(g.read("memory.swap.current"))
"""


def test_an_interrupt_ends_a_long_swap_out_and_leaves_nothing() -> None:
    run(
        PREAMBLE
        + LONG
        + """
    try:
        after(0.001)
        handles = z.swap_out_many(data, g, page=4000)
        raise AssertionError("not interrupted")
    except Stop:
        pass
    assert used() == 0, used()
    z.check()
    z.close()
    """
    ).check()


def test_an_interrupt_ends_a_long_load_and_consumes_nothing() -> None:
    run(
        PREAMBLE
        + LONG
        + """
    handles = z.swap_out_many(data, g, page=4000)
    before = used()
    try:
        after(0.001)
        z.fault_in_many(handles, page=4000)
        raise AssertionError("not interrupted")
    except Stop:
        pass
    assert used() == before
    assert (z.fault_in_many(handles, page=4000) == data).all()
    assert used() == 0
    z.check()
    z.close()
    """
    ).check()


def test_an_interrupt_ends_clearing_and_closing_a_large_store() -> None:
    run(
        PREAMBLE
        + """
    z = uzswap.Zswap(swap_size="64M")
    for end in ("clear", "close"):
        keys, left = 30_000, 0
        while not left:  # as large as it takes here to be still at it when the signal comes
            assert keys < 10**7, "only when all was done"
            with uzswap.Store(z.cgroup("/a")) as store:
                for key in range(keys):
                    store[key] = key
                try:
                    after(0.001)
                    getattr(store, end)()
                    after(0)
                except Stop:
                    left = len(store._slots.by_key)
                if end == "clear":
                    store.check()
            keys *= 2
    assert int(z.cgroup("/a").read("memory.current")) == 0
    z.close()
    """
    ).check()


def test_no_page_is_kept_when_resident_blocks_are_interrupted() -> None:
    run(
        PREAMBLE
        + """
    z = uzswap.Zswap(swap_size="64M")
    x = uzswap.zeros(1 << 16, cgroup=z.cgroup("/a"))
    x[:] = 1
    rng = random.Random(1)
    over = False

    def use():  # the lock is waited for
        while not over:
            with uzswap.resident(x[1 << 15:]):
                pass

    thread = threading.Thread(target=use)
    thread.start()
    hit = 0
    while hit < 1000:
        try:
            after(rng.choice((2e-5, 1e-4)) * (0.5 + rng.random()))
            while True:
                with uzswap.resident(x[: 1 << 12]), uzswap.resident(x[1 << 11 : 1 << 13]):
                    pass
        except Stop:
            hit += 1
    after(0)
    over = True
    thread.join()
    assert uzswap.advise(x, "pageout") == x.nbytes
    """
    ).check()


def test_no_thread_counts_as_stalled_when_stalls_are_interrupted() -> None:
    run(
        PREAMBLE
        + """
    z = uzswap.Zswap(swap=None)
    group = z.cgroup("/a/b")
    rng = random.Random(1)
    over = False

    def use():  # the lock is waited for
        while not over:
            with group.pressure.stall():
                pass

    thread = threading.Thread(target=use)
    thread.start()
    hit = 0
    while hit < 1000:
        try:
            after(rng.choice((2e-5, 1e-4)) * (0.5 + rng.random()))
            while True:
                with group.pressure.stall():
                    pass
        except Stop:
            hit += 1
    after(0)
    over = True
    thread.join()

    def totals():
        return [line.split("total=")[1] for line in group.read("memory.pressure").splitlines()]

    before = totals()
    assert totals() == before  # nobody is stalled
    with group.pressure.stall():
        while totals() == before:  # and who is counts
            pass
    """
    ).check()


def test_the_first_array_can_be_made_after_one_that_was_interrupted() -> None:
    """Between the memory, its thread, and the engine's knowing of both."""
    code = """
    from uzswap.arrays import arena

    def interrupted(step):
        def interrupts(*arguments, **more):
            made = step(*arguments, **more)
            os.kill(os.getpid(), signal.SIGALRM)
            return made
        return interrupts

    for name in ("start_thread", "_add"):
        with uzswap.Zswap() as z:
            step = getattr(arena, name)
            setattr(arena, name, interrupted(step))
            try:
                uzswap.zeros(1 << 20, cgroup=z.cgroup("/a"))
                raise SystemExit("nothing was interrupted")
            except Stop:
                pass
            setattr(arena, name, step)
            x = uzswap.zeros(1 << 20, cgroup=z.cgroup("/a"))
            x[:] = 1
            assert x.sum() == 1 << 20
            del x
            gc.collect()
    """
    run(PREAMBLE + code).check()
