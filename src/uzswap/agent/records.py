"""Every decision, in a bounded ring on disk: what every question of "why did it (not) act?" is answered from.

A SQLite file, written once a few seconds in one transaction, so that it costs little and a kill at any moment leaves it
whole.  A decision that is the same as the one before it of the same cgroup (nothing done, for the same reason) is not a
row of its own: it counts there.  Where the disk is full, or the file cannot be read, it goes on in memory, and says so
once.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["FILE", "Record", "Records", "read_records", "read_status"]

#: in the state directory
FILE: Final = "decisions.sqlite"
#: seconds of decisions that a kill loses
_FLUSH: Final = 5.0
#: seconds from one look of `uzswap agent status` at a cgroup to the next: it is a row for each
_SHOW: Final = 30.0
#: rows kept while the file cannot be written
_IN_MEMORY: Final = 1000
_PAGE: Final = 4096
_COLUMNS: Final = "time, until, count, inode, cgroup, policy, stage, gate, inputs, asked, done, errno, seconds"
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS decisions (id INTEGER PRIMARY KEY, {_COLUMNS});
CREATE INDEX IF NOT EXISTS by_cgroup ON decisions (cgroup, time);
CREATE TABLE IF NOT EXISTS status (cgroup PRIMARY KEY, inode, time, text);
"""


@dataclass(slots=True)
class Record:
    """A decision, and what came of it.  Times are seconds since the epoch."""

    time: float
    #: of the last of several that were the same
    until: float
    #: how many they were
    count: int
    inode: int
    cgroup: str
    policy: str
    stage: int
    gate: str
    inputs: dict[str, float]
    #: bytes; 0 when nothing was asked for
    asked: int = 0
    done: int = 0
    errno: int = 0
    seconds: float = 0.0

    def row(self) -> tuple[object, ...]:
        return (
            self.time, self.until, self.count, self.inode, self.cgroup, self.policy, self.stage, self.gate,
            json.dumps(self.inputs), self.asked, self.done, self.errno, self.seconds,
        )  # fmt: skip

    @classmethod
    def of_row(cls, row: tuple[object, ...]) -> Record:
        values = list(row)
        values[8] = json.loads(str(values[8]))
        return cls(*values)  # type: ignore[arg-type]


