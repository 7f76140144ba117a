"""A value of Dask's as a store has it: Dask's serialization, its frames as the store's buffers."""

from __future__ import annotations

import pickle
from collections.abc import Hashable
from typing import Any

from distributed.metrics import context_meter
from distributed.protocol import deserialize, serialize

from uzswap.store.kinds import sealed

__all__ = ["Held"]


@sealed
class Held:
    """A value with its key.  It is pickled as the header and the frames that ``distributed.protocol`` makes of it.

    Large frames are buffers of their own, so they are compressed where they lie.

    Attributes
    ----------
    weight : int
        Bytes that it occupies, as Dask's ``sizeof`` has it; at least one.
    failure : Exception or None
        What serializing it raised.
    serialized : bool
        Whether it was, since it came: what goes out to where it came from need not be.
    """

    __slots__ = ("__weakref__", "failure", "key", "serialized", "value", "weight")

    def __init__(self, key: Hashable, value: object, weight: int) -> None:
        self.key = key
        self.value = value
        self.weight = weight
        self.failure: Exception | None = None
        self.serialized = False

    def __sizeof__(self) -> int:
        return self.weight

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        self.serialized = True
        try:
            with context_meter.meter("serialize"):
                header, frames = serialize(self.value, on_error="raise")
        except Exception as error:
            self.failure = error
            raise
        return _opened, (self.key, self.weight, header, *map(_out_of_band, frames))


def _out_of_band(frame: Any) -> Any:
    if isinstance(frame, bytes):
        return frame
    view = memoryview(frame)
    return pickle.PickleBuffer(view) if view.contiguous else view.tobytes()


def _opened(key: Hashable, weight: int, header: dict[str, Any], *frames: Any) -> Held:
    with context_meter.meter("deserialize"):
        return Held(key, deserialize(header, list(frames)), weight)
