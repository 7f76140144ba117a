"""Dask workers with far more data than memory: uzswap's worker memory beside Dask's own SpillBuffer.

Two worker processes with nannies compute group-bys and a shuffled join on frames that are persisted in their memory,
which has room for a small part of it.  Both candidates do the same in the same run, and check every result to the last
row.  Shown are wall time, bytes written by the workers, restarts by the nanny, the share of time that workers were
paused, and the peak of RSS as a share of the limit.

Targets: no worker is restarted, none is paused for more than a tenth of the time, and RSS stays below the limit.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
import dask
import numpy as np
from rich.text import Text

from benchmarks.common import console, table, verdict

OURS: Final = "uzswap WorkerMemory"
STOCK: Final = "Dask's SpillBuffer"

#: rows of a partition, of some 50 bytes each: 8 MiB
ROWS: Final = 160_000
ROW_BYTES: Final = 52
KEYS: Final = 50_000
GROUPS: Final = 97
PAUSED: Final = 0.1


def columns(number: int) -> tuple[Any, Any]:
    """Keys and values of a partition."""
    random = np.random.default_rng(number)
    return random.integers(0, KEYS, ROWS), random.integers(0, 1000, ROWS)


def partition(number: int) -> Any:
    """A frame of facts, such as a log of orders: keys, counts, prices, times and labels."""
    import pandas as pd

    keys, values = columns(number)
    random = np.random.default_rng(number + 1_000_000)
    labels = pd.array([f"label {i}" for i in range(200)], dtype="string[pyarrow]")
    return pd.DataFrame(
        {
            "key": keys,
            "value": values,
            "price": np.round(random.gamma(2.0, 30.0, ROWS), 2),
            "when": 1_700_000_000_000 + np.cumsum(random.integers(0, 50, ROWS)),
            "label": labels.take(random.integers(0, 200, ROWS)),
        }
    )


def expected(partitions: int) -> Any:
    """Sums of values by key, made without Dask."""
    sums = np.zeros(KEYS, np.int64)
    for number in range(partitions):
        keys, values = columns(number)
        sums += np.bincount(keys, values, KEYS).astype(np.int64)
    return sums


def work(partitions: int, sums: Any) -> None:
    """Persist the frames, group, join, group again.  AssertionError when a row is wrong."""
    import dask.dataframe as dd
    import pandas as pd
    from distributed import wait

    facts = dd.from_map(partition, range(partitions)).persist()
    wait(facts)
    found = facts.groupby("key").value.sum().compute().reindex(range(KEYS), fill_value=0)
    assert (found.to_numpy() == sums).all(), "the group-by is wrong"
    keys = np.arange(KEYS)
    dimension = dd.from_pandas(pd.DataFrame({"key": keys, "group": keys % GROUPS}), npartitions=2)
    narrow = facts[["key", "value"]].repartition(npartitions=max(2, partitions // 8))
    joined = narrow.merge(dimension, on="key", shuffle_method="tasks", broadcast=False)
    by_group = joined.groupby("group").value.sum().compute().sort_index()
    assert (by_group.to_numpy() == np.bincount(keys % GROUPS, sums, GROUPS).astype(np.int64)).all(), "the join is wrong"
    again = int(facts.value.sum().compute())
    assert again == int(sums.sum()), "the sum is wrong"


def watch(dask_worker: Any) -> int:
    """Begin to count how long a worker is paused; return its process."""
    import os

    from tornado.ioloop import PeriodicCallback

    state = {"paused": 0.0, "since": time.monotonic(), "begun": time.monotonic()}

    def look() -> None:
        now = time.monotonic()
        if dask_worker.status.name == "paused":
            state["paused"] += now - state["since"]
        state["since"] = now

    dask_worker.uzswap_bench = state
    dask_worker.uzswap_watch = PeriodicCallback(look, 20)
    dask_worker.uzswap_watch.start()
    return os.getpid()


def seen(dask_worker: Any) -> dict[str, float]:
    """What came of it."""
    state = getattr(dask_worker, "uzswap_bench", None)
    peak = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    written = re.search(r"\bwrite_bytes: (\d+)", Path("/proc/self/io").read_text())
    assert peak is not None
    assert written is not None
    return {
        "paused": 0.0 if state is None else state["paused"] / (time.monotonic() - state["begun"]),
        "peak": int(peak[1]) << 10,
        "written": int(written[1]),
        "evicted": sum(
            value
            for (label, unit), value in getattr(dask_worker.data, "cumulative_metrics", {}).items()
            if unit == "count" and label.endswith("-write")
        ),
    }


def run(kind: str, partitions: int, limit: int, workers: int, sums: Any, most: float) -> dict[str, Any]:
    """One candidate, once, in a cluster of its own; it is given up after ``most`` seconds."""
    from concurrent.futures import CancelledError

    from distributed import Client, LocalCluster

    from uzswap.dask import WorkerMemory

    data: dict[str, Any] = {"data": (WorkerMemory, {})} if kind == OURS else {}
    found: dict[str, Any] = {}
    with (
        contextlib.suppress(TimeoutError),  # of the cluster's end, on a busy machine
        tempfile.TemporaryDirectory(prefix="uzswap-bench-") as scratch,
        dask.config.set({"dataframe.shuffle.method": "tasks"}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=limit,
            dashboard_address=None,
            local_directory=scratch,
            silence_logs=logging.CRITICAL,
            **data,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        before = set(client.run(watch).values())
        began = time.perf_counter()
        with Client(cluster) as worked:
            over = threading.Timer(most, worked.close)
            over.start()
            try:
                work(partitions, sums)
                done = True
            except CancelledError:
                done = False
            finally:
                over.cancel()
                over.join()
        wall = time.perf_counter() - began
        told = client.run(seen)
        restarts = len(client.get_events("worker-restart-memory"))
        pids = {one["pid"] for one in _processes(client).values()}
        found = {
            "done": done,
            "wall": wall,
            "written": sum(one["written"] for one in told.values()),
            "evicted": sum(one["evicted"] for one in told.values()),
            "restarts": restarts + len(before - pids),
            "paused": max(one["paused"] for one in told.values()),
            "peak": max(one["peak"] for one in told.values()) / limit,
        }
    if not found:
        raise TimeoutError(f"{kind}: the workers do not answer")
    return found


def _processes(client: Any) -> Mapping[str, Any]:
    import os

    found: Mapping[str, Any] = client.run(lambda: {"pid": os.getpid()})
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="A tenth of the data, once: to see that it works.")
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True, help="Of both candidates, in turns.")
@click.option("--gib", type=float, help="Data.  [default: 4, quick: 0.4]")
@click.option("--limit", type=int, default=512, show_default=True, help="MiB of a worker.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--at-most", "most", type=float, default=1200, show_default=True, help="Seconds of a candidate's run.")
@click.option("--only", help="One candidate: uzswap or spill.")
@click.option("--json", "to", type=click.Path(path_type=Path), help="The figures, for programs.")
def main(
    quick: bool,
    rounds: int,
    gib: float | None,
    limit: int,
    workers: int,
    most: float,
    only: str | None,
    to: Path | None,
) -> None:
    """Joins and group-bys on more than fits: wall time, bytes written, restarts, pauses, peak RSS."""
    warnings.filterwarnings("ignore")
    nbytes = int((gib or (0.4 if quick else 4)) * (1 << 30))
    partitions = max(8, nbytes // (ROWS * ROW_BYTES))
    kinds = {None: [OURS, STOCK], "uzswap": [OURS], "spill": [STOCK]}[only]
    console.rule(f"bench_dask: {nbytes / 2**30:.1f} GiB in {partitions} frames, {workers} workers of {limit} MiB")
    sums = expected(partitions)
    results: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for number in range(rounds):
        for kind in kinds if number % 2 == 0 else reversed(kinds):
            results[kind].append(run(kind, partitions, limit << 20, workers, sums, most))
            if to is not None:
                to.write_text(json.dumps(results))
    shown = table("candidate", "", "wall s", "written MiB", "restarts", "paused", "peak RSS / limit")
    for kind, runs in results.items():
        middle = {key: statistics.median(one[key] for one in runs) for key in runs[0]}
        shown.add_row(
            kind,
            "",
            f"{middle['wall']:.1f}" if middle["done"] else f"not done in {middle['wall']:.0f}",
            f"{middle['written'] / 2**20:.0f}",
            f"{sum(one['restarts'] for one in runs)}",
            f"{middle['paused']:.1%}",
            f"{middle['peak']:.2f}",
        )
        if kind == OURS and middle["done"]:
            worst = {key: max(one[key] for one in runs) for key in runs[0]}
            ok = ("restarts", 0.0), ("paused", PAUSED), ("peak", 1.0)
            shown.add_row("", "", "", "", *(verdict(worst[key], most, at_most=True) for key, most in ok))
    if len(results) == 2 and all(one["done"] for runs in results.values() for one in runs):
        pairs = list(zip(results[OURS], results[STOCK], strict=True))
        for key, words in (("wall", "wall time"), ("written", "bytes written")):
            ratio = statistics.median(ours[key] / max(1, stock[key]) for ours, stock in pairs)
            shown.add_row(Text(f"{words}: ours / stock"), "", f"{ratio:.2f}", "", "", "", "")
    console.print(shown)


if __name__ == "__main__":
    main()
