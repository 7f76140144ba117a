"""When an idle kernel gives its memory back: by a clock that the test turns."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

pytest.importorskip("IPython", reason="IPython is not installed: pip install 'uzswap[notebook]'")
from uzswap.notebook.idle import Idle, Stage


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Given:
    """Notes what is reclaimed."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.cancelled: list[bool] = []

    def __call__(self, stage: Stage, cancelled: Callable[[], bool]) -> None:
        self.stages.append(stage)
        self.meanwhile()
        self.cancelled.append(cancelled())


def make(after: float | None = 600) -> tuple[Idle, Clock, Given]:
    clock, given = Clock(), Given()
    return Idle(given, after, clock), clock, given


def test_two_stages_and_then_no_more() -> None:
    idle, clock, given = make()
    assert idle.step() == 600
    clock.now = 599
    assert idle.step() == 1
    assert given.stages == []
    clock.now = 600
    assert idle.step() == 600
    assert given.stages == [Stage.ZSWAP]
    clock.now = 1200
    assert idle.step() is None
    clock.now = 9999
    assert idle.step() is None
    assert given.stages == [Stage.ZSWAP, Stage.DISK]


def test_both_are_done_when_the_machine_has_slept() -> None:
    idle, clock, given = make()
    told: list[Stage] = []
    idle.told = told.append
    clock.now = 9999
    assert idle.step() is None
    assert given.stages == told == [Stage.ZSWAP, Stage.DISK]


def test_the_time_counts_from_the_end_of_a_cell_and_never_within_one() -> None:
    idle, clock, given = make()
    idle.cell_begins()
    clock.now = 5000
    assert idle.step() is None
    idle.cell_ends()
    assert idle.step() == 600
    clock.now = 5600
    assert idle.step() == 600
    idle.cell_begins()
    idle.cell_begins()  # of a subshell
    idle.cell_ends()
    clock.now = 9000
    assert idle.step() is None
    idle.cell_ends()
    assert idle.step() == 600
    clock.now = 9600
    idle.step()
    assert given.stages == [Stage.ZSWAP, Stage.ZSWAP]
    assert given.cancelled == [False, False]


def test_a_cell_that_begins_ends_what_is_under_way_and_it_is_done_again_later() -> None:
    idle, clock, given = make()
    told: list[Stage] = []
    idle.told = told.append
    given.meanwhile = idle.cell_begins
    clock.now = 600
    assert idle.step() is None
    assert given.cancelled == [True]
    assert told == []
    given.meanwhile = lambda: None
    idle.cell_ends()
    clock.now = 1200
    idle.step()
    assert given.stages == [Stage.ZSWAP, Stage.ZSWAP]
    assert told == [Stage.ZSWAP]


def test_what_goes_wrong_is_logged_and_the_next_stage_comes_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    idle, clock, given = make()

    def fails() -> None:
        raise OSError("the disk is gone")

    given.meanwhile = fails
    clock.now = 1200
    assert idle.step() is None
    assert given.stages == [Stage.ZSWAP, Stage.DISK]
    assert [record.getMessage() for record in caplog.records] == [
        "an idle kernel could not give its memory to zswap",
        "an idle kernel could not give its memory to disk",
    ]


def test_the_time_can_be_changed_and_turned_off() -> None:
    idle, clock, given = make()
    clock.now = 100
    idle.after = 50
    assert idle.step() is None
    assert given.stages == [Stage.ZSWAP, Stage.DISK]
    idle.cell_begins()
    idle.cell_ends()
    idle.after = None
    clock.now = 9999
    assert idle.step() is None
    assert len(given.stages) == 2


def test_the_thread_waits_for_the_time_and_for_news_and_ends() -> None:
    done = threading.Event()
    idle = Idle(lambda stage, cancelled: done.set(), after=None)
    idle.start()
    idle.after = 0.001
    assert done.wait(60)
    idle.close()
