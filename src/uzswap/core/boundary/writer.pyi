from uzswap.core.boundary.engine import Engine, FlushResult, Handles, WalkResult

class Writer:
    """One writeback request: gathers entries into segment buffers and keeps the device busy while it gathers more.

    Not for several threads at once.  Always call :meth:`finish`, also after an exception.
    """

    def __init__(self, engine: Engine, proactive: bool = False) -> None: ...
    def walk(
        self,
        lrus: Handles,  # (memcg << 8 | node) each; several: merged, coldest head first
        positions: Handles,  # in and out, one for each LRU, zeros at the start of a request
        nr_to_scan: int,
        budget: int,  # stop as soon as this many compressed bytes were taken (inside the walk)
        since: int,  # Engine.stamp() when the request began
        max_born: int = ...,  # only entries born at or before this time are candidates: Engine.now() - min_age in ns
        flags: int = 0,
    ) -> WalkResult: ...
    def finish(self) -> FlushResult: ...
