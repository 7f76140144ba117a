"""The weighing of values in plain Python, for the compiled walk to be held against.

Slower, and with no C to get wrong; see :mod:`uzswap.store.weigh` for what is meant.  How many
references the counting itself adds is not assumed but measured when the module is loaded.
"""

from __future__ import annotations

import gc
import operator
import sys
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import chain, compress
from typing import Any, Final

import numpy as np

from uzswap.store.kinds import MEMORY, Kind, Traits, traits_of
from uzswap.store.measures import size_of
from uzswap.store.weigh import REFERENCED, UNPICKLABLE, Weight

__all__ = ["estimate", "examine"]

# A shared string, number or tuple of fewer bytes is taken for a literal, an interned name or a cached number, which
# weighs nothing; from one page on it is taken for data.
_DATA_BYTES: Final = 4096

# From so many objects on it pays to handle them by type, in loops that run in C (3.11, measured).
_MANY: Final = 32


def estimate(once: list[Any]) -> int:
    """Return the bytes that a value occupies while its maker still holds it.

    Outside references don't tell yet what is shared, so everything counts but small shared strings, numbers and
    tuples within the value, which are taken for literals.

    Parameters
    ----------
    once
        A list of one, the value.  It is emptied.
    """
    cls = type(once[0])
    if traits_of(cls).kind is Kind.ATOM:
        return _sizes(cls, once)
    survey = _Survey(once, thorough=False)
    shared = survey.shared
    return survey.alone_bytes + sum(
        size
        for key, (traits, size) in survey.held.items()
        if key == survey.root or size >= _DATA_BYTES or key not in shared or not traits.shareable
    )


def examine(once: list[Any]) -> Weight:
    """Return what dropping a value would free, or why it has to stay.

    Parameters
    ----------
    once
        A list of one, the value.  It is emptied.  One further reference is expected, the store's own: write
        ``examine([slot.value])``, because a variable that holds the value is an outside reference.

    Notes
    -----
    Other threads may run meanwhile.  A reference that one of them takes and drops within the call may be found or
    not, so the caller has to make sure that the value was not handed out since.
    """
    cls = type(once[0])
    if traits_of(cls).kind is Kind.ATOM:
        return Weight(_sizes(cls, once), None) if _counts(once) == [_ONCE] else Weight(0, REFERENCED, once[0])
    survey = _Survey(once, thorough=True)
    if survey.stuck:
        return Weight(0, UNPICKLABLE)
    held, shared = survey.held, survey.shared
    for key, thing in shared.items():
        if key == survey.root or not held[key][0].shareable:
            return Weight(0, REFERENCED, thing)
    if survey.aliased:
        return Weight(0, REFERENCED)
    nbytes = survey.alone_bytes + sum(size for key, (_, size) in held.items() if key not in shared)
    within = survey.within_shared()
    if within is None:
        return Weight(0, REFERENCED)
    nbytes -= within
    data_bytes = sum(size for size in (within, *(held[key][1] for key in shared)) if size >= _DATA_BYTES)
    # The compressed copy would hold the shared data a second time: that is worse than leaving the value alone.
    return Weight(nbytes, None) if nbytes > data_bytes else Weight(0, REFERENCED)


