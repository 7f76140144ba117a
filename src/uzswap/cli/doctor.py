"""``uzswap doctor``: what this machine offers, and the one line that mends what it does not."""

from __future__ import annotations

import json
from typing import Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

import uzswap
from uzswap.agent.outlook import outlook
from uzswap.cli.arguments import json_option
from uzswap.cli.report import printable

__all__ = ["doctor"]

_STYLE: Final = {"ok": "green", "limited": "yellow", "missing": "red"}


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Show what this machine offers, and how to get what it does not.

    What the agent would have to work with is in it, too.  Ends with 1 only when something is missing without which
    uzswap does not run.
    """
    findings = uzswap.doctor()
    missing = int(any(finding.required and finding.level.value == "missing" for finding in findings))
    agent = [("ok" if one.there else "limited", one) for one in outlook()]
    if as_json:
        told = [
            {"what": one.what, "level": one.level.value, "detail": one.detail, "fix": one.fix, "required": one.required}
            for one in findings
        ]
        told += [
            {"what": one.what, "level": level, "detail": one.detail, "fix": "", "required": False}
            for level, one in agent
        ]
        click.echo(json.dumps(told))
        return missing
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
    for level, one in agent:
        table.add_row(Text(level, style=_STYLE[level]), Text(printable(one.what)), Text(printable(one.detail)))
    Console().print(table)
    return missing
