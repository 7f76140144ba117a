"""``joblib.Parallel`` whose workers share arrays of ours: the parallel backend "uzswap"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from joblib._parallel_backends import LokyBackend

from uzswap.joblib.sharing import Files, mapped, owner_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ParallelBackend"]

#: of the calls that run, by the id of their Parallel: joblib pickles for one of them at a time, and tells for which
_calls: Final[dict[str, Files]] = {}

#: what promises that workers do not write to what others see
_READ_ONLY: Final = ("r", "c")


class ParallelBackend(LokyBackend):  # type: ignore[misc]
    """joblib's own workers (loky), which map arrays in paged memory read-only: ``Parallel(backend="uzswap")``.

    joblib itself dumps each large array and each view of one to a file of its own, in /dev/shm where there is room,
    which is memory outside of every budget.  Here each part of an array is written once a call, to a disk, however many
    views of it are sent.  For that nothing of the array is brought in, and nothing goes.

    Views of at most ``max_nbytes`` are copied, and arrays that are not ours are sent, as joblib does.  So is everything
    with a ``mmap_mode`` that lets workers write.

    Notes
    -----
    As with joblib's own: arrays must not be changed while a call runs.  What a task returns is the caller's own.

    Files are in the directory that "JOBLIB_TEMP_FOLDER" in the environment names, or where the swap file of
    ``swap="auto"`` would be.  They have no name, take no more than the bytes of the array, none where it is zero, and
    go at the end of the call.

    Examples
    --------
    ::

        import joblib, uzswap, uzswap.joblib

        x = uzswap.from_file("numbers", shape=(1_000_000, 1000), cgroup=z.cgroup("/x"))
        with joblib.parallel_config(backend="uzswap", n_jobs=4):
            sums = joblib.Parallel()(joblib.delayed(np.sum)(part) for part in np.array_split(x, 100))
    """

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        number: int = super().configure(n_jobs, parallel, **options)
        reducers = self._workers._call_queue._reducers
        if not isinstance(reducers[np.ndarray], _Reducer):
            reducers[np.ndarray] = _Reducer(reducers[np.ndarray], self._workers._temp_folder_manager)
        return number

    def start_call(self) -> None:
        super().start_call()
        _calls[self.parallel._id] = Files()

    def stop_call(self) -> None:
        files = _calls.pop(self.parallel._id, None)
        if files is not None:
            files.close()
        super().stop_call()


class _Reducer:
    """Has arrays in paged memory mapped, and leaves all others to joblib."""

    def __init__(self, otherwise: Any, manager: Any) -> None:
        self._otherwise = otherwise
        self._manager = manager

    def __reduce__(self) -> tuple[Any, ...]:
        # It is sent to workers, which never use it.
        return _itself, (self._otherwise,)

    def __call__(self, array: NDArray[Any]) -> tuple[Any, ...]:
        stock = self._otherwise
        files = _calls.get(self._manager._current_context_id)
        least = stock._max_nbytes
        if files is None or least is None or array.nbytes <= least or stock._mmap_mode not in _READ_ONLY:
            return stock(array)  # type: ignore[no-any-return]
        owner = owner_of(array)
        return stock(array) if owner is None else (mapped, (files.part(array, owner),))


def _itself(reducer: Any) -> Any:
    return reducer
