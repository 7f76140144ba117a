"""Control files: reads and writes a second through each door, and what a monitor costs the data.

The monitor is a process of its own that once a second takes every number of 100 or of 1000 cgroups: with two requests,
`/v1/stat?recursive=1` and `/metrics`; or file by file, through each door.  It is stopped and let go on again every two
seconds, in an order by chance, and each two seconds with it are compared with those beside them without; the storing
thread's time by the wall counts, without that in which it waited for a CPU: to wait for the GIL or a lock is what a
monitor can cause, while who else has the CPU is not its doing.  What one costs that reads as many ordinary files is in
the first row.  Target of the two requests: stores are slowed down by at most 3 % more than by that one with 100
cgroups, and 10 % with 1000.

Before these, with 1000 cgroups that have something of everything: the CPU time that the two requests take where they
are answered (target: 40 ms for the metrics), and that each control file takes in Python (target: 60 us).
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

import uzswap
from benchmarks.common import Contest, console, options, stopwatch, table, title, verdict
from benchmarks.reference import PAGE, Bytes, aligned
from uzswap.client.client import Client
from uzswap.files.cgroup import FILES
from uzswap.files.snapshot import take
from uzswap.serve.metrics import exposition

#: cgroups -> how much slower than with a monitor of ordinary files stores may be
TARGETS = {100: 0.03, 1000: 0.10}
#: seconds of CPU: the metrics of 1000 cgroups, and any file of a cgroup
METRICS_TARGET = 0.040
FILE_TARGET = 60e-6
#: operations of one run
BATCH = 500
#: seconds of storing, with and without a monitor; and how many pairs of these are a round
WINDOW = 2.0
PAIRS = 4

#: a monitor: argv are how it reads, and from where; it says so after every cgroup, or after every scrape
MONITOR = """
import os, sys, time
from uzswap.files.cgroup import FILES
from uzswap.client.client import Client
kind, where = sys.argv[1:3]
names = [name for name, row in FILES.items() if row.reader]
if kind in ("mount", "plain files"):
    where += "/cgroup/"
    groups = [name for name in os.listdir(where) if name not in FILES]
    def turn():
        for group in groups:
            for name in names:
                with open(f"{where}{group}/{name}", "rb", buffering=0) as file:
                    file.read()
            print(flush=True)
elif kind == "socket":
    client = Client(where)
    groups = [entry["name"] for entry in client.list("/cgroup") if entry["type"] == "directory"]
    def turn():
        for group in groups:
            for name in names:
                client.read(f"/cgroup/{group}/{name}")
            print(flush=True)
else:
    client = Client(where)
    def turn():
        client.stat("/", recursive=True)
        client.read("/metrics")
        print(flush=True)
print(flush=True)
while True:
    began = time.monotonic()
    turn()
    time.sleep(max(0, 1 - (time.monotonic() - began)))
"""


@contextmanager
def monitoring(kind: str, where: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A monitor, stopped: SIGCONT has it go on.  After the ``with`` block the list has what it said."""
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", MONITOR, kind, str(where)], stdout=subprocess.PIPE, text=True
    ) as monitor:
        assert monitor.stdout is not None
        try:
            monitor.stdout.readline()
            monitor.send_signal(signal.SIGSTOP)
            yield monitor, said
        finally:
            monitor.kill()
            said += monitor.stdout


#: how to read a file, and how to write one
Door = tuple[Callable[[], object], Callable[[], object]]


