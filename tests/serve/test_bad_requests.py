"""Whatever a client sends, it is told what is wrong with it: bad input is never a fault of the server."""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import EngineFactory, Tally
from tests.support.soak import longer

from uzswap.serve.server import Server

pytestmark = pytest.mark.slow

PATIENCE = 240.0

#: in every place where a client says something
NASTY = [
    *("", "%00", "a%00b", "%ff%fe", "%ed%b0%80", "%ED%A0%80", "%", "%zz", "%2e%2e%2f", "%0d%0aX:%20y", "nan", "inf"),
    *("-1", "1e999", "1_0", "%C2%B2", "%D9%A3", "0" * 5000, "/" * 300, "%2F" * 3000, "a" * 256, "?", "&&==", "#", "+"),
    *("{number}", "[red]", "%1b[2J"),
]

#: MOUNTS is a directory for it
TARGETS = [
    *("/{}", "/cgroup/{}", "/cgroup/{}/", "/cgroup/a/memory.max/{}", "/?{}", "/cgroup/a/memory.max?{}={}", "{}"),
    *("/?mount={}", "/?mount=MOUNTS/{}", "/?mount=MOUNTS/x/y&allow_other={}", "/cgroup/a/memory.events?open={}"),
    *("/cgroup/a/memory.events?open&nonblock={}", "/open/{}", "/open/1?poll={}", "/open/1?{}", "/metrics?name[]={}"),
    *("/metrics/{}", "/openapi.yaml?{}", "http://{}/"),
]

METHODS = ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE", "get", "\x7f", "G E T", ""]

#: with these the server may wait for more of the body
ABOUT_THE_BODY = [
    *(f"Transfer-Encoding: {name}" for name in ("chunked", "gzip, chunked", "bogus", "chunked, chunked")),
    *(f"Content-Length: {length}" for length in ("-1", "x", "1, 1", "9" * 20, "")),
]
ACCEPT = [
    *("*", "/", ",,,", ";q=x", "application/openmetrics-text; version=x", "application/openmetrics-text;version=9.9"),
    *("text/plain; version=1.0.0; escaping=bogus", "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8"),
    *("application/vnd.google.protobuf; encoding=delimited", "a" * 4000),
]
HEADERS = [
    *ABOUT_THE_BODY,
    *(f"Content-Encoding: {name}" for name in ("gzip", "deflate", "br", "zstd", "identity", "bogus", "gzip, gzip")),
    *(f"Accept: {what}" for what in ACCEPT),
    *("Expect: 100-continue", "Expect: bogus", "Upgrade: websocket", "Connection: upgrade", "Range: bytes=9-1"),
    *("Host: \x00", "Host: [", "Host: a:b:c", "Content-Type: multipart/form-data", "Cookie: \xff=", "If-Match: x"),
    *("Content-Type: text/plain; charset=bogus", "X: " + "x" * 9000, "no colon", ": no name", "Accept-Encoding: ;q=x"),
]

BODIES = [b"", b"1G", b"\x1f\x8bgarbage", zlib.compress(b"1G"), b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\nx", b"\0" * 5000]


@pytest.fixture
def server(engine: EngineFactory, private: Path) -> Iterator[Server]:
    z = engine()
    z.cgroup("/a")
    yield z.serve(private / "s", port=0)
    z.close()  # and what was mounted


def requests(mounts: Path, door: str) -> Iterator[tuple[bytes, bool]]:
    """Requests, and whether they are followed by the end of what the client sends.

    Any two of what they are made of meet: of the sources of three, the third goes round; a whole soak has them all.
    """
    methods = ("GET", "PUT", "POST", "DELETE") if door == "socket" else ("GET",)
    for i, (target, value, method) in enumerate(itertools.product(TARGETS, NASTY, methods)):
        if not longer(goes_round(i, len(methods)), True):
            continue
        where = target.replace("{}", value).replace("MOUNTS", str(mounts))
        yield f"{method} {where} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode(), False
    for method, target in itertools.product(METHODS, ("/", "/cgroup/a/memory.max", "/cgroup/a", "/metrics", "*")):
        yield f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), False
    targets = ("GET /metrics", "PUT /cgroup/a/memory.low", "POST /cgroup/a/memory.events?open", "PUT /cgroup/b/")
    for i, (header, body, target) in enumerate(itertools.product(HEADERS, BODIES, targets)):
        if not longer(goes_round(i, len(targets)), True):
            continue
        length = "" if header in ABOUT_THE_BODY else f"Content-Length: {len(body)}\r\n"
        head = f"{target} HTTP/1.1\r\nHost: x\r\n{length}{header}\r\n\r\n"
        yield head.encode("latin-1") + body, header in ABOUT_THE_BODY
    for version in ("HTTP/0.9", "HTTP/1.0", "HTTP/2.0", "HTTP/1.", "FTP/1.1", ""):
        yield f"GET /vmstat {version}\r\n\r\n".encode(), False


def goes_round(i: int, n: int) -> bool:
    """Of every n that follow one another one: the first of the first n, the second of the next."""
    return i % n == i // n % n


def status(connection: socket.socket, request: bytes, ends: bool) -> int | None:
    """Return what the answer is; None when the connection ends without any."""
    connection.settimeout(PATIENCE)
    connection.sendall(request)
    if ends:
        connection.shutdown(socket.SHUT_WR)
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while b"\r\n\r\n" not in data and (more := connection.recv(1 << 16)):
            data += more
    return int(data.split()[1]) if data else None


@pytest.mark.parametrize("door", ["socket", "port"])
def test_bad_input_is_never_a_fault_of_the_server(
    server: Server, private: Path, door: str, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    caplog.set_level(logging.WARNING)
    seen: Counter[int | None] = Counter()
    (private / "mounts").mkdir()
    (private / "mounts/x").touch()
    for request, ends in requests(private / "mounts", door):
        if door == "port":
            assert server.port is not None
            connection = socket.create_connection(("127.0.0.1", server.port))
        else:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(str(server.path))
        with connection:
            found = status(connection, request, ends)
        assert found is None or found < 500, (request[:300], found)
        seen[found] += 1
    assert not caplog.records
    tally("hostile inputs", seen.total())
    assert {200, 400, 404} <= seen.keys()
