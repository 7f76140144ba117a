"""Who may use the page: who knows the token, comes from this host, and from no other page.

A page of another site can have a browser send requests to localhost, and can reach it under a name of its own (DNS
rebinding).  So the token has to be there, in the URL of the page and in a header of all else; the host has to be this
one; and what says that it comes from another origin is refused.  Nothing allows another origin to read an answer.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

__all__ = ["HEADER", "guarded", "new_token"]

HEADER: Final = "X-Uzswap-Token"
_HERE: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
#: Sec-Fetch-Site of what the page itself, or the user, asks for
_OUR_OWN: Final = frozenset({"same-origin", "none"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def new_token() -> str:
    """Return a secret for a URL, 256 bits."""
    return secrets.token_urlsafe(32)


def guarded(token: str, handler: Handler) -> Handler:
    """Return a handler that refuses, with 403, whoever may not."""

    async def checked(request: web.Request) -> web.StreamResponse:
        host = request.headers.get("Host", "").rpartition(":")[0] or request.headers.get("Host", "")
        if host not in _HERE:
            return _refused("this page is for localhost")
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"http://{request.headers['Host']}":
            return _refused("another origin has no business here")
        if request.headers.get("Sec-Fetch-Site", "none") not in _OUR_OWN:
            return _refused("another site has no business here")
        given = request.headers.get(HEADER) or request.query.get("token", "")
        if not hmac.compare_digest(given.encode(errors="replace"), token.encode()):
            return _refused("the token is missing or wrong: use the URL that was printed")
        return await handler(request)

    return checked


def _refused(why: str) -> web.Response:
    return web.Response(status=403, text=f"403: {why}\n")
