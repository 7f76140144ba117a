"""What the agent says: words, numbers, and to the service manager."""

from __future__ import annotations

import errno
import socket
import urllib.request
from pathlib import Path

import pytest
from tests.agent.trees import KernelTree, Looking

from uzswap.agent.explain import GATES, explain
from uzswap.agent.metrics import Metrics
from uzswap.agent.notify import notify, watchdog_interval
from uzswap.agent.records import Record


def record(gate: str, asked: int = 0, done: int = 0, number: int = 0, **inputs: float) -> Record:
    return Record(1e9, 1e9, 1, 7, "/a", "twostage", 1, gate, inputs, asked, done, number, 0.25)


@pytest.mark.parametrize("gate", GATES)
def test_every_reason_has_words_with_and_without_its_inputs(gate: str) -> None:
    assert "{" not in explain(record(gate))
    full = record(gate, lost=0.2, came_back=0.3, floor=4096, age=300, cpu=0.1, faults=3, quiet=700)
    assert "some" not in explain(full).split("for", 1)[1]


def test_eagain_is_success_in_part() -> None:
    text = explain(record("open", 10 << 20, 3 << 20, errno.EAGAIN, open=1.0))
    assert "3.0 MiB of 10.0 MiB asked for, no more could go just now, in 0.250 s" in text


def test_metrics_count_by_cgroup_stage_and_gate_and_are_served(tmp_path: Path) -> None:
    kernel = KernelTree(tmp_path)
    kernel.make("/a")
    look = Looking(kernel.tree)
    look.run(60)
    server, thread = look.agent.metrics.serve(0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert 'uzswap_agent_decisions_total{cgroup="/a",gate="open",stage="memory"}' in text
    assert 'uzswap_agent_asked_bytes_total{cgroup="/a",stage="memory"}' in text
    assert "uzswap_agent_cgroups 1.0" in text
    assert "uzswap_agent_write_budget_bytes" in text


def test_metrics_of_a_cgroup_that_is_gone_go() -> None:
    metrics = Metrics()
    metrics.add(record("open", 4096, 4096, errno.EAGAIN))
    assert any(values for name, *_, values in metrics.samples() if "errors" in name)
    metrics.forget("/a")
    assert not any(values for *_, labels, values in metrics.samples() if labels)


def test_the_service_manager_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        assert notify("READY=1\nSTATUS=3 cgroups", {"NOTIFY_SOCKET": path})
        assert manager.recv(100) == b"READY=1\nSTATUS=3 cgroups"
        abstract = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with abstract:
            abstract.bind("\0uzswap-test-notify")
            assert notify("WATCHDOG=1", {"NOTIFY_SOCKET": "@uzswap-test-notify"})
            assert abstract.recv(100) == b"WATCHDOG=1"
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})


def test_the_watchdog_is_fed_twice_as_often_as_it_barks() -> None:
    assert watchdog_interval({"WATCHDOG_USEC": "30000000"}) == 15.0
    assert watchdog_interval({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_interval({}) is None
