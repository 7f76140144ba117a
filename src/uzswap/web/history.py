"""What was: of each cgroup an hour by seconds and a day by minutes, in memory that is bounded.

Rings of numbers, allocated when a cgroup is first seen; the pages of one that is half full are half used.  Of more
cgroups than there is room for, those that use least have no history: 202 kB each.

Threads: one writes, others read; a lock is held for the length of a copy.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["DAY", "FIELDS", "HOUR", "History"]

#: bytes, then what a second brought, in bytes and pages; percent
FIELDS: Final = ("resident", "zswap", "zswapped", "disk", "written", "refaults_zswap", "refaults_disk", "pressure")
#: samples
HOUR: Final = 3600
DAY: Final = 1440
#: samples of the one in a sample of the other
_MINUTE: Final = 60
#: cgroups with a history: 200 of 202 kB are 40 MB
_MOST: Final = 200


class _Ring:
    """The last so many samples."""

    def __init__(self, length: int) -> None:
        self._times = np.zeros(length)
        self._numbers = np.zeros((length, len(FIELDS)), np.float32)
        self._count = 0

    def add(self, when: float, numbers: NDArray[np.float32]) -> None:
        place = self._count % len(self._times)
        self._times[place] = when
        self._numbers[place] = numbers
        self._count += 1

    def since(self, when: float) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return times and numbers of what came after a time, in order."""
        kept = min(self._count, len(self._times))
        order = (np.arange(self._count - kept, self._count)) % len(self._times)
        order = order[self._times[order] > when]
        return self._times[order], self._numbers[order]


class _Past:
    """Of one cgroup."""

    def __init__(self) -> None:
        self.seconds = _Ring(HOUR)
        self.minutes = _Ring(DAY)
        self._sum = np.zeros(len(FIELDS), np.float64)
        self._summed = 0

    def add(self, when: float, numbers: NDArray[np.float32]) -> None:
        self.seconds.add(when, numbers)
        self._sum += numbers
        self._summed += 1
        if self._summed == _MINUTE:
            self.minutes.add(when, (self._sum / _MINUTE).astype(np.float32))
            self._sum[:] = 0
            self._summed = 0


class History:
    """The past of all cgroups of an engine, by path."""

    def __init__(self) -> None:
        self._pasts: dict[str, _Past] = {}
        self._lock = threading.Lock()

    def add(self, when: float, samples: Mapping[str, Mapping[str, float]]) -> None:
        """Add a second.

        Parameters
        ----------
        when
            Seconds since 1970.
        samples
            Of each cgroup that there is, the numbers of FIELDS; the first one is the root.
        """
        if len(samples) > _MOST:
            # Stable: of those that use the same, the first stay.
            ranked = sorted(samples, key=lambda path: (path != "/", -_use(samples[path])))
            samples = {path: samples[path] for path in ranked[:_MOST]}
        with self._lock:
            self._pasts = {path: self._pasts.get(path) or _Past() for path in samples}
            for path, numbers in samples.items():
                self._pasts[path].add(when, np.array([numbers[field] for field in FIELDS], np.float32))

    def since(self, path: str, when: float, *, minutes: bool = False) -> dict[str, list[float]]:
        """Return what came after a time: "time" and each of FIELDS, in order; empty for who has no history."""
        with self._lock:
            past = self._pasts.get(path)
            if past is None:
                times, numbers = np.zeros(0), np.zeros((0, len(FIELDS)), np.float32)
            else:
                times, numbers = (past.minutes if minutes else past.seconds).since(when)
        found: dict[str, list[float]] = {"time": times.tolist()}
        return found | {field: numbers[:, position].tolist() for position, field in enumerate(FIELDS)}


def _use(numbers: Mapping[str, float]) -> float:
    return numbers["resident"] + numbers["zswap"] + numbers["disk"]
