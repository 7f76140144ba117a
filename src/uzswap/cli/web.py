"""``uzswap web``: a page that shows the engines, and what an agent decides about them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import webbrowser
from pathlib import Path
from typing import Any, Final

import click

from uzswap.agent.explain import explain
from uzswap.agent.records import read_records
from uzswap.cli.agent import configuration, state_directory
from uzswap.cli.arguments import engine_option

__all__ = ["web"]

#: decisions that are shown, and seconds that they may be old
_LAST: Final = 20
_SINCE: Final = 86400.0


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of localhost.  [default: one that is free]")
@click.option("--open", "is_opened", is_flag=True, help="Open it in a browser.")
@click.option("--state", type=click.Path(path_type=Path), help="Of the agent, as of uzswap agent --state.")
@click.option("--config", "config_path", type=click.Path(), help="Of the agent, for its write budget.")
@engine_option
def web(port: int, is_opened: bool, state: Path | None, config_path: str | None, engine: str | None) -> None:
    """Show all engines on a page, until Ctrl-C.

    The page has plots of where memory is and what comes and goes, the limits, and a button that reclaims.  It is for
    those who have the URL that is printed, on this machine.
    """
    from uzswap.web.guard import new_token
    from uzswap.web.server import Engines, serve

    token = new_token()
    directory = state or Path(state_directory())
    budget = None if config_path is None else configuration(config_path, ()).agent.swapout_rate

    def decisions(cgroup: str) -> list[dict[str, Any]]:
        with contextlib.suppress(OSError):  # no agent, or none that can be read
            records = read_records(directory, cgroup, time.time() - _SINCE, _LAST)
            return [{"time": record.time, "text": explain(record)} for record in reversed(records)]
        return []

    def ready(chosen: int) -> None:
        url = f"http://127.0.0.1:{chosen}/?token={token}"
        click.echo(url)
        sys.stdout.flush()
        if is_opened:
            webbrowser.open(url)

    asyncio.run(serve(port, token, Engines(engine, decisions, budget), ready))
