"""A server of its own for the page: all engines of the user, as they come and go.

Threads: everything here runs in the event loop of :func:`serve`; each engine has a thread that looks at it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import web

from uzswap.client.runtime import engines
from uzswap.web.application import routes
from uzswap.web.source import Source

__all__ = ["Engines", "serve"]

#: seconds from one look for engines to the next
_AGAIN: Final = 2.0
#: of a cgroup, about which decisions are asked for
Decisions = Callable[[str], list[dict[str, Any]]]


class Engines:
    """The engines that there are, each looked at from when it is first seen.

    Parameters
    ----------
    name
        The only one that is wanted; None for all.
    decisions, write_budget
        As of :class:`~uzswap.web.source.Source`.
    """

    def __init__(self, name: str | None, decisions: Decisions, write_budget: int | None = None) -> None:
        self._name = name
        self._decisions = decisions
        self._write_budget = write_budget
        self._sources: dict[str, Source] = {}
        self._looked = -_AGAIN

    def __call__(self) -> Mapping[str, Source]:
        """Return them by name."""
        if time.monotonic() - self._looked >= _AGAIN:
            self._looked = time.monotonic()
            there = {
                entry.name: entry.socket
                for entry in engines()
                if entry.socket is not None and self._name in (None, entry.name)
            }
            for name in self._sources.keys() - there.keys():
                self._sources.pop(name).close()
            for name, socket in there.items():
                if name not in self._sources:
                    self._sources[name] = Source(name, socket, self._decisions, self._write_budget)
        return self._sources

    def close(self) -> None:
        for source in self._sources.values():
            source.close()
        self._sources = {}


async def serve(port: int, token: str, sources: Engines, ready: Callable[[int], object]) -> None:
    """Serve the page on a port of localhost until cancelled.

    Parameters
    ----------
    port
        0 chooses one.
    ready
        Called with the port when it can be asked.

    Raises
    ------
    OSError
        The port cannot be had.
    """
    application = web.Application()
    application.router.add_routes(routes(token, sources))
    runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        sources()
        ready(runner.addresses[0][1])
        await asyncio.Event().wait()
    finally:
        # A feed waits for a look at its engine, which ends when the engine is let go.
        sources.close()
        await runner.cleanup()
