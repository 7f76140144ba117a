"""What is particular to the socket: HTTP, open files, polls, clients that never read or never finish, other users."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import stat as st
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import EngineFactory
from tests.serve.doors import fails, pending
from tests.support.child import Child, run_as_nobody
from tests.support.front_end import FrontEnd
from tests.support.states import fill, stat

from uzswap import MemCgroup, ReclaimError, TraceEvent, Zswap
from uzswap.client.client import Client
from uzswap.serve import requests
from uzswap.serve.server import STATUS, Server
from uzswap.serve.virtual_tree import ControlTree

PATIENCE = 240.0


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine(walk="v5")


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


@pytest.fixture
def server(z: Zswap, private: Path) -> Iterator[Server]:
    with z.serve(private / "s") as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.path) as client:
        yield client


def talk(server: Server) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(server.path))
    connection.settimeout(PATIENCE)
    return connection


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Read one answer with a JSON body from a fresh connection that is closed after it."""
    data = b""
    while more := connection.recv(65536):
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def ask(server: Server, line: str) -> tuple[int, dict[str, Any]]:
    """Send one raw request line."""
    with talk(server) as connection:
        connection.sendall(f"{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return answer(connection)


# HTTP


def test_errors_are_json_with_errno(server: Server, g: MemCgroup) -> None:
    for line, number in (
        ("GET /nothing", errno.ENOENT),
        ("GET /cgroup/memory.reclaim", errno.EACCES),
        ("GET /vmstat/x", errno.ENOTDIR),
        ("PUT /cgroup/g/", errno.EEXIST),
        ("PUT /cgroup", errno.EISDIR),
        ("DELETE /vmstat", errno.EPERM),
        ("DELETE /cgroup", errno.EBUSY),
        ("POST /vmstat", errno.EOPNOTSUPP),
        ("GET /open/7", errno.EBADF),
        ("GET /open/x", errno.EBADF),
        ("GET /open/" + "9" * 5000, errno.EBADF),
        ("GET /open/%D9%A3", errno.EBADF),
        ("PATCH /vmstat", errno.EOPNOTSUPP),
        ("GET /a%00b", errno.EINVAL),
        ("GET /cgroup/" + "x" * 10_000, errno.ENAMETOOLONG),
        ("GET /" + "%2e%2e/" * 9000 + "etc/passwd", errno.ENAMETOOLONG),
        ("GET /../../etc/passwd", errno.ENOENT),
        ("GET /%2e%2e/%2e%2e/etc/passwd", errno.ENOENT),
        ("DELETE /cgroup/..", errno.EBUSY),
        ("PUT /cgroup/../", errno.EBUSY),
    ):
        status, content = ask(server, line)
        assert (content["errno"], content["error"]) == (number, errno.errorcode[number]), line[:80]
        assert status == STATUS[number]
        assert content["message"]
        assert "path" in content
    assert not z_children_but(g)


def z_children_but(g: MemCgroup) -> list[str]:
    return [name for name in g.zswap.root.children if name != "g"]


def test_bytes_that_are_no_text(z: Zswap, client: Client) -> None:
    name = os.fsdecode(b"\xff\xfe")
    client.mkdir(f"/cgroup/{name}")
    assert name in z.root.children
    assert name in [entry["name"] for entry in client.list("/cgroup")]
    assert client.read(f"/cgroup/{name}/memory.max") == "max\n"
    client.rmdir(f"/cgroup/{name}")


def test_what_is_no_http(server: Server, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    for junk in (
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        os.urandom(4096) + b"\r\n\r\n",
        b"x" * 200_000,
    ):
        with talk(server) as connection:
            connection.sendall(junk)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    assert client.read("/vmstat")
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


def test_a_reclaim_that_ended_early_tells_how_far_it_came(z: Zswap, g: MemCgroup, client: Client) -> None:
    fill(z, g, 3, 1000, referenced=False)
    with pytest.raises(ReclaimError) as caught:
        client.write("/cgroup/g/memory.reclaim", "1M source=zswap")
    assert caught.value.errno == errno.EAGAIN
    result = caught.value.result
    assert (result.asked, result.written, result.entries) == (1 << 20, 3000, 3)


def test_curl(server: Server, g: MemCgroup) -> None:
    def curl(*arguments: str) -> str:
        command = ["curl", "-sS", "--unix-socket", str(server.path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        curl("-T", "-", "http://localhost/vmstat")
    except FileNotFoundError:
        pytest.skip("curl is not installed: apt install curl")
    curl("-X", "PUT", "http://localhost/cgroup/g/child/")
    curl("-X", "PUT", "--data-binary", "64M", "http://localhost/cgroup/g/child/memory.max")
    assert curl("http://localhost/cgroup/g/child/memory.max") == "67108864\n"
    assert json.loads(curl("-X", "PUT", "-d", "x", "http://localhost/cgroup/g/child/memory.max"))["error"] == "EINVAL"
    assert "uzswap control files" in curl("http://localhost/openapi.yaml")


# Open files


def test_a_file_that_is_open(g: MemCgroup, client: Client, server: Server) -> None:
    owner = FrontEnd(g, 1 << 20)
    owner.drop(1 << 20)
    file = client.open("/cgroup/g/memory.peak")
    file.write("x")
    with Client(server.path) as other:  # it belongs to no connection
        assert other.read(file._location) == "0\n"
    assert client.read("/cgroup/g/memory.peak") == "1048576\n"
    file.close()
    with fails(errno.EBADF):
        client.read("/open/1")
    owner.close()


def test_open_files_are_limited_and_forgotten(
    z: Zswap, g: MemCgroup, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "_MOST_OPEN", 4)
    files = [client.open("/cgroup/g/memory.pressure") for _ in range(4)]
    with fails(errno.EMFILE):
        client.open("/cgroup/g/memory.pressure")
    files[0].close()
    files[0] = client.open("/cgroup/g/memory.pressure")
    monkeypatch.setattr(requests, "_LONGEST_POLL", 0.0)  # all of them are long out of use
    again = client.open("/cgroup/g/memory.pressure")
    with fails(errno.EBADF):
        files[1].read()
    again.close()


def test_the_privilege_is_the_clients(z: Zswap, server: Server) -> None:
    """A trigger window of 1 s needs CAP_SYS_RESOURCE of whoever opens the file; this child has dropped it."""
    code = """
        import ctypes, os, sys
        from uzswap.client.client import Client
        CAP_SYS_RESOURCE, PR_CAPBSET_DROP = 24, 24
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        none = (ctypes.c_uint32 * 6)()
        if os.getuid() == 0:
            assert ctypes.CDLL(None, use_errno=True).capset(header, none) == 0
        with Client(sys.argv[1]) as client:
            try:
                client.write("/cgroup/memory.pressure", "some 150000 1000000")
                print("privileged")
            except OSError as error:
                print(error.errno)
    """
    with Child(code, [str(server.path)]) as child:
        assert child.wait().check().stdout.split() == [str(errno.EINVAL)]


def test_poll_waits_for_an_event(g: MemCgroup, client: Client) -> None:
    with client.open("/cgroup/g/memory.events") as file:
        assert file.poll(0) == 0
        threading.Thread(target=lambda: g.count_event("max")).start()
        assert file.poll(PATIENCE) == select.POLLPRI
        assert "max 1\n" in file.read()
        assert file.poll(0) == 0


def test_poll_of_a_trigger(g: MemCgroup, client: Client) -> None:
    with client.open("/cgroup/g/memory.pressure") as file:
        assert file.poll(0) & select.POLLERR
        file.write("some 1000 2000000")
        threading.Thread(target=lambda: g.pressure.record(1_500_000_000)).start()
        assert file.poll(PATIENCE) == select.POLLPRI


def test_poll_ends_when_the_cgroup_goes(g: MemCgroup, client: Client) -> None:
    with client.open("/cgroup/g/memory.events") as file:
        threading.Thread(target=g.remove).start()
        assert file.poll(PATIENCE) & select.POLLERR


def test_poll_ends_when_the_file_is_closed(g: MemCgroup, server: Server, client: Client) -> None:
    file = client.open("/cgroup/g/memory.events")

    def close_it() -> None:
        while not server._requests._open[1].polls:
            os.sched_yield()
        with Client(server.path) as other:
            other._request("DELETE", file._location)

    closer = threading.Thread(target=close_it)
    closer.start()
    with fails(errno.EBADF):
        file.poll(PATIENCE)
    closer.join()


def test_polls_that_are_refused(g: MemCgroup, client: Client) -> None:
    with client.open("/cgroup/g/memory.max") as file, fails(errno.EOPNOTSUPP):
        file.poll(1)
    with client.open("/cgroup/g/memory.events") as file:
        for seconds in (-1.0, float("nan"), float("inf"), 1e9):
            with fails(errno.EINVAL):
                file.poll(seconds)


def test_polls_take_no_thread_and_go_with_their_client(g: MemCgroup, server: Server) -> None:
    """A hundred clients that wait and go away."""
    with Client(server.path) as client:
        location = client.open("/cgroup/g/memory.events")._location
        before = set(threading.enumerate())
        waiting = [talk(server) for _ in range(100)]
        for connection in waiting:
            connection.sendall(f"GET {location}?poll=3600 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        while len(server._requests._open[1].polls) < 100:
            os.sched_yield()
        assert len(set(threading.enumerate()) - before) <= 4
        for connection in waiting:
            connection.close()
        while server._requests._open[1].polls:
            os.sched_yield()
        assert client.read("/vmstat")


# Clients that hold up nobody


def test_a_reader_that_never_reads_and_a_writer_that_never_finishes(z: Zswap, g: MemCgroup, private: Path) -> None:
    server = z.serve(private / "s")
    lazy, endless, mute, half = talk(server), talk(server), talk(server), talk(server)
    lazy.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:  # until the server has stopped to read, since its answers are not taken
            lazy.send(b"GET /cgroup/g/memory.stat HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    endless.sendall(b"PUT /cgroup/g/memory.max HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n6\r\n")
    half.sendall(b"PUT /cgroup/g/memory.max HTTP/1.1\r\nHost: x\r\nContent-Le")
    with Client(server.path) as client:
        client.write("/cgroup/g/memory.max", "1M")
        assert client.read("/cgroup/g/memory.max") == "1048576\n"
        assert client.list("/cgroup")
    server.close()  # waits for none of them
    assert g.read("memory.max") == "1048576\n"
    for connection in (lazy, endless, mute, half):
        connection.close()


def test_closing_interrupts_what_is_under_way(z: Zswap, g: MemCgroup, private: Path) -> None:
    fill(z, g, 1000, 2000, referenced=False)
    server = z.serve(private / "s")
    closing = threading.Thread(target=server.close)

    def close(event: TraceEvent) -> None:
        if not closing.ident:
            closing.start()
            pending()

    z.trace = close
    with Client(server.path) as client, fails(errno.ECONNRESET):
        client.write("/cgroup/g/memory.reclaim", "1G source=zswap")
    closing.join()
    z.trace = None
    assert stat(g, "zswpwb_proactive_b") == 128_000
    assert g.last_reclaim is not None


def test_a_client_connects_anew_when_the_server_was_restarted(z: Zswap, private: Path) -> None:
    first = z.serve(private / "s")
    with Client(private / "s") as client:
        assert client.read("/vmstat")
        first.close()
        with z.serve(private / "s"):
            assert client.read("/vmstat")
        with fails(errno.ENOENT):
            client.read("/vmstat")


# Who gets in


def test_the_socket_is_the_owners(server: Server, private: Path) -> None:
    private.chmod(0o777)
    assert st.S_IMODE(server.path.stat().st_mode) == 0o600
    code = """
        import errno, socket, sys
        try:
            socket.socket(socket.AF_UNIX).connect(sys.argv[1])
            print("got in")
        except OSError as error:
            print(errno.errorcode[error.errno])
    """
    assert run_as_nobody(code, [str(server.path)]).check().stdout == "EACCES\n"


def test_the_default_socket_is_in_a_private_directory(z: Zswap, private: Path) -> None:
    with z.serve() as server:
        assert server.path.parent == private / "uzswap"
        assert st.S_IMODE(server.path.parent.stat().st_mode) == 0o700
        with z.serve() as another:
            assert another.path != server.path


def test_a_socket_of_a_killed_process_is_taken_over(z: Zswap, private: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = """
        import sys, uzswap
        z = uzswap.Zswap(swap_size="16M")
        z.serve(sys.argv[1])
        print("served")
        input()
    """
    with Child(code, [str(private / "s")]) as child:
        assert child.read_line() == "served"
        with pytest.raises(OSError, match=rf"\[Errno {errno.EADDRINUSE}\]"):
            z.serve(private / "s")
        child.kill()
    with z.serve(private / "s") as server, Client(server.path) as client:
        assert "gone; taking it over" in caplog.text
        assert client.read("/vmstat")
    assert not (private / "s").exists()


def test_sockets_that_cannot_be_had(z: Zswap, private: Path) -> None:
    (private / "file").touch()
    for path, code in (
        (private / "file", errno.EADDRINUSE),
        (private / "no" / "s", errno.ENOENT),
        (private / ("x" * 200), errno.ENAMETOOLONG),
    ):
        with pytest.raises(OSError, match=rf"\[Errno {code}\]"):
            z.serve(path)
    for port in (-1, 1 << 20):
        with fails(errno.EINVAL):
            z.serve(private / "s", port=port)
    assert not (private / "s").exists()
    assert (private / "file").exists()


def test_what_replaced_the_socket_is_left_alone(z: Zswap, private: Path) -> None:
    server = z.serve(private / "s")
    (private / "s").unlink()
    (private / "s").touch()
    server.close()
    assert (private / "s").exists()


def test_the_port_has_metrics_and_nothing_else(z: Zswap, g: MemCgroup, private: Path) -> None:
    with z.serve(private / "s", port=0) as server:
        url = f"http://127.0.0.1:{server.port}"
        with urllib.request.urlopen(f"{url}/metrics") as response:
            assert b'uzswap_memory_current_bytes{cgroup="/g"}' in response.read()
        for path in ("/vmstat", "/cgroup/g/memory.max", "/"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{url}{path}")
            assert refused.value.code == 404
            refused.value.close()


# Python's own door


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/a\0b", errno.EINVAL),
        ("/\ud800", errno.EINVAL),
        ("/../../etc/passwd", errno.ENOENT),
        ("x" * 256, errno.ENAMETOOLONG),
    ],
)
def test_paths_in_python(z: Zswap, path: str, code: int) -> None:
    with fails(code):
        ControlTree(z).lookup(path)
    with fails(code):
        ControlTree(z).mkdir(path)
