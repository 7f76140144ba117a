"""``uzswap reclaim``: one request to ``memory.reclaim``, watched while it runs, and what came of it."""

from __future__ import annotations

import contextlib
import errno
import json
import threading
import time
from collections.abc import Iterator
from typing import Final

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from uzswap.cgroup.reclaim import SOURCES, request
from uzswap.cli.arguments import CGROUP, SIZE, engine_option, json_option
from uzswap.cli.interrupts import Interrupts
from uzswap.cli.report import Output, describe, exit_code, printable
from uzswap.cli.usage import parse_flat
from uzswap.client.places import open_cgroup
from uzswap.client.root import Cgroup
from uzswap.errors import ReclaimError, os_error
from uzswap.result import ReclaimResult
from uzswap.threads import start_thread
from uzswap.units import PAGE_SIZE, format_size, parse_size

__all__ = ["reclaim"]

#: seconds between two looks at how far a request has come
_LOOK: Final = 0.1
#: seconds between two requests of --wait: a reference is forgotten and cold pages appear on a scale of seconds
_AGAIN: Final = 1.0


@click.command()
@click.argument("cgroup", type=CGROUP)
@click.argument("nbytes", type=SIZE, metavar="BYTES")
@click.option("--source", type=click.Choice([name for name in SOURCES if name]), help="Write back what is compressed.")
@click.option("--min-age", type=int, metavar="SECONDS", help="With --source: leave out what is younger.")
@click.option("--swappiness", metavar="0..200|max", help="Without --source.")
@click.option("--wait", is_flag=True, help="When less can be reclaimed now, try again until BYTES are; Ctrl-C ends it.")
@json_option
@engine_option
def reclaim(
    cgroup: str,
    nbytes: str,
    source: str | None,
    min_age: int | None,
    swappiness: str | None,
    wait: bool,
    as_json: bool,
    engine: str | None,
) -> int:
    """Reclaim memory of a cgroup.

    BYTES of its resident memory, or of its compressed memory with --source zswap.
    CGROUP is one of the engine's, such as /jobs/a, or a directory of a mounted tree, or /sys/fs/cgroup/..., or
    dask://SCHEDULER:PORT, or a worker of it below that.

    Ctrl-C ends the request between two batches.  What was done until then, or until an error, is shown all the same.
    Exit code 75 (EAGAIN) tells that less could be reclaimed.
    """
    try:
        request(nbytes, source=source, min_age=min_age, swappiness=swappiness)
    except OSError as error:
        raise click.UsageError(error.strerror or str(error)) from error
    keys = {"swappiness": swappiness, "source": source, "min_age": min_age}
    pairs = "".join(f" {key}={value}" for key, value in keys.items() if value is not None)
    one = open_cgroup(cgroup, engine)
    failed: OSError | None = None
    with one.root, Interrupts() as interrupts, _progress(one, parse_size(nbytes), source):
        attempt = Attempts(one, parse_size(nbytes), pairs, interrupts)
        try:
            attempt.run(wait=wait)
        except OSError as error:
            failed = error
    _show(one, attempt.result, failed, "written" if source else "reclaimed", as_json=as_json)
    if failed is None:
        return 0
    click.echo(f"uzswap: {describe(failed)}", err=True)
    return exit_code(failed)


