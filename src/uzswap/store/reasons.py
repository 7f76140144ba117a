"""Why a value stays, in words.

What :func:`uzswap.store.weigh.examine` finds is told with names: where in the value the object is that keeps it, and
who holds that.  Only here is the garbage collector asked for holders, which takes a look at every object that it knows
(some 50 ms a million); local variables, which it does not know, are looked up in the frames of all threads.

Thread-safe: nothing is changed.
"""

from __future__ import annotations

import gc
import inspect
import sys
from collections import deque
from collections.abc import Callable, Container, Iterator
from types import FrameType
from typing import Any, Final

import numpy as np

from uzswap.store.kinds import MEMORY, Kind, traits_of
from uzswap.store.sharing import Apart, Held, dump
from uzswap.store.weigh import UNPICKLABLE, Shared, examine

__all__ = ["why"]

# So many holders are named, and so many objects looked through for a name.
_MOST_NAMED: Final = 5
_MOST_SEARCHED: Final = 100_000
_COPIED: Final = 'with shared="copy" it goes, and comes back with memory of its own'


def why(
    get: Callable[[], Any],
    keeper: object,
    shared: Shared | None = None,
    own: Container[int] = (),
    others: int = 0,
) -> str:
    """Return why a resident value is resident.

    Parameters
    ----------
    get
        Returns the value.  One reference to it is expected besides, the store's own.
    keeper
        What has that reference, which is not to be named.
    shared
        What becomes of parts that others hold.
    own
        Ids of arrays of whose memory the value takes its part along.
    others
        How many other values of the store share memory with it.

    Returns
    -------
    str
        One sentence, with names in it as they are in Python.
    """
    weight = examine([get()], shared, own)
    if weight.obstacle == UNPICKLABLE:
        return f"it can't be pickled: {_stuck(get())}"
    if weight.obstacle is None:
        return _pickled(get(), weight.held) or "nothing keeps it: it goes when it is the coldest and room is needed"
    held = weight.held
    del weight
    value = get()
    if said := _foreign(value, held):
        return f"{said}: {_COPIED}"
    ignored = {id(one) for one, _ in _inside(value)} | {id(keeper)}
    if held is None:
        bases = [one.base for one, _ in _inside(value) if isinstance(one, np.ndarray) and one.base is not None]
        ignored.add(id(bases))
        names = [name for base in bases for name in _holders(base, ignored)]
        return "an array in it shares its memory, or somebody has a weak reference to an object in it" + (
            f": {_listed(names)} it" if names else ""
        )
    where = _path(value, held)
    whole = held is value
    del value
    things = "it" if whole else f"a {_kind(held)} in it{'' if where is None else f', value{where},'}"
    large = (
        "" if whole or shared != "refer" else ", and can't be referred to: it leads back to the value, or to too much"
    )
    names = _holders(held, ignored)
    if others and isinstance(held, np.ndarray):
        family = f"{others} other value{'s' if others > 1 else ''} of the store"
        holders = f", and by {_listed(names)}" if names else ""
        if held.dtype.hasobject:
            return f"{things} has objects in memory that is seen by {family}{holders}: {_COPIED}"
        return (
            f"{things} has memory that is seen by {family}{holders}: they go when nobody outside holds it or one of "
            "them, unless two of them see the same elements"
        )
    return f"{things} is held by {_listed(names) or 'somebody whom the garbage collector does not know'}{large}"


def _foreign(value: Any, held: Any) -> str | None:
    """Which array has memory that is not numpy's, if it is that which somebody holds."""
    if held is not None and not isinstance(held, (np.ndarray, memoryview)) and not _lends(held):
        return None
    for one, path in _inside(value):
        seen = [one]
        while isinstance(seen[-1], (np.ndarray, memoryview)):
            below = seen[-1].obj if isinstance(seen[-1], memoryview) else seen[-1].base
            if below is None:
                break
            seen.append(below)
        owner = seen[-1]
        if len(seen) == 1 or isinstance(owner, np.ndarray):
            continue
        if not isinstance(owner, MEMORY) or any(thing is held for thing in seen):
            where = path and f", value{path},"
            return f"a {_kind(one)} in it{where} has the memory of a {_kind(owner)}, which others may see"
    return None


def _lends(thing: Any) -> bool:
    try:
        memoryview(thing).release()
    except TypeError:
        return False
    return True


class _Nowhere:
    def write(self, data: Any) -> None:
        pass


def _pickled(value: Any, apart: Apart | None) -> str | None:
    """What pickling it has against it."""
    try:
        dump(value, _Nowhere(), apart or Apart({}, {}, set()), lambda _: False)
    except Held as error:
        return f"{error} is held outside too, and would come back as a copy"
    except Exception as error:
        return f"it can't be pickled: {type(error).__name__}: {error}"
    return None