class _Survey:
    """One walk over the graph of a value; a thorough one also asks objects for their __dict__, which may make it.

    An object with exactly one reference needs no counting: the walk has just come along it.  Only the others are noted,
    with the number of references met, and compared with their reference counts when the walk is over.

    Attributes
    ----------
    alone_bytes
        Bytes of the objects with one reference, and of the attributes of all objects.
    held
        Traits and bytes of every other object that weighs anything, by id.
    shared
        Those of them that have references from outside, by id.
    root
        Id of the value.
    stuck
        Something in the graph can't come back as it was.
    aliased
        Two arrays share memory, or one shares it with somebody outside, or somebody outside has a weak reference.
    """

    def __init__(self, once: list[Any], thorough: bool) -> None:
        self.root = id(once[0])
        self.alone_bytes = 0
        self.stuck = False
        self.aliased = False
        self._thorough = thorough
        self._seen: dict[int, Any] = {}
        self._edges: Counter[int] = Counter()
        self._bases: set[int] = set()
        self._weakly_held: Counter[int] = Counter()
        self._weak: Counter[int] = Counter()
        references = once[:]
        once.clear()
        while references:
            references = self._follow(self._meet(references))
        self.shared = self._compare()
        self.held: dict[int, tuple[Traits, int]] = {}
        for key, thing in self._seen.items():
            if (traits := traits_of(type(thing))).weighs:
                self.held[key] = traits, _size(thing)
        # What others hold anyway, and nobody can change, is not lost with the value.
        self.aliased |= any(
            self._weak[key] < count and not (key in self.shared and self.held[key][0].shareable)
            for key, count in self._weakly_held.items()
        )
        # A view that came alone keeps its base to itself; a base with a second reference is changed by both.
        for key in self._bases:
            self.aliased |= self._edges[key] > 1 and self.held[key][0].kind is not Kind.ATOM

    def within_shared(self) -> int | None:
        """Bytes of all that is not shared itself but can be reached from what is; None when some of it can change."""
        frozen = [thing for key, thing in self.shared.items() if self.held[key][0].kind is Kind.FROZEN]
        values = [thing for key, thing in self.shared.items() if self.held[key][0].kind is Kind.VALUE]
        done = set(self.shared)
        nbytes = 0
        # Values come second, because tuples lead to more of them.  What is inside a value is its own business.
        for things, checked in ((frozen, True), (values, False)):
            while things:
                inside: list[Any] = []
                for thing in self._follow(_by_type(things)):
                    traits = traits_of(type(thing))
                    if id(thing) in done or not traits.weighs:
                        continue
                    if checked and not traits.shareable:
                        return None
                    done.add(id(thing))
                    nbytes += _size(thing)
                    (values if checked and traits.kind is Kind.VALUE else inside).append(thing)
                things = inside
        return nbytes

    def _meet(self, references: list[Any]) -> dict[type, list[Any]]:
        """Take note of what a list of references leads to; return what was met for the first time, by type."""
        if len(references) < _MANY:
            return self._meet_few(references)
        single = list(map(_ONCE.__eq__, _counts(references)))
        if all(single):
            alone = references
            fresh: list[Any] = []
        else:
            alone = list(compress(references, single))
            others = list(compress(references, map(operator.not_, single)))
            fresh = self._note(others)
        met = _by_type(alone)
        for cls, things in met.items():
            if traits_of(cls).weighs:
                self.alone_bytes += _sizes(cls, things)
        if fresh:
            for cls, things in _by_type(fresh).items():
                met.setdefault(cls, []).extend(things)
        return met

    def _meet_few(self, references: list[Any]) -> dict[type, list[Any]]:
        met: dict[type, list[Any]] = {}
        for thing, count in zip(references, _counts(references), strict=True):
            cls = type(thing)
            if count == _ONCE:
                if traits_of(cls).weighs:
                    self.alone_bytes += _size(thing)
            else:
                key = id(thing)
                self._edges[key] += 1
                if key in self._seen:
                    continue
                self._seen[key] = thing
            if cls in met:
                met[cls].append(thing)
            else:
                met[cls] = [thing]
        return met

    def _note(self, things: list[Any]) -> list[Any]:
        """Count references to objects that have several; return those objects that were not met before."""
        keys = list(map(id, things))
        self._edges.update(keys)
        unseen = {key: thing for key, thing in zip(keys, things, strict=True) if key not in self._seen}
        self._seen.update(unseen)
        return list(unseen.values())

    def _follow(self, met: dict[type, list[Any]]) -> list[Any]:
        """Return what the objects refer to, once for each reference."""
        references: list[Any] = []
        for cls, things in met.items():
            traits = traits_of(cls)
            self.stuck |= traits.stuck
            if not traits.followed:
                continue
            if traits.weakly:
                self._weakly_held.update({id(t): n for t in things if (n := weakref.getweakrefcount(t))})
            if cls is weakref.ref:
                self._weak.update(id(reference()) for reference in things)
            if traits.kind is Kind.DICT:
                references += _in_dicts(things)
                continue
            inside = gc.get_referents(*things)
            if self._thorough and traits.hides_dict:
                reported = set(map(id, inside))
                inside += [
                    one
                    for thing in things
                    if type(one := getattr(thing, "__dict__", None)) is dict and id(one) not in reported
                ]
            if traits.attributes:
                # Two words and one for each attribute; the class is among the referents (3.11, tracemalloc).
                self.alone_bytes += 8 * (len(inside) + len(things))
            references += inside
            if traits.kind is Kind.ARRAY:
                for thing in things:
                    references += self._in_array(thing)
        return references

    def _in_array(self, thing: np.ndarray[Any, Any] | np.void) -> list[Any]:
        base = thing.base
        if base is None:
            if not thing.flags.owndata:
                self.aliased = True
            return list(_elements(thing)) if thing.dtype.hasobject else []
        owner = base
        while isinstance(owner, (np.ndarray, memoryview)) and (below := _below(owner)) is not None:
            owner = below
        ours = owner.flags.owndata if isinstance(owner, np.ndarray) else isinstance(owner, MEMORY)
        if not ours or _overlaps(thing):
            self.aliased = True
        self._bases.update((id(base), id(owner)))
        return [base]

    def _compare(self) -> dict[int, Any]:
        # _ONCE covers one list and one real reference; here the dict takes the place of the latter.
        counts = _counts(list(self._seen.values()))
        return {
            key: thing
            for (key, thing), count in zip(self._seen.items(), counts, strict=True)
            if count - _ONCE > self._edges[key] and traits_of(type(thing)).weighs
        }


