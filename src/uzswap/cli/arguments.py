"""What the commands' arguments have in common: engines, paths, cgroups, sizes, and how the shell completes them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from uzswap.client.places import open_cgroup, open_path
from uzswap.client.runtime import engines
from uzswap.units import parse_size

__all__ = ["CGROUP", "PATH", "SIZE", "engine_option", "json_option"]

Command = TypeVar("Command", bound=Callable[..., Any])


class _Engine(click.ParamType[str]):
    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        with contextlib.suppress(OSError):  # a shell that completes a word wants no errors
            return [CompletionItem(entry.name, help=entry.command) for entry in engines()]
        return []


class _Path(click.ParamType[str]):
    """A path of a control file or directory."""

    name = "path"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value or "\0" in value:
            self.fail("it is empty, or has a NUL in it", param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        above = incomplete[: incomplete.rfind("/") + 1]
        with contextlib.suppress(OSError):  # a shell that completes a word wants no errors
            return [
                CompletionItem(above + name, type="plain")
                for name in self.names_in(above or "/", ctx.params.get("engine"))
                if name.startswith(incomplete[len(above) :])
            ]
        return []

    def names_in(self, directory: str, engine: str | None) -> Iterator[str]:
        root, where = open_path(directory, engine)
        with root:
            yield from (name.name + "/" * name.is_directory for name in root.names(where))


class _Cgroup(_Path):
    name = "cgroup"

    def names_in(self, directory: str, engine: str | None) -> Iterator[str]:
        cgroup = open_cgroup(directory, engine)
        with cgroup.root:
            yield from (name.name for name in cgroup.names() if name.is_directory)


class _Size(click.ParamType[str]):
    """A size as the control files take it; it stays the text that it is."""

    name = "bytes"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parse_size(value)
        except OSError as error:
            self.fail(error.strerror or str(error), param, ctx)
        return value.strip()


PATH: Final = _Path()
CGROUP: Final = _Cgroup()
SIZE: Final = _Size()


def engine_option(command: Command) -> Command:
    """Add ``--engine NAME``."""
    option = click.option(
        "--engine",
        type=_Engine(),
        envvar="UZSWAP_ENGINE",
        help="Which engine, when there are several: see uzswap engines.  [env: UZSWAP_ENGINE]",
    )
    return option(command)


def json_option(command: Command) -> Command:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="For programs.")(command)
