"""What others hold comes back as the very same object, and views of one memory as views of one memory."""

from __future__ import annotations

import collections
import functools
import gc
import io
import pickle
import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from tests.store.test_survey import RECIPES, Plain, Slot, Slotted, build

from uzswap.store.sharing import Held, dump, load
from uzswap.store.weigh import REFERENCED, UNPICKLABLE, Shared, estimate, examine


def roundtrip(slot: Slot, shared: Shared = "refer") -> None:
    """Evict the value and bring it back, as a store does; Held, or AssertionError with the obstacle."""
    weight = examine([slot.value], shared)
    assert weight.obstacle is None, weight.obstacle
    file = io.BytesIO()
    buffers: list[Any] = []
    if weight.held is None:
        pickle.Pickler(file, 5, buffer_callback=buffers.append).dump(slot.value)
        kept: tuple[Any, ...] = ()
    else:
        kept = dump(slot.value, file, weight.held, buffers.append)
    slot.value = None
    del weight
    copies = [bytearray(buffer.raw()) for buffer in buffers]
    del buffers
    file.seek(0)
    slot.value = load(file, kept, copies) if kept else pickle.load(file, buffers=copies)


def config() -> tuple[Any, Any]:
    settings = {"retries": 3, "hosts": ["a", "b"]}
    return {"config": settings, "rows": [[float(i)] for i in range(100)]}, settings


def test_a_shared_dict_comes_back_as_it_is_and_not_as_a_copy() -> None:
    value, settings = config()
    slot = Slot(value)
    del value
    assert examine([slot.value]).obstacle == examine([slot.value], "pin").obstacle == REFERENCED
    without = Slot({"config": None, "rows": [[float(i)] for i in range(100)]})
    assert examine([slot.value], "refer").nbytes == examine([without.value]).nbytes
    roundtrip(slot)
    assert slot.value["config"] is settings
    settings["hosts"].append("c")
    assert slot.value["config"]["hosts"] == ["a", "b", "c"]
    roundtrip(slot)
    assert slot.value["config"] is settings
    # When nobody else holds it any more it goes with the rest.
    del settings
    assert examine([slot.value], "refer") == examine([slot.value])
    roundtrip(slot)
    assert slot.value["config"] == {"retries": 3, "hosts": ["a", "b", "c"]}


def test_what_a_thread_is_about_to_change_is_changed() -> None:
    slot = Slot({"items": [1, 2], "rest": list(range(10**6, 10**6 + 1000))})
    items = slot.value["items"]
    roundtrip(slot)
    items.append(3)
    assert slot.value["items"] == [1, 2, 3]


def test_a_copy_is_a_copy() -> None:
    value, settings = config()
    slot = Slot(value)
    roundtrip(slot, "copy")
    assert slot.value == value
    assert slot.value is not value
    assert slot.value["config"] is not settings
    settings["hosts"].append("c")
    assert slot.value["config"]["hosts"] == ["a", "b"]
    # What it weighs is what comes back.
    assert examine([slot.value], "copy").nbytes == examine([slot.value]).nbytes == estimate([slot.value])


def test_the_value_itself_stays_as_long_as_somebody_holds_it() -> None:
    slot = Slot([[1], [2]])
    held = slot.value
    assert examine([slot.value], "refer") == (0, REFERENCED, held)
    assert examine([slot.value], "pin") == (0, REFERENCED, held)
    assert examine([slot.value], "copy").obstacle is None


def test_a_part_that_leads_back_to_the_value_keeps_it() -> None:
    value = [[1.5] * 1000, [2]]
    value[1].append(value)
    slot = Slot(value)
    held = value[1]
    del value
    assert examine([slot.value], "refer").obstacle == REFERENCED
    held.clear()
    assert examine([slot.value], "refer").obstacle is None


def test_what_is_large_and_shared_is_named_so_that_it_is_charged() -> None:
    for size, charged in ((100, False), (1000, True)):
        part = list(range(10**6, 10**6 + size))
        slot = Slot([part, [1.5]])
        apart = examine([slot.value], "refer").held
        assert (apart.closure is not None) == charged
        if charged:
            first, kept, blocks = apart.closure
            assert first == id(part)
            assert (id(part), sys.getsizeof(part)) in blocks
            assert kept >= sum(nbytes for _, nbytes in blocks)
        roundtrip(slot)
        assert slot.value[0] is part
        # Beside a value that is eight times as large it is little.
        slot = Slot([part, bytearray(400_000)])
        assert examine([slot.value], "refer").held.closure is None
        roundtrip(slot)
        assert slot.value[0] is part


def test_what_leads_to_too_much_keeps_the_value() -> None:
    part = [bytearray(65 << 20)]
    slot = Slot([part, [1.5]])
    assert examine([slot.value], "refer").obstacle == REFERENCED


