"""Real clusters, each in a process of its own: their threads and event loops end with it."""

from __future__ import annotations

from tests.support.child import PATIENCE, Finished, run

#: what every child begins with; its main module is imported by the workers, too
PREAMBLE = """
import logging, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from distributed import Client, LocalCluster, wait
from uzswap.dask import Cluster, WorkerMemory

#: two workers in one process: they start in a tenth of the time
together = {"processes": False, "memory_limit": "4GiB", "protocol": "tcp", "host": "127.0.0.1"}

def cluster(data=(WorkerMemory, {}), **options):
    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": "512MiB", "dashboard_address": None,
               "silence_logs": logging.CRITICAL, **options}
    if data is not None:
        options["data"] = data
    return LocalCluster(**options)
"""


def in_cluster(body: str, *args: str, env: dict[str, str] | None = None) -> Finished:
    """Run code that makes a cluster; it ends with 0."""
    main = 'if __name__ == "__main__":\n' + "\n".join(f"    {line}" for line in body.splitlines()) + "\n"
    return run(PREAMBLE + main, args, env=env, timeout=2 * PATIENCE).check()
