"""Python objects to chunks of at most 64 KiB, and back.

A value becomes a row of *extents*; each is one run of bytes, kept in chunks of :data:`CHUNK` bytes and a shorter last
one.  There are three forms:

* ``bytes`` and ``str`` are one extent, as they lie in memory;
* everything else is a pickle stream (protocol 5), in extents of about :data:`BATCH` bytes as the pickler makes it, so
  that packing needs little memory besides the value's: it runs when there is none;
* buffers that pickle hands out of band (numpy arrays) and that fill a chunk are an extent each, compressed where they
  lie.  Smaller ones go into the stream, where neighbours share a chunk.

Unpacking loads each extent once, into the memory that the value keeps: the bytes or str object, the buffer that pickle
builds the array around, the bytes and bytearray objects inside the stream that have an extent of their own.

Nothing here knows where the chunks go: ``put`` and ``get`` do.  Thread-safe as far as they are.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from uzswap.store import sharing
from uzswap.store.arena import Memory
from uzswap.store.datetimes import dispatch_table
from uzswap.store.forms import blank_with_view, view_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap.store.buffers import Part
    from uzswap.store.sharing import Apart

__all__ = ["BATCH", "CHUNK", "Get", "Packed", "Put", "Refused", "pack", "unpack"]

#: Largest entry of the engine, in uncompressed bytes.
CHUNK: Final = 65536
#: The stream is handed on when it has grown to this many bytes: a swap file segment, 16 chunks.
BATCH: Final = 1 << 20

if TYPE_CHECKING:
    Handles: TypeAlias = NDArray[np.uint64]
    #: Stores bytes, and knows what array they are of, if of any; returns a handle for each chunk, or raises
    #: :class:`Refused`, having stored nothing.
    Put: TypeAlias = Callable[[memoryview, Any], Handles]
    #: Loads the chunks of one extent into memory of exactly its length; the chunks stay.
    Get: TypeAlias = Callable[[Handles, memoryview], None]
    #: Frees chunks.
    Free: TypeAlias = Callable[[Handles], None]


class Refused(Exception):
    """The engine takes no more: the value stays where it is."""


class Packed:
    """Where a value's bytes are.

    Attributes
    ----------
    handles
        The chunks of all extents, in order.
    lengths
        Bytes of each extent: those of the stream, then the out-of-band buffers.
    stream
        How many extents the stream has; 0 for ``bytes`` and ``str``, which are the only extent.
    form
        Which of them it is (:mod:`uzswap.store.forms`).
    kept
        The objects of others that the stream refers to.
    weight
        Bytes to be charged when it is a value again; whose who packs it.
    part
        What it is charged for while it is packed, for ``kept``; whose who packs it.
    asked
        Bytes of it that were asked for in parts; whose who loads it.
    """

    __slots__ = ("asked", "form", "handles", "kept", "lengths", "part", "stream", "weight")

    def __init__(
        self, extents: list[tuple[int, Handles]], stream: int, form: int = 0, kept: tuple[Any, ...] = ()
    ) -> None:
        self.kept = kept
        handles = [handles for _, handles in extents]
        self.handles: Handles = np.concatenate(handles) if len(handles) != 1 else handles[0]
        self.lengths = tuple(length for length, _ in extents)
        self.stream = stream
        self.form = form
        self.weight = self.asked = 0
        self.part: Part | None = None

    def extents(self) -> Iterator[tuple[int, Handles]]:
        """Length and handles of each extent."""
        start = 0
        for length in self.lengths:
            end = start - (-length // CHUNK)
            yield length, self.handles[start:end]
            start = end


def pack(value: Any, put: Put, free: Free, stream: bytes | None = None, apart: Apart | None = None) -> Packed:
    """Turn a value into stored chunks.

    Parameters
    ----------
    stream
        Its pickle, if that is there already.
    apart
        What of it others hold, and what comes back as views.

    Raises
    ------
    Refused
        The engine did not take all of it.
    Exception
        Whatever pickling the value raises.

    In either case the chunks stored until then are freed.
    """
    extents: list[tuple[int, Handles]] = []
    buffers: list[tuple[int, Handles]] = []
    try:
        form, view = view_of(value)
        if type(value) is bytes:
            view = memoryview(value)
        if view is not None:
            extents.append((view.nbytes, put(view, None)))
            return Packed(extents, stream=0, form=form)
        if stream is not None:
            extents.append((len(stream), put(memoryview(stream), None)))
            return Packed(extents, stream=1)

        def take(buffer: pickle.PickleBuffer) -> bool:
            """Answers pickle's question whether the buffer is to go into the stream."""
            try:
                view = buffer.raw()
            except BufferError:  # not contiguous: pickle says so itself
                return True
            if view.nbytes < CHUNK:
                return True
            buffers.append((view.nbytes, put(view, buffer)))
            return False

        sink = _Sink(put, extents)
        kept: tuple[Any, ...] = ()
        if apart is None:
            pickler = pickle.Pickler(sink, protocol=5, buffer_callback=take)
            pickler.dispatch_table = dispatch_table()
            pickler.dump(value)
        else:
            kept = sharing.dump(value, sink, apart, take)
        sink.flush()
    except BaseException:
        for _, handles in extents + buffers:
            free(handles)
        raise
    return Packed(extents + buffers, len(extents), kept=kept)


