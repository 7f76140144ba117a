"""This process, as the system counts it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["resident_set"]

_STATM: Final = Path("/proc/self/statm")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def resident_set() -> int:
    """Return the RSS in bytes; 0 where /proc does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0
