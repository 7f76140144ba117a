"""What each request of the page does.

=======  =========  ===============================================================================================
GET      /          the page
GET      /feed      what is new since the last second, for an engine and a cgroup; waits until there is something
PUT      /limit     ``{"cgroup", "file", "value"}``: sets a limit
POST     /reclaim   ``{"cgroup", "text"}``: begins what a write of the text to memory.reclaim does
DELETE   /request   cancels one of these
=======  =========  ===============================================================================================

All of it is guarded (:mod:`uzswap.web.guard`).  What can take long has a thread; the event loop waits for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from aiohttp import web

from uzswap.errors import os_error
from uzswap.units import memparse
from uzswap.web.document import document
from uzswap.web.guard import Handler, guarded
from uzswap.web.source import LIMITS, Source, Told
from uzswap.web.treemap import Rectangle, squarified

__all__ = ["routes"]

T = TypeVar("T")

#: cgroups that are listed, and that have a rectangle of their own: those that use most
_MOST_LISTED: Final = 500
_MOST_RECTANGLES: Final = 100
#: seconds that a feed waits for the next look
_PATIENCE: Final = 10.0
_LARGEST_BODY: Final = 1 << 16
_WHOLE: Final = Rectangle(0.0, 0.0, 2.0, 1.0)


def routes(token: str, sources: Callable[[], Mapping[str, Source]]) -> list[web.RouteDef]:
    """Return the page's routes.

    Parameters
    ----------
    token
        Who has it may.
    sources
        Returns the engines that there are now, by name.
    """
    page_of = _Page(sources)

    def route(method: str, path: str, handler: Handler) -> web.RouteDef:
        return web.route(method, path, guarded(token, _told(handler)))

    return [
        route("GET", "/", page_of.page),
        route("GET", "/feed", page_of.feed),
        route("PUT", "/limit", page_of.limit),
        route("POST", "/reclaim", page_of.reclaim),
        route("DELETE", "/request", page_of.cancel),
    ]


def _told(handler: Handler) -> Handler:
    """Return a handler whose errors are answers, in words."""

    async def telling(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "EIO")
            return web.Response(status=400, text=f"{error.strerror or error} ({name})")

    return telling


class _Page:
    def __init__(self, sources: Callable[[], Mapping[str, Source]]) -> None:
        self._sources = sources

    async def page(self, request: web.Request) -> web.Response:
        text, headers = await _in_thread(document)
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def feed(self, request: web.Request) -> web.Response:
        sources = self._sources()
        name = request.query.get("engine", "")
        source = sources.get(name) or next(iter(sources.values()), None)
        if source is None:
            raise os_error(errno.ENOENT, "there is no engine: start one that serves, with z.serve() or uzswap run")
        since = _number(request, "since")
        cgroup = request.query.get("cgroup", "/")
        if since >= source.when:
            await _in_thread(lambda: source.looked(source.looks, _PATIENCE))
        minutes = request.query.get("range") == "day"
        told = await _in_thread(lambda: _feed(source, cgroup, since, minutes=minutes))
        return web.json_response({"engine": source.name, "engines": sorted(sources), **told})

    async def limit(self, request: web.Request) -> web.Response:
        source = self._source(request)
        cgroup, file, value = await _body(request, "cgroup", "file", "value")
        await _in_thread(lambda: source.write(cgroup, file, value))
        return web.Response(status=204)

    async def reclaim(self, request: web.Request) -> web.Response:
        source = self._source(request)
        cgroup, text = await _body(request, "cgroup", "text")
        return web.json_response(source.reclaim(cgroup, text).as_json(), status=201)

    async def cancel(self, request: web.Request) -> web.Response:
        source = self._source(request)
        number = int(_number(request, "number"))
        await _in_thread(lambda: source.cancel(number))
        return web.Response(status=204)

    def _source(self, request: web.Request) -> Source:
        name = request.query.get("engine", "")
        source = self._sources().get(name)
        if source is None:
            raise os_error(errno.ENOENT, f"no engine is called {name!r}")
        return source


def _feed(source: Source, cgroup: str, since: float, *, minutes: bool) -> dict[str, Any]:
    told = source.told
    mine = told.get(cgroup)
    cgroups = [_row(path, one) for path, one in told.items()]
    listed = sorted(cgroups, key=lambda row: -row["use"])[:_MOST_LISTED]
    ages: dict[str, Any] = {"since": [0], "bytes": [0], "entries": [0]}
    if mine is not None:
        with contextlib.suppress(OSError):  # it is gone by now, or the engine is: the next look tells
            ages = source.ages(cgroup)
    return {
        "trouble": source.trouble,
        "gone": mine is None and "/" in told,
        "now": _row(cgroup, mine or {}) | {"written_ever": _stat(mine or {}).get("zswpwb_proactive_b", 0)},
        "series": source.history.since(cgroup, since, minutes=minutes),
        "cgroups": listed,
        "rectangles": _rectangles(listed[:_MOST_RECTANGLES]),
        "limits": _limits(cgroup, mine or {}),
        "ages": ages,
        "requests": [_with_size(request.as_json()) for request in source.requests()],
        "last": _last(told),
        "decisions": source.decisions(cgroup),
        "write_budget": source.write_budget,
    }


def _stat(told: Told) -> Mapping[str, int]:
    found: Mapping[str, int] = told.get("memory.stat", {})
    return found


def _row(path: str, told: Told) -> dict[str, Any]:
    stat = _stat(told)
    resident, zswap, disk = stat.get("anon", 0), stat.get("zswap", 0), stat.get("uzswap.disk", 0)
    most = told.get("memory.max")
    return {
        "cgroup": path,
        "resident": resident,
        "zswap": zswap,
        "zswapped": stat.get("zswapped", 0),
        "disk": disk,
        "use": resident + zswap + disk,
        "current": told.get("memory.current", 0),
        "max": most if isinstance(most, int) else None,
        "pressure": told.get("memory.pressure", {}).get("some", {}).get("avg10", 0.0),
    }


def _rectangles(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the treemap, of what each cgroup uses beside its children."""
    below: dict[str, int] = {}
    for row in rows:
        parent = row["cgroup"].rpartition("/")[0] or "/"
        if row["cgroup"] != "/":
            below[parent] = below.get(parent, 0) + row["use"]
    own = [(max(0, row["use"] - below.get(row["cgroup"], 0)), row["cgroup"]) for row in rows]
    own = sorted([one for one in own if one[0]], key=lambda one: -one[0])
    found = squarified([use for use, _ in own], _WHOLE)
    return {side: [getattr(one, side) for one in found] for side in Rectangle._fields} | {
        "cgroup": [path for _, path in own],
        "told": [f"{use} bytes" for use, _ in own],
    }


