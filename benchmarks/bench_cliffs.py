"""Orders of access that come back to everything, under a budget of a third: uzswap beside the array that is resident.

What each costs is the CPU time of the process, of all its threads: the machine may be busy.  Every run is a process of
its own.  Targets are a fifth of what these took when they were first measured: 16 s for an array of 48 MB that is
copied transposed, 40 s for a random forest of 8 trees on 60 MB, 23 s for a sort by polars of 96 MB.  ``np.memmap`` is
measured in a memory cgroup of the kernel's that leaves as many bytes for its file, and a plain array in one that leaves
as many for it, where the machine has swap; what the work takes besides comes on top, as it does with uzswap.  Where
there is swap the kernel may find other memory of the process to put there, so the budget is not quite the same.  Both
take root.  Swap in RAM, as zswap is::

    modprobe zram; zramctl /dev/zram0 --algorithm lz4 --size 1G; mkswap /dev/zram0; swapon /dev/zram0
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.array_candidates import BY_SIGNAL, MAPPED, PAGED, RESIDENT
from benchmarks.common import console, table, title, verdict

#: A plain array, of which the kernel swaps out what is beyond the budget.
SWAPPED: Final = "kernel swap"

Array = NDArray[Any]
Work = Callable[[], object]

MB: Final = 1_000_000
#: Columns that are copied: all of them take a minute.  Before those that count as many go unmeasured.
COLUMNS: Final = 50


@dataclass(frozen=True)
class Case:
    """What is done with what."""

    #: bytes of the array, in MB
    size: int
    make: Callable[[int], Array]
    #: what is done before, and what counts
    prepare: Callable[[Array], tuple[Work, Work]]
    #: of a unit that is told: how many of it the case that has a target consists of
    units: int = 1
    unit: str = ""
    #: seconds of all units, at most
    target: float | None = None
    #: np.memmap can do it
    mapped: bool = True


def _walks(nbytes: int) -> Array:
    """Rows of 8000 bytes: two pages each, at every place within them."""
    rows = nbytes // 8000
    return np.cumsum(np.random.default_rng(0).normal(size=(rows, 1000)), axis=1)


def _columns(x: Array) -> tuple[Work, Work]:
    out = np.ones((COLUMNS, len(x)))  # its memory is there when it counts

    def copy(first: int) -> None:
        for column in range(first, first + COLUMNS):
            out[column - first] = x[:, column]

    return lambda: copy(0), lambda: copy(COLUMNS)


def _blocks(x: Array) -> tuple[Work, Work]:
    out = np.ones(x.shape[::-1])

    def copy() -> None:
        for row in range(0, len(x), 512):
            out[:, row : row + 512] = x[row : row + 512].T

    return lambda: None, copy


def _features(nbytes: int) -> Array:
    return np.random.default_rng(0).normal(size=(nbytes // 400, 100)).astype(np.float32)


def _tree(x: Array) -> tuple[Work, Work]:
    from sklearn.ensemble import RandomForestClassifier

    labels = np.random.default_rng(1).random(len(x)) > 0.5
    labels[: len(x) // 2] = x[: len(x) // 2, 0] > 0
    forest = RandomForestClassifier(1, n_jobs=1, random_state=0)
    return lambda: None, lambda: forest.fit(x, labels)


def _numbers(nbytes: int) -> Array:
    return np.random.default_rng(0).normal(size=nbytes // 8)


def _sorted(x: Array) -> tuple[Work, Work]:
    return lambda: None, x.sort


def _frame(columns: int) -> Callable[[Array], tuple[Work, Work]]:
    def prepare(x: Array) -> tuple[Work, Work]:
        import polars

        parts = x.reshape(columns, -1)
        frame = polars.DataFrame({str(number): part for number, part in enumerate(parts)})
        return lambda: None, lambda: frame.sort("0")

    return prepare


CASES: Final[dict[str, Case]] = {
    "transposed, by columns": Case(48, _walks, _columns, 1000 // COLUMNS, f"{COLUMNS} of 1000", 16.0),
    "transposed, by blocks": Case(48, _walks, _blocks),
    "a tree of a forest": Case(60, _features, _tree, 8, "a tree", 40.0),
    "ndarray.sort": Case(96, _numbers, _sorted),
    "polars, one column sorted": Case(96, _numbers, _frame(1), target=23.0, mapped=False),
    "polars, four columns": Case(96, _numbers, _frame(4), target=23.0, mapped=False),
}


# A run, in a process of its own


class _Kernel:
    """A memory cgroup of the kernel's with this process in it, of version 1 or 2; OSError where there can be none."""

    def __init__(self) -> None:
        first = Path("/sys/fs/cgroup/memory")
        self.root = first if first.exists() else Path("/sys/fs/cgroup")
        self.path = self.root / f"uzswap-bench-{os.getpid()}"
        self.path.mkdir()
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def _file(self, first: str, second: str) -> Path:
        return self.path / first if (self.path / first).exists() else self.path / second

    def leave(self, nbytes: int) -> None:
        """Room for so many bytes more than is in use, or fewer; files in the page cache are no use: they can go."""
        used = int(self._file("memory.usage_in_bytes", "memory.current").read_text())
        counted = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines())
        files = int(counted["cache"] if "cache" in counted else counted["file"])
        self._file("memory.limit_in_bytes", "memory.max").write_text(str(used - files + nbytes))

    def close(self) -> None:
        (self.root / "cgroup.procs").write_text(str(os.getpid()))
        self.path.rmdir()


