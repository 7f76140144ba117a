"""memory.pressure: the accounting against a model in ticks, the averages against floats, triggers (SPEC 7.5)."""

from __future__ import annotations

import errno
import itertools
import select
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uzswap.cgroup.pressure import FULL, SOME, Pressure, PressureMonitor
from uzswap.cgroup.psi import PERIOD
from uzswap.cgroup.trigger import has_cap_sys_resource

MS = 1_000_000
US = 1_000
SECOND = 1_000_000_000
EVENT = select.POLLPRI
GONE = select.POLLERR | select.POLLPRI


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 12 * SECOND

    def __call__(self) -> int:
        return self.now

    def advance(self, ns: int) -> None:
        self.now += ns


class Workload:
    """A monitor, a root group, and threads that do one call at a time."""

    def __init__(self, threads: int = 1) -> None:
        self.clock = Clock()
        self.monitor = PressureMonitor(self.clock, worker=False)
        self.root = Pressure(self.monitor)
        self.threads = [ThreadPoolExecutor(1) for _ in range(threads)]

    def begin(self, group: Pressure, thread: int = 0) -> None:
        self.threads[thread].submit(group.begin).result()

    def end(self, group: Pressure, thread: int = 0) -> None:
        self.threads[thread].submit(group.end).result()

    def record(self, group: Pressure, ns: int, thread: int = 0) -> None:
        self.threads[thread].submit(group.record, ns).result()

    def stall(self, ns: int, group: Pressure | None = None) -> None:
        group = group or self.root
        self.begin(group)
        self.clock.advance(ns)
        self.end(group)


@contextmanager
def workload(threads: int = 1) -> Iterator[Workload]:
    made = Workload(threads)
    try:
        yield made
    finally:
        made.monitor.close()
        for thread in made.threads:
            thread.shutdown()


@pytest.fixture
def one() -> Iterator[Workload]:
    with workload(1) as made:
        yield made


@pytest.fixture
def three() -> Iterator[Workload]:
    with workload(3) as made:
        yield made


def totals(group: Pressure) -> tuple[int, int]:
    group.read()
    return group.total(SOME), group.total(FULL)


def averages(group: Pressure) -> dict[str, list[float]]:
    lines = (line.split() for line in group.read().splitlines())
    return {state: [float(field.partition("=")[2]) for field in fields[:3]] for state, *fields in lines}


# Accounting

TICK = PERIOD // 20


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=25))
def test_stalls_agree_with_a_model_in_ticks(steps: list[tuple[int, int, int]]) -> None:
    """Each step: some ticks pass, then a thread begins a stall in a group, or ends the one it is in."""
    with workload(3) as work:
        groups = [work.root, Pressure(work.monitor, work.root)]
        groups.append(Pressure(work.monitor, groups[1]))
        stalled: dict[int, int] = {}
        left: list[dict[int, int]] = [{}, {}, {}]  # group -> thread -> tick when its last stall ended
        some, full, tick = [0, 0, 0], [0, 0, 0], 0
        for ticks, thread, target in steps:
            for _ in range(ticks):
                for g in range(3):
                    inside = {t for t, group in stalled.items() if group >= g}
                    busy = {t for t, end in left[g].items() if end + 20 > tick} - inside
                    some[g] += bool(inside)
                    full[g] += bool(inside) and not busy
                tick += 1
            work.clock.advance(ticks * TICK)
            if thread in stalled:
                group = stalled.pop(thread)
                work.end(groups[group], thread)
                for g in range(group + 1):
                    left[g][thread] = tick
            else:
                stalled[thread] = target
                work.begin(groups[target], thread)
            for g, group_ in enumerate(groups):
                assert totals(group_) == (some[g] * TICK, full[g] * TICK)
        for thread, group in stalled.items():
            work.end(groups[group], thread)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 2), st.integers(0, 40)), min_size=1, max_size=25))
