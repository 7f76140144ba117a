"""Where the bytes of a notebook are: a table, as text and as HTML."""

from __future__ import annotations

import contextlib
import html
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from uzswap import MemCgroup, Store, info
from uzswap.errors import InvalidArgumentError
from uzswap.units import format_size

__all__ = ["Report", "Row", "rows_of"]

_COLUMNS: Final = ("name", "what", "bytes", "resident", "zswap", "disk", "cgroup")


@dataclass(frozen=True, slots=True)
class Row:
    """An array or a store that a variable of the notebook refers to.  Bytes are those before compression."""

    name: str
    what: str
    bytes: int
    resident: int
    zswap: int
    disk: int
    cgroup: str

    def cells(self) -> tuple[str, ...]:
        sizes = map(format_size, (self.bytes, self.resident, self.zswap, self.disk))
        return self.name, self.what, *sizes, self.cgroup


def rows_of(names: Mapping[str, object]) -> list[Row]:
    """Return a row for each variable with arrays in paged memory, or a store; what is largest first.

    Of frames and series of pandas the arrays that they are made of are counted.  Names that begin with an underscore
    are left out: they are IPython's own.  Nothing is loaded.
    """
    rows = []
    for name, value in list(names.items()):
        if name.startswith("_"):
            continue
        if isinstance(value, Store):
            rows += _row_of_store(name, value)
        elif arrays := _arrays_of(value):
            rows += _row_of_arrays(name, value, arrays)
    return sorted(rows, key=lambda row: -row.bytes)


def _arrays_of(value: object) -> list[np.ndarray[Any, Any]]:
    """Return the arrays that own the memory of a value, each once."""
    blocks = getattr(getattr(value, "_mgr", None), "arrays", ()) if type(value).__module__.startswith("pandas") else ()
    owners = {}
    for array in (value, *(getattr(block, "_ndarray", block) for block in blocks)):
        if isinstance(array, np.ndarray):
            while isinstance(array.base, np.ndarray):
                array = array.base
            owners[id(array)] = array
    return list(owners.values())


def _row_of_arrays(name: str, value: object, arrays: list[np.ndarray[Any, Any]]) -> list[Row]:
    found = []
    for array in arrays:
        with contextlib.suppress(InvalidArgumentError):  # not in paged memory
            found.append(info(array))
    if not found:
        return []
    kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
    view = ", a view of" if isinstance(value, np.ndarray) and value.base is not None else ""
    return [
        Row(
            name,
            f"{kind} {getattr(value, 'shape', '')}{view}",
            bytes=sum(part.bytes for part in found),
            resident=sum(part.resident for part in found),
            zswap=sum(part.zswap for part in found),
            disk=sum(part.disk for part in found),
            cgroup=found[0].cgroup,
        )
    ]


def _row_of_store(name: str, value: Store[Any, Any]) -> list[Row]:
    try:
        stats = value.stats()
    except OSError:  # closed
        return []
    packed, stored = stats["packed_bytes"], stats["zswap_bytes"] + stats["disk_bytes"]
    # Of values that are packed the places are known in compressed bytes.
    disk = round(packed * stats["disk_bytes"] / stored) if stored else 0
    resident = stats["resident_bytes"]
    what = f"Store of {stats['values']} values"
    return [Row(name, what, resident + packed, resident, packed - disk, disk, value.cgroup.path)]


@dataclass(frozen=True, slots=True)
class Report:
    """What ``%uzswap`` shows: the variables, and the sums of all that the engine has."""

    rows: list[Row]
    #: bytes of all cgroups
    resident: int
    #: compressed, in RAM; and what it was before
    zswap: int
    zswapped: int
    #: compressed, on the disk
    disk: int
    #: in words
    idle: str

    @classmethod
    def of(cls, names: Mapping[str, object], root: MemCgroup, idle: str) -> Report:
        """Take it: of the variables in ``names``, and of everything below ``root``."""
        stats = root.stats()
        return cls(rows_of(names), stats["anon"], stats["zswap"], stats["zswapped"], stats.get("uzswap.disk", 0), idle)

    def summary(self) -> str:
        resident, zswap, zswapped, disk = map(format_size, (self.resident, self.zswap, self.zswapped, self.disk))
        return f"{resident} resident, {zswapped} in {zswap} of zswap, {disk} on the disk; {self.idle}"

    def __repr__(self) -> str:
        table = Table(*_COLUMNS, box=None)
        for column in table.columns[2:6]:
            column.justify = "right"
        for row in self.rows:
            table.add_row(*row.cells())
        out = io.StringIO()
        Console(file=out, width=120, force_terminal=False, force_jupyter=False).print(
            table if self.rows else "no arrays in paged memory yet"
        )
        lines = (line.rstrip() for line in out.getvalue().splitlines())
        return "\n".join((*lines, self.summary()))

    def _repr_html_(self) -> str:
        def line(cells: tuple[str, ...], tag: str) -> str:
            return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

        body = "".join(line(row.cells(), "td") for row in self.rows)
        table = f"<table><thead>{line(_COLUMNS, 'th')}</thead><tbody>{body}</tbody></table>" if self.rows else ""
        return f"{table}<p>{html.escape(self.summary())}</p>"
