"""SPEC 8 group E: proactive writeback of one cgroup, on walk="v5"."""

import errno
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.conftest import EngineFactory
from tests.support.cases import E_AMOUNTS
from tests.support.pages import filled_page, page_of_length, random_page, zero_page
from tests.support.states import OK, debug_delta, fill, left, places, reclaim, stat, stat_delta

from uzswap import MemCgroup, ReclaimIncomplete, ReclaimInterrupted, TraceEvent, Zswap
from uzswap.core.boundary.engine import MAX_ENTRY

EAGAIN, EINTR, EINVAL = errno.EAGAIN, errno.EINTR, errno.EINVAL


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine(walk="v5")


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


@pytest.mark.parametrize(("state", "budget", "outcome", "entries_left"), E_AMOUNTS)
def test_E_amounts(
    z: Zswap,
    g: MemCgroup,
    state: tuple[bool, int, int] | None,
    budget: int | str,
    outcome: tuple[int, int],
    entries_left: int,
) -> None:
    if state is not None:
        referenced, n, length = state
        fill(z, g, n, length, referenced)
    with stat_delta(g) as delta, debug_delta(z) as debug:
        assert reclaim(g, budget) == outcome
    assert left(z, g) == entries_left
    assert delta["zswpwb"] == delta["pswpout"] == debug["written_back_pages"]
    assert delta["zswap"] == -outcome[1]


def test_E12_one_more_fresh_entry_starves_the_first_call(z: Zswap, g: MemCgroup) -> None:
    """SPEC 6.5: sixteen batches that only clear bits end it; the second call succeeds."""
    fill(z, g, 1024, 2000)
    assert reclaim(g, "1M") == (EAGAIN, 0)
    assert reclaim(g, "1M") == (OK, 9 * 128_000)


def test_E_observed_on_a_7_1_5_kernel(z: Zswap, g: MemCgroup) -> None:
    """SPEC 10.1: 2048 fresh entries, about 8 MiB raw, and the same request again and again."""
    fill(z, g, 2048, 2082)
    outcomes = [reclaim(g, "1M") for _ in range(7)]
    assert outcomes == [(EAGAIN, 0)] * 2 + [(OK, 8 * 64 * 2082)] * 4 + [(EAGAIN, 0)]


def test_E18_each_write_fails(engine: EngineFactory) -> None:
    z = engine(walk="v5", swap_size="4M")
    ballast, g = z.cgroup("/ballast"), z.cgroup("/g")
    ballast.write("memory.zswap.max", "0")
    while ballast.zswap.swap_out_many(random_page(size=MAX_ENTRY), ballast, page=MAX_ENTRY).all():
        pass
    fill(z, g, 5, 4096, referenced=False)
    with debug_delta(z) as debug:
        assert reclaim(g, 100) == (EAGAIN, 0)
    assert debug["reject_reclaim_fail"] == 80
    assert left(z, g) == 5


def test_E18_the_result_tells_why(engine: EngineFactory) -> None:
    z = engine(walk="v5", swap_size="4M")
    ballast, g = z.cgroup("/ballast"), z.cgroup("/g")
    ballast.write("memory.zswap.max", "0")
    while ballast.zswap.swap_out_many(random_page(size=MAX_ENTRY), ballast, page=MAX_ENTRY).all():
        pass
    fill(z, g, 5, 4096, referenced=False)
    with pytest.raises(ReclaimIncomplete) as incomplete:
        g.reclaim(100, source="zswap")
    result = incomplete.value.result
    assert (result.asked, result.written, result.scanned, result.rotated) == (100, 0, 80, 0)
    assert result.failed == {"ENOSPC": 80}


def test_E19_an_entry_that_is_being_loaded_stops_its_batch(z: Zswap, g: MemCgroup) -> None:
    held = int(fill(z, g, 1, 1000, referenced=False)[0])
    fill(z, g, 5, 1000, referenced=False, seed=1)
    assert z.core.hold(held) == 0
    with debug_delta(z) as debug:
        assert reclaim(g, 100) == (OK, 5000)
    assert debug["reject_reclaim_fail"] == 2
    assert left(z, g) == 1
    z.core.release(held)
    assert z.fault_in(held) == page_of_length(1000)


@contextmanager
def handler(number: int) -> Iterator[list[int]]:
    """Collects the signals that arrive."""
    came: list[int] = []
    before = signal.signal(number, lambda number, frame: came.append(number))
    yield came
    signal.signal(number, before)


def test_E20_signal_before_the_first_batch(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 10, 1000)

    def arrive() -> bool:
        os.kill(os.getpid(), signal.SIGUSR1)
        return False

    with handler(signal.SIGUSR1) as came, debug_delta(z) as debug, pytest.raises(ReclaimInterrupted) as interrupted:
        g.reclaim("1M", source="zswap", cancel=arrive)
    assert interrupted.value.errno == EINTR
    assert (interrupted.value.result.written, interrupted.value.result.scanned) == (0, 0)
    assert came == [signal.SIGUSR1]
    assert not any(debug.values())


def test_E21_signal_after_two_batches(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 1000, 2000, referenced=False)
    batches: list[TraceEvent] = []

    def trace(event: TraceEvent) -> None:
        batches.append(event)
        if len(batches) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert came == []  # put off until the request is over

    with handler(signal.SIGUSR1) as came:
        z.trace = trace
        assert reclaim(g, "1G") == (EINTR, 256_000)
        z.trace = None
        assert came == [signal.SIGUSR1]
    assert [(event.cgroup, event.node, event.scanned, event.entries) for event in batches] == [("/g", 0, 64, 64)] * 2
    assert left(z, g) == 1000 - 128
    assert reclaim(g, 1) == (OK, 128_000)


