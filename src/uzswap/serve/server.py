"""The control tree as HTTP on a Unix socket: ``z.serve()``.

=========  ========================  ==============================================================================
GET        a file                    its text
GET        a directory               ``{"inode", "entries": [{"name", "type", "mode", "inode"}]}``
PUT        a file                    writes the body, as one write; 204
PUT        a directory, with a /     makes a cgroup; 201
DELETE     a directory               removes a cgroup; 204
POST       a file, with ``?open``    opens it, for what belongs to an open file; 201 and ``Location: /open/N``
GET, PUT   /open/N                   reads and writes it; GET with ``?poll=SECONDS`` waits for news: ``{"events"}``
DELETE     /open/N                   closes it; a write that is under way ends with EINTR
POST       /, with ``?mount=PATH``   mounts the tree, as ``z.mount()``; with ``&allow_other`` for others too; 201
GET        /v1/stat                  a cgroup's numbers as JSON; ``?cgroup=/jobs&recursive=1``: of all below it too
GET        /v1/ages?cgroup=/jobs     what it has in the pool, by age
GET        /metrics                  everything, for Prometheus; ``?zeros=1``, ``?buckets=all|none``
GET        /openapi.yaml             this, for programs
=========  ========================  ==============================================================================

Errors are JSON with the errno: ``{"errno": 11, "error": "EAGAIN", "message": ..., "path": ...}``, and ``"result"`` for
a reclaim that ended early.

An open file belongs to no connection.  One that nobody has used for an hour may be closed when there are too many.

Threads: connections are served by one event loop, in a thread of its own; see :mod:`uzswap.serve.requests`.  A client
that goes away interrupts its write, as a signal does.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import logging
import operator
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp.web import AppRunner

from uzswap.engine.lifetime import on_fork
from uzswap.errors import os_error
from uzswap.locks import Order, make_lock
from uzswap.serve.listening import Listener
from uzswap.serve.requests import STATUS, Requests
from uzswap.threads import start_thread
from uzswap.units import is_path

if TYPE_CHECKING:
    from uzswap.files.view import EngineView
    from uzswap.serve.requests import MountTree
    from uzswap.web.page import Page

__all__ = ["STATUS", "Server"]

_log = logging.getLogger(__name__)

#: bytes of a request line: whatever a path may be, it is the tree that says that it is too long
_LONGEST_LINE: Final = 1 << 16
#: connections at a time: to the socket, which is the owner's, and to the port, which anybody can reach
_MOST_CONNECTIONS: Final = (512, 16)
#: seconds until a connection without a request is closed
_KEEP_ALIVE: Final = 3600.0
#: seconds until requests that were interrupted are given up; they end between two batches
_PATIENCE: Final = 60.0


class Server:
    """The control tree on a Unix socket.  Made by ``z.serve()``; a context manager.

    Parameters
    ----------
    engine
        Whose control files are served.
    path
        Of the socket, which nobody else can connect to: EACCES.
    mount
        What a request to mount the tree is handed to.
    port
        Serve ``/metrics``, and nothing else, on this port of localhost too; 0 chooses one, see :attr:`port`.  Every
        user of the machine can read it, one at a time.
    web
        Serve the page of :mod:`uzswap.web` on that port as well, or on one that is chosen, for those who know
        :attr:`url`.
    closed
        Called at the end of :meth:`close`.

    Raises
    ------
    ImportError
        There is no bokeh, for the page.
    OSError
        The socket or the port cannot be had: EADDRINUSE, EACCES, ENAMETOOLONG; EAGAIN no thread can be had.
    """

    def __init__(
        self,
        engine: EngineView,
        path: str | os.PathLike[str],
        *,
        mount: MountTree,
        port: int | None = None,
        web: bool = False,
        closed: Callable[[], object] = lambda: None,
    ) -> None:
        if not is_path(os.fspath(path)):
            raise os_error(errno.EINVAL, "a path has no NUL in it, no characters that stand for no bytes", ascii(path))
        self.path = Path(os.path.abspath(path))
        self.port: int | None = None
        #: of the page, with the token that opens it; None without one
        self.url: str | None = None
        self._told_closed = closed
        self._requests = Requests(engine, mount)
        #: the page, and this engine as it looks at it; by name
        self._page: Page | None = None
        if web:
            self._page = _page()
            port = 0 if port is None else port
        self._sockets: list[socket.socket] = []
        self._inode = -1
        self._lock = make_lock(Order.SERVER)
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event
        try:
            self._sockets.append(_listen(self.path))
            self._inode = self.path.lstat().st_ino
            if port is not None:
                self._sockets.append(_listen_on_localhost(port))
                self.port = self._sockets[1].getsockname()[1]
            started: concurrent.futures.Future[None] = concurrent.futures.Future()
            self._thread = start_thread("uzswap-http", self._run, started)
            started.result()
            if self._page is not None:
                self._page.show(self.path)
                self.url = f"http://127.0.0.1:{self.port}/?token={self._page.token}"
        except BaseException:
            if self._page is not None:
                self._page.close()
            self._release()
            raise
        on_fork(self, Server._forked)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Server {self.path}{' (closed)' if self._closed else ''}>"

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def close(self) -> None:
        """Stop serving; requests under way are interrupted, and their connections end.

        Calling it again does nothing, also in a forked child.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._page is not None:
                self._page.close()
            assert self._loop is not None
            with contextlib.suppress(RuntimeError):  # its thread has ended, whatever the reason
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._requests.close()
            self._release()
        self._told_closed()

    def _run(self, started: concurrent.futures.Future[None]) -> None:
        try:
            # The loop is ours, not the program's to debug: python -X dev would tell on stderr of every slow machine.
            asyncio.run(self._serve(started), debug=False)
        except BaseException as error:  # whatever it is, the engine lives on
            if started.done():
                _log.exception("%s: the socket is not served any more; serve it again", self.path)
            else:
                started.set_exception(error)

    async def _serve(self, started: concurrent.futures.Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._loop.set_exception_handler(_report)
        runners: list[AppRunner] = []
        listeners: list[Listener] = []
        applications = (self._requests.application(), self._requests.metrics_application())
        if self._page is not None:
            applications[1].router.add_routes(self._page.routes())
        try:
            for listening, application, most in zip(self._sockets, applications, _MOST_CONNECTIONS, strict=False):
                listener = Listener(most)
                application.middlewares.insert(0, listener.middleware())
                # Cancelled when the client goes; and no signal handlers, the process is not ours.
                runner = AppRunner(
                    application,
                    handler_cancellation=True,
                    handle_signals=False,
                    access_log=None,
                    logger=_aiohttp_log,
                    keepalive_timeout=_KEEP_ALIVE,
                    auto_decompress=False,
                    max_line_size=_LONGEST_LINE,
                    shutdown_timeout=_PATIENCE,
                )
                runners.append(runner)
                await runner.setup()
                assert runner.server is not None
                listener.start(listening, runner.server)
                listeners.append(listener)
            started.set_result(None)
            await self._stop.wait()
        finally:
            for listener in listeners:
                listener.close()
            for runner in runners:
                for connection in runner.server.connections if runner.server else ():
                    # Whoever never reads or never finishes is not waited for.
                    if connection.transport is not None:
                        connection.transport.abort()
                await runner.cleanup()

    def _release(self) -> None:
        for listening in self._sockets:
            listening.close()
        with contextlib.suppress(FileNotFoundError):
            if self.path.lstat().st_ino == self._inode:  # else it is another server's by now
                self.path.unlink()

    def _forked(self) -> None:
        """In a forked child: its copies would keep clients waiting for an answer when the parent is gone."""
        self._lock = make_lock(Order.SERVER)  # the parent's may never be free
        if not self._closed:
            self._closed = True
            for listening in self._sockets:
                os.close(listening.detach())


#: what aiohttp says of requests that are no HTTP; the client has been told
_aiohttp_log: Final = logging.getLogger(f"{__name__}.http")
_aiohttp_log.setLevel(logging.CRITICAL)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell what went wrong in the loop, unless it is that a client has gone."""
    error = context.get("exception")
    if not isinstance(error, ConnectionError):
        _log.error("%s", context.get("message"), exc_info=error)


def _page() -> Page:
    """Return a page; it is imported when it is asked for, since it needs a library that a socket does not."""
    from uzswap.web.page import Page

    return Page()


def _listen_on_localhost(port: int) -> socket.socket:
    if not 0 <= operator.index(port) <= 0xFFFF:
        raise os_error(errno.EINVAL, f"port {port} of localhost: a port is 0 to 65535")
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise os_error(error.errno or errno.EIO, f"port {port} of localhost cannot be had: {error}") from error


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
