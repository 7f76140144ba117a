"""Who gives how much of a budget: the coldest bytes of all first.

A worker tells its bytes by age, in classes each of which is a fifth older than the one before: a few dozen numbers,
however many values it has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["Ages", "by_age", "cut"]

#: class of age -> bytes
Ages = Mapping[int, int]

#: seconds of the first class, and how many classes double the age
_YOUNGEST: Final = 0.01
_PER_OCTAVE: Final = 4


def by_age(ages: Iterable[tuple[float, int]]) -> dict[int, int]:
    """Return bytes by class of age, of (seconds, bytes).

    >>> by_age([(0.0, 1), (0.011, 2), (1.0, 4), (1.01, 8)])
    {0: 3, 26: 12}
    """
    found: dict[int, int] = {}
    for seconds, nbytes in ages:
        number = max(0, int(_PER_OCTAVE * math.log2(max(seconds, _YOUNGEST) / _YOUNGEST)))
        found[number] = found.get(number, 0) + nbytes
    return found


def cut(budget: int, workers: Mapping[str, Ages]) -> dict[str, int]:
    """Return each worker's share of a budget, in bytes; those that give nothing are left out.

    The oldest class of all goes first; of the class in which the budget ends each gives in proportion to what it has.

    >>> cut(12, {"a": {5: 4, 1: 100}, "b": {7: 3}, "c": {1: 50, 5: 2}})
    {'a': 6, 'b': 3, 'c': 3}
    """
    shares = dict.fromkeys(workers, 0)
    left = budget
    for number in sorted({number for ages in workers.values() for number in ages}, reverse=True):
        here = {worker: ages[number] for worker, ages in workers.items() if ages.get(number)}
        total = sum(here.values())
        if total > left:
            given = 0
            upto = 0
            for worker, nbytes in here.items():  # rounded so that the sum is exact
                upto += nbytes
                until = left * upto // total
                shares[worker] += until - given
                given = until
            left = 0
            break
        for worker, nbytes in here.items():
            shares[worker] += nbytes
        left -= total
    return {worker: share for worker, share in shares.items() if share}
