"""Where did the memory go: :func:`report` tells it of an engine, its stores and its arrays."""

from __future__ import annotations

import errno
import html
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from uzswap.arrays.arena import arena_in
from uzswap.core.boundary import places
from uzswap.engine.host import host_of
from uzswap.errors import InvalidArgumentError, os_error
from uzswap.reports.arrays import ArrayReport, array_reports
from uzswap.reports.process import ResidentSet, resident_set_of, rolled_up
from uzswap.reports.stores import StoreReport, ValueReport, find_key, store_report, value_report
from uzswap.reports.strip import COLOURS
from uzswap.reports.words import LETTERS, PARTS, PROCESS
from uzswap.store.store import Store
from uzswap.units import PAGE_SIZE, format_size

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.cgroup.tree import CgroupTree
    from uzswap.core.boundary.engine import Engine

__all__ = ["Report", "report", "report_of", "why"]

#: columns of a page of text
_WIDTH: Final = 120


class ReportedEngine(Protocol):
    """A Zswap, as a report sees it."""

    @property
    def core(self) -> Engine: ...

    @property
    def tree(self) -> CgroupTree: ...


@dataclass(frozen=True, slots=True)
class Report:
    """Where the memory of a process is; notebooks show it as HTML with a strip for each array."""

    cgroup: str
    #: of the whole process, whatever the cgroup
    process: ResidentSet
    #: RSS as the kernel had it in one number, when that began
    rss: int
    stores: list[StoreReport]
    arrays: list[ArrayReport]

    def as_json(self) -> dict[str, Any]:
        """Return it as lists, dicts and numbers: what ``GET /v1/report`` answers."""
        return {
            "cgroup": self.cgroup,
            "process": self.process._asdict(),
            "rss": self.rss,
            "stores": [store.as_json() for store in self.stores],
            "arrays": [array.as_json() for array in self.arrays],
        }

    def __str__(self) -> str:
        out = io.StringIO()
        console = Console(file=out, width=_WIDTH, force_terminal=False, force_jupyter=False, highlight=False)
        for title, table in self._tables():
            console.print(Text(title), table, sep="\n")
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

    def __repr__(self) -> str:
        return str(self)

    def _tables(self) -> Iterator[tuple[str, Table]]:
        table = _table("what", "RSS", "share")
        for what, nbytes in self.process._asdict().items():
            table.add_row(PROCESS[what], format_size(nbytes), f"{nbytes / max(1, self.process.total):.0%}")
        yield f"this process: {format_size(self.process.total)} resident", table
        for store in self.stores:
            table = _table("values", "number", "bytes")
            for what, (number, nbytes) in _sums(store):
                table.add_row(what, str(number), format_size(nbytes))
            yield f"a store of {store.cgroup}", table
            for title, values in (
                ("that could not go", store.stay),
                ("largest", store.largest),
                ("coldest", store.coldest),
            ):
                if values:
                    table = _table("key", "bytes", "where", "why")
                    for value in values:
                        table.add_row(Text(value.key), format_size(value.bytes), value.where, Text(value.why))
                    yield f"{title}:", table
        if self.arrays:
            table = _table("cgroup", "bytes", "resident", "zswap", "disk", "where each page is")
            for one in self.arrays:
                sizes = map(format_size, (one.bytes, one.resident, one.zswap, one.disk))
                table.add_row(Text(one.cgroup), *sizes, _shortened(one.strip.text()))
            yield f"arrays: {', '.join(f'{letter} {place}' for letter, place in LETTERS.items())}", table

    def _repr_html_(self) -> str:
        def line(cells: list[str], tag: str = "td") -> str:
            return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

        parts = [f"<p>{format_size(self.process.total)} resident</p><table>"]
        parts += [line([PROCESS[what], format_size(nbytes)]) for what, nbytes in self.process._asdict().items()]
        parts.append("</table>")
        for store in self.stores:
            parts.append(f"<p>a store of {html.escape(store.cgroup)}</p><table>")
            parts += [line([what, str(number), format_size(nbytes)]) for what, (number, nbytes) in _sums(store)]
            parts.append("</table><table>" + line(["key", "bytes", "where", "why"], "th"))
            for value in (*store.stay, *store.largest):
                parts.append(line([value.key, format_size(value.bytes), value.where, value.why]))
            parts.append("</table>")
        if self.arrays:
            legend = " ".join(f'<span style="color:{colour}">&#9632;</span> {name}' for name, colour in COLOURS.items())
            parts.append(f"<p>arrays, where each page is: {legend}</p>")
        for one in self.arrays:
            parts.append(f"<div>{html.escape(one.cgroup)}, {format_size(one.bytes)}</div>{one.strip.svg()}")
        return "".join(parts)


