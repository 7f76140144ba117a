"""Weights and outside references, by what really is allocated and really is held."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import enum
import gc
import io
import logging
import mmap
import sys
import tracemalloc
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from uzswap.store.kinds import opaque, sealed
from uzswap.store.store import Store
from uzswap.store.weigh import REFERENCED, UNPICKLABLE, estimate, examine

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

#: Whether examine() has to ask objects for their __dict__, which makes it where it was not needed yet.
LOOKING_MAKES_DICTS = sys.version_info >= (3, 13)


class Slot:
    """Holds a value as the store does."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Plain:
    def __init__(self, number: int) -> None:
        self.text = f"text {number}"
        self.items = [float(number)]
        self.number = number + 1000


class Slotted:
    __slots__ = ("number", "text")

    def __init__(self, number: int) -> None:
        self.text = f"text {number}"
        self.number = number + 1000


class SlottedChild(Slotted):
    __slots__ = ("more", "unset")

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.more = [float(number)]


class Node:
    def __init__(self, parent: Node | None = None) -> None:
        self.parent = parent
        self.children = [Node(self) for _ in range(3)] if parent is None else []


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    y: list[int]


class Named(collections.namedtuple("Named", "a b")):
    __slots__ = ()


class DictWithAttributes(dict[str, Any]):
    pass


class Colour(enum.Enum):
    RED = "red"


def obstacle_of(slot: Slot) -> str | None:
    weight = examine([slot.value])
    assert weight.obstacle is None or weight.nbytes == 0
    return weight.obstacle


def obstacle(make: Callable[[], Any]) -> str | None:
    return obstacle_of(Slot(make()))


def thinned_out(many: dict[int, Any]) -> dict[int, Any]:
    for key in range(100, len(many)):
        del many[key]
    return many


def masked() -> Any:
    return np.ma.MaskedArray(np.arange(100), mask=np.zeros(100, bool))


def cycle() -> list[Any]:
    one: list[Any] = [[]]
    one[0].append(one)
    return one


def weak_inside() -> list[Any]:
    """As a tree whose nodes know their parents only weakly."""
    one = Plain(1)
    return [one, {"parent": weakref.ref(one)}]


def twice_inside() -> list[Any]:
    inner = [1.5]
    return [inner, {"inner": inner}, inner]


