"""``uzswap demo``: the main job on real files of this machine, with the whereabouts of every byte after each step."""

from __future__ import annotations

import errno
import gc
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from uzswap import MemCgroup, ReclaimError, ReclaimResult, Store, Zswap
from uzswap.cli import corpus, demo_arrays
from uzswap.cli.report import printable
from uzswap.process import resident_set
from uzswap.units import format_size, parse_size

_Item = TypeVar("_Item")
_SMALLEST = 1 << 20


class Size(click.ParamType[int]):
    """Bytes, or a number with K, M or G."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the option's text."""
        try:
            nbytes = parse_size(value)
        except OSError as error:
            self.fail(str(error), param, ctx)
        if nbytes < _SMALLEST:
            self.fail(f"{value!r} is too small: give at least {format_size(_SMALLEST)}", param, ctx)
        return nbytes


@dataclass
class Tenant:
    """One cgroup with a store that holds files by their path, and what is needed to check them later."""

    cgroup: MemCgroup
    store: Store[str, bytes]
    files: list[Path]
    #: Size and time of change when the file was stored, and the digest of its bytes then.
    seen: dict[str, tuple[tuple[int, int], bytes]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last part of the cgroup's path."""
        return self.cgroup.name


@click.command()
@click.option("--size", type=Size(), default="64M", show_default=True, help="How much data to take from this machine.")
@click.option("--walk", type=click.Choice(["fair", "coldest", "v5"]), default="fair", show_default=True)
@click.option("--swap", type=click.Path(), default="auto", help="Swap file or device.  [default: an unlinked file]")
def demo(size: int, walk: str, swap: str) -> int:
    """Store real files of this machine for two tenants, write back the coldest by byte budget, verify everything.

    Then compute with a numpy array of four times its budget.
    """
    console = Console(highlight=False)
    with Zswap(swap=swap, swap_size=2 * max(size, 64 << 20), walk=walk) as z:
        failed = Demo(z, size, console).run()
        return failed or int(not demo_arrays.act(z, size, console))


class Demo:
    """The steps.  Every number shown is read from the engine's control files."""

    def __init__(self, z: Zswap, size: int, console: Console) -> None:
        self.z = z
        self.console = console
        self.problems: list[str] = []
        self.tenants = []
        for name, files in (("text", corpus.text_files()), ("libs", corpus.shared_objects())):
            cgroup = z.cgroup(f"/demo/{name}")
            self.tenants.append(Tenant(cgroup, Store(cgroup), corpus.take(files, size // 2)))
        self.parent = z.cgroup("/demo")
        gc.collect()
        #: of this process without any data
        self.rss = resident_set()

    def run(self) -> int:
        """All steps; the exit code: 1 when anything read back differs."""
        text, libs = self.tenants
        self.step("Two tenants: text files and shared objects of this machine")
        self.fill()
        self.show()

        self.step("memory.reclaim: all that is resident is compressed into zswap")
        for tenant in self.tenants:
            self.reclaim(tenant.cgroup, self.resident(tenant.cgroup))
        self.show()

        self.step("source=zswap: the coldest go to the disk, by a byte budget of each tenant")
        for tenant, part in ((text, 4), (libs, 2)):
            self.reclaim(tenant.cgroup, self.pool(tenant.cgroup) // part, "zswap")
        self.show()

        self.step("source=zswap on the parent, while the disk is forbidden to text")
        self.write(text.cgroup, "memory.zswap.writeback", "0")
        self.reclaim(self.parent, self.pool(libs.cgroup) // 2, "zswap")
        self.reclaim(text.cgroup, self.pool(text.cgroup) // 2, "zswap", refused=errno.EINVAL)
        self.write(text.cgroup, "memory.zswap.writeback", "1")
        self.show()

        self.step("memory.zswap.max: libs may keep half of that; the rest goes to the disk")
        self.write(libs.cgroup, "memory.zswap.max", f"{self.pool(libs.cgroup) >> 11}K")
        self.access(libs, len(libs.store) // 2)
        self.reclaim(libs.cgroup, self.resident(libs.cgroup))
        self.show()

        self.step("Accesses: a third of all objects come back from wherever they are")
        for tenant in self.tenants:
            self.access(tenant, len(tenant.store) // 3)
        self.show()

        self.step("Everything is read back and compared with the files, read again")
        return self.verify()

    # Steps ------------------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Store each file's bytes under its path."""
        for tenant in self.tenants:
            for path in self.progress(tenant.files, f"filling {tenant.name}"):
                try:
                    content, seen = path.read_bytes(), _signature(path)
                except OSError:
                    continue  # gone or locked since it was found
                tenant.store[str(path)] = content
                tenant.seen[str(path)] = seen, _digest(content)

    def access(self, tenant: Tenant, count: int) -> None:
        """Read `count` objects in a random order."""
        chosen = random.Random(count).sample(sorted(tenant.store), count)
        nbytes = sum(len(tenant.store[key]) for key in self.progress(chosen, f"reading {tenant.name}"))
        self.console.print(f"  {escape(printable(tenant.name))}: {count} objects, {format_size(nbytes)}")

    def verify(self) -> int:
        """Compare every object with its file; where the file was changed meanwhile, with what it was when stored."""
        count, nbytes, changed = 0, 0, 0
        for tenant in self.tenants:
            for key in self.progress(list(tenant.store), f"verifying {tenant.name}"):
                content = tenant.store[key]
                expected = self.digest_now(tenant, key)
                changed += expected is None
                self.expect(_digest(content) == (expected or tenant.seen[key][1]), f"{key} differs")
                count += 1
                nbytes += len(content)
        self.z.check()
        self.expect(count > 0, "no files were found to work with")
        if changed:
            self.console.print(f"  {changed} files changed meanwhile: compared with what was stored")
        for problem in self.problems:
            self.console.print(f"  [red]{escape(problem)}[/red]", soft_wrap=True)
        if not self.problems:
            self.console.print(f"  [green]{count} objects, {format_size(nbytes)}: all identical[/green]")
        return int(bool(self.problems))

    def digest_now(self, tenant: Tenant, key: str) -> bytes | None:
        """Digest of the file as it is now; None when it is not the one any more that was stored."""
        path = Path(key)
        try:
            content = path.read_bytes()
            return _digest(content) if _signature(path) == tenant.seen[key][0] else None
        except OSError:
            return None

    # Control files ----------------------------------------------------------------------------------------------------

    def write(self, cgroup: MemCgroup, file: str, text: str) -> None:
        """Write a control file, and show it as a shell would do it."""
        self.console.print(f"  $ echo {text} > {escape(printable(cgroup.path))}/{file}", style="bold")
        cgroup.write(file, text)

    def reclaim(self, cgroup: MemCgroup, nbytes: int, source: str | None = None, refused: int = 0) -> None:
        """One request to memory.reclaim, and what came of it; with `refused` it has to fail with that errno."""
        amount, key = f"{nbytes >> 10}K", f" source={source}" if source else ""
        while True:
            self.console.print(
                f'  $ echo "{amount}{key}" > {escape(printable(cgroup.path))}/memory.reclaim', style="bold"
            )
            try:
                result, answer = cgroup.reclaim(amount, source=source), ""
            except ReclaimError as error:
                result, answer = error.result, f"{_code(error)}: "
            except OSError as error:
                self.console.print(f"    {_code(error)}: {error.strerror}", soft_wrap=True)
                self.expect(error.errno == refused, f"reclaim of {cgroup.path}: {error}")
                return
            self.console.print(f"    {answer}{_outcome(result)}")
            if result.written or result.reclaimed or not result.rotated:
                break
            # The v5 walk gives up when it met too many fresh entries; now they are not fresh any more.
        did = result.written + result.reclaimed > 0 or not result.asked
        self.expect(did and not refused, f"reclaim of {cgroup.path} did nothing")

    def expect(self, good: bool, otherwise: str) -> None:
        """Remember what did not go as it should; the demo then ends with exit code 1."""
        if not good:
            self.problems.append(otherwise)

    def pool(self, cgroup: MemCgroup) -> int:
        """Compressed bytes of a subtree in the pool."""
        return cgroup.stats()["zswap"]

    def resident(self, cgroup: MemCgroup) -> int:
        """Uncompressed bytes of a subtree in RAM."""
        return cgroup.stats()["anon"]

    # Output -----------------------------------------------------------------------------------------------------------

    def step(self, text: str) -> None:
        """A heading."""
        self.console.print()
        self.console.rule(text, align="left")

    def show(self) -> None:
        """Where the bytes are now."""
        table = Table(box=None, padding=(0, 1, 0, 2))
        for column in ("cgroup", "resident", "zswapped", "-> zswap", "ratio", "disk", "RAM in all"):
            table.add_column(column, justify="left" if column == "cgroup" else "right", no_wrap=True)
        for cgroup in (*(tenant.cgroup for tenant in self.tenants), self.parent):
            stats = cgroup.stats()
            resident, zswapped, zswap, disk = (stats[key] for key in ("anon", "zswapped", "zswap", "uzswap.disk"))
            ratio = f"{zswapped / zswap:.2f}" if zswap else "-"
            total = int(cgroup.read("memory.current"))
            sizes = [format_size(number) for number in (resident, zswapped, zswap, disk, total)]
            table.add_row(escape(printable(cgroup.path)), *sizes[:3], ratio, *sizes[3:])
        self.console.print(table)
        more = max(resident_set() - self.rss, 0)
        self.console.print(f"  RSS of this process: {format_size(more)} above what it was without the data")

    def progress(self, items: list[_Item], what: str) -> Iterator[_Item]:
        """Yield the items, with a progress bar on a terminal."""
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        hidden = not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=hidden) as progress:
            yield from progress.track(items, description=what)


def _signature(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content).digest()


def _code(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "?")


def _outcome(result: ReclaimResult) -> str:
    parts = []
    if result.reclaimed:
        parts.append(f"{format_size(result.reclaimed)} freed")
    if result.entries or not parts:
        parts.append(f"{result.written} bytes in {result.entries} entries to the disk")
    if result.rotated:
        parts.append(f"{result.rotated} rotated")
    parts.extend(f"{count} failed ({reason})" for reason, count in result.failed.items())
    return f"{', '.join(parts)}; {result.seconds * 1e3:.1f} ms"
