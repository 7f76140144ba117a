"""How long tests are that could go on for ever: random ones, storms, other people's suites.

``make test`` has so much of them as finds what is often wrong.  ``make soak``, with ALL=1 for those outside of
tests/faults, goes on for what is seldom wrong: it is ``UZSWAP_SOAK=1`` in the environment.
"""

import os
from typing import Final, TypeVar

T = TypeVar("T")

SOAK: Final = os.environ.get("UZSWAP_SOAK") == "1"


def longer(usually: T, soaked: T) -> T:
    """Return the one or the other."""
    return soaked if SOAK else usually
