"""Which values of a store see the memory of one array, each of them elements of its own, and nobody else does.

Rows of an array, or the pieces of a ``groupby``, kept as values of their own: each holds all of the memory, so each is
held by the others.  When all references to it are theirs and no two of them see the same byte, no change that is made
through one can be seen in another.  So each may go with its own elements, and the memory goes with the last.

Where they lie is compared by runs of bytes (rows), or, when these are too many (columns), by where in the common
distance of the elements each has its bytes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Final, TypeAlias

import numpy as np

__all__ = ["Pieces", "Shape", "are_disjoint", "owned_alone"]

#: Where the elements of a view lie: address, bytes of each, and distance and number by dimension, the nearest first.
Shape: TypeAlias = tuple[int, int, tuple[tuple[int, int], ...]]
#: Id of an owner of memory -> references to it from a value, from anywhere, and the value's views of it.
Pieces: TypeAlias = dict[int, tuple[int, int, list[Shape]]]

# Runs of bytes to be sorted, of 24 bytes each: it happens when memory is short.
_MOST_RUNS: Final = 1 << 18


def owned_alone(values: list[Pieces]) -> list[frozenset[int]]:
    """Return of each value the ids of the owners of which it may take its part along.

    Parameters
    ----------
    values
        What :func:`uzswap.store.weigh.pieces` says of all values that are known to see the same memory.
    """
    references: dict[int, int] = defaultdict(int)
    expected: dict[int, set[int]] = defaultdict(set)
    views: dict[int, list[list[Shape]]] = defaultdict(list)
    for value in values:
        for owner, (own, everybodys, seen) in value.items():
            references[owner] += own
            expected[owner].add(everybodys)
            views[owner].append(seen)
    alone = {
        owner for owner, number in references.items() if expected[owner] == {number} and are_disjoint(views[owner])
    }
    return [frozenset(alone & value.keys()) for value in values]


def are_disjoint(values: list[list[Shape]]) -> bool:
    """Return whether no byte is seen by two values, each given by its views; False too when that takes too long."""
    runs = [(number, *_runs(shape)) for number, shapes in enumerate(values) for shape in shapes if shape[1]]
    if sum(int(np.prod([length for _, length in rest], dtype=np.int64)) for *_, rest in runs) > _MOST_RUNS:
        return _lie_apart(runs)
    starts, ends, numbers = [], [], []
    for number, address, nbytes, rest in runs:
        start = np.array([address], np.int64)
        for distance, length in rest:
            start = (start[:, None] + np.arange(length) * distance).ravel()
        starts.append(start)
        ends.append(start + nbytes)
        numbers.append(np.full(len(start), number))
    return not starts or _apart(np.concatenate(starts), np.concatenate(ends), np.concatenate(numbers))


def _apart(starts: np.ndarray, ends: np.ndarray, numbers: np.ndarray) -> bool:
    order = np.argsort(starts, kind="stable")
    reached = np.maximum.accumulate(ends[order])[:-1]
    # The first that reaches into one of another value's is next to one of these.
    return not ((starts[order][1:] < reached) & (numbers[order][1:] != numbers[order][:-1])).any()


def _lie_apart(runs: list[tuple[int, int, int, tuple[tuple[int, int], ...]]]) -> bool:
    """Whether values have places of their own within a distance that all their elements repeat at."""
    distance = math.gcd(*(step for *_, rest in runs for step, _ in rest))
    if not distance:
        return False
    places = [(address % distance, nbytes, number) for number, address, nbytes, _ in runs]
    return all(place + nbytes <= distance for place, nbytes, _ in places) and _apart(
        np.array([place for place, _, _ in places]),
        np.array([place + nbytes for place, nbytes, _ in places]),
        np.array([number for _, _, number in places]),
    )


def _runs(shape: Shape) -> tuple[int, int, tuple[tuple[int, int], ...]]:
    """Address and bytes of a run, and how it is repeated."""
    address, nbytes, dimensions = shape
    rest = list(dimensions)
    while rest and rest[0][0] == nbytes:
        nbytes *= rest.pop(0)[1]
    return address, nbytes, tuple(rest)
