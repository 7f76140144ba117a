"""Polling of control files: events, triggers, removal."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.conftest import EngineFactory
from tests.support.front_end import FrontEnd

from uzswap import MemCgroup, Zswap

EVENT = select.POLLPRI
GONE = select.POLLERR | select.POLLPRI


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/job")


def fails(code: int, match: str = "") -> Any:
    return pytest.raises(OSError, match=rf"\[Errno {code}\].*{match}")


def in_thread(poll: Callable[[], int]) -> Callable[[], int]:
    """Start a poll; the function returned waits for its result."""
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(poll()))
    thread.start()

    def result() -> int:
        thread.join()
        return results[0]

    return result


@pytest.mark.parametrize(
    ("name", "event", "in_child"),
    [
        ("memory.events", "max", True),
        ("memory.events.local", "high", False),
        ("memory.swap.events", "swap.fail", True),
    ],
)
def test_events_wake_a_poll_until_they_are_read(g: MemCgroup, name: str, event: str, in_child: bool) -> None:
    source = g.cgroup("child") if in_child else g
    with g.open(name) as file:
        assert file.poll(0) == 0
        result = in_thread(file.poll)
        source.count_event(event, 2)
        assert result() == EVENT
        assert file.poll(0) == EVENT
        assert f"{event.removeprefix('swap.')} 2\n" in file.read()
        assert file.poll(0) == 0


def test_events_local_are_of_the_cgroup_alone(g: MemCgroup) -> None:
    with g.open("memory.events.local") as file:
        g.cgroup("child").count_event("max")
        assert file.poll(0) == 0
        assert "max 0\n" in file.read()
        assert "max 1\n" in g.read("memory.events")


def test_cgroup_events_wake_a_poll_when_populated_changes(g: MemCgroup) -> None:
    with g.open("cgroup.events") as file:
        result = in_thread(file.poll)
        first = FrontEnd(g.cgroup("child"))
        assert result() == EVENT
        assert file.read() == "populated 1\nfrozen 0\n"
        second = FrontEnd(g)
        first.close()
        assert file.poll(0) == 0
        second.close()
        assert file.poll(0) == EVENT
        assert file.read() == "populated 0\nfrozen 0\n"


@pytest.mark.parametrize("name", ["memory.events", "memory.events.local", "memory.swap.events", "cgroup.events"])
def test_removal_wakes_a_poll(g: MemCgroup, name: str) -> None:
    with g.open(name) as file:
        result = in_thread(file.poll)
        g.remove()
        assert result() == GONE
        assert file.poll() == GONE


def test_pressure_of_a_removed_cgroup(g: MemCgroup) -> None:
    with g.open("memory.pressure", privileged=True) as file:
        assert file.poll() == GONE  # nothing to wait for yet
        file.write("some 1000 1000000")
        result = in_thread(file.poll)
        g.remove()
        assert result() == GONE


def test_a_stall_wakes_a_poll(g: MemCgroup) -> None:
    with g.open("memory.pressure", privileged=True) as file:
        file.write("some 1000 1000000")
        result = in_thread(file.poll)
        with g.cgroup("child").pressure.stall():
            assert result() == EVENT
    some, full = (int(line.rpartition("=")[2]) for line in g.read("memory.pressure").splitlines())
    assert some == full >= 1000


def test_closing_a_file_ends_its_trigger(g: MemCgroup) -> None:
    with g.open("memory.pressure", privileged=True) as file:
        file.write("some 1000 1000000")
        trigger = g.pressure._triggers[0]
    assert trigger.poll() == GONE
    assert g.pressure._triggers == []
