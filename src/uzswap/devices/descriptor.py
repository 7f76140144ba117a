"""A descriptor in a table that the program shares, and may clear at any time."""

from __future__ import annotations

import os
import warnings
from typing import Final

__all__ = ["Descriptor"]


class Descriptor:
    """The number of an open file, used and closed only as long as it stands for that file.

    A daemon closes every number that it finds, and its next file gets one of them: to that file we must do nothing.
    One that is forgotten is closed, with a ResourceWarning.
    """

    def __init__(self, number: int) -> None:
        self._number: Final = number
        self._identity: Final = _identity(number)
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def fileno(self) -> int:
        """The number; ValueError when it was closed here."""
        if self._closed:
            raise ValueError("the file is closed")
        return self._number

    def is_ours(self) -> bool:
        """Whether the number still stands for the file."""
        if self._closed:
            return False
        try:
            return _identity(self._number) == self._identity
        except OSError:
            return False

    def give_up(self) -> None:
        """Leave the number to somebody else, who closes it."""
        self._closed = True

    def close(self) -> None:
        """Close it, unless somebody else did.  Calling it again does nothing."""
        ours = self.is_ours()
        self._closed = True
        if ours:
            os.close(self._number)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"unclosed swap file, descriptor {self._number}", ResourceWarning, source=self, stacklevel=2)
            self.close()


def _identity(number: int) -> tuple[int, int, int]:
    status = os.fstat(number)
    return status.st_dev, status.st_ino, status.st_rdev
