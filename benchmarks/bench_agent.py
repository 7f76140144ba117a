"""What the agent itself costs: CPU time and memory for 500 cgroups, at its default intervals.

Three trees: plain files with the kernel's names, which always offer memory and never give any (the price of looking);
an engine's mount and its socket, whose cgroups have values of which a quarter is in use.  Two times: at first, when
there is something to be had of all of them at once, and later.  The target is 1 % of a CPU and 60 MiB.

    python -m benchmarks.bench_agent [--quick]
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
#: seconds until all have been met
MEET: Final = 5.0

_ENGINE: Final = """
import os, sys, time
from uzswap import Store, Zswap
z = Zswap(swap_size="1G", max_pool="512M")
stores = [Store(z.cgroup(f"/jobs/{i}")) for i in range(int(sys.argv[2]))]
for store in stores:
    for key in range(64):
        store[key] = os.urandom(1000) + bytes(3000)
held = z.mount(sys.argv[1]) if sys.argv[3] == "mount" else z.serve(sys.argv[1])
print("ready", flush=True)
while True:
    for store in stores:
        for key in range(16):
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
def plain_files() -> Iterator[tuple[str, str]]:
    """Make a directory with the files of as many cgroups."""
    with tempfile.TemporaryDirectory(prefix="uzswap-bench-") as where:
        top = Path(where)
        (top / "cgroup.controllers").write_text("memory\n")
        files = {
            "cgroup.controllers": "memory\n", "memory.current": f"{500 << 20}\n", "memory.reclaim": "",
            "memory.stat": "".join(f"{key} {value}\n" for key, value in _STAT.items()), "memory.pressure": _CALM,
            "io.pressure": _CALM, "memory.swap.current": "0\n", "cpu.stat": "usage_usec 0\n",
        }  # fmt: skip
        for i in range(CGROUPS):
            directory = top / f"{i}"
            directory.mkdir()
            for name, text in files.items():
                (directory / name).write_text(text)
        yield where, "/*"


@contextmanager
def engine(how: str) -> Iterator[tuple[str, str]]:
    """Serve an engine with as many cgroups from a process of its own."""
    with tempfile.TemporaryDirectory(prefix="uzswap-bench-") as where:
        path = f"{where}/tree"
        arguments = [sys.executable, "-c", _ENGINE, path, str(CGROUPS), how]
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


def measure(root: str, watch: str, seconds: float, settle: float) -> tuple[float, float, float]:
    """Run the agent on a tree; return its share of a CPU in percent at first and later, and its peak in MiB."""

    def share() -> float:
        before, began = cpu_seconds(process.pid), time.monotonic()
        time.sleep(seconds)
        return 100 * (cpu_seconds(process.pid) - before) / (time.monotonic() - began)

    with tempfile.TemporaryDirectory(prefix="uzswap-bench-") as state:
        code = "from uzswap.cli.main import main; main()"
        options = ["--root", root, "--state", state, "--set", f"agent.watch={watch}"]
        with subprocess.Popen(
            [sys.executable, "-c", code, "agent", "run", *options], stderr=subprocess.DEVNULL
        ) as process:
            try:
                time.sleep(MEET)
                first = share()
                time.sleep(settle)
                later = share()
                status = Path(f"/proc/{process.pid}/status").read_text()
            finally:
                process.terminate()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return first, later, peak / 1024


def main() -> None:
    """Print a line for each tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a third of the time")
    seconds, settle = (20.0, 40.0) if parser.parse_args().quick else (60.0, 120.0)
    print(f"{CGROUPS} cgroups, % of a CPU      at first   later      peak", flush=True)
    for name, tree in (("plain files", plain_files()), ("mount", engine("mount")), ("socket", engine("socket"))):
        with tree as (root, watch):
            first, later, peak = measure(root, watch, seconds, settle)
        print(f"{name:28} {first:10.2f} {later:7.2f} {peak:5.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
