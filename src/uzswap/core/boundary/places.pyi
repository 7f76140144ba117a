"""Where each page is, and which memory of the process is the engine's own: for who reports it.

No call keeps the GIL or, for longer than some tens of microseconds at a time, a lock.  Whoever calls holds the engine's
lifetime (engine/lifetime.py).  ValueError: the engine is closed; OSError (EIO): a thread that serves faults was killed.
"""

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from uzswap.core.boundary.engine import Engine
from uzswap.core.boundary.memory import Memory

# Where the bytes of a page are
NONE: Final[int]  # nowhere: never touched, dropped, or all one word
RESIDENT: Final[int]
ZSWAP: Final[int]
DISK: Final[int]
LOST: Final[int]  # they could not be read back

#: A byte for each page of an area, as it is when the call comes to it.  It costs some 2 ns a page, and a byte.
def pages(memory: Memory, area: int) -> NDArray[np.uint8]: ...

#: (number, memcg, pages) of each area in use.
def areas(memory: Memory) -> list[tuple[int, int, int]]: ...

#: (what is there, address, bytes) of all that is mapped for an engine but for its threads' buffers: most of it has no
#: memory behind it yet.  "tables" are those of entries, memcgs and pages; "frames" is what comes in passes through.
def mappings(
    engine: Engine, memory: Memory | None = None
) -> list[tuple[Literal["arrays", "pool", "tables", "frames"], int, int]]: ...
