"""Connections are limited: nobody can use up the program's descriptors or its stderr, and everybody is served."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from tests.conftest import EngineFactory
from tests.support.child import Child

from uzswap import Zswap
from uzswap.client.client import Client
from uzswap.serve import server as server_module

PATIENCE = 240.0

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

#: Serves an engine and does what it is told: one line in, one line out.
SERVES = """
    import os, resource, sys, uzswap
    z = uzswap.Zswap(swap_size="16M")
    server = z.serve(sys.argv[1], port=0)
    print(server.port)
    def descriptors():
        return len(os.listdir("/proc/self/fd"))
    def no_more_descriptors():
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    def more_descriptors():
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    while (line := sys.stdin.readline().strip()):
        print(eval(line))
"""


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


def told(child: Child, what: str) -> str:
    child.write_line(what)
    return child.read_line()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def scrape(connection: socket.socket) -> bytes:
    connection.sendall(SCRAPE)
    data = b""
    while more := connection.recv(1 << 16):
        data += more
    return data


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"GET /metr", SCRAPE.replace(b"close", b"keep-alive") * 20], ids=repr)
def test_whoever_connects_and_waits_makes_room_for_others(private: Path, sent: bytes) -> None:
    """Idle, never finished, or never read: as many as the attacker likes."""
    with Child(SERVES, [str(private / "s")]) as child:
        port = int(child.read_line())
        before = int(told(child, "descriptors()"))
        idle = []
        try:
            for _ in range(40):  # there are to be 16
                idle.append(connect(port))
                if sent:
                    idle[-1].sendall(sent)
            with connect(port) as other:
                assert b" 200 OK" in scrape(other)[:20]
            assert int(told(child, "descriptors()")) <= before + 16
        finally:
            for connection in idle:
                connection.close()
        with Client(private / "s") as client:
            assert client.read("/vmstat")
        child.write_line("")
        assert not child.wait().check().stderr


def test_a_request_under_way_is_not_dropped(z: Zswap, private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_MOST_CONNECTIONS", (4, 4))
    g = z.cgroup("/a")
    events: list[int] = []

    def wait() -> None:
        with Client(private / "s") as client, client.open("/cgroup/a/memory.events") as file:
            events.append(file.poll(PATIENCE))

    with z.serve(private / "s") as server:
        threads = [threading.Thread(target=wait) for _ in range(4)]
        for thread in threads:
            thread.start()
        while sum(len(opened.polls) for opened in list(server._requests._open.values())) < 4:
            os.sched_yield()
        # One too many waits until there is room, and is served then.
        late = Client(private / "s")
        reading = threading.Thread(target=lambda: events.append(len(late.read("/cgroup/a/cgroup.type"))))
        reading.start()
        g.count_event("high")
        for thread in [*threads, reading]:
            thread.join()
        late.close()
    assert sorted(events) == [2, 2, 2, 2, len("domain\n")]


def test_idle_connections_of_the_owner_make_room_too(z: Zswap, private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_MOST_CONNECTIONS", (4, 4))
    with z.serve(private / "s"):
        clients = [Client(private / "s") for _ in range(6)]
        for client in [*clients, *clients]:
            assert client.read("/vmstat")  # connects anew when it was dropped
        for client in clients:
            client.close()


def test_without_descriptors_it_waits_and_says_so_once(private: Path) -> None:
    with Child(SERVES, [str(private / "s")]) as child:
        port = int(child.read_line())
        with connect(port) as warm:
            scrape(warm)  # everything is imported
        assert told(child, "no_more_descriptors()") == "None"
        waiting = [connect(port) for _ in range(10)]
        for connection in waiting:
            connection.sendall(SCRAPE)
        assert told(child, "more_descriptors()") == "None"
        for connection in waiting:
            data = b""
            while more := connection.recv(1 << 16):
                data += more
            assert b" 200 OK" in data[:20]
            connection.close()
        child.write_line("")
        stderr = child.wait().check().stderr
    assert "Traceback" not in stderr
    assert stderr.count("\n") <= 2


def test_nothing_on_stderr_in_pythons_development_mode(private: Path) -> None:
    """Not asyncio's warnings of slow callbacks, not ResourceWarnings, whether or not the engine is closed."""
    with Child(SERVES, [str(private / "s")], env={"PYTHONDEVMODE": "1"}) as child:
        port = int(child.read_line())
        assert told(child, "setattr(server._loop, 'slow_callback_duration', 0)") == "None"
        with Client(private / "s") as client:
            assert client.read("/vmstat")
            assert client.list("/cgroup")
            client.mkdir("/cgroup/a")
            with client.open("/cgroup/a/memory.events") as file:
                assert file.poll(0.01) == 0
        with connect(port) as connection:
            scrape(connection)
        child.write_line("")
        assert not child.wait().check().stderr
    with Child(SERVES, [str(private / "other")], env={"PYTHONDEVMODE": "1"}) as child:
        child.read_line()
        assert told(child, "z.close()") == "None"
        child.write_line("")
        assert not child.wait().check().stderr
