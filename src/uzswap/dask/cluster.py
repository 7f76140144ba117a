"""The memory of a cluster as one: what all workers have, and reclaim over all of them."""

from __future__ import annotations

import contextlib
import errno
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from uzswap.cgroup.reclaim import ReclaimRequest, request
from uzswap.dask import on_worker
from uzswap.dask.plan import cut
from uzswap.dask.plugin import ClusterPlugin, settings_on
from uzswap.errors import InvalidArgumentError, os_error, reclaim_error
from uzswap.result import ReclaimResult
from uzswap.units import format_size

if TYPE_CHECKING:
    from distributed import Client

    from uzswap.client.root import Interrupts

__all__ = ["Cluster", "ClusterStat"]

#: what :meth:`Cluster.stat` sums up
_SUMMED: Final = ("values", "bytes", "resident", "zswap", "zswapped", "disk", "written", "rss", "limit")


@dataclass(frozen=True, slots=True)
class ClusterStat:
    """Bytes by tier; the numbers are those of :meth:`uzswap.dask.WorkerMemory.stats`, with the process's RSS."""

    #: by address
    workers: Mapping[str, Mapping[str, Any]]
    #: addresses of those with another memory
    others: tuple[str, ...] = ()
    total: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        total = {key: sum(int(one[key]) for one in self.workers.values()) for key in _SUMMED}
        object.__setattr__(self, "total", total)


class Cluster:
    """All workers of a cluster that have a :class:`~uzswap.dask.WorkerMemory`.

    Parameters
    ----------
    client
        A synchronous client.  Its scheduler gets a plugin, which keeps what is written for workers that come later, and
        has a page on Dask's dashboard.

    Notes
    -----
    Workers come and go: each call is about those that are there, and one that goes meanwhile has done nothing.  Threads
    may share it, as far as the client does.
    """

    def __init__(self, client: Client) -> None:
        if client.asynchronous:
            raise InvalidArgumentError("the client is asynchronous: make a Client without asynchronous=True")
        self.client: Final = client
        client.register_plugin(ClusterPlugin())

    def stat(self) -> ClusterStat:
        """Return what each worker has, and all of them together."""
        found = self._ask(on_worker.stat)
        return ClusterStat(
            {address: answer[1] for address, answer in found.items() if answer is not None and answer[0] == "ok"},
            tuple(address for address, answer in found.items() if answer is None),
        )

    def top(self) -> Table:
        """Return a table of :meth:`stat`, for ``rich.print``: the worker with most resident bytes first."""
        stat = self.stat()
        table = Table(box=None, pad_edge=False)
        table.add_column("worker", no_wrap=True)
        columns = ("resident", "zswap", "zswapped", "disk", "rss", "limit")
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("status")
        rows = sorted(stat.workers.items(), key=lambda one: -one[1]["resident"])
        for address, one in rows:
            table.add_row(address, *(format_size(one[name]) for name in columns), one["status"])
        table.add_row(f"{len(rows)} in all", *(format_size(stat.total[name]) for name in columns), "")
        return table

    def reclaim(
        self,
        size: str | int,
        *,
        source: str | None = None,
        min_age: int | None = None,
        swappiness: int | str | None = None,
    ) -> ReclaimResult:
        """Reclaim bytes of the whole cluster, its coldest first.

        One round trip asks each worker for its bytes by age, one has each do its share.

        Parameters
        ----------
        size
            Bytes, or text such as "10G": resident bytes, or compressed ones that are to be written to the disk.
        source
            "zswap": from the pools to the disks.  None: from memory to the pools.
        min_age, swappiness
            As the keys of ``memory.reclaim``: with a source, seconds that what goes is old at least; without one.

        Returns
        -------
        ReclaimResult
            The sum; ``seconds`` is the longest.

        Raises
        ------
        OSError
            EINVAL: there is no such source, or a key that does not go with it.
        ReclaimError
            EAGAIN, or the errno that most workers met: less was done than asked.  Its ``.result`` says how much was.
        """
        return self.carry_out(request(size, source=source, min_age=min_age, swappiness=swappiness))

    def carry_out(
        self, asked: ReclaimRequest, *, within: float | None = None, interrupts: Interrupts | None = None
    ) -> ReclaimResult:
        """Carry out a request of ``memory.reclaim``; see :meth:`reclaim`, and :meth:`uzswap.client.root.Root.write` for
        what ends it with EINTR."""
        ages = {
            address: answer[1]
            for address, answer in self._ask(on_worker.ages, asked.source, asked.min_age or 0).items()
            if answer is not None and answer[0] == "ok"
        }
        shares = cut(asked.nbytes, ages)
        if not shares:
            return _summed(asked.nbytes, asked.source, {})
        token = uuid.uuid4().hex

        def interrupt() -> None:
            self.client.run(on_worker.interrupt, token, workers=list(shares), on_error="ignore")

        with contextlib.nullcontext() if interrupts is None else interrupts.call(interrupt):
            done = self._ask(on_worker.reclaim, shares, asked, within, token, workers=list(shares))
        return _summed(asked.nbytes, asked.source, done)

    def write(self, file: str, text: str) -> None:
        """Write to a control file of every worker's cgroup, of those to come as well.

        Raises
        ------
        OSError
            What one of them says; then it is not kept for those to come.
        """
        found = self._ask(on_worker.configure, {file: text})
        for address, answer in found.items():
            if answer is not None and answer[0] == "error":
                raise os_error(answer[1], answer[2], f"{address}: {file}")
        self.client.run_on_scheduler(settings_on, {file: text})

    def read(self, file: str) -> dict[str, str]:
        """Return a control file of each worker's cgroup, by address."""
        found = self._ask(on_worker.read, f"{on_worker.CGROUP}/{file}")
        texts = {}
        for address, answer in found.items():
            if answer is not None and answer[0] == "error":
                raise os_error(answer[1], answer[2], f"{address}: {file}")
            if answer is not None:
                texts[address] = answer[1]
        return texts

    def _ask(self, function: Any, *arguments: Any, workers: list[str] | None = None) -> dict[str, on_worker.Answer]:
        """Have all workers do something; those that are gone are left out."""
        found = self.client.run(function, *arguments, workers=workers, on_error="return")
        answers: dict[str, on_worker.Answer] = {}
        for address, answer in found.items():
            if isinstance(answer, OSError):
                continue  # no connection: it has gone meanwhile
            if isinstance(answer, BaseException):
                raise answer
            answers[address] = answer
        return answers


def _summed(budget: int, source: str | None, answers: Mapping[str, on_worker.Answer]) -> ReclaimResult:
    results: list[ReclaimResult] = []
    failures: Counter[int] = Counter()
    for answer in answers.values():
        if answer is None:
            continue
        if answer[0] == "ok":
            results.append(answer[1])
        else:
            failures[answer[1]] += 1
            if answer[3] is not None:
                results.append(answer[3])
    failed: Counter[str] = Counter()
    for one in results:
        failed.update(one.failed)
    total = ReclaimResult(
        asked=budget,
        written=sum(one.written for one in results),
        entries=sum(one.entries for one in results),
        scanned=sum(one.scanned for one in results),
        rotated=sum(one.rotated for one in results),
        failed=dict(failed),
        seconds=max((one.seconds for one in results), default=0.0),
        reclaimed=sum(one.reclaimed for one in results),
    )
    if (total.written if source == "zswap" else total.reclaimed) >= budget:
        return total
    worst = failures.most_common(1)[0][0] if failures else errno.EAGAIN
    raise reclaim_error(worst, f"less was reclaimed than asked for, on {len(answers)} workers", total)