def test_E21_ctrl_c_raises_when_everything_is_safe(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 1000, 2000, referenced=False)
    z.trace = lambda event: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as ctrl_c:
        g.reclaim("1G", source="zswap")
    z.trace = None
    interrupted = ctrl_c.value.__context__
    assert isinstance(interrupted, ReclaimInterrupted)
    assert interrupted.result.written == stat(g, "zswpwb_proactive_b") == 128_000
    z.check()


def test_E21_signal_to_a_thread_interrupts_that_thread(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 1000, 2000, referenced=False)
    outcomes = []

    def trace(event: TraceEvent) -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    with handler(signal.SIGUSR1) as came:
        z.trace = trace
        thread = threading.Thread(target=lambda: outcomes.append(reclaim(g, "1G")))
        thread.start()
        thread.join()
        z.trace = None
    assert outcomes == [(EINTR, 128_000)]
    assert came == [signal.SIGUSR1]


@pytest.mark.parametrize("number", [signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH])
def test_E21_signals_that_are_ignored_do_not_interrupt(z: Zswap, g: MemCgroup, number: int) -> None:
    fill(z, g, 200, 2000, referenced=False)
    outcomes = []
    z.trace = lambda event: signal.pthread_kill(threading.get_ident(), number)
    thread = threading.Thread(target=lambda: outcomes.append(reclaim(g, 200 * 2000)))
    thread.start()
    thread.join()
    outcomes.append(reclaim(g, 0))
    z.trace = None
    assert outcomes == [(OK, 400_000), (OK, 0)]


def test_E21_cancel(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 1000, 2000, referenced=False)
    asked: list[None] = []

    def cancel() -> bool:
        asked.append(None)
        return len(asked) > 3  # the end of a pass is a step too

    with pytest.raises(ReclaimInterrupted) as interrupted:
        g.reclaim("1G", source="zswap", cancel=cancel)
    assert interrupted.value.result.written == 256_000


def test_E22_writeback_off(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 3, 300)
    g.write("memory.zswap.writeback", "0")
    assert reclaim(g, 1) == (EINVAL, 0)
    assert reclaim(g, 0) == (EINVAL, 0)  # A4
    assert all(info.referenced for handle in handles if (info := z.core.info(int(handle))))


def test_E23_disabled_zswap_lifts_the_ban(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 1, 300, referenced=False)
    g.write("memory.zswap.writeback", "0")
    z.parameters.set("enabled", "N")
    assert reclaim(g, 1) == (OK, 300)


def test_E26_same_filled_entry(z: Zswap, g: MemCgroup) -> None:
    z.parameters.set("same_filled_pages_enabled", "N")
    handle = z.swap_out(filled_page(7), g)
    length = stat(g, "zswap")
    assert reclaim(g, 1) == (OK, length)
    assert z.fault_in(handle) == filled_page(7)


def test_E26_same_filled_value_by_default(z: Zswap, g: MemCgroup) -> None:
    with stat_delta(g) as delta:
        handle = z.swap_out(filled_page(7), g)
    assert (z.where(handle), delta["zswap"]) == ("zero", 0)
    assert reclaim(g, 1) == (EAGAIN, 0)
    assert z.fault_in(handle) == filled_page(7)


def test_E27_zero_pages_only(z: Zswap, g: MemCgroup) -> None:
    z.swap_out_many(zero_page() * 4, g)
    assert reclaim(g, 1) == (EAGAIN, 0)


def test_E28_protection_is_ignored(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 10, 100, referenced=False)
    g.write("memory.min", "1M")
    assert reclaim(g, 1) == (OK, 1000)


def test_E29_what_a_success_changes(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 10, 2000, referenced=False)
    swap = g.read("memory.swap.current")
    with stat_delta(g) as delta:
        assert reclaim(g, 1) == (OK, 20_000)
    assert g.read("memory.swap.current") == swap == f"{10 * 4096}\n"
    assert (delta["zswap"], delta["zswapped"], delta["pswpout"]) == (-20_000, -10 * 4096, 10)
    assert int(g.read("memory.current")) == 0  # SPEC 10.1: there is no swap cache
    assert places(z, handles) == ["disk"] * 10


def test_min_age(z: Zswap, g: MemCgroup) -> None:
    old = fill(z, g, 10, 1000)
    z.core.advance(60 * 10**9)
    young = fill(z, g, 10, 1000, seed=10)
    assert reclaim(g, "1M", "source=zswap min_age=120") == (EAGAIN, 0)
    assert reclaim(g, "1M", "source=zswap min_age=60") == (EAGAIN, 10_000)
    assert places(z, old) == ["disk"] * 10
    assert places(z, young) == ["zswap"] * 10


def test_A_write_and_call_agree(z: Zswap, g: MemCgroup) -> None:
    fill(z, g, 100, 2000, referenced=False)
    assert g.write("memory.reclaim", "1 source=zswap") == len("1 source=zswap")
    result = g.reclaim(1, source="zswap")
    assert (result.written, result.entries, result.scanned, result.failed) == (36 * 2000, 36, 36, {})


def test_without_a_device_nothing_is_a_candidate(engine: EngineFactory) -> None:
    z = engine(walk="v5", swap=None)
    g = z.cgroup("/g")
    handles = fill(z, g, 3, 300)
    assert reclaim(g, 1) == (EAGAIN, 0)
    assert reclaim(g, 0) == (OK, 0)
    assert all(info.referenced for handle in handles if (info := z.core.info(int(handle))))
    g.write("memory.zswap.writeback", "0")
    assert reclaim(g, 1) == (EINVAL, 0)