def doors(z: uzswap.Zswap, stack: ExitStack) -> tuple[dict[str, Door], Path | None]:
    """How to read memory.current and write memory.low, by door; and the mount."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    cgroup = z.cgroup("/c0")
    found: dict[str, Door] = {
        "Python": (lambda: cgroup.read("memory.current"), lambda: cgroup.write("memory.low", "4096"))
    }
    server = stack.enter_context(z.serve(directory / "s"))
    client = stack.enter_context(Client(server.path))
    found["socket"] = (
        lambda: client.read("/cgroup/c0/memory.current"),
        lambda: client.write("/cgroup/c0/memory.low", "4096"),
    )
    try:
        mount = stack.enter_context(z.mount(directory / "m")).path
    except (ImportError, OSError) as error:
        console.print(f"no mount here: {error}", style="yellow")
        return found, None
    fd = os.open(mount / "cgroup/c0/memory.current", os.O_RDONLY)
    stack.callback(os.close, fd)
    found["mount"] = (
        (mount / "cgroup/c0/memory.current").read_text,
        lambda: (mount / "cgroup/c0/memory.low").write_text("4096"),
    )
    found["mount, kept open"] = (lambda: os.pread(fd, 4096, 0), lambda: None)
    return found, mount


def rate(operation: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        with stopwatch(time.perf_counter) as elapsed:
            for _ in range(BATCH):
                operation()
        return elapsed() / BATCH

    return run


def compressible(n: int) -> Bytes:
    """Pages that compress to half, all of them different."""
    pages = aligned(n * PAGE)
    pages.reshape(n, PAGE)[:, : PAGE // 2] = np.random.default_rng(5).integers(0, 256, (n, PAGE // 2), dtype=np.uint8)
    return pages


def waited_for_a_cpu() -> float:
    """Return seconds for which this thread could have run, and had no CPU."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


class Storing:
    """The work that is monitored: stores into one of the cgroups, in batches of 1 MiB, and frees."""

    def __init__(self, z: uzswap.Zswap) -> None:
        self.z = z
        self.cgroup = z.cgroup("/c1")
        self.pages = compressible(256)

    def for_seconds(self, seconds: float) -> float:
        """Stores a second over so long."""
        end = time.perf_counter() + seconds
        stored = 0
        without = waited_for_a_cpu()
        with stopwatch(time.perf_counter) as elapsed:
            while time.perf_counter() < end:
                self.z.free_many(self.z.swap_out_many(self.pages, self.cgroup, page=PAGE))
                stored += 256
        return stored / (elapsed() - (waited_for_a_cpu() - without))


def plain_files(directory: Path, cgroups: int) -> None:
    """What the mount has, as ordinary files: what a monitor costs that reads something else."""
    for number in range(cgroups):
        inner = directory / "cgroup" / f"c{number}"
        inner.mkdir(parents=True)
        for name, row in FILES.items():
            if row.reader is not None:
                (inner / name).write_text("0\n")


def compare_doors(z: uzswap.Zswap, stack: ExitStack, rounds: int) -> Path | None:
    """Print reads and writes through each door; returns the mount."""
    found, mounted = doors(z, stack)
    results = table("operation", "door", "a second", "us", "vs Python")
    for index, operation in enumerate(("read memory.current", "write memory.low")):
        contest = Contest("Python")
        for name, operations in found.items():
            if not (index and name.endswith("open")):
                contest.add(name, rate(operations[index]))
        contest.hold(rounds)
        for name in contest.runs:
            us = contest.us(name)
            results.add_row(operation, name, f"{1e6 / us:.0f}", f"{us:.1f}", f"{contest.speed(name):.3f}")
        results.add_section()
    console.print(results)
    return mounted


def something_of_everything(z: uzswap.Zswap, cgroups: int) -> None:
    """Have each cgroup store, load, write back, wait, and have limits."""
    pages = compressible(4)
    for number in range(cgroups):
        cgroup = z.cgroup(f"/c{number}")
        handles = z.swap_out_many(pages, cgroup, page=PAGE)
        with contextlib.suppress(uzswap.ReclaimError):  # less than asked for
            cgroup.reclaim(PAGE, source="zswap", min_age=0)
        z.fault_in_many(handles[:1])
        cgroup.write("memory.max", "1G")
        cgroup.write("memory.swap.max", "1G")
        with cgroup.pressure.stall():
            pass


def median_cpu(operation: Callable[[], object], times: int, rounds: int = 7) -> float:
    """Return seconds of CPU of one operation."""
    found = []
    for _ in range(rounds):
        with stopwatch(time.thread_time) as elapsed:
            for _ in range(times):
                operation()
        found.append(elapsed() / times)
    return statistics.median(found)


