"""zswap for processes: a compressed pool in RAM before a swap file, with memory cgroups and proactive writeback."""

from uzswap._version import __version__
from uzswap.cgroup.memcg import MemCgroup
from uzswap.core.engine import REFUSED
from uzswap.default import default_engine
from uzswap.errors import (
    IntegrityError,
    InvalidArgumentError,
    ReclaimError,
    ReclaimIncomplete,
    ReclaimInterrupted,
    StaleHandleError,
)
from uzswap.memory.advice import ArrayInfo, advise, info, resident
from uzswap.memory.array import array, asarray, empty, from_file, full, ones, zeros
from uzswap.memory.managed import managed
from uzswap.memory.store import Store
from uzswap.result import ReclaimResult
from uzswap.trace import TraceEvent
from uzswap.zswap import Zswap

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
    "default_engine",
    "empty",
    "from_file",
    "full",
    "info",
    "managed",
    "ones",
    "resident",
    "zeros",
]
