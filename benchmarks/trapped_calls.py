"""What it costs that system calls on arrays are trapped: those on arrays, and all others of the process.

python -m benchmarks.trapped_calls
"""

from __future__ import annotations

import ctypes
import functools
import tempfile
from collections.abc import Callable

import uzswap
from benchmarks.common import console, table
from benchmarks.reference import compiled
from uzswap.core.boundary import memory

MIB = 1 << 20
RUNS = 7
#: bytes of a pread -> times that it is called in a run
SIZES = {64: 20_000, MIB: 100}


def fastest_us(call: Callable[[], float]) -> float:
    return min(call() for _ in range(RUNS)) / 1000


def main() -> None:
    library = compiled("trapped_calls.c")
    library.time_pread.restype = library.time_getppid.restype = ctypes.c_double
    buffer = ctypes.create_string_buffer(MIB)
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(bytes(MIB))

        def pread(at: object, size: int) -> float:
            return fastest_us(lambda: library.time_pread(file.fileno(), at, ctypes.c_size_t(size), SIZES[size]))

        def others() -> list[float]:
            return [fastest_us(lambda: library.time_getppid(100_000)), *(pread(buffer, size) for size in SIZES)]

        without = others()
        # Also for root, whom the kernel gives more.
        memory.Memory = functools.partial(memory.Memory, user_mode_only=True)  # type: ignore[misc, assignment]
        with uzswap.Zswap(swap_size="64M") as z:
            x = uzswap.ones(MIB, "u1", cgroup=z.cgroup("/bench"))
            if uzswap.info(x).mode != "trapped":
                raise SystemExit("system calls cannot be trapped here: see uzswap doctor")
            behind = others()
            trapped = [None, *(pread(ctypes.c_void_p(x.ctypes.data), size) for size in SIZES)]
            del x
    found = table("call, us", "without", "with the filter", "on an array")
    names = ["getppid", *(f"pread of {size} bytes" for size in SIZES)]
    for name, before, after, on_array in zip(names, without, behind, trapped, strict=True):
        found.add_row(name, f"{before:.2f}", f"{after:.2f}", "" if on_array is None else f"{on_array:.2f}")
    console.print(found)


if __name__ == "__main__":
    main()