VALUES: dict[str, Callable[[], Any]] = {
    "bytes": lambda: bytes(50_000),
    "bytearray": lambda: bytearray(50_000),
    "str": lambda: "x" * 50_000 + str(len("y")),
    "array.array": lambda: array.array("d", range(10_000)),
    "floats": lambda: [float(i) for i in range(5000)],
    "integers": lambda: list(range(10**6, 10**6 + 5000)),
    "tuples": lambda: [(float(i), str(i + 10**6)) for i in range(2000)],
    "set": lambda: {f"element {i}" for i in range(2000)},
    "frozenset": lambda: frozenset(f"element {i}" for i in range(2000)),
    "dict with string keys": lambda: {f"key {i}": float(i) for i in range(2000)},
    "dict with other keys": lambda: {i + 10**6: f"value {i}" for i in range(2000)},
    "dict with mixed keys": lambda: {(f"key {i}" if i % 2 else i + 10**6): float(i) for i in range(2000)},
    "dict of dicts": lambda: {f"key {i}": {i + 10**6: {"x": float(i)}} for i in range(300)},
    "dict after deletions": lambda: thinned_out({i: [float(i)] for i in range(1000)}),
    "OrderedDict": lambda: collections.OrderedDict((f"key {i}", float(i)) for i in range(2000)),
    "OrderedDict with tuple keys": lambda: collections.OrderedDict(((float(i),), i + 10**6) for i in range(500)),
    "defaultdict": lambda: collections.defaultdict(list, {f"key {i}": [float(i)] for i in range(500)}),
    "Counter": lambda: collections.Counter(f"key {i}" for i in range(2000)),
    "deque": lambda: collections.deque([float(i)] for i in range(1000)),
    "objects": lambda: [Plain(i) for i in range(1000)],
    "objects whose __dict__ was looked at": lambda: [vars(one) and one for one in map(Plain, range(1000))],
    "objects with slots": lambda: [Slotted(i) for i in range(1000)],
    "objects with inherited slots": lambda: [SlottedChild(i) for i in range(1000)],
    "frozen dataclasses": lambda: [Point(float(i), [i + 1000]) for i in range(500)],
    "named tuples": lambda: [Named(float(i), [i + 1000]) for i in range(1000)],
    "records": lambda: [{"name": f"name {i}", "age": i, "mail": None, "ok": True} for i in range(1000)],
    "array": lambda: np.arange(10_000),
    "many arrays": lambda: [np.arange(500) for _ in range(50)],
    "view of its own array": lambda: np.arange(10_000)[10:],
    "transposed": lambda: np.arange(10_000).reshape(100, 100).T,
    "backwards": lambda: np.arange(10_000)[::-3],
    "array on a bytearray": lambda: np.frombuffer(bytearray(50_000), dtype=np.uint8).reshape(100, 500),
    "array on bytes": lambda: np.frombuffer(bytes(50_000), dtype=np.uint8)[100:],
    "array of objects": lambda: np.array([[float(i)] for i in range(1000)] + [None], dtype=object)[:-1],
    "durations": lambda: [datetime.timedelta(i, i + 1) for i in range(2000)],
    "exception": lambda: ValueError("x" * 5000 + str(len("y")), [float(i) for i in range(500)]),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_weight_is_what_is_allocated(name: str) -> None:
    make = VALUES[name]
    make()  # caches and interned strings are made now
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        slot = Slot(make())
        gc.collect()
        allocated = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    weight = examine([slot.value])
    assert weight.obstacle is None
    # Alignment and the allocator's own are not counted; numbers below 1000 and names may be shared.
    assert weight.nbytes >= 0.8 * allocated - 500
    assert estimate([slot.value]) <= 1.1 * allocated + 500
    assert estimate([slot.value]) == weight.nbytes or LOOKING_MAKES_DICTS


@pytest.mark.parametrize(
    "make",
    [cycle, Node, twice_inside, weak_inside],
    ids=["list in itself", "tree with parents", "twice inside", "weakly inside"],
)
def test_references_inside_the_value_are_not_outside(make: Callable[[], Any]) -> None:
    slot = Slot(make())
    weight = examine([slot.value])
    assert weight.obstacle is None
    assert weight.nbytes > sys.getsizeof(slot.value)


def test_nothing_is_left_behind_by_weighing() -> None:
    slot = Slot([Plain(1), {"a": np.arange(100)}, cycle()])
    first = examine([slot.value])
    assert first.obstacle is None
    assert [examine([slot.value]) for _ in range(3)] == [first] * 3
    assert estimate([slot.value]) == first.nbytes or LOOKING_MAKES_DICTS


def test_a_variable_that_holds_the_value_is_an_outside_reference() -> None:
    for make in VALUES.values():
        value = make()
        slot = Slot(value)
        assert obstacle_of(slot) == REFERENCED
        del value
        assert obstacle_of(slot) is None


INNER: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "list in a list": (lambda: [1, [2]], lambda v: v[1]),
    "list in a tuple": (lambda: (1, [2]), lambda v: v[1]),
    "list in a dict": (lambda: {"a": [2]}, lambda v: v["a"]),
    "list deep inside": (lambda: {"a": [({"b": [[2]]},)]}, lambda v: v["a"][0][0]["b"][0]),
    "set in a dict": (lambda: {"a": {2}}, lambda v: v["a"]),
    "list as default": (lambda: collections.defaultdict(list, a=[2]), lambda v: v["a"]),
    "value of an OrderedDict": (lambda: collections.OrderedDict(a=[2]), lambda v: v["a"]),
    "object as key": (lambda: {Plain(1): 1}, lambda v: next(iter(v))),
    "object as key of an OrderedDict": (lambda: collections.OrderedDict({Plain(1): 1}), lambda v: next(iter(v))),
    "attribute": (lambda: Plain(1), lambda v: v.items),
    "attribute in a slot": (lambda: SlottedChild(1), lambda v: v.more),
    "__dict__ of an object": (lambda: Plain(1), vars),
    "object": (lambda: [Plain(1)], lambda v: v[0]),
    "object with slots": (lambda: [Slotted(1)], lambda v: v[0]),
    "frozen dataclass": (lambda: [Point(1.0, [])], lambda v: v[0]),
    "attribute of a dict": (lambda: DictWithAttributes(a=1), vars),
    "object of a built-in method": (lambda: [[].append], lambda v: v[0].__self__),
    "bound method of an inner object": (lambda: [collections.deque([1])], lambda v: v[0].append),
    "iterator over an inner list": (lambda: [[1, 2]], lambda v: iter(v[0])),
    "closure over an inner list": (lambda: [[1, 2]], lambda v: (lambda inner: lambda: inner)(v[0])),
    "memoryview of a bytearray": (lambda: [bytearray(100)], lambda v: memoryview(v[0])[5:10]),
    "memoryview of the whole": (lambda: bytearray(100), memoryview),
    "view of an array": (lambda: np.arange(100), lambda v: v[10:]),
    "view of a view": (lambda: np.arange(100)[5:], lambda v: v[10:]),
    "view of the array beneath a view": (lambda: [np.arange(100)[5:]], lambda v: v[0].base),
    "memoryview of a BytesIO": (lambda: io.BytesIO(bytes(100)), lambda v: v.getbuffer()),
    "memoryview of an array": (lambda: [np.arange(100)], lambda v: memoryview(v[0])),
    "buffer beneath an array": (lambda: np.frombuffer(bytearray(100), dtype="u1"), lambda v: v.base),
    "element of an array of objects": (lambda: np.array([[1], None], dtype=object), lambda v: v[0]),
    "element of a record": (lambda: np.array([(1, [2])], dtype="i4,O"), lambda v: v["f1"][0]),
    "structured scalar": (lambda: np.zeros(3, dtype="i4,f8"), lambda v: v[1]),
    "field of a structured array": (lambda: np.zeros(3, dtype="i4,f8"), lambda v: v["f1"]),
    "data of a masked array": (masked, lambda v: v.data),
    "mask of a masked array": (masked, lambda v: v.mask),
    "weak reference": (lambda: [Plain(1)], lambda v: weakref.ref(v[0])),
    "weak reference to an array": (lambda: [np.arange(10)], lambda v: weakref.ref(v[0])),
    "weak reference to a set": (lambda: [{1}], lambda v: weakref.ref(v[0])),
    "weak reference inside": (weak_inside, lambda v: v[1]["parent"]),
    "weak reference besides one inside": (weak_inside, lambda v: weakref.ref(v[0], lambda _: None)),
    "weak proxy": (lambda: Plain(1), weakref.proxy),
}  # fmt: skip


