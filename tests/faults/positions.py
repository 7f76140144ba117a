"""One run for each position at which a call can fail: a child each, until a run meets no fault.

    python -m tests.faults.positions DIRECTORY SEED STEPS plain|encrypted KIND:MODE:ERRNO:STRIDE...

A program that has support/failing.c preloaded.  Everything is imported once; a run is a fork of that, with an engine of
its own, whose history (world.py) meets the fault at the n-th call of a kind.  It ends with a comparison of everything,
an engine in which nothing is left, and a process that has no more descriptors, threads and mappings than before.
"""

from __future__ import annotations

import errno
import faulthandler
import json
import os
import select
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from tests.faults.world import World
from tests.support import failing
from tests.support.leaks import Snapshot

import uzswap.arrays.advice
import uzswap.arrays.array
import uzswap.store.store  # noqa: F401

#: Seconds without which a run is hung, whatever the machine does.
DEADLINE = 120
#: Modes that lose or change bytes, which has to be found, but can't be helped.
LIES = ("torn", "lost", "flip", "astray")
#: Of the engine: enough segments for some to be given back.
OPTIONS: dict[str, dict[str, Any]] = {"fallocate": {"swap_size": "32M", "max_pool": "64K"}}


def one(seed: int, steps: int, encrypt: bool, kind: str, mode: str, number: int, after: int) -> dict[str, Any]:
    """A history with one fault.  What it met and compared."""
    lies = mode in LIES and kind != "fallocate"
    before = Snapshot.take()
    if kind == "pwrite":
        failing.plan("io_setup", count=1 << 40, errno=errno.EAGAIN)
    elif kind == "sync_file_range":
        failing.refuse_direct()
    failing.plan(kind, after, errno=number, mode=mode)
    try:
        world = World(seed, lies, encrypt=encrypt, **OPTIONS.get(kind, {}))
    except (OSError, MemoryError):
        assert failing.struck(kind), "an engine could not be made, and nothing failed"
        # The next one is.
        world = World(seed, lies, encrypt=encrypt)
    world.heal = lambda: failing.plan(kind, count=0)
    world.struck = lambda: failing.struck(kind)
    if kind == "fallocate":
        world.attempt(world.churn)
    world.run(steps)
    struck = failing.struck(kind)
    world.heal()
    world.settle()
    told = {"struck": struck, "compared": world.compared, "damaged": world.damaged, "errors": dict(world.errors)}
    del world
    leaked = before.leaked()
    assert not leaked, leaked
    return told


def run(*what: Any) -> dict[str, Any]:
    """:func:`one` in a child; what it says, or its end in words."""
    read, write = os.pipe()
    with tempfile.TemporaryFile() as log:
        pid = os.fork()
        if pid == 0:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            faulthandler.enable(log)
            faulthandler.register(signal.SIGTERM, log, all_threads=True, chain=True)
            status = 1
            try:
                os.close(read)
                told = json.dumps(one(*what)).encode()
                os.write(write, told)
                status = 0
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
                sys.__stderr__.flush()  # type: ignore[union-attr]
            finally:
                os._exit(status)
        os.close(write)
        fd = os.pidfd_open(pid)
        hung = not select.select([fd], [], [], DEADLINE)[0]
        if hung:
            os.kill(pid, signal.SIGTERM)
            if not select.select([fd], [], [], 5)[0]:
                os.kill(pid, signal.SIGKILL)
        os.close(fd)
        status = os.waitpid(pid, 0)[1]
        with os.fdopen(read, "rb") as pipe:
            answer = pipe.read()
        if status == 0 and not hung:
            return dict(json.loads(answer))
        log.seek(0)
        how = "hung" if hung else f"ended with {os.waitstatus_to_exitcode(status)}"
        return {"wrong": f"{how}\n{log.read().decode(errors='replace')}"}


def every(directory: str, seed: int, steps: int, encrypt: bool, what: str) -> dict[str, Any]:
    """Every stride-th position of one kind of fault, from another one on for each seed."""
    kind, mode, name, stride = what.split(":")
    number = getattr(errno, name) if name else 0
    total: dict[str, Any] = {"positions": 0, "struck": 0, "compared": 0, "damaged": 0, "errors": {}, "wrong": []}
    after = seed % int(stride)
    while True:
        told = run(seed, steps, encrypt, kind, mode, number, after)
        total["positions"] += 1
        if "wrong" in told:
            total["wrong"].append(f"{what} at {after} of seed {seed}, {steps} steps, {encrypt=}: {told['wrong']}")
            if len(total["wrong"]) > 3:
                return total
            after += int(stride)
            continue
        for key in ("struck", "compared", "damaged"):
            total[key] += told[key]
        for error, times in told["errors"].items():
            total["errors"][error] = total["errors"].get(error, 0) + times
        left = sorted(path.name for path in Path(directory).iterdir())
        if left:
            total["wrong"].append(f"{what} at {after}: files were left: {left}")
        if not told["struck"]:
            return total
        after += int(stride)


def main() -> None:
    directory, seed, steps, how, *kinds = sys.argv[1:]
    os.environ["TMPDIR"] = tempfile.tempdir = directory
    failing.only("/uzswap/")
    for what in kinds:
        print(json.dumps(every(directory, int(seed), int(steps), how == "encrypted", what)), flush=True)


if __name__ == "__main__":
    main()
