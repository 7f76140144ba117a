"""Entries in and out of an engine by their handles: what its users and its front-ends call.

The module is compiled, so that no signal handler runs between two of its steps (setup.py, ``UNTORN``).
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from uzswap.core.boundary.engine import MAX_ENTRY
from uzswap.engine.parameters import Compressor
from uzswap.errors import InvalidArgumentError
from uzswap.units import PAGE_SIZE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.core.boundary.engine import Engine, Handles
    from uzswap.core.boundary.values import Batch
    from uzswap.engine.lifetime import Lifetime
    from uzswap.engine.paging import AnyBuffer, Paging, Place
    from uzswap.engine.parameters import Parameters

__all__ = ["Pages"]


class Pages:
    """The part of :class:`~uzswap.engine.zswap.Zswap` that stores and loads; it has no state of its own."""

    core: Engine
    lifetime: Lifetime
    parameters: Parameters
    _paging: Paging

    def swap_out(self, data: AnyBuffer, cgroup: MemCgroup, node: int = 0, *, replace: int | None = None) -> int:
        """Store one entry, as the kernel swaps out a page: into zswap, or where that refuses onto the device.

        Parameters
        ----------
        data
            1 to 65536 bytes; 4096 are the kernel's page.
        cgroup
            Who is charged for it.
        node
            NUMA node of the LRU.
        replace
            A handle whose slot gets the new content: its entry is gone afterwards, also when the new one is refused.

        Returns
        -------
        int
            The handle, never 0.

        Raises
        ------
        OSError
            The data stays with the caller: ENOMEM zswap refused it and it may not go to a device (``memory.swap.max``,
            ``memory.zswap.writeback=0``, or there is none), ENOSPC or EIO the device could not take it.  ENODEV the
            cgroup was removed.
        InvalidArgumentError
            The size, the node or the buffer is impossible.
        StaleHandleError
            ``replace`` is no valid handle; nothing was done.
        """
        with self.lifetime:
            return self._paging.swap_out(data, cgroup, node, replace)

    def swap_out_many(
        self,
        data: AnyBuffer,
        cgroup: MemCgroup,
        page: int = PAGE_SIZE,
        node: int = 0,
        *,
        folio: int = 1,
        compressor: str | None = None,
        filter: int = 0,
    ) -> Handles:
        """Store a buffer page by page; much faster than one call each.

        Parameters
        ----------
        data
            Any C-contiguous buffer.
        page
            Bytes of an entry, 1 to 65536; the last one may be shorter.
        folio
            Pages that are kept in zswap all or not at all.
        compressor
            "lz4", "zstd", or with a level, for these entries; by default the one that the engine uses.
        filter
            Size of the items of an array, in bytes: the first bytes of all items of an entry are put side by side, then
            the second, and so on, before it is compressed.  0 or 1: the entries are compressed as they are.

        Returns
        -------
        numpy.ndarray of uint64
            A handle for each page; :data:`uzswap.REFUSED` (0) for one that stays with the caller, for the reasons of
            :meth:`swap_out`.

        Raises
        ------
        OSError
            ENODEV the cgroup was removed, ENOENT there is no such compressor or level, EBUSY entries of too many other
            compressors and filters are still stored.
        InvalidArgumentError
            A size, the node, the filter or the buffer is impossible.

        Examples
        --------
        >>> import numpy as np
        >>> from uzswap import Zswap
        >>> with Zswap() as z:
        ...     counts = (np.arange(16384) % 97).astype(np.int32)
        ...     handles = z.swap_out_many(counts, z.root, page=65536, compressor="zstd:1", filter=counts.itemsize)
        ...     bool((z.fault_in_many(handles, page=65536).view(np.int32) == counts).all())
        True
        """
        with self.lifetime:
            chosen = None if compressor is None else Compressor.parse(compressor)
            if not 0 <= operator.index(filter) <= MAX_ENTRY:
                raise InvalidArgumentError(f"filter={filter}: items have 1 to {MAX_ENTRY} bytes, 0 is no filter")
            if chosen is None:
                return self._paging.swap_out_many(data, cgroup, node, page, folio, filter=filter)
            slot = self.parameters.hold_codec(chosen, filter)
            try:
                return self._paging.swap_out_many(data, cgroup, node, page, folio, slot, filter)
            finally:
                self.core.codec_put(slot)

    def swap_out_chunks(
        self, data: AnyBuffer, cgroup: MemCgroup, page: int, codec: int, filter: int, flags: int
    ) -> Handles:
        """Store a buffer as :meth:`swap_out_many` does, with a codec that the caller holds, or -1.

        ``filter`` and ``flags`` are those of the data plane's ``store()``.
        """
        with self.lifetime:
            return self._paging.swap_out_many(data, cgroup, 0, page, 1, codec, filter, flags)

    def swap_out_batch(self, batch: Batch, cgroup: MemCgroup) -> None:
        """Store the values of a batch, each an entry of its own; its handles say what became of each.

        Raises
        ------
        OSError
            As :meth:`swap_out_many`; then nothing of it is stored.
        """
        with self.lifetime:
            self._paging.swap_out_batch(batch, cgroup)

    def load_error(self, number: int, handle: int) -> OSError:
        """Return what :meth:`fault_in` raises for an errno of the data plane."""
        with self.lifetime:
            return self._paging.load_error(number, handle)

    def fault_in(self, handle: int) -> bytes:
        """Load an entry and consume its handle: the data is now the caller's alone.

        Raises
        ------
        StaleHandleError
            The handle was loaded or freed already, or is another engine's.
        IntegrityError
            The data is corrupt.  The entry stays until it is freed.
        OSError
            EIO the device cannot be read, EBUSY another thread is loading it.  The entry stays.
        """
        with self.lifetime:
            return self._paging.fault_in(handle)

    def fault_in_many(
        self, handles: ArrayLike, out: AnyBuffer | None = None, page: int = PAGE_SIZE, *, consume: bool = True
    ) -> NDArray[np.uint8]:
        """Load many entries and consume their handles: all of them or, with an error, none.

        Parameters
        ----------
        handles
            Of :meth:`swap_out_many`.
        out
            Where to: entry i begins at byte ``i * page``.  By default a new array.
        page
            Bytes from one entry to the next; none may be larger.
        consume
            False keeps the entries, to be freed when the data is known to have arrived.

        Returns
        -------
        numpy.ndarray of uint8
            The memory of ``out``, or the new array.

        Raises
        ------
        OSError
            As :meth:`fault_in`, telling which handle; the contents of ``out`` are then undefined.
        InvalidArgumentError
            An entry is larger than ``page``, or ``out`` is too small or read-only.
        """
        with self.lifetime:
            return self._paging.fault_in_many(handles, out, page, consume)

    def free(self, handle: int) -> None:
        """Drop an entry without reading it.

        Raises
        ------
        StaleHandleError
            As :meth:`fault_in`.
        OSError
            EBUSY another thread is loading it.
        """
        with self.lifetime:
            self._paging.free(handle)

    def free_many(self, handles: ArrayLike) -> None:
        """Drop many entries: all of them or, with an error of :meth:`free`, none.  Handles that are 0 are skipped."""
        with self.lifetime:
            self._paging.free_many(handles)

    def where(self, handle: int) -> Place:
        """Tell where an entry's bytes are: "zswap", "disk", or "zero" when it has none (a page of one repeated word).

        Raises
        ------
        StaleHandleError
            As :meth:`fault_in`.
        """
        with self.lifetime:
            return self._paging.where(handle)
