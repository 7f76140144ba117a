"""Front-ends: they own the uncompressed memory that the engine takes pages from."""

from uzswap.memory.store import Store

__all__ = ["Store"]