@pytest.mark.parametrize("name", INNER)
def test_what_can_change_and_is_held_from_outside_keeps_the_value(name: str) -> None:
    make, take = INNER[name]
    slot = Slot(make())
    assert obstacle_of(slot) is None
    held = take(slot.value)
    assert obstacle_of(slot) == REFERENCED
    del held
    gc.collect()
    assert obstacle_of(slot) is None


def test_the_held_object_is_named() -> None:
    slot = Slot({"a": [[1], [2]]})
    held = slot.value["a"][1]
    assert examine([slot.value]).held is held
    del held
    whole = slot.value
    assert examine([slot.value]).held is whole
    del whole
    text = Slot("".join(["x"] * 100))
    held = text.value
    assert examine([text.value]).held is held


def test_a_list_reachable_through_a_shared_tuple_keeps_the_value() -> None:
    shared = (1, ([2], 3))
    slot = Slot({"a": shared})
    assert obstacle_of(slot) == REFERENCED
    del shared
    assert obstacle_of(slot) is None


def test_another_value_of_the_store_is_outside_too() -> None:
    one = Slot([[1, 2]])
    other = Slot([one.value[0]])
    assert obstacle_of(one) == obstacle_of(other) == REFERENCED


SHARED = {
    "str": "a name that is nobody's own",
    "big integer": 10**30,
    "bytes": b"0123456789" * 5,
    "tuple": (1.5, ("nested", frozenset({"x"}))),
    "named tuple": Named(1.5, "b"),
    "date": datetime.date(2026, 1, 1),
    "uuid": uuid.UUID(int=5),
    "path": Path("/tmp/somewhere"),
    "numpy scalar": np.float64(1.5),
    "dtype": np.dtype("i4,f8"),
    "class": Plain,
    "function": test_weight_is_what_is_allocated,
    "built-in": len,
    "built-in class method": dict.fromkeys,
    "module": np,
    "enum member": Colour.RED,
    "logger": logging.getLogger("uzswap.test"),
    "None": None,
}


@pytest.mark.parametrize("name", SHARED)
def test_what_cannot_change_may_be_shared_and_weighs_nothing(name: str) -> None:
    shared = SHARED[name]
    without = Slot([float(1), None])
    slot = Slot([float(1), shared])
    assert examine([slot.value]) == examine([without.value])


def test_large_shared_data_is_not_counted() -> None:
    data = bytes(1_000_000)
    slot = Slot([bytearray(3_000_000), data])
    weight = examine([slot.value])
    assert weight.obstacle is None
    assert 3_000_000 <= weight.nbytes < 3_001_000
    assert estimate([slot.value]) > 4_000_000


