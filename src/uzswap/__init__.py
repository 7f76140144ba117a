"""zswap for processes: a compressed pool in RAM before a swap file, with memory cgroups and proactive writeback."""

from uzswap._version import __version__
from uzswap.arrays.advice import ArrayInfo, advise, info, resident
from uzswap.arrays.array import array, asarray, empty, from_file, full, ones, zeros
from uzswap.arrays.managed import managed
from uzswap.arrays.take import put, take
from uzswap.caches.decorator import cache
from uzswap.cgroup.memcg import MemCgroup
from uzswap.core.boundary.engine import REFUSED
from uzswap.engine.default import default_engine, set_default_engine
from uzswap.engine.zswap import Zswap
from uzswap.errors import (
    IntegrityError,
    InvalidArgumentError,
    ReclaimError,
    ReclaimIncomplete,
    ReclaimInterrupted,
    StaleHandleError,
)
from uzswap.probes import doctor
from uzswap.reclaim.trace import TraceEvent
from uzswap.result import ReclaimResult
from uzswap.store.store import Store

__all__ = [
    "REFUSED",
    "ArrayInfo",
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
    "advise",
    "array",
    "asarray",
    "cache",
    "default_engine",
    "doctor",
    "empty",
    "from_file",
    "full",
    "info",
    "managed",
    "ones",
    "put",
    "resident",
    "set_default_engine",
    "take",
    "zeros",
]
