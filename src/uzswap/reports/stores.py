"""What a store has, and which of its values could not go."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from uzswap.store.store import Store

__all__ = ["StoreReport", "ValueReport", "find_key", "store_report"]

#: longest text of a key
_MOST_SHOWN: Final = 80
_STAYS: Final = {"referenced": "somebody else holds a part of it", "unpicklable": "it can't be pickled"}


@dataclass(frozen=True, slots=True)
class ValueReport:
    """One value."""

    #: as Python writes it, cut off where it is long
    key: str
    #: as of :meth:`uzswap.Store.where`
    where: str
    #: bytes charged while it is resident
    bytes: int
    #: compressed, in the pool and on the disk
    stored_bytes: int
    #: in words; "" when nobody asked
    why: str


@dataclass(frozen=True, slots=True)
class StoreReport:
    """A store; values are (number, bytes)."""

    cgroup: str
    values: int
    resident_bytes: int
    #: of those that are out: what they would be charged, and compressed, in the pool and on the disk
    packed_bytes: int
    zswap_bytes: int
    disk_bytes: int
    #: resident since they came or were seen unused: too new yet, they go next
    new: tuple[int, int]
    #: used again since: they go after these
    hot: tuple[int, int]
    #: they have to stay, for all that is known: shared, unpicklable or pinned
    stuck: tuple[int, int]
    #: of these: parts of them are held by others; they can't be pickled
    referenced: tuple[int, int]
    unpicklable: tuple[int, int]
    #: times that the engine would not take a value
    refused: int
    #: the heaviest ones that have to stay; of the first of them with who holds what of them
    stay: list[ValueReport]
    #: wherever they are
    largest: list[ValueReport]
    #: resident, the next to go
    coldest: list[ValueReport]

    def as_json(self) -> dict[str, Any]:
        """Return it as lists, dicts and numbers."""
        return asdict(self)


def store_report(store: Store[Any, Any], most: int, *, asked: int) -> StoreReport:
    """Tell what a store has.

    Parameters
    ----------
    most
        Values of each kind, up to 64.
    asked
        Of so many of those that have to stay, say who holds what of them: each costs a look of the garbage collector
        at all that it knows.

    Raises
    ------
    OSError
        EBADF: it is closed.
    """
    counts = store.stats()
    ranking = store.rank(most)
    return StoreReport(
        cgroup=store.cgroup.path,
        values=counts["values"],
        resident_bytes=counts["resident_bytes"],
        packed_bytes=counts["packed_bytes"],
        zswap_bytes=counts["zswap_bytes"],
        disk_bytes=counts["disk_bytes"],
        new=ranking.new,
        hot=ranking.hot,
        stuck=ranking.stuck,
        referenced=(counts["referenced"], counts["referenced_bytes"]),
        unpicklable=(counts["unpicklable"], counts["unpicklable_bytes"]),
        refused=counts["refused"],
        stay=_told(store, ranking.stay, asked),
        largest=_told(store, ranking.largest, 0),
        coldest=_told(store, ranking.coldest, 0),
    )


def _told(store: Store[Any, Any], keys: Iterable[Any], asked: int) -> list[ValueReport]:
    found: list[ValueReport] = []
    for key in keys:
        try:
            found.append(value_report(store, key, asked=len(found) < asked))
        except KeyError:  # deleted meanwhile
            continue
    return found


def value_report(store: Store[Any, Any], key: Any, *, asked: bool) -> ValueReport:
    """Tell of one value, without loading it.  KeyError without it."""
    info = store.info(key)
    why = store.why(key) if asked else "it is pinned" if info.pinned else _STAYS.get(info.obstacle or "", "")
    return ValueReport(shown(key), info.place, info.weight, info.stored_bytes, why)


def shown(key: Any) -> str:
    """Return a key as Python writes it, cut off where it is long."""
    text = written(key)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def written(key: Any) -> str:
    """Return a key as Python writes it; who made it may have made a mistake there."""
    try:
        return repr(key)
    except Exception:
        return object.__repr__(key)


def find_key(store: Store[Any, Any], text: str) -> Any:
    """Return the key of a store that is written so, or is this text.

    Raises
    ------
    KeyError
        There is none.
    """
    candidates: list[Any] = [text]
    with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        candidates.insert(0, ast.literal_eval(text))
    for key in candidates:
        try:
            if key in store:
                return key
        except TypeError:  # a list is no key
            continue
    # Objects of a class have no other name.
    for key in list(store):
        if written(key) == text:
            return key
    raise KeyError(text)
