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
    Rectangle(left=0, bottom=0, right=1.0, top=1)
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
    found = []
    if right - left >= top - bottom:
        width = total / (top - bottom) if top > bottom else 0.0
        y = top
        for area in areas:
            height = area / width if width else 0.0
            found.append(Rectangle(left, y - height, left + width, y))
            y -= height
        return found, Rectangle(left + width, bottom, right, top)
    height = total / (right - left) if right > left else 0.0
    x = left
    for area in areas:
        width = area / height if height else 0.0
        found.append(Rectangle(x, top - height, x + width, top))
        x += width
    return found, Rectangle(left, bottom, right, top - height)
