"""The compiled walk against the plain one, and what only compiled code could get wrong."""

from __future__ import annotations

import collections
import gc
import signal
import sys
import traceback
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store import weighing_model as model

from uzswap.store.weigh import REFERENCED, estimate, examine


class Slot:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Plain:
    def __init__(self, *items: Any) -> None:
        for number, item in enumerate(items):
            setattr(self, f"item{number % 3}", item)


class Slotted:
    __slots__ = ("first", "second")

    def __init__(self, *items: Any) -> None:
        self.first = items[:1]
        self.second = items[1:] and items[1]


class Attributed(dict[Any, Any]):
    pass


def attributed(items: list[Any]) -> Attributed:
    made = Attributed(enumerate(items))
    made.more = items and items[0]  # type: ignore[attr-defined]
    return made


def of_objects(items: list[Any]) -> Any:
    made = np.empty(len(items), dtype=object)
    for number, item in enumerate(items):
        made[number] = item
    return made


def hashable(items: list[Any]) -> list[Any]:
    return [item for item in items if type(item) in (int, float, str, bytes, frozenset)]


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**70, max_value=2**3000)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(["é" * 30, "\u4e2d" * 5000, "x" * 5000, b"y" * 5000, int, len, np.sum, np.dtype("i4")])
    | st.binary(max_size=50)
    | st.builds(bytearray, st.binary(max_size=50))
    | st.builds(np.arange, st.integers(0, 1000))
    | st.builds(lambda n: np.arange(n)[1:], st.integers(2, 1000))
    | st.builds(lambda n: np.arange(n).astype("M8[s]"), st.integers(0, 20))
    | st.builds(lambda n: np.zeros(n, dtype="i4,f8"), st.integers(1, 20))
    | st.builds(lambda n: np.zeros(n, dtype="i4,f8")[0], st.integers(1, 20))
)
BRANCHES: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "list with room": lambda items: [*items, 0] and [item for item in items],  # noqa: C416
    "tuple": tuple,
    "dict by string": lambda items: {f"key {number}": item for number, item in enumerate(items)},
    "dict by number": lambda items: {number + 10**6: item for number, item in enumerate(items)},
    "dict of both": lambda items: {(f"{n}" if n % 2 else n): item for n, item in enumerate(items)},
    "set": lambda items: set(hashable(items)),
    "frozenset": lambda items: frozenset(hashable(items)),
    "OrderedDict": lambda items: collections.OrderedDict(enumerate(items)),
    "OrderedDict by string": lambda items: collections.OrderedDict((f"key {n}", item) for n, item in enumerate(items)),
    "defaultdict": lambda items: collections.defaultdict(list, enumerate(items)),
    "deque": collections.deque,
    "dict with attributes": attributed,
    "object": lambda items: Plain(*items),
    "object whose __dict__ was looked at": lambda items: (made := Plain(*items), vars(made))[0],
    "object with slots": lambda items: Slotted(*items),
    "array of objects": of_objects,
    "view of objects": lambda items: of_objects([*items, None])[:-1],
    "cycle": lambda items: (made := [*items], made.append(made))[0],
    "weak reference": lambda items: (made := Plain(*items), weakref.ref(made)),
    "bound method": lambda items: [*items].append,
}

#: The leaves; then each branch refers to some of what was made before it, maybe several times.  Then the value, by its
#: number from the end, and what is held from outside.
RECIPES = st.tuples(
    st.lists(LEAVES, max_size=8),
    st.lists(st.tuples(st.sampled_from(sorted(BRANCHES)), st.lists(st.integers(0, 100), max_size=8)), max_size=12),
    st.sets(st.integers(0, 100), max_size=2),
)


def build(recipe: tuple[Any, ...]) -> tuple[Slot, list[Any]]:
    leaves, branches, held = recipe
    made: list[Any] = list(leaves)
    for kind, inside in branches:
        made.append(BRANCHES[kind]([made[number % len(made)] for number in inside] if made else []))
    outside = [made[number % len(made)] for number in held] if made else []
    return Slot(made.pop() if made else None), outside


