"""What is told of a run of tests at its end, beside how many passed: how much they have tried."""

from collections.abc import Iterable
from typing import Final

#: In this order.
TRIED: Final = (
    "fault positions tried",
    "faults injected",
    "interrupts",
    "forks",
    "kills",
    "hostile inputs",
    "bytes compared",
)


def in_words(properties: Iterable[tuple[str, object]]) -> str:
    """Add up what tests have recorded; what is none of the above is left out, and what is 0."""
    tried = dict.fromkeys(TRIED, 0)
    for kind, number in properties:
        if kind in tried:
            tried[kind] += int(str(number))
    return ", ".join(f"{number:,} {kind}" for kind, number in tried.items() if number)
