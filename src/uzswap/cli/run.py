"""``uzswap run``: a Python program with an engine of its own.

An engine lives in a process, so a program cannot be given one from outside: it has to be started by
:mod:`uzswap.cli.launch`, in the interpreter that it asks for.  This process becomes that one, so its exit code and its
signals are the program's.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NoReturn

import click

from uzswap.cli.settings import CONFIG, NAMES, SETTINGS, Settings, option_of, variable_of
from uzswap.client.runtime import engines
from uzswap.errors import InvalidArgumentError, os_error
from uzswap.probes.machine import kernel_waits

__all__ = ["run"]

_PYTHON: Final = re.compile(r"python[0-9.]*[a-z]*")
#: of the interpreter (Python/getopt.c): those that take an argument, and those that name what to run
_WITH_ARGUMENT: Final = "WX"
_WHAT_TO_RUN: Final = "cm"


class _Run(click.Command):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Settings, also in a TOML file as NAME_X or in the environment as UZSWAP_NAME_X"):
            formatter.write_dl(
                [(option_of(name), f"{row.help}  [default: {row.default}]") for name, row in SETTINGS.items()]
            )
            formatter.write_dl([("--memory-high, ...", "what to write to a control file of the program's cgroup")])


def _with_settings(command: click.Command) -> click.Command:
    """Add an option for each setting; the epilog lists them."""
    command.params[:0] = [click.Option([option_of(name), variable_of(name)], hidden=True) for name in NAMES]
    return command


@_with_settings
@click.command(cls=_Run, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--config", type=click.Path(), envvar=CONFIG, help=f"TOML file with settings.  [env: {CONFIG}]")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- python SCRIPT [ARGUMENTS]")
def run(config: str | None, command: tuple[str, ...], **given: str | None) -> NoReturn:
    """Run a Python program with an engine of its own.

    With a socket and a mount, and its numpy arrays managed.

    \b
    uzswap run -- python script.py ...
    uzswap run --memory-max 3G -- python script.py ...
    uzswap run -- python -m module ...
    uzswap run -- python -c "..."
    uzswap run -- script ...            with python in its first line

    The program can use uzswap.default_engine().  Exit code and signals are its own.
    """
    if command[0].startswith("--"):
        close = difflib.get_close_matches(command[0], [option_of(name) for name in NAMES], 1)
        meant = f"did you mean {close[0]}?" if close else "uzswap run --help lists them"
        raise click.UsageError(f"{command[0]} is no option: {meant}")
    environment = dict(os.environ)
    if config is not None:
        environment[CONFIG] = os.path.abspath(config)
    # click has lowered the names of the variables, which each option's value goes by.
    environment |= {name.upper(): value for name, value in given.items() if value is not None}
    try:
        settings = Settings.read(environment)
    except InvalidArgumentError as error:
        raise click.UsageError(error.strerror or "") from error
    interpreter, options, program = _understand(list(command))
    arguments = [interpreter, *options, str(Path(__file__).with_name("launch.py")), *program]
    with contextlib.suppress(OSError):
        engines()  # takes away what dead ones have left
    if settings.engine.get("faults") == "signal" or not kernel_waits():
        _preload(environment)
    os.execve(_with_uzswap(interpreter), arguments, environment)


def _preload(environment: dict[str, str]) -> None:
    """Have system calls on arrays looked at before they are made: what the filter cannot see (core/preload.c).

    It is taken out of the program's environment again before that begins.
    """
    spec = importlib.util.find_spec("uzswap.core.paging.preload")
    if spec is not None and spec.origin is not None:
        environment["LD_PRELOAD"] = ":".join(filter(None, (spec.origin, environment.get("LD_PRELOAD"))))


def _understand(command: list[str]) -> tuple[str, list[str], list[str]]:
    """Take a command apart: the interpreter, its options, what it is to run with arguments."""
    first, *rest = command
    if _PYTHON.fullmatch(os.path.basename(first)):
        options, program = _split_options(rest)
        return first, options, program
    path = shutil.which(first)
    if path is None and os.path.exists(first):
        if first.endswith(".py"):
            return sys.executable, [], command
        path = first
    if path is None:
        raise os_error(errno.ENOENT, "there is no such program", first)
    return _from_first_line(path, rest)


def _from_first_line(path: str, arguments: list[str]) -> tuple[str, list[str], list[str]]:
    """Take apart a script that names its interpreter."""
    with open(path, "rb") as file:
        line = os.fsdecode(file.readline(256))
    words = line[2:].split() if line.startswith("#!") else []
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if word != "-S"]
    if not words or not _PYTHON.fullmatch(os.path.basename(words[0])):
        raise os_error(
            errno.ENOEXEC, "this is no Python program, and an engine lives in one: uzswap run -- python ...", path
        )
    return words[0], words[1:], [path, *arguments]


def _split_options(words: list[str]) -> tuple[list[str], list[str]]:
    """Split the arguments of the interpreter into its own options and the program."""
    options: list[str] = []
    while words:
        word = words.pop(0)
        if word == "-" or not word.startswith("-"):
            return options, [word, *words]
        if word == "--check-hash-based-pycs":
            options += [word, *words[:1]]
            words = words[1:]
            continue
        if word.startswith("--"):
            options.append(word)
            continue
        for k, letter in enumerate(word[1:], 1):
            value = word[k + 1 :]
            if letter in _WHAT_TO_RUN:
                if k > 1:
                    options.append(word[:k])
                what = [value] if value else words[:1]
                rest = words if value else words[1:]
                if not what:
                    raise click.UsageError(f"python -{letter} takes an argument")
                return options, [f"-{letter}", *what, *rest]
            if letter in _WITH_ARGUMENT:
                options.append(word)
                if not value:
                    options += words[:1]
                    words = words[1:]
                break
        else:
            options.append(word)
    raise click.UsageError("there is no program to run: give a script, -m MODULE, -c CODE, or - for stdin")


def _with_uzswap(interpreter: str) -> str:
    """Return the path of an interpreter that can import uzswap.

    Raises
    ------
    OSError
        ENOENT there is no such interpreter; ENOPKG it has no uzswap.
    """
    path = shutil.which(interpreter)
    if path is None:
        raise os_error(errno.ENOENT, "there is no such interpreter", interpreter)
    if _same(path, sys.executable):
        return path
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('uzswap') is None)"
    if subprocess.run([path, "-P", "-c", probe], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode:
        text = f"this interpreter has no uzswap: install it there, or use {sys.executable}"
        raise os_error(errno.ENOPKG, text, path)
    return path


def _same(one: str, other: str) -> bool:
    """Whether they are the same file of the same environment: those of virtual environments are links."""
    return os.path.realpath(Path(one).parent) == os.path.realpath(Path(other).parent) and os.path.samefile(one, other)