PARTS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "list": lambda: (part := [1], [part, part]),
    "list in a tuple": lambda: (part := [1], ((0, part), 2)),
    "list in a shared tuple": lambda: (part := ([1], 2), [part]),
    "set": lambda: (part := {1}, {"a": part}),
    "object": lambda: (part := Plain(1), [part]),
    "attribute of an object": lambda: (part := [1], Plain(part)),
    "attribute in a slot": lambda: (part := [1], Slotted(part)),
    "value of an OrderedDict": lambda: (part := [1], collections.OrderedDict(a=part)),
    "value of a defaultdict": lambda: (part := [1], collections.defaultdict(list, a=part)),
    "key": lambda: (part := Plain(1), {part: 5}),
    "element of a deque": lambda: (part := [1], collections.deque([part])),
    "element of an array": lambda: (part := [1], [np.array([part, None], dtype=object)]),
    "array": lambda: (part := np.arange(10), [part]),
    "view of an array": lambda: (part := np.arange(10), [part[1:]]),
    "array on somebody's buffer": lambda: (part := bytearray(100), [np.frombuffer(part, dtype="u1")]),
    "partial": lambda: (part := functools.partial(int, base=5), [part]),
    "namespace": lambda: (part := types.SimpleNamespace(a=[1]), [part]),
    "lock": lambda: (part := threading.Lock(), [part]),
    "object that is known weakly": lambda: (part := Plain(1), [part]),
    "generator in an object": lambda: (part := Plain(i for i in [1]), [part]),
}


@pytest.mark.parametrize("name", PARTS)
def test_shared_parts_come_back_the_same(name: str) -> None:
    part, value = PARTS[name]()
    slot = Slot([value, bytearray(5000)])
    del value
    roundtrip(slot)
    inside = {id(one) for one in reachable(slot.value)}
    if "view" in name or "buffer" in name:
        part[5] = 77
        assert slot.value[0][0][4 if "view" in name else 5] == 77
    elif "shared tuple" in name:
        assert id(part[0]) in inside
    else:
        assert id(part) in inside


def reachable(value: Any) -> list[Any]:
    found = {id(value): value}
    todo = [value]
    while todo:
        for one in gc.get_referents(todo.pop()):
            if id(one) not in found and not isinstance(one, (type, types.ModuleType, types.FunctionType)):
                found[id(one)] = one
                todo.append(one)
        if len(found) > 10_000:
            raise AssertionError("too much")
    for one in list(found.values()):
        if isinstance(one, np.ndarray) and one.dtype.hasobject:
            found.update((id(element), element) for element in one.ravel().tolist())
    return list(found.values())


def test_a_weak_reference_from_outside_stays_good() -> None:
    slot = Slot([Plain(1), bytearray(5000)])
    known = weakref.ref(slot.value[0])
    assert examine([slot.value]).obstacle == REFERENCED
    roundtrip(slot)
    assert slot.value[0] is known()


