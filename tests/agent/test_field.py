"""How agents of this kind have failed in the field, one test a thread."""

from __future__ import annotations

import errno
import logging
import os
import re
from pathlib import Path

import pytest
from tests.agent.test_requests import Carrying, blocking
from tests.agent.trees import MIB, KernelTree, Looking
from tests.support.child import PATIENCE
from tests.support.small_disk import small_tmpfs, use_up

from uzswap.agent.policies.policy import MEMORY, ZSWAP
from uzswap.agent.tree import Tree
from uzswap.client.deadlines import Deadlines
from uzswap.client.directory import DirectoryRoot
from uzswap.client.root import Interrupts


@pytest.fixture
def kernel(tmp_path: Path) -> KernelTree:
    return KernelTree(tmp_path)


class Answers:
    """Memory.reclaim of a tree: answers each request with an errno, having done a part of it."""

    def __init__(self, kernel: KernelTree, monkeypatch: pytest.MonkeyPatch) -> None:
        #: path of the cgroup -> (errno, share of what is asked for)
        self.of: dict[str, tuple[int, float]] = {}
        self.asked: list[tuple[str, int]] = []
        self.done: dict[str, int] = {}

        def write(
            root: object, path: str, data: bytes, *, within: float | None = None, interrupts: Interrupts | None = None
        ) -> None:
            name = f"/{Path(path).parent.name}"
            number, share = self.of.get(name, (0, 1.0))
            words = data.decode().split()
            nbytes = int(words[0])
            if nbytes:
                self.asked.append((name, nbytes))
                self.done[name] = self.done.get(name, 0) + int(nbytes * share)
                key = "zswpwb_proactive_b" if len(words) > 1 else "pgsteal_proactive"
                kernel.stat(name, **{key: self.done[name] // (1 if len(words) > 1 else 4096)}, zswap=900 * MIB)
                if number:
                    raise OSError(number, os.strerror(number), path)

        monkeypatch.setattr("uzswap.client.directory.DirectoryRoot.write", write)


@pytest.fixture
def answers(kernel: KernelTree, monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(kernel, monkeypatch)


NO_STAGE_TWO = "[default]\ntwostage.writeback = false\n"


def test_eagain_is_no_warning_and_the_bytes_are_known(
    kernel: KernelTree, answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    """FreeshardBase/freeshard#154: it warned at every EAGAIN."""
    kernel.make("/a")
    answers.of["/a"] = (errno.EAGAIN, 0.5)
    look = Looking(kernel.tree, NO_STAGE_TWO)
    with caplog.at_level(logging.WARNING):
        look.run(60)
    assert not caplog.records
    assert not [text for text in look.said if "EAGAIN" in text]
    done = [record for record in look.records.recent() if record.errno == errno.EAGAIN]
    assert len(done) >= 9
    assert all(record.asked * 0.4 < record.done <= record.asked for record in done)


def test_a_write_that_blocks_for_ever_is_on_nobody_s_way(kernel: KernelTree) -> None:
    """cofy-x/axern#67: one reclaim write blocked for ever, and starved the only cleaner."""
    a = kernel.make("/a")
    kernel.make("/b")
    with Deadlines() as deadlines:
        tree = Tree(
            DirectoryRoot(deadlines), str(kernel.top), "tree", str(kernel.proc), str(kernel.zswap), engine=False
        )
        with Carrying(tree, 3600.0) as carrying:
            look = Looking(tree, NO_STAGE_TWO, requests=carrying.requests)
            look.agent.round()
            kernel.asked("/b")
            with blocking(a / "memory.reclaim"):
                for _ in range(5):
                    look.clock.now += 6
                    look.agent.round()
                    while carrying.requests.busy(os.stat(kernel.top / "b").st_ino) is not None:
                        assert carrying.ended.wait(PATIENCE)
                        carrying.ended.clear()
                        look.agent.round()
                look.agent.round()
                assert len([record for record in look.records.recent() if record.cgroup == "/b" and record.asked]) >= 2
                assert [record.gate for record in look.records.recent() if record.cgroup == "/a"][-1] == "busy"
            # Without a reader the write ends with EPIPE.
            while carrying.requests.busy(os.stat(a).st_ino) is not None:
                assert carrying.ended.wait(PATIENCE)
                carrying.ended.clear()
                look.agent.round()


def test_nothing_is_asked_for_where_nothing_can_go(kernel: KernelTree, answers: Answers) -> None:
    """FootprintAI/Containarium#1454: a limit below the working set, no swap: 90 minutes of livelock."""
    kernel.make("/a")
    kernel.stat("/a", anon=500 * MIB, file=0, inactive_anon=500 * MIB, active_anon=0, inactive_file=0, active_file=0)
    kernel.machine(swap=0, free=0)
    look = Looking(kernel.tree)
    look.run(60)
    assert answers.asked == []
    assert look.gates(MEMORY) == ["floor"]


def test_scanning_without_progress_ends(kernel: KernelTree, answers: Answers) -> None:
    """actions/actions-runner-controller#4436: a reclaim livelock at memory.max."""
    kernel.make("/a")
    answers.of["/a"] = (errno.EAGAIN, 0.0)
    look = Looking(kernel.tree, '[default]\npolicy = "senpai"\nsenpai.limit_min = 0\n')
    look.run(3600, 2)
    assert len(answers.asked) <= 12


def test_a_subtree_is_judged_by_its_own_hierarchical_counters(kernel: KernelTree, answers: Answers) -> None:
    """Start9Labs/start-technologies#3885: swap of the parent read as 0 while children swap; it named and never acted.

    memory.stat is hierarchical: what is compressed there is known, whatever memory.swap.current says.
    """
    kernel.make("/a", memory_swap="")
    (kernel.top / "a/memory.swap.current").write_text("0\n")
    kernel.stat("/a", zswap=900 * MIB, zswapped=2700 * MIB)
    Looking(kernel.tree, "[default]\ntwostage.age_max = 120\n").run(600, 3)
    assert max(nbytes for _, nbytes in answers.asked) > MIB


def test_swap_that_is_added_later_is_seen(kernel: KernelTree, answers: Answers) -> None:
    """systemd/systemd#36704."""
    kernel.make("/a")
    kernel.stat("/a", anon=500 * MIB, file=0, inactive_anon=500 * MIB, active_anon=0, inactive_file=0, active_file=0)
    kernel.machine(swap=0, free=0)
    look = Looking(kernel.tree, NO_STAGE_TWO)
    look.run(30)
    assert answers.asked == []
    kernel.machine(swap=4096, free=4096)
    look.run(30)
    assert answers.asked


def test_a_fruitless_candidate_is_left_for_the_next(kernel: KernelTree, answers: Answers) -> None:
    """systemd/systemd#23755: the same fruitless candidate for ever."""
    for name in ("/a", "/b"):
        kernel.make(name)
    answers.of["/a"] = (errno.EAGAIN, 0.0)
    Looking(kernel.tree, NO_STAGE_TWO).run(1200, 3)
    counts = {name: sum(one == name for one, _ in answers.asked) for name in ("/a", "/b")}
    assert counts["/a"] <= 12
    assert counts["/b"] >= 150


def test_what_is_available_is_not_total_minus_free(kernel: KernelTree) -> None:
    """systemd/systemd#22965: "used" as total minus free.  Nothing here is decided by MemFree at all."""
    kernel.make("/a")
    machine = kernel.tree.machine()
    (kernel.proc / "meminfo").write_text((kernel.proc / "meminfo").read_text() + "MemFree: 0 kB\nMemAvailable: 0 kB\n")
    assert kernel.tree.machine() == machine


def test_a_cgroup_is_its_inode_and_every_action_is_on_record(kernel: KernelTree, answers: Answers) -> None:
    """systemd/systemd#32687 and #32304: wrong victims, and unreported ones."""
    first = kernel.make("/a")
    look = Looking(kernel.tree, NO_STAGE_TWO)
    look.run(30)
    inode = os.stat(first).st_ino
    os.rename(first, kernel.top / "old")
    second = os.stat(kernel.make("/a")).st_ino
    kernel.remove("/old")
    look.run(30)
    acted = [record for record in look.records.recent() if record.asked]
    assert len(acted) == len(answers.asked)
    assert {record.inode for record in acted} == {inode, second}
    assert [record.asked for record in acted] == [nbytes for _, nbytes in answers.asked]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO, errno.EPERM, errno.ENOMEM, errno.EOPNOTSUPP, errno.ENODEV])
def test_no_errno_ends_the_agent(kernel: KernelTree, answers: Answers, number: int) -> None:
    """systemd/systemd#31573: an EINVAL ended the action."""
    for name in ("/a", "/b"):
        kernel.make(name)
    answers.of["/a"] = (number, 0.0)
    look = Looking(kernel.tree, NO_STAGE_TWO)
    look.run(120)
    assert {record.errno for record in look.records.recent() if record.cgroup == "/a" and record.asked} == {number}
    assert len([name for name, _ in answers.asked if name == "/b"]) >= 15
    assert len([text for text in look.said if "memory.reclaim gave" in text]) == (number != errno.ENODEV)


def test_a_missing_feature_is_said_once(kernel: KernelTree) -> None:
    """koordinator-sh/koordinator#3189: it degraded in silence."""
    for name in ("/a", "/b"):
        (kernel.make(name) / "memory.pressure").unlink()
    look = Looking(kernel.tree)
    look.run(120)
    assert len([text for text in look.said if "memory.pressure" in text]) == 1


def test_a_policy_that_a_tree_has_nothing_for_says_so_once_with_the_remedy(kernel: KernelTree) -> None:
    """The same of a whole policy: farmem needs ages of pages, which no kernel tells."""
    for name in ("/a", "/b"):
        kernel.make(name)
    look = Looking(kernel.tree, '[default]\npolicy = "farmem"\n')
    look.run(300, 3)
    (said,) = [text for text in look.said if "farmem" in text]
    assert "uzswap.cold_age" in said
    assert "choose twostage" in said
    assert set(look.gates()) == {"no ages"}


def test_a_device_that_is_configured_and_never_used_is_said(kernel: KernelTree) -> None:
    """systemd/zram-generator#164."""
    kernel.make("/a")
    kernel.machine(swap=4096, free=4096)
    look = Looking(kernel.tree)
    look.run(10)
    assert len([text for text in look.said if "swap is configured, and unused" in text]) == 1


def test_a_full_disk_leaves_nothing_undone(kernel: KernelTree, answers: Answers) -> None:
    """tobixen/thrash-protect#30: /tmp was full, and frozen processes were never thawed.  Nothing is there to be undone,
    and nothing that is done waits for a disk."""
    kernel.make("/a")
    with small_tmpfs(1 << 20) as disk:
        use_up(disk)
        look = Looking(kernel.tree, NO_STAGE_TWO, state=disk / "state")
        look.run(60)
        assert len(answers.asked) >= 9
        assert len([text for text in look.said if "decisions cannot be written" in text]) == 1
        look.agent.close()


def test_idleness_is_seen_where_there_is_no_pressure(kernel: KernelTree, answers: Answers) -> None:
    """digitaldrywood/detent#1885: PSI 0.00 while dead sessions filled the swap."""
    kernel.make("/a")
    kernel.stat("/a", zswap=900 * MIB, zswapped=2700 * MIB)
    look = Looking(kernel.tree, '[default]\npolicy = "idle"\nidle.after = "1m"\n')
    look.run(600, 3)
    assert answers.asked
    assert look.gates()[0] == "awake"


def test_writing_that_brings_nothing_stops(kernel: KernelTree, answers: Answers) -> None:
    """LMCache/LMCache#5230: 1.24 TiB an hour written for 1.2 % hits.

    All that is written comes back: the budget and its benefit hold it down, whatever the device could take.
    """
    kernel.make("/a")
    look = Looking(kernel.tree, "[default]\ntwostage.age_max = 120\n")
    written = 0
    for i in range(600):
        look.clock.now += 6
        look.agent.round()
        written = sum(record.done for record in look.records.recent() if record.stage == ZSWAP)
        pages = answers.done.get("/a", 0) // 4096
        kernel.stat(
            "/a", zswap=900 * MIB, zswapped=2700 * MIB, zswpwb=pages * 3, pswpin=pages * 3, pgmajfault=pages * 3,
            zswpwb_proactive_b=answers.done.get("/a", 0),
        )  # fmt: skip
        if i == 100:
            after_ten_minutes = written
    # An hour at the full rate would be 3.5 GiB.
    assert written < 256 * MIB
    assert written - after_ten_minutes < written
    assert look.gates(ZSWAP).count("refaults") + look.gates(ZSWAP).count("disk refaults") > 0


def test_an_idle_session_keeps_a_quarter_and_is_left_alone_when_it_wakes(kernel: KernelTree, answers: Answers) -> None:
    """FreeshardBase/freeshard#81, opensandbox-group/OpenSandbox#1448, vm0-ai/vm0#9068, ShreyPaharia/octomux#266: idle
    sessions hold gigabytes."""
    kernel.make("/a")
    look = Looking(kernel.tree, '[default]\npolicy = "idle"\n')
    for i in range(400):
        look.clock.now += 6
        look.agent.round()
        left = max(0, 500 * MIB - answers.done.get("/a", 0))
        (kernel.top / "a/memory.current").write_text(f"{left}\n")
        kernel.stat("/a", inactive_anon=left, active_anon=0, inactive_file=0, active_file=0,
                    pgsteal_proactive=answers.done.get("/a", 0) // 4096)  # fmt: skip
        if i * 6 < 590:
            assert not answers.asked
    assert int((kernel.top / "a/memory.current").read_text()) == pytest.approx(125 * MIB, abs=MIB)
    before = len(answers.asked)
    (kernel.top / "a/cpu.stat").write_text("usage_usec 900000\n")
    (kernel.top / "a/memory.current").write_text(f"{400 * MIB}\n")
    for _ in range(20):
        look.clock.now += 6
        look.agent.round()
    assert len(answers.asked) == before


def test_the_page_has_every_failure_and_every_test() -> None:
    page = (Path(__file__).parents[2] / "docs" / "agent.md").read_text()
    rows = [row.split(" | ") for row in page.splitlines() if re.match(r"\| [\w-]+/[\w-]+#\d+", row)]
    assert len(rows) == 16
    for thread, _, name in rows:
        test = globals()[f"test_{name.strip('`| ')}"]
        first = thread.strip("| ").partition(",")[0].partition(" and ")[0]
        assert first in str(test.__doc__), name
