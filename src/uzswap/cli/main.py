"""The ``uzswap`` command: its sub-commands, and how errors leave it.

Exit codes: 0 done, 1 it went wrong (a mismatch, something missing, an error of the system), 2 bad arguments,
130 interrupted.  An error is one line on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from uzswap._version import __version__
from uzswap.cli.demo import demo
from uzswap.cli.doctor import doctor


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False, invoke_without_command=True
)
@click.version_option(__version__, prog_name="uzswap")
@click.pass_context
def cli(context: click.Context) -> None:
    """uzswap: zswap for processes."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


cli.add_command(demo)
cli.add_command(doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave the process with its exit code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code instead of leaving the process."""
    try:
        result = cli.main(args=arguments, prog_name="uzswap", standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"uzswap: {error.format_message()}", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("uzswap: interrupted", err=True)
        return 130
    except OSError as error:
        click.echo(f"uzswap: {error}", err=True)
        return 1
    return result if isinstance(result, int) else 0
