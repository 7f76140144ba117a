"""The control tree as HTTP on a Unix socket: ``z.serve()``.

=========  ========================  ==============================================================================
GET        a file                    its text
GET        a directory               ``{"entries": [{"name", "type", "mode"}]}``
PUT        a file                    writes the body, as one write; 204
PUT        a directory, with a /     makes a cgroup; 201
DELETE     a directory               removes a cgroup; 204
POST       a file, with ``?open``    opens it, for what belongs to an open file; 201 and ``Location: /open/N``
GET, PUT   /open/N                   reads and writes it; GET with ``?poll=SECONDS`` waits for news: ``{"events"}``
DELETE     /open/N                   closes it
GET        /metrics                  everything, for Prometheus
GET        /openapi.yaml             this, for programs
=========  ========================  ==============================================================================

Errors are JSON with the errno: ``{"errno": 11, "error": "EAGAIN", "message": ..., "path": ...}``, and ``"result"`` for
a reclaim that ended early.

Threads: connections are served by one event loop in a thread of its own; reads take microseconds and are done there.
Writes and polls can take long, so each has a thread.  A client that goes away interrupts its write, as a signal does.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import logging
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from uzswap.control.openapi import as_yaml
from uzswap.control.tree import MAX_WRITE, ControlTree, Directory, File, OpenFile
from uzswap.errors import ReclaimError, os_error
from uzswap.lifetime import on_fork
from uzswap.signals import block_all_signals, on_behalf_of

if TYPE_CHECKING:
    from uzswap.zswap import Zswap

try:
    from aiohttp import web
except ImportError as error:
    raise ImportError("the socket needs aiohttp: pip install 'uzswap[http]'") from error

__all__ = ["STATUS", "Server"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

#: errno -> HTTP status; the errno in the body is what counts.  Others are 500: the device, or a fault of ours.
STATUS: Final = {
    errno.EINVAL: 400,
    errno.ERANGE: 400,
    errno.EACCES: 403,
    errno.EPERM: 403,
    errno.ENOENT: 404,
    errno.ENOTDIR: 404,
    errno.EISDIR: 405,
    errno.EOPNOTSUPP: 405,
    errno.EAGAIN: 409,
    errno.EBUSY: 409,
    errno.EEXIST: 409,
    errno.EINTR: 409,
    errno.EBADF: 410,
    errno.ENODEV: 410,
    errno.E2BIG: 413,
    errno.ENAMETOOLONG: 414,
    errno.EMFILE: 429,
    errno.ENOSPC: 507,
}
#: files that clients may have open together, as RLIMIT_NOFILE usually is
_MOST_OPEN: Final = 1024
#: seconds that a poll waits at most, unless it is asked again
_LONGEST_POLL: Final = 3600.0


class _Handlers:
    """What each request does."""

    def __init__(self, zswap: Zswap) -> None:
        self._zswap = zswap
        self.tree = ControlTree(zswap)
        self._numbers = itertools.count(1)
        self.open_files: dict[int, OpenFile] = {}

    def application(self) -> web.Application:
        application = web.Application(middlewares=[_errors_as_json])
        for path, handler in (
            ("/metrics", self.metrics),
            ("/openapi.yaml", self.openapi),
            ("/open/{number}", self.get_open),
        ):
            application.router.add_get(path, handler)
        application.router.add_put("/open/{number}", self.put_open)
        application.router.add_delete("/open/{number}", self.delete_open)
        application.router.add_get("/{path:.*}", self.get)
        application.router.add_put("/{path:.*}", self.put)
        application.router.add_post("/{path:.*}", self.post)
        application.router.add_delete("/{path:.*}", self.delete)
        return application

    # The tree

    async def get(self, request: web.Request) -> web.Response:
        node = self.tree.lookup(request.path)
        if isinstance(node, File):
            return web.Response(text=node.read())
        entries = [
            {
                "name": name,
                "type": "directory" if isinstance(child, Directory) else "file",
                "mode": f"{child.mode:04o}",
            }
            for name, child in node.nodes()
        ]
        return web.json_response({"entries": entries})

    async def put(self, request: web.Request) -> web.Response:
        if request.path.endswith("/"):
            self.tree.mkdir(request.path)
            return web.Response(status=201)
        node = self.tree.file(request.path)
        data = await _body(request)
        await _in_thread(lambda: node.write(data))
        return web.Response(status=204)

    async def delete(self, request: web.Request) -> web.Response:
        node = self.tree.lookup(request.path)
        if isinstance(node, File):
            raise os_error(errno.EPERM, "files cannot be removed: remove their cgroup", request.path)
        self.tree.rmdir(request.path)
        return web.Response(status=204)

    # Open files

    async def post(self, request: web.Request) -> web.Response:
        node = self.tree.file(request.path)
        if "open" not in request.query:
            raise os_error(errno.EOPNOTSUPP, "POST opens a file: say ?open, or write to it with PUT", request.path)
        if len(self.open_files) >= _MOST_OPEN:
            raise os_error(errno.EMFILE, f"{_MOST_OPEN} files are open already: DELETE some", request.path)
        number = next(self._numbers)
        self.open_files[number] = node.open(nonblock="nonblock" in request.query)
        return web.Response(status=201, headers={"Location": f"/open/{number}"})

    async def get_open(self, request: web.Request) -> web.Response:
        opened = self._opened(request)
        if "poll" not in request.query:
            return web.Response(text=opened.file.read())
        timeout = _seconds(request)
        return web.json_response({"events": await _in_thread(lambda: opened.file.poll(timeout))})

    async def put_open(self, request: web.Request) -> web.Response:
        opened = self._opened(request)
        data = await _body(request)
        await _in_thread(lambda: opened.write(data))
        return web.Response(status=204)

    async def delete_open(self, request: web.Request) -> web.Response:
        opened = self._opened(request)
        del self.open_files[int(request.match_info["number"])]
        opened.close()
        return web.Response(status=204)

    def _opened(self, request: web.Request) -> OpenFile:
        number = request.match_info["number"]
        # Eighteen digits: what int() reads at once, and more files than will ever be opened.
        opened = self.open_files.get(int(number)) if number.isdecimal() and len(number) <= 18 else None
        if opened is None:
            raise os_error(errno.EBADF, "no file is open under this number: POST opens one", request.path)
        return opened

    # About it all

    async def metrics(self, request: web.Request) -> web.Response:
        try:
            from uzswap.control.metrics import exposition
        except ImportError as error:
            raise os_error(errno.EOPNOTSUPP, str(error), request.path) from error
        accept = request.headers.get("Accept", "")
        body, content_type = await _in_thread(lambda: exposition(self._zswap, accept))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def openapi(self, request: web.Request) -> web.Response:
        return web.Response(text=as_yaml(), content_type="application/yaml")


def _seconds(request: web.Request) -> float:
    text = request.query["poll"]
    with contextlib.suppress(ValueError):
        value = float(text)
        if 0 <= value <= _LONGEST_POLL:
            return value
    raise os_error(errno.EINVAL, f"poll={text!r}: seconds are wanted, 0 to {_LONGEST_POLL:g}", request.path)


async def _body(request: web.Request) -> bytes:
    """Return what is to be written, or so much of it that it is refused as too much."""
    data = b""
    while len(data) <= MAX_WRITE and (more := await request.content.read(MAX_WRITE + 1 - len(data))):
        data += more
    return data


async def _in_thread(work: Callable[[], T]) -> T:
    """Run what can take long in a thread of its own; when the client goes, it is interrupted."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    gone = threading.Event()

    def finish(settle: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if future.done() else settle())

    def run() -> None:
        block_all_signals()
        try:
            with on_behalf_of(gone.is_set):
                result = work()
        except BaseException as error:
            raised = error
            finish(lambda: future.set_exception(raised))
        else:
            finish(lambda: future.set_result(result))

    thread = threading.Thread(target=run, name="uzswap-request", daemon=True)
    thread.start()
    try:
        return await future
    except asyncio.CancelledError:
        gone.set()
        raise


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except OSError as error:
        number = error.errno or errno.EIO
        content: dict[str, Any] = {
            "errno": number,
            "error": errno.errorcode.get(number, str(number)),
            "message": error.strerror or str(error),
            "path": error.filename or request.path,
        }
        if isinstance(error, ReclaimError):
            content["result"] = dict(error.result.items())
        body = json.dumps(content).encode()  # escapes every character that is no text
        return web.Response(status=STATUS.get(number, 500), body=body, content_type="application/json")


