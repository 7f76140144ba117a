"""Everything that is counted, of many memcgs in one call: for who watches thousands of them.

No call keeps the GIL or, for longer than a few microseconds at a time, the engine lock.  Whoever calls holds the
engine's lifetime (engine/lifetime.py).  ValueError: the engine is closed.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from uzswap.core.boundary.engine import Engine

#: Names of the columns of :func:`snapshot`: COUNTERS, subtree included, as :meth:`Engine.counters` has them; then the
#: memcg's settings by their control files, in bytes; its peaks; and "node.N", entries of its own on the LRU of a node.
COLUMNS: Final[tuple[str, ...]]
#: what a limit is that is none
UNLIMITED: Final[int]

def snapshot(engine: Engine, memcgs: NDArray[np.uint32]) -> NDArray[np.int64]:
    """A row for each memcg, a column for each of COLUMNS.

    Each row is consistent in itself, and 64 rows that follow one another are among themselves.  The row of what is no
    online memcg is all -1.
    """

def ages(engine: Engine, memcgs: NDArray[np.uint32], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Compressed bytes in the pool by age: a row for each memcg, without its descendants.

    Parameters
    ----------
    memcgs
        Each once.
    bounds
        Ages in ns that grow, the first one 0: column ``k`` is for ages from ``bounds[k]`` up to below the next.

    Returns
    -------
    NDArray
        Of shape ``(2, memcgs, bounds)``: bytes, then entries.  An age is what ``min_age`` of a request for writeback
        goes by: the sum from column ``k`` on is what a request with that min_age could take.  Clean copies, and what is
        being written, are left out, as such a request leaves them out.

    It looks at every entry there is, 1024 at a time, which takes 2 ms a million (2 cores, 2026-11).
    """
