"""``--preload uzswap.dask``: a worker gets its memory, a scheduler its plugin."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from distributed import Scheduler, Worker

from uzswap.dask.heartbeat import METRIC, tell
from uzswap.dask.memory import WorkerMemory

if TYPE_CHECKING:
    from distributed.core import Server

__all__ = ["dask_setup", "dask_teardown"]

_log = logging.getLogger("distributed.worker.memory.uzswap")


def dask_setup(server: Server) -> None:
    """Called by Dask when a server starts, before a worker has any value."""
    if isinstance(server, Worker):
        _give_memory(server)
    elif isinstance(server, Scheduler):
        from uzswap.dask.plugin import install

        install(server)


def dask_teardown(server: Server) -> None:
    """Called by Dask when a server closes."""
    if isinstance(server, Worker) and isinstance(server.data, WorkerMemory):
        server.data.close()


def _give_memory(worker: Worker) -> None:
    manager = worker.memory_manager
    if not isinstance(manager.data, WorkerMemory):
        if not manager.memory_limit or not (manager.memory_target_fraction or manager.memory_spill_fraction):
            _log.info("%s has no memory limit, or none that counts: its memory stays as it is", worker.name)
            return
        if manager.data:
            raise RuntimeError(f"{worker.name} has values already: preload uzswap.dask when it starts")
        memory = WorkerMemory(worker.local_directory)
        manager.data = memory
        worker.state.data = memory
        # The metrics of the class were taken when the worker was made, perhaps before this module was there.
        worker.metrics.setdefault(METRIC, tell)
    memory_of = manager.data
    assert isinstance(memory_of, WorkerMemory)
    memory_of.attach(worker)