class Records:
    """The ring, for one thread.

    Parameters
    ----------
    directory
        Where the file is; None keeps the last decisions in memory only.
    rows, nbytes
        Bounds.
    say
        Told, once each, that it cannot be written, and that it can again.
    """

    def __init__(self, directory: Path | None, rows: int, nbytes: int, say: Callable[[str], object]) -> None:
        self._path = None if directory is None else directory / FILE
        self._rows = rows
        self._nbytes = nbytes
        self._say = say
        self._failing = False
        self._db: sqlite3.Connection | None = None
        self._flushed = float("-inf")
        #: not yet in the file
        self._waiting: deque[Record] = deque(maxlen=_IN_MEMORY)
        #: inode, time and what is shown; None is gone
        self._status: dict[str, tuple[int, float, dict[str, object]] | None] = {}
        self._shown = float("-inf")
        #: (cgroup, stage) -> the last one, while it can count another
        self._last: dict[tuple[str, int], tuple[Record, int | None]] = {}
        #: those of the last that are in the file and have counted since
        self._counted: dict[int, Record] = {}

    def add(self, record: Record) -> None:
        """Remember a decision."""
        key = (record.cgroup, record.stage)
        before = self._last.get(key)
        if before is not None and _is_same(before[0], record):
            last, number = before
            last.until, last.count, last.inputs = record.time, last.count + 1, record.inputs
            if number is not None:
                self._counted[number] = last
            return
        self._last[key] = (record, None)
        self._waiting.append(record)

    def show(self, cgroup: str, inode: int, when: float, inputs: dict[str, object]) -> None:
        """Have ``uzswap agent status`` know a cgroup as it is."""
        self._status[cgroup] = (inode, when, inputs)

    def forget(self, cgroup: str) -> None:
        """Have it not show a cgroup any more."""
        self._last = {key: value for key, value in self._last.items() if key[0] != cgroup}
        self._status[cgroup] = None
        self._shown = float("-inf")

    def recent(self) -> list[Record]:
        """Return what is not in the file."""
        return list(self._waiting)

    def flush(self, now: float, *, force: bool = False) -> None:
        """Write what has gathered; ``now`` is of any clock that is never set."""
        if self._path is None or (now - self._flushed < _FLUSH and not force):
            return
        self._flushed = now
        show = force or now - self._shown >= _SHOW
        try:
            self._write(show=show)
        except (sqlite3.Error, OSError) as error:
            self._close()
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
                # No database, or a damaged one: nothing can be had from it.
                with contextlib.suppress(OSError):
                    os.replace(self._path, self._path.with_suffix(".damaged"))
            if not self._failing:
                self._say(f"decisions cannot be written to {self._path} ({error}): the last {_IN_MEMORY} are in memory")
            self._failing = True
        else:
            if self._failing:
                self._say(f"decisions are written to {self._path} again")
            self._failing = False
            if show:
                self._shown = now

    def close(self) -> None:
        """Write the rest."""
        self.flush(0.0, force=True)
        self._close()

    def _close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        assert self._path is not None
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        db = sqlite3.connect(self._path, timeout=1.0, isolation_level=None)
        try:
            db.execute(f"PRAGMA page_size = {_PAGE}")
            db.execute("PRAGMA journal_mode = WAL")  # so that readers are not in the way
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA max_page_count = {max(64, self._nbytes // _PAGE)}")
            db.execute("PRAGMA cache_size = -512")
            db.executescript(_SCHEMA)
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _write(self, *, show: bool) -> None:
        if self._db is None:
            self._db = self._open()
        db = self._db
        places = ", ".join("?" * 14)
        db.execute("BEGIN IMMEDIATE")
        try:
            (last,) = db.execute("SELECT IFNULL(MAX(id), 0) FROM decisions").fetchone()
            numbered = list(enumerate(self._waiting, last + 1))
            db.executemany(
                f"INSERT INTO decisions (id, {_COLUMNS}) VALUES ({places})",
                ((number, *record.row()) for number, record in numbered),
            )
            db.executemany(
                "UPDATE decisions SET until = ?, count = ?, inputs = ? WHERE id = ?",
                (
                    (record.until, record.count, json.dumps(record.inputs), number)
                    for number, record in self._counted.items()
                ),
            )
            if show:
                self._write_status(db)
            db.execute("DELETE FROM decisions WHERE id <= ?", (last + len(numbered) - self._rows,))
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            if self._make_room(db):
                return
            raise
        self._waiting.clear()
        self._counted.clear()
        if show:
            self._status.clear()
        for number, record in numbered:
            key = (record.cgroup, record.stage)
            if key in self._last and self._last[key][0] is record:
                self._last[key] = (record, number)

    def _write_status(self, db: sqlite3.Connection) -> None:
        shown = [(cgroup, *row) for cgroup, row in self._status.items() if row is not None]
        db.executemany(
            "INSERT OR REPLACE INTO status VALUES (?, ?, ?, ?)",
            ((cgroup, inode, when, json.dumps(inputs)) for cgroup, inode, when, inputs in shown),
        )
        gone = [(cgroup,) for cgroup, row in self._status.items() if row is None]
        db.executemany("DELETE FROM status WHERE cgroup = ?", gone)

    def _make_room(self, db: sqlite3.Connection) -> bool:
        """Drop the older half if it is the bound in bytes that was met; whether it was.  The rest is for next time."""
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        free = db.execute("PRAGMA freelist_count").fetchone()[0]
        if (pages - free) * _PAGE < self._nbytes * 3 // 4:
            return False
        db.execute("DELETE FROM decisions WHERE id <= (SELECT (MIN(id) + MAX(id)) / 2 FROM decisions)")
        return True


def _is_same(before: Record, record: Record) -> bool:
    return (
        before.inode == record.inode
        and before.gate == record.gate
        and before.policy == record.policy
        and not (before.asked or record.asked or before.errno or record.errno)
    )


@contextlib.contextmanager
def _reading(directory: Path) -> Iterator[sqlite3.Connection]:
    path = directory / FILE
    if not path.exists():
        raise FileNotFoundError(2, "no agent has kept decisions here: give --state, or start one", str(path))
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
    try:
        yield db
    except sqlite3.Error as error:
        raise OSError(5, f"the decisions cannot be read: {error}", str(path)) from error
    finally:
        db.close()


def read_records(directory: Path, cgroup: str | None = None, since: float = 0.0, last: int = 1000) -> list[Record]:
    """Return decisions of a cgroup, or of all, oldest first; from any process.

    Raises
    ------
    OSError
        ENOENT there are none; EIO they cannot be read.
    """
    where = "until >= ?" + (" AND cgroup = ?" if cgroup is not None else "")
    given: tuple[object, ...] = (since, cgroup, last) if cgroup is not None else (since, last)
    with _reading(directory) as db:
        rows = db.execute(f"SELECT {_COLUMNS} FROM decisions WHERE {where} ORDER BY id DESC LIMIT ?", given).fetchall()
    return [Record.of_row(row) for row in reversed(rows)]


def read_status(directory: Path) -> list[dict[str, object]]:
    """Return what is known of each cgroup that is looked after; from any process.

    Raises
    ------
    OSError
        As :func:`read_records`.
    """
    with _reading(directory) as db:
        rows = db.execute("SELECT cgroup, inode, time, text FROM status ORDER BY cgroup").fetchall()
    return [{"cgroup": cgroup, "inode": inode, "time": when} | json.loads(text) for cgroup, inode, when, text in rows]
