"""The agent on a kernel's own files: what is cold goes, what is hot stays, nothing is written but memory.reclaim."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.vm.machine import KERNEL, MIB, TOP, Worker, Writes, agent, cgroup, needs_vm, settings, stat

from uzswap.agent.policies.policy import MEMORY, ZSWAP
from uzswap.agent.records import read_records

pytestmark = needs_vm

#: rounds of a second instead of six: emulated time is dear
TICK = "twostage.tick=1s"


def pressure(group: Path) -> int:
    """Microseconds for which some process of a cgroup waited for memory, ever."""
    return int((group / "memory.pressure").read_text().split("total=")[1].split()[0])


def test_a_write_to_a_control_file_is_seen(tmp_path: Path) -> None:
    """What the others rely on: that nothing was written is told by a watch that would have seen it."""
    with cgroup("watched") as group, Writes(group, TOP) as writes:
        assert writes.seen() == set()
        (group / "memory.high").write_text("max")
        assert writes.seen() == {group / "memory.high"}


def test_cold_memory_goes_to_zswap_and_hot_memory_stays(tmp_path: Path) -> None:
    before = settings()
    with cgroup("a") as group, Worker(group) as worker:
        worker.fill("cold", 48 * MIB)
        worker.fill("hot", 8 * MIB)
        worker.fill("warm", 8 * MIB)
        worker.keep("hot")
        with (
            Writes(group, group.parent, TOP, Path("/sys/module/zswap/parameters")) as writes,
            agent(tmp_path, TICK) as on,
        ):
            began = time.monotonic()
            on.until(
                "the cold part is in zswap", lambda: worker.resident("cold") < 0.1 and worker.resident("warm") < 0.1
            )
            there = stat(group)
            assert there["zswapped"] >= 0.9 * 56 * MIB
            assert there["zswap"] < 0.6 * there["zswapped"]
            assert worker.resident("hot") >= 0.9
            calm, at = pressure(group), there["zswpin"]
            # Its gate is at half a percent of time.
            assert calm < 0.005 * 1e6 * (time.monotonic() - began)

            # What is used again comes back, and is left alone.
            worker.touch("warm")
            worker.keep("hot", "warm")
            on.rounds(30)
            assert min(worker.resident("warm"), worker.resident("hot")) >= 0.9
            assert worker.resident("cold") < 0.1
            print(
                f"stalled {calm} us to here, {pressure(group) - calm} us with the warm part, "
                f"{stat(group)['zswpin'] - at} pages came back"
            )
            assert writes.seen() == {group / "memory.reclaim"}
        assert settings(group) == {
            **before,
            **{path: text for path, text in settings().items() if path.startswith(str(group.parent))},
        }
        assert worker.wrong("cold") == worker.wrong("warm") == worker.wrong("hot") == 0
    found = read_records(tmp_path, "/slice/a")
    asked = [record for record in found if record.asked]
    # It stays under its gate: nothing is asked for while that is closed.
    assert asked
    assert all(record.stage == MEMORY and record.inputs["open"] > 0 for record in asked)
    assert {record.gate for record in found if record.stage == ZSWAP} == {"no source"}
    said = (tmp_path / "said").read_text().splitlines()
    print(*said, sep="\n")
    assert len([line for line in said if "source=zswap" in line]) == 1
    assert stat(TOP).get("zswpwb", 0) == 0


def test_a_killed_agent_has_changed_no_setting(tmp_path: Path) -> None:
    with cgroup("b") as group, Worker(group) as worker:
        worker.fill("cold", 16 * MIB)
        before = settings()
        with agent(tmp_path, TICK) as on:
            on.until("it has asked for memory", lambda: stat(group)["zswapped"] > MIB)
            on.process.send_signal(signal.SIGKILL)
        assert settings() == before
        assert worker.wrong("cold") == 0


@pytest.mark.skipif(KERNEL.startswith("6.1."), reason="its zswap has no memory.zswap.writeback, nor an LRU a cgroup")
def test_a_substitute_for_stage_two_writes_to_the_disk_and_is_undone_even_if_the_agent_is_killed(
    tmp_path: Path,
) -> None:
    """What is stored while the limit is lowered uses up second chances first, and goes to the disk itself meanwhile."""

    def on_disk(group: Path) -> int:
        return int((group / "memory.swap.current").read_text()) - stat(group)["zswapped"]

    def written() -> bool:
        return any(one.stage == ZSWAP and one.done for one in read_records(tmp_path, "/slice/c"))

    with cgroup("c") as group, Worker(group) as worker:
        worker.fill("cold", 32 * MIB)
        before = settings()
        # A hundredth a round, so that there is something left to be stored.
        given = ("twostage.growth=1", "twostage.interval=2s", "twostage.age_min=2s", "twostage.age_max=2s", TICK)
        with agent(tmp_path, "twostage.substitute=true", *given) as on:
            on.until("pages are on the disk", lambda: on_disk(group) > MIB)
            on.until("that is on record", written)  # a kill loses the decisions of some seconds
            on.process.send_signal(signal.SIGKILL)
            on.process.wait()
            on.guarded("the limit is what it was", lambda: settings() == before)
        assert worker.wrong("cold") == 0


SESSIONS, SESSION = 10, 4 * MIB
#: seconds that a page takes from zswap and from a device: TMO's p90 of compressed memory and of its fastest SSD
ZSWAP_LOAD, DISK_LOAD = 40e-6, 470e-6


def test_idle_sessions_keep_a_quarter_and_wake_from_memory(tmp_path: Path) -> None:
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(stack.enter_context(cgroup(f"session-{i}")))) for i in range(SESSIONS)]
        for worker in workers:
            worker.fill("own", SESSION)
        began = [int((worker.cgroup / "memory.current").read_text()) for worker in workers]
        given = ("policy=idle", "idle.after=5s", "idle.tick=1s", "idle.steps=2")
        with agent(tmp_path, *given) as on:
            on.until(
                "all of them are asleep, and small",
                lambda: all(
                    int((worker.cgroup / "memory.current").read_text()) <= 0.25 * before + MIB
                    for worker, before in zip(workers, began, strict=True)
                ),
            )
            faults, seconds = [], []
            for worker in workers:
                before = stat(worker.cgroup)
                seconds.append(worker.touch("own"))
                after = stat(worker.cgroup)
                read = after.get("pswpin", 0) - before.get("pswpin", 0)
                faults.append((after["zswpin"] - before["zswpin"], read))
                assert after.get("zswpwb", 0) == 0
        for worker in workers:
            assert worker.wrong("own") == 0
    print(
        f"{SESSIONS} sessions of {SESSION >> 20} MiB: they kept {sum(began) >> 20} MiB awake; "
        f"woke with at most {max(faults)} pages from zswap and disk, in at most {max(seconds):.2f} s, emulated"
    )
    # With so few, the 95th percentile is the worst but one at best: the worst is taken.
    assert max(zswap * ZSWAP_LOAD + disk * DISK_LOAD for zswap, disk in faults) < 2.0
    assert all(disk == 0 for _, disk in faults)
