"""Arrays four times larger than their budget: uzswap beside the resident array, and beside what users would pick.

Targets, on numbers: sequential read at most 10 times the resident array's time (stretch: 5), sequential write 12,
random 4 KiB 11 (8 with faults served by signal), skewed 4 KiB 2, sort 2, rows of 4 KiB taken by index 3.  Nothing is
pinned.  All candidates hold the same bytes and take turns, and what the machine's page faults cost is measured in the
same run.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

import click
import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from benchmarks import faults
from benchmarks.array_candidates import (
    BLOSC2,
    BY_SIGNAL,
    MAPPED,
    PAGED,
    RESIDENT,
    ZICT,
    Candidate,
    Paged,
    Task,
    all_of,
)
from benchmarks.bench_fork import measure_forks
from benchmarks.common import KINDS, Contest, console, stopwatch, table, title, verdict
from benchmarks.reference import CHUNK, PAGE, aligned

MIB = 1 << 20

#: kind of data -> what the numbers are
DTYPES: Final[dict[str, type[np.generic]]] = {
    "half-random pages": np.uint8,
    "float64 ramp": np.float64,
    "int64 counter": np.int64,
    "text files": np.uint8,
}
OTHERS: Final = (BY_SIGNAL, MAPPED, BLOSC2, ZICT)

#: operation -> most that it may cost on numbers, times the resident array
TARGETS: Final[dict[str, float | None]] = {
    "sequential read": 10,
    "sequential write": 12,
    "random 4 KiB": 11,
    "skewed 4 KiB": 2,
    "take rows": 3,
    "put rows": None,
    "sort": 2,
    "np.exp": None,
}
#: the same of uzswap with faults served by signal, where it differs
BY_SIGNAL_TARGETS: Final = {"random 4 KiB": 8.0}
#: operations that only arrays with such a call have
BY_INDEX: Final = ("take rows", "put rows")
STRETCH: Final = {"sequential read": 5.0}

#: Of the skewed accesses 90 % go to 20 % of the pages, which are scattered over the array.
HOT_ACCESSES, HOT_PAGES = 0.9, 0.2
#: Random accesses of a run, and how many times as many before the first that counts: these touch nine tenths of the
#: hot pages, and fill every budget.
ACCESSES, WARM_UP = 8192, 4
#: The resident array waits for nothing; when it takes more than so many times its CPU time, others had the CPU.
MOST_CROWD: Final = 1.1

NOTES: Final = """\
us/page: the resident array.  The others: times as long, the median of the runs' ratios.
fastest: the fastest run by the fastest of the resident array.
waits: how often a thread waited for a page, by pages worked on.  With a budget of a quarter of the array an ideal LRU
waits in 0.75 of the random accesses, and in 0.094 of the skewed ones."""


def _accesses(number: int) -> int:
    return ACCESSES if number else WARM_UP * ACCESSES


@dataclass
class Work:
    """The operations on one kind of data.  Every round is new to all candidates, and the same for all of them."""

    task: Task
    #: wall time of each run of the resident array, by the CPU time that it took: above 1 it had to wait for a CPU
    crowd: list[float]
    #: what counts is CPU time, of all threads
    cpu: bool = False
    #: candidate -> operation -> runs so far
    runs: dict[str, dict[str, int]] = field(default_factory=dict)
    #: operation -> waits for a page, per page worked on, of each run of uzswap
    waits: dict[str, list[float]] = field(default_factory=dict)

    @property
    def pages(self) -> int:
        return self.task.data.nbytes // PAGE

    @cached_property
    def hot_and_cold(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        shuffled = np.random.default_rng(5).permutation(self.pages)
        hot = int(self.pages * HOT_PAGES)
        return shuffled[:hot], shuffled[hot:]

    def _random(self, number: int) -> NDArray[np.intp]:
        return np.random.default_rng((1, number)).integers(0, self.pages, _accesses(number))

    def _skewed(self, number: int) -> NDArray[np.intp]:
        count = _accesses(number)
        random = np.random.default_rng((2, number))
        hot, cold = (random.choice(pages, count) for pages in self.hot_and_cold)
        return np.where(random.random(count) < HOT_ACCESSES, hot, cold)

    def _visitor(self, operation: str) -> Callable[[NDArray[Any]], object]:
        """What is done with a block."""
        if operation == "sequential read":
            return lambda block: block.view(np.uint64).sum()
        if operation == "sort":
            numbers = self.task.data.dtype if self.task.data.dtype.itemsize == 8 else np.dtype(np.uint64)
            buffer = np.zeros(CHUNK // 8, numbers)

            def copy_and_sort(block: NDArray[Any]) -> None:
                buffer[:] = block.view(numbers)
                buffer.sort()

            return copy_and_sort
        result = np.float64 if self.task.data.dtype.itemsize == 8 else np.float32
        out = np.zeros(self.task.per_block, result)
        return lambda block: np.exp(block, out=out, dtype=result)

    def run(self, operation: str, name: str, candidate: Candidate) -> Callable[[], float]:
        """A run of one candidate: seconds a page."""
        counts = self.runs.setdefault(name, {})
        out = aligned(PAGE)
        clock = process_time if self.cpu else perf_counter
        by_index = operation in BY_INDEX
        rows = np.zeros((ACCESSES if by_index else 0, PAGE), np.uint8)
        visit = self._visitor(operation)

        def once() -> float:
            number = counts.get(operation, 0)
            counts[operation] = number + 1
            before = candidate.waits() if isinstance(candidate, Paged) else 0
            if by_index:
                order = np.random.default_rng((3, number)).integers(0, self.pages, ACCESSES)
                worked = len(order)
                # What a put writes are the bytes that are there already.
                np.take(self.written(name), order, 0, rows)
                with stopwatch(clock) as elapsed, stopwatch() as on_cpu:
                    candidate.take(order, rows) if operation.startswith("take") else candidate.put(order, rows)
            elif operation.endswith("4 KiB"):
                order = self._random(number) if operation.startswith("random") else self._skewed(number)
                order = order[: max(1, int(len(order) * candidate.patience))]
                candidate.expect(order, pages=True)
                worked = len(order)
                with stopwatch(clock) as elapsed, stopwatch() as on_cpu:
                    candidate.gather(order, out)
            else:
                writes = operation == "sequential write"
                candidate.expect(np.arange(self.task.blocks), pages=False, dirty=writes)
                worked = self.pages
                with stopwatch(clock) as elapsed, stopwatch() as on_cpu, np.errstate(over="ignore"):
                    candidate.write(number + 1) if writes else candidate.read(visit)
            if isinstance(candidate, Paged) and name == PAGED and number:
                self.waits.setdefault(operation, []).append((candidate.waits() - before) / worked)
            if name == RESIDENT and number:
                self.crowd.append(elapsed() / on_cpu())
            return elapsed() / worked

        return once

    def written(self, name: str) -> NDArray[np.uint8]:
        """What a candidate holds now, as pages."""
        shift = self.runs.get(name, {}).get("sequential write", 0)
        return np.roll(self.task.data.view(np.uint8).reshape(-1, PAGE), -shift * (CHUNK // PAGE), axis=0)

    def check(self, name: str, candidate: Candidate) -> None:
        """Raise when a candidate does not hold what was last written to it."""
        shift = self.runs.get(name, {}).get("sequential write", 0)
        blocks = iter(range(self.task.blocks))

        def compare(block: NDArray[Any]) -> None:
            index = next(blocks)
            if not np.array_equal(block, self.task.block(index + shift)):
                raise AssertionError(f"{name}: block {index} is not what was written to it")

        candidate.expect(np.arange(self.task.blocks), pages=False)
        candidate.read(compare)


def contests(work: Work, candidates: dict[str, Candidate], operations: list[str], rounds: int) -> dict[str, Contest]:
    """Hold one for each operation."""
    held = {}
    for operation in operations:
        contest = Contest(RESIDENT)
        for name, candidate in candidates.items():
            if operation in BY_INDEX and name not in (RESIDENT, PAGED):
                continue
            contest.add(name, work.run(operation, name, candidate))
        contest.hold(rounds)
        held[operation] = contest
    return held


def _factors(contest: Contest, name: str) -> list[float]:
    base = contest.seconds[RESIDENT]
    return [took / reference for reference, took in zip(base, contest.seconds[name], strict=True)]


def _of_fastest(contest: Contest, name: str) -> float:
    """The fastest run by the fastest of the reference: what the machine's other work did not touch."""
    return min(contest.seconds[name]) / min(contest.seconds[RESIDENT])


