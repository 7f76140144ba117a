"""Real limits of a process and a real full disk, in the middle of a history (world.py): nothing is lost or wrong.

Each is set when the engine has stored for a while, and lifted before all is compared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support import failing
from tests.support.child import run
from tests.support.small_disk import small_tmpfs
from tests.support.soak import longer

if TYPE_CHECKING:
    from tests.conftest import Tally

LIMITED = """
import contextlib, ctypes, json, os, resource, sys
import uzswap.arrays.advice, uzswap.arrays.array, uzswap.store.store
from tests.faults.world import World

what, seed, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

@contextlib.contextmanager
def limited(which, soft):
    was = resource.getrlimit(which)
    resource.setrlimit(which, (soft, was[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, was)

def address_space():
    pages = int(open("/proc/self/statm").read().split()[0])
    return limited(resource.RLIMIT_AS, pages * 4096 + (3 << 20))

def descriptors():
    return limited(resource.RLIMIT_NOFILE, len(os.listdir("/proc/self/fd")) - 1)

def file_size():
    return limited(resource.RLIMIT_FSIZE, 1 << 20)

def locked():
    return limited(resource.RLIMIT_MEMLOCK, 0)

@contextlib.contextmanager
def maps():
    # Each page of its own protection is a mapping, until vm.max_map_count says no.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    most = int(open("/proc/sys/vm/max_map_count").read())
    if most > 200_000:
        print("vm.max_map_count is", most)
        sys.exit(77)
    nbytes = (most + 1000) * 4096
    at = libc.mmap(None, nbytes, 0, 0x4022, -1, 0)
    used = next(i for i in range(1, most + 1000, 2) if libc.mprotect(at + i * 4096, 4096, 1) < 0)
    try:
        yield
    finally:
        libc.munmap(at, nbytes)

LIMITS = {"RLIMIT_AS": address_space, "RLIMIT_NOFILE": descriptors, "RLIMIT_FSIZE": file_size,
          "RLIMIT_MEMLOCK": locked, "vm.max_map_count": maps, "": contextlib.nullcontext}
world = World(seed)
world.run(steps // 3)
# A child that is forked at a limit may not have what its parent has, and says so: it ends at once.
world.struck = lambda forks=iter(range(1 << 30)): next(forks) if what else 0
with LIMITS[what]():
    world.run(steps)
world.struck = lambda: 0
world.run(steps // 3)
world.settle()
print(json.dumps({"compared": world.compared, "errors": world.errors}))
"""


def tell(tally: Tally, stdout: str) -> None:
    tally("bytes compared", json.loads(stdout.splitlines()[-1])["compared"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", longer([1, 2], [1, 2, 3, 4]))
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_MEMLOCK", "vm.max_map_count"])
def test_nothing_is_lost_at_a_limit_of_the_process(tmp_path: Path, tally: Tally, limit: str, seed: int) -> None:
    done = run(
        LIMITED, [limit, str(seed), str(longer(60, 150))], env={"TMPDIR": str(tmp_path)}, timeout=100, fresh=True
    )
    if done.returncode == 77:
        pytest.skip(f"{done.stdout.strip()}: sysctl vm.max_map_count=65530")
    tell(tally, done.check().stdout)


@pytest.mark.slow
@pytest.mark.parametrize("seed", longer([1], [1, 2, 3, 4]))
@pytest.mark.parametrize("nbytes", [0, 1 << 20, 3 << 20])
def test_nothing_is_lost_when_the_file_system_is_full(tally: Tally, nbytes: int, seed: int) -> None:
    """The swap file may have 4 to 16 MiB, and there are less."""
    with small_tmpfs(nbytes + 4096) as where:
        done = run(LIMITED, ["", str(seed), str(longer(80, 150))], env={"TMPDIR": str(where)})
        tell(tally, done.check().stdout)


@pytest.mark.slow
def test_nothing_is_lost_when_the_clock_jumps(tmp_path: Path, tally: Tally) -> None:
    """The wall clock, by years, in both directions."""
    code = LIMITED.replace(
        "LIMITS = {",
        """
from tests.support import failing

@contextlib.contextmanager
def clock():
    failing.set_clock(10**8)
    world.run(steps)
    failing.set_clock(-(10**8))
    yield
    failing.set_clock(0)

LIMITS = {"clock": clock, """,
    )
    env = {"TMPDIR": str(tmp_path), **failing.preloaded()}
    tell(tally, run(code, ["clock", "1", str(longer(40, 300))], env=env).check().stdout)
