"""What users of caches expect, as mappings over a :class:`uzswap.Store` that are put one over the other.

=================================  ==========================================================
:class:`~uzswap.caches.TTL`        values expire: a time to live for all, or for each key
:class:`~uzswap.caches.Bounded`    bounds in bytes of memory and of the disk: the cold are dropped
:class:`~uzswap.caches.Once`       ``get_or_compute``: once per key among threads
:class:`~uzswap.caches.Dumped`     values kept as bytes that the user's functions make
:class:`~uzswap.caches.Async`      awaitable: nothing blocks the event loop
:func:`~uzswap.caches.cache`       a decorator as :func:`functools.lru_cache`
=================================  ==========================================================
"""

from uzswap.caches.asynchronous import Async
from uzswap.caches.bounded import Bounded
from uzswap.caches.decorator import Cached, CacheInfo, cache
from uzswap.caches.dumped import Dumped
from uzswap.caches.keys import OnEvict, Reason
from uzswap.caches.layer import Layer
from uzswap.caches.once import Once
from uzswap.caches.ttl import TTL

__all__ = ["TTL", "Async", "Bounded", "CacheInfo", "Cached", "Dumped", "Layer", "OnEvict", "Once", "Reason", "cache"]
