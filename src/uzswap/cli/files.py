"""``uzswap ls``, ``cat``, ``write``, ``mkdir``, ``rmdir``: control files one by one."""

from __future__ import annotations

import json
import os
import sys

import click

from uzswap.cli.arguments import PATH, engine_option, json_option
from uzswap.cli.interrupts import Interrupts
from uzswap.cli.report import printable
from uzswap.client.places import open_path
from uzswap.client.root import Name

__all__ = ["cat", "ls", "mkdir", "rmdir", "write"]


@click.command()
@click.argument("path", type=PATH, default="/")
@click.option("-l", "long", is_flag=True, help="With modes.")
@json_option
@engine_option
def ls(path: str, long: bool, as_json: bool, engine: str | None) -> None:
    """List a directory of control files.

    PATH is one of the engine's tree, such as cgroup/jobs, or of a mounted one, or /sys/fs/cgroup/...
    """
    root, where = open_path(path, engine)
    with root:
        names = root.names(where)
    if as_json:
        rows = [
            {"name": one.name, "type": "directory" if one.is_directory else "file", "mode": f"{one.mode:04o}"}
            for one in names
        ]
        click.echo(json.dumps(rows))
        return
    for one in names:
        _show((f"{_mode(one)} " if long else "") + one.name + "/" * one.is_directory + "\n")


def _show(text: str) -> None:
    """Write text as it is, or to a terminal what it can show of it."""
    click.echo(printable(text, keep="\n\t") if sys.stdout.isatty() else os.fsencode(text), nl=False)


def _mode(name: Name) -> str:
    bits = "".join(letter if name.mode >> (8 - k) & 1 else "-" for k, letter in enumerate("rwxrwxrwx"))
    return ("d" if name.is_directory else "-") + bits


@click.command()
@click.argument("paths", type=PATH, nargs=-1, required=True, metavar="PATH...")
@engine_option
def cat(paths: tuple[str, ...], engine: str | None) -> None:
    """Show control files, such as cgroup/jobs/memory.stat."""
    for path in paths:
        root, where = open_path(path, engine)
        with root:
            _show(root.read(where))


@click.command()
@click.argument("path", type=PATH)
@click.argument("text")
@engine_option
def write(path: str, text: str, engine: str | None) -> None:
    """Write TEXT to a control file.  As one write, which Ctrl-C interrupts.  With - it is read from stdin."""
    data = sys.stdin.buffer.read() if text == "-" else text.encode(errors="surrogateescape")
    root, where = open_path(path, engine)
    with root, Interrupts() as interrupts:
        root.write(where, data, interrupts=interrupts)


@click.command()
@click.argument("paths", type=PATH, nargs=-1, required=True, metavar="PATH...")
@engine_option
def mkdir(paths: tuple[str, ...], engine: str | None) -> None:
    """Make cgroups, such as cgroup/jobs/b.  Their parents have to exist."""
    for path in paths:
        root, where = open_path(path, engine)
        with root:
            root.mkdir(where)


@click.command()
@click.argument("paths", type=PATH, nargs=-1, required=True, metavar="PATH...")
@engine_option
def rmdir(paths: tuple[str, ...], engine: str | None) -> None:
    """Remove cgroups.  They have no children and no members; their entries go to the parent."""
    for path in paths:
        root, where = open_path(path, engine)
        with root:
            root.rmdir(where)
