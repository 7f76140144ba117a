"""Makes a trace of a mapping that is in use, such as a :class:`uzswap.Store`.

An engine sees what it has to load, not what is in memory anyway; so it is the mapping that is looked at, and every
access of its owner is one of the trace.

    with Record("accesses.trace") as record:
        store = record.mapping(Store(cgroup))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from types import TracebackType
from typing import Generic, Self, TextIO, TypeVar

__all__ = ["Record", "Recorded"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Record:
    """A trace that is being written; a context manager.  Threads may share it.

    Parameters
    ----------
    path
        The file, which is made anew.
    clock
        Seconds.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._file: TextIO = open(path, "w", encoding="ascii", buffering=1 << 16)  # noqa: SIM115  closed by close()
        self._file.write("# uzswap trace\n")
        self._clock = clock
        self._began = clock()
        self._numbers: dict[Hashable, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write the rest.  Calling it again does nothing."""
        self._file.close()

    def access(self, key: Hashable) -> None:
        """Write one access; a key is one page."""
        number = self._numbers.setdefault(key, len(self._numbers))
        self._file.write(f"{self._clock() - self._began:.6f} {number}\n")

    def mapping(self, mapping: MutableMapping[K, V]) -> Recorded[K, V]:
        """Return a mapping that is another one, and whose accesses are written."""
        return Recorded(mapping, self)


class Recorded(MutableMapping[K, V], Generic[K, V]):
    """See :meth:`Record.mapping`.  Getting and setting a value is an access; iterating and ``in`` are none."""

    def __init__(self, mapping: MutableMapping[K, V], record: Record) -> None:
        self._mapping = mapping
        self._record = record

    def __getitem__(self, key: K) -> V:
        value = self._mapping[key]
        self._record.access(key)
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self._mapping[key] = value
        self._record.access(key)

    def __delitem__(self, key: K) -> None:
        del self._mapping[key]

    def __contains__(self, key: object) -> bool:
        return key in self._mapping

    def __iter__(self) -> Iterator[K]:
        return iter(self._mapping)

    def __len__(self) -> int:
        return len(self._mapping)
