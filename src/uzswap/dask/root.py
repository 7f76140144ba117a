"""A cluster as a root of control files, ``dask://SCHEDULER``: a directory a worker, and in each what its engine has.

::

    cgroup/                     the cluster: memory.stat and memory.current are sums, memory.reclaim is cut over workers
    cgroup/WORKER/              the cgroup that has a worker's values, with all of its files
    meminfo  zswap/parameters/  the machine, as an agent asks for it

A worker's directory has its address for a name, with dashes.  Its inode tells it from every other, also from one that
comes at the same address later.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import re
import uuid
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Self

import dask.config
from dask.utils import parse_timedelta
from distributed import Client

from uzswap.cgroup.reclaim import parse
from uzswap.client.root import PATIENCE, Interrupts, Name, Root
from uzswap.dask import on_worker
from uzswap.dask.cluster import Cluster
from uzswap.errors import os_error, reclaim_error

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ClusterRoot", "directory_of", "open_root"]

#: files of the cluster's own directory, with their modes
_SUMS: Final = ("memory.current", "memory.stat", "memory.zswap.current")
_OWN: Final = {**dict.fromkeys(_SUMS, 0o444), "memory.reclaim": 0o200}
#: seconds for a scheduler to answer at first; Dask's own patience, distributed.comm.timeouts.connect, is for workers
_CONNECT: Final = 10.0


def directory_of(address: str) -> str:
    """Return the name of a worker's directory.

    >>> directory_of("tcp://127.0.0.1:4711")
    'tcp-127.0.0.1-4711'
    """
    return re.sub(r"[^\w.]+", "-", address)


def open_root(url: str) -> ClusterRoot:
    """Connect to a scheduler: ``dask://HOST:PORT``, or with a protocol of Dask's, ``dask://tls://HOST:PORT``.

    Raises
    ------
    OSError
        ECONNREFUSED: there is none.
    """
    address = url.partition("://")[2].rstrip("/")
    try:
        patience = min(_CONNECT, parse_timedelta(dask.config.get("distributed.comm.timeouts.connect")))
        client = Client(address, timeout=patience, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise os_error(errno.ECONNREFUSED, f"no scheduler of Dask answers: {error}", url) from error
    return ClusterRoot(Cluster(client), owns=True)


class ClusterRoot(Root):
    """The tree of a cluster.  Threads may share it, as they may share a client."""

    def __init__(self, cluster: Cluster, *, owns: bool = False) -> None:
        self.cluster: Final = cluster
        self._owns = owns

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        if self._owns:
            self.cluster.client.close()

    def again(self) -> ClusterRoot:
        return ClusterRoot(self.cluster)

    def read(self, path: str) -> str:
        worker, inner = self._place(path)
        if worker is None:
            if inner in _SUMS:
                return self._sum(inner)
            return str(self._ask(self._any_of_them(path), path, on_worker.read, f"/{inner}"))
        return str(self._ask(worker, path, on_worker.read, inner))

    def write(
        self, path: str, data: bytes, *, within: float | None = None, interrupts: Interrupts | None = None
    ) -> None:
        worker, inner = self._place(path)
        if worker is None and inner == "memory.reclaim":
            with self._told(path):
                self.cluster.carry_out(parse(data.decode()), within=within, interrupts=interrupts)
            return
        if worker is None:
            raise os_error(errno.EACCES, "of the cluster as a whole only memory.reclaim can be written", path)
        token = uuid.uuid4().hex

        def interrupt() -> None:
            self.cluster.client.run(on_worker.interrupt, token, workers=[worker], on_error="ignore")

        with contextlib.nullcontext() if interrupts is None else interrupts.call(interrupt):
            self._ask(worker, path, on_worker.write, inner, data, within, token, within=within)

    def names(self, path: str) -> list[Name]:
        worker, inner = self._place(path, directory=True)
        if worker is not None:
            _, entries = self._ask(worker, path, on_worker.listing, inner)
            return [Name(*entry) for entry in entries]
        if path.strip("/") == "cgroup":
            files = [Name(name, False, mode, number) for number, (name, mode) in enumerate(_OWN.items(), 2)]
            return files + [Name(name, True, 0o755, inode) for name, inode in self.directories(path)]
        _, entries = self._ask(self._any_of_them(path), path, on_worker.listing, f"/{inner}")
        return [Name(*entry) for entry in entries]

    def directories(self, path: str) -> list[tuple[str, int]]:
        if path.strip("/") == "cgroup":
            return [(directory_of(address), _inode(one)) for address, one in self._workers().items()]
        return [(name.name, name.inode) for name in self.names(path) if name.is_directory]

    def inode(self, path: str) -> int:
        worker, inner = self._place(path, directory=True)
        if worker is None:
            return 1
        if inner == on_worker.CGROUP:
            return _inode(self._workers()[worker])
        return int(self._ask(worker, path, on_worker.listing, inner)[0])

    def mkdir(self, path: str) -> None:
        raise os_error(errno.EPERM, "workers make their cgroups themselves", path)

    def rmdir(self, path: str) -> None:
        raise os_error(errno.EPERM, "workers remove their cgroups themselves", path)

    # Where

    def _workers(self) -> Mapping[str, Any]:
        """What the scheduler knows of each worker, without asking them."""
        client = self.cluster.client
        workers: Mapping[str, Any] = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
        return workers

    def _place(self, path: str, directory: bool = False) -> tuple[str | None, str]:
        """Return the address of the worker that a path is of, and the path there; None, and what is left, without."""
        parts = [part for part in path.split("/") if part]
        if len(parts) < 2 or parts[0] != "cgroup":
            return None, "/".join(parts)
        if len(parts) == 2 and parts[1] in _OWN and not directory:
            return None, parts[1]
        for address in self._workers():
            if directory_of(address) == parts[1]:
                return address, "/".join([on_worker.CGROUP, *parts[2:]])
        raise os_error(errno.ENOENT, "there is no such file, or the worker is gone", path)

    def _any_of_them(self, path: str) -> str:
        for address in self._workers():
            return address
        raise os_error(errno.ENOENT, "the cluster has no workers", path)

    def _ask(self, worker: str, path: str, function: Any, *arguments: Any, within: float | None = None) -> Any:
        with self._told(path):
            asked = self.cluster.client.run(function, *arguments, workers=[worker], on_error="return")
        answer = asked.get(worker)
        if isinstance(answer, OSError):
            raise os_error(errno.ENODEV, f"the worker is gone: {answer}", path)
        if isinstance(answer, BaseException):
            raise answer
        if answer is None:
            raise os_error(errno.EOPNOTSUPP, "the worker has another memory: start it with --preload uzswap.dask", path)
        if answer[0] == "error":
            _, number, words, result = answer
            if result is not None:
                error = reclaim_error(number, words, result)
                error.filename = path
                raise error
            raise os_error(number, words, path)
        return answer[1]

    @contextlib.contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except (concurrent.futures.CancelledError, TimeoutError) as error:
            raise os_error(
                errno.ECONNRESET, f"the scheduler has ended, or does not answer in {PATIENCE:g} s", path
            ) from error

    def _sum(self, file: str) -> str:
        """The sum of a file over the workers; of a file of numbers by name, of each of them."""
        total: dict[str, int] = {}
        for text in self.cluster.read(file).values():
            for line in text.splitlines():
                name, _, number = line.rpartition(" ")
                total[name] = total.get(name, 0) + int(number)
        return "".join(f"{name} {number}\n".lstrip() for name, number in total.items()) or "0\n"


def _inode(identity: Mapping[str, Any]) -> int:
    """A number of the worker's own: its server has another id when it is started again at the same address."""
    return 16 + zlib.crc32(f"{identity.get('id')}{identity.get('name')}{identity.get('local_directory')}".encode())
