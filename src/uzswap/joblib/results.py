"""Results of ``joblib.Memory`` in a cgroup: its store backend "uzswap"."""

from __future__ import annotations

import datetime
import io
import os
import re
import warnings
import weakref
from collections.abc import Callable, MutableMapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from joblib import numpy_pickle
from joblib._store_backends import CacheItemInfo, CacheWarning, StoreBackendBase, StoreBackendMixin

from uzswap.caches.contents import Contents, contents_of, recall
from uzswap.engine.default import default_engine
from uzswap.errors import InvalidArgumentError

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup

__all__ = ["StoreBackend"]

#: the cgroup in the default engine, when none is given
_DEFAULT: Final = "/joblib"
#: what joblib itself passes on from the arguments of Memory
_OF_FILES: Final = ("compress", "mmap_mode")
_RESULT: Final = "output.pkl"


class _Writing(io.BytesIO):
    """A file that is there once it was closed without an error."""

    def __init__(self, finish: Callable[[bytes], None]) -> None:
        super().__init__()
        self._finish = finish

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._finish(self.getvalue())
        super().__exit__(kind, error, trace)


class StoreBackend(StoreBackendBase, StoreBackendMixin):  # type: ignore[misc]
    """Where a ``joblib.Memory`` of ``backend="uzswap"`` keeps results, as files are kept, but in a cgroup.

    ``backend_options`` of ``Memory``:

    ``cgroup``
        Whose memory it is, or its path in the default engine (see :func:`uzswap.default_engine`); "/joblib" there when
        nothing is given.
    ``store``
        Instead: a :class:`uzswap.Store` or a cache over one, which nobody else uses.  With a
        :class:`uzswap.caches.Bounded` the results that were not used for longest are dropped when there is no room.

    The location of ``Memory`` is a name: those of one location have the same results, those of others have their own.
    A result is kept as joblib pickles it, so each call returns an object of its own, as with files.  What is cold is
    compressed, and goes to the disk; ``compress`` and ``mmap_mode`` are ignored, with a warning.

    Parameters
    ----------
    where
        A cgroup, or what ``store`` is above, for a backend that is given to ``Memory`` as its location.
    location
        The location then.

    Notes
    -----
    *One process.*  All ``Memory`` objects of one location, in the same cgroup, have the same results, and what one
    clears or replaces is cleared or replaced for all; threads may share them.  Results live as long as a ``Memory``, a
    function or a reference (``call_and_shelve``) of theirs.

    *Other processes* have none of them: a function that is sent to a worker computes there each time, and keeps
    nothing; what ``call_and_shelve`` returns there is a KeyError when it is asked for.  Let workers compute, and keep
    what they return: cache the function that calls ``Parallel``, or use threads.

    *Copies and pickles* of a ``Memory`` have the same results in the same process.  A cgroup in ``backend_options`` has
    neither, but its path has; or give the backend itself, as scikit-learn's pipelines want it:
    ``joblib.Memory(uzswap.joblib.StoreBackend(group))``.

    *No room*: a result that a limit leaves no room for, or that can't be pickled, is returned and not kept, with a
    ``joblib.memory.CacheWarning`` that says why.

    *Limits*: ``reduce_size`` counts bytes before compression.

    Examples
    --------
    >>> import joblib, uzswap, uzswap.joblib
    >>> with uzswap.Zswap(swap="auto") as z:
    ...     group = z.cgroup("/results")
    ...     memory = joblib.Memory("reports", backend="uzswap", backend_options={"cgroup": group}, verbose=0)
    ...     calls = []
    ...     @memory.cache(ignore=["told"])
    ...     def report(day, told):
    ...         told.append(day)
    ...         return [f"{day}: line {i}" for i in range(1000)]
    ...     same = report(1, calls) == report(1, calls)
    ...     freed = group.reclaim("8K").reclaimed
    ...     same, calls, freed >= 8192, report(1, calls)[999]
    (True, [1], True, '1: line 999')
    """

    verbose = 0
    compress = False
    mmap_mode = None

    def __init__(self, where: MemCgroup | MutableMapping[str, Any] | None = None, location: str = "joblib") -> None:
        self._contents: Contents | None = None
        #: paths of results -> when they were last read or written
        self._used: dict[str, datetime.datetime] = {}
        if where is not None:
            self._begin(where, location, 0)

    def _begin(self, where: MemCgroup | MutableMapping[str, Any], location: str, verbose: int) -> None:
        self._contents = contents_of("joblib", where)
        self._used = _used_of(self._contents)
        self.location = location
        self.verbose = verbose

    def configure(self, location: str, verbose: int = 0, backend_options: dict[str, Any] | None = None) -> None:
        """Make it what the arguments of ``Memory`` ask for; joblib calls this.

        Raises
        ------
        InvalidArgumentError, TypeError
            ``backend_options`` that are unknown, or do not go together.
        OSError
            ENODEV there is no default engine, or the cgroup was removed; EBADF the engine was closed.
        """
        options = dict(backend_options or {})
        for name in _OF_FILES:
            if options.pop(name, None):
                warnings.warn(f"{name} is for files: results are compressed by uzswap when they are cold", stacklevel=2)
        cgroup, store = options.pop("cgroup", None), options.pop("store", None)
        if options:
            raise InvalidArgumentError(f"backend_options {sorted(options)} are unknown, there are: cgroup, store")
        if cgroup is not None and store is not None:
            raise TypeError("store= has a cgroup already: give cgroup= or store=, not both")
        if store is not None and not isinstance(store, MutableMapping):
            raise TypeError(f"store= is a uzswap.Store or a cache over one, not {type(store).__name__}")
        self._begin(_where(cgroup) if store is None else store, location, verbose)

    # In a pickle there is no result: it stands for those of this process.

    def __getstate__(self) -> dict[str, Any]:
        token = None if self._contents is None else self._contents.token
        return {"process": os.getpid(), "token": token, "location": self.location, "verbose": self.verbose}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self.location, self.verbose = state["location"], state["verbose"]
        if state["token"] is not None:
            self._contents = recall(state["process"], state["token"])
        if self._contents is not None:
            self._used = _used_of(self._contents)

    # What joblib's own part works with: files and directories

    def _open_item(self, f: str, mode: str) -> io.BytesIO:
        if "w" in mode:
            return _Writing(lambda data: self._write(f, data))
        data = None if self._contents is None else self._contents.mapping.get(f)
        if data is None:
            raise FileNotFoundError(f"there is no {f}")
        self._touch(f)
        return io.BytesIO(data)

    def _write(self, path: str, data: bytes) -> None:
        if self._contents is not None:
            self._contents.mapping[path] = data
            self._touch(path)

    def _touch(self, path: str) -> None:
        if path.endswith(_RESULT):
            self._used[path] = datetime.datetime.now()

    def _item_exists(self, location: str) -> bool:
        if self._contents is None:
            return False
        return location in self._contents.mapping or bool(self._contents.keys(location + os.sep))

    def _move_item(self, src: str, dst: str) -> None:
        if self._contents is not None:
            self._contents.mapping[dst] = self._contents.mapping.pop(src)

    def _concurrency_safe_write(self, to_write: Any, filename: str, write_func: Callable[[Any, str], None]) -> None:
        write_func(to_write, filename)  # a value is there as a whole, or not at all

    def create_location(self, location: str) -> None:
        """Do nothing: directories are there with what is in them."""

    def clear_location(self, location: str) -> None:
        """Delete a result, or all that is below a location."""
        if self._contents is None:
            return
        gone = [location, *self._contents.keys(location + os.sep)]
        self._contents.discard(gone)
        for path in gone:
            self._used.pop(path, None)

    def contains_item(self, call_id: Sequence[str]) -> bool:
        """Whether there is a result; joblib's own way would look for a directory of that name, too."""
        return self._contents is not None and self._path(call_id, _RESULT) in self._contents.mapping

    def _path(self, call_id: Sequence[str], name: str) -> str:
        return os.path.join(self.location, *call_id, name)

    def dump_item(self, call_id: Sequence[str], item: Any, verbose: int = 1) -> None:
        """Keep a result, if there is room, and tell by a CacheWarning if not: then there is none, not an older one."""
        if self._contents is None:
            return
        path = self._path(call_id, _RESULT)
        if verbose > 10:
            print(f"Persisting in {os.path.dirname(path)}")
        try:
            with self._open_item(path, "wb") as file:
                numpy_pickle.dump(item, file)
        except Exception as error:
            self.clear_location(path)
            why = f"there is no room: {error}" if isinstance(error, MemoryError) else repr(error)
            warnings.warn(f"a result of {call_id[0]} is not kept: {why}", CacheWarning, stacklevel=2)

    def get_items(self) -> list[Any]:
        """Return what ``reduce_size`` chooses from: path, bytes and last access of each result."""
        if self._contents is None:
            return []
        sizes: dict[str, int] = {}
        for path in self._contents.keys(self.location + os.sep):
            directory = os.path.dirname(path)
            if re.fullmatch("[a-f0-9]{32}", os.path.basename(directory)):
                try:
                    sizes[directory] = sizes.get(directory, 0) + self._contents.size(path)
                except KeyError:  # just now
                    continue
        never = datetime.datetime.fromtimestamp(0)
        return [
            CacheItemInfo(directory, size, self._used.get(os.path.join(directory, _RESULT), never))
            for directory, size in sizes.items()
        ]


def _where(cgroup: object) -> MemCgroup:
    if cgroup is None or isinstance(cgroup, str):
        return default_engine().cgroup(cgroup or _DEFAULT)
    return cgroup  # type: ignore[return-value]  # contents_of() says what it should be


#: for all backends that have the same contents
_used: Final[weakref.WeakKeyDictionary[Contents, dict[str, datetime.datetime]]] = weakref.WeakKeyDictionary()


def _used_of(contents: Contents) -> dict[str, datetime.datetime]:
    """Return when the results in contents were used, by path."""
    return _used.setdefault(contents, {})
