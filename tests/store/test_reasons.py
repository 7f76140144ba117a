"""What keeps a value is named."""

from __future__ import annotations

import mmap
import tempfile
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from tests.store.test_survey import Plain, Slot
from tests.store.values import evict

from uzswap import Store
from uzswap.store import reasons
from uzswap.store.weigh import Shared

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

SETTINGS = {"retries": 3, "hosts": list(range(1000, 3000))}


def why(value: Any, shared: Shared | None = None) -> str:
    """Of a slot, or of a list of one that is emptied."""
    slot = value if isinstance(value, Slot) else Slot(value.pop())
    return reasons.why(lambda: slot.value, slot, shared)


def _mapped(nbytes: int) -> mmap.mmap:
    return mmap.mmap(-1, nbytes)


def _mapped_array(nbytes: int) -> np.ndarray:
    with tempfile.NamedTemporaryFile() as file:
        return np.memmap(file.name, np.uint8, "w+", shape=nbytes)


class App:
    def __init__(self) -> None:
        self.session = [1]


@pytest.mark.parametrize("shared", [None, "pin", "refer", "copy"])
def test_nothing_keeps_it(shared: Shared | None) -> None:
    assert why([{"a": [1.5]}], shared).startswith("nothing keeps it")


def test_who_holds_it() -> None:
    slot = Slot([[1.5], {"a": Plain([1])}])
    held = slot.value[1]["a"].item0
    assert why(slot) == ("a list in it, value[1]['a'].item0, is held by the variable held of test_who_holds_it()")
    del held
    app = App()
    slot.value[0] = app.session
    assert "value[0], is held by a tests.store.test_reasons.App, as .session" in why(slot)
    whole = slot.value
    assert "it is held by the variable whole of test_who_holds_it()" in why(slot, "pin")
    del whole


def test_a_module_and_a_dict_hold_it() -> None:
    slot = Slot({"config": SETTINGS})
    reason = why(slot, "pin")
    assert "value['config'], is held by the module" in reason
    assert "test_reasons, as SETTINGS" in reason
    assert why(slot, "refer").startswith("nothing keeps it")
    part = [bytearray(65 << 20)]
    large = Slot([part])
    reason = why(large, "refer")
    assert "can't be referred to" in reason
    others = {"x": slot.value["config"]["hosts"]}
    slot = Slot([others["x"]])
    assert "['x']" in why(slot)


def test_views() -> None:
    base = np.arange(1000)
    slot = Slot([base[5:]])
    assert "the variable base of test_views()" in why(slot)


@pytest.mark.parametrize("shared", ["pin", "refer"])
@pytest.mark.parametrize(
    ("memory", "owner"), [(bytearray, "bytearray"), (_mapped, "mmap.mmap"), (_mapped_array, "mmap.mmap")]
)
def test_views_of_memory_that_is_not_of_numpy(
    engine: EngineFactory, memory: Callable[[int], Any], owner: str, shared: Literal["pin", "refer"]
) -> None:
    with Store[int, Any](engine().cgroup("/a"), shared=shared) as store:
        block = np.frombuffer(memory(40_000), np.uint8)
        store[0], store[1] = block[:20_000], [block[20_000:]]
        del block
        evict(store)
        assert "resident" in (store.where(0), store.where(1))
        for key, path in ((0, ""), (1, ", value[0],")):
            if store.where(key) != "resident":
                continue  # it refers to what they share
            assert f"in it{path} has the memory of a {owner}, which others may see" in store.why(key)
            assert 'shared="copy"' in store.why(key)


def test_views_of_memory_with_objects(engine: EngineFactory) -> None:
    with Store[int, Any](engine().cgroup("/a")) as store:
        rows = np.array([[f"{i} {j}" for j in range(100)] for i in range(2)], dtype=object)
        store[0], store[1] = rows
        del rows
        evict(store)
        assert "has objects in memory that is seen by 1 other value of the store" in store.why(0)


def test_what_can_not_be_pickled() -> None:
    class Local:
        pass

    assert "can't be pickled: value[1]['x'], a generator, would not come back" in why([[1, {"x": (i for i in [1])}]])
    assert "Local" in why([[Local()]])

    class Finalized:
        def __del__(self) -> None:
            pass

    assert "has a finalizer" in why([[Finalized()]])


def test_variables_are_let_go_of() -> None:
    slot = Slot([Plain(1)])
    held = slot.value[0]
    known = weakref.ref(held)
    assert "held" in why(slot)
    del held
    slot.value.clear()
    assert known() is None


def test_nothing_is_changed_or_left_behind() -> None:
    slot: Any = Slot({"config": SETTINGS, "own": [1]})
    for _ in range(3):
        before = why(slot, "pin")
    assert why(slot, "pin") == before
    del slot.value["config"]
    assert why(slot, "pin").startswith("nothing")
