"""``uzswap agent``: the proactive reclaimer, and what it says of itself."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from uzswap.agent.budget import Budget
from uzswap.agent.config import Config
from uzswap.agent.explain import explain
from uzswap.agent.loop import Agent
from uzswap.agent.lowered import Lowered
from uzswap.agent.notify import notify, watchdog_interval
from uzswap.agent.reads import ThreadedReads
from uzswap.agent.records import Record, Records, read_records, read_status
from uzswap.agent.requests import ThreadedRequests
from uzswap.agent.settings import parse_duration
from uzswap.agent.state import private_directory
from uzswap.agent.tree import KERNEL, Tree, open_tree
from uzswap.cli.report import printable
from uzswap.client.deadlines import Deadlines
from uzswap.client.directory import DirectoryRoot
from uzswap.errors import InvalidArgumentError
from uzswap.units import format_size

__all__ = ["agent", "state_directory"]

#: seconds between two looks whether to stop, at most
_NAP: Final = 6.0
#: seconds until a read hangs, at most: the three that a round may wait for are less than the unit's WatchdogSec
_READ: Final = 10.0
#: seconds from one try to open a root that is not there to the next
_AGAIN: Final = 5.0


def state_directory() -> str:
    """Return where decisions and the budget are kept: what systemd gives, or the user's state directory."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return given or ("/var/lib/uzswap-agent" if os.geteuid() == 0 else f"{base}/uzswap-agent")


_STATE = click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="Where decisions and the write budget are kept.  [default: $STATE_DIRECTORY, or the user's state directory]",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