def cost_of_telling(z: uzswap.Zswap, cgroups: int) -> None:
    """Print what the two requests take, and each file."""
    results = table("what", "CPU", "text", "target")

    def metrics() -> bytes:
        return exposition(z)[0]

    def stat() -> bytes:
        return take(z.tree.root).as_text().encode()

    tellers: dict[str, Callable[[], bytes]] = {"/metrics": metrics, "/v1/stat, uzswap.stat": stat}
    for name, tell in tellers.items():
        seconds = median_cpu(tell, 1)
        target = verdict(seconds, METRICS_TARGET, at_most=True) if name == "/metrics" else ""
        results.add_row(f"{name}, {cgroups} cgroups", f"{seconds * 1e3:.1f} ms", f"{len(tell()) / 1e6:.2f} MB", target)
    results.add_section()
    cgroup = z.cgroup("/c0")
    taken = {
        name: median_cpu(functools.partial(cgroup.read, name), BATCH)
        for name, row in FILES.items()
        if row.reader is not None
    }
    dearest = sorted(taken, key=taken.__getitem__, reverse=True)
    for name in dearest[:4]:
        results.add_row(
            f"{name}, in Python", f"{taken[name] * 1e6:.1f} us", "", verdict(taken[name], FILE_TARGET, at_most=True)
        )
    results.add_row(f"all {len(taken)} files of a cgroup", f"{sum(taken.values()) * 1e6:.0f} us", "", "")
    console.print(results)


def compare_monitors(z: uzswap.Zswap, mounted: Path | None, rounds: int, cgroups: int) -> None:
    """Print what each monitor costs stores."""
    files = sum(row.reader is not None for row in FILES.values())
    results = table("monitor", "a turn reads", "turns a second", "stores a second", "slowed down by", "target")
    with z.serve() as server, tempfile.TemporaryDirectory() as directory:
        plain_files(Path(directory), cgroups)
        monitors = [("plain files", Path(directory)), ("two requests", server.path), ("socket", server.path)]
        if mounted is not None:
            monitors.append(("mount", mounted))
        storing = Storing(z)
        plain = 0.0
        for kind, where in monitors:
            ratios, speeds = [], []
            chance = random.Random(rounds)
            with monitoring(kind, where) as (monitor, said):
                for _ in range(rounds * PAIRS):
                    speed = {}
                    for watched in chance.sample((True, False), 2):
                        monitor.send_signal(signal.SIGCONT if watched else signal.SIGSTOP)
                        speed[watched] = storing.for_seconds(WINDOW)
                    monitor.send_signal(signal.SIGSTOP)
                    ratios.append(speed[True] / speed[False])
                    speeds.append(speed[True])
            turns = len(said) / (rounds * PAIRS * WINDOW) / (1 if kind == "two requests" else cgroups)
            slower = 1 - statistics.median(ratios)
            plain = slower if kind == "plain files" else plain
            results.add_row(
                kind,
                f"{cgroups} cgroups" if kind == "two requests" else f"{cgroups * files} files",
                f"{turns:.2f}",
                f"{statistics.median(speeds):.0f}",
                f"{slower:.1%}",
                verdict(slower - plain, TARGETS[cgroups], at_most=True) if kind == "two requests" else "",
            )
    console.print(results)


@options
def main(quick: bool, rounds: int | None) -> None:
    """Reads and writes through each door, and what a monitor costs."""
    rounds = rounds or (3 if quick else 5)
    title(f"bench_control: {rounds} rounds")
    with ExitStack() as stack:
        z = stack.enter_context(uzswap.Zswap(swap="auto", swap_size="1G", max_pool="1G"))
        mounted = None
        for cgroups in list(TARGETS)[: 1 if quick else None]:
            for number in range(cgroups):
                z.cgroup(f"/c{number}")
            if cgroups == min(TARGETS):
                mounted = compare_doors(z, stack, rounds)
            if cgroups == max(TARGETS):
                something_of_everything(z, cgroups)
                cost_of_telling(z, cgroups)
            compare_monitors(z, mounted, rounds, cgroups)


if __name__ == "__main__":
    main()
