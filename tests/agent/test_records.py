"""The ring of decisions: bounded, whole after a kill, and no reason to stop when it cannot be written."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import pytest
from tests.support.child import Child
from tests.support.small_disk import small_tmpfs, use_up

from uzswap.agent.explain import explain
from uzswap.agent.records import FILE, Record, Records, read_records, read_status


def record(when: float, cgroup: str = "/a", *, asked: int = 0, gate: str = "floor", **more: int) -> Record:
    return Record(when, when, 1, 7, cgroup, "twostage", 1, gate, {"floor": 4096.0}, asked, asked, **more)


def records(where: Path | None, said: list[str] | None = None, rows: int = 1000, nbytes: int = 1 << 20) -> Records:
    return Records(where, rows, nbytes, (said if said is not None else []).append)


def test_what_was_decided_is_read_by_another_process_s_connection(tmp_path: Path) -> None:
    ring = records(tmp_path)
    for i in range(10):
        ring.add(record(float(i), f"/{i % 2}", asked=4096 * i))
    ring.flush(0.0)
    found = read_records(tmp_path, "/1")
    assert [(one.time, one.asked) for one in found] == [(float(i), 4096 * i) for i in (1, 3, 5, 7, 9)]
    assert found[0].inputs == {"floor": 4096.0}
    assert len(read_records(tmp_path, since=5.0)) == 5
    assert len(read_records(tmp_path, last=3)) == 3
    ring.close()


def test_the_same_nothing_again_is_counted_not_added(tmp_path: Path) -> None:
    ring = records(tmp_path)
    for i in range(100):
        ring.add(record(float(i)))
        ring.flush(6.0 * i)
    ring.add(record(100.0, gate="small"))
    ring.close()
    first, second = read_records(tmp_path)
    assert (first.time, first.until, first.count) == (0.0, 99.0, 100)
    assert second.gate == "small"
    assert "100 times until" in explain(first)


def test_rows_are_bounded(tmp_path: Path) -> None:
    ring = records(tmp_path, rows=50)
    for i in range(500):
        ring.add(record(float(i), asked=1))
        ring.flush(6.0 * i)
    ring.close()
    assert [one.time for one in read_records(tmp_path)] == [float(i) for i in range(450, 500)]


def test_bytes_are_bounded_and_the_newest_stay(tmp_path: Path) -> None:
    said: list[str] = []
    ring = records(tmp_path, said, rows=10**9, nbytes=512 << 10)
    for i in range(20_000):
        ring.add(record(float(i), asked=1))
        if i % 100 == 99:
            ring.flush(6.0 * i)
    ring.close()
    assert (tmp_path / FILE).stat().st_size <= 512 << 10
    assert read_records(tmp_path)[-1].time == 19_999.0
    assert said == []


def test_a_full_disk_is_said_once_and_it_goes_on_in_memory() -> None:
    with small_tmpfs(256 << 10) as disk:
        said: list[str] = []
        filler = use_up(disk)
        ring = records(disk, said)
        for i in range(5):
            ring.add(record(float(i), asked=1))
            ring.flush(6.0 * i)
        assert len(said) == 1
        assert "in memory" in said[0]
        assert len(ring.recent()) == 5
        filler.unlink()
        ring.flush(600.0)
        assert len(said) == 2
        assert len(read_records(disk)) == 5
        ring.close()


def test_a_directory_that_cannot_be_made_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    ring = records(tmp_path / "file" / "below", said)
    ring.add(record(0.0, asked=1))
    ring.flush(0.0)
    assert len(said) == 1
    assert len(ring.recent()) == 1
    ring.close()


def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all" * 1000)
    said: list[str] = []
    ring = records(tmp_path, said)
    ring.add(record(1.0, asked=1))
    ring.flush(0.0)
    ring.flush(60.0)
    ring.close()
    assert [one.time for one in read_records(tmp_path)] == [1.0]
    assert (tmp_path / FILE).with_suffix(".damaged").exists()
    assert len(said) == 2


def test_a_kill_at_any_moment_leaves_it_whole(tmp_path: Path) -> None:
    code = f"""
        from pathlib import Path
        from uzswap.agent.records import Record, Records
        ring = Records(Path({str(tmp_path)!r}), 1000, 1 << 20, print)
        i = 0
        while True:
            ring.add(Record(float(i), float(i), 1, 7, "/a", "twostage", 1, "open", {{}}, 1, 1))
            ring.flush(6.0 * i)
            i += 1
            if i == 20:
                print("going", flush=True)
    """
    with Child(code) as child:
        assert child.read_line() == "going"
        os.kill(child.pid, signal.SIGKILL)
    found = read_records(tmp_path)
    assert [one.time for one in found] == [found[0].time + i for i in range(len(found))]
    with sqlite3.connect(tmp_path / FILE) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_status_shows_cgroups_until_they_are_gone(tmp_path: Path) -> None:
    ring = records(tmp_path)
    ring.show("/a", 1, 10.0, {"current": 5})
    ring.show("/b", 2, 10.0, {"current": 6})
    ring.flush(0.0)
    ring.forget("/a")
    ring.close()
    assert read_status(tmp_path) == [{"cgroup": "/b", "inode": 2, "time": 10.0, "current": 6}]


def test_where_no_agent_was_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no agent"):
        read_records(tmp_path)
