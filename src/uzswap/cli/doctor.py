"""``uzswap doctor``: what this machine offers, and the one line that mends what it does not."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from uzswap.probes import machine as probes
from uzswap.probes.machine import Finding, Level

_STYLE = {Level.OK: "green", Level.LIMITED: "yellow", Level.MISSING: "red"}


#: The size of a swap file when none is given.
_SWAP_SIZE = 8 << 30


def examine() -> list[Finding]:
    """Run every probe."""
    return [
        probes.core(),
        *probes.compressors(),
        *probes.swap_file(_SWAP_SIZE),
        probes.memory(),
        probes.huge_pages(),
        *probes.userfaultfd(),
        probes.arrays(),
        probes.fuse(),
        probes.kernel_zswap(),
        probes.kernel_source_zswap(),
    ]


@click.command()
def doctor() -> int:
    """Show what this machine offers, and how to get what it does not.

    Ends with 1 only when something is missing without which uzswap does not run.
    """
    findings = examine()
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("feature", no_wrap=True)
    table.add_column("found", overflow="fold")
    for finding in findings:
        found = Text(finding.detail)
        if finding.fix:
            found.append(f"\n-> {finding.fix}", style="bold")
        table.add_row(Text(finding.level.value, style=_STYLE[finding.level]), finding.what, found)
    Console().print(table)
    return int(any(finding.required and finding.level is Level.MISSING for finding in findings))