def _row(operation: str, contest: Contest, work: Work, numeric: bool) -> tuple[list[Any], dict[str, Any]]:
    """What the table says about an operation, and the same for a machine."""
    factors = {name: _factors(contest, name) for name in contest.runs if name != RESIDENT}
    target = TARGETS[operation] if numeric else None
    cells: list[Any] = [f"{contest.us(RESIDENT):.2f}"]
    found: dict[str, Any] = {
        "resident_us_per_page": contest.us(RESIDENT),
        "factors": factors,
        "of_fastest": {name: _of_fastest(contest, name) for name in factors},
        "target": target,
    }
    for name in (PAGED, *OTHERS):
        ratio = factors.get(name)
        cells.append(f"{statistics.median(ratio):.1f}" if ratio else "")
        if name == BY_SIGNAL and ratio and numeric and operation in BY_SIGNAL_TARGETS:
            said = verdict(statistics.median(ratio), BY_SIGNAL_TARGETS[operation], at_most=True)
            cells[-1] = Text(f"{cells[-1]} ").append_text(said)
        if name == PAGED:
            cells.append(f"{_of_fastest(contest, name):.1f}" if ratio else "")
            cells.append(f"{min(ratio):.1f}-{max(ratio):.1f}" if ratio else "")
            waits = work.waits.get(operation)
            cells.append(f"{statistics.median(waits):.3f}" if waits else "")
            found["waits_per_page"] = waits
    if target is None or PAGED not in factors:
        return [*cells, ""], found
    reached = statistics.median(factors[PAGED])
    found["met"] = reached <= target
    said = verdict(reached, target, at_most=True)
    if operation in STRETCH and reached <= target:
        said = verdict(reached, STRETCH[operation], at_most=True) if reached <= STRETCH[operation] else said
    return [*cells, said], found