def test_recorded_stalls_are_a_union(steps: list[tuple[int, int, int]]) -> None:
    with workload(3) as work:
        tick, model, ready = 0, set[int](), [0, 0, 0]
        for ticks, thread, length in steps:
            tick += ticks
            work.clock.advance(ticks * TICK)
            length = min(length, tick - ready[thread])  # a thread waits for one thing at a time
            ready[thread] = tick
            work.record(work.root, length * TICK, thread)
            model.update(range(tick - length, tick))
            some, full = totals(work.root)
            assert some == len(model) * TICK
            assert full <= some <= tick * TICK


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7 * PERIOD), st.integers(0, 7 * PERIOD)), min_size=1, max_size=12), st.data())
def test_averages_do_not_depend_on_who_looks_when(stalls: list[tuple[int, int]], data: st.DataObject) -> None:
    with workload(0) as looked_at, workload(0) as left_alone:
        for spans in stalls:
            for span, act in zip(spans, ("begin", "end"), strict=True):
                look = data.draw(st.integers(0, span))
                looked_at.clock.advance(look)
                looked_at.root.read()
                looked_at.clock.advance(span - look)
                left_alone.clock.advance(span)
                for work in (looked_at, left_alone):
                    getattr(work.root, act)()
        assert looked_at.root.read() == left_alone.root.read()


def test_one_thread_is_the_whole_workload(one: Workload) -> None:
    one.clock.advance(SECOND)
    one.stall(300 * MS)
    assert totals(one.root) == (300 * MS, 300 * MS)


def test_a_thread_that_goes_on_makes_it_some_not_full(three: Workload) -> None:
    three.stall(10 * MS)
    three.begin(three.root, thread=1)
    three.clock.advance(500 * MS)
    assert totals(three.root) == (510 * MS, 10 * MS)
    three.clock.advance(2 * SECOND)  # 2 s after its stall the other thread no longer counts
    assert totals(three.root) == (2510 * MS, 510 * MS)
    three.end(three.root, thread=1)


def test_stalls_count_in_every_ancestor_and_nowhere_else(three: Workload) -> None:
    a = Pressure(three.monitor, three.root)
    b = Pressure(three.monitor, three.root)
    three.stall(40 * MS, a)
    three.stall(20 * MS, b)
    assert [totals(group)[SOME] for group in (three.root, a, b)] == [60 * MS, 40 * MS, 20 * MS]


def test_a_nested_stall_is_the_outer_one(one: Workload) -> None:
    inner = Pressure(one.monitor, one.root)
    with one.root.stall():
        one.clock.advance(MS)
        with inner.stall():
            one.clock.advance(MS)
            inner.record(MS)
        one.clock.advance(MS)
    assert totals(one.root)[SOME] == 3 * MS
    assert totals(inner)[SOME] == 0


def test_an_exception_ends_the_stall(one: Workload) -> None:
    def fail() -> None:
        with one.root.stall():
            one.clock.advance(MS)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    one.clock.advance(MS)
    assert totals(one.root)[SOME] == MS


def test_end_without_begin(one: Workload) -> None:
    with pytest.raises(RuntimeError, match="without begin"):
        one.root.end()


def test_a_recorded_stall_longer_than_the_period_is_counted_over_several(one: Workload) -> None:
    one.clock.advance(20 * SECOND)
    one.root.read()
    one.root.record(6 * SECOND)
    one.clock.advance(6 * SECOND)
    assert averages(one.root)["some"][0] == pytest.approx(100 * (1 - (1677 / 2048) ** 3), abs=0.1)


def test_times_measured_elsewhere_are_of_one_group_and_a_union_with_its_stalls(three: Workload) -> None:
    child = Pressure(three.monitor, three.root)
    three.begin(child)
    three.clock.advance(10 * MS)
    child.add(4 * MS, 1 * MS)  # at any time within those 10 ms
    assert (child.total(SOME), child.total(FULL)) == (10 * MS, 10 * MS)
    three.end(child)
    three.clock.advance(10 * MS)
    child.add(6 * MS, 2 * MS)
    assert (child.total(SOME), child.total(FULL)) == (16 * MS, 12 * MS)
    three.root.add(3 * MS, 3 * MS)
    assert (three.root.total(SOME), three.root.total(FULL)) == (13 * MS, 13 * MS)
    assert child.total(SOME) == 16 * MS


def test_read_format(one: Workload) -> None:
    assert one.root.read() == (
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    )
    one.stall(2 * SECOND + 1_999)
    assert one.root.read() == (
        "some avg10=18.11 avg60=3.27 avg300=0.68 total=2000001\nfull avg10=18.11 avg60=3.27 avg300=0.68 total=2000001\n"
    )


