"""Trees to look after: a kernel's, of plain files, with as much of a kernel's behaviour as files have."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from uzswap.agent.budget import Budget
from uzswap.agent.config import Config
from uzswap.agent.loop import Agent
from uzswap.agent.records import Records
from uzswap.agent.requests import InlineRequests, Requests
from uzswap.agent.tree import Tree
from uzswap.client.directory import DirectoryRoot

MIB: Final = 1 << 20

STAT: Final = {
    "anon": 400 * MIB, "file": 100 * MIB, "kernel": 0, "zswap": 0, "zswapped": 0, "zswpwb_proactive_b": 0,
    "inactive_anon": 300 * MIB, "active_anon": 100 * MIB, "inactive_file": 50 * MIB, "active_file": 50 * MIB,
    "workingset_activate_anon": 0, "workingset_activate_file": 0, "pgscan": 0, "pgsteal": 0, "pgsteal_proactive": 0,
    "pswpin": 0, "pswpout": 0, "pgmajfault": 0, "zswpin": 0, "zswpout": 0, "zswpwb": 0,
}  # fmt: skip
CALM: Final = "".join(f"{kind} avg10=0.00 avg60=0.00 avg300=0.00 total=0\n" for kind in ("some", "full"))
FILES: Final = {
    "cgroup.controllers": "memory\n", "memory.current": f"{500 * MIB}\n", "memory.min": "0\n", "memory.reclaim": "",
    "memory.swap.current": "0\n", "memory.swap.max": "max\n", "memory.zswap.writeback": "1\n",
    "memory.pressure": CALM, "io.pressure": CALM, "cpu.stat": "usage_usec 0\n",
}  # fmt: skip


class KernelTree:
    """A directory that looks like /sys/fs/cgroup, with /proc and /sys/module/zswap beside it."""

    def __init__(self, where: Path) -> None:
        self.top = where / "cgroup"
        self.proc = where / "proc"
        self.zswap = where / "zswap"
        for directory in (self.top, self.proc, self.zswap):
            directory.mkdir()
        (self.top / "cgroup.controllers").write_text("memory\n")
        self.machine()
        (self.zswap / "enabled").write_text("Y\n")
        (self.zswap / "max_pool_percent").write_text("20\n")

    def machine(self, swap: int = 8192, free: int = 8000, pool: int = 0, total: int = 16384) -> None:
        """Set meminfo; MiB."""
        values = {"MemTotal": total, "SwapTotal": swap, "SwapFree": free, "Zswap": pool}
        (self.proc / "meminfo").write_text("".join(f"{key}: {value << 10} kB\n" for key, value in values.items()))

    def make(self, path: str, **files: str) -> Path:
        """Make a cgroup; ``memory_min="1"`` sets memory.min."""
        directory = self.top / path.strip("/")
        directory.mkdir(parents=True)
        for name, text in {**FILES, **{key.replace("_", ".", 1): text for key, text in files.items()}}.items():
            (directory / name).write_text(text)
        self.stat(path)
        return directory

    def stat(self, path: str, **values: int) -> None:
        """Set memory.stat."""
        lines = "".join(f"{key} {value}\n" for key, value in {**STAT, **values}.items())
        (self.top / path.strip("/") / "memory.stat").write_text(lines)

    def remove(self, path: str) -> None:
        shutil.rmtree(self.top / path.strip("/"))

    def asked(self, path: str) -> str:
        """Return what was written to memory.reclaim since the last call."""
        file = self.top / path.strip("/") / "memory.reclaim"
        text = file.read_text()
        file.write_text("")
        return text

    @property
    def tree(self) -> Tree:
        return Tree(DirectoryRoot(), str(self.top), "tree", str(self.proc), str(self.zswap), engine=False)


class Hands:
    """A clock whose hands are moved."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ahead = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.ahead


class Looking:
    """An agent on a tree, whose time is moved by hand."""

    def __init__(
        self, tree: Tree, config: str = "", *, requests: Requests | None = None, state: Path | None = None, **more: Any
    ) -> None:
        self.clock = Hands()
        self.said: list[str] = []
        self.config = Config.parse(config)
        settings = self.config.agent
        self.records = Records(state, settings.record_rows, settings.record_bytes, self.said.append)
        kept = None if state is None else state / "budget.json"
        self.budget = Budget(settings.swapout_rate, settings.swapout_day, kept, self.said.append)
        self.agent = Agent(
            tree, self.config, requests or InlineRequests(tree), self.records, self.budget,
            clock=self.clock, say=self.said.append, **more,
        )  # fmt: skip

    def run(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.agent.round()
            self.clock.now += step
        self.agent.round()

    def gates(self, stage: int | None = None) -> list[str]:
        """Return why something was done or not, in order, of decisions that are still in memory."""
        return [record.gate for record in self.records.recent() if stage in (None, record.stage)]
