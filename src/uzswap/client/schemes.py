"""Trees that are reached by a URL: ``dask://SCHEDULER``.

What opens one is found by its name, and loaded when it is asked for: nothing here knows it.
"""

from __future__ import annotations

import errno
import importlib
from typing import TYPE_CHECKING, Final, cast

from uzswap.errors import os_error

if TYPE_CHECKING:
    from uzswap.client.root import Root

__all__ = ["is_url", "open_url", "split_url"]

#: scheme -> module with ``open_root(url) -> Root``, and what brings what that needs
_OPENERS: Final = {"dask": ("uzswap.dask.root", "uzswap[dask]")}


def is_url(path: str) -> bool:
    """Whether a path is the URL of a tree.

    >>> is_url("dask://127.0.0.1:8786"), is_url("/jobs/a")
    (True, False)
    """
    return path.partition("://")[0] in _OPENERS


def split_url(url: str) -> tuple[str, str]:
    """Return the URL of a tree, and the path in it.

    >>> split_url("dask://127.0.0.1:8786/tcp-127.0.0.1-4711/memory.stat")
    ('dask://127.0.0.1:8786', '/tcp-127.0.0.1-4711/memory.stat')
    >>> split_url("dask://tls://cluster:8786")
    ('dask://tls://cluster:8786', '/')
    """
    *protocols, rest = url.split("://")
    host, _, path = rest.partition("/")
    return "://".join([*protocols, host]), f"/{path.strip('/')}"


def open_url(url: str) -> Root:
    """Return the tree at a URL.

    Raises
    ------
    OSError
        ENOPKG: what it needs is not installed; or what connecting to it gave.
    """
    module, extra = _OPENERS[url.partition("://")[0]]
    try:
        opener = importlib.import_module(module)
    except ImportError as error:
        raise os_error(errno.ENOPKG, f"pip install '{extra}' ({error})", url) from error
    return cast("Root", opener.open_root(url))
