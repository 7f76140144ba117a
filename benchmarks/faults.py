"""benchmarks/faults.c: what a page fault costs by who serves it, and what it costs to tell modified pages."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from functools import cache, partial

from benchmarks.common import Contest, Run, stopwatch
from benchmarks.reference import PAGE, Bytes, Compare, compiled, first_touch_us

#: Pages that one run touches, each once: a run takes 0.01 to 0.3 seconds.
PAGES = 4096

FIRST_TOUCH = "plain first touch, no userfaultfd"
PER_CPU = "a thread pinned to each CPU (uzswap)"
SIGBUS = "SIGBUS handler in the faulting thread"

_NOBODY = -1


@cache
def _library() -> ctypes.CDLL:
    library = compiled("faults.c")
    library.faults_missing.restype = ctypes.c_int64
    return library


def _cpu_list(cpus: list[int]) -> ctypes.Array[ctypes.c_int]:
    return (ctypes.c_int * len(cpus))(*cpus)


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


def _missing(faulter: int, servers: list[int]) -> float:
    took = _library().faults_missing(ctypes.c_int64(PAGES), faulter, _cpu_list(servers), len(servers))
    return _check(took, "a fault served by UFFDIO_COPY") / PAGES / 1e9


def ways() -> dict[str, Run]:
    """Who serves the fault -> seconds for one page brought by UFFDIO_COPY.  The faulting thread is not pinned, except
    where a row says so."""
    cpus = sorted(os.sched_getaffinity(0))
    found: dict[str, Run] = {
        FIRST_TOUCH: lambda: first_touch_us(PAGES * PAGE) / 1e6,
        "one thread, both pinned to one CPU": partial(_missing, cpus[0], [cpus[0]]),
        "one thread, pinned to another CPU": partial(_missing, cpus[0], [cpus[-1]]),
        "one thread, nothing pinned": partial(_missing, _NOBODY, [_NOBODY]),
        PER_CPU: partial(_missing, _NOBODY, cpus),
        SIGBUS: partial(_missing, _NOBODY, []),
    }
    if len(cpus) == 1:
        del found["one thread, pinned to another CPU"]
    return found


def _protected(part: int, servers: list[int]) -> float:
    times = (ctypes.c_int64 * 3)()
    _check(_library().faults_protected(ctypes.c_int64(PAGES), _cpu_list(servers), len(servers), times), "write-protect")
    return times[part] / PAGES / 1e9


def _async(part: int) -> float:
    times = (ctypes.c_int64 * 3)()
    _check(_library().faults_async(ctypes.c_int64(PAGES), times), "WP_ASYNC")
    return times[part] / PAGES / 1e9


def _compare(pages: Bytes) -> Run:
    loop = Compare(pages)

    def run() -> float:
        with stopwatch() as elapsed:
            loop.run()
        return elapsed() / (pages.size // PAGE)

    return run


def _works(run: Run) -> bool:
    """Whether this kernel has it."""
    try:
        run()
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM):
            raise
        return False
    return True


def recognitions(samples: Iterator[tuple[str, Bytes]]) -> Iterator[tuple[str, Run]]:
    """(What is done, seconds a page) for both ways to tell which pages were modified; what this kernel has not is left
    out."""
    cpus = sorted(os.sched_getaffinity(0))
    runs: dict[str, Run] = {
        "write-protect, 64 pages a call": partial(_protected, 0, cpus),
        "first write, resolved by a thread pinned to each CPU": partial(_protected, 1, cpus),
        "first write, resolved in a SIGBUS handler": partial(_protected, 1, []),
        "write-protect with WP_ASYNC, 64 pages a call": partial(_async, 0),
        "first write, resolved by the kernel (WP_ASYNC)": partial(_async, 1),
        "PAGEMAP_SCAN for written pages, 64 pages a call": partial(_async, 2),
    }
    yield from ((name, run) for name, run in runs.items() if _works(run))
    for kind, pages in samples:
        yield f"decompress and compare: {kind}", _compare(pages[: PAGES * PAGE])


def contest(runs: dict[str, Run], reference: str, rounds: int) -> Contest:
    """All of them in turns."""
    held = Contest(reference)
    for name, run in runs.items():
        held.add(name, run)
    held.hold(rounds)
    return held


def refused() -> str:
    """Why there are no faults to be served here; empty when there are."""
    try:
        _missing(_NOBODY, [_NOBODY])
    except OSError as error:
        return str(error)
    return ""
