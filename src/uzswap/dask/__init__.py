"""uzswap in Dask: a compressed tier in the memory of each worker, and the cluster as one tree.

>>> from distributed import LocalCluster
>>> LocalCluster(data=(WorkerMemory, {}))                           # doctest: +SKIP

or, without a line of Python, ``dask worker --preload uzswap.dask``.
"""

from __future__ import annotations

from uzswap.dask.cluster import Cluster, ClusterStat
from uzswap.dask.memory import WorkerMemory
from uzswap.dask.plugin import ClusterPlugin
from uzswap.dask.preload import dask_setup, dask_teardown

__all__ = ["Cluster", "ClusterPlugin", "ClusterStat", "WorkerMemory", "dask_setup", "dask_teardown"]
