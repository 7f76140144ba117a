"""The ``uzswap`` command: its sub-commands, and how errors leave it.

An error is one line on stderr; the exit codes are those of :mod:`uzswap.cli.report`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from uzswap._version import __version__
from uzswap.cli import report

#: sub-command -> its module and name there.  One is imported when it is asked for: `uzswap agent` is a small process
#: that runs for months, and needs neither numpy nor the compiled core.
_COMMANDS: Final = {
    "agent": "uzswap.cli.agent:agent",
    "cat": "uzswap.cli.files:cat",
    "demo": "uzswap.cli.demo:demo",
    "doctor": "uzswap.cli.doctor:doctor",
    "engines": "uzswap.cli.engines:engines",
    "ls": "uzswap.cli.files:ls",
    "mkdir": "uzswap.cli.files:mkdir",
    "mount": "uzswap.cli.engines:mount",
    "reclaim": "uzswap.cli.reclaim:reclaim",
    "replay": "uzswap.cli.replay:replay",
    "rmdir": "uzswap.cli.files:rmdir",
    "run": "uzswap.cli.run:run",
    "stat": "uzswap.cli.stat:stat",
    "top": "uzswap.cli.top:top",
    "tree": "uzswap.cli.tree:tree",
    "web": "uzswap.cli.web:web",
    "why": "uzswap.cli.why:why",
    "write": "uzswap.cli.files:write",
}


class _NobodyReads(Exception):
    """stdout is a pipe without a reader.  Not an OSError, which click would take for itself."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError as error:
            raise _NobodyReads from error
        except KeyboardInterrupt as interrupt:
            raise click.Abort from interrupt


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.version_option(__version__, prog_name="uzswap")
@click.pass_context
def cli(context: click.Context) -> None:
    """uzswap: zswap for processes."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave the process with its exit code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code instead of leaving the process."""
    try:
        result = cli.main(args=arguments, prog_name="uzswap", standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"uzswap: {report.printable(error.format_message(), keep=chr(10))}", err=True)
        return error.exit_code
    except click.Abort:
        click.echo("uzswap: interrupted", err=True)
        return report.INTERRUPTED
    except _NobodyReads:
        # What is still buffered would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
        return report.BROKEN_PIPE
    except OSError as error:
        click.echo(f"uzswap: {report.describe(error)}", err=True)
        return report.exit_code(error)
    return result if isinstance(result, int) else report.DONE
