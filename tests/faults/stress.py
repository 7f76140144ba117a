"""Everything at once, at random: stores, pages and arrays of several threads, with limits, reclaim, rmdir, codecs,
forks, and interrupts between any two bytecodes; then a close under way.

    python -m tests.faults.stress SEED STEPS

A program for a child process.  Each thread has a history and a model of its own (world.py) in one engine, and turns the
knobs of the others' cgroups.  What it finds wrong is an AssertionError, what hangs is told by faulthandler; the same
seed draws the same histories, not the same moments.
"""

from __future__ import annotations

import errno
import faulthandler
import json
import os
import random
import signal
import sys
import threading
import traceback
import warnings
from types import FrameType

from tests.faults.world import World

# What is imported as it is used is imported now: CPython's import locks do not stand interrupts.
import uzswap.arrays.advice
import uzswap.arrays.array
import uzswap.store.store  # noqa: F401
from uzswap import Zswap

#: Seconds without which it is hung, whatever the machine does.
DEADLINE = 400.0
THREADS = 3


class Interrupt(KeyboardInterrupt):
    """What a signal handler raises in the main thread, wherever it is."""


class Worker(World):
    """One thread of it."""

    def __init__(self, seed: int, z: Zswap, prefix: str, steps_left: int) -> None:
        super().__init__(seed, z=z, prefix=prefix)
        self.steps_left = steps_left
        self.interrupts = 0
        self.children = 0
        #: Whether it may be interrupted now.
        self.armed = False
        self.wrong: str | None = None
        #: Whether no other thread is there that may reclaim from its cgroups.
        self.alone = False
        #: None: it is the main one.
        self.thread: threading.Thread | None = None

    def handler(self, number: int, frame: FrameType | None) -> None:
        if self.armed:
            self.armed = False
            self.interrupts += 1
            raise Interrupt

    def work(self) -> None:
        try:
            for _ in range(self.steps_left):
                try:
                    self.armed = self.thread is None
                    self.attempt(self.rng.choice(self.steps))
                    self.armed = False
                except Interrupt:
                    self.interrupted()
            self.compare()
        except BaseException:
            self.armed = False
            self.wrong = f"{self.doing}\n{traceback.format_exc()}"

    def look_into_store(self) -> None:
        if self.alone:
            super().look_into_store()

    def fork(self) -> None:
        """A child has what is this thread's: of the others' it does not know."""
        if self.rng.random() < 0.7:
            return
        armed, self.armed = self.armed, False
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                # Not faulthandler's timer, whose lock is not renewed in a child.
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(int(DEADLINE / 2))
                self.alone = True
                self.compare()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        self.children += 1
        ended = os.waitpid(pid, 0)[1]
        self.armed = armed
        assert ended == 0, f"the child ended with {os.waitstatus_to_exitcode(ended)}"

    def until_closed(self) -> None:
        """Go on until the engine is closed, which is EBADF."""
        steps = (self.put, self.take, self.set, self.get, self.reclaim, self.write_back)
        try:
            while True:
                try:
                    self.rng.choice(steps)()
                except OSError as error:
                    if error.errno == errno.EBADF:
                        return
        except BaseException:
            self.wrong = traceback.format_exc()


def main() -> None:
    seed, steps = map(int, sys.argv[1:])
    faulthandler.dump_traceback_later(DEADLINE, exit=True)
    warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork: that is what is tried
    rng = random.Random(seed)
    z = Zswap(swap_size="16M", max_pool=rng.choice(("256K", "1M")), paranoid=rng.random() < 0.5)
    workers = [Worker(seed * 100 + k, z, f"/t{k}", steps) for k in range(THREADS)]
    for worker in workers:
        worker.peers = [other.prefix for other in workers]
    main_one, *others = workers
    for worker in others:
        worker.thread = threading.Thread(target=worker.work, name=worker.prefix)
        worker.thread.start()
    signal.signal(signal.SIGALRM, main_one.handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0017)
    main_one.work()
    signal.setitimer(signal.ITIMER_REAL, 0)
    for worker in others:
        assert worker.thread is not None
        worker.thread.join()
    wrong = [worker.wrong for worker in workers if worker.wrong]
    assert not wrong, "\n".join(wrong)
    z.flush_work()
    z.check()
    for worker in workers:
        worker.alone = True
        worker.look_into_store()
        worker.arrays.clear()
    for worker in workers:
        worker.thread = threading.Thread(target=worker.until_closed)
        worker.thread.start()
    z.close()
    for worker in workers:
        assert worker.thread is not None
        worker.thread.join()
    wrong = [worker.wrong for worker in workers if worker.wrong]
    assert not wrong, "\n".join(wrong)
    assert z.core.closed
    told = {
        "interrupts": sum(worker.interrupts for worker in workers),
        "children": sum(worker.children for worker in workers),
        "compared": sum(worker.compared for worker in workers),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