# Triggers


@pytest.mark.parametrize("text", ["some 150000 1000000", "full 1 1\n", "some150000 1000000", "some 1 10000000 more"])
def test_H10_privileged_triggers(one: Workload, text: str) -> None:
    one.root.trigger(text, privileged=True)


@pytest.mark.parametrize("text", ["some 150000 2000000", "full 2000000 2000000", "some 1 10000000"])
def test_H10_unprivileged_triggers(one: Workload, text: str) -> None:
    one.root.trigger(text, privileged=False)


@pytest.mark.parametrize(
    "text",
    [
        "", "some", "some 1", "none 1 2", " some 1 2", "some -1 2", "some 1,2", "SOME 1 2", "some 0x1 0x2",
        "some 0 1000000", "some 2 1", "some 1 0", "some 1 10000001", "some 1 4294967297",
    ],
)  # fmt: skip
def test_bad_triggers(one: Workload, text: str) -> None:
    with pytest.raises(OSError, match=rf"\[Errno {errno.EINVAL}\]"):
        one.root.trigger(text, privileged=True)


@pytest.mark.parametrize("text", ["some 150000 1000000", "full 1 1999999"])
def test_H10_unprivileged_window(one: Workload, text: str) -> None:
    with pytest.raises(OSError, match=rf"\[Errno {errno.EINVAL}\].*CAP_SYS_RESOURCE"):
        one.root.trigger(text, privileged=False)


