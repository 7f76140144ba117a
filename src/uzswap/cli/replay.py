"""``uzswap replay``: policies on access traces, with a real engine and a virtual clock."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import click
from rich.table import Table

from uzswap.cli.agent import pairs
from uzswap.cli.report import Output
from uzswap.errors import InvalidArgumentError
from uzswap.replay.lengths import MEMORY, read_lengths
from uzswap.replay.model import Costs
from uzswap.replay.run import Case, Outcome, replay_many
from uzswap.units import format_size

__all__ = ["replay"]


@click.command()
@click.argument("traces", nargs=-1, required=True, type=click.Path(), metavar="TRACE...")
@click.option("--policy", "policies", default="twostage", show_default=True, help="Which, with commas between them.")
@click.option("--budget", metavar="BYTES", help="That may be written to the device in 24 hours.  [default: 1G]")
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="A setting, such as twostage.age_min=5m.")
@click.option("--sweep", multiple=True, metavar="NAME=A,B,...", help="A setting with several values; several multiply.")
@click.option("--duration", metavar="DURATION", help="That a trace without a clock is laid over.  [default: 1d]")
@click.option(
    "--lengths", type=click.Path(), help="Compressed lengths: uzswap.compressed_size of an engine, or a list."
)
@click.option("--plot", type=click.Path(), help="Saved memory against time lost, as svg, png or pdf.")
@click.option("--workers", type=click.IntRange(1), help="How many at a time.  [default: CPUs]")
@click.option("--dask", "scheduler", metavar="ADDRESS", help="On a Dask cluster instead.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one object a policy.")
def replay(
    traces: tuple[str, ...],
    policies: str,
    budget: str | None,
    given: tuple[str, ...],
    sweep: tuple[str, ...],
    duration: str | None,
    lengths: str | None,
    plot: str | None,
    workers: int | None,
    scheduler: str | None,
    as_json: bool,
) -> int:
    """Try policies on access traces before they are let loose.

    TRACE is a file of addresses, block numbers, block I/O as CSV, Mooncake's JSON, oracleGeneral, or one recorded by
    uzswap; it may be compressed.  Shown are shares of the bytes of all pages touched so far that were saved, averaged
    over virtual time, and of that time that was lost; beside them the best possible at that loss, knowing the future.
    """
    fixed = pairs(given) | ({} if budget is None else {"agent.swapout_day": budget})
    try:
        costs = Costs()
        if duration is not None:
            from uzswap.agent.settings import parse_duration

            costs = replace(costs, duration=parse_duration(duration))
        case = Case("", "twostage", fixed, costs, MEMORY if lengths is None else read_lengths(lengths))
        cases = [
            replace(case, trace=trace, policy=policy.strip(), given={**fixed, **varied})
            for trace in traces
            for policy in policies.split(",")
            for varied in _variations(sweep)
        ]
        outcomes = []
        for outcome in replay_many(cases, workers, scheduler):
            outcomes.append(outcome)
            if as_json:
                click.echo(json.dumps(_as_json(outcome, several=len(traces) > 1, swept=bool(sweep))))
    except InvalidArgumentError as error:
        raise click.UsageError(error.strerror or "") from error
    except ImportError as error:
        raise click.UsageError(str(error)) from error
    if not as_json:
        _show(outcomes, swept=bool(sweep))
    if plot is not None:
        _plot(outcomes, plot)
    return 0


def _variations(sweep: tuple[str, ...]) -> list[dict[str, object]]:
    choices = []
    for one in sweep:
        name, equals, values = one.partition("=")
        if not equals or not values:
            raise click.UsageError(f"--sweep {one}: NAME=A,B,... is wanted")
        choices.append([(name.strip(), value.strip()) for value in values.split(",")])
    return [dict(chosen) for chosen in itertools.product(*choices)]


def _as_json(outcome: Outcome, *, several: bool, swept: bool) -> dict[str, object]:
    told = outcome.as_json()
    if several:
        told["trace"] = outcome.case.trace
    if swept:
        told["settings"] = dict(outcome.case.given)
    return told


def _show(outcomes: list[Outcome], *, swept: bool) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("trace", "policy", *(["settings"] if swept else [])):
        table.add_column(column, no_wrap=True)
    for column in ("saved", "lost", "best", "of best", "from zswap", "from disk", "written", "over time"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in outcomes:
        settings = " ".join(f"{name}={value}" for name, value in one.case.given.items())
        table.add_row(
            one.case.trace.rpartition("/")[2],
            one.case.policy,
            *([settings] if swept else []),
            f"{one.saved_share:.1%}",
            f"{one.lost_share:.3%}",
            f"{one.best:.1%}",
            f"{one.saved_share / one.best:.0%}" if one.best else "-",
            str(one.from_zswap),
            str(one.from_disk),
            format_size(one.written_bytes),
            _spark(one.course),
        )
    Output().print(table)


def _spark(course: list[tuple[float, float]]) -> str:
    """Return the share saved over time, a character for each twentieth."""
    step = max(1, len(course) // 20)
    return "".join("▁▂▃▄▅▆▇█"[min(7, int(saved * 8))] for _, saved in course[::step])


def _plot(outcomes: list[Outcome], path: str) -> None:
    try:
        from uzswap.replay.plot import plot
    except ImportError as error:
        raise click.UsageError(f"a plot needs matplotlib: pip install 'uzswap[plot]' ({error})") from error
    plot(outcomes, path)
