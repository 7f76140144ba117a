"""Accepting connections, never more at a time than there is room for.

asyncio's own server takes every connection that is offered, until the process is out of descriptors, which are the
program's; and then it writes tracebacks.  On a port that anybody on the machine can reach, that is theirs to cause.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

__all__ = ["Listener"]

_log = logging.getLogger(__name__)

#: seconds until the next attempt, where there is no room, and so long an answer has to be on its way
_PAUSE: Final = 1.0
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener:
    """Hands the connections of a socket to a server of aiohttp.

    One too many takes the place of the one that was longest without a request under way; while all of them have one, or
    had it just now, it waits, in the kernel.

    Parameters
    ----------
    most
        Connections at a time.

    Threads: everything here is called in the event loop.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._socket: socket.socket
        self._server: web.Server
        self._loop: asyncio.AbstractEventLoop
        self._closed = False
        self._told = False
        self._listens = False
        #: connections with a request under way, and how many those are
        self._busy: dict[web.RequestHandler, int] = {}
        #: when the last request of the others ended; 0 for those that had none, which come first, the oldest first
        self._ended: dict[web.RequestHandler, float] = {}
        self._beginning: asyncio.Task[None] | None = None

    def start(self, listening: socket.socket, server: web.Server) -> None:
        """Begin to accept.  ``server`` has :meth:`middleware` in its applications."""
        self._loop = asyncio.get_running_loop()
        self._socket, self._server = listening, server
        listening.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Accept no more.  What was accepted goes on."""
        self._pause()
        self._closed = True

    def middleware(self) -> Middleware:
        """Return what tells the listener of requests."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            connection = request.protocol
            self._busy[connection] = self._busy.get(connection, 0) + 1
            try:
                return await handler(request)
            finally:
                self._busy[connection] -= 1
                if not self._busy[connection]:
                    del self._busy[connection]
                    self._ended[connection] = time.monotonic()
                self._listen()

        return count

    def _listen(self) -> None:
        if not self._closed and not self._listens:
            self._listens = True
            self._loop.add_reader(self._socket, self._accept)

    def _pause(self) -> None:
        if self._listens:
            self._listens = False
            self._loop.remove_reader(self._socket)

    def _accept(self) -> None:
        """Take one connection; the next when that one is counted."""
        if not self._close_an_idle_one():
            self._pause()
            self._loop.call_later(_PAUSE, self._listen)
            return
        try:
            connection, _ = self._socket.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._pause()
                self._loop.call_later(_PAUSE, self._listen)
                if not self._told:
                    self._told = True
                    _log.warning("no connection can be accepted (%s): tried again every %g s", error.strerror, _PAUSE)
            return  # else it has gone already
        self._told = False
        connection.setblocking(False)
        self._pause()
        self._beginning = self._loop.create_task(self._begin(connection))

    async def _begin(self, connection: socket.socket) -> None:
        try:
            _, handler = await self._loop.connect_accepted_socket(self._server, connection)
            self._ended[handler] = 0.0
        except OSError:  # it has gone already
            connection.close()
        finally:
            self._listen()

    def _close_an_idle_one(self) -> bool:
        there = self._server.connections
        self._ended = {one: self._ended.get(one, 0.0) for one in there}
        if len(there) < self._most:
            return True
        idle = [one for one in there if one not in self._busy and one.transport is not None]
        longest = min(idle, key=self._ended.__getitem__, default=None)
        if longest is None or self._ended[longest] > time.monotonic() - _PAUSE:
            return False
        assert longest.transport is not None
        longest.transport.abort()
        return True
