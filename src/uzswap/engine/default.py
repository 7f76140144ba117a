"""The engine of a program that was started by ``uzswap run``."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from uzswap.errors import os_error

if TYPE_CHECKING:
    from uzswap.engine.zswap import Zswap

__all__ = ["default_engine", "set_default_engine"]

_engine: Zswap | None = None


def default_engine() -> Zswap:
    """Return the engine that ``uzswap run`` made for this program; it lives until the process ends.

    A library uses it to put what it holds into the same pool.  In a forked child it is the parent's, and unusable.

    Raises
    ------
    OSError
        ENODEV: the program was not started by ``uzswap run``.

    >>> default_engine()
    Traceback (most recent call last):
    OSError: [Errno 19] this program has no default engine: start it with uzswap run, or make a Zswap
    """
    if _engine is None:
        raise os_error(errno.ENODEV, "this program has no default engine: start it with uzswap run, or make a Zswap")
    return _engine


def set_default_engine(zswap: Zswap) -> None:
    """Make an engine the default one."""
    global _engine
    _engine = zswap
