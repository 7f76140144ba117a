"""A limit that is lowered for a moment is what it was again, whatever happens to whom."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.agent.trees import MIB, KernelTree
from tests.conftest import EngineFactory
from tests.serve.conftest import needs_fuse, private
from tests.support.child import PATIENCE, Child
from tests.support.states import fill

from uzswap import Store
from uzswap.agent.lowered import Lowered
from uzswap.agent.policies import twostage
from uzswap.agent.policies.policy import ZSWAP, Decision, Observation
from uzswap.agent.requests import carry_out
from uzswap.client.directory import DirectoryRoot

__all__ = ["private"]


@pytest.fixture
def limit(tmp_path: Path) -> Path:
    path = tmp_path / "memory.zswap.max"
    path.write_text("max")
    return path


def comes(path: Path, text: str) -> None:
    """Wait until a file has a text; a plain file keeps what is behind a shorter one."""
    deadline = time.monotonic() + PATIENCE
    while not path.read_text().startswith(text):
        assert time.monotonic() < deadline, path.read_text()
        os.sched_yield()


CODE = """
    import sys, threading
    from pathlib import Path
    from uzswap.agent.lowered import Lowered
    lowered = Lowered(Path(sys.argv[2]), print)
    with lowered.to(sys.argv[1], 100, float(sys.argv[3])):
        print(lowered._guard.pid, flush=True)
        threading.Event().wait()
"""


def test_for_a_block(limit: Path, tmp_path: Path) -> None:
    lowered = Lowered(tmp_path / "journal", print)
    for _ in range(2):
        with lowered.to(str(limit), 100, 60.0):
            assert limit.read_text() == "100"
            assert json.loads((tmp_path / "journal").read_text()) == {str(limit): "max"}
        assert limit.read_text() == "max"
    assert not (tmp_path / "journal").exists()
    lowered.close()


def test_when_the_agent_is_killed(limit: Path, tmp_path: Path) -> None:
    with Child(CODE, [str(limit), str(tmp_path / "j"), "3600"]) as child:
        child.read_line()
        assert limit.read_text() == "100"
        os.kill(child.pid, signal.SIGKILL)
        comes(limit, "max")


def test_when_the_agent_takes_longer_than_it_said(limit: Path, tmp_path: Path) -> None:
    with Child(CODE, [str(limit), str(tmp_path / "j"), "0.1"]) as child:
        child.read_line()
        comes(limit, "max")


def test_when_both_are_killed_the_next_agent_does_it(limit: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Child(CODE, [str(limit), str(journal), "3600"]) as child:
        guard = int(child.read_line())
        os.kill(guard, signal.SIGKILL)
        os.kill(child.pid, signal.SIGKILL)
    assert limit.read_text() == "100"
    said: list[str] = []
    Lowered(journal, said.append).restore_left_behind()
    assert limit.read_text() == "max"
    assert len(said) == 1
    assert not journal.exists()


def test_when_the_guard_is_killed_there_is_another(limit: Path) -> None:
    lowered = Lowered(None, print)
    for _ in range(2):
        with lowered.to(str(limit), 100, 60.0):
            assert lowered._guard is not None
            os.kill(lowered._guard.pid, signal.SIGKILL)
            lowered._guard.wait()
        assert limit.read_text() == "max"
    lowered.close()


def test_a_journal_of_nonsense_is_none(tmp_path: Path) -> None:
    for text in ("", "[]", "{", '{"/nowhere": "max"}'):
        (tmp_path / "journal").write_text(text)
        Lowered(tmp_path / "journal", print).restore_left_behind()


def test_stage_two_without_source_pushes_out_over_a_lowered_limit(tmp_path: Path) -> None:
    kernel = KernelTree(tmp_path)
    directory = kernel.make("/a")
    (directory / "memory.zswap.max").write_text("max")
    (directory / "memory.zswap.current").write_text(f"{100 * MIB}\n")
    kernel.stat("/a", zswap=100 * MIB, zswapped=300 * MIB)
    lowered = Lowered(None, print)
    decision = Decision(ZSWAP, 10 * MIB, "open", by_limit=True)
    done = carry_out(kernel.tree.root, str(directory), decision, None, lowered)
    assert done.errno == 0
    assert (directory / "memory.zswap.max").read_text().startswith("max")
    assert (directory / "memory.reclaim").read_text() == f"{10 * MIB}"
    lowered.close()


@pytest.mark.parametrize(
    ("substitute", "expected"), [(False, (0, "no source", False)), (True, (2 * MIB, "open", True))]
)
def test_the_policy_asks_for_it_only_when_it_is_told_to(substitute: bool, expected: tuple[int, str, bool]) -> None:
    seen = Observation(
        0.0, current=500 * MIB, zswap=100 * MIB, zswapped=300 * MIB, unwritable="no source", budget=MIB * 9
    )
    settings, state = twostage.Settings(substitute=substitute, age_max=120.0), twostage.State()
    for i in range(6):
        state, decisions = twostage.step(settings, state, replace(seen, time=30.0 * i))
    second = decisions[-1]
    assert (second.nbytes, second.gate, second.by_limit) == expected


@needs_fuse
def test_on_a_real_tree_what_is_stored_pushes_out_what_is_oldest(engine: EngineFactory, private: Path) -> None:
    z = engine()
    group = z.cgroup("/g")
    handles = fill(z, group, 300, 2000, referenced=False)
    with Store[int, bytes](group) as store, z.mount(private / "m") as mount:
        for i in range(100):
            store[i] = os.urandom(3000)
        lowered = Lowered(None, print)
        directory = f"{mount.path}/cgroup/g"
        decision = Decision(ZSWAP, 100_000, "open", by_limit=True)
        done = carry_out(DirectoryRoot(), directory, decision, None, lowered)
        lowered.close()
        assert done.done > 0
        assert int(group.read("uzswap.disk")) > 0
        assert group.read("memory.zswap.max") == "max\n"
    z.free_many(handles)