def _limits(cgroup: str, told: Told) -> dict[str, int | str]:
    """Return the limits that can be edited here; what is not told is not set."""
    unset: dict[str, int | str] = dict.fromkeys(LIMITS, "max")
    unset |= {"memory.min": 0, "memory.low": 0, "memory.zswap.writeback": 1}
    files = LIMITS if cgroup != "/" else ("memory.zswap.writeback",)
    return {name: told.get(name, unset[name]) for name in files}


def _last(told: Mapping[str, Told]) -> list[dict[str, Any]]:
    """Return what the last request of each cgroup did, whoever made it."""
    names = ("asked", "written", "reclaimed", "entries", "seconds")
    return [
        {"cgroup": path} | {name: last.get(name, 0) for name in names}
        for path, one in told.items()
        if (last := one.get("uzswap.last_reclaim"))
    ][:_MOST_LISTED]


def _with_size(request: dict[str, Any]) -> dict[str, Any]:
    """Add the bytes that a request is for."""
    asked = 0
    with contextlib.suppress(OSError):
        asked, _ = memparse(request["text"])
    return request | {"asked": asked}


def _number(request: web.Request, name: str) -> float:
    text = request.query.get(name, "0")
    with contextlib.suppress(ValueError):
        value = float(text)
        if 0 <= value < float("inf"):
            return value
    raise os_error(errno.EINVAL, f"{name}={text!r} is no number", request.path)


async def _body(request: web.Request, *names: str) -> list[str]:
    """Return values of the JSON object that a request has for a body, as text."""
    data = await request.content.read(_LARGEST_BODY)
    try:
        body = json.loads(data)
        return [str(body[name]) for name in names]
    except (ValueError, TypeError, KeyError) as error:
        raise os_error(errno.EINVAL, f"an object with {', '.join(names)} is wanted: {error!r}", request.path) from error


async def _in_thread(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, work)