def unpack(packed: Packed, get: Get) -> Any:
    """Build the value anew.  The chunks stay: free them when the value is safe.

    Raises
    ------
    Exception
        Whatever ``get`` or the value's own unpickling raises.
    """
    extents = packed.extents()
    if not packed.stream:
        [(length, handles)] = extents
        value, memory = blank_with_view(packed.form, length)
        get(handles, memory)
        return value
    stream = [next(extents) for _ in range(packed.stream)]
    buffers = (_load_buffer(*extent, get) for extent in extents)
    if packed.kept:
        return sharing.load(_Source(stream, get), packed.kept, buffers)
    if packed.stream == 1:
        return pickle.loads(_load(*stream[0], get), buffers=buffers)
    return pickle.Unpickler(_Source(stream, get), buffers=buffers).load()


def _load(length: int, handles: Handles, get: Get) -> bytes:
    """A piece of the stream, which is gone soon."""
    data: bytes
    data, memory = blank_with_view(0, length)
    get(handles, memory)
    return data


def _load_buffer(length: int, handles: Handles, get: Get) -> Memory:
    memory = Memory(length)
    get(handles, memoryview(memory))
    return memory


class _Sink:
    """The file that the pickler writes."""

    def __init__(self, put: Put, extents: list[tuple[int, Handles]]) -> None:
        self._put = put
        self._extents = extents
        self._gathered = bytearray()

    def write(self, data: Any) -> int:
        view = memoryview(data)
        if view.nbytes >= BATCH:
            # Large bytes, bytearrays and strings come alone.
            self.flush()
            self._extents.append((view.nbytes, self._put(view, None)))
            return view.nbytes
        self._gathered += view
        if len(self._gathered) >= BATCH:
            self._store(len(self._gathered) // CHUNK * CHUNK)
        return view.nbytes

    def flush(self) -> None:
        if self._gathered:
            self._store(len(self._gathered))

    def _store(self, length: int) -> None:
        with memoryview(self._gathered) as view, view[:length] as part:
            self._extents.append((length, self._put(part, None)))
        del self._gathered[:length]


class _Source:
    """The file that the unpickler reads: the extents of the stream one after the other."""

    def __init__(self, extents: list[tuple[int, Handles]], get: Get) -> None:
        self._extents = iter(extents)
        self._get = get
        self._memory = memoryview(b"")

    def readinto(self, target: Any) -> int:
        target = memoryview(target).cast("B")
        done = 0
        while done < len(target):
            if not self._memory:
                extent = next(self._extents, None)
                if extent is None:
                    break
                length, handles = extent
                if length <= len(target) - done:
                    self._get(handles, target[done : done + length])
                    done += length
                    continue
                self._memory = memoryview(_load(length, handles, self._get))
            part = self._memory[: len(target) - done]
            target[done : done + len(part)] = part
            self._memory = self._memory[len(part) :]
            done += len(part)
        return done

    def read(self, size: int) -> bytes:
        file = io.BytesIO(bytes(size))
        with file.getbuffer() as memory:
            done = self.readinto(memory)
        return file.getvalue()[:done]

    def readline(self) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n") and (byte := self.read(1)):
            line += byte
        return bytes(line)
