"""What the values of one store are compressed with: a compressor, a filter for arrays, a dictionary for small ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from uzswap.core.boundary.engine import TRY_FILTER
from uzswap.engine.lifetime import ForkedLifetime
from uzswap.engine.parameters import Compressor
from uzswap.errors import InvalidArgumentError
from uzswap.signals import hold_back_signals
from uzswap.store.dictionaries import NO_CODEC, Dictionaries, put_codec

if TYPE_CHECKING:
    from uzswap.engine.host import FrontEndHost

__all__ = ["Compression", "Filter"]

#: "shuffle": the first bytes of all items side by side, then the second, and so on; "auto": where a sample of the array
#: gets smaller by it.
Filter = Literal["auto", "shuffle", "none"]

#: Bytes of an item: of larger ones (structures, texts) a chunk has too few for a shuffle to be worth its trial.
_LARGEST_ITEM: Final = 256


class Compression:
    """Chosen once a store, asked once a value or batch.  Any thread.

    Parameters
    ----------
    host
        The engine.
    compressor
        "lz4", "zstd", or with a level: "zstd:3".  None follows the engine's ``compressor`` parameter.
    filter
        Of the buffers of arrays, by their item size.
    dictionary
        Whether small values are compressed with one (zstd, whatever the compressor of the others is).

    Attributes
    ----------
    codec : int
        For the data plane: the slot of the compressor, or -1.
    dictionaries : Dictionaries or None

    Raises
    ------
    FileNotFoundError
        There is no such compressor or level.
    OSError
        EBUSY: entries of too many other compressors, or dictionaries, are still stored.
    InvalidArgumentError
        There is no such filter.
    """

    def __init__(
        self, host: FrontEndHost, compressor: str | None = None, filter: Filter = "auto", dictionary: bool = True
    ) -> None:
        if filter not in get_args(Filter):
            raise InvalidArgumentError(f"filter={filter!r}: there are {', '.join(get_args(Filter))}")
        chosen = None if compressor is None else Compressor.parse(compressor)
        self._host = host
        self._filter = filter
        self.codec = NO_CODEC
        if chosen is not None:
            with host.lifetime:
                self.codec = host.parameters.hold_codec(chosen)
        self.dictionaries = Dictionaries(host) if dictionary else None

    @property
    def small(self) -> int:
        """The slot for values of at most :data:`~uzswap.store.dictionaries.SMALL` bytes, or -1: as the others."""
        return NO_CODEC if self.dictionaries is None else self.dictionaries.slot

    def filter_of(self, buffer: Any) -> tuple[int, int]:
        """Return what the data plane is to do with a buffer that pickle hands out: (item size, flags) of a store.

        Parameters
        ----------
        buffer
            What has the memory: an array, or a buffer that says of what its items are.
        """
        item = buffer.dtype.itemsize if isinstance(buffer, np.ndarray) else memoryview(buffer).itemsize
        if self._filter == "none" or not 1 < item <= _LARGEST_ITEM:
            return 0, 0
        return item, TRY_FILTER if self._filter == "auto" else 0

    def forked(self) -> None:
        """In a forked child that has the engine: go on without the threads that are not here."""
        if self.dictionaries is not None:
            self.dictionaries.forked()

    def close(self) -> None:
        """Give back what it holds.  What was stored keeps what it needs.  Calling it again does nothing."""
        if isinstance(self._host.lifetime, ForkedLifetime):
            return
        if self.dictionaries is not None:
            self.dictionaries.close()
        with hold_back_signals():
            slot, self.codec = self.codec, NO_CODEC
            put_codec(self._host, slot)
