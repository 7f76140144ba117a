"""The default policy on a workload whose hot, cold and re-heated pages are known: a real engine, a virtual clock."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from tests.conftest import EngineFactory

from uzswap import Zswap
from uzswap.agent.budget import Budget
from uzswap.agent.config import Config
from uzswap.agent.loop import Agent
from uzswap.agent.policies.policy import MEMORY, ZSWAP
from uzswap.agent.records import Records
from uzswap.agent.requests import InlineRequests
from uzswap.agent.tree import Tree
from uzswap.replay.lengths import MEMORY as LENGTHS
from uzswap.replay.lengths import class_of, payloads
from uzswap.replay.machine import Pages, Virtual, VirtualRoot
from uzswap.replay.traces import PAGE

HOT, COLD, WARM = range(200), range(200, 4200), range(4200, 5200)
ZSWAP_COST, DISK_COST = 40e-6, 470e-6


class Machine:
    """Pages in a cgroup, and an agent that looks after it."""

    def __init__(self, z: Zswap, config: str = "") -> None:
        count = 5200
        self.z = z
        self.cgroup = z.cgroup(VirtualRoot.PATH)
        self.pages = Pages(z, self.cgroup, count, payloads(LENGTHS), class_of(count, len(LENGTHS)))
        self.clock = Virtual(z)
        self.root = VirtualRoot(z, self.pages, self.clock, count * PAGE)
        tree = Tree(self.root, "/cgroup", "machine", "", "/zswap/parameters", engine=True)
        parsed = Config.parse(f'[agent]\nwatch = ["{VirtualRoot.PATH}"]\n{config}')
        self.records = Records(None, 1, 1, print)
        self.budget = Budget(parsed.agent.swapout_rate, parsed.agent.swapout_day, None, print)
        self.agent = Agent(tree, parsed, InlineRequests(tree), self.records, self.budget, clock=self.clock, say=str)
        #: seconds lost, of how many
        self.lost = 0.0

    def access(self, pages: Iterable[int]) -> None:
        """Access pages, each once."""
        numbers = list(pages)
        now = self.clock.monotonic()
        loads = self.pages.access(numbers, [now] * len(numbers), [DISK_COST] * len(numbers), ZSWAP_COST)
        self.lost += loads.zswap_seconds + loads.disk_seconds
        self.root.memory.add(loads.zswap_seconds + loads.disk_seconds, 1.0)
        self.root.io.add(loads.disk_seconds, 1.0)

    def run(self, seconds: int, *, warm: bool = False) -> None:
        """Let time pass: the hot pages are accessed every second, the warm ones, if they are, every four."""
        for second in range(seconds):
            self.clock.set(self.clock.monotonic() + 1.0)
            self.access(HOT)
            if warm:
                self.access(page for page in WARM if page % 4 == second % 4)
            self.agent.round()

    def where(self, pages: Iterable[int]) -> dict[str, int]:
        """Return how many pages are where."""
        found = {"memory": 0, "zswap": 0, "disk": 0}
        for page in pages:
            handle = self.pages.handle(page)
            found[self.z.where(handle) if handle else "memory"] += 1
        return found

    def counter(self, key: str) -> int:
        return int(dict(line.split() for line in self.cgroup.read("memory.stat").splitlines())[key])

    def close(self) -> None:
        self.pages.close()


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine(max_pool="64M")


@pytest.mark.slow
def test_cold_goes_to_disk_hot_stays_and_what_is_heated_again_is_left_alone(z: Zswap) -> None:
    machine = Machine(z)
    machine.access([*COLD, *WARM])
    machine.run(1800)
    # Half an hour: a quarter is taken a round, and what is in zswap for two minutes goes on, once caution is gone.
    for cold in (COLD, WARM):
        assert machine.where(cold)["disk"] >= 0.9 * len(cold)
    assert machine.where(HOT)["memory"] >= 0.9 * len(HOT)
    calm = machine.lost
    assert calm < 0.005 * 1800
    written = machine.counter("zswpwb_proactive_b")

    machine.access(WARM)
    machine.run(600, warm=True)
    assert machine.where(WARM)["memory"] >= 0.9 * len(WARM)
    assert machine.where(COLD)["disk"] >= 0.9 * len(COLD)
    assert machine.where(HOT)["memory"] >= 0.9 * len(HOT)
    gates = [record.gate for record in machine.records.recent() if record.stage == ZSWAP]
    assert "disk refaults" in gates or "refaults" in gates
    # What was heated again is not written again, as it would be in each two minutes.
    more = machine.counter("zswpwb_proactive_b") - written
    assert more < 0.5 * written
    assert machine.lost - calm < 0.01 * 600 + len(WARM) * DISK_COST
    machine.close()
    z.check()


def test_stage_one_keeps_what_is_hot_in_memory(z: Zswap) -> None:
    machine = Machine(z, "[default]\ntwostage.writeback = false\n")
    machine.access(COLD)
    machine.run(600)
    found = machine.where(COLD)
    assert found["disk"] == 0
    assert found["zswap"] >= 0.95 * len(COLD)
    assert machine.where(HOT)["memory"] >= 0.9 * len(HOT)
    assert machine.counter("zswpwb") == 0
    machine.close()


def test_the_write_budget_holds(z: Zswap) -> None:
    """1 MiB in 24 hours, of 5 MiB that could go; the last entry may go over, and is told."""
    machine = Machine(z, 'swapout_day = "1M"\n')
    machine.access(COLD)
    machine.run(900)
    written = machine.counter("zswpwb_proactive_b")
    assert written + PAGE >= 1 << 20
    assert written <= (1 << 20) + PAGE
    assert [record.gate for record in machine.records.recent() if record.stage == ZSWAP][-1] == "budget"
    machine.close()


def test_every_request_is_on_record(z: Zswap) -> None:
    machine = Machine(z)
    machine.access(COLD)
    machine.run(300)
    done = {stage: sum(one.done for one in machine.records.recent() if one.stage == stage) for stage in (MEMORY, ZSWAP)}
    assert done[MEMORY] == machine.counter("pgsteal_proactive") * PAGE
    assert done[ZSWAP] == machine.counter("zswpwb_proactive_b")
    machine.close()
