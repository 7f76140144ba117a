"""What the benchmarks share: the data, the contest that times candidates against a reference, the tables.

The candidates of a contest take turns within every round, so that whatever else the machine does in the meantime
hits all of them; a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from benchmarks.reference import PAGE, Bytes, aligned, first_touch_us
from uzswap.cli import corpus

console = Console(highlight=False)
if not console.is_terminal:
    console.width = 120  # in a file or a pipe no table has to be squeezed into 80 columns

#: Candidates written in Python are measured on this many pages at most: they are 10 to 1000 times slower a page.
SLOW_PAGES = 1024

#: A pool that is in use keeps an eighth of it as free, resident memory: with so many times the pages of a run stored
#: beside, a run gets its memory from there and gives it back there.
BALLAST = 8

#: Bytes of files that are read for more data: what is beyond them repeats them.
MOST_OF_FILES = 64 << 20

Run = Callable[[], float]


def _pages(source: Bytes, nbytes: int) -> Bytes:
    pages = aligned(nbytes)
    pages[:] = np.resize(source, nbytes)
    return pages


def _read(files: list[Path]) -> Bytes:
    return np.frombuffer(b"".join(path.read_bytes() for path in files), np.uint8)


def _files(files: Callable[[], Iterator[Path]]) -> Callable[[int], Bytes]:
    def make(nbytes: int) -> Bytes:
        source = _read(corpus.take(files(), min(nbytes, MOST_OF_FILES)))
        return _pages(source, nbytes) if source.size else source

    return make


def _half_random(nbytes: int) -> Bytes:
    half = aligned(nbytes)
    rows = half.reshape(-1, PAGE)
    random = np.random.default_rng(1)
    for begin in range(0, len(rows), SLOW_PAGES):
        part = rows[begin : begin + SLOW_PAGES, : PAGE // 2]
        part[:] = random.integers(0, 256, part.shape, dtype=np.uint8)
    return half


#: makers of pages to work on, by name; of what this machine cannot supply they make no bytes
KINDS: Final[dict[str, Callable[[int], Bytes]]] = {
    "text files": _files(corpus.text_files),
    "shared objects": _files(corpus.shared_objects),
    "float64 ramp": lambda nbytes: _pages(np.linspace(0.0, 1.0, nbytes // 8).view(np.uint8), nbytes),
    "int64 counter": lambda nbytes: _pages(np.arange(nbytes // 8, dtype=np.int64).view(np.uint8), nbytes),
    "half-random pages": _half_random,
}


def kinds(nbytes: int) -> Iterator[tuple[str, Bytes]]:
    """Pages to work on, `nbytes` of each kind; a kind that this machine cannot supply is left out."""
    for name, make in KINDS.items():
        pages = make(nbytes)
        if pages.size:
            yield name, pages


@contextmanager
def stopwatch(clock: Callable[[], float] = time.thread_time) -> Iterator[Callable[[], float]]:
    """Seconds between the two ends of the ``with`` block; valid after it.

    By default the CPU time of this thread, system calls and page faults included: where nothing waits, that is what the
    work costs, whatever else the machine is doing.  Work that waits for a device takes ``time.perf_counter``.
    """
    start = clock()
    end = start

    def elapsed() -> float:
        return end - start

    yield elapsed
    end = clock()


@dataclass
class Contest:
    """Candidates for the same work.  A run does the work once and returns its seconds for one unit of it."""

    reference: str
    runs: dict[str, Run] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, run: Run) -> None:
        self.runs[name] = run
        self.seconds[name] = []

    def hold(self, rounds: int) -> None:
        """One round to warm up, which does not count, then `rounds` that do.

        Each round has its own order, or one candidate would always come after what another leaves behind: its cold
        caches, its dirty files.
        """
        turns = random.Random(rounds)
        names = list(self.runs)
        for number in range(rounds + 1):
            turns.shuffle(names)
            for name in names:
                took = self.runs[name]()
                if number:
                    self.seconds[name].append(took)

    def us(self, name: str) -> float:
        """Microseconds for one unit: the median of the rounds."""
        return statistics.median(self.seconds[name]) * 1e6

    def speed(self, name: str, reference: str | None = None) -> float:
        """How fast `name` is compared to the reference; above 1 it is faster."""
        base = self.seconds[reference or self.reference]
        return statistics.median(r / s for r, s in zip(base, self.seconds[name], strict=True))


def verdict(value: float, target: float, *, at_most: bool = False) -> Text:
    """``met`` or ``missed`` beside the target."""
    met = value <= target if at_most else value >= target
    return Text(f"{'<=' if at_most else '>='} {target:g} {'met' if met else 'MISSED'}", "green" if met else "red")


def title(text: str) -> None:
    """A heading with what is needed to read the numbers."""
    console.print()
    console.rule(text, align="left")
    touch = statistics.median(first_touch_us() for _ in range(3))
    console.print(f"{_processor()}, Linux {platform.release()}, Python {platform.python_version()}", style="dim")
    console.print(
        f"first touch of a fresh 4 KiB page: {touch:.2f} us (part of every store that grows the pool)", style="dim"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def table(*columns: str) -> Table:
    """An empty table: the first two columns are names, the others numbers."""
    made = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        made.add_column(column, justify="left" if number < 2 else "right", no_wrap=True)
    return made


def pages_and_rounds(quick: bool, rounds: int | None) -> tuple[int, int]:
    """How many pages of each kind, and how many rounds."""
    return (2048, rounds or 3) if quick else (16384, rounds or 7)


def each_kind(nbytes: int) -> Iterator[tuple[str, Bytes]]:
    """:func:`kinds`, with a progress bar on a terminal."""
    made = list(kinds(nbytes))
    return iter(track(made, "measuring", console=console, transient=True, disable=not console.is_terminal))


def options(command: Callable[..., None]) -> click.Command:
    """Make a benchmark a command with the options that all of them have."""
    for option in (
        click.option("--rounds", type=click.IntRange(1), default=None, help="Counted rounds.  [default: 7, quick: 3]"),
        click.option("--quick", is_flag=True, help="Less data and fewer rounds: to see that it works."),
    ):
        command = option(command)
    return click.command(context_settings={"help_option_names": ["-h", "--help"]})(command)
