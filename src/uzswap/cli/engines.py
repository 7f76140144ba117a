"""``uzswap engines`` and ``uzswap mount``: which engines there are, and their control files as a mount."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import click
from rich.table import Table
from rich.text import Text

from uzswap.cli.arguments import engine_option, json_option
from uzswap.cli.report import Output, printable
from uzswap.client.mounts import FSTYPE, mounted_type
from uzswap.client.places import open_engine
from uzswap.client.runtime import engines as running

__all__ = ["engines", "mount"]


@click.command()
@json_option
def engines(as_json: bool) -> None:
    """Show your engines that are served.  With their programs, sockets and mounts."""
    there = running()
    for entry in there:
        # One that was unmounted from outside is unknown to the engine until it looks.
        entry.mounts = [path for path in entry.mounts if mounted_type(path) == FSTYPE]
    if as_json:
        click.echo(json.dumps([{"name": entry.name, **asdict(entry)} for entry in there]))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("engine", "socket", "mounts", "program"):
        table.add_column(column, no_wrap=True)
    for entry in there:
        row = (entry.name, entry.socket or "-", " ".join(entry.mounts) or "-", entry.command)
        table.add_row(*map(Text, map(printable, row)))
    if there:
        Output().print(table)


@click.command()
@click.argument("path", type=click.Path())
@click.option("--allow-other", is_flag=True, help="Let other users in: they can read.")
@engine_option
def mount(path: str, allow_other: bool, engine: str | None) -> None:
    """Mount an engine's control files on PATH.

    PATH is an empty directory, or is made.  It is the engine that mounts, and that unmounts when it ends.  To unmount
    it earlier: fusermount3 -u PATH.  What a dead engine has left mounted there is taken away.
    """
    with open_engine(engine) as root:
        root.mount(os.path.abspath(path), allow_other=allow_other)