class Server:
    """The control tree on a Unix socket.  Made by ``z.serve()``; a context manager.

    Parameters
    ----------
    zswap
        The engine.
    path
        Of the socket, in a directory that nobody else can enter; anybody else's connect is EACCES.
    port
        Serve ``/metrics``, and nothing else, on this port of localhost too; 0 chooses one, see :attr:`port`.

    Raises
    ------
    OSError
        The socket or the port cannot be had: EADDRINUSE, EACCES, ENAMETOOLONG.
    """

    def __init__(self, zswap: Zswap, path: str | os.PathLike[str], *, port: int | None = None) -> None:
        self.path = Path(os.path.abspath(path))
        self.port: int | None = None
        self._handlers = _Handlers(zswap)
        self._loop = asyncio.new_event_loop()
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._closed = False
        try:
            self._sockets.append(_listen(self.path))
            if port is not None:
                self._sockets.append(socket.create_server(("127.0.0.1", port)))
                self.port = self._sockets[1].getsockname()[1]
            self._runners = self._loop.run_until_complete(self._start())
        except BaseException:
            self._release()
            raise
        self._thread = threading.Thread(target=self._run, name="uzswap-http", daemon=True)
        self._thread.start()
        on_fork(self, Server._forked)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Server {self.path}{' (closed)' if self._closed else ''}>"

    def close(self) -> None:
        """Stop serving; requests under way are interrupted.  Calling it again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            for opened in self._handlers.open_files.values():
                opened.close()
            self._loop.run_until_complete(self._stop())
            self._release()

    async def _start(self) -> list[web.AppRunner]:
        runners = []
        metrics_only = web.Application(middlewares=[_errors_as_json])
        metrics_only.router.add_get("/metrics", self._handlers.metrics)
        for listening, application in zip(self._sockets, (self._handlers.application(), metrics_only), strict=False):
            # Cancelled when the client goes; and no signal handlers, the process is not ours.
            runner = web.AppRunner(
                application, handler_cancellation=True, handle_signals=False, access_log=None, shutdown_timeout=0
            )
            await runner.setup()
            await web.SockSite(runner, listening).start()
            runners.append(runner)
        return runners

    async def _stop(self) -> None:
        for runner in self._runners:
            await runner.cleanup()
        await self._loop.shutdown_asyncgens()

    def _run(self) -> None:
        block_all_signals()
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _release(self) -> None:
        for listening in self._sockets:
            listening.close()
        self._loop.close()
        if self._sockets:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()

    def _forked(self) -> None:
        """In a forked child: its copies would keep clients waiting for an answer when the parent is gone."""
        for listening in self._sockets:
            os.close(listening.detach())


def _listen(path: Path) -> socket.socket:
    """Return a socket that only the owner can connect to; one that a dead process left there is replaced."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and _nobody_listens(path):
            _log.warning("%s: the process that had this socket is gone; taking it over", path)
            path.unlink()
        os.fchmod(listening.fileno(), 0o600)  # bind gives the file this mode, so it is never open to others (unix(7))
        try:
            listening.bind(str(path))
        except OSError as error:
            if error.errno is None:  # what Python itself says to more than 107 bytes
                raise os_error(errno.ENAMETOOLONG, f"{error}: choose a shorter one", str(path)) from error
            raise os_error(error.errno, f"this socket cannot be had: {error.strerror}", str(path)) from error
        listening.listen()
        return listening
    except BaseException:
        listening.close()
        raise


def _nobody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED
