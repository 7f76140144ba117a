"""The engine for compiled owners of many small values; its other functions are C's, see values.pxd."""

from uzswap.core.boundary.engine import Engine, StoreResult

class Batch:
    """Values on their way into the engine together: up to 64, in 128 KiB."""

    #: slot of a codec that the caller holds, or -1: the engine's current one
    codec: int
    #: one for values of at most ``small_bytes``, or -1
    small: int
    small_bytes: int

    def __len__(self) -> int: ...
    def store(self, engine: Engine, memcg: int, start: int, flags: int) -> StoreResult:
        """As :meth:`Engine.store`, each value an entry of its own."""

    def refused(self) -> int:
        """How many have no handle."""

    def free(self, engine: Engine) -> None:
        """Free what was stored."""
