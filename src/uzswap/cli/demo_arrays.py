"""The second act of ``uzswap demo``: a numpy array of four times its budget, and a computation on it.

The array has a row for each 4 KiB of text of this machine, with how often each pair of neighbouring bytes occurs in it,
hashed into 1024 columns.  The computation is power iteration: the direction in which texts differ most (the first
principal component), by going over the whole array again and again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.table import Table

import uzswap
from uzswap.cli import corpus
from uzswap.units import format_size

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

    Matrix = NDArray[np.float32]

__all__ = ["act"]

_COLUMNS: Final = 1024
_TEXT: Final = 4096
_ROW_BYTES: Final = _COLUMNS * 4
_TIMES_ITS_BUDGET: Final = 4
_ITERATIONS: Final = 4
#: rows that are worked on at once: 1 MiB
_ROWS: Final = 256


def act(z: uzswap.Zswap, size: int, console: Console) -> bool:
    """Show it, in a cgroup of its own; whether the result is that of plain numpy.

    Where the machine has no userfaultfd, the one line that says so is all, and nothing is wrong.
    """
    console.print()
    console.rule(f"A numpy array of {_TIMES_ITS_BUDGET} times its budget", align="left")
    group = z.cgroup("/demo/arrays")
    text = b"".join(path.read_bytes() for path in corpus.take(corpus.text_files(), size))
    rows = max(1, size // _ROW_BYTES)
    budget = max(size // _TIMES_ITS_BUDGET, 1 << 20)
    console.print(f"  $ echo {budget} > {group.path}/memory.max", style="bold")
    group.write("memory.max", str(budget))
    console.print(f"  x = uzswap.zeros(({rows}, {_COLUMNS}), 'f4', cgroup=z.cgroup(\"{group.path}\"))", style="bold")
    try:
        x = uzswap.zeros((rows, _COLUMNS), "f4", cgroup=group)
    except OSError as refused:
        console.print(f"    {refused.strerror}", soft_wrap=True)
        return True
    steps = [_timed("filled", x, lambda: _fill(x, text))]
    paged: list[Matrix] = []
    steps.append(_timed("iterated", x, lambda: paged.append(_component(x))))
    _show(steps, console)
    plain = np.zeros((rows, _COLUMNS), "f4")
    _fill(plain, text)
    started = time.perf_counter()
    right = np.allclose(_component(plain), paged[0], atol=1e-5) and bool((x == plain).all())
    seconds = time.perf_counter() - started
    console.print(
        f"  memory.peak: {format_size(int(group.read('memory.peak')))}; "
        f"plain numpy: {format_size(x.nbytes)}, {seconds:.1f} s"
    )
    if right:
        console.print("  [green]the same result as plain numpy, and every number of the array is right[/green]")
    else:
        console.print("  [red]not what plain numpy computes[/red]")
    return right


def _fill(x: Matrix, text: bytes) -> None:
    """Count pairs of bytes: row i is about the i-th 4 KiB, round and round when there is less text."""
    data = np.frombuffer(text or b"no text here", np.uint8).astype(np.uint16)
    for i in range(len(x)):
        piece = np.resize(data[i * _TEXT % max(1, len(data) - _TEXT) :][:_TEXT], _TEXT)
        x[i] = np.bincount((piece[:-1] * 31 + piece[1:]) % _COLUMNS, minlength=_COLUMNS)


def _component(x: Matrix) -> Matrix:
    """Return the first principal component, a unit vector, after some steps of power iteration."""
    mean = np.mean([x[i : i + _ROWS].mean(axis=0) for i in range(0, len(x), _ROWS)], axis=0, dtype=np.float32)
    found = np.random.default_rng(1).standard_normal(_COLUMNS, np.float32)
    for _ in range(_ITERATIONS):
        following = np.zeros(_COLUMNS, np.float32)
        for i in range(0, len(x), _ROWS):
            centred = x[i : i + _ROWS] - mean
            following += centred.T @ (centred @ found)
        found = following / np.linalg.norm(following)
    return found


def _timed(what: str, x: Matrix, do: Any) -> tuple[str, float, uzswap.ArrayInfo]:
    started = time.perf_counter()
    do()
    return what, time.perf_counter() - started, uzswap.info(x)


def _show(steps: list[tuple[str, float, uzswap.ArrayInfo]], console: Console) -> None:
    """Where the array's bytes were after each step."""
    table = Table(box=None, padding=(0, 1, 0, 2))
    for column in ("array", "resident", "zswap", "disk", "loaded", "faults", "seconds"):
        table.add_column(column, justify="left" if column == "array" else "right", no_wrap=True)
    for what, seconds, info in steps:
        sizes = [format_size(nbytes) for nbytes in (info.resident, info.zswap, info.disk, info.loads * 4096)]
        table.add_row(what, *sizes, str(info.faults), f"{seconds:.1f}")
    console.print(table)
