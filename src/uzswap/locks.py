"""The order of all locks of the package: who has one may wait only for those that come after it.

:class:`Order` names every lock; docs/locking.md says what each guards, and goes on with those of the data plane.  Where
the environment says ``UZSWAP_CHECK_LOCKS=1``, as it does for the tests, each lock checks the order: waiting for one out
of order is a :class:`~uzswap.core.boundary.ordered.LockOrderError` with both stacks, whether or not it would have hung.
Else they are those of :mod:`threading`.
"""

from __future__ import annotations

import os
import threading
import weakref
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Any, Final, cast

from uzswap.condition import Condition
from uzswap.core.boundary.ordered import OrderedLock

if TYPE_CHECKING:
    from _thread import LockType

__all__ = ["Order", "make_condition", "make_lock", "make_rlock", "renew_locks"]

_CHECKED: Final = os.environ.get("UZSWAP_CHECK_LOCKS") == "1"


class Order(IntEnum):
    """All locks, the outermost first."""

    NEIGHBOUR = auto()
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
    lock = cast("LockType", OrderedLock(order, order.name)) if _CHECKED else threading.Lock()
    _made.add(lock)
    return lock


def make_rlock(order: Order) -> threading.RLock:
    """Return a reentrant lock with a place in the order."""
    lock = cast("threading.RLock", OrderedLock(order, order.name, True)) if _CHECKED else threading.RLock()
    _made.add(lock)
    return lock


def make_condition(order: Order) -> Condition:
    """Return a condition whose lock, a reentrant one, has a place in the order."""
    condition = Condition(make_rlock(order))
    _conditions.add(condition)
    return condition


#: all that there are, for forks
_made: weakref.WeakSet[Any] = weakref.WeakSet()
_conditions: weakref.WeakSet[Condition] = weakref.WeakSet()


def renew_locks() -> None:
    """In a forked child: let go of every lock that a thread of the parent's had, since it is not here to do so.

    What these guard is whole: the modules that take them let nobody run between two steps of theirs (setup.py,
    ``UNTORN``).
    """
    for lock in list(_made):
        if not (hasattr(lock, "_is_owned") and lock._is_owned()):
            lock._at_fork_reinit()
    for condition in list(_conditions):
        condition.forget_waiters()
