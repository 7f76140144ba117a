"""``uzswap tree``: the cgroups below one, and what each of them uses."""

from __future__ import annotations

import json

import click
from rich.text import Text
from rich.tree import Tree as Branches

from uzswap.cli.arguments import CGROUP, engine_option, json_option
from uzswap.cli.report import Output, printable
from uzswap.cli.usage import Usage
from uzswap.client.places import open_cgroup
from uzswap.units import format_size

__all__ = ["tree"]


@click.command()
@click.argument("cgroup", type=CGROUP, default="/")
@click.option("--depth", type=click.IntRange(min=0), help="Levels below CGROUP.  [default: all]")
@json_option
@engine_option
def tree(cgroup: str, depth: int | None, as_json: bool, engine: str | None) -> None:
    """Show the cgroups below CGROUP and what they use.

    CGROUP is one of the engine's, such as /jobs/a, or a directory of a mounted tree, or /sys/fs/cgroup/...
    """
    top = open_cgroup(cgroup, engine)
    with top.root:
        levels = [(level, usage) for level, _, usage in Usage.of_subtree(top, depth)]
    if as_json:
        keys = ("cgroup", "resident", "zswap", "zswapped", "disk")
        click.echo(json.dumps([{key: getattr(usage, key) for key in keys} for _, usage in levels]))
        return
    branches: list[Branches] = []
    for level, usage in levels:
        label = _label(usage, usage.cgroup if not level else usage.cgroup.rpartition("/")[2])
        del branches[level:]
        branches.append(branches[-1].add(label) if level else Branches(label))
    Output().print(branches[0])


def _label(usage: Usage, name: str) -> Text:
    sizes = ((usage.resident, "resident"), (usage.zswap, "zswap"), (usage.disk, "disk"))
    told = ", ".join(f"{format_size(nbytes)} {where}" for nbytes, where in sizes if nbytes)
    return Text.assemble((printable(name), "bold"), f"  {told}" if told else "")
