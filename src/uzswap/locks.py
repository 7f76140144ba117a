"""The order of all locks of the package: who has one may wait only for those that come after it.

:class:`Order` names every lock; docs/locking.md says what each guards, and goes on with those of the data plane.  Where
the environment says ``UZSWAP_CHECK_LOCKS=1``, as it does for the tests, each lock checks the order: waiting for one out
of order is a :class:`~uzswap.core.boundary.ordered.LockOrderError` with both stacks, whether or not it would have hung.
Else they are those of :mod:`threading`.
"""

from __future__ import annotations

import os
import threading
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Final, cast

from uzswap.condition import Condition
from uzswap.core.boundary.ordered import OrderedLock

if TYPE_CHECKING:
    from _thread import LockType

__all__ = ["Order", "make_condition", "make_lock", "make_rlock"]

_CHECKED: Final = os.environ.get("UZSWAP_CHECK_LOCKS") == "1"


class Order(IntEnum):
    """All locks, the outermost first."""

    CLOSING = auto()
    SERVING = auto()
    SERVER = auto()
    MOUNT = auto()
    MOUNT_STATE = auto()
    WATCH = auto()
    MANAGED = auto()
    KEPT = auto()
    TREE = auto()
    ARENA = auto()
    ARENAS = auto()
    WORKER = auto()
    PRESSURE = auto()
    CHANGED = auto()
    STORE_WORKER = auto()


def make_lock(order: Order) -> LockType:
    """Return a lock with a place in the order."""
    return cast("LockType", OrderedLock(order, order.name)) if _CHECKED else threading.Lock()


def make_rlock(order: Order) -> threading.RLock:
    """Return a reentrant lock with a place in the order."""
    return cast("threading.RLock", OrderedLock(order, order.name, True)) if _CHECKED else threading.RLock()


def make_condition(order: Order) -> Condition:
    """Return a condition whose lock, a reentrant one, has a place in the order."""
    return Condition(make_rlock(order))
