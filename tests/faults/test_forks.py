"""A child has nothing of what other threads of its parent were at: neither a lock, nor entries that nobody can free."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.child import run
from tests.support.soak import longer

if TYPE_CHECKING:
    from tests.conftest import Tally

SETTING = """
import faulthandler, os, signal, sys, threading, traceback, warnings
import numpy as np
import uzswap
from uzswap.core.boundary.engine import COUNTERS

faulthandler.dump_traceback_later(400, exit=True)
warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork: that is what is tried
z = uzswap.Zswap(swap="auto", swap_size="64M", max_pool="4M")
store = uzswap.Store(z.cgroup("/s"))

def noise(seed, n=100_000):
    return np.random.default_rng(seed).integers(0, 1 << 60, n)

def charged():
    names = ("resident", "zswap", "swap", "disk", "swapcached", "uzswap.metadata_bytes")
    found = dict(zip(COUNTERS, z.core.globals()))
    assert {"resident", "zswap", "swap"} <= set(found)
    return {name: found[name] for name in names if found.get(name)}

def in_child(work):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(100)  # hung, it ends the test
            work()
            store.close()
            z.flush_work()
            z.check()
            assert not charged(), charged()
            z.close()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def test_a_child_frees_what_was_stored_of_a_value_on_its_way_out(tally: Tally) -> None:
    """Its arrays are stored before the rest of it is pickled; there the thread that evicts it waits."""
    code = """
parent = os.getpid()
stored, go = threading.Event(), threading.Event()

class Waits:
    def __reduce__(self):
        if os.getpid() == parent and charged().get("zswap"):
            stored.set()
            go.wait()
        return Waits, ()

store["value"] = [noise(1), noise(2), Waits()]
thread = threading.Thread(target=store.reclaim, args=(1 << 30,), daemon=True)
thread.start()
stored.wait()

assert charged()["swap"] >= 2 * noise(1).nbytes

def work():
    assert "swap" not in charged()
    assert (store["value"][1] == noise(2)).all()

in_child(work)
go.set()
thread.join()
assert store.where("value") != "resident"
assert (store["value"][0] == noise(1)).all()
in_child(lambda: None)
"""
    run(SETTING + code).check()
    tally("forks", 2)


@pytest.mark.slow
def test_children_free_all_whatever_threads_were_storing_and_freeing(tally: Tally) -> None:
    code = """
forks = int(sys.argv[1])
stop = threading.Event()
failed = []

def use(seed):
    rng = np.random.default_rng(seed)
    try:
        while not stop.is_set():
            key = int(rng.integers(0, 6))
            match rng.integers(0, 4):
                case 0:
                    store[seed, key] = [noise(key), b"x" * 30_000, bytes(noise(key, 50))]
                case 1:
                    store.reclaim(int(rng.integers(1, 3 << 20)))
                case 2:
                    value = store.get((seed, key))
                    assert value is None or (value[0] == noise(key)).all()
                    del value
                case _:
                    store.discard((seed, key))
    except BaseException as error:
        failed.append(error)
        raise

threads = [threading.Thread(target=use, args=(seed,), daemon=True) for seed in range(2)]
for thread in threads:
    thread.start()
for _ in range(forks):
    in_child(lambda: None)
stop.set()
for thread in threads:
    thread.join()
assert not failed
in_child(lambda: None)
"""
    forks = longer(20, 100)
    run(SETTING + code, [str(forks)], timeout=500).check()
    tally("forks", forks)
