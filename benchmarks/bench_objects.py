"""Objects: put, hot get, reclaim, and get from zswap and from the disk, beside what users would pick to keep them.

Each candidate lives on each kind of objects in processes of its own, one a run; they take turns.  CPU time is that of
the process, with its threads, and what a user waits is beside it.  Ratios are to pickle + lz4 by hand, by CPU time.

Targets, times pickle + lz4 by hand: get from zswap at most 3 for 100 B and 1.3 from 10 KB on, reclaim at most 4 and
1.3; a hot get at most 0.5 us above a dict's; from the disk at most 30 us a value alone and 6 us in get_many, of small
ones; at most 150 bytes of bookkeeping a packed value beside its key.  10 million values of 100 bytes fit into 3 GiB
with everything (``--million 10000000``), and 10 million operations leave RSS flat (``--operations 10000000``).
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import click
from rich.progress import track

from benchmarks.common import console, table, title, verdict
from benchmarks.object_candidates import CANDIDATES, HAND, OURS
from benchmarks.object_values import KINDS

#: operation -> most times pickle + lz4 by hand, for 100 B and from 10 KB on
RATIOS: Final = {"reclaim": (4.0, 1.3), "get from zswap": (3.0, 1.3)}
#: us of CPU above a dict's
HOT_US: Final = 0.5
#: us of CPU a value
DISK_US: Final = {"get from disk": 30.0, "get_many from disk": 6.0}
SMALL: Final = 2000
BOOKKEEPING: Final = 150.0
MILLION_GIB: Final = 3.0
#: RSS in the second half may be above that after a fifth by a twentieth and 8 MiB.
FLAT: Final = 1.05
SLACK: Final = 8 << 20

TIMES: Final = ("put", "hot get", "reclaim", "get from zswap", "get from disk", "get_many from disk")
BYTES: Final = ("RSS put", "RSS in zswap", "RSS on disk", "bookkeeping")

#: operation -> [CPU, wall] in us, or [bytes], of each run
Found = dict[str, list[list[float]]]


def _target(kind: str, operation: str, value: float, ratio: float | None, above: float | None) -> Any:
    nbytes = KINDS[kind].nbytes
    if operation in RATIOS and ratio is not None:
        small, large = RATIOS[operation]
        if nbytes <= 100:
            return verdict(ratio, small, at_most=True)
        # For what lies between there is no target of its own: the weaker one holds.
        return verdict(ratio, large if nbytes >= 10_000 else small, at_most=True)
    if operation == "hot get" and above is not None:
        return verdict(above, HOT_US, at_most=True)
    if operation in DISK_US and nbytes <= SMALL:
        return verdict(value, DISK_US[operation], at_most=True)
    if operation == "bookkeeping" and nbytes <= SMALL:
        return verdict(value, BOOKKEEPING, at_most=True)
    return ""


def _child(module: str, *words: str, malloc: bool = False) -> Iterator[dict[str, Any]]:
    environment = {**os.environ, **({"PYTHONMALLOC": "malloc"} if malloc else {})}
    command = [sys.executable, "-m", f"benchmarks.{module}", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        for line in child.stdout:
            yield json.loads(line)
    if child.returncode:
        raise click.ClickException(f"{' '.join(words)}: ended with {child.returncode}")


def measure(kind: str, names: list[str], number: int, runs: int, directory: str) -> dict[str, Found]:
    """Let the candidates take turns, each in a process of its own."""
    found: dict[str, Found] = {name: defaultdict(list) for name in names}
    turns = random.Random(1)
    for run in range(runs + 1):
        last = run == runs
        turns.shuffle(names)
        for name in names:
            if last and name == "cachetools":
                continue  # it packs nothing
            for line in _child("object_run", kind, name, str(number), str(run), directory, malloc=last):
                for operation, values in line.items():
                    found[name][operation].append(values)
    return found


def _median(found: Found, operation: str, which: int = 0) -> float:
    return statistics.median(values[which] for values in found[operation])


def _ratio(found: dict[str, Found], name: str, operation: str) -> float | None:
    ours, hand = found[name].get(operation), found.get(HAND, {}).get(operation)
    if not ours or not hand:
        return None
    return statistics.median(one[0] / other[0] for one, other in zip(ours, hand, strict=True))


def show(kind: str, number: int, found: dict[str, Found]) -> dict[str, Any]:
    """Print the tables of one kind; return what they say."""
    times = table("operation", "candidate", "CPU us", "wall us", "CPU, times by hand", "target")
    times.title = f"{kind}: {number} values"
    times.title_justify = "left"
    said: dict[str, Any] = defaultdict(dict)
    for operation in TIMES:
        for name in (name for name in CANDIDATES if found.get(name, {}).get(operation)):
            cpu, wall = _median(found[name], operation), _median(found[name], operation, 1)
            ratio = _ratio(found, name, operation)
            above = cpu - _median(found[HAND], operation) if operation == "hot get" and HAND in found else None
            target = _target(kind, operation, cpu, ratio, above) if name == OURS else ""
            shown = "" if ratio is None else f"{ratio:.2f}"
            times.add_row(operation, name, f"{cpu:.2f}", f"{wall:.2f}", shown, target)
            said[operation][name] = {"cpu": cpu, "wall": wall, "ratio": ratio}
        times.add_section()
    console.print(times)
    memory = table("candidate", "", "RSS put", "in zswap", "on disk", "bookkeeping", "target")
    for name in (name for name in CANDIDATES if name in found):
        cells = {place: _median(found[name], place) for place in BYTES if found[name].get(place)}
        kept = cells.get("bookkeeping", 0.0)
        memory.add_row(
            name,
            "bytes a value",
            *(f"{cells[place]:.0f}" if place in cells else "" for place in BYTES),
            _target(kind, "bookkeeping", kept, None, None) if name == OURS else "",
        )
        for place, nbytes in cells.items():
            said[place][name] = nbytes
    console.print(memory)
    return dict(said)


def show_million(number: int, directory: str) -> list[dict[str, Any]]:
    """Print how much memory very many values take, on the way and at most."""
    results = table("values", "", "RSS, MiB", "of which pool", "bytes a value", "us of CPU a value", "peak RSS, MiB")
    found = []
    for line in _child("object_endurance", "million", str(number), directory):
        found.append(line)
        each = line["rss"] / line["values"], line["cpu"] / line["values"] * 1e6
        mib = line["rss"] / 2**20, line["pool"] / 2**20, line["peak"] / 2**20
        shown = f"{mib[0]:.0f}", f"{mib[1]:.0f}", f"{each[0]:.0f}", f"{each[1]:.1f}", f"{mib[2]:.0f}"
        results.add_row(f"{line['values']}", "", *shown)
    console.print(results)
    last = found[-1]
    gib = (last["base"] + (last["peak"] - last["base"]) / number * 10_000_000) / 2**30
    console.print(f"10 million values at this rate, GiB: {gib:.2f}", verdict(gib, MILLION_GIB, at_most=True))
    return found


def show_operations(number: int, directory: str) -> list[dict[str, Any]]:
    """Print RSS as operations go on."""
    results = table("operations", "", "RSS, MiB", "values", "us of CPU an operation")
    found = []
    for line in _child("object_endurance", "operations", str(number), directory):
        found.append(line)
        each = f"{line['cpu'] / line['operations'] * 1e6:.2f}" if line["operations"] else ""
        results.add_row(f"{line['operations']}", "", f"{line['rss'] / 2**20:.1f}", f"{line['values']}", each)
    console.print(results)
    early = max(line["rss"] for line in found[: len(found) // 5 + 1])
    late = max(line["rss"] for line in found[len(found) // 2 :])
    grown = late / early
    console.print(
        f"RSS of the second half, times the most of the first fifth: {grown:.3f}",
        verdict(grown, FLAT + SLACK / early, at_most=True),
    )
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, help="Kinds and candidates, by a part of their names; pickle + lz4 comes along.")
@click.option("--n", "number", type=click.IntRange(100), default=10_000, help="Values of 100 bytes.  [default: 10000]")
@click.option("--runs", "--rounds", type=click.IntRange(1), default=None, help="Runs.  [default: 3, quick: 1]")
@click.option("--quick", is_flag=True, help="Fewer values and runs: to see that it works.")
@click.option("--million", type=click.IntRange(100), help="Instead: so many values of 100 bytes, and their memory.")
@click.option("--operations", type=click.IntRange(100), help="Instead: RSS as so many operations go on.")
@click.option("--directory", type=click.Path(exists=True, file_okay=False), default="/var/tmp", help="Of the disk.")
@click.option("--json", "to", type=click.File("w"), help="Write what was found there, too.")
def main(
    only: tuple[str, ...],
    number: int,
    runs: int | None,
    quick: bool,
    million: int | None,
    operations: int | None,
    directory: str,
    to: Any,
) -> None:
    """Objects in a store, and by hand, in zict, diskcache, cachetools and lmdb."""
    found: dict[str, Any] = {}
    if million or operations:
        title("bench_objects: memory")
        if million:
            found["million"] = show_million(million, directory)
        if operations:
            found["operations"] = show_operations(operations, directory)
    else:
        number, runs = (min(number, 1000), runs or 1) if quick else (number, runs or 3)
        kinds = [kind for kind in KINDS if any(word in kind for word in only)] or list(KINDS)
        chosen = [name for name in CANDIDATES if any(word in name for word in only)]
        names = [HAND, *(name for name in chosen if name != HAND)] if chosen else list(CANDIDATES)
        if unknown := [word for word in only if not any(word in name for name in (*KINDS, *CANDIDATES))]:
            raise click.BadParameter(f"{unknown[0]!r} is in none of {', '.join((*KINDS, *CANDIDATES))}")
        title(f"bench_objects: {runs} runs")
        for kind in track(kinds, "measuring", console=console, transient=True, disable=not console.is_terminal):
            values = KINDS[kind].number(number)
            found[kind] = show(kind, values, measure(kind, list(names), values, runs, directory))
    if to is not None:
        json.dump(found, to, indent=1)


if __name__ == "__main__":
    main()