class _Agent(click.Group):
    """Runs the agent where no sub-command is given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Agent)
def agent() -> None:
    """Take memory back before it is needed, and say why.

    Without a sub-command: run.
    """


@agent.command()
@click.option(
    "--root",
    default=KERNEL,
    show_default=True,
    help="A cgroup2 mount, a mount or socket of an engine, or dask://SCHEDULER.",
)
@click.option("--config", "config_path", type=click.Path(), help="TOML file: see docs/agent.md.")
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="A setting for all cgroups.")
@_STATE
@click.option("--dry-run", is_flag=True, help="Decide and record, but ask for nothing.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Prometheus metrics on this port of localhost.")
@click.option("--for", "duration", metavar="DURATION", help="End after so long, such as 1h.")
def run(
    root: str,
    config_path: str | None,
    given: tuple[str, ...],
    state: Path | None,
    dry_run: bool,
    metrics_port: int | None,
    duration: str | None,
) -> int:
    """Run the agent, until it is told to stop: SIGTERM, SIGINT.

    It sets no limits; whatever ends it leaves none behind.
    """
    config = configuration(config_path, given)
    until = None if duration is None else time.monotonic() + _duration(duration)
    directory = private_directory(state or Path(state_directory()))
    budget_file = directory / "budget.json"
    stop = threading.Event()
    wake = threading.Event()
    with Deadlines() as deadlines, _stopped_by_signals(stop, wake):
        tree = _tree(root, deadlines, config.agent.deadline, stop, until)
        if tree is None:
            return 0
        records = Records(directory, config.agent.record_rows, config.agent.record_bytes, _say)
        budget = Budget(config.agent.swapout_rate, config.agent.swapout_day, budget_file, _say)
        lowered = Lowered(directory / "lowered.json", _say)
        lowered.restore_left_behind()
        settings = config.agent
        requests = ThreadedRequests(
            tree, settings.deadline, lambda: None, tree.again, lowered, at_once=settings.at_once
        )
        reads = ThreadedReads(tree.again, min(settings.deadline, _READ))
        one = Agent(tree, config, requests, records, budget, reads=reads, say=_say, dry_run=dry_run)
        server = None if metrics_port is None else one.metrics.serve(metrics_port)
        try:
            _rounds(one, stop, wake, until)
        finally:
            notify("STOPPING=1")
            one.close()
            lowered.close()
            if server is not None:
                server[0].shutdown()
                server[0].server_close()
    return 0


def _tree(root: str, deadlines: Deadlines, deadline: float, stop: threading.Event, until: float | None) -> Tree | None:
    """Open a root as soon as it is there, and answers; None when it is over before."""
    # Of a mount whose server hangs not even the type can be had.
    reads = ThreadedReads(DirectoryRoot, min(deadline, _READ))
    said = False
    try:
        while True:
            (found,) = reads.all([lambda _: open_tree(root, deadlines)])
            if isinstance(found, Tree):
                return found
            if found.errno not in (errno.ENOENT, errno.ETIMEDOUT):
                raise found
            if not said:
                _say(f"{root}: {found.strerror}; it is looked for again")
            said = True
            notify(f"READY=1\nWATCHDOG=1\nSTATUS=waits for {root}")
            if _wait(stop, _AGAIN, until):
                return None
    finally:
        reads.close()


def _rounds(one: Agent, stop: threading.Event, wake: threading.Event, until: float | None) -> None:
    beat = watchdog_interval()
    ready = False
    while not stop.is_set() and (until is None or time.monotonic() < until):
        wake.clear()
        seconds = min(one.round(), _NAP, *([] if beat is None else [beat]))
        status = f"STATUS={len(one.watched)} cgroups\nWATCHDOG=1"
        notify(status if ready else f"READY=1\n{status}")
        ready = True
        if until is not None:
            seconds = min(seconds, max(0.0, until - time.monotonic()))
        wake.wait(seconds)


def _wait(stop: threading.Event, seconds: float, until: float | None) -> bool:
    """Wait; whether it is over."""
    stop.wait(seconds if until is None else max(0.0, min(seconds, until - time.monotonic())))
    return stop.is_set() or (until is not None and time.monotonic() >= until)


@contextlib.contextmanager
def _stopped_by_signals(stop: threading.Event, wake: threading.Event) -> Iterator[None]:
    def come(number: int, frame: object) -> None:
        stop.set()
        wake.set()

    before = {number: signal.signal(number, come) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    click.echo(f"uzswap agent: {printable(text)}", err=True)
    sys.stderr.flush()


def configuration(path: str | None, given: tuple[str, ...]) -> Config:
    """Return the configuration of a file and of ``--set``.

    Raises
    ------
    click.UsageError
        One of them is wrong.
    OSError
        The file cannot be read.
    """
    try:
        config = Config() if path is None else Config.read(path)
        return config.with_default(pairs(given)) if given else config
    except InvalidArgumentError as error:
        raise click.UsageError(error.strerror or "") from error


def pairs(given: tuple[str, ...]) -> dict[str, object]:
    """Return what ``NAME=VALUE`` says.

    Raises
    ------
    click.UsageError
        It has no equals sign.
    """
    found: dict[str, object] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise click.UsageError(f"--set {one}: NAME=VALUE is wanted, such as twostage.age_min=5m")
        found[name.strip()] = value.strip()
    return found


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except InvalidArgumentError as error:
        raise click.UsageError(error.strerror or "") from error


@agent.command()
@click.argument("cgroup", required=False)
@click.option("--since", metavar="DURATION", default="1d", show_default=True, help="How far back, such as 10m.")
@click.option("-n", "last", type=click.IntRange(1), default=50, show_default=True, help="How many at most.")
@_STATE
@_JSON
def why(cgroup: str | None, since: str, last: int, state: Path | None, as_json: bool) -> int:
    """Say what was done with a cgroup, or not done, and why.

    CGROUP is its path below the agent's root, such as /user.slice; without one, of all.
    """
    path = None if cgroup is None else f"/{cgroup.strip('/')}"
    found = read_records(state or Path(state_directory()), path, time.time() - _duration(since), last)
    if as_json:
        for record in found:
            click.echo(json.dumps(_as_dict(record)))
        return 0
    for record in found:
        name = "" if path is not None else f"  {record.cgroup}"
        click.echo(printable(f"{explain(record)}{name}"))
    if not found:
        click.echo(f"nothing was decided about {path or 'any cgroup'} in this time", err=True)
    return 0 if found else 1


def _as_dict(record: Record) -> dict[str, object]:
    return {name: getattr(record, name) for name in Record.__slots__}


@agent.command()
@_STATE
@_JSON
def status(state: Path | None, as_json: bool) -> int:
    """Show the cgroups that are looked after, as they were seen last."""
    found = read_status(state or Path(state_directory()))
    if as_json:
        for row in found:
            click.echo(json.dumps(row))
        return 0
    from rich.table import Table
    from rich.text import Text

    from uzswap.cli.report import Output

    table = Table(box=None, pad_edge=False)
    table.add_column("cgroup", no_wrap=True)
    table.add_column("policy", no_wrap=True)
    sizes = ("current", "resident", "zswap", "zswapped", "disk")
    for column in (*sizes, "pressure", "seen"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in found:
        pressure = "-" if row["pressure"] is None else f"{row['pressure']} %"
        age = f"{max(0.0, time.time() - float(str(row['time']))):.0f} s ago"
        numbers = [format_size(int(str(row[size]))) for size in sizes]
        table.add_row(*map(Text, map(printable, (str(row["cgroup"]), str(row["policy"]), *numbers, pressure, age))))
    Output().print(table)
    return 0