def _stuck(value: Any) -> str:
    for thing, path in _inside(value):
        if traits_of(type(thing)).stuck:
            stuck = traits_of(type(thing)).kind is Kind.STUCK
            return f"value{path}, a {_kind(thing)}, {'would not come back as it was' if stuck else 'has a finalizer'}"
    return "something in it would not come back as it was"


def _holders(thing: Any, ignored: set[int]) -> list[str]:
    """Who holds an object.  Modules are asked themselves: after ``gc.freeze()`` the collector does not know them."""
    referrers = gc.get_referrers(thing)
    names = _variables(thing)
    for module in list(sys.modules.values()):
        for name, one in list(vars(module).items()):
            if one is thing:
                names.append(f"the module {module.__name__}, as {name}")
        ignored = ignored | {id(vars(module))}
    for one in referrers:
        if id(one) not in ignored and not isinstance(one, FrameType):
            names.append(_owner_of(one, thing))
    return list(dict.fromkeys(names))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _variables(thing: Any) -> list[str]:
    """The local variables that are bound to an object, of the calls under way in all threads but this module's."""
    found = []
    # No comprehension and no generator: they would hold the object, or their own frame, beyond this call.
    for frame in list(sys._current_frames().values()):
        at: FrameType | None = frame
        del frame
        while at is not None:
            if at.f_globals.get("__name__") != __name__ and at.f_code.co_flags & inspect.CO_OPTIMIZED:
                variables = at.f_locals
                one: Any = None
                for name, one in list(variables.items()):
                    if one is thing:
                        found.append(f"the variable {name} of {at.f_code.co_qualname}()")
                del one
                # Until 3.12 it is a copy that stays with the frame, and would keep alive what is bound now.
                if type(variables) is dict and sys.getrefcount(variables) == _OF_FRAME_AND_OURS:
                    variables.clear()
            at = at.f_back
    return found


# The frame's, a variable's, and that of the call which counts.
_OF_FRAME_AND_OURS: Final = 3


def _owner_of(one: Any, thing: Any) -> str:
    """A referrer in words."""
    if isinstance(one, dict):
        names: dict[Any, Any] = one
        for owner in gc.get_referrers(one):
            if getattr(owner, "__dict__", None) is one:
                return _key(names, thing, f"a {_kind(owner)}, as .", "")
        return _key(names, thing, "a dict, at [", "]", repr)
    if type(one).__name__ == "cell":
        return "a function's closure"
    attributes = getattr(one, "__dict__", None)
    if isinstance(attributes, dict):
        return _key(attributes, thing, f"a {_kind(one)}, as .", "")
    return f"a {_kind(one)}"


def _key(names: dict[Any, Any], thing: Any, before: str, after: str, shown: Any = str) -> str:
    for key, value in list(names.items()):
        if value is thing:
            return f"{before}{shown(key)}{after}"
    return before.split(",")[0]


def _path(value: Any, wanted: Any) -> str | None:
    for thing, path in _inside(value):
        if thing is wanted:
            return path
    return None


def _inside(value: Any) -> Iterator[tuple[Any, str]]:
    """What can be reached from a value, with how to write that, the nearest first."""
    seen = {id(value)}
    todo: deque[tuple[Any, str]] = deque([(value, "")])
    while todo and len(seen) < _MOST_SEARCHED:
        thing, path = todo.popleft()
        yield thing, path
        kind = traits_of(type(thing)).kind
        if kind in (Kind.NOTHING, Kind.ATOM):
            continue
        named: list[tuple[Any, str]] = []
        if isinstance(thing, dict):
            named = [(inner, f"{path}[{key!r}]") for key, inner in list(thing.items())]
        elif isinstance(thing, (list, tuple)):
            named = [(inner, f"{path}[{number}]") for number, inner in enumerate(list(thing))]
        elif isinstance(getattr(thing, "__dict__", None), dict):
            named = [(vars(thing), f"{path}.__dict__")]
            named += [(inner, f"{path}.{key}") for key, inner in list(vars(thing).items())]
        elif isinstance(thing, np.ndarray) and thing.base is not None:
            named = [(thing.base, f"{path}.base")]
        named += [(inner, f"{path}...") for inner in gc.get_referents(thing)]
        for inner, name in named:
            if id(inner) not in seen and traits_of(type(inner)).kind is not Kind.NOTHING:
                seen.add(id(inner))
                todo.append((inner, name))


def _kind(thing: Any) -> str:
    cls = type(thing)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
