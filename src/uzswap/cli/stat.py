"""``uzswap stat``: everything that the files of one cgroup tell."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from typing import Final

import click
from rich.table import Table
from rich.text import Text

from uzswap.cli.arguments import CGROUP, engine_option, json_option
from uzswap.cli.report import Output, printable
from uzswap.client.places import open_cgroup
from uzswap.client.root import Cgroup
from uzswap.files.cgroup import FILES
from uzswap.units import format_size

__all__ = ["Value", "parse_file", "stat"]

Value = int | float | str | dict[str, "Value"]

#: (file, key) of what is in bytes; the key is empty in a file of one value
_BYTES: Final = frozenset(
    (row.name, key)
    for row in FILES.values()
    for key, unit in (("", row.unit), *((stat.name, stat.unit) for stat in row.keys))
    if unit == "bytes"
)
#: what tells which cgroup it is
_IDENTITY: Final = ("cgroup", "inode")


@click.command()
@click.argument("cgroup", type=CGROUP)
@click.option("-a", "--all", "everything", is_flag=True, help="Also what is 0.")
@click.option("-r", "--recursive", is_flag=True, help="Of all cgroups below it too.")
@click.option("--raw", is_flag=True, help="Sizes in bytes.")
@json_option
@engine_option
def stat(cgroup: str, everything: bool, recursive: bool, raw: bool, as_json: bool, engine: str | None) -> None:
    """Show what all files of a cgroup tell, apart from what is 0.

    CGROUP is one of the engine's, such as /jobs/a, or a directory of a mounted tree, or /sys/fs/cgroup/..., or
    dask://SCHEDULER:PORT, or a worker of it below that.
    """
    one = open_cgroup(cgroup, engine)
    with one.root:
        all_told = list(_subtree(one, everything=everything)) if recursive else [(one.name, _parsed(one))]
    if as_json:
        objects = [{"cgroup": name, **told} for name, told in all_told]
        click.echo(json.dumps(objects if recursive else objects[0]))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for name, told in all_told:
        if recursive:
            table.add_row(Text(printable(name), "bold"), "")
        for file, value in told.items():
            _add(table, file, "", value, everything=everything, raw=raw)
    Output().print(table)


def _subtree(top: Cgroup, *, everything: bool) -> Iterator[tuple[str, dict[str, Value]]]:
    """Yield name and contents of each cgroup: with one request, where that can be and zeros are not wanted."""
    told = None if everything else top.stats()
    if told is not None:
        for _, cgroup, files in told:
            yield cgroup.name, {file: value for file, value in files.items() if file not in _IDENTITY}
        return
    for level, cgroup in top.preorder():
        try:
            yield cgroup.name, _parsed(cgroup)
        except OSError as error:
            if not level or error.errno not in (errno.ENOENT, errno.ENODEV):
                raise


def _parsed(cgroup: Cgroup) -> dict[str, Value]:
    return {name: parse_file(text) for name, text in _files(cgroup).items()}


def _files(cgroup: Cgroup) -> dict[str, str]:
    """Read every file that can be read."""
    texts = {}
    for name in cgroup.names():
        if not name.is_directory and name.mode & 0o444 and name.name.startswith(("memory.", "cgroup.", "uzswap.")):
            text = cgroup.read_if_there(name.name)
            if text is not None:
                texts[name.name] = text
    return texts


def parse_file(text: str) -> Value:
    """Read a control file by its shape: one value, lines of ``key value``, or of ``key name=value ...``.

    >>> parse_file("4096\\n"), parse_file("max\\n"), parse_file("low 0\\nhigh 2\\n")
    (4096, 'max', {'low': 0, 'high': 2})
    >>> parse_file("some avg10=0.50 total=17\\n")
    {'some': {'avg10': 0.5, 'total': 17}}
    """
    lines = [line.split() for line in text.splitlines()]
    if lines and all(len(line) > 1 and all("=" in word for word in line[1:]) for line in lines):
        return {key: dict(_pair(word) for word in words) for key, *words in lines}
    if lines and all(len(line) == 2 for line in lines):
        return {key: _number(value) for key, value in lines}
    return _number(text.strip())


def _pair(word: str) -> tuple[str, Value]:
    key, _, value = word.partition("=")
    return key, _number(value)


def _number(text: str) -> Value:
    for kind in (int, float):
        if text[:1].isdigit():
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def _add(table: Table, name: str, key: str, value: Value, *, everything: bool, raw: bool) -> None:
    """Add rows for a file, or for a key of one."""
    if isinstance(value, dict):
        for inner, one in value.items():
            _add(table, name, f"{key} {inner}", one, everything=everything, raw=raw)
        return
    if not everything and value in (0, ""):
        return
    is_size = (name, key.split()[0] if key else "") in _BYTES
    told = format_size(value, raw=raw) if is_size and isinstance(value, int) else str(value)
    table.add_row(f"{name}{key}", told)
