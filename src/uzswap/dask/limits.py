"""How much a worker's values may occupy, and what the process has: when something has to go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dask.config

from uzswap.dask.config import setting, share

__all__ = ["Limits", "Pressure", "limits_of"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes; None is no limit, or one that is not known yet."""

    #: most that values occupy in memory, compressed ones included
    target: int | None = None
    #: how much more before whoever sets a value makes room itself
    headroom: int = 0
    #: most of the pool
    pool: int | None = None
    #: of the process: above the first, values go until it is down to the second
    process_start: int | None = None
    process_stop: int | None = None


def limits_of(
    memory_limit: int | None, target: Any = None, headroom: Any = None, pool: Any = None, *, watch: bool = True
) -> Limits:
    """Return the limits of a worker.

    Parameters
    ----------
    memory_limit
        The worker's, in bytes.
    target, headroom, pool
        Instead of what the configuration says.
    watch
        Whether the process's memory counts, too, as Dask's memory monitor has it.
    """
    wanted = setting("target", target)
    if wanted is None:
        wanted = dask.config.get("distributed.worker.memory.target")
    nbytes = None if wanted is None or wanted is False else share("target", wanted, memory_limit)
    above = share("headroom", setting("headroom", headroom), memory_limit) or 0
    start = dask.config.get("distributed.worker.memory.spill")
    if not watch or memory_limit is None or start is False or start is None:
        return Limits(nbytes, above, share("pool", setting("pool", pool), memory_limit))
    stop = dask.config.get("distributed.worker.memory.target") or start
    return Limits(
        nbytes,
        above,
        share("pool", setting("pool", pool), memory_limit),
        int(start * memory_limit),
        int(stop * memory_limit),
    )


class Pressure:
    """How many bytes are too many, by the limits of values and by the memory of the process.

    The latter has Dask's hysteresis: from ``distributed.worker.memory.spill`` on, values go until it is down to
    ``target``.  Any thread.
    """

    def __init__(self, limits: Limits, managed: Callable[[], int]) -> None:
        self.limits = limits
        self._managed = managed
        self._process: Callable[[], int] | None = None
        self._pressed = False

    def watch(self, limits: Limits, process: Callable[[], int]) -> None:
        """Have the limits of a worker from now on, and a look at its process."""
        self.limits = limits
        self._process = process

    def excess(self) -> int:
        """Return the bytes that should go."""
        target = self.limits.target
        over = 0 if target is None else self._managed() - target
        return max(over, self.process_excess())

    def process_excess(self) -> int:
        """Return the bytes that the process has too much."""
        start, stop = self.limits.process_start, self.limits.process_stop
        if self._process is None or start is None or stop is None:
            return 0
        has = self._process()
        self._pressed = has > (stop if self._pressed else start)
        return has - stop if self._pressed else 0