def measure_arrays(
    kinds: list[str],
    operations: list[str],
    names: tuple[str, ...],
    nbytes: int,
    budget: int,
    rounds: int,
    where: str | None,
    *,
    cpu: bool = False,
) -> dict[str, Any]:
    """Hold all contests and print their tables."""
    results = table("data", "operation", "us/page", "uzswap", "fastest", "range", "waits", *OTHERS, "target")
    memory = table("data", "candidate", "resident MiB", "compressed MiB", "disk MiB", "all RAM MiB")
    found: dict[str, Any] = {}
    crowd: list[float] = []
    for kind in kinds:
        pages = KINDS[kind](nbytes)
        if not pages.size:
            continue
        task = Task(pages.view(DTYPES[kind]), budget)
        work = Work(task, crowd, cpu)
        found[kind] = {}
        with all_of(task, names, where) as candidates:
            for operation, contest in contests(work, candidates, operations, rounds).items():
                cells, found[kind][operation] = _row(operation, contest, work, DTYPES[kind] is not np.uint8)
                results.add_row(kind, operation, *cells)
            results.add_section()
            for name, candidate in candidates.items():
                took = candidate.footprint()
                in_ram = took.resident + took.compressed
                sizes = (took.resident, took.compressed, took.disk, in_ram)
                memory.add_row(kind, name, *(f"{size / MIB:.1f}" for size in sizes))
                found[kind].setdefault("bytes", {})[name] = vars(took)
                work.check(name, candidate)
            memory.add_section()
    console.print(results)
    console.print(NOTES, style="dim")
    found["crowd"] = statistics.median(crowd)
    if found["crowd"] > MOST_CROWD and not cpu:
        console.print(
            f"The machine was busy: runs of the resident array took {found['crowd']:.2f} times their CPU time.  That "
            "makes it slow, and so the others' numbers small: measure again when nothing else runs.",
            style="red",
        )
    console.print()
    console.print(memory)
    return found