def test_a_value_that_is_mostly_shared_data_stays() -> None:
    data = bytes(1_000_000)
    slot = Slot([bytearray(3000), data])
    assert obstacle_of(slot) == REFERENCED
    del data
    assert examine([slot.value]).nbytes > 1_000_000
    inside_a_tuple = (bytes(1_000_000), 5)
    slot = Slot([bytearray(3000), inside_a_tuple])
    assert obstacle_of(slot) == REFERENCED


def aliases_own_memory() -> dict[str, Any]:
    base = np.arange(100)
    return {"base": base, "view": base[5:]}


def two_views() -> list[Any]:
    base = np.arange(100)
    return [base[:50], base[40:]]


def two_arrays_on_a_buffer() -> list[Any]:
    memory = bytearray(100)
    return [np.frombuffer(memory, dtype="u1"), np.frombuffer(memory, dtype="u1")]


def anonymous_map() -> Any:
    return np.frombuffer(mmap.mmap(-1, 4096), dtype="u1")


@pytest.mark.parametrize(
    "make",
    [
        aliases_own_memory,
        two_views,
        two_arrays_on_a_buffer,
        anonymous_map,
        lambda: np.lib.stride_tricks.sliding_window_view(np.arange(100), 5),
        lambda: np.broadcast_to(np.arange(1000), (10_000_000, 1000)),
    ],
    ids=["array and view", "two views", "two arrays, one buffer", "mmap", "sliding windows", "broadcast"],
)
def test_memory_that_is_seen_twice_keeps_the_value(make: Callable[[], Any]) -> None:
    assert obstacle(make) == REFERENCED
    assert estimate([make()]) < 100_000


def test_two_arrays_on_the_same_constant_bytes_may_go() -> None:
    def make() -> list[Any]:
        memory = bytes(100_000)
        return [np.frombuffer(memory, dtype="u1"), np.frombuffer(memory, dtype="u2")]

    slot = Slot(make())
    weight = examine([slot.value])
    assert weight.obstacle is None
    assert 100_000 <= weight.nbytes < 102_000


def with_traceback() -> Exception:
    try:
        raise ValueError("x")
    except ValueError as error:
        return error


class Finalized:
    def __del__(self) -> None:
        pass


@opaque
class Opaque:
    def __init__(self) -> None:
        self.everything = list(range(100_000))


class OpaqueChild(Opaque):
    pass


@pytest.mark.parametrize(
    "make",
    [with_traceback, Finalized, lambda: (i for i in [1]), lambda: [Opaque()], OpaqueChild],
    ids=["traceback", "finalizer", "generator", "opaque", "opaque by inheritance"],
)
def test_what_pickle_could_not_bring_back_keeps_the_value(make: Callable[[], Any]) -> None:
    slot = Slot([make()])
    assert obstacle_of(slot) == UNPICKLABLE
    assert estimate([slot.value]) < 2000


def test_the_callers_list_is_emptied() -> None:
    once = [[1, 2]]
    estimate(once)
    assert once == []


def test_estimate_counts_the_value_itself_though_its_maker_holds_it() -> None:
    text = "".join(["x"] * 1000)
    assert estimate([text]) == sys.getsizeof(text)
    items = [text, [1.5]]
    assert estimate([items]) == sys.getsizeof(items) + sys.getsizeof(items[1])  # text is taken for a literal
    large = ["".join(["x"] * 10_000)]
    assert estimate([large]) > 10_000


def test_estimate_leaves_literals_out() -> None:
    key = "a literal key"
    assert estimate([{key: 5, "b": None}]) == sys.getsizeof({key: 5, "b": None})


def test_a_sizeof_that_fails_does_no_harm() -> None:
    class Broken:
        def __sizeof__(self) -> int:
            raise RuntimeError("no")

    assert obstacle(lambda: [Broken()]) is None


def test_classes_are_not_kept_alive() -> None:
    class Local:
        pass

    assert obstacle(Local) is None
    gone = weakref.ref(Local)
    del Local
    gc.collect()
    assert gone() is None


@sealed
class Sealed:
    def __init__(self, inner: object) -> None:
        self.inner = inner


def test_what_is_sealed_is_not_followed(engine: EngineFactory) -> None:
    """Somebody holds what is in it, and it goes all the same; what comes back is a copy."""
    held = [1, 2, 3]
    group = engine().cgroup("/a")
    with Store(group, shared="copy", sizeof=lambda value: 4096) as store:
        store["x"] = Sealed(held)
        assert store.evict("x") == 4096
        assert store["x"].inner == held
        assert store["x"].inner is not held
