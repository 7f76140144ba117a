"""``uzswap doctor``: what this machine offers, and the one line that mends what it does not."""

from __future__ import annotations

from typing import Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

import uzswap
from uzswap.agent.outlook import outlook
from uzswap.cli.report import printable

__all__ = ["doctor"]

_STYLE: Final = {"ok": "green", "limited": "yellow", "missing": "red"}


@click.command()
def doctor() -> int:
    """Show what this machine offers, and how to get what it does not.

    What the agent would have to work with is in it, too.  Ends with 1 only when something is missing without which
    uzswap does not run.
    """
    findings = uzswap.doctor()
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("feature", no_wrap=True)
    table.add_column("found", overflow="fold")
    for finding in findings:
        found = Text(finding.detail)
        if finding.fix:
            found.append(f"\n-> {finding.fix}", style="bold")
        level = finding.level.value
        table.add_row(Text(level, style=_STYLE[level]), finding.what, found)
    for one in outlook():
        level = "ok" if one.there else "limited"
        table.add_row(Text(level, style=_STYLE[level]), Text(printable(one.what)), Text(printable(one.detail)))
    Console().print(table)
    return int(any(finding.required and finding.level.value == "missing" for finding in findings))
