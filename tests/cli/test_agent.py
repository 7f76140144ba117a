"""``uzswap agent`` as it is run: started, killed, started again, asked why."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from tests.agent.trees import KernelTree
from tests.cli.command import started, uzswap
from tests.serve.conftest import needs_fuse
from tests.support.child import PATIENCE
from tests.support.states import fill

from uzswap import Store, Zswap
from uzswap.cli.main import run
from uzswap.client.runtime import engines

#: so that a test need not wait for a default interval
QUICK = (
    "--set", "twostage.tick=50ms", "--set", "twostage.probe=0.5", "--set", "twostage.interval=50ms",
    "--set", "twostage.age_max=0", "--set", "twostage.age_min=0",
)  # fmt: skip


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("how", ["socket", pytest.param("mount", marks=needs_fuse)])
def test_it_does_its_job_on_an_engine_and_says_why(z: Zswap, tmp_path: Path, mount_point: Path, how: str) -> None:
    group = z.cgroup("/jobs/a")
    with Store[int, bytes](group) as store:
        for i in range(500):
            store[i] = os.urandom(500) + bytes(4000)
        where = engines()[0].socket if how == "socket" else str(z.mount(mount_point).path)
        state = ("--state", str(tmp_path))
        root = ("--root", str(where), "--set", "agent.watch=/jobs/*", *state, *QUICK)
        with started("agent", "run", *root) as process:
            while (found := store.stats())["packed"] < 450 or not found["disk_bytes"]:
                assert process.poll() is None
                time.sleep(0.01)  # between two looks: who only looks takes the agent's CPU
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        told = lines(uzswap("agent", "why", "/jobs/a", "--json", *state))
        assert sum(int(str(one["done"])) for one in told if one["stage"] == 1) > 1_000_000
        assert sum(int(str(one["done"])) for one in told if one["stage"] == 2) == int(
            dict(line.split() for line in group.read("memory.stat").splitlines())["zswpwb_proactive_b"]
        )
        assert "asked for" in uzswap("agent", "why", "jobs/a", *state).stdout
        (row,) = lines(uzswap("agent", "status", "--json", *state))
        assert (row["cgroup"], row["policy"]) == ("/jobs/a", "twostage")
        assert "/jobs/a" in uzswap("agent", "status", *state).stdout
        for i in range(500):
            assert len(store[i]) == 4500


def test_a_killed_agent_leaves_nothing_behind_and_the_next_goes_on(z: Zswap, tmp_path: Path) -> None:
    group = z.cgroup("/jobs/a")
    handles = fill(z, group, 2000, 2000, referenced=False)
    before = {name: group.read(name) for name in ("memory.high", "memory.max", "memory.zswap.max", "memory.low")}
    root = ("--root", str(engines()[0].socket), "--set", "agent.watch=/jobs/*", "--state", str(tmp_path), *QUICK)
    for round in range(3):
        with started("agent", "run", *root) as process:
            written = int(group.read("uzswap.disk"))
            while int(group.read("uzswap.disk")) == written and written < 3_900_000:
                assert process.poll() is None
                time.sleep(0.01)  # between two looks: who only looks takes the agent's CPU
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
        assert {name: group.read(name) for name in before} == before, round
    assert uzswap("agent", "run", *root, "--for", "100ms").returncode == 0
    z.free_many(handles)


def test_it_stops_when_it_is_told_to_and_tells_its_manager(tmp_path: Path) -> None:
    kernel = KernelTree(tmp_path)
    kernel.make("/a")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with started("agent", "--root", str(kernel.top), "--state", str(tmp_path / "s"), env=env) as process:
            assert manager.recv(1000) == b"READY=1\nSTATUS=1 cgroups\nWATCHDOG=1"
            assert manager.recv(1000) == b"STATUS=1 cgroups\nWATCHDOG=1"
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        while (told := manager.recv(1000)) != b"STOPPING=1":
            assert b"WATCHDOG=1" in told


def test_a_root_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    done = uzswap("agent", "--root", str(tmp_path / "none"), "--state", str(tmp_path), "--for", "100ms")
    assert done.returncode == 0
    assert "it is looked for again" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "twostage.age_mni=1"), "did you mean age_min?"),
        (("--set", "nonsense"), "NAME=VALUE"),
        (("--for", "soon"), "is no duration"),
        (("--config", "/nowhere.toml"), "cannot be read"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert run(["agent", "run", "--root", str(tmp_path), *arguments]) in (1, 2)
    assert words in capsys.readouterr().err


def test_why_without_any_decisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", "why", "--state", str(tmp_path)]) == 1
    assert "no agent has kept decisions here" in capsys.readouterr().err


def test_the_example_configuration_is_one(tmp_path: Path) -> None:
    kernel = KernelTree(tmp_path)
    kernel.make("/user.slice")
    example = Path(__file__).parents[2] / "packaging" / "agent.toml"
    done = uzswap(
        "agent",
        "--root",
        str(kernel.top),
        "--config",
        str(example),
        "--state",
        str(tmp_path),
        "--for",
        "50ms",
        "--dry-run",
    )
    assert done.returncode == 0, done.stderr
