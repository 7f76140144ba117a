"""Views of one array as values of their own: which may go each with its own elements."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.soak import longer

from uzswap.store import families
from uzswap.store.families import are_disjoint, owned_alone
from uzswap.store.survey import shape_of
from uzswap.store.weigh import pieces

SIZE = 48


@st.composite
def views(draw: st.DrawFn) -> tuple[Any, ...]:
    rows = draw(st.sampled_from((1, 4, 6, 8)))
    cut = st.slices(SIZE // rows)
    return rows, draw(st.slices(rows)), draw(cut), draw(st.booleans())


def cut_out(memory: Any, recipe: tuple[Any, ...]) -> Any:
    rows, some, others, turned = recipe
    view = memory.reshape(rows, -1)[some, others]
    return view.T if turned else view


@settings(max_examples=longer(100, 2000), deadline=None)
@given(st.lists(st.lists(views(), min_size=1, max_size=3), min_size=1, max_size=4), st.booleans())
def test_disjoint_is_what_no_element_of_is_seen_by_two(values: list[list[tuple[Any, ...]]], few: bool) -> None:
    """Held against marks in the memory itself."""
    memory = np.zeros(SIZE, np.int64)
    seen = []
    for recipes in values:
        marks = np.zeros(SIZE, bool)
        for recipe in recipes:
            cut_out(marks, recipe)[...] = True
        seen.append(marks)
    expected = bool((np.sum(seen, axis=0) <= 1).all())
    shapes = [[shape_of(cut_out(memory, recipe)) for recipe in recipes] for recipes in values]
    before = families._MOST_RUNS
    try:
        if few:
            families._MOST_RUNS = 0  # type: ignore[misc]
            # A rule of thumb: what it calls disjoint is.
            assert expected or not are_disjoint(shapes)
        else:
            assert are_disjoint(shapes) == expected
    finally:
        families._MOST_RUNS = before  # type: ignore[misc]


def test_columns_are_disjoint_however_many_elements_they_have() -> None:
    memory = np.zeros((100_000, 6))
    assert are_disjoint([[shape_of(memory[:, column])] for column in range(6)])
    assert not are_disjoint([[shape_of(memory[:, column : column + 2])] for column in range(5)])


def test_memory_is_the_familys_when_all_references_to_it_are() -> None:
    memory = np.arange(8192.0)
    values: list[Any] = [memory[:100], [memory[100:200], memory[150:250]], {"x": memory[500:]}]
    owner = id(memory)

    def own() -> list[frozenset[int]]:
        # Each has the one further reference that a store would have.
        return owned_alone([pieces([values[i]]) for i in range(len(values))])

    assert own() == [frozenset()] * 3  # the variable sees all of it
    del memory
    assert own() == [frozenset({owner})] * 3
    outside = values[1]
    assert own() == [frozenset()] * 3  # through its base, all of it can be reached
    del outside
    values[0] = values[0].base[:150]
    assert own() == [frozenset()] * 3  # two see the same elements
