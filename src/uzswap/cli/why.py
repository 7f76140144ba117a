"""``uzswap why``: where the memory of an engine's process is, and why a value is where it is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import click
from rich.table import Table
from rich.text import Text

from uzswap.cli.arguments import CGROUP, engine_option, json_option
from uzswap.cli.report import Output
from uzswap.client.places import open_cgroup
from uzswap.reports.words import LETTERS, PARTS, PROCESS
from uzswap.units import format_size

__all__ = ["why"]

#: letters of a strip of an array
_STRIP: Final = 64


@click.command()
@click.argument("cgroup", type=CGROUP)
@click.argument("key", required=False)
@click.option("--raw", is_flag=True, help="Sizes in bytes.")
@json_option
@engine_option
def why(cgroup: str, key: str | None, raw: bool, as_json: bool, engine: str | None) -> None:
    """Tell where the memory is: of the process, and of stores and arrays below a cgroup.

    With KEY, as Python writes it: why its value is where it is, in the stores of the cgroup.
    """
    one = open_cgroup(cgroup, engine)
    with one.root:
        told = one.root.report(one.path, key)
    if as_json:
        click.echo(json.dumps(told))
        return
    output = Output()
    if key is not None:
        for value in told["values"]:
            size = format_size(value["bytes"], raw=raw)
            output.print(Text(f"{value['key']}: {value['where']}, {size}: {value['why']}"))
        return
    output.print(Text(f"process: {format_size(told['rss'], raw=raw)} resident", "bold"))
    output.print(_rows((PROCESS[name], format_size(n, raw=raw)) for name, n in told["process"].items()))
    for store in told["stores"]:
        _print_store(output, store, raw=raw)
    if told["arrays"]:
        legend = ", ".join(f"{letter} {place}" for letter, place in LETTERS.items())
        output.print(Text(f"arrays: {legend}", "bold"))
        rows = []
        for array in told["arrays"]:
            sizes = (f"{format_size(array[name], raw=raw)} {name}" for name in ("resident", "zswap", "disk"))
            rows.append((array["cgroup"], format_size(array["bytes"], raw=raw), *sizes, _shortened(array["strip"])))
        output.print(_rows(rows, last_left=True))


def _print_store(output: Output, store: dict[str, Any], *, raw: bool) -> None:
    output.print(Text(f"store of {store['cgroup']}: {store['values']} values", "bold"))
    parts = [(text, str(store[name][0]), format_size(store[name][1], raw=raw)) for name, text in PARTS.items()]
    sizes = {name: format_size(store[f"{name}_bytes"], raw=raw) for name in ("packed", "zswap", "disk")}
    parts.append((f"out, as {sizes['zswap']} of zswap and {sizes['disk']} on the disk", "", sizes["packed"]))
    output.print(_rows(parts))
    for name, title in (("stay", "could not go"), ("largest", "largest"), ("coldest", "coldest")):
        if store[name]:
            output.print(Text(f"  {title}:"))
            output.print(
                _rows(
                    ((f"    {one['key']}", format_size(one["bytes"], raw=raw), one["where"], one["why"]))
                    for one in store[name]
                )
            )


def _rows(rows: Iterable[tuple[str, ...]], *, last_left: bool = False) -> Table:
    """Return a table without a heading; sizes are the second column."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for number, row in enumerate(rows):
        if not number:
            for column in range(len(row)):
                right = column and not (last_left and column == len(row) - 1) and len(row) != 4
                table.add_column(justify="right" if right or column == 1 else "left")
        table.add_row(*(Text(cell) for cell in row))
    return table


def _shortened(strip: str) -> str:
    """Return every so many letters, as many as there is room for."""
    if len(strip) <= _STRIP:
        return strip
    return "".join(strip[i * len(strip) // _STRIP] for i in range(_STRIP))
