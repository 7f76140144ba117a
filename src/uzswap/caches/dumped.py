"""Values kept as bytes that the user's own functions make: msgpack, Arrow's IPC, an image format."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, MutableMapping
from typing import TYPE_CHECKING, TypeVar

from uzswap.caches.layer import Layer, get_many

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Dumped"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Dumped(Layer[K, V]):
    """A mapping whose values are bytes below.

    Parameters
    ----------
    below
        Where the bytes are: a store, or another cache.
    dump
        Makes bytes of a value, or anything with a buffer, which is copied.
    load
        Makes a value of the bytes, at each access: the value is a new one each time, and what is changed in it is not
        kept unless it is set again.

    Notes
    -----
    Bytes are compressed as they are: nothing is pickled, and a value that somebody holds can go all the same.  Both
    functions are called in the thread that sets or reads.  What they raise comes out of the call, which has had no
    effect.

    Examples
    --------
    >>> import json, uzswap
    >>> with uzswap.Zswap(swap="auto") as z, uzswap.Store(z.cgroup("/records")) as store:
    ...     records = Dumped(store, dump=lambda value: json.dumps(value).encode(), load=json.loads)
    ...     records["a"] = {"name": "uzswap"}
    ...     store["a"], records["a"]
    (b'{"name": "uzswap"}', {'name': 'uzswap'})
    """

    def __init__(
        self, below: MutableMapping[K, bytes], *, dump: Callable[[V], Buffer], load: Callable[[bytes], V]
    ) -> None:
        for name, function in (("dump", dump), ("load", load)):
            if not callable(function):
                raise TypeError(f"{name}= is a function, not {function!r}")
        self._dump = dump
        self._load = load
        super().__init__(below)

    def __getitem__(self, key: K) -> V:
        return self._load(self.below[key])

    def __setitem__(self, key: K, value: V) -> None:
        data = self._dump(value)
        if type(data) is not bytes:
            try:
                view = memoryview(data)
            except TypeError:
                text = f"dump= made {type(data).__name__} of the value of {key!r}: it has to make bytes"
                raise TypeError(text) from None
            data = view.tobytes()
        self.below[key] = data

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        found: dict[K, bytes] = get_many(self.below, keys)
        return {key: self._load(data) for key, data in found.items()}

    def _pop(self, key: K) -> V:
        value = self[key]  # what can't be loaded stays
        del self.below[key]
        return value

    def at_hand(self, key: K) -> bool:
        """False: how long ``load`` takes is not known."""
        return False
