"""What the tests of paged arrays share; their fixtures are in conftest.py."""

from __future__ import annotations

from typing import Any

import numpy as np

import uzswap

MIB = 1 << 20
PAGE = 4096


def current(group: uzswap.MemCgroup) -> int:
    return int(group.read("memory.current"))


def settle(x: np.ndarray[Any, Any]) -> None:
    """Wait until the pages of an array are on their way no longer: their fault threads have noted them."""
    uzswap.advise(x, "willneed")
