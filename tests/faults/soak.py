"""Histories (world.py), one after the other in one process, as it was after them, and killed processes.

    python -m tests.faults.soak stay DIRECTORY SEED BYTES
    python -m tests.faults.soak kill DIRECTORY SEED KILLS

Programs for a child process.  The first has some histories, and then so much data in engines (bulk.py) that so many
bytes were compared, and looks at what the process holds after each; the second kills a child that is in the middle of
a history, at a random moment, again and again, and looks at what is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests.faults.bulk import Bulk
from tests.faults.world import World
from tests.support.leaks import Snapshot

import uzswap.arrays.advice
import uzswap.arrays.array
import uzswap.store.store  # noqa: F401
from uzswap import Zswap

STEPS = 150
#: Histories, and those after which a process has met all that is made once.
HISTORIES = 9
WARM_UP = 6
#: Changes and comparisons of one engine with much data.
ROUNDS = 8
#: of <linux/prctl.h>: orphans among the descendants become children
PR_SET_CHILD_SUBREAPER = 36
#: What RSS may differ by, in bytes, whatever the number of histories: the C library's and Python's heaps have holes.
HOLES = 48 << 20


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def maps() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def used(directory: str) -> int:
    """Blocks of files without a name that are open there count, too."""
    return sum(
        os.stat(f"/proc/self/fd/{fd}").st_blocks
        for fd in os.listdir("/proc/self/fd")
        if os.path.realpath(f"/proc/self/fd/{fd}").startswith(directory)
    )


def history(seed: int) -> int:
    """Bytes compared."""
    world = World(seed)
    world.run(STEPS)
    world.settle()
    return world.compared


def much(seed: int) -> tuple[int, int]:
    """Bytes compared, and children that compared some of them."""
    bulk = Bulk(seed)
    for n in range(ROUNDS):
        bulk.change()
        bulk.compare()
        if n == ROUNDS // 2:
            bulk.compare_in_child()
    bulk.close()
    return bulk.compared, bulk.children


def stay(directory: str, seed: int, nbytes: int) -> dict[str, int]:
    before = Snapshot.take()
    compared = forks = n = 0
    first = (0, 0)
    while compared < nbytes or n < HISTORIES:
        if n < HISTORIES and n != WARM_UP - 1:
            compared += history(seed + n)
        else:
            more, children = much(seed + n)
            compared += more
            forks += children
        n += 1
        leaked = before.leaked()
        assert not leaked, leaked
        assert not os.listdir(directory), os.listdir(directory)
        assert not used(directory)
        now = resident(), maps()
        if n == WARM_UP:
            first = now
    assert now[0] < first[0] + HOLES, f"RSS was {first[0]} after {WARM_UP} turns, and is {now[0]} after {n}"
    assert now[1] < first[1] + 40, f"{first[1]} mappings after {WARM_UP} turns, {now[1]} after {n}"
    return {"compared": compared, "forks": forks, "turns": n, "rss": now[0] - first[0], "maps": now[1] - first[1]}


def kill(directory: str, seed: int, kills: int) -> dict[str, int]:
    rng = random.Random(seed)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    named = os.path.join(directory, "named")
    os.mkdir(os.path.join(directory, "unnamed"))
    os.environ["TMPDIR"] = tempfile.tempdir = os.path.join(directory, "unnamed")
    for n in range(kills):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            try:
                world = World(seed + n, **({"swap": named} if n % 3 == 0 else {}))
                os.write(write, b"x")
                while True:
                    world.run(STEPS)
            finally:
                os._exit(1)
        os.close(write)
        assert os.read(read, 1) == b"x"
        os.close(read)
        time.sleep(rng.random() ** 3 * 0.2)  # not a wait for anything: the moment
        number = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
        os.killpg(pid, number)
        status = os.waitpid(pid, 0)[1]
        assert os.waitstatus_to_exitcode(status) == -number, status
        # A child of its own has its parent's file until it is gone, too.
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        assert not os.listdir(os.path.join(directory, "unnamed"))
        if n % 3 == 0:
            # A file with a name stays; whoever is given it has nothing of what was there.
            with Zswap(swap=named, swap_size="4M") as z:
                assert z.fault_in(z.swap_out(b"mine" * 1024, z.cgroup("/a"))) == b"mine" * 1024
            assert not any(Path(named).read_bytes())
            os.unlink(named)
    return {"kills": kills}


def main() -> None:
    warnings.simplefilter("ignore", DeprecationWarning)
    what, directory, seed, amount = sys.argv[1:]
    os.environ["TMPDIR"] = tempfile.tempdir = directory
    told = (stay if what == "stay" else kill)(directory, int(seed), int(amount))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
