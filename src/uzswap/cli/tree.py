"""``uzswap tree``: the cgroups below one, and what each of them uses."""

from __future__ import annotations

import json

import click
from rich.text import Text
from rich.tree import Tree as Branches

from uzswap.cli.arguments import CGROUP, engine_option, json_option
from uzswap.cli.report import Output, printable
from uzswap.cli.usage import Usage
from uzswap.client.places import open_cgroups
from uzswap.units import format_size

__all__ = ["tree"]


@click.command()
@click.argument("cgroup", type=CGROUP, default="/")
@click.option("--depth", type=click.IntRange(min=0), help="Levels below CGROUP.  [default: all]")
@json_option
@engine_option
def tree(cgroup: str, depth: int | None, as_json: bool, engine: str | None) -> None:
    """Show the cgroups below CGROUP and what they use.

    With their share of memory.max.  CGROUP is one of the engine's, such as /jobs/a, or a directory of a mounted tree,
    or /sys/fs/cgroup/..., or dask://SCHEDULER:PORT, or a worker of it below that.  With several engines and no
    --engine, of all of them.
    """
    levels: list[tuple[int, Usage]] = []
    trouble: OSError | None = None
    for top in open_cgroups(cgroup, engine):
        with top.root:
            try:
                levels += [(level, usage) for level, _, usage in Usage.of_subtree(top, depth)]
            except OSError as error:  # another engine may have the cgroup
                trouble = error
    if trouble is not None and not levels:
        raise trouble
    if as_json:
        keys = ("cgroup", "resident", "zswap", "zswapped", "disk", "current", "limit", "share", "rss")
        click.echo(json.dumps([{key: getattr(usage, key) for key in keys} for _, usage in levels]))
        return
    branches: list[Branches] = []
    trees: list[Branches] = []
    for level, usage in levels:
        label = _label(usage, usage.cgroup if not level else usage.cgroup.rpartition("/")[2])
        del branches[level:]
        branches.append(branches[-1].add(label) if level else Branches(label))
        if not level:
            trees.append(branches[0])
    output = Output()
    for one in trees:
        output.print(one)


def _label(usage: Usage, name: str) -> Text:
    sizes = ((usage.resident, "resident"), (usage.zswap, "zswap"), (usage.disk, "disk"))
    words = [f"{format_size(nbytes)} {where}" for nbytes, where in sizes if nbytes]
    if usage.limit is not None:
        words.append(f"{usage.share:.0f}% of {format_size(usage.limit)}" if usage.limit else "of no memory")
    if usage.rss is not None:
        words.append(f"{format_size(usage.rss)} RSS of the process")
    told = ", ".join(words)
    return Text.assemble((printable(name), "bold"), f"  {told}" if told else "")