@settings(deadline=None, max_examples=400)
@given(RECIPES)
def test_weights_and_obstacles_are_those_of_the_plain_walk(recipe: tuple[Any, ...]) -> None:
    slot, outside = build(recipe)
    # A cycle that nobody holds any more is an outside reference to what it refers to, until it is collected.
    gc.disable()
    try:
        # In this order, because looking thoroughly may make a __dict__.
        assert estimate([slot.value]) == model.estimate([slot.value])
        expected = model.examine([slot.value])
        found = examine([slot.value])
        assert (found.nbytes, found.obstacle) == (expected.nbytes, expected.obstacle)
        assert (found.held is None) == (expected.held is None)
        assert examine([slot.value]) == found
        del found, expected, outside
        assert examine([slot.value])[:2] == model.examine([slot.value])[:2]
    finally:
        gc.enable()


def nested(depth: int) -> Any:
    value: Any = 1.5
    for level in range(depth):
        value = [value] if level % 3 else {"a": value} if level % 2 else (value, level)
    return value


def test_depth_is_no_matter() -> None:
    slot = Slot(nested(300_000))
    assert examine([slot.value]).obstacle is None
    assert estimate([slot.value]) > 300_000 * 50
    held = slot.value
    for _ in range(1000):
        held = held["a"] if isinstance(held, dict) else held[0]
    if not isinstance(held, tuple):
        assert examine([slot.value]).held is held


@pytest.mark.parametrize("make", [list, tuple, lambda items: dict(enumerate(items))], ids=["list", "tuple", "dict"])
def test_long_containers_are_seen_to_the_end(make: Callable[[Any], Any]) -> None:
    """They are looked at in slices."""
    for length in (4095, 4096, 4097, 20_000):
        slot = Slot(make([[float(number)] for number in range(length)]))
        assert examine([slot.value]) == model.examine([slot.value])
        last = slot.value[length - 1]
        assert examine([slot.value]).held is last
        del last


def test_nothing_leaks() -> None:
    slot = Slot(
        [
            [Plain([number], {"a": (number, [])}), Slotted([1], [2]), of_objects([[number]]), {(number, "x"): [number]}]
            for number in range(200)
        ]
    )
    shared = (1, ("x" * 100, frozenset({5})))
    slot.value.append([shared, shared, "a name", 5])
    ours = [slot.value, *slot.value, shared, Plain, Slotted, np.ndarray]
    before = list(map(sys.getrefcount, ours))
    for _ in range(3):
        estimate([slot.value])
        examine([slot.value])
    assert list(map(sys.getrefcount, ours)) == before
    tracemalloc.start()
    try:
        examine([slot.value])
        used, _ = tracemalloc.get_traced_memory()
        for _ in range(20):
            estimate([slot.value])
            examine([slot.value])
        assert tracemalloc.get_traced_memory()[0] < used + 5000
    finally:
        tracemalloc.stop()


def test_handlers_run_while_a_huge_value_is_weighed() -> None:
    """One that raises gets out of it, and nothing is left counted."""
    slot = Slot([[number] for number in range(1_000_000)])
    first = slot.value[0]
    counts = sys.getrefcount(slot.value), sys.getrefcount(first)

    class Enough(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Enough

    def is_torn() -> bool:
        """Whether the handler ran within the walk, and not before or after it."""
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            estimate([slot.value])
            signal.pause()
        except Enough as error:
            return any(frame.name.startswith("uzswap.store.") for frame in traceback.extract_tb(error.__traceback__))
        raise AssertionError("no signal")

    previous = signal.signal(signal.SIGALRM, stop)
    try:
        assert any(is_torn() for _ in range(100))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert (sys.getrefcount(slot.value), sys.getrefcount(first)) == counts
    del first
    assert examine([slot.value]).obstacle is None


def test_what_foreign_code_drops_meanwhile_is_not_touched() -> None:
    """A ``__sizeof__`` may change the very value that is weighed."""

    class Emptying:
        def __init__(self, victims: list[Any]) -> None:
            self.victims = victims

        def __sizeof__(self) -> int:
            for victim in self.victims:
                victim.clear()
            return 100

    for kind in (list, lambda items: dict(enumerate(items))):
        rows: list[Any] = [[[float(number)] for number in range(10_000)] for _ in range(3)]
        value = kind(rows)
        actor = Emptying([*rows, value])
        if isinstance(value, list):
            value += [actor, *range(10_000)]
        else:
            value.update({f"{n}": [n] for n in range(10_000)}, actor=actor)
        slot = Slot(value)
        del value, actor, rows
        estimate([slot.value])
        assert not slot.value
        assert examine([slot.value]).obstacle in (None, REFERENCED)
