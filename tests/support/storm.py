"""A storm of signals whose handlers raise, or use the engine, at random moments of store and page loops.

    python -m tests.support.storm SEED INTERRUPTS

A program for a child process: what it finds wrong is an AssertionError, what hangs is told by faulthandler.  With a
handler between any two bytecodes the program's own notes have to hold at each of them: what may be true is noted before
a call, what is true after it.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import random
import signal
import sys
import threading
from types import FrameType
from typing import Any

import numpy as np

import uzswap

#: Seconds without which a storm is hung, whatever the machine does.
DEADLINE = 300.0


class Stop(KeyboardInterrupt):
    """What the handler raises."""


class Storm:
    """The engine, what may be in it, and the signals."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.z = uzswap.Zswap(swap_size="64M", max_pool="2M")
        self.group = self.z.cgroup("/store")
        self.pages_group = self.z.cgroup("/pages")
        self.group.write("memory.max", "768K")
        self.pages_group.write("memory.zswap.max", "256K")
        self.store: uzswap.Store[int, Any] = uzswap.Store(self.group)
        #: key -> the versions that its value may have; 0 is none
        self.may: dict[int, set[int]] = {key: {0} for key in range(120)}
        self.pages: dict[int, Any] = {}
        self.freed: set[int] = set()
        self.version = 0
        self.armed = False
        self.raised = 0

    # Values

    def make(self, key: int, version: int) -> Any:
        kind = key % 4
        if kind == 0:
            return [key, version, *range(600)]
        if kind == 1:
            return np.full(4000, key * 1_000_000 + version)
        if kind == 2:
            return f"{key} {version} ".encode() * 1500
        return {"key": key, "version": version, "text": [f"{i * version}" for i in range(100)]}

    def version_of(self, key: int, value: Any) -> int:
        """Which version this is, having compared all of it."""
        kind = key % 4
        if kind == 0:
            version = value[1]
        elif kind == 1:
            version = int(value[0]) - key * 1_000_000
        elif kind == 2:
            version = int(value.split(b" ", 2)[1])
        else:
            version = value["version"]
        expected = self.make(key, version)
        assert np.array_equal(value, expected) if kind == 1 else value == expected, (key, version)
        return version

    def saw(self, key: int, value: Any) -> None:
        version = 0 if value is None else self.version_of(key, value)
        assert version in self.may[key], (key, version, self.may[key])
        self.may[key] = {version}

    # Steps; each may be left by an exception between any two bytecodes

    def step(self) -> None:
        key = self.rng.randrange(len(self.may))
        self.rng.choice(
            (self.get, self.get, self.set, self.set, self.pop, self.delete, self.reclaim, self.swap_out, self.load)
        )(key)

    def get(self, key: int) -> None:
        self.saw(key, self.store.get(key))

    def set(self, key: int) -> None:
        self.version += 1
        version = self.version
        value = self.make(key, version)
        self.may[key] = self.may[key] | {version}
        self.store[key] = value
        self.may[key] = {version}

    def pop(self, key: int) -> None:
        before = self.may[key]
        self.may[key] = before | {0}
        value = self.store.pop(key, None)
        version = 0 if value is None else self.version_of(key, value)
        assert version in before, (key, version, before)
        self.may[key] = {0}

    def delete(self, key: int) -> None:
        self.may[key] = self.may[key] | {0}
        self.store.discard(key)
        self.may[key] = {0}

    def reclaim(self, key: int) -> None:
        try:
            if key % 3 == 0:
                self.store.reclaim(key << 12)
            elif key % 3 == 1:
                self.group.reclaim(key << 10)
            else:
                self.z.root.reclaim(key << 10, source="zswap")
        except uzswap.ReclaimIncomplete:
            pass

    def swap_out(self, key: int) -> None:
        if len(self.pages) < 40:
            data = np.random.default_rng(key).integers(0, 4, 4096 * (key % 5 + 1), dtype=np.uint8)
            self.pages[self.version] = (self.z.swap_out_many(data, self.pages_group), data)
            self.version += 1

    def load(self, key: int) -> None:
        if not self.pages:
            return
        number = self.rng.choice(list(self.pages))
        self.read(number)
        if key % 2 and number in self.pages:
            handles = self.pages[number][0]
            self.freed.add(number)
            if key % 3:
                self.z.fault_in_many(handles)
            else:
                self.z.free_many(handles)
            del self.pages[number]

    def read(self, number: int) -> None:
        handles, data = self.pages[number]
        if not handles.all():
            del self.pages[number]
            return
        try:
            assert (self.z.fault_in_many(handles, consume=False) == data).all(), number
        except uzswap.StaleHandleError:
            assert number in self.freed, number
            del self.pages[number]

    # The signals

    def handler(self, number: int, frame: FrameType | None) -> None:
        if not self.armed:
            return
        if self.rng.random() < 0.2:
            # Uses the engine; it may meet a value that this very thread is loading.
            key = self.rng.randrange(len(self.may))
            try:
                value = self.store.get(key)
                assert value is None or self.version_of(key, value) in self.may[key], key
                self.group.read("memory.current")
                self.store.reclaim(1 << 14)
            except RuntimeError as error:
                assert "needs itself" in str(error)
        self.armed = False
        self.raised += 1
        raise Stop

    def rage(self, interrupts: int) -> None:
        signal.signal(signal.SIGALRM, self.handler)
        try:
            while self.raised < interrupts:
                delay = self.rng.choice((2e-5, 1e-4, 1e-3)) * (0.5 + self.rng.random())
                with contextlib.suppress(Stop):
                    signal.setitimer(signal.ITIMER_REAL, delay, 0.01)
                    while True:
                        # Again: an import or a finalizer may have swallowed the last one.
                        self.armed = True
                        self.step()
        finally:
            self.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    # Afterwards

    def settle(self) -> None:
        """Everything is as it should be, for this thread and for others."""
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        self.z.flush_work()
        self.z.check()
        self.store.check()
        wrong: list[BaseException] = []

        def read_everything() -> None:
            try:
                for key in self.may:
                    self.saw(key, self.store.get(key))
                for number in list(self.pages):
                    self.read(number)
            except BaseException as error:
                wrong.append(error)

        reader = threading.Thread(target=read_everything)
        reader.start()
        reader.join()
        if wrong:
            raise wrong[0]
        self.store.clear()
        self.z.flush_work()
        charged = {name: int(self.group.read(name)) for name in ("memory.current", "memory.swap.current")}
        assert not any(charged.values()), charged
        self.store.close()
        self.group.remove()
        self.z.close()
        assert self.z.core.closed
        try:
            self.z.cgroup("/a")
        except OSError as error:
            assert error.errno == errno.EBADF


def main() -> None:
    seed, interrupts = map(int, sys.argv[1:])
    faulthandler.dump_traceback_later(DEADLINE, exit=True)
    storm = Storm(seed)
    storm.rage(interrupts)
    storm.settle()
    print(storm.raised, "interrupts")


if __name__ == "__main__":
    main()
