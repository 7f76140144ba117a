"""What stores of zarr are about: the chunks of one cgroup, or of one mapping, in this process.

Several stores may have the same contents, as several of zarr's LocalStore may have the same directory: with and without
``read_only``, made twice, or unpickled.  So contents are found again by what they are in, and by a token.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
import weakref
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final

from uzswap.cgroup.memcg import require_cgroup
from uzswap.errors import os_error
from uzswap.locks import Order, make_lock
from uzswap.store.store import Store

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup

__all__ = ["Contents", "contents_of", "recall"]

#: what sys.getsizeof() counts of a bytes object beside its bytes
_HEADER: Final = (b"").__sizeof__()


class Contents:
    """The chunks of a cgroup or of a mapping, by key.

    Attributes
    ----------
    where
        The cgroup, or the mapping.
    mapping
        Of ``bytes``.
    token
        Stands for them in a pickle.
    """

    def __init__(self, where: MemCgroup | MutableMapping[str, Any]) -> None:
        self.where: Final = where
        self._own: Store[str, bytes] | None = None
        self.mapping: MutableMapping[str, Any]
        if isinstance(where, MutableMapping):
            self.mapping = where
        else:
            self.mapping = self._own = Store(require_cgroup(where))
        self.token: Final = uuid.uuid4().hex
        if self._own is not None:
            weakref.finalize(self, _close, self._own).atexit = False

    def __repr__(self) -> str:
        return repr(self.mapping)

    def size(self, key: str) -> int:
        """Return the bytes of a value, without loading it where that can be told.  KeyError without one."""
        if self._own is not None:
            return self._own.info(key).weight - _HEADER
        return memoryview(self.mapping[key]).nbytes

    def set_new(self, key: str, value: bytes) -> None:
        """Set a value unless there is one already, without loading that."""
        if key not in self.mapping:
            self.mapping.setdefault(key, value)

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that begin with ``prefix``, as they are now."""
        return [key for key in list(self.mapping) if key.startswith(prefix)]

    def names(self, directory: str) -> list[str]:
        """Return what is directly in a directory: names of keys, and of directories that keys are in."""
        prefix = f"{directory}/" if (directory := directory.rstrip("/")) else ""
        return list(dict.fromkeys(key[len(prefix) :].partition("/")[0] for key in self.keys(prefix)))

    def discard(self, keys: list[str]) -> None:
        for key in keys:
            with contextlib.suppress(KeyError):
                del self.mapping[key]


def _close(store: Store[str, bytes]) -> None:
    # The engine was closed, and the store with it.
    with contextlib.suppress(OSError):
        store.close()


_lock: Final = make_lock(Order.NEIGHBOUR)
#: by what they are in; as long as a store has them, that lives, and so its id is its own
_known: Final[weakref.WeakValueDictionary[int, Contents]] = weakref.WeakValueDictionary()
_by_token: Final[weakref.WeakValueDictionary[str, Contents]] = weakref.WeakValueDictionary()


def contents_of(where: MemCgroup | MutableMapping[str, Any]) -> Contents:
    """Return the contents of a cgroup, or of a mapping; the very same ones each time.

    Raises
    ------
    OSError
        ENODEV the cgroup was removed, EBADF the engine was closed.
    TypeError
        It is neither.
    """
    with _lock:
        found = _known.get(id(where))
        if found is None:
            found = Contents(where)
            _known[id(where)] = found
            _by_token[found.token] = found
        return found


def recall(process: int, token: str) -> Contents:
    """Return the contents that a pickle made by a process stands for.

    Raises
    ------
    ProcessLookupError
        Another process has made it.
    FileNotFoundError
        No store has them any more.
    """
    if process != os.getpid():
        raise os_error(
            errno.ESRCH,
            f"a pickled uzswap.zarr.Store stands for chunks in the memory of process {process}, and this is "
            f"{os.getpid()}: let threads share it, or give other processes a zarr.storage.LocalStore",
        )
    found = _by_token.get(token)
    if found is None:
        raise os_error(
            errno.ENOENT,
            "the chunks that this pickled uzswap.zarr.Store stands for are gone: a store, group or array has to hold "
            "them until it is loaded",
        )
    return found
