"""Rectangles of cgroups, each as large as what it uses: squarified (Bruls, Huizing and van Wijk, 2000)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Rectangle", "squarified"]


class Rectangle(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float


def squarified(sizes: Sequence[float], whole: Rectangle) -> list[Rectangle]:
    """Return a rectangle for each size, which are in falling order and not negative; together they fill the whole.

    >>> squarified([2, 1, 1], Rectangle(0, 0, 2, 1))[0]
    Rectangle(left=0, bottom=0.0, right=1.0, top=1.0)
    """
    total = sum(sizes)
    if total <= 0:
        return [Rectangle(whole.left, whole.bottom, whole.left, whole.bottom)] * len(sizes)
    area = (whole.right - whole.left) * (whole.top - whole.bottom)
    areas = [size / total * area for size in sizes]
    found: list[Rectangle] = []
    rest = whole
    begin = 0
    while begin < len(areas):
        side = min(rest.right - rest.left, rest.top - rest.bottom)
        end = begin + 1
        while end < len(areas) and _worst(areas[begin : end + 1], side) <= _worst(areas[begin:end], side):
            end += 1
        row, rest = _laid(areas[begin:end], rest)
        found += row
        begin = end
    return found


def _worst(areas: Sequence[float], side: float) -> float:
    """Return the largest ratio of sides in a row along a side."""
    total = sum(areas)
    if total <= 0 or side <= 0 or min(areas) <= 0:
        return float("inf")
    return max(side * side * max(areas) / (total * total), total * total / (side * side * min(areas)))


def _laid(areas: Sequence[float], rest: Rectangle) -> tuple[list[Rectangle], Rectangle]:
    """Lay a row along the shorter side; return it and what is left."""
    left, bottom, right, top = rest
    total = sum(areas)
    # By shares of the side, so that rounding lets nothing stand out.
    ends = [sum(areas[: n + 1]) / total if total else 1.0 for n in range(len(areas))]
    begins = [0.0, *ends[:-1]]
    if right - left >= top - bottom:
        edge = min(right, left + total / (top - bottom)) if top > bottom else left
        row = [
            Rectangle(left, top - end * (top - bottom), edge, top - begin * (top - bottom))
            for begin, end in zip(begins, ends, strict=True)
        ]
        return row, Rectangle(edge, bottom, right, top)
    edge = max(bottom, top - total / (right - left)) if right > left else top
    row = [
        Rectangle(left + begin * (right - left), edge, left + end * (right - left), top)
        for begin, end in zip(begins, ends, strict=True)
    ]
    return row, Rectangle(left, bottom, right, edge)
