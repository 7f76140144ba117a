"""What a probe found."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import Enum

__all__ = ["Finding", "Level", "reason"]


class Level(Enum):
    """How good the news are: everything works, something works, nothing works."""

    OK = "ok"
    LIMITED = "limited"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``uzswap doctor``: what was tried, how it went, and the one line that mends it."""

    what: str
    level: Level
    detail: str
    fix: str = ""
    #: Without it the engine does not run at all.
    required: bool = False


def reason(error: OSError) -> str:
    """Return what an error says, for a finding."""
    return f"{errno.errorcode.get(error.errno or 0, '?')}: {error.strerror}"