class Copying:
    """Pickles what it refers to in a way of its own."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __reduce__(self) -> Any:
        return Copying, (list(self.items),)


def test_a_class_that_copies_what_is_shared_keeps_the_value() -> None:
    items = [1]
    slot = Slot([Copying(items), items, bytearray(5000)])
    with pytest.raises(Held, match="a list"):
        roundtrip(slot)
    assert slot.value[1] is items


def test_a_shared_dict_of_attributes_keeps_the_value() -> None:
    slot = Slot([Plain(1), bytearray(5000)])
    attributes = vars(slot.value[0])
    with pytest.raises(Held, match="__dict__"):
        roundtrip(slot)
    del attributes
    roundtrip(slot)


def test_what_is_stuck_and_not_shared_keeps_the_value() -> None:
    shared = Plain(i for i in [1])
    slot = Slot([shared, (i for i in [1]), bytearray(5000)])
    assert examine([slot.value], "refer").obstacle == UNPICKLABLE


def picture(value: Any, ours: set[int]) -> list[Any]:
    """A value as a list that is equal for two of the same shape; what is not ours is told by its identity."""
    numbers: dict[int, int] = {}
    drawn: list[Any] = []
    todo = [value]
    while todo:
        one = todo.pop()
        kind = type(one)
        if kind in (tuple, frozenset):
            inside = list(one) if kind is tuple else sorted(one, key=repr)
            drawn.append((kind, len(inside)))
        elif kind is np.void or not (gc.is_tracked(one) or kind is np.ndarray or kind in (dict, list, bytearray)):
            drawn.append((kind, repr(one)))
            continue
        elif id(one) not in ours:
            drawn.append(("theirs", id(one)))
            continue
        elif id(one) in numbers:
            drawn.append(("again", numbers[id(one)]))
            continue
        else:
            numbers[id(one)] = len(numbers)
            inside = []
            if isinstance(one, dict):
                inside = [*one.keys(), *one.values()]
            elif isinstance(one, (list, collections.deque)):
                inside = list(one)
            elif isinstance(one, set):
                inside = sorted(one, key=repr)
            elif isinstance(one, Slotted):
                inside = [one.first, one.second]
            elif kind is np.ndarray:
                inside = one.tolist() if one.dtype == object else [repr(one)]
            elif kind is bytearray:
                inside = [bytes(one)]
            elif callable(one) and hasattr(one, "__self__"):
                inside = [one.__self__]
            if hasattr(one, "__dict__"):
                inside += [value for _, value in sorted(vars(one).items())]
            drawn.append((kind, len(inside)))
        todo += inside
    return drawn


@settings(deadline=None, max_examples=300)
@given(RECIPES)
def test_values_come_back_in_the_same_shape(recipe: tuple[Any, ...]) -> None:
    slot, outside = build(recipe)
    slot.value = [slot.value, bytearray(50_000)]
    del recipe
    gc.disable()
    try:
        weight = examine([slot.value], "refer")
        theirs = {id(one) for held in outside for one in (held, *gc.get_referents(held))}
        if weight.obstacle is not None:
            return
        theirs |= set(weight.held.parts) if weight.held is not None else set()
        before = picture(slot.value, Everything() - theirs)
        del weight
        try:
            roundtrip(slot)
        except (Held, TypeError, pickle.PicklingError):  # a weak reference can't be pickled
            return
        assert picture(slot.value, Everything() - theirs) == before
    finally:
        gc.enable()


class Everything(set[int]):
    """All numbers but some."""

    def __sub__(self, other: Any) -> Any:
        self.without = other
        return self

    def __contains__(self, number: object) -> bool:
        return number not in self.without


def rows() -> list[Any]:
    base = np.arange(10_000.0).reshape(100, 100)
    return list(base)


def base_and_views() -> list[Any]:
    base = np.asfortranarray(np.arange(10_000.0).reshape(100, 100))
    return [base, base.T, base[::-2, 3:50:7], base[5, 5:6]]


def on_a_bytearray() -> list[Any]:
    memory = bytearray(50_000)
    return [np.frombuffer(memory, dtype="u1"), np.frombuffer(memory, dtype="<i4", count=100, offset=40), memory]


def of_dates() -> list[Any]:
    dates = np.arange(10_000).astype("M8[s]")
    dates.flags.writeable = False
    return [dates[:5000], dates[2500:]]


SEEN_TWICE: dict[str, Callable[[], list[Any]]] = {
    "rows": rows,
    "base and views": base_and_views,
    "small": lambda: (base := np.arange(100)) is not None and [base[:50], base[40:]],
    "on a bytearray": on_a_bytearray,
    "dates": of_dates,
    "pieces": lambda: np.array_split(np.arange(30_000, dtype="i2"), 7),
    "records": lambda: (base := np.zeros(5000, dtype="i4,f8")) is not None and [base["f0"], base["f1"]],
}


@pytest.mark.parametrize("name", SEEN_TWICE)
def test_arrays_that_share_memory_come_back_sharing_it(name: str) -> None:
    slot = Slot(SEEN_TWICE[name]())
    expected = pickle.loads(pickle.dumps(slot.value))
    flags = [one.flags.writeable for one in slot.value if isinstance(one, np.ndarray)]
    assert examine([slot.value]).obstacle == REFERENCED
    before = examine([slot.value], "refer")
    assert before.obstacle is None
    for shared in ("refer", "pin", "copy"):
        roundtrip(slot, shared)
        assert all(map(np.array_equal, slot.value, expected))
        assert [one.flags.writeable for one in slot.value if isinstance(one, np.ndarray)] == flags
        # The memory once: some objects may be others, but no array was doubled.
        assert abs(examine([slot.value], "refer").nbytes - before.nbytes) < 200 * len(slot.value) + 500
    if name == "base and views":
        slot.value[0][5, 5] = -1
        assert slot.value[3][0] == slot.value[1][5, 5] == -1


def test_a_view_that_is_alone_leaves_the_rest_behind() -> None:
    slot = Slot(np.arange(10_000)[:100])
    roundtrip(slot)
    assert examine([slot.value]).nbytes < 2000


def test_views_of_what_others_hold_are_referred_to_and_its_memory_is_named() -> None:
    base = np.arange(100_000)
    slot = Slot([base[:100], base[50:]])
    apart = examine([slot.value], "refer").held
    assert (base.__array_interface__["data"][0], base.nbytes) in apart.closure[2]
    roundtrip(slot)
    base[55] = 77
    assert slot.value[0][55] == slot.value[1][5] == 77
    del base, apart
    roundtrip(slot)
    slot.value[0][60] = -1
    assert slot.value[1][10] == -1


def test_importable_things_pin_nothing() -> None:
    for thing in (len, np.sum, np.add, np.dtype("i4,f8"), Plain, functools.lru_cache(Plain), examine, np, str.join):
        slot = Slot([thing, [1.5]])
        assert examine([slot.value]).obstacle is None, thing