def _place(candidate: str, data: Array, budget: int, directory: str) -> tuple[Array, Any]:
    """The data where a candidate has them, and what that needs."""
    import uzswap

    if candidate in (RESIDENT, SWAPPED):
        return data, None
    if candidate == MAPPED:
        path = f"{directory}/array"
        data.tofile(path)
        with Path(path).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return np.memmap(path, data.dtype, "r+", shape=data.shape), None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        z = uzswap.Zswap(max_pool="90%", faults="signal") if candidate == BY_SIGNAL else uzswap.Zswap(max_pool="90%")
    cgroup = z.cgroup("/bench")
    cgroup.write("uzswap.resident.max", str(budget))
    x = uzswap.empty(data.shape, data.dtype, cgroup=cgroup)
    x[...] = data
    return x, z


def _resident_bytes(word: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in status if line.startswith(word))


def run(name: str, candidate: str, size: int, besides: int) -> None:
    """One run, which prints what it took; bytes that the work takes besides are not of the budget."""
    import uzswap

    case = CASES[name]
    kernel = _Kernel() if candidate in (MAPPED, SWAPPED) else None
    with tempfile.TemporaryDirectory(prefix="uzswap-bench-") as directory:
        data = case.make(size * MB)
        x, engine = _place(candidate, data, size * MB // 3, directory)
        del data
        before, work = case.prepare(x)
        if kernel:
            kernel.leave(size * MB // 3 + besides - (x.nbytes if candidate == SWAPPED else 0))
        before()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        resident = _resident_bytes("VmRSS:")
        was = uzswap.info(x) if engine else None
        cpu, wall = process_time(), perf_counter()
        work()
        found: dict[str, float] = {"cpu": process_time() - cpu, "wall": perf_counter() - wall}
        found["besides"] = max(0, _resident_bytes("VmHWM:") - resident)
        if was:
            now = uzswap.info(x)
            found |= {"faults": now.faults - was.faults, "loads": now.loads - was.loads}
        print(json.dumps(found), flush=True)
        if kernel:
            kernel.close()
    os._exit(0)


def _measure(name: str, candidate: str, size: int, limit: float, besides: int = 0) -> dict[str, float] | str:
    """What a run took, or why there is nothing to tell."""
    if candidate == SWAPPED and not Path("/proc/swaps").read_text().splitlines()[1:]:
        return "the machine has no swap"
    code = f"from benchmarks.bench_cliffs import run; run({name!r}, {candidate!r}, {size}, {besides})"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return f"not done in {limit:.0f} s"
    if done.returncode:
        return done.stderr.strip().rpartition("\n")[2][:60] or f"ended with {done.returncode}"
    found: dict[str, float] = json.loads(done.stdout)
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, help="Part of a case's or a candidate's name; repeat for more.")
@click.option("--limit", type=float, default=300.0, show_default=True, help="Seconds after which a run is given up.")
@click.option("--json", "to", type=click.Path(dir_okay=False, path_type=Path), help="Write everything measured here.")
@click.option("--quick", is_flag=True, help="Less data: to see that it works.")
def main(only: tuple[str, ...], limit: float, to: Path | None, quick: bool) -> None:
    """Orders of access that come back to everything, under a budget of a third."""
    names = [name for name in CASES if any(word in name for word in only)] or list(CASES)
    candidates = (RESIDENT, PAGED, BY_SIGNAL, MAPPED, SWAPPED)
    chosen = [name for name in candidates if any(word in name for word in only)] or list(candidates)
    title("bench_cliffs: a budget of a third")
    rows = table("what", "by", "CPU s", "wall s", "faults", "loads", "all", "target")
    found: dict[str, Any] = {}
    for name in names:
        case = CASES[name]
        found[name] = {}
        for candidate in chosen:
            if candidate == MAPPED and not case.mapped:
                continue
            size = case.size // 8 if quick else case.size
            besides = 0
            if candidate in (MAPPED, SWAPPED):
                alone = found[name].get(RESIDENT) or _measure(name, RESIDENT, size, limit)
                besides = 0 if isinstance(alone, str) else int(alone["besides"])
            took = _measure(name, candidate, size, limit, besides)
            found[name][candidate] = took
            label = f"{name}; {case.unit}" if case.unit else name
            if isinstance(took, str):
                rows.add_row(label, candidate, took)
                continue
            whole = took["cpu"] * case.units
            said = verdict(whole, case.target, at_most=True) if case.target and candidate in (PAGED, BY_SIGNAL) else ""
            loads = [f"{took[word]:.0f}" if word in took else "" for word in ("faults", "loads")]
            rows.add_row(label, candidate, f"{took['cpu']:.2f}", f"{took['wall']:.2f}", *loads, f"{whole:.1f}", said)
        rows.add_section()
    console.print(rows)
    if to:
        to.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
