"""Errors that a caller can act on.

Everything uzswap raises on purpose is an :class:`OSError` that carries the errno the kernel would give, so
``except BlockingIOError`` (EAGAIN), ``except FileNotFoundError`` (ENOENT) and so on work, and a file system adapter
can hand the errno on unchanged.  A class of our own exists only where it carries something more than an errno.

All of them survive :mod:`pickle`, because exceptions travel between processes in worker pools.
"""

from __future__ import annotations

import errno as _errno
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uzswap.result import ReclaimResult

__all__ = [
    "IntegrityError",
    "InvalidArgumentError",
    "ReclaimError",
    "ReclaimIncomplete",
    "ReclaimInterrupted",
    "StaleHandleError",
    "os_error",
    "reclaim_error",
]


def os_error(errno: int, text: str, filename: str | None = None) -> OSError:
    """Return the exact OSError subclass for ``errno``, to be raised by the caller.

    Parameters
    ----------
    errno
        A positive errno.
    text
        What is wrong, with the offending value and the remedy.
    filename
        The control file or cgroup it is about; shown behind the text and kept in ``.filename``.
    """
    if filename is None:
        return OSError(errno, text)
    return OSError(errno, text, filename)


class InvalidArgumentError(OSError, ValueError):
    """EINVAL for an argument of the Python API: what a Python caller expects, and what a control file would say."""

    def __init__(self, text: str) -> None:
        super().__init__(_errno.EINVAL, text)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.strerror,)


class IntegrityError(OSError):
    """Stored bytes did not come back as they were written; errno EIO.

    Only the access that met the damage fails.  The data is gone; drop the handle and make the data anew.

    Attributes
    ----------
    cgroup : str
        Path of the cgroup that owns the entry.
    """

    def __init__(self, text: str, cgroup: str) -> None:
        super().__init__(_errno.EIO, text)
        self.cgroup = cgroup

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.strerror, self.cgroup)


class StaleHandleError(OSError):
    """A handle that was freed, consumed by a load, or given out by another engine; errno ESTALE."""

    def __init__(self, text: str) -> None:
        super().__init__(_errno.ESTALE, text)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.strerror,)


class ReclaimError(OSError):
    """A reclaim request that ended early.  What it did until then stays done.

    Attributes
    ----------
    result : ReclaimResult
        How far the request came.
    """

    def __init__(self, errno: int, text: str, result: ReclaimResult) -> None:
        super().__init__(errno, text)
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.errno, self.strerror, self.result)


class ReclaimIncomplete(ReclaimError, BlockingIOError):
    """EAGAIN: less was reclaimed than was asked for.  It does not mean that nothing was."""


class ReclaimInterrupted(ReclaimError, InterruptedError):
    """EINTR: a signal or a cancel ended the request between two batches."""


_RECLAIM_ERRORS: dict[int, type[ReclaimError]] = {
    _errno.EAGAIN: ReclaimIncomplete,
    _errno.EINTR: ReclaimInterrupted,
}


def reclaim_error(errno: int, text: str, result: ReclaimResult) -> ReclaimError:
    """Return the :class:`ReclaimError` for ``errno``, to be raised by the caller."""
    return _RECLAIM_ERRORS.get(errno, ReclaimError)(errno, text, result)
