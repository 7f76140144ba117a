"""SPEC's notation for states and outcomes.

``f×N@L``  ``fill(z, g, N, L)``                     N fresh (referenced) entries of L bytes
``u×N@L``  ``fill(z, g, N, L, referenced=False)``   N entries whose second chance is used up
``reclaim(X)``  ``reclaim(g, X) == (errno, W)``     write ``X source=zswap``; 0 or the errno, and the bytes written
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .pages import PAGE_SIZE, page_of_length

if TYPE_CHECKING:
    from uzswap import MemCgroup, Zswap
    from uzswap.core.boundary.engine import Handles

OK = 0


def fill(
    z: Zswap,
    cgroup: MemCgroup,
    n: int,
    length: int | Sequence[int],
    referenced: bool = True,
    node: int = 0,
    seed: int = 0,
) -> Handles:
    """Store `n` different pages at the tail of a cgroup's LRU and return their handles, oldest first.

    Parameters
    ----------
    length
        Compressed bytes of each entry, with the engine's compressor at its default level; or `n` of them, one for each.
    referenced
        False uses up their second chance; the order stays, and what was on the LRU before is not touched.
    seed
        Numbers the first page's content.

    Fails when the engine did not take every page as an entry of that length.
    """
    wanted = [length] * n if isinstance(length, int) else list(length)
    assert len(wanted) == n, f"{len(wanted)} lengths for {n} entries"
    codec = z.parameters.get("compressor").strip().partition(":")[0]
    before = z.core.lru_len(cgroup.index, node)
    # The walk below starts behind this entry, so that it meets the new ones only.
    marker = _store(z, cgroup, [26], codec, node, seed) if before and not referenced else None
    handles = _store(z, cgroup, wanted, codec, node, seed)
    stored = lengths(z, handles)
    assert stored == wanted, f"entries of {stored} bytes are in the pool, not of {wanted}"
    if not referenced:
        _unmark(z, cgroup, handles, node, None if marker is None else int(marker[0]))
    if marker is not None:
        z.free_many(marker)
    assert z.core.lru_len(cgroup.index, node) == before + n, "something else changed this LRU meanwhile"
    return handles


def _store(z: Zswap, cgroup: MemCgroup, lengths: list[int], codec: str, node: int, seed: int) -> Handles:
    pages = b"".join(page_of_length(length, seed + i, codec) for i, length in enumerate(lengths))
    handles: Handles = z.swap_out_many(pages, cgroup, page=PAGE_SIZE, node=node)
    return handles


def _unmark(z: Zswap, cgroup: MemCgroup, handles: Handles, node: int, behind: int | None) -> None:
    """Let a walk meet each of the last entries of an LRU once: all are rotated, so their order stays."""
    from uzswap.core.boundary.writer import Writer

    lru = np.array([cgroup.index << 8 | node], np.uint64)
    position = np.array([behind or 0], np.uint64)
    writer = Writer(z.core)
    try:
        met = writer.walk(lru, position, len(handles), 1, z.core.stamp())
    finally:
        writer.finish()
    assert (met.rotated, met.entries) == (len(handles), 0), f"the walk met other entries than those just stored: {met}"
    for handle in handles:
        info = z.core.info(int(handle))
        assert info is not None
        assert not info.referenced


def lru_lengths(z: Zswap, cgroup: MemCgroup) -> list[int]:
    """How many entries are on each node's LRU of this cgroup alone."""
    return [z.core.lru_len(cgroup.index, node) for node in range(z.nodes)]


def left(z: Zswap, cgroup: MemCgroup) -> int:
    """How many entries are on this cgroup's own LRUs together: SPEC's "36 left"."""
    return sum(lru_lengths(z, cgroup))


def lengths(z: Zswap, handles: Handles) -> list[int]:
    """Compressed bytes of each of these entries that is in the pool now, in the order given."""
    from uzswap.core.boundary.engine import ZSWAP

    infos = (z.core.info(int(handle)) for handle in handles)
    return [info.length for info in infos if info is not None and info.state == ZSWAP]


def places(z: Zswap, handles: Handles) -> list[str]:
    """Where each entry is: "zero", "zswap" or "disk"."""
    return [z.where(int(handle)) for handle in handles]


def stats(cgroup: MemCgroup) -> dict[str, int]:
    """memory.stat, by whole key, as it is read from the file."""
    lines = (line.split(" ") for line in cgroup.read("memory.stat").splitlines())
    return {key: int(value) for key, value in lines}


def stat(cgroup: MemCgroup, key: str) -> int:
    """One line of memory.stat; KeyError when it is not there."""
    return stats(cgroup)[key]


def debug(z: Zswap, key: str) -> int:
    """One of the debugfs counters, such as ``reject_reclaim_fail``."""
    from uzswap.core.boundary.engine import GLOBALS

    return z.core.globals()[GLOBALS.index(key)]


@contextmanager
def stat_delta(cgroup: MemCgroup) -> Iterator[dict[str, int]]:
    """How memory.stat changes inside the block: a dict of the keys that changed, filled at its end.

    with stat_delta(g) as delta:
        reclaim(g, 1)
    assert delta["zswpwb"] == 64

    A key that did not change is 0.  The bytes of the engine's tables, which change with everything, are left out.
    """
    before = stats(cgroup)
    delta = _Delta()
    yield delta
    delta.update({key: value - before[key] for key, value in stats(cgroup).items() if value != before[key]})
    delta.pop("uzswap.metadata_bytes", None)


@contextmanager
def debug_delta(z: Zswap) -> Iterator[dict[str, int]]:
    """As :func:`stat_delta`, for the engine-wide counters (debugfs and totals)."""
    from uzswap.core.boundary.engine import GLOBALS

    before = z.core.globals()
    delta = _Delta()
    yield delta
    changes = (new - old for new, old in zip(z.core.globals(), before, strict=True))
    delta.update({key: change for key, change in zip(GLOBALS, changes, strict=True) if change})


class _Delta(dict[str, int]):
    def __missing__(self, key: str) -> int:
        return 0


class Outcome(NamedTuple):
    """Of a write to memory.reclaim; compares equal to ``(errno, wrote)``."""

    errno: int
    wrote: int


def reclaim(cgroup: MemCgroup, nbytes: int | str, keys: str = "source=zswap") -> Outcome:
    """Write ``<nbytes> <keys>`` to memory.reclaim: 0 or the errno, and the rise of zswpwb_proactive_b."""
    before = stat(cgroup, "zswpwb_proactive_b")
    try:
        cgroup.write("memory.reclaim", f"{nbytes} {keys}")
        number = OK
    except OSError as error:
        number = error.errno or OK
    return Outcome(number, stat(cgroup, "zswpwb_proactive_b") - before)
