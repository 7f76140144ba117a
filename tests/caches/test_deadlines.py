"""The heap of deadlines does what a sorted list does."""

from __future__ import annotations

import math

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from uzswap.caches.deadlines import Deadlines

KEYS = st.integers(0, 30)


class DeadlinesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.deadlines: Deadlines[int] = Deadlines()
        self.model: dict[int, float] = {}

    @rule(key=KEYS, at=st.one_of(st.integers(0, 20).map(float), st.just(math.inf)))
    def set(self, key: int, at: float) -> None:
        self.deadlines.set(key, at)
        self.model[key] = at
        if at == math.inf:
            del self.model[key]

    @rule(key=KEYS)
    def remove(self, key: int) -> None:
        self.deadlines.remove(key)
        self.model.pop(key, None)

    @rule()
    def take_the_first(self) -> None:
        first = self.deadlines.first()
        if first is not None:
            self.deadlines.remove(first[0])
            del self.model[first[0]]

    @invariant()
    def agrees(self) -> None:
        assert self.deadlines.check() == []
        assert len(self.deadlines) == len(self.model)
        assert all(self.deadlines.get(key) == self.model.get(key, math.inf) for key in range(31))
        first = self.deadlines.first()
        if first is None:
            assert not self.model
        else:
            assert first[1] == self.model[first[0]] == min(self.model.values())


TestDeadlinesAgainstDict = DeadlinesMachine.TestCase
