"""Run other people's test suites twice, without and with paged arrays, and compare which tests fail.

    python -m tests.compat.compare            everything
    python -m tests.compat.compare numpy.fft  one suite, or several

A suite runs in two processes of its own, so nothing of one is in the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: numpy's own tests of data handlers, which expect that nobody has set one, and need a C compiler.
LEFT_OUT = ("--ignore-glob=*/test_mem_policy.py",)

#: suite -> arguments of pytest.  numpy's are whole; of the others a module that computes with large arrays.
SUITES: dict[str, tuple[str, ...]] = {
    "numpy._core": ("--pyargs", "numpy._core", *LEFT_OUT),
    "numpy.ma": ("--pyargs", "numpy.ma"),
    "numpy.linalg": ("--pyargs", "numpy.linalg"),
    "numpy.fft": ("--pyargs", "numpy.fft"),
    "pandas": ("--pyargs", "pandas.tests.groupby.test_groupby"),
    "sklearn": ("--pyargs", "sklearn.cluster.tests.test_k_means"),
}
MIN_BYTES = "4K"
BUDGET = "16M"


@dataclass
class Run:
    """One run of a suite."""

    outcomes: dict[str, str]
    facts: dict[str, int]
    seconds: float
    said: str

    def failed(self) -> set[str]:
        return {test for test, outcome in self.outcomes.items() if outcome == "failed"}

    def count(self, outcome: str) -> int:
        return sum(1 for found in self.outcomes.values() if found == outcome)


@dataclass
class Comparison:
    """A suite without and with paged arrays."""

    suite: str
    plain: Run
    paged: Run
    #: failed in one run only
    different: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.different = self.plain.failed() ^ self.paged.failed()

    def __str__(self) -> str:
        facts = self.paged.facts
        line = (
            f"{self.suite}: {self.plain.count('passed')} passed and {len(self.plain.failed())} failed in "
            f"{self.plain.seconds:.0f} s; paged {self.paged.count('passed')} and {len(self.paged.failed())} in "
            f"{self.paged.seconds:.0f} s, {facts.get('faults', 0)} faults, {facts.get('evicted', 0)} pages evicted, "
            f"peak {facts.get('peak', 0) >> 10} KiB, served over the limit {facts.get('oom', 0)} times"
        )
        return "\n".join([line, *(f"  differs: {test}" for test in sorted(self.different))])


def run(arguments: tuple[str, ...], *, paged: bool, timeout: float) -> Run:
    """Run pytest on a suite.  A process that dies, or takes too long, is an exception with what it said."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "outcomes.json"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
            "UZSWAP_COMPAT_OUT": str(out),
        }
        if paged:
            environment |= {"UZSWAP_COMPAT_MIN": MIN_BYTES, "UZSWAP_COMPAT_MAX": BUDGET}
        command = [sys.executable, "-X", "faulthandler", "-m", "pytest", "-c", os.devnull, "--rootdir", scratch]
        command += ["-q", "-p", "no:cacheprovider", "-p", "tests.compat.plugin", *arguments]
        started = time.monotonic()
        done = subprocess.run(
            command,
            env=environment,
            cwd=scratch,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if not out.exists():
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-8000:]}")
        found = json.loads(out.read_text())
        return Run(found["outcomes"], found["facts"], time.monotonic() - started, done.stdout)


def compare(suite: str, arguments: tuple[str, ...] | None = None, *, timeout: float = 7200) -> Comparison:
    """Run a suite, or with arguments for pytest what these say instead, in both ways."""
    wanted = SUITES[suite] if arguments is None else arguments
    return Comparison(suite, run(wanted, paged=False, timeout=timeout), run(wanted, paged=True, timeout=timeout))


def main(suites: list[str]) -> int:
    different = 0
    for suite in suites or SUITES:
        comparison = compare(suite)
        print(comparison, flush=True)
        different += len(comparison.different)
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