class Attempts:
    """Requests until all is done, and what they did together."""

    def __init__(self, cgroup: Cgroup, nbytes: int, keys: str, interrupts: Interrupts) -> None:
        self._cgroup = cgroup
        self._interrupts = interrupts
        self._keys = keys
        #: of all requests; None when none was begun
        self.result: ReclaimResult | None = None
        self._nbytes = nbytes

    def run(self, *, wait: bool) -> None:
        """Reclaim; with ``wait`` what cannot be reclaimed now is asked for again.

        Raises
        ------
        OSError
            What the last request gave; EINTR for Ctrl-C.
        """
        while True:
            try:
                self._once(self._nbytes - self._done())
                return
            except OSError as error:
                if not wait or error.errno != errno.EAGAIN:
                    raise
                if self._done() >= self._nbytes:
                    return
            with self._interrupts.call(self._give_up):
                threading.Event().wait(_AGAIN)

    def _give_up(self) -> None:
        raise os_error(errno.EINTR, "interrupted while it waited for more", self._cgroup.name)

    def _done(self) -> int:
        if self.result is None:
            return 0
        return self.result.written if "source=" in self._keys else self.result.reclaimed

    def _once(self, nbytes: int) -> None:
        before, began = parse_flat(self._cgroup.read("memory.stat")), time.monotonic()
        try:
            text = f"{nbytes}{self._keys}".encode()
            self._cgroup.write("memory.reclaim", text, interrupts=self._interrupts)
        except ReclaimError as error:
            self._add(error.result)
            error.filename = self._cgroup.name
            raise
        except OSError as error:
            if error.errno in _SOMETHING_DONE:
                self._add(self._look_up(nbytes, before, time.monotonic() - began))
            raise
        self._add(self._look_up(nbytes, before, time.monotonic() - began))

    def _look_up(self, nbytes: int, before: dict[str, int], seconds: float) -> ReclaimResult | None:
        """Return what a request did that answered with no result: as the engine says, or else the counters."""
        try:
            told = self._cgroup.read_if_there("uzswap.last_reclaim")
            after = parse_flat(self._cgroup.read("memory.stat"))
        except OSError:  # it is gone
            return None
        numbers = parse_flat(told or "")
        if numbers.get("asked") == nbytes:  # else it is somebody else's
            failed = {key.removeprefix("failed."): n for key, n in numbers.items() if key.startswith("failed.")}
            written, entries, scanned, rotated = (numbers[key] for key in ("written", "entries", "scanned", "rotated"))
            return ReclaimResult(nbytes, written, entries, scanned, rotated, failed, seconds, numbers["reclaimed"])
        more = {key: after[key] - before.get(key, 0) for key in after}
        if "source=" in self._keys:
            return ReclaimResult(nbytes, more.get(_WRITTEN, 0), more.get("zswpwb", 0), seconds=seconds)
        return ReclaimResult(nbytes, reclaimed=more.get(_RECLAIMED, 0) * PAGE_SIZE, seconds=seconds)

    def _add(self, result: ReclaimResult | None) -> None:
        if self.result is None or result is None:
            self.result = result or self.result
            return
        failed = dict(self.result.failed)
        for reason, count in result.failed.items():
            failed[reason] = failed.get(reason, 0) + count
        self.result = ReclaimResult(
            asked=self._nbytes,
            written=self.result.written + result.written,
            entries=self.result.entries + result.entries,
            scanned=self.result.scanned + result.scanned,
            rotated=self.result.rotated + result.rotated,
            failed=failed,
            seconds=self.result.seconds + result.seconds,
            reclaimed=self.result.reclaimed + result.reclaimed,
        )


#: errors of a request that was carried out, up to a point
_SOMETHING_DONE: Final = frozenset({errno.EAGAIN, errno.EINTR, errno.EIO, errno.ENOSPC})
#: keys of memory.stat
_WRITTEN: Final = "zswpwb_proactive_b"
_RECLAIMED: Final = "pgsteal_proactive"


@contextlib.contextmanager
def _progress(cgroup: Cgroup, nbytes: int, source: str | None) -> Iterator[None]:
    """Show on a terminal how far a request has come, by the counters that it moves."""
    console = Output(stderr=True)
    if not console.is_terminal:
        yield
        return
    key, unit = (_WRITTEN, 1) if source else (_RECLAIMED, PAGE_SIZE)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeElapsedColumn(),
    )
    over = threading.Event()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(printable(cgroup.name), total=nbytes or None)

        def look() -> None:
            with cgroup.again().root as root:
                path, first = f"{cgroup.path}/memory.stat", None
                while True:
                    try:
                        now = parse_flat(root.read(path)).get(key, 0) * unit
                    except OSError:  # it goes without
                        return
                    first = now if first is None else first
                    bar.update(task, completed=now - first)
                    if over.wait(_LOOK):
                        return

        thread = None
        with contextlib.suppress(OSError):  # it goes without
            thread = start_thread("uzswap-progress", look)
        try:
            yield
        finally:
            over.set()
            if thread is not None:
                thread.join()


def _show(cgroup: Cgroup, result: ReclaimResult | None, failed: OSError | None, amount: str, *, as_json: bool) -> None:
    """Show what was done, ``amount`` of it also when it is 0."""
    if as_json:
        number = failed.errno if failed is not None else None
        error = None if number is None else errno.errorcode.get(number, str(number))
        click.echo(json.dumps({"cgroup": cgroup.name, "error": error, **dict(result.items() if result else ())}))
        return
    if result is None:
        return
    sizes = {"asked", "written", "reclaimed"}
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for key, value in result.items():
        if isinstance(value, float):
            table.add_row(key, f"{value:.3f}")
        elif value or key in ("asked", amount):
            table.add_row(key, f"{format_size(value)} ({value})" if key in sizes and value >= 1024 else str(value))
    Output().print(table)
