"""Arrays that are larger than their budget: uzswap's, and what users would pick instead.

Each candidate holds the same bytes and does the same work on them, block by block (1 MiB) and page by page (4 KiB).
:class:`Resident` is the reference, an array that is in memory as a whole.
"""

from __future__ import annotations

import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import blosc2
import lz4.block
import numpy as np
import zict
from numpy.typing import NDArray

import uzswap
from benchmarks.reference import CHUNK, PAGE, Bytes
from benchmarks.window import Window

Order = NDArray[np.intp]
Array = NDArray[Any]

PAGES_OF_BLOCK = CHUNK // PAGE


@dataclass(frozen=True)
class Footprint:
    """Bytes that a candidate keeps where."""

    #: uncompressed, in memory
    resident: int
    #: in memory; of a file in the page cache: its pages that are not in use by the array
    compressed: int = 0
    disk: int = 0


@dataclass(frozen=True)
class Task:
    """What is to be held, and in how much memory."""

    data: Array
    budget: int

    @property
    def blocks(self) -> int:
        return self.data.nbytes // CHUNK

    @property
    def per_block(self) -> int:
        """Items of a block."""
        return CHUNK // self.data.dtype.itemsize

    def block(self, index: int) -> Array:
        start = index % self.blocks * self.per_block
        return self.data[start : start + self.per_block]


class Candidate(ABC):
    """One way to hold a one-dimensional array of whole blocks."""

    #: share of the random accesses that it is given: the slow ones would take minutes
    patience = 1.0

    def __init__(self, task: Task) -> None:
        self.task = task

    @abstractmethod
    def read(self, visit: Callable[[Array], object]) -> None:
        """Show each block to a function, in order."""

    @abstractmethod
    def write(self, shift: int) -> None:
        """Overwrite each block, in order, with the one of the data that is `shift` further on."""

    @abstractmethod
    def gather(self, order: Order, out: Bytes) -> None:
        """Copy each page of the order to the same page-sized buffer."""

    def take(self, order: Order, out: Array) -> bool:
        """Copy all pages of the order, one below the other, in one call; False for those who have none."""
        return False

    def put(self, order: Order, values: Array) -> bool:
        """Overwrite all pages of the order with these, in one call; False for those who have none."""
        return False

    @abstractmethod
    def footprint(self) -> Footprint: ...

    def expect(self, order: Order, *, pages: bool, dirty: bool = False) -> None:  # noqa: B027  most need no warning
        """Hear, outside of the time that counts, what is touched next: pages, or blocks."""

    def close(self) -> None:  # noqa: B027  most have nothing to close
        """Let go of the array: an engine cannot be closed while it has any."""


class _Plain(Candidate):
    """A numpy array, wherever its memory comes from."""

    array: Array

    def _adopt(self, array: Array) -> None:
        self.array = array
        self.blocks = array.reshape(self.task.blocks, -1)
        self.pages = array.view(np.uint8).reshape(-1, PAGE)
        self.write(0)

    def read(self, visit: Callable[[Array], object]) -> None:
        for block in self.blocks:
            visit(block)

    def write(self, shift: int) -> None:
        for index, block in enumerate(self.blocks):
            block[:] = self.task.block(index + shift)

    def gather(self, order: Order, out: Bytes) -> None:
        pages = self.pages
        for index in order:
            out[:] = pages[index]

    def close(self) -> None:
        del self.array, self.blocks, self.pages


class Resident(_Plain):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._adopt(np.empty_like(task.data))

    def take(self, order: Order, out: Array) -> bool:
        np.take(self.pages, order, 0, out, mode="clip")
        return True

    def put(self, order: Order, values: Array) -> bool:
        self.pages[order] = values
        return True

    def footprint(self) -> Footprint:
        return Footprint(self.array.nbytes)


class Paged(_Plain):
    """uzswap: the resident pages are limited to the budget, the compressed ones are in the pool beside it."""

    def __init__(self, task: Task, zswap: uzswap.Zswap) -> None:
        super().__init__(task)
        self.cgroup = zswap.cgroup("/bench")
        self.cgroup.write("uzswap.resident.max", str(task.budget))
        self._adopt(uzswap.empty(task.data.shape, task.data.dtype, cgroup=self.cgroup))

    def take(self, order: Order, out: Array) -> bool:
        uzswap.take(self.pages, order, out=out)
        return True

    def put(self, order: Order, values: Array) -> bool:
        uzswap.put(self.pages, order, values)
        return True

    def waits(self) -> int:
        """How often a thread has waited for a page so far."""
        return uzswap.info(self.array).faults

    def footprint(self) -> Footprint:
        found = uzswap.info(self.array)
        return Footprint(
            found.resident, int(self.cgroup.read("memory.zswap.current")), int(self.cgroup.read("uzswap.disk"))
        )


