"""The engine that a program shares: of ``uzswap run``, or one that it has made its default."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from uzswap.errors import os_error

if TYPE_CHECKING:
    from uzswap.engine.zswap import Zswap

__all__ = ["default_engine", "set_default_engine"]

_engine: Zswap | None = None


def default_engine() -> Zswap:
    """Return the engine that ``uzswap run`` made for this program, which lives until the process ends, or the one that
    the program made its default.

    A library uses it to put what it holds into the same pool.  In a forked child it is the child's own copy.

    Raises
    ------
    OSError
        ENODEV: there is none.

    >>> default_engine()
    Traceback (most recent call last):
    OSError: [Errno 19] this program has no default engine: start it with uzswap run, or make a Zswap
    """
    if _engine is None:
        raise os_error(errno.ENODEV, "this program has no default engine: start it with uzswap run, or make a Zswap")
    return _engine


def set_default_engine(zswap: Zswap) -> None:
    """Make an engine the one that :func:`default_engine` returns, to libraries too; it stays the caller's to close."""
    global _engine
    _engine = zswap
