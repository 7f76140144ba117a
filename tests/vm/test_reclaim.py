"""One-shot requests to the kernel's memory.reclaim: what is asked for, what is had, and how one ends before its end."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.command import uzswap
from tests.vm.machine import KERNEL, MIB, PAGE, Worker, cgroup, needs_vm, settings, stat

from uzswap.agent.policies.policy import MEMORY, Decision
from uzswap.agent.requests import carry_out
from uzswap.client.deadlines import Deadlines
from uzswap.client.directory import DirectoryRoot
from uzswap.client.root import Cgroup

pytestmark = needs_vm


@pytest.fixture
def group() -> Iterator[Path]:
    with cgroup("requests") as group:
        yield group


@pytest.fixture
def worker(group: Path) -> Iterator[Worker]:
    with Worker(group) as worker:
        yield worker


def anon_and_file(group: Path) -> tuple[int, int]:
    found = stat(group)
    return found["anon"], found["file"]


def test_a_request_takes_what_it_says_and_tells_it_by_the_counters(group: Path, worker: Worker) -> None:
    worker.fill("cold", 32 * MIB)
    before = sum(anon_and_file(group))
    done = carry_out(DirectoryRoot(), str(group), Decision(MEMORY, 8 * MIB, "open"), None)
    assert done.errno == 0
    assert done.done == pytest.approx(before - sum(anon_and_file(group)), abs=MIB)
    assert 8 * MIB <= done.done + MIB <= 12 * MIB
    assert worker.wrong("cold") == 0


def test_more_than_there_is_gives_eagain_and_what_there_was(group: Path, worker: Worker) -> None:
    worker.fill("cold", 16 * MIB)
    done = carry_out(DirectoryRoot(), str(group), Decision(MEMORY, 256 * MIB, "open"), None)
    assert done.errno == errno.EAGAIN
    assert done.done >= 14 * MIB
    told = uzswap("reclaim", str(group), "256M")
    assert told.returncode == 75, told.stderr
    assert worker.wrong("cold") == 0


@pytest.mark.skipif(KERNEL.startswith("6.1."), reason="memory.reclaim takes swappiness= from 6.9 on")
def test_swappiness_says_which_of_both_goes(group: Path, worker: Worker, tmp_path: Path) -> None:
    # On the swap disk's neighbour there is no file system: a file of the root, which comes by 9p, is in the page cache.
    worker.fill("cold", 16 * MIB)
    anon, _ = anon_and_file(group)
    with pytest.raises(OSError, match="less was reclaimed") as caught:
        Cgroup(DirectoryRoot(), str(group), "/a").write("memory.reclaim", b"64M swappiness=0")
    assert caught.value.errno == errno.EAGAIN
    assert anon_and_file(group)[0] == pytest.approx(anon, abs=MIB)
    Cgroup(DirectoryRoot(), str(group), "/a").write("memory.reclaim", b"8M swappiness=200")
    assert anon_and_file(group)[0] <= anon - 7 * MIB


@pytest.mark.parametrize("how", ["a signal", "a process of its own"])
def test_a_request_that_takes_too_long_is_interrupted(group: Path, worker: Worker, how: str) -> None:
    worker.fill("cold", 96 * MIB)
    with Deadlines() as deadlines:
        root = DirectoryRoot(deadlines if how == "a signal" else None)
        done = carry_out(root, str(group), Decision(MEMORY, 96 * MIB, "open"), 0.2)
    assert done.errno == errno.EINTR
    assert done.done < 90 * MIB
    assert stat(group)["anon"] > PAGE
    # It is over: the next one is taken.
    assert carry_out(DirectoryRoot(), str(group), Decision(MEMORY, MIB, "open"), None).errno == 0


def test_what_a_kernel_does_not_take_is_refused_in_words_and_takes_nothing(group: Path, worker: Worker) -> None:
    worker.fill("cold", 8 * MIB)
    before, anon = settings(), stat(group)["anon"]
    for text, words in (
        (b"1M source=zswap", "takes the proactive writeback series"),
        (b"0 source=zswap", "takes the proactive writeback series"),
        (b"nonsense", "does not take that"),
    ):
        with pytest.raises(OSError, match=words) as caught:
            Cgroup(DirectoryRoot(), str(group), "/a").write("memory.reclaim", text)
        assert caught.value.errno == errno.EINVAL
    assert stat(group)["anon"] >= anon - MIB
    assert settings() == before


def test_doctor_says_what_the_agent_would_have(group: Path) -> None:
    done = uzswap("doctor")
    print(done.stdout)
    assert "memory to zswap" in done.stdout
    assert (
        subprocess.run(["cat", "/sys/module/zswap/parameters/enabled"], capture_output=True, text=True).stdout == "Y\n"
    )