def measure_faults(rounds: int) -> dict[str, Any]:
    """Print what a fault costs by who serves it, and what it costs to tell which pages were modified."""
    why = faults.refused()
    if why:
        console.print(f"no faults were measured: {why}")
        return {}
    found: dict[str, Any] = {}
    for heading, runs, reference in (
        ("ways to serve a fault (UFFDIO_COPY of one page)", faults.ways(), faults.FIRST_TOUCH),
        ("ways to tell modified pages", dict(faults.recognitions(_samples())), ""),
    ):
        contest = faults.contest(runs, reference, rounds)
        results = table(heading, "", "us/page", "best", "worst")
        for name, took in contest.seconds.items():
            results.add_row(name, "", f"{contest.us(name):.2f}", *(f"{at(took) * 1e6:.2f}" for at in (min, max)))
        console.print()
        console.print(results)
        found[heading] = contest.seconds
    return found


def _samples() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    return ((kind, KINDS[kind](faults.PAGES * PAGE)) for kind in DTYPES)


def _chosen(only: tuple[str, ...], names: tuple[str, ...]) -> list[str]:
    """The names that contain one of the words; all when none does."""
    found = [name for name in names if any(word in name for word in only)]
    return found or list(names)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--mib", type=click.IntRange(8), help="MiB of each array.  [default: 256, quick: 64]")
@click.option("--budget", type=click.IntRange(2), help="MiB that may be resident.  [default: a quarter of the array]")
@click.option("--runs", "--rounds", "runs", type=click.IntRange(1), help="Runs that count.  [default: 5, quick: 2]")
@click.option("--only", multiple=True, help="Part of a kind of data, an operation or a candidate; repeat for more.")
@click.option(
    "--directory", type=click.Path(file_okay=False, exists=True), help="For files.  [default: a temporary one]"
)
@click.option("--json", "to", type=click.Path(dir_okay=False, path_type=Path), help="Write everything measured here.")
@click.option("--no-faults", is_flag=True, help="Leave out the cost of a fault.")
@click.option("--cpu", is_flag=True, help="CPU time of all threads instead of wall time: for a machine that is busy.")
@click.option("--quick", is_flag=True, help="Less data and fewer runs: to see that it works.")
def main(
    mib: int | None,
    budget: int | None,
    runs: int | None,
    only: tuple[str, ...],
    directory: str | None,
    to: Path | None,
    no_faults: bool,
    cpu: bool,
    quick: bool,
) -> None:
    """Arrays larger than their budget: times the resident array, beside memmap, blosc2 and zict."""
    mib = mib or (64 if quick else 256)
    budget = budget or mib // 4
    runs = runs or (2 if quick else 5)
    everything = (*DTYPES, *TARGETS, PAGED, *OTHERS)
    for word in only:
        if not any(word in name for name in everything):
            raise click.BadParameter(f"{word!r} is part of none of: {', '.join(everything)}", param_hint="--only")
    title(f"bench_arrays: {mib} MiB, of which {budget} MiB may be resident, {runs} runs")
    found: dict[str, Any] = {"mib": mib, "budget_mib": budget, "runs": runs}
    if not no_faults:
        found["faults"] = measure_faults(runs)
    console.print()
    found["arrays"] = measure_arrays(
        _chosen(only, tuple(DTYPES)),
        _chosen(only, tuple(TARGETS)),
        tuple(_chosen(only, (PAGED, *OTHERS))),
        mib * MIB,
        budget * MIB,
        runs,
        directory,
        cpu=cpu,
    )
    if not only:
        console.print()
        measure_forks(mib, runs)
    if to:
        to.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
