"""The agent on trees: whom it looks after, and what never happens."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tests.agent.trees import CALM, MIB, KernelTree, Looking

from uzswap.agent.policies.policy import MEMORY, ZSWAP
from uzswap.client.root import Cgroup, Interrupts


@pytest.fixture
def kernel(tmp_path: Path) -> KernelTree:
    return KernelTree(tmp_path)


def test_it_asks_once_a_round_in_whole_pages(kernel: KernelTree) -> None:
    kernel.make("/a")
    look = Looking(kernel.tree)
    look.run(5)
    asked = kernel.asked("/a")
    # 500 MiB, of which all can go, times 0.01.
    assert asked.startswith(str(int(500 * MIB * 0.01) // 4096 * 4096))
    assert look.agent.watched == ["/a"]


def test_nothing_but_memory_reclaim_is_ever_written(kernel: KernelTree) -> None:
    """So that one that is killed at any moment leaves no limit behind."""
    kernel.make("/a")
    kernel.make("/b", memory_pressure=CALM.replace("0.00", "9.00"))
    before = {path: path.read_text() for path in kernel.top.rglob("*") if path.is_file()}
    for policy in ("senpai", "tmo", "refault", "farmem", "idle", "twostage"):
        Looking(kernel.tree, f'[default]\npolicy = "{policy}"\n').run(120, 3)
    after = {path: path.read_text() for path in kernel.top.rglob("*") if path.is_file()}
    assert {path.name for path in after if after[path] != before[path]} == {"memory.reclaim"}


def test_a_dry_run_decides_and_asks_for_nothing(kernel: KernelTree) -> None:
    kernel.make("/a")
    look = Looking(kernel.tree, dry_run=True)
    kernel.asked("/a")
    look.run(30)
    assert kernel.asked("/a") in ("", "0 source=zswap", "0 source=zswap min_age=0")
    assert "dry run" in look.gates(MEMORY)


def test_globs_opt_in_and_out_and_single_cgroups(kernel: KernelTree) -> None:
    for path in ("/user", "/user/a", "/user/b", "/user/b/deep", "/system", "/system/c"):
        kernel.make(path)
    look = Looking(
        kernel.tree,
        """
        [agent]
        watch = ["/user/**", "/system/*"]
        ignore = ["/user/b/*"]
        [cgroup."/user/a"]
        enabled = false
        """,
    )
    look.run(1)
    assert look.agent.watched == ["/system/c", "/user", "/user/b"]


def test_cgroups_that_come_and_go_are_no_errors(kernel: KernelTree) -> None:
    kernel.make("/a")
    look = Looking(kernel.tree)
    look.run(7)
    kernel.make("/b")
    kernel.remove("/a")
    look.run(14)
    assert look.agent.watched == ["/b"]
    assert not [text for text in look.said if "/a" in text and "ENOENT" in text]


def test_another_cgroup_of_the_same_name_begins_anew(kernel: KernelTree) -> None:
    kernel.make("/a")
    look = Looking(kernel.tree)
    look.run(60)
    grown = look.records.recent()[-1].inputs["share"]
    assert grown > 0.01
    # Made before the old one goes, so that no file system gives the inode out again.
    os.rename(kernel.top / "a", kernel.top / "old")
    kernel.make("/a")
    kernel.remove("/old")
    look.run(13)
    shares = [record.inputs["share"] for record in look.records.recent() if record.stage == MEMORY]
    assert shares.count(0.01) == 2


def test_a_root_that_goes_away_and_comes_back(kernel: KernelTree) -> None:
    """Unmounted, and mounted again."""
    kernel.make("/a")
    look = Looking(kernel.tree)
    look.run(7)
    os.rename(kernel.top, kernel.top.with_name("away"))
    look.run(30)
    os.rename(kernel.top.with_name("away"), kernel.top)
    kernel.asked("/a")
    look.run(700, 5)
    assert kernel.asked("/a")
    assert [text for text in look.said if "looked for again" in text or "there again" in text] == [
        text for text in look.said if text.startswith("tree ")
    ]


def test_a_clock_that_is_set_back_changes_nothing(kernel: KernelTree) -> None:
    kernel.make("/a")
    look = Looking(kernel.tree)
    look.run(20)
    look.clock.ahead -= 10 * 86400
    kernel.asked("/a")
    look.run(60)
    assert kernel.asked("/a")


class _Refusing:
    """A tree's root that refuses requests with an errno."""

    def __init__(self, number: int, *, done: int = 0) -> None:
        self.number = number
        self.done = done
        self.asked: list[str] = []

    def put(self, kernel: KernelTree, monkeypatch: pytest.MonkeyPatch) -> None:
        tree = kernel
        taken = 0

        def write(
            root: object, path: str, data: bytes, *, within: float | None = None, interrupts: Interrupts | None = None
        ) -> None:
            nonlocal taken
            if data.startswith(b"0 "):
                return
            self.asked.append(data.decode())
            taken += self.done
            tree.stat("/a", pgsteal_proactive=taken // 4096)
            raise OSError(self.number, os.strerror(self.number))

        monkeypatch.setattr("uzswap.client.directory.DirectoryRoot.write", write)


def test_fruitless_requests_back_off_exponentially_and_the_next_cgroup_gets_its_turn(
    kernel: KernelTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.make("/a")
    refusing = _Refusing(errno.EAGAIN)
    refusing.put(kernel, monkeypatch)
    look = Looking(kernel.tree, "[default]\ntwostage.writeback = false\n")
    look.run(7200, 3)
    # Without a rest it would be 1200; with 12, 24, ... 600 s it is two, six times one, and then one in ten minutes.
    assert 12 <= len(refusing.asked) <= 24
    assert "resting" in look.gates() or len(look.records.recent()) < 200


def test_progress_ends_the_rest(kernel: KernelTree, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.make("/a")
    refusing = _Refusing(errno.EAGAIN, done=64 * MIB)
    refusing.put(kernel, monkeypatch)
    Looking(kernel.tree, "[default]\ntwostage.writeback = false\n").run(600, 3)
    assert len(refusing.asked) >= 95


def test_stage_two_writes_what_it_may_and_no_more(kernel: KernelTree) -> None:
    """1 MiB a second: of 600 s of writing no more than that, and two minutes saved up.

    A kernel writes whole pages: of what is compressed three to one it is asked for a third.
    """
    kernel.make("/a")
    kernel.stat("/a", zswap=2000 * MIB, zswapped=6000 * MIB)
    kernel.machine(pool=3000)
    look = Looking(kernel.tree, "[default]\ntwostage.age_max = 120\n")
    look.run(600)
    asked = [record.asked for record in look.records.recent() if record.stage == ZSWAP]
    # Nothing is written by plain files, so all is given back: each is within what may be saved up.
    assert asked
    assert max(asked) == 40 * MIB


def test_what_a_kernel_wrote_is_charged_in_whole_pages(kernel: KernelTree, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.make("/a")
    amounts: dict[str, int] = {"zswap": 20 * MIB, "zswapped": 60 * MIB}
    kernel.stat("/a", **amounts)
    kernel.machine(pool=3000)

    def write(root: object, path: str, data: bytes, **more: object) -> None:
        nbytes, *key = data.split()
        if key:
            amounts["zswpwb_proactive_b"] = amounts.get("zswpwb_proactive_b", 0) + int(nbytes)
            kernel.stat("/a", **amounts)

    monkeypatch.setattr("uzswap.client.directory.DirectoryRoot.write", write)
    look = Looking(kernel.tree, "[default]\ntwostage.age_max = 120\n")
    look.run(200)
    assert amounts["zswpwb_proactive_b"] > 0
    assert look.budget.spent == pytest.approx(3 * amounts["zswpwb_proactive_b"], abs=10)


def test_a_cgroup_is_seen_as_its_files_are(kernel: KernelTree) -> None:
    kernel.make("/a")
    cgroup: Cgroup = kernel.tree.cgroup("/a")
    assert cgroup.read("memory.current") == f"{500 * MIB}\n"


def test_without_zswap_stage_one_writes_to_the_device_and_has_the_budget_too(kernel: KernelTree) -> None:
    """What oomd has swapout_bps_threshold for: reclaim goes straight to the swap device then."""
    kernel.make("/a")
    kernel.stat("/a", file=0, inactive_file=0, active_file=0)
    (kernel.zswap / "enabled").write_text("N\n")
    look = Looking(kernel.tree, '[agent]\nswapout_day = "100M"\n')
    look.run(6)
    assert kernel.asked("/a").startswith("1048576")  # a hundredth of 100 MiB
    (kernel.top / "a/memory.swap.current").write_text(f"{100 * MIB}\n")
    look.run(60)
    assert look.budget.available(look.clock.wall()) == 0
    assert look.gates(MEMORY)[-1] == "floor"
    kernel.asked("/a")
    look.run(600, 3)
    assert kernel.asked("/a") == ""