def run(work: Workload, ns: int, step: int = 10 * MS) -> None:
    for _ in range(ns // step):
        work.clock.advance(step)
        work.monitor.run_due()


@pytest.mark.parametrize(("threshold", "event"), [(150_000, EVENT), (151_000, 0)])
def test_a_trigger_fires_at_its_threshold(one: Workload, threshold: int, event: int) -> None:
    trigger = one.root.trigger(f"some {threshold} 1000000", privileged=True)
    one.begin(one.root)
    run(one, 150 * MS)
    one.end(one.root)
    run(one, 3 * SECOND)
    assert trigger.poll(0) == event
    assert trigger.poll(0) == 0


@pytest.mark.parametrize(("threshold", "event"), [(150_000, EVENT), (151_000, 0)])
def test_a_recorded_stall_fires_as_well(one: Workload, threshold: int, event: int) -> None:
    trigger = one.root.trigger(f"full {threshold} 1000000", privileged=True)
    run(one, 5 * SECOND)
    one.record(one.root, 150 * MS)
    run(one, SECOND)
    assert trigger.poll(0) == event


def test_stalls_of_before_the_trigger_do_not_count(one: Workload) -> None:
    one.stall(900 * MS)
    trigger = one.root.trigger("some 150000 1000000", privileged=True)
    one.stall(100 * MS)
    run(one, 3 * SECOND)
    assert trigger.poll(0) == 0


def test_stalls_spread_over_more_than_the_window_do_not_fire(one: Workload) -> None:
    trigger = one.root.trigger("some 150000 1000000", privileged=True)
    for _ in range(10):
        one.stall(100 * MS)
        run(one, 2900 * MS)
    assert trigger.poll(0) == 0


def test_events_come_at_most_once_per_window(one: Workload) -> None:
    trigger = one.root.trigger("some 100000 1000000", privileged=True)
    one.begin(one.root)
    fired = []
    for ms in range(0, 10_000, 10):
        run(one, 10 * MS)
        if trigger.poll(0) == EVENT:
            fired.append(ms)
    one.end(one.root)
    assert 9 <= len(fired) <= 10
    assert all(later - earlier >= 1000 for earlier, later in itertools.pairwise(fired))


def test_a_breach_within_the_window_of_an_event_is_told_after_it(one: Workload) -> None:
    trigger = one.root.trigger("some 100000 1000000", privileged=True)
    for _ in range(2):
        one.begin(one.root)
        run(one, 200 * MS)
        one.end(one.root)
    assert trigger.poll(0) == EVENT
    assert trigger.poll(0) == 0
    run(one, SECOND)
    assert trigger.poll(0) == EVENT
    run(one, 5 * SECOND)
    assert trigger.poll(0) == 0


def test_unprivileged_triggers_are_looked_at_every_two_seconds(one: Workload) -> None:
    trigger = one.root.trigger("some 500000 2000000", privileged=False)
    one.begin(one.root)
    run(one, 600 * MS)
    one.end(one.root)
    assert trigger.poll(0) == 0
    run(one, 1400 * MS)
    assert trigger.poll(0) == EVENT


def test_nothing_is_due_without_stalls(one: Workload) -> None:
    one.root.trigger("some 500000 2000000", privileged=False)
    one.root.trigger("some 100000 1000000", privileged=True)
    assert one.monitor.run_due() is None
    one.stall(10 * MS)
    assert one.monitor.run_due() is not None
    run(one, 5 * SECOND)
    assert one.monitor.run_due() is None


def test_a_trigger_sees_its_own_state_and_subtree(three: Workload) -> None:
    a, b = Pressure(three.monitor, three.root), Pressure(three.monitor, three.root)
    triggers = [group.trigger("full 100000 1000000", privileged=True) for group in (three.root, a, b)]
    three.record(a, 1, thread=1)  # a second thread that goes on
    three.begin(a)
    run(three, 500 * MS)
    three.end(a)
    run(three, SECOND)
    assert [trigger.poll(0) for trigger in triggers] == [0, 0, 0]
    three.record(b, 200 * MS)
    run(three, SECOND)
    assert [trigger.poll(0) for trigger in triggers] == [0, 0, EVENT]


def test_closing_a_trigger_or_its_group_is_pollerr(one: Workload) -> None:
    first, second = (one.root.trigger("some 1 1000000", privileged=True) for _ in range(2))
    first.close()
    first.close()
    assert first.poll() == GONE
    assert second.poll(0) == 0
    one.root.remove()
    assert second.poll() == GONE


def test_no_triggers_after_close(one: Workload) -> None:
    one.monitor.close()
    with pytest.raises(OSError, match=rf"\[Errno {errno.ENODEV}\]"):
        one.root.trigger("some 1 1000000", privileged=True)
    one.stall(MS)
    assert totals(one.root)[SOME] == MS


# The worker, on the real clock


def named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_poll_wakes_for_a_real_stall() -> None:
    monitor = PressureMonitor()
    group = Pressure(monitor)
    trigger = group.trigger("some 1000 100000", privileged=True)
    began, fired = threading.Event(), threading.Event()

    def stall() -> None:
        with group.stall():
            began.set()
            fired.wait()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(stall)
        began.wait()
        assert trigger.poll() == EVENT
        fired.set()
    monitor.close()
    assert not named("uzswap-psimon")


def test_close_wakes_who_polls() -> None:
    monitor = PressureMonitor()
    trigger = Pressure(monitor).trigger("some 1 1000000", privileged=True)
    with ThreadPoolExecutor(1) as pool:
        polled = pool.submit(trigger.poll)
        monitor.close()
        assert polled.result() == GONE


def test_there_is_no_worker_without_triggers() -> None:
    monitor = PressureMonitor()
    group = Pressure(monitor)
    with group.stall():
        pass
    group.read()
    assert not named("uzswap-psimon")
    trigger = group.trigger("some 1 1000000", privileged=True)
    (worker,) = named("uzswap-psimon")
    trigger.close()
    worker.join()
    again = group.trigger("some 1 1000000", privileged=True)
    assert len(named("uzswap-psimon")) == 1
    monitor.close()
    assert again.poll() == GONE


def test_stalls_of_many_threads_keep_the_invariants() -> None:
    monitor = PressureMonitor()
    root = Pressure(monitor)
    children = [Pressure(monitor, root) for _ in range(4)]
    start = monitor.clock()

    def work(seed: int) -> None:
        for i in range(300):
            group = children[(seed + i) % 4]
            with group.stall():
                if i % 3 == 0:
                    group.read()
            group.record(i * US)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    elapsed = monitor.clock() - start
    for group in (root, *children):
        some, full = totals(group)
        assert 0 <= full <= some <= elapsed + 1
        assert not group._open
    assert totals(root)[SOME] >= max(totals(child)[SOME] for child in children)
    monitor.close()


def test_the_privilege_is_the_processes() -> None:
    with open("/proc/self/status") as status:
        effective = next(line.split()[1] for line in status if line.startswith("CapEff"))
    assert has_cap_sys_resource() is bool(int(effective, 16) & 1 << 24)
