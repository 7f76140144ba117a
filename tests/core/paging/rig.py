"""Programs that page: each is a function of an engine, and runs in every mode in a process of its own.

    @in_each_mode(swap_size="16M")
    def test_a_sum_is_right(z: Zswap) -> None:
        ...

    def reads_a_lost_page(z: Zswap) -> None:
        ...

    def test_a_lost_page_is_a_sigbus(rig: Rig) -> None:
        assert rig.run(reads_a_lost_page).signal == signal.SIGBUS

The test is this side; the function runs in a child, where :func:`main` makes the engine, calls it, and afterwards waits
for background work, verifies every invariant, closes the engine and looks for leaks.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tests.support.child import Child, Finished
    from tests.support.zygote import Zygote

    from uzswap import MemCgroup, Zswap

PAGE = 4096
MIB = 1 << 20

#: Exit status of a program that cannot run here; the last line on stderr says why (as automake's test driver has it).
SKIPPED = 77

#: Seconds until a child counts as hung.  The slowest needs 5 s when nothing else runs.
PATIENCE = 240.0

#: Begins the reason of what is known not to work when it depends on the scheduler whether it shows.
BY_CHANCE = "by chance: "


class Mode(StrEnum):
    """How the pages of a program come and go."""

    #: the kernel's own accesses fault too: needs root, CAP_SYS_PTRACE, /dev/userfaultfd or the sysctl
    FULL = "full"
    #: as the user nobody: faults of system calls are EFAULT
    USER_ONLY = "user-only"
    #: full, with nothing that kernels before 6.8 lack: no UFFDIO_MOVE, no UFFDIO_POISON
    OLD_KERNEL = "old-kernel"
    #: as the user nobody, faults served in the faulting threads: Zswap(faults="signal")
    SIGNAL = "signal"

    @property
    def kernel_faults(self) -> bool:
        return self not in (Mode.USER_ONLY, Mode.SIGNAL)


# The test's side


def zygote(mode: Mode) -> Zygote:
    """What the programs of a mode are forked from."""
    from tests.support import child
    from tests.support.zygote import Zygote

    kind = child.Child if mode.kernel_faults else child.NobodysChild
    return Zygote(kind, ["pytest", "hypothesis.stateful", "tests.core.paging.rig", "tests.support.leaks"])


class Rig:
    """Starts programs in a mode."""

    def __init__(self, mode: Mode, zygote: Zygote) -> None:
        self.mode = mode
        self._zygote = zygote

    def start(self, program: Callable[..., None], options: Mapping[str, Any] | None = None, **arguments: Any) -> Child:
        """Start a program: `options` make its engine, `arguments` are its own; both must be fit for JSON."""
        task = [program.__module__, program.__name__, self.mode, dict(options or {}), arguments]
        code = f"from {__name__} import main; main(*__import__('json').loads(__import__('sys').argv[1]))"
        return self._zygote.child(code, [json.dumps(task)], timeout=PATIENCE)

    def run(self, program: Callable[..., None], options: Mapping[str, Any] | None = None, **arguments: Any) -> Finished:
        """Run a program to its end."""
        with self.start(program, options, **arguments) as running:
            return finish(running)


def finish(running: Child) -> Finished:
    """Wait for a program; skips the test when the program says that it cannot run here."""
    import pytest

    done = running.wait()
    if done.returncode == SKIPPED:
        pytest.skip(done.stderr.strip().rpartition("\n")[2])
    return done


def unless_known(well: bool, reason: str) -> None:
    """Of what is known not to work yet: an expected failure, or a failure when it does and not by chance."""
    import pytest

    if well and not reason.startswith(BY_CHANCE):
        pytest.fail(f"it works: take it out of what is known not to ({reason})", pytrace=False)
    pytest.xfail(reason)


def in_each_mode(
    known: Mapping[Mode, str] | None = None, **options: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a test of a program that has to end well.  What it takes beside the engine comes from ``parametrize``.

    `known` says in which modes it is known not to, and why; there the test fails when it does.
    """

    def make(program: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(program)
        def test(rig: Rig, **arguments: Any) -> None:
            done = rig.run(program, options, **arguments)
            if rig.mode in (known or {}):
                unless_known(done.returncode == 0, (known or {})[rig.mode])
            else:
                done.check()

        kind = inspect.Parameter.KEYWORD_ONLY
        names = ["rig", *list(inspect.signature(program).parameters)[1:]]
        test.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
        return test

    return make


# The program's side


def skip(reason: str) -> NoReturn:
    """End the program: it cannot run here."""
    print(reason, file=sys.stderr)
    os._exit(SKIPPED)


def main(module: str, name: str, mode: str, options: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Run a program, in a process of its own."""
    from tests.support.leaks import Snapshot

    from uzswap import Zswap

    choose(Mode(mode))
    tests = importlib.import_module(module)
    named = getattr(tests, name)
    program = getattr(named, "__wrapped__", named)
    warnings.simplefilter("error")
    if getattr(tests, "BLAS", False):
        np.dot(np.ones((200, 200)), np.ones((200, 200)))  # OpenBLAS starts its threads: a fork has ended them
    before = Snapshot.take()
    by = {"faults": "signal"} if Mode(mode) is Mode.SIGNAL else {}
    z = Zswap(**{"swap_size": "64M", **by, **options})
    require(z, Mode(mode))
    program(z, **arguments)
    gc.collect()
    z.flush_work()
    z.check()
    z.close()
    if leaked := before.leaked():
        sys.exit("left behind: " + "; ".join(leaked))
    # Nothing of uzswap is left that could end well or not, and to take an interpreter apart whose memory is shared with
    # its parent takes longer than most programs.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def choose(mode: Mode) -> None:
    """Have every engine of this process page in a mode."""
    from uzswap.core.boundary import memory

    if mode is Mode.USER_ONLY:
        memory.Memory = functools.partial(memory.Memory, user_mode_only=True)  # type: ignore[misc, assignment]
    elif mode is Mode.OLD_KERNEL:
        memory.Memory = functools.partial(memory.Memory, old_kernel=True)  # type: ignore[misc, assignment, call-arg]


def require(z: Zswap, mode: Mode) -> None:
    """Skip the program where arrays, or their mode, cannot be had."""
    try:
        memory = z.arena.open()
    except OSError as refused:
        skip(str(refused.strerror))
    if mode.kernel_faults and memory.info().user_mode_only:
        skip("user mode only: root, CAP_SYS_PTRACE or access to /dev/userfaultfd lets the kernel fault too")


def job(z: Zswap, memory_max: str = "4M", path: str = "/job") -> MemCgroup:
    """A cgroup with a memory.max."""
    group = z.cgroup(path)
    group.write("memory.max", memory_max)
    return group


def counting(n: int, seed: int = 0) -> NDArray[np.int64]:
    """`n` different numbers that compress well: 512 a page, no two pages the same."""
    return np.arange(n, dtype=np.int64) * (2 * seed + 1) + seed


def noise(n: int, seed: int = 0) -> NDArray[np.int64]:
    """`n` numbers that do not compress."""
    return np.random.default_rng(seed).integers(-(1 << 63), (1 << 63) - 1, n, np.int64)


def out_of_memory(z: Zswap, arr: NDArray[Any]) -> int:
    """Page an array out; how many of its bytes are not resident afterwards."""
    from uzswap import advise, info

    advise(arr, "pageout")
    z.flush_work()
    found = info(arr)
    return found.bytes - found.resident


def to_disk(z: Zswap, group: MemCgroup, arr: NDArray[Any]) -> int:
    """Page an array out and write it back; how many of its bytes are on the device afterwards."""
    from uzswap import ReclaimIncomplete, info

    out_of_memory(z, arr)
    with suppress(ReclaimIncomplete):
        group.reclaim("1G", source="zswap")
    return info(arr).disk


def events(group: MemCgroup) -> dict[str, int]:
    """memory.events."""
    return {key: int(value) for key, value in (line.split() for line in group.read("memory.events").splitlines())}


class Libc:
    """libc calls that fail with OSError.  They release the GIL."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = self._libc.mremap.restype = self._libc.memchr.restype = ctypes.c_void_p

    def __getattr__(self, name: str) -> Callable[..., int]:
        function = getattr(self._libc, name)

        def call(*arguments: int | None) -> int:
            result = function(*(ctypes.c_void_p(one) for one in arguments))
            if result == -1 or result == ctypes.c_void_p(-1).value:
                number = ctypes.get_errno()
                raise OSError(number, f"{name}: {os.strerror(number)}")
            return int(result or 0)

        return call


libc = Libc()


def address(arr: NDArray[Any], page: int = 0) -> int:
    """Where a page of an array is."""
    return int(arr.ctypes.data) + page * PAGE
