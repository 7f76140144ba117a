"""What a scheduler does for the memory of its workers: it remembers what was written for all, and shows a page."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from distributed import SchedulerPlugin
from distributed.protocol.pickle import dumps

from uzswap.dask import on_worker
from uzswap.dask.config import setting

if TYPE_CHECKING:
    from distributed import Scheduler

__all__ = ["ClusterPlugin", "install", "settings_on"]

NAME: Final = "uzswap"

_log = logging.getLogger("distributed.scheduler.uzswap")


class ClusterPlugin(SchedulerPlugin):
    """Gives workers that come what was written for all of them.  There is one a scheduler; a second does nothing."""

    name = NAME
    idempotent = True

    def __init__(self) -> None:
        #: control file -> text
        self.files: dict[str, str] = {}
        self._tasks: set[asyncio.Future[None]] = set()

    async def start(self, scheduler: Scheduler) -> None:
        if setting("dashboard"):
            _show_page(scheduler)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        if self.files:
            # Beside this call: the worker answers only when it is over.
            task = asyncio.ensure_future(self._configure(scheduler, worker))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _configure(self, scheduler: Scheduler, worker: str) -> None:
        arguments = {"args": dumps((dict(self.files),)), "kwargs": dumps({}), "wait": True}
        message = {"op": "run", "function": dumps(on_worker.configure), **arguments}
        found = await scheduler.broadcast(msg=message, workers=[worker], on_error="return")
        if isinstance(found.get(worker), Exception):
            _log.warning("%s has gone before it got %s: %s", worker, self.files, found[worker])


async def settings_on(files: dict[str, str], dask_scheduler: Scheduler) -> None:
    """Keep what was written, for workers to come."""
    plugin: Any = dask_scheduler.plugins[NAME]
    plugin.files.update(files)


def install(scheduler: Scheduler) -> None:
    """Give a scheduler its plugin and its page: for a preload, which comes before there are workers."""
    if NAME not in scheduler.plugins:
        scheduler.add_plugin(ClusterPlugin())
        if setting("dashboard"):
            _show_page(scheduler)


def _show_page(scheduler: Scheduler) -> None:
    try:
        from uzswap.dask.page import show
    except ImportError as error:  # bokeh is not there, and so is no dashboard
        _log.info("no page on the dashboard: %s", error)
        return
    show(scheduler)
