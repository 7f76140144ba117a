"""What the tests of caches share: a clock that is told the time, what was dropped, threads that end."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PATIENCE = 240.0  # seconds until a thread counts as deadlocked


class Clock:
    """``clock()`` says what ``clock.now`` is."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Dropped(list[tuple[Any, Any, str]]):
    """An ``on_evict`` that keeps what it was told."""

    def __call__(self, key: Any, value: Any, reason: str) -> None:
        self.append((key, value, reason))

    def take(self) -> list[tuple[Any, Any, str]]:
        """Return what was told since the last time."""
        told = list(self)
        self.clear()
        return told


def run(*tasks: Callable[[], Any]) -> list[Any]:
    """Each in a thread of its own; returns what they return and raises what they raise."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(task) for task in tasks]]
