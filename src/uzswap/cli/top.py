"""``uzswap top``: what the cgroups use and how fast that changes, live; with keys to sort and to reclaim."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from uzswap.cli.arguments import CGROUP, engine_option, json_option
from uzswap.cli.report import Output, describe, printable
from uzswap.cli.usage import Usage
from uzswap.client.places import open_cgroups
from uzswap.client.root import Cgroup
from uzswap.threads import start_thread
from uzswap.units import format_size

__all__ = ["top"]


@dataclass(frozen=True, slots=True)
class Row:
    """A cgroup now, and as it was at the last look."""

    cgroup: Cgroup
    now: Usage
    before: Usage | None


Number = int | float | None


@dataclass(frozen=True, slots=True)
class Column:
    """One column.  The key sorts by it; what is large comes first, names in their order."""

    key: str
    title: str
    #: in JSON
    name: str
    value: Callable[[Row], Number]
    show: Callable[[float], str]
    #: where not all have room: the larger, the sooner it goes
    goes: int


def _size(value: float) -> str:
    return format_size(round(value))


def _count(value: float) -> str:
    return f"{value:.0f}"


def _rate(value: float) -> str:
    return f"{format_size(round(value))}/s"


COLUMNS: Final = (
    Column("m", "resident", "resident", lambda row: row.now.resident, _size, 0),
    Column("z", "zswap", "zswap", lambda row: row.now.zswap, _size, 1),
    Column("d", "disk", "disk", lambda row: row.now.disk, _size, 2),
    Column("l", "max", "memory_max", lambda row: row.now.limit, _size, 5),
    Column("s", "share", "share_of_max", lambda row: row.now.share, "{:.0f}%".format, 4),
    Column("c", "ratio", "ratio", lambda row: row.now.ratio, "{:.2f}".format, 6),
    Column(
        "f",
        "refaults/s",
        "refaults_per_second",
        lambda row: row.now.refaults_per_second(row.before),
        "{:.0f}".format,
        6,
    ),
    Column("p", "pressure", "pressure_some_avg10", lambda row: row.now.pressure, "{:.2f}%".format, 3),
    Column("w", "writes", "written_bytes_per_second", lambda row: row.now.written_per_second(row.before), _rate, 8),
    Column("x", "rss", "rss", lambda row: row.now.rss, _size, 9),
)
_BY_NAME: Final = "n"
#: as wide as a table may want to be
_ANY: Final = 10_000
_KEYS: Final = "n m z d l s c f p w x: sort   up down: choose   r: reclaim   q: quit"
_UP: Final = frozenset({"\x1b[A", "\x1bOA", "k"})
_DOWN: Final = frozenset({"\x1b[B", "\x1bOB", "j"})


@click.command()
@click.argument("cgroup", type=CGROUP, default="/")
@click.option("--interval", type=click.FloatRange(min=0.01), default=1.0, show_default=True, help="Seconds.")
@click.option("-n", "--iterations", type=click.IntRange(min=1), help="Print so many tables, and end.")
@click.option("--once", is_flag=True, help="The same as --iterations 1: without rates, which take two looks.")
@click.option("--depth", type=click.IntRange(min=0), help="Levels below CGROUP.  [default: all]")
@click.option(
    "--sort", type=click.Choice([_BY_NAME, *(column.key for column in COLUMNS)]), default="m", help="As the keys."
)
@json_option
@engine_option
def top(
    cgroup: str,
    interval: float,
    iterations: int | None,
    once: bool,
    depth: int | None,
    sort: str,
    as_json: bool,
    engine: str | None,
) -> None:
    """Show what the cgroups below CGROUP use, live.

    \b
    n m z d l s c f p w x   sort by name, resident memory, zswap, disk, memory.max, share of it, ratio of
                            compression, refaults, pressure, writes to the device, RSS of the engine's
                            process; once more: the other way round
    up down, k j            choose a cgroup
    r                       reclaim from it: type what memory.reclaim takes, such as "10M source=zswap"
    q                       quit

    With several engines and no --engine, of all of them.  Columns that have no room are left out.

    Without a terminal, with --once, --iterations or --json, tables are printed, or one line of JSON each time.
    """
    with contextlib.ExitStack() as stack:
        several = open_cgroups(cgroup, engine)
        for one in several:
            stack.enter_context(one.root)
        looks = Looks(several, depth)
        if once or iterations or as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
            _print(looks, interval, 1 if once else iterations, sort, as_json=as_json)
        else:
            View(looks, interval, sort).run()


class Looks:
    """Reads all cgroups, again and again."""

    def __init__(self, cgroups: Sequence[Cgroup], depth: int | None) -> None:
        self._cgroups = cgroups
        self._depth = depth
        self._last: dict[str, Usage] = {}

    def look(self) -> list[Row]:
        """Return a row for each cgroup that there is now; raises OSError when there is none, as :class:`Usage`."""
        rows: list[Row] = []
        trouble: OSError | None = None
        for top in self._cgroups:
            try:
                for _, cgroup, usage in Usage.of_subtree(top, self._depth):
                    rows.append(Row(cgroup, usage, self._last.get(usage.cgroup)))
            except OSError as error:  # another engine may have the cgroup, or still be there
                trouble = error
        if trouble is not None and not rows:
            raise trouble
        self._last = {row.now.cgroup: row.now for row in rows}
        return rows


def _sorted(rows: list[Row], key: str, *, reverse: bool = False) -> list[Row]:
    rows = sorted(rows, key=lambda row: row.now.cgroup, reverse=reverse and key == _BY_NAME)
    for column in COLUMNS:
        if column.key == key:
            rows.sort(key=lambda row: column.value(row) or 0, reverse=not reverse)
    return rows


def _table(rows: list[Row], sort: str, console: Console, *, chosen: str | None = None, reverse: bool = False) -> Table:
    """Return a table of the columns that have room."""
    columns = list(COLUMNS)
    while True:
        table = _table_of(columns, rows, sort, chosen, reverse)
        if (
            len(columns) == 1
            or console.measure(table, options=console.options.update(width=_ANY)).maximum <= console.width
        ):
            return table
        columns.remove(max(columns, key=lambda column: column.goes))


def _table_of(columns: list[Column], rows: list[Row], sort: str, chosen: str | None, reverse: bool) -> Table:
    mark = "^" if reverse else "v"
    table = Table(box=None, pad_edge=False)
    table.add_column("cgroup" + (f" {mark}" if sort == _BY_NAME else ""), overflow="ellipsis", no_wrap=True)
    for column in columns:
        title = column.title + (f" {mark}" if sort == column.key else "")
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        values = (column.value(row) for column in columns)
        cells = ("-" if value is None else column.show(value) for column, value in zip(columns, values, strict=True))
        style = "reverse" if row.now.cgroup == chosen else ""
        table.add_row(Text(printable(row.now.cgroup)), *cells, style=style)
    return table


def _print(looks: Looks, interval: float, iterations: int | None, sort: str, *, as_json: bool) -> None:
    console = Output()
    count = 0
    while True:
        rows = _sorted(looks.look(), sort)
        if as_json:
            told = [{"cgroup": row.now.cgroup} | {one.name: one.value(row) for one in COLUMNS} for row in rows]
            click.echo(json.dumps({"time": time.time(), "cgroups": told}))
        else:
            console.print(_table(rows, sort, console))
            console.file.flush()
        count += 1
        if count == iterations:
            return
        threading.Event().wait(interval)


class View:
    """The live view on a terminal."""

    def __init__(self, looks: Looks, interval: float, sort: str) -> None:
        self._looks = looks
        self._interval = interval
        self._sort = sort
        self._reverse = False
        self._rows: list[Row] = []
        self._chosen: str | None = None
        self._message = ""
        #: what was typed behind "reclaim"; None when nobody is asked for it
        self._typed: str | None = None
        self._quit = False
        self._news_read, self._news_write = os.pipe()
        self._console = Output()

    def run(self) -> None:
        """Show it until q or Ctrl-C."""
        try:
            with (
                contextlib.suppress(KeyboardInterrupt),
                _keys_one_by_one(),
                Live(console=self._console, screen=True, auto_refresh=False) as live,
            ):
                while not self._quit:
                    self._rows = self._looks.look()
                    self._until(time.monotonic() + self._interval, live)
        finally:
            news, self._news_write = self._news_write, -1
            os.close(news)
            os.close(self._news_read)

    def _until(self, deadline: float, live: Live) -> None:
        """Act on keys until it is time for the next look, or a reclaim is over."""
        while not self._quit:
            live.update(self._screen(), refresh=True)
            left = deadline - time.monotonic()
            if left <= 0:
                return
            ready, _, _ = select.select([sys.stdin, self._news_read], [], [], left)
            if self._news_read in ready:
                os.read(self._news_read, 4096)
                return  # to look what it did
            if sys.stdin in ready:
                typed = os.read(sys.stdin.fileno(), 4096).decode(errors="replace")
                if not typed:  # the terminal is gone
                    self._quit = True
                for key in _split_keys(typed):
                    self._act(key)

    def _screen(self) -> Group:
        rows = _sorted(self._rows, self._sort, reverse=self._reverse)
        names = [row.now.cgroup for row in rows]
        if self._chosen not in names:
            self._chosen = names[0]
        # The heading, a line for messages, one for the keys.
        height = max(1, self._console.height - 3)
        first = max(0, names.index(self._chosen) - height + 1)
        shown = rows[first : first + height]
        table = _table(shown, self._sort, self._console, chosen=self._chosen, reverse=self._reverse)
        if self._typed is not None:
            last = Text.assemble((f"reclaim from {printable(self._chosen)}: ", "bold"), self._typed, ("_", "blink"))
        else:
            last = Text(printable(self._message))
        for line in (last, keys := Text(_KEYS, style="dim")):
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(table, last, keys)

    def _act(self, key: str) -> None:
        if self._typed is not None:
            self._type(key)
        elif key in ("q", "Q"):
            self._quit = True
        elif key in _UP or key in _DOWN:
            names = [row.now.cgroup for row in _sorted(self._rows, self._sort, reverse=self._reverse)]
            position = names.index(self._chosen) if self._chosen in names else 0
            self._chosen = names[max(0, min(len(names) - 1, position + (1 if key in _DOWN else -1)))]
        elif key == "r":
            self._typed = ""
        elif key == _BY_NAME or any(column.key == key for column in COLUMNS):
            self._reverse = not self._reverse if key == self._sort else False
            self._sort = key

    def _type(self, key: str) -> None:
        assert self._typed is not None
        if key in ("\r", "\n"):
            text, self._typed = self._typed, None
            chosen = next((row.cgroup for row in self._rows if row.now.cgroup == self._chosen), None)
            if text.strip() and chosen is not None:
                self._message = f"reclaiming {text} from {chosen.name}"
                try:
                    start_thread("uzswap-reclaim", self._reclaim, chosen.again(), text)
                except OSError as error:
                    self._message = describe(error)
        elif key == "\x1b":
            self._typed = None
        elif key in ("\x7f", "\b"):
            self._typed = self._typed[:-1]
        elif key == "\x15":
            self._typed = ""
        elif key.isprintable() and len(key) == 1:
            self._typed += key

    def _reclaim(self, cgroup: Cgroup, text: str) -> None:
        began = time.monotonic()
        try:
            with cgroup.root:
                cgroup.write("memory.reclaim", text.encode())
            told = f"done in {time.monotonic() - began:.2f} s"
        except OSError as error:
            told = describe(OSError(error.errno, error.strerror))  # which file is known
        self._message = f"reclaim {text} from {cgroup.name}: {told}"
        with contextlib.suppress(OSError):  # it was quit meanwhile
            os.write(self._news_write, b"\n")


def _split_keys(typed: str) -> Iterator[str]:
    """Take apart what arrived together: characters, and the escape sequences of arrows."""
    position = 0
    while position < len(typed):
        length = 3 if typed[position : position + 2] in ("\x1b[", "\x1bO") else 1
        yield typed[position : position + length]
        position += length


@contextlib.contextmanager
def _keys_one_by_one() -> Iterator[None]:
    """Have the terminal hand over keys as they are typed, without showing them."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
