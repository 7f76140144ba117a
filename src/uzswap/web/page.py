"""The page of one engine, beside what else serves it: ``z.serve(web=True)``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aiohttp import web

from uzswap.web.application import routes
from uzswap.web.guard import new_token
from uzswap.web.source import Source

__all__ = ["Page"]


class Page:
    """A page of the engine that has a socket, from :meth:`show` to :meth:`close`."""

    def __init__(self) -> None:
        #: what opens it
        self.token: Final = new_token()
        self._sources: dict[str, Source] = {}

    def routes(self) -> list[web.RouteDef]:
        """Return what serves it."""
        return routes(self.token, self._engines)

    def show(self, socket: Path) -> None:
        """Begin to look at the engine, which answers by now."""
        self._sources = {socket.stem: Source(socket.stem, str(socket))}

    def close(self) -> None:
        """Look no more.  Calling it again does nothing."""
        sources, self._sources = self._sources, {}
        for source in sources.values():
            source.close()

    def _engines(self) -> Mapping[str, Source]:
        return self._sources
