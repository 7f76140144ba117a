"""What each worker tells the scheduler with its heartbeat, and what it learns of itself at the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from distributed.worker import DEFAULT_METRICS

from uzswap.dask.memory import WorkerMemory

if TYPE_CHECKING:
    from distributed import Worker

__all__ = ["METRIC", "tell"]

#: under this name, ``WorkerState.metrics`` of the scheduler has it
METRIC: Final = "uzswap"


def tell(worker: Worker) -> dict[str, int]:
    """Return bytes by tier and pages that came and went; nothing for a worker with another memory."""
    data = worker.data
    if not isinstance(data, WorkerMemory):
        return {}
    data.attach(worker)
    return data.stats()


# Before a worker is made: it takes them over when it is.
DEFAULT_METRICS[METRIC] = tell
