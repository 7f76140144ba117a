"""The write budget: a rate, an amount a day, and a file that outlives the agent."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.small_disk import small_tmpfs, use_up

from uzswap.agent.budget import Budget

DAY = 86400.0


def budget(path: Path | None, *, rate: int = 100, day: int = 50_000, said: list[str] | None = None) -> Budget:
    return Budget(rate, day, path, (said if said is not None else []).append)


def test_it_begins_with_two_minutes_of_the_rate_and_fills_with_it() -> None:
    b = budget(None)
    assert b.available(1000.0) == 12_000
    b.take(12_000, 1000.0)
    assert b.available(1000.0) == 0
    assert b.available(1010.0) == 1000
    assert b.available(9999.0) == 12_000


def test_the_day_is_the_last_24_hours_not_the_calendar_s() -> None:
    b = budget(None, rate=10_000)
    b.take(30_000, 0.0)
    b.take(20_000, 3600.0)
    assert b.available(7200.0) == 0
    assert b.available(DAY + 1) == 30_000
    assert b.available(DAY + 3601) == 50_000


def test_what_was_not_written_is_given_back() -> None:
    b = budget(None)
    before = b.available(0.0)
    b.take(5000, 0.0)
    b.give_back(3000)
    assert b.available(0.0) == before - 2000
    assert b.spent == 2000


def test_a_restart_does_not_fill_it(tmp_path: Path) -> None:
    """What a request may write is taken, and kept, before it is made: a kill at any moment costs, and gives nothing."""
    path = tmp_path / "budget.json"
    first = budget(path, rate=10_000)
    first.available(0.0)
    first.take(49_000, 0.0)
    assert budget(path, rate=10_000).available(1.0) == 1000


def test_many_at_once_write_the_file_seldom_and_it_never_says_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    b = budget(path, rate=10_000, day=5_000_000)
    written = set()
    for i in range(500):
        b.take(2000, 100.0 + i / 1000)
        written.add(path.read_text())
        kept = budget(path, rate=10_000, day=5_000_000)
        assert kept.available(100.6) <= b.available(100.6)
        assert b.spent <= kept.spent <= b.spent + 75_000
        b.give_back(500)
    assert len(written) < 20
    b.keep()
    assert budget(path, rate=10_000, day=5_000_000).spent == b.spent == 750_000


def test_a_clock_that_is_set_back_is_harmless(tmp_path: Path) -> None:
    """Nothing is paid in for it, nothing is forgotten, and nothing is locked away until the old time comes again."""
    path = tmp_path / "budget.json"
    b = budget(path)
    b.take(12_000, 10 * DAY)
    for one in (b, budget(path)):
        assert one.available(5 * DAY) == 0
        assert one.available(5 * DAY + 10) == 1000
        assert one.available(6 * DAY + 20) == 12_000
        assert one.spent == 0


def test_a_damaged_file_begins_empty_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    for text in ("", "{", '{"at": 1}', '{"at": "x", "saved": 1, "spent": []}', "[1, 2]", '{"spent": 3}'):
        path.write_text(text)
        said: list[str] = []
        assert budget(path, said=said).available(0.0) == 0
        assert len(said) == 1


def test_a_full_disk_is_said_once_and_it_goes_on() -> None:
    with small_tmpfs(64 << 10) as disk:
        path = disk / "budget.json"
        said: list[str] = []
        b = budget(path, said=said)
        b.take(1000, 0.0)
        kept = path.read_text()
        filler = use_up(disk)
        b.take(1000, 1.0)
        b.take(1000, 2.0)
        assert b.spent == 3000
        assert len(said) == 1
        assert path.read_text() == kept
        filler.unlink()
        b.take(1000, 3.0)
        assert len(said) == 2
        assert json.loads(path.read_text())["spent"] == [[0.0, 4000]]