def _sums(store: StoreReport) -> list[tuple[str, tuple[int, int]]]:
    out = (store.values - store.new[0] - store.hot[0] - store.stuck[0], store.packed_bytes)
    return [("out: compressed", out), *((text, getattr(store, name)) for name, text in PARTS.items())]


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns[1:]:
        if column.header in ("number", "bytes", "RSS", "share", "resident", "zswap", "disk"):
            column.justify = "right"
            column.no_wrap = True
    return table


def _shortened(text: str, most: int = 60) -> str:
    """Return every so many letters of a strip, as many as there is room for."""
    return text if len(text) <= most else "".join(text[i * len(text) // most] for i in range(most))


def report(z: ReportedEngine, *, most: int = 10, columns: int = 512) -> Report:
    """Tell where the memory of this process is: its RSS, and what the stores and arrays of an engine have where.

    Loads nothing and counts as no access.  It reads /proc/self/smaps, looks at every chunk of every store (some 50 ns
    each) and at every page of the arrays that it shows (4 ns); and for ``most`` values that have to stay, of all
    stores together, it asks the garbage collector who holds what of them, some 50 ms a million objects each.

    Parameters
    ----------
    z
        The engine.
    most
        Values of each kind, and arrays, that are told one by one: the heaviest.  Up to 64.
    columns
        Of the strips of arrays.

    Returns
    -------
    Report
        ``print`` it, show it in a notebook, or take its numbers; ``report.arrays[0].strip.png()`` is a picture.

    Raises
    ------
    OSError
        EBADF: the engine is closed.  ENOENT: there is no /proc.
    InvalidArgumentError
        ``most`` is negative, or ``columns`` is not positive.

    Examples
    --------
    >>> import uzswap
    >>> with uzswap.Zswap() as z, uzswap.Store(z.cgroup("/jobs")) as store:
    ...     store["day"] = ["a line of text"] * 1000
    ...     store.pin("day")
    ...     [(value.key, value.why) for value in uzswap.report(z).stores[0].stay]
    [("'day'", 'it is pinned: unpin() lets it go')]
    """
    return report_of(z.tree.root, most=most, columns=columns)


def report_of(top: MemCgroup, *, most: int = 10, columns: int = 512) -> Report:
    """As :func:`report`, of the stores and arrays of a subtree of cgroups."""
    if most < 0 or columns < 1:
        raise InvalidArgumentError(f"most={most}, columns={columns}: that many cannot be told")
    host = host_of(top)
    with host.lifetime, top.in_use():
        cgroups = list(top.preorder())
        stores = [one for cgroup in cgroups for one in cgroup.members if isinstance(one, Store)]
        root = list(top.ancestry())[-1]
        everybody = [one for cgroup in root.preorder() for one in cgroup.members]
    with host.lifetime:
        memory = arena_in(top).memory
        if memory is not None and memory.info().broken:
            memory = None
        objects = sum(one.resident_bytes for one in everybody if isinstance(one, Store))
        rss = rolled_up()
        counted = {"pool": host.core.pool_pages() * PAGE_SIZE, "arrays": arena_in(top).resident_bytes()}
        process = resident_set_of(places.mappings(host.core, memory), counted, objects)
        arrays = [] if memory is None else array_reports(memory, top, most, columns)
    told: list[StoreReport] = []
    for store in stores:
        asked = max(0, most - sum(len(one.stay) for one in told))
        try:
            told.append(store_report(store, most, asked=asked))
        except OSError:  # closed meanwhile
            continue
    return Report(top.path, process, rss, told, arrays)


def why(cgroup: MemCgroup, text: str) -> list[ValueReport]:
    """Tell why a value is where it is, of each store of a cgroup that has a key that is written so.

    Raises
    ------
    FileNotFoundError
        ENOENT: none has.
    """
    found = []
    for one in cgroup.members:
        if isinstance(one, Store):
            try:
                found.append(value_report(one, find_key(one, text), asked=True))
            except KeyError:
                continue
    if not found:
        raise os_error(errno.ENOENT, f"no store of this cgroup has the key {text!r}", cgroup.path)
    return found


def why_as_json(cgroup: MemCgroup, text: str) -> dict[str, Any]:
    """As :func:`why`, for ``GET /v1/report``."""
    return {"cgroup": cgroup.path, "values": [asdict(value) for value in why(cgroup, text)]}
