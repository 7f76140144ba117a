"""What objects of other libraries are about: the bytes of one cgroup, or of one mapping, in this process.

Several objects may have the same contents, as several of zarr's LocalStore, or joblib's Memory, may have the same
directory: made twice, or unpickled.  So contents are found again by what they are in, and by a token.  They live as
long as somebody has them.
"""

from __future__ import annotations

import contextlib
import os
import uuid
import weakref
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final

from uzswap.cgroup.memcg import require_cgroup
from uzswap.locks import Order, make_rlock
from uzswap.store.store import Store

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup

__all__ = ["Contents", "contents_of", "recall"]

#: what sys.getsizeof() counts of a bytes object beside its bytes
_HEADER: Final = (b"").__sizeof__()


class Contents:
    """Values of ``bytes`` by text, in a cgroup or in a mapping.

    Attributes
    ----------
    where
        The cgroup, or the mapping.
    mapping
        The mapping, or a store of the cgroup.
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
            self.mapping = self._own = Store(require_cgroup(where), immutable=True)
            weakref.finalize(self, _close, self._own).atexit = False
        self.token: Final = uuid.uuid4().hex

    def __repr__(self) -> str:
        return repr(self.mapping)

    def size(self, key: str) -> int:
        """Return the bytes of a value; KeyError without one.  In a cgroup's own store it is not loaded for that."""
        if self._own is not None:
            return self._own.info(key).weight - _HEADER
        return memoryview(self.mapping[key]).nbytes

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that begin with ``prefix``, as they are now."""
        return [key for key in list(self.mapping) if key.startswith(prefix)]

    def discard(self, keys: list[str]) -> None:
        """Delete those of the keys that are there."""
        for key in keys:
            with contextlib.suppress(KeyError):
                del self.mapping[key]


def _close(store: Store[str, bytes]) -> None:
    # The engine was closed, and the store with it.
    with contextlib.suppress(OSError):
        store.close()


_lock: Final = make_rlock(Order.NEIGHBOUR)
#: by who uses them, and what they are in: as long as somebody has them, that lives, and so its id is its own
_known: Final[weakref.WeakValueDictionary[tuple[str, int], Contents]] = weakref.WeakValueDictionary()
_by_token: Final[weakref.WeakValueDictionary[str, Contents]] = weakref.WeakValueDictionary()


def contents_of(user: str, where: MemCgroup | MutableMapping[str, Any]) -> Contents:
    """Return the contents that a user, such as "zarr", has in a cgroup or a mapping; the very same ones each time.

    Raises
    ------
    OSError
        ENODEV the cgroup was removed, EBADF the engine was closed.
    TypeError
        It is neither.
    """
    with _lock:
        found = _known.get((user, id(where)))
        if found is None:
            # A signal handler may have made some meanwhile.
            found = _known.setdefault((user, id(where)), Contents(where))
            _by_token[found.token] = found
        return found


def recall(process: int, token: str) -> Contents | None:
    """Return the contents that a token stood for in a process; None if that is not this one, or they are gone."""
    return _by_token.get(token) if process == os.getpid() else None