def _by_type(things: list[Any]) -> dict[type, list[Any]]:
    classes = set(map(type, things))
    if len(classes) == 1:
        return {classes.pop(): things}
    groups: dict[type, list[Any]] = defaultdict(list)
    for thing in things:
        groups[type(thing)].append(thing)
    return groups


def _sizes(cls: type, things: list[Any]) -> int:
    """Bytes of objects that are all of type ``cls``, without what they refer to."""
    if cls is float:
        return _FLOAT_BYTES * len(things)
    if cls in (int, str, bytes):
        return sum(map(cls.__sizeof__, things))  # none of them has a garbage collector's header
    return sum(map(_size, things))


def _size(thing: Any) -> int:
    measure = traits_of(type(thing)).measure
    return size_of(thing) if measure is None else measure(thing)[0]


def _in_dicts(dicts: list[dict[Any, Any]]) -> list[Any]:
    """Keys and values.  The garbage collector is not told of the keys of a dict that never had any but strings.

    Nor is that visible from here.  A string may be listed once too often, which does no harm; anything else must not.
    """
    references = gc.get_referents(*dicts)
    if set(map(type, chain.from_iterable(map(dict.keys, dicts)))) <= {str}:
        references.extend(chain.from_iterable(map(dict.keys, dicts)))
    elif len(dicts) > 1:
        references.extend(
            chain.from_iterable(dict.keys(one) for one in dicts if set(map(type, dict.keys(one))) == {str})
        )
    return references


def _elements(holder: np.ndarray[Any, Any] | np.void) -> Iterable[Any]:
    """The Python objects in an array."""
    things = np.asarray(holder)
    if things.dtype.names is None:
        return things.ravel("K").tolist() if things.dtype.hasobject else []
    return chain.from_iterable(_elements(things[name]) for name in things.dtype.names)


def _below(owner: Any) -> Any:
    return owner.obj if isinstance(owner, memoryview) else owner.base


def _overlaps(thing: np.ndarray[Any, Any] | np.void) -> bool:
    """Whether an element may be reached by two indices: sliding windows, broadcast arrays."""
    extent = thing.itemsize
    for stride, length in sorted(
        (abs(stride), length) for stride, length in zip(thing.strides, thing.shape, strict=True)
    ):
        if length > 1:
            if stride < extent:
                return True
            extent += stride * (length - 1)
    return False


def _counts(things: list[Any]) -> list[int]:
    return list(map(sys.getrefcount, things))


def _measure_once() -> int:
    """What :func:`_counts` says of an object that the list holds and one other."""
    holder = [object()]
    return _counts(holder[:])[0]


_ONCE: Final = _measure_once()
_FLOAT_BYTES: Final = sys.getsizeof(0.0)
