"""Control files: reads and writes a second through each door, and what a monitor costs the data.

The monitor is a process of its own that reads every file of 1000 cgroups once a second, or `/metrics`, which is the
same numbers in one request.  Target: stores are slowed down by less than 2 %.  Monitored and unmonitored rounds take
turns, and the storing thread's time by the wall counts: to wait for the GIL or a lock is what a monitor can cause.
"""

from __future__ import annotations

import os
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
from uzswap.cgroup.files import FILES
from uzswap.control.client import Client

TARGET = 0.02
#: operations of one run
BATCH = 500
CGROUPS = 1000

#: a monitor: argv are how it reads, and from where; after every turn it says how long that took
MONITOR = """
import os, sys, time
kind, where = sys.argv[1:3]
if kind == "mount":
    paths = [os.path.join(base, name) for base, _, names in os.walk(where + "/cgroup") for name in names]
    paths = [path for path in paths if os.stat(path).st_mode & 0o400]
    def turn():
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                file.read()
elif kind == "socket":
    from uzswap.control.client import Client
    from uzswap.cgroup.files import FILES
    client = Client(where)
    groups = [entry["name"] for entry in client.list("/cgroup") if entry["type"] == "directory"]
    names = [name for name, row in FILES.items() if row.reader]
    def turn():
        for group in groups:
            for name in names:
                client.read(f"/cgroup/{group}/{name}")
else:
    from uzswap.control.client import Client
    client = Client(where)
    def turn():
        client.read("/metrics")
turn()
while True:
    began = time.monotonic()
    turn()
    print(time.monotonic() - began, flush=True)
    time.sleep(max(0, 1 - (time.monotonic() - began)))
"""


@contextmanager
def monitoring(kind: str, where: Path) -> Iterator[subprocess.Popen[str]]:
    """A monitor at work: it has had its first turn."""
    with subprocess.Popen(
        [sys.executable, "-c", MONITOR, kind, str(where)], stdout=subprocess.PIPE, text=True
    ) as monitor:
        try:
            assert monitor.stdout is not None
            monitor.stdout.readline()
            yield monitor
        finally:
            monitor.kill()


def doors(z: uzswap.Zswap, stack: ExitStack) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """How to read memory.current and write memory.low, by door."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    cgroup = z.cgroup("/c0")
    found: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
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
        return found
    fd = os.open(mount / "cgroup/c0/memory.current", os.O_RDONLY)
    stack.callback(os.close, fd)
    found["mount"] = (
        (mount / "cgroup/c0/memory.current").read_text,
        lambda: (mount / "cgroup/c0/memory.low").write_text("4096"),
    )
    found["mount, kept open"] = (lambda: os.pread(fd, 4096, 0), lambda: None)
    return found


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
        with stopwatch(time.perf_counter) as elapsed:
            while time.perf_counter() < end:
                self.z.free_many(self.z.swap_out_many(self.pages, self.cgroup, page=PAGE))
                stored += 256
        return stored / elapsed()


@options
def main(quick: bool, rounds: int | None) -> None:
    """Reads and writes through each door, and what a monitor costs."""
    rounds = rounds or (3 if quick else 9)
    cgroups = 100 if quick else CGROUPS
    title(f"bench_control: {cgroups} cgroups, {rounds} rounds")
    with ExitStack() as stack:
        z = stack.enter_context(uzswap.Zswap(swap="auto", swap_size="1G", max_pool="1G"))
        for number in range(cgroups):
            z.cgroup(f"/c{number}")
        found = doors(z, stack)
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

        files = sum(row.reader is not None for row in FILES.values())
        with z.serve() as server, tempfile.TemporaryDirectory() as directory, ExitStack() as mounted:
            monitors = [("metrics", server.path), ("socket", server.path)]
            if "mount" in found:
                monitors.append(("mount", mounted.enter_context(z.mount(Path(directory) / "m")).path))
            storing = Storing(z)
            results = table("monitor", "reads", "seconds a turn", "stores a second", "slowed down by", "target")
            for kind, where in monitors:
                ratios, turns, speeds = [], [], []
                for _ in range(rounds):
                    alone = storing.for_seconds(3)
                    with monitoring(kind, where) as monitor:
                        watched = storing.for_seconds(3)
                        assert monitor.stdout is not None
                        turns.append(float(monitor.stdout.readline()))
                    ratios.append(watched / ((alone + storing.for_seconds(3)) / 2))
                    speeds.append(watched)
                slower = 1 - statistics.median(ratios)
                results.add_row(
                    kind,
                    "1 request" if kind == "metrics" else f"{cgroups * files} files",
                    f"{statistics.median(turns):.2f}",
                    f"{statistics.median(speeds):.0f}",
                    f"{slower:.1%}",
                    verdict(slower, TARGET, at_most=True),
                )
            console.print(results)


if __name__ == "__main__":
    main()
