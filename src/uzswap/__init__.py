"""zswap for processes: a compressed pool in RAM before a swap file, with memory cgroups and proactive writeback.

The names come with their modules when they are first used, so that a program that only talks to control files
(:mod:`uzswap.client`, :mod:`uzswap.agent`) loads neither numpy nor the compiled core.
"""

from __future__ import annotations

import importlib
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from uzswap._version import __version__

if TYPE_CHECKING:
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
    from uzswap.reports.report import Report, report
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
    "Report",
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
    "report",
    "resident",
    "set_default_engine",
    "take",
    "zeros",
]

#: name -> module that it is from
_WHERE: Final = {
    "ArrayInfo": "uzswap.arrays.advice",
    "IntegrityError": "uzswap.errors",
    "InvalidArgumentError": "uzswap.errors",
    "MemCgroup": "uzswap.cgroup.memcg",
    "REFUSED": "uzswap.core.boundary.engine",
    "ReclaimError": "uzswap.errors",
    "ReclaimIncomplete": "uzswap.errors",
    "ReclaimInterrupted": "uzswap.errors",
    "ReclaimResult": "uzswap.result",
    "Report": "uzswap.reports.report",
    "StaleHandleError": "uzswap.errors",
    "Store": "uzswap.store.store",
    "TraceEvent": "uzswap.reclaim.trace",
    "Zswap": "uzswap.engine.zswap",
    "advise": "uzswap.arrays.advice",
    "array": "uzswap.arrays.array",
    "asarray": "uzswap.arrays.array",
    "cache": "uzswap.caches.decorator",
    "default_engine": "uzswap.engine.default",
    "doctor": "uzswap.probes",
    "empty": "uzswap.arrays.array",
    "from_file": "uzswap.arrays.array",
    "full": "uzswap.arrays.array",
    "info": "uzswap.arrays.advice",
    "managed": "uzswap.arrays.managed",
    "ones": "uzswap.arrays.array",
    "put": "uzswap.arrays.take",
    "report": "uzswap.reports.report",
    "resident": "uzswap.arrays.advice",
    "set_default_engine": "uzswap.engine.default",
    "take": "uzswap.arrays.take",
    "zeros": "uzswap.arrays.array",
}


# A module that a thread imports during a fork is locked for ever in the child, where that thread is not: a fork waits.
_importing = threading.RLock()
os.register_at_fork(before=_importing.acquire, after_in_parent=_importing.release, after_in_child=_importing.release)


def __getattr__(name: str) -> object:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module 'uzswap' has no attribute {name!r}")
    with _importing:
        value = getattr(importlib.import_module(module), name)
    globals()[name] = value  # the next time it is found without this
    return value


def load_ipython_extension(shell: Any) -> None:
    """What ``%load_ext uzswap`` calls in IPython and Jupyter: see docs/neighbours.md."""
    importlib.import_module("uzswap.notebook").load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """What ``%unload_ext uzswap`` calls."""
    importlib.import_module("uzswap.notebook").unload(shell)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
