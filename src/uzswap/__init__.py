"""zswap for processes: a compressed pool in RAM before a swap file, with memory cgroups and proactive writeback."""

from uzswap._version import __version__
from uzswap.cgroup.memcg import MemCgroup
from uzswap.core.engine import REFUSED
from uzswap.errors import (
    IntegrityError,
    InvalidArgumentError,
    ReclaimError,
    ReclaimIncomplete,
    ReclaimInterrupted,
    StaleHandleError,
)
from uzswap.memory.array import array, asarray, empty, full, ones, zeros
from uzswap.memory.store import Store
from uzswap.result import ReclaimResult
from uzswap.trace import TraceEvent
from uzswap.zswap import Zswap

__all__ = [
    "REFUSED",
    "IntegrityError",
    "InvalidArgumentError",
    "MemCgroup",
    "ReclaimError",
    "ReclaimIncomplete",
    "ReclaimInterrupted",
    "ReclaimResult",
    "StaleHandleError",
    "Store",
    "TraceEvent",
    "Zswap",
    "__version__",
    "array",
    "asarray",
    "empty",
    "full",
    "ones",
    "zeros",
]
