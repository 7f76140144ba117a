"""``@uzswap.cache``: functools.lru_cache, with its results in a store."""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import re
import weakref
from collections.abc import Callable, Hashable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, Protocol, SupportsIndex, TypeVar, overload

from uzswap.caches.asynchronous import Async
from uzswap.caches.bounded import Bounded
from uzswap.caches.dumped import Dumped
from uzswap.caches.keys import OnEvict
from uzswap.caches.layer import Layer
from uzswap.caches.once import Once
from uzswap.caches.ttl import TTL
from uzswap.cgroup.memcg import MemCgroup, require_cgroup
from uzswap.engine.default import default_engine
from uzswap.store.store import Store
from uzswap.units import parse_size

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["CacheInfo", "Cached", "cache"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

#: Under it are the cgroups of functions that were given none.
_PARENT: Final = "/cache"


class CacheInfo(NamedTuple):
    """As that of :func:`functools.lru_cache`, in bytes."""

    #: calls that were answered without calling the function
    hits: int
    #: calls of the function
    misses: int
    #: bytes of memory at most; None: no bound of its own
    maxsize: int | None
    #: bytes of memory now, resident and compressed, of the cgroup that the results are in
    currsize: int


class Cached(Protocol[P, R_co]):
    """A function whose results are kept."""

    @property
    def __wrapped__(self) -> Callable[P, R_co]: ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    # As a method; the parameters without self are not told to type checkers, as functools does not.
    @overload
    def __get__(self, instance: None, owner: type, /) -> Cached[P, R_co]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> Callable[..., R_co]: ...

    def cache_info(self) -> CacheInfo:
        """Return hits, misses, and bytes."""
        ...

    def cache_clear(self) -> None:
        """Drop all results, and count anew."""
        ...

    def cache_parameters(self) -> dict[str, Any]:
        """Return ``maxsize``, ``typed``, ``disk`` and ``ttl``, as they were given."""
        ...


@overload
def cache(function: Callable[P, R], /) -> Cached[P, R]: ...
@overload
def cache(
    maxsize: str | SupportsIndex | None = None,
    typed: bool = False,
    *,
    disk: str | SupportsIndex | None = None,
    ttl: float | None = None,
    cgroup: MemCgroup | None = None,
    store: MutableMapping[Any, Any] | None = None,
    dump: Callable[[Any], Buffer] | None = None,
    load: Callable[[bytes], Any] | None = None,
    on_evict: OnEvict | None = None,
) -> Callable[[Callable[P, R]], Cached[P, R]]: ...
def cache(
    maxsize: Any = None,
    typed: bool = False,
    *,
    disk: str | SupportsIndex | None = None,
    ttl: float | None = None,
    cgroup: MemCgroup | None = None,
    store: MutableMapping[Any, Any] | None = None,
    dump: Callable[[Any], Buffer] | None = None,
    load: Callable[[bytes], Any] | None = None,
    on_evict: OnEvict | None = None,
) -> Any:
    """Keep the results of a function, the cold ones compressed: a decorator, with or without arguments.

    It has the interface of :func:`functools.lru_cache`, and its rules for arguments: they have to be hashable, ``f(a=1,
    b=2)`` and ``f(b=2, a=1)`` may be computed both, and so on; ``self`` of a method is an argument, and kept alive.
    Functions, methods and coroutine functions can be cached.

    Parameters
    ----------
    maxsize
        Bytes of memory, or text such as "1G", for results, compressed and not; above it those that were not used for
        longest are dropped.  None: what limits the cgroup, and the cold go to the disk.
    typed
        Whether 3 and 3.0 are different arguments.
    disk
        With ``maxsize``: bytes on the disk as well, before results are dropped.  None: none.
    ttl
        Seconds that a result lives.
    cgroup
        Where the cgroup of the function is made, named after it; by default below "/cache" of
        :func:`uzswap.default_engine`, which is asked for at the first call.
    store
        Where the results are instead: a store, or a cache over one, that nothing else uses.
    dump, load
        As of :class:`~uzswap.caches.Dumped`.
    on_evict
        As of :class:`~uzswap.caches.Layer`; keys are those of functools.

    Raises
    ------
    InvalidArgumentError
        A size that is none, or a ``ttl`` that is not above 0.
    TypeError
        ``dump`` without ``load``; both ``cgroup`` and ``store``.

    Notes
    -----
    Threads, or tasks of an event loop, that call with the same arguments at the same time wait for one of them to
    compute the result: functools computes it in each.  An exception is not kept, and goes to all of them.  A function
    that calls itself with the same arguments is a RuntimeError.

    A result that stays resident is the very object at each call; one that came back from zswap is an equal one.  A
    result that can't be pickled, or that the program holds, stays resident.

    Examples
    --------
    >>> import uzswap
    >>> with uzswap.Zswap(swap="auto") as z:
    ...     @uzswap.cache(maxsize="64M", cgroup=z.cgroup("/work"))
    ...     def report(day, *, detailed=False):
    ...         return [f"{day}: line {i}" for i in range(1000)]
    ...     same = report(3) == report(3)
    ...     same, report.cache_info()[:3], report.cache_parameters()["maxsize"]
    (True, (1, 1, 67108864), '64M')
    """
    function = maxsize if callable(maxsize) else None
    size = None if function is not None or maxsize is None else parse_size(maxsize)
    on_disk = None if disk is None else parse_size(disk)
    TTL({}, ttl)  # raises what is wrong with it now, and not at the first call
    if (dump is None) != (load is None):
        raise TypeError("dump= and load= belong together: give both")
    if cgroup is not None and store is not None:
        raise TypeError("store= has a cgroup already: give cgroup= or store=, not both")
    if cgroup is not None:
        require_cgroup(cgroup)
    if store is not None and not isinstance(store, (Store, Layer)):
        raise TypeError(f"store= is a uzswap.Store or a cache over one, not {type(store).__name__}")

    def make(name: str, on_close: Callable[[Store[Any, Any]], object]) -> MutableMapping[Any, Any]:
        """Put the mapping of a function together."""
        below: MutableMapping[Any, Any]
        if store is not None:
            below = store
        else:
            parent = cgroup if cgroup is not None else default_engine().cgroup(_PARENT)
            below = made = _store_of_its_own(parent, name)
            on_close(made)
        if dump is not None and load is not None:
            below = Dumped(below, dump=dump, load=load)
        if size is not None or on_disk is not None:
            bytes_on_disk = 0 if on_disk is None else on_disk
            below = Bounded(below, memory=size, disk=bytes_on_disk, on_evict=on_evict)
        return below if ttl is None else TTL(below, ttl, on_evict=on_evict)

    parameters = {"maxsize": None if function is not None else maxsize, "typed": typed, "disk": disk, "ttl": ttl}

    def decorate(wrapped: Callable[..., Any]) -> Any:
        if not callable(wrapped):
            raise TypeError(f"a function is needed, not {wrapped!r}: write @uzswap.cache, or @uzswap.cache(...)")
        return _decorated(wrapped, make, typed, size, parameters)

    return decorate if function is None else decorate(function)


def _free_cgroup(parent: MemCgroup, name: str) -> MemCgroup:
    """Return a cgroup below ``parent`` that nobody is a member of."""
    name = re.sub(r"[^\w.-]", "_", name)[:200]
    number = 1
    while True:
        found = parent.cgroup(name if number == 1 else f"{name}-{number}")
        if not found.members:
            return found
        number += 1


def _store_of_its_own(parent: MemCgroup, name: str) -> Store[Any, Any]:
    """Return a store in a cgroup below ``parent`` that had no members."""
    while True:
        try:
            return Store(_free_cgroup(parent, name))
        except OSError as error:
            # Another thread makes one for the same function, was too late with it, and has removed the cgroup again.
            if error.errno != errno.ENODEV or not parent.online:
                raise


Make = Callable[[str, Callable[[Store[Any, Any]], object]], MutableMapping[Any, Any]]


class _Lazy:
    """What a function has: made at the first call, since the default engine may come after the function."""

    def __init__(self, name: str, make: Make, asynchronous: bool) -> None:
        self._name = name
        self._make = make
        self._asynchronous = asynchronous
        #: one, under None; several threads may make one, and the first to put it here wins
        self._made: dict[None, Once[Hashable, Any] | Async[Hashable, Any]] = {}
        self._stores: list[Store[Any, Any]] = []

    @property
    def made(self) -> Once[Hashable, Any] | Async[Hashable, Any] | None:
        return self._made.get(None)

    def get(self) -> Any:
        found = self._made.get(None)
        if found is None:
            own: list[Store[Any, Any]] = []
            below = self._make(self._name, own.append)
            new: Once[Hashable, Any] | Async[Hashable, Any] = Async(below) if self._asynchronous else Once(below)
            found = self._made.setdefault(None, new)
            if found is new:
                self._stores += own
            else:
                for store in own:
                    store.close()
                    with contextlib.suppress(OSError):  # EBUSY: the winner's is the same one
                        store.cgroup.remove()
        return found

    def close_with(self, function: object) -> None:
        """Give the memory back when nobody has the function any more."""
        weakref.finalize(function, _close, self._stores).atexit = False


def _close(stores: list[Store[Any, Any]]) -> None:
    for store in stores:
        store.close()


def _decorated(
    function: Callable[..., Any], make: Make, typed: bool, size: int | None, parameters: dict[str, Any]
) -> Any:
    asynchronous = inspect.iscoroutinefunction(function)
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
    lazy = _Lazy(name, make, asynchronous)
    make_key = functools._make_key
    wrapper: Any

    if asynchronous:

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            key = make_key(args, kwargs, typed)
            return await lazy.get().aget_or_compute(key, lambda: function(*args, **kwargs))

    else:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            key = make_key(args, kwargs, typed)
            return lazy.get().get_or_compute(key, lambda: function(*args, **kwargs))

    def cache_info() -> CacheInfo:
        found = lazy.made
        if found is None:
            return CacheInfo(0, 0, size, 0)
        mapping: Any = found.mapping if isinstance(found, Async) else found
        return CacheInfo(found.hits, found.misses, size, mapping.cgroup.usage())

    def cache_clear() -> None:
        found = lazy.made
        if found is not None:
            found.clear()
            found.hits = found.misses = 0

    wrapper.cache_info = cache_info
    wrapper.cache_clear = cache_clear
    wrapper.cache_parameters = parameters.copy
    lazy.close_with(wrapper)
    return wrapper
