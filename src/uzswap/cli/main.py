"""The ``uzswap`` command: its sub-commands, and how errors leave it.

An error is one line on stderr; the exit codes are those of :mod:`uzswap.cli.report`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from uzswap._version import __version__
from uzswap.cli import report
from uzswap.cli.demo import demo
from uzswap.cli.doctor import doctor
from uzswap.cli.engines import engines, mount
from uzswap.cli.files import cat, ls, mkdir, rmdir, write
from uzswap.cli.reclaim import reclaim
from uzswap.cli.run import run as run_program
from uzswap.cli.stat import stat
from uzswap.cli.top import top
from uzswap.cli.tree import tree


class _NobodyReads(Exception):
    """stdout is a pipe without a reader.  Not an OSError, which click would take for itself."""


class _Commands(click.Group):
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


for _command in (
    cat,
    demo,
    doctor,
    engines,
    ls,
    mkdir,
    mount,
    reclaim,
    rmdir,
    run_program,
    stat,
    top,
    tree,
    write,
):
    cli.add_command(_command)


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
