"""What the agent itself takes: the CPU time and the memory of its process while it looks after 500 cgroups.

Three trees, each idle and busy: a directory with the kernel's names, which where it is busy always offers memory and
never gives any (the price of looking); an engine's mount and its socket, whose cgroups have 1 MiB of values each, of
which where they are busy a quarter is in use, another one every half minute.  Two times: the first five minutes, with
the start of the process and the probing of all cgroups, and two minutes after these.  The target is 1 % of a CPU and
60 MiB.

    python -m benchmarks.bench_agent [--quick] [--only TREE]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CGROUPS: Final = 500
#: seconds from which on, and for how long, it is measured again
FIRST: Final = 300.0
LATER: Final = 120.0

_ENGINE: Final = """
import os, sys, time
from uzswap import Store, Zswap
path, cgroups, how, busy = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] == "busy"
z = Zswap(swap_size="2G", max_pool="1G")
stores = [Store(z.cgroup(f"/jobs/{i}")) for i in range(cgroups)]
for store in stores:
    for key in range(256 if busy else 0):
        store[key] = os.urandom(1000) + bytes(3000)
held = z.mount(path) if how == "mount" else z.serve(path)
print("ready", flush=True)
while True:
    if busy:
        first = int(time.monotonic()) // 30 % 4 * 64
        for store in stores:
            for key in range(first, first + 64):
                store[key]
    time.sleep(1)
"""

_MIB: Final = 1 << 20
_STAT: Final = {
    "anon": 400 * _MIB, "file": 100 * _MIB, "inactive_anon": 300 * _MIB, "active_anon": 100 * _MIB,
    "inactive_file": 50 * _MIB, "active_file": 50 * _MIB, "zswap": 0, "zswapped": 0, "zswpwb_proactive_b": 0,
    "pgscan": 0, "pgsteal": 0, "pgsteal_proactive": 0, "pswpin": 0, "pgmajfault": 0, "zswpin": 0, "zswpout": 0,
    "zswpwb": 0, **{f"other_{i}": 0 for i in range(50)},
}  # fmt: skip
_CALM: Final = "".join(f"{kind} avg10=0.00 avg60=0.00 avg300=0.00 total=0\n" for kind in ("some", "full"))


@contextmanager
def plain_files(busy: bool) -> Iterator[tuple[str, str]]:
    """Make a directory with the files of as many cgroups; those that are idle have nothing to give."""
    stat = _STAT if busy else dict.fromkeys(_STAT, 0)
    with tempfile.TemporaryDirectory(prefix="uzswap-bench-") as where:
        top = Path(where)
        (top / "cgroup.controllers").write_text("memory\n")
        files = {
            "cgroup.controllers": "memory\n", "memory.current": f"{stat['anon'] + stat['file']}\n",
            "memory.reclaim": "", "memory.stat": "".join(f"{key} {value}\n" for key, value in stat.items()),
            "memory.pressure": _CALM, "io.pressure": _CALM, "memory.swap.current": "0\n", "cpu.stat": "usage_usec 0\n",
        }  # fmt: skip
        for i in range(CGROUPS):
            directory = top / f"{i}"
            directory.mkdir()
            for name, text in files.items():
                (directory / name).write_text(text)
        yield where, "/*"


@contextmanager
def engine(how: str, busy: bool) -> Iterator[tuple[str, str]]:
    """Serve an engine with as many cgroups from a process of its own."""
    with tempfile.TemporaryDirectory(prefix="uzswap-bench-") as where:
        path = f"{where}/tree"
        arguments = [sys.executable, "-c", _ENGINE, path, str(CGROUPS), how, "busy" if busy else "idle"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", "the engine did not start"
            try:
                yield path, "/jobs/*"
            finally:
                process.terminate()
        subprocess.run(["fusermount3", "-u", "-q", path], check=False)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(root: str, watch: str, first: float, later: float) -> tuple[float, float, float]:
    """Run the agent on a tree; return its share of a CPU in percent at first and later, and its peak in MiB."""

    def share(seconds: float, before: float) -> float:
        began = time.monotonic()
        time.sleep(seconds)
        return 100 * (cpu_seconds(process.pid) - before) / (time.monotonic() - began)

    with tempfile.TemporaryDirectory(prefix="uzswap-bench-") as state:
        code = "from uzswap.cli.main import main; main()"
        options = ["--root", root, "--state", state, "--set", f"agent.watch={watch}"]
        with subprocess.Popen(
            [sys.executable, "-c", code, "agent", "run", *options], stderr=subprocess.DEVNULL
        ) as process:
            try:
                at_first = share(first, 0.0)
                after = share(later, cpu_seconds(process.pid))
                status = Path(f"/proc/{process.pid}/status").read_text()
            finally:
                process.terminate()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return at_first, after, peak / 1024


def main() -> None:
    """Print a line for each tree."""
    trees = ("plain files", "socket", "mount")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the time")
    parser.add_argument("--only", choices=trees, help="this tree alone")
    given = parser.parse_args()
    scale = 0.2 if given.quick else 1.0
    print(f"{CGROUPS} cgroups, % of a CPU      first {FIRST * scale:.0f} s   later      peak", flush=True)
    for name in trees if given.only is None else (given.only,):
        for busy in (False, True):
            with plain_files(busy) if name == "plain files" else engine(name, busy) as (root, watch):
                first, later, peak = measure(root, watch, FIRST * scale, LATER * scale)
            label = f"{name}, {'busy' if busy else 'idle'}"
            print(f"{label:28} {first:10.2f} {later:7.2f} {peak:5.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
