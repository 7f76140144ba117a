"""A mapping whose cold values are kept compressed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, Self, SupportsIndex, TypeVar, get_args, overload

from uzswap.cgroup.memcg import require_cgroup
from uzswap.cgroup.surroundings import Reclaimed
from uzswap.engine.host import host_of
from uzswap.errors import InvalidArgumentError
from uzswap.store.compression import Compression, Filter
from uzswap.store.kinds import opaque
from uzswap.store.reasons import why
from uzswap.store.slot import NOTHING
from uzswap.store.slots import Slots
from uzswap.store.weigh import REFERENCED, UNPICKLABLE, Shared
from uzswap.units import parse_size

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.core.boundary.engine import Places
    from uzswap.store.packing import Packed

__all__ = ["Ranking", "Store", "ValueInfo"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")


class ValueInfo(NamedTuple):
    """What :meth:`Store.info` tells."""

    #: as of :meth:`Store.where`
    place: str
    #: bytes charged while it is resident
    weight: int
    #: compressed bytes in the pool and on the disk; 0 while it is resident
    stored_bytes: int
    #: why reclaim left it alone, unless it was accessed since: "referenced", "unpicklable" or None
    obstacle: str | None
    pinned: bool
    #: it was accessed since reclaim looked at it last, or is on the active list
    referenced: bool


class Ranking(NamedTuple):
    """What :meth:`Store.rank` tells: (number, bytes) of resident values, and keys."""

    #: they have come, or were seen unused, of late: they go next
    new: tuple[int, int]
    #: used again since: they go after these
    hot: tuple[int, int]
    #: they have to stay, for all that reclaim knows: shared, unpicklable or pinned
    stuck: tuple[int, int]
    #: the heaviest first, wherever they are
    largest: list[Any]
    #: resident, the next to go first
    coldest: list[Any]
    #: of those that have to stay, the heaviest first
    stay: list[Any]


def _named(found: Places) -> str:
    places = {"disk": found.disk, "zero": found.value, "zswap": found.zswap}
    return "+".join(place for place, chunks in places.items() if chunks) or "zero"


@opaque
class Store(MutableMapping[K, V], Generic[K, V]):
    """A dict, in a cgroup, that keeps its cold values compressed.

    A value is the very object that was put in, as long as it is resident.  When the cgroup has to give memory back
    (``memory.reclaim``, ``memory.high``, ``memory.max``, its own or an ancestor's), the values that were used least
    are pickled into chunks of at most 64 KiB and swapped out; a later access makes an equal object and drops the
    chunks.

    A value that somebody else still holds stays resident: evicting it would free nothing, and a change made through the
    other reference would be lost.  What is held of its parts is left to ``shared``.  One that can't be pickled, or has
    a finalizer, stays too.  :meth:`stats` counts them, :meth:`why` tells.

    Parameters
    ----------
    cgroup
        Whose memory it is.  The store is a member of it: it can be removed when the store is closed.
    compressor
        "lz4", "zstd", or with a level, "zstd:3"; None is the engine's.
    filter
        Whether the bytes of an array's items are shuffled before compression, which makes most numbers smaller: "auto"
        where a sample says so, "shuffle" always, "none" never.
    dictionary
        Whether values of at most 2 KiB, once there are some thousands, are compressed by what they have in common.
    shared
        What becomes of what is in a value and held by others too.  "refer": it is left where it is, charged once for
        all values of the store that refer to it if it is not little (a page, or an eighth of what the value frees), and
        the value that comes back has the very same objects.  "pin": the value stays.  "copy": all is copied, the value
        itself included, so later changes that others make to what they hold are missing from it.  Of an array that
        others hold a view weighs what it sees: so one larger than any limit can be put in by its rows.
    sizeof
        Returns the bytes that a value occupies, instead of our own weighing.
    immutable
        Whether values never change once they are set, as you promise: then what comes back from the disk leaves its
        bytes there, as the kernel's swap cache does, and going out again writes nothing.  They are the first to go when
        the disk is full, and none are kept once half of it is used.

    Notes
    -----
    *Weight.* A resident value is charged to the cgroup with what it really occupies, objects and array memory included,
    at the time it is set, loaded or looked at by reclaim.  Growth of a value in place is not seen until then: call
    :meth:`reweigh`, or set it again.  Keys, and some 130 bytes of bookkeeping a value, are not charged.

    *Counters.* An access that brings a value back is a fault for each page of it: ``pgfault``, ``pgmajfault``,
    ``workingset_refault_anon``, and ``zswpin``, ``pswpin`` or ``swpin_zero`` by place.  Access to a resident value
    counts nothing.

    *Which go first* is told as the kernel does it, by an inactive and an active list: of the values that were accessed
    no more after they were set or loaded, those that came first; then, of the others, those not accessed for longest.
    So a scan of values that are used once leaves the hot ones alone.

    *Pickling* takes place in whichever thread reclaims, with protocol 5: an object sees its ``__reduce_ex__`` or
    ``__getstate__`` called at any time.  Large contiguous arrays are compressed where they lie and loaded straight into
    the memory of the new array.  ``bytes`` and ``str`` are not pickled.

    *Signals.* A handler may raise out of any call, which then has had no effect, or all of it; and it may use the store
    itself.  Only a value that its own thread is just loading is a RuntimeError there.

    *Threads* may share a store.  Accesses of the same value while it is being loaded wait and get the same object.
    Iterating while another thread adds or deletes keys raises RuntimeError, as with a dict.

    *Iteration*, ``len`` and ``in`` load nothing and count as no access; ``values()``, ``items()`` and comparisons load
    every value.

    Examples
    --------
    >>> import uzswap
    >>> with uzswap.Zswap(swap="auto") as z, uzswap.Store(z.cgroup("/jobs/a")) as store:
    ...     store["greeting"] = ["hello"] * 1000
    ...     freed = store.reclaim(1 << 20).freed_bytes
    ...     store.where("greeting"), len(store["greeting"]), store.where("greeting")
    ('zswap', 1000, 'resident')
    """

    def __init__(
        self,
        cgroup: MemCgroup,
        *,
        compressor: str | None = None,
        filter: Filter = "auto",
        dictionary: bool = True,
        shared: Shared = "refer",
        sizeof: Callable[[V], SupportsIndex] | None = None,
        immutable: bool = False,
    ) -> None:
        if shared not in get_args(Shared):
            raise InvalidArgumentError(f"shared={shared!r}: there are {', '.join(get_args(Shared))}")
        self._shared: Shared = shared
        self._zswap = host_of(require_cgroup(cgroup))
        compression = Compression(self._zswap, compressor, filter, dictionary)
        try:
            self._slots = Slots(cgroup, compression, shared, sizeof, immutable)
            self._zswap.register(self)
        except BaseException:
            compression.close()
            raise

    # The mapping

    def __getitem__(self, key: K) -> V:
        value = self._slots.fetch(key)
        if value is NOTHING:
            raise KeyError(key)
        return value  # type: ignore[no-any-return]

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default`` without one.  An error while loading is raised."""
        value = self._slots.fetch(key)
        return default if value is NOTHING else value

    def get_part(self, key: K, where: slice) -> bytes:
        """Return ``bytes(store[key][where])``, ``where`` without a step, of a value that is ``bytes``.

        Of one that is larger than 64 KiB and not resident only those chunks of 64 KiB are loaded that have some of it,
        and it stays where it is; once as much of it was asked for as it has, it is loaded.

        Raises
        ------
        KeyError
            There is no such key.
        TypeError
            The value has no bytes.
        """
        if where.step not in (None, 1):
            raise InvalidArgumentError(f"{where}: a part has no step")
        value = self._slots.fetch_part(key, where)
        if value is NOTHING:
            raise KeyError(key)
        return value  # type: ignore[no-any-return]

    def __setitem__(self, key: K, value: V) -> None:
        """Set a value, replacing an older one.

        Raises
        ------
        MemoryError
            ``memory.max`` of the cgroup or an ancestor can't be met.  Nothing changed: an older value is still there.
        """
        self._slots.insert(key, value)

    def put_back(self, key: K, value: V) -> None:
        """Have a value in memory again that somebody has kept, or made anew: it is what the key has, wherever that is.

        As ``store[key] = value``, but a store of immutable values leaves the bytes on the disk, as when it loads them.
        """
        self._slots.insert(key, value, same=True)

    def setdefault(self, key: K, default: Any = None) -> Any:
        """Return the value of ``key``; set it to ``default`` before if there is none."""
        while (value := self._slots.fetch(key)) is NOTHING:
            if self._slots.insert(key, default, replace=False):
                return default
        return value

    def __delitem__(self, key: K) -> None:
        self._slots.remove(key)

    def discard(self, key: K) -> bool:
        """Delete ``key`` if it is there, without loading its value; say whether it was."""
        try:
            del self[key]
        except KeyError:
            return False
        return True

    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: D) -> V | D: ...
    def pop(self, key: K, default: Any = NOTHING) -> Any:
        """Delete ``key`` and return its value, which is not charged any more.  When loading it fails, it stays."""
        value = self._slots.take(key)
        if value is not NOTHING:
            return value
        if default is NOTHING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[K, V]:
        """Delete the key that was added last and return it with its value, as a dict does."""
        while True:
            self._slots.require_open()
            try:
                key = next(reversed(self._slots.by_key))
            except StopIteration:
                raise KeyError("popitem(): the store is empty") from None
            value = self._slots.take(key)
            if value is not NOTHING:
                return key, value

    def clear(self) -> None:
        """Delete every key, without loading anything."""
        self._slots.require_open()
        self._slots.clear()

    def __contains__(self, key: object) -> bool:
        self._slots.require_open()
        return key in self._slots.by_key

    def __iter__(self) -> Iterator[K]:
        self._slots.require_open()
        return iter(self._slots.by_key)

    def __reversed__(self) -> Iterator[K]:
        self._slots.require_open()
        return reversed(self._slots.by_key)

    def __len__(self) -> int:
        self._slots.require_open()
        return len(self._slots.by_key)

    def __repr__(self) -> str:
        state = (
            "closed"
            if self._slots.closed
            else f"{len(self._slots.by_key)} values, {self._slots.resident_bytes} bytes resident"
        )
        return f"<Store of {self._slots.cgroup.path}: {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"the store of {self._slots.cgroup.path} can't be pickled or copied: it belongs to its engine; "
            "dict(store) has its values"
        )

    # Where the values are

    @property
    def cgroup(self) -> MemCgroup:
        """Whose memory it is."""
        return self._slots.cgroup

    @property
    def resident_bytes(self) -> int:
        """Bytes that the cgroup is charged for this store's resident values."""
        return self._slots.resident_bytes

    def info(self, key: K) -> ValueInfo:
        """Return what is known of one value, without loading it; counts as no access.  KeyError without such a key."""
        while True:
            self._slots.require_open()
            weight, obstacle, pinned, referenced = self._slots.tell(key)
            packed = self._slots.by_key[key].packed
            if packed is None:
                return ValueInfo("resident", weight, 0, obstacle, pinned, referenced)
            found = self._places(packed)
            if not found.unknown:
                stored = found.zswap_bytes + found.disk_bytes
                return ValueInfo(_named(found), weight, stored, None, False, False)

    def _places(self, packed: Packed) -> Places:
        with self._zswap.lifetime:
            return self._zswap.core.places(packed.handles)

    def where(self, key: K) -> str:
        """Return where the value of ``key`` is: "resident", or the places of its chunks.

        Those are "zswap", "disk" and "zero" (one repeated word, kept as such), joined with "+" when there are several.
        Loads nothing and counts as no access, but looks at every chunk.  KeyError without such a key.
        """
        while True:
            self._slots.require_open()
            packed = self._slots.by_key[key].packed
            if packed is None:
                return "resident"
            found = self._places(packed)
            if not found.unknown:  # else it has just come back
                return _named(found)

    def why(self, key: K) -> str:
        """Return, in words, why the value of ``key`` is where it is: who holds what of it, or what can't be pickled.

        KeyError without such a key.  Asks the garbage collector, which takes a look at every object that it knows.
        """
        if self._slots.peek(key) is NOTHING:
            return f"it was among the coldest when room was needed: {self.where(key)}"
        if self.info(key).pinned:
            return "it is pinned: unpin() lets it go"
        return why(lambda: self._slots.peek(key), self._slots, self._shared, *self._slots.family(key))

    def rank(self, most: int = 10) -> Ranking:
        """Return which values go next, which do not, and which are the largest: up to ``most`` keys each, 64 at most.

        Loads nothing and counts as no access; looks at every value once, which takes some 40 ns each.
        """
        if most < 0:
            raise InvalidArgumentError(f"most={most}: that many keys cannot be told")
        new, hot, stuck = self._slots.lists()
        return Ranking(new, hot, stuck, *self._slots.rank(most))

    def stats(self) -> dict[str, int]:
        """Return counts and bytes by place, in one snapshot.

        ``values``, ``resident`` and ``packed`` count values.  ``referenced`` and ``unpicklable`` count the resident
        ones that reclaim had to leave alone, unless they were accessed since; ``referenced_bytes`` and
        ``unpicklable_bytes`` are what they weigh.  ``resident_bytes`` is what the cgroup is charged, ``packed_bytes``
        what it would be charged in addition if all values were resident.  ``chunks`` counts the chunks; ``zswap_bytes``
        and ``disk_bytes`` are their compressed bytes, of which those of one repeated word have none.  ``evicted``,
        ``loaded`` and ``refused`` (by the engine) count since the store was made.

        Looks at every chunk.
        """
        self._slots.require_open()
        values, resident, packed_bytes, stuck, handles = self._slots.survey()
        counts = {
            "values": values,
            "resident": resident,
            "packed": values - resident,
            "referenced": stuck[REFERENCED][0],
            "referenced_bytes": stuck[REFERENCED][1],
            "unpicklable": stuck[UNPICKLABLE][0],
            "unpicklable_bytes": stuck[UNPICKLABLE][1],
            "resident_bytes": self._slots.resident_bytes,
            "packed_bytes": packed_bytes,
            "evicted": self._slots.evicted,
            "loaded": self._slots.loaded,
            "refused": self._slots.refused,
        }
        with self._zswap.lifetime:
            found = self._zswap.core.places(handles)
        counts["chunks"] = found.zswap + found.disk + found.value
        counts["zswap_bytes"] = found.zswap_bytes
        counts["disk_bytes"] = found.disk_bytes
        return counts

    def reweigh(self) -> int:
        """Weigh every resident value again, charge what has grown in place, and return the bytes charged in all.

        Raises
        ------
        MemoryError
            ``memory.max`` can't be met; values weighed until then keep their new weight.
        """
        self._slots.require_open()
        for slot in list(self._slots.by_key.values()):
            self._slots.reweigh(slot)
        return self._slots.resident_bytes

    def check(self) -> None:
        """Verify every invariant; meant for quiet moments, since other threads may be in between steps.

        The engine's own background work is waited for.

        Raises
        ------
        AssertionError
            With all that is off, in words.
        """
        self._slots.require_open()
        self._zswap.flush_work()
        if wrong := self._slots.check():
            raise AssertionError("\n".join(wrong))

    # Many at once, and one in particular

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the values of those keys that are there, in the order of ``keys``.

        As ``{key: store[key]}``, but what is packed is loaded together: from the disk in the order in which it lies
        there.  All of it is in memory at once, over ``memory.max`` if it has to be.
        """
        wanted = list(keys)
        hold: list[V] = []
        self._slots.require_open()
        self._slots.bring_in(wanted, hold)
        found: dict[K, V] = {}
        for key in wanted:
            value = self._slots.fetch(key)
            if value is not NOTHING:
                found[key] = value
        return found

    def set_many(self, values: Mapping[K, V] | Iterable[tuple[K, V]]) -> None:
        """Set several values; the same as :meth:`update`.

        Raises
        ------
        MemoryError
            As for one value.  Those before it are set.
        """
        insert = self._slots.insert
        for key, value in values.items() if isinstance(values, Mapping) else values:
            insert(key, value)

    def prefetch(self, keys: Iterable[K]) -> None:
        """Have values brought in by a thread of the store's own, as long as no limit is met; nobody waits for it.

        Keys that are not there, and values that can't be loaded, are passed over.  It counts as no access, so what is
        not used soon is the first to go out again.
        """
        self._slots.prefetch(keys)

    def evict(self, key: K) -> int:
        """Swap one value out, if it may go; return the bytes freed, as charged.  KeyError without such a key.

        0 when it is packed already, pinned, or has to stay: :meth:`info` tells why.
        """
        return self._slots.evict(key)

    def pin(self, key: K) -> None:
        """Load a value and keep it resident until :meth:`unpin` was called as often, or the key is deleted.

        A new value that is set is pinned as the old one.  KeyError without such a key.
        """
        self._slots.pin(key)

    def unpin(self, key: K) -> None:
        """Undo one :meth:`pin`.  KeyError without such a key, ValueError when it is not pinned."""
        self._slots.unpin(key)

    # The life of a store

    def reclaim(self, nbytes: str | SupportsIndex) -> Reclaimed:
        """Swap the coldest values out until ``nbytes`` less are charged, or none is left that can go.

        Parameters
        ----------
        nbytes
            Bytes, or text such as "10M".

        Returns
        -------
        Reclaimed
            Pages looked at and bytes freed, both as charged.  Nothing in a closed store.
        """
        with self._zswap.heap:
            return self._slots.reclaim(parse_size(nbytes))

    def close(self) -> None:
        """Free everything and leave the cgroup.  Later calls, but for this one, are OSError (EBADF).

        Closing the engine closes its stores.  A signal handler may raise out of it: then it is to be called again.  It
        may be called by a finalizer.
        """
        if not self._slots.forked:
            self._slots.close()
            self._zswap.unregister(self)

    def __enter__(self) -> Self:
        self._slots.require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