class Mapped(_Plain):
    """np.memmap of a file, in a sliding window as large as the budget: what falls out leaves the page cache too."""

    def __init__(self, task: Task, path: str) -> None:
        super().__init__(task)
        mapped: np.memmap[Any, Any] = np.memmap(path, task.data.dtype, "w+", shape=task.data.shape)
        self.window = Window(mapped, path, task.budget)
        self.window.expect(np.arange(task.blocks), PAGES_OF_BLOCK, dirty=True)
        self._adopt(mapped)

    def expect(self, order: Order, *, pages: bool, dirty: bool = False) -> None:
        self.window.expect(order, 1 if pages else PAGES_OF_BLOCK, dirty=dirty)

    def read(self, visit: Callable[[Array], object]) -> None:
        for step, block in enumerate(self.blocks):
            self.window.slide(step)
            visit(block)

    def write(self, shift: int) -> None:
        for index, block in enumerate(self.blocks):
            self.window.slide(index)
            block[:] = self.task.block(index + shift)
            self.window.start_writing(index * CHUNK, CHUNK)

    def gather(self, order: Order, out: Bytes) -> None:
        pages, slide = self.pages, self.window.slide
        for step, index in enumerate(order):
            slide(step)
            out[:] = pages[index]

    def footprint(self) -> Footprint:
        return Footprint(self.window.in_page_cache(), disk=self.array.nbytes)

    def close(self) -> None:
        super().close()
        self.window.close()


class Blosc2(Candidate):
    """blosc2.NDArray: lz4, 1 MiB chunks, bytes shuffled by the width of the numbers, its own number of threads."""

    patience = 0.25

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        width = task.data.dtype.itemsize
        filters = [blosc2.Filter.SHUFFLE if width > 1 else blosc2.Filter.NOFILTER]
        cparams = blosc2.CParams(codec=blosc2.Codec.LZ4, typesize=width, filters=filters, filters_meta=[0])
        self.array = blosc2.empty(task.data.shape, task.data.dtype, chunks=(task.per_block,), cparams=cparams)
        self.per_page = PAGE // width
        self.write(0)

    def read(self, visit: Callable[[Array], object]) -> None:
        items = self.task.per_block
        for start in range(0, self.task.data.size, items):
            visit(self.array[start : start + items])

    def write(self, shift: int) -> None:
        items = self.task.per_block
        for index in range(self.task.blocks):
            self.array[index * items : (index + 1) * items] = self.task.block(index + shift)

    def gather(self, order: Order, out: Bytes) -> None:
        items, to = self.per_page, out.view(self.task.data.dtype)
        for index in order:
            start = int(index) * items
            to[:] = self.array[start : start + items]

    def footprint(self) -> Footprint:
        return Footprint(CHUNK, int(self.array.schunk.cbytes))


class Zict(Candidate):
    """zict.Buffer: blocks in a dict as long as the budget has room, the others lz4-compressed in files."""

    patience = 0.03

    def __init__(self, task: Task, directory: str) -> None:
        super().__init__(task)
        self.files = zict.File(directory)
        # The count of blocks is their weight: all of them are 1 MiB.
        slow = zict.Func(lz4.block.compress, self._load, self.files)
        self.buffer: Any = zict.Buffer({}, slow, n=task.budget // CHUNK)
        self.write(0)

    def _load(self, blob: bytes) -> Array:
        values: Array = np.frombuffer(lz4.block.decompress(blob), self.task.data.dtype)
        return values

    def read(self, visit: Callable[[Array], object]) -> None:
        for index in range(self.task.blocks):
            visit(self.buffer[str(index)])

    def write(self, shift: int) -> None:
        for index in range(self.task.blocks):
            self.buffer[str(index)] = self.task.block(index + shift).copy()

    def gather(self, order: Order, out: Bytes) -> None:
        for index in order:
            block, page = divmod(int(index), PAGES_OF_BLOCK)
            out[:] = self.buffer[str(block)].view(np.uint8)[page * PAGE : (page + 1) * PAGE]

    def footprint(self) -> Footprint:
        on_disk = sum(len(self.files[key]) for key in self.files)
        return Footprint(len(self.buffer.fast) * CHUNK, disk=on_disk)


RESIDENT, PAGED, MAPPED, BLOSC2, ZICT = "resident", "uzswap", "memmap", "blosc2", "zict"
#: uzswap, with faults served in the faulting thread
BY_SIGNAL = "by signal"


def by_signal(task: Task, stack: ExitStack) -> Paged:
    """Faults served in the thread that they are in; other candidates' threads, which block SIGBUS, touch no arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return Paged(task, stack.enter_context(uzswap.Zswap(max_pool="90%", faults="signal")))


@contextmanager
def all_of(task: Task, names: tuple[str, ...], directory: str | None) -> Iterator[dict[str, Candidate]]:
    """The candidates by name, each filled with the data; the reference is always one."""
    with ExitStack() as stack:

        def scratch() -> str:
            return stack.enter_context(tempfile.TemporaryDirectory(prefix="uzswap-bench-", dir=directory))

        makers: dict[str, Callable[[], Candidate]] = {
            RESIDENT: lambda: Resident(task),
            PAGED: lambda: Paged(task, stack.enter_context(uzswap.Zswap(max_pool="90%"))),
            BY_SIGNAL: lambda: by_signal(task, stack),
            MAPPED: lambda: Mapped(task, f"{scratch()}/array"),
            BLOSC2: lambda: Blosc2(task),
            ZICT: lambda: Zict(task, scratch()),
        }
        made = {}
        for name, make in makers.items():
            if name == RESIDENT or name in names:
                made[name] = make()
                stack.callback(made[name].close)
        yield made
