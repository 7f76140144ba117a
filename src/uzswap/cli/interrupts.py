"""Ctrl-C that ends what is under way, and not the command: what was done until then is still to be shown."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

__all__ = ["Interrupts"]


class Interrupts:
    """Holds Ctrl-C back in a block, apart from where it is wanted.  For the main thread.

    The second one ends the command at once, as always.

    Attributes
    ----------
    came : bool
        There was one.
    """

    def __init__(self) -> None:
        self.came = False
        self._act: Callable[[], object] | None = None

    def __enter__(self) -> Self:
        self._before: Any = signal.signal(signal.SIGINT, self._come)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def call(self, act: Callable[[], object]) -> Iterator[None]:
        """Call ``act`` when Ctrl-C comes during a block, or came before; it may raise.  Perhaps more than once."""
        self._act = act
        try:
            if self.came:
                act()
            yield
        finally:
            self._act = None

    def _come(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True
        if self._act is not None:
            self._act()
