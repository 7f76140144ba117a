"""fork(): the child has its parent's stores as they were, whatever threads were at, and both go on by themselves."""

from __future__ import annotations

from tests.support.child import run

#: A store with a bit of everything, and `child(work)`, which forks a child that works; `ended(pid)` waits for it.
SETTING = """
import faulthandler, gc, os, signal, threading, traceback
from contextlib import suppress
import numpy as np
import uzswap
from tests.core.store.test_codecs import records
from uzswap.store.compression import Compression

faulthandler.dump_traceback_later(100, exit=True)
z = uzswap.Zswap(swap_size="64M")
group = z.cgroup("/jobs/a")
group.write("memory.max", "16M")
store = uzswap.Store(group)
compression = next(one for one in gc.get_referents(store._slots) if isinstance(one, Compression))
dictionaries = compression.dictionaries

def child(work):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(120)  # hung, it ends the test
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)

def ended(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

def large(i):
    return np.random.default_rng(i).integers(0, 1 << 60, 40_000)

def text(i):
    return f"a string of many {i}" * 3

small = [bytes(one) for one in records(3000)]

def copy(one):
    # What others refer to does not go.
    return bytes(bytearray(one))

def write_back(nbytes):
    with suppress(uzswap.ReclaimError):  # there may be less
        group.reclaim(nbytes, source="zswap")

def fill():
    for i, one in enumerate(small):
        store["record", i] = copy(one)
    for i in range(500):
        store["text", i] = text(i)
    for i in range(8):
        store["large", i] = large(i)

def same(found, expected):
    return (found == expected).all() if isinstance(expected, np.ndarray) else found == expected

def everything():
    expected = {("record", i): one for i, one in enumerate(small)}
    expected |= {("text", i): text(i) for i in range(500)}
    return expected | {("large", i): large(i) for i in range(8)}

def has_all(without=()):
    expected = {key: value for key, value in everything().items() if key not in without}
    found = store.get_many(list(expected)[:1000])
    for key, value in expected.items():
        assert same(found[key] if key in found else store[key], value), key

def until_waits(thread):
    # for what another one loads
    while not any(str(thread.ident) in wrong for wrong in store._slots.check()):
        os.sched_yield()

def close():
    store.check()
    store.close()
    z.flush_work()
    z.check()
    z.close()
"""


def test_parent_and_child_go_on_by_themselves() -> None:
    """Packed strings, records with a dictionary, arrays on the disk; and more of each on both sides."""
    code = """
fill()
store.reclaim(1 << 30)
dictionaries.flush()
assert dictionaries.trained
for i, one in enumerate(small):  # with the dictionary
    store["record", i] = copy(one)
store.reclaim(1 << 30)
write_back("1M")
assert {"zswap", "disk"} <= {store.where(key) for key in store}

def goes_on(mark):
    for turn in range(3):
        for i in range(0, 500, 5):
            store["text", i] = mark + str(i + turn)
        store["large", 3] = large(100 + turn)
        store.discard(("record", turn))
        store.reclaim(1 << 30)
        write_back("8M")
        assert store["text", 5] == mark + str(5 + turn)
        assert same(store["large", 3], large(100 + turn))
    for i in range(3000):  # and dictionaries of its own
        store["more", i] = (mark + str(i) * 20).encode()
    store.reclaim(1 << 30)
    dictionaries.flush()
    assert all(store["more", i] == (mark + str(i) * 20).encode() for i in range(3000))
    store.prefetch(("text", i) for i in range(500))
    store._slots.settle()
    changed = {("text", i) for i in range(0, 500, 5)} | {("record", i) for i in range(3)} | {("large", 3)}
    has_all(changed)
    assert not {("record", i) for i in range(3)} & set(store)

def work():
    has_all()
    store.reclaim(1 << 30)
    goes_on("child ")
    pid = child(lambda: (goes_on("grandchild "), close()))
    ended(pid)
    close()

pid = child(work)
goes_on("parent ")
ended(pid)
close()
print("done")
"""
    assert run(SETTING + code).check().stdout.splitlines()[-1] == "done"


def test_what_other_threads_are_at_is_over_in_the_child() -> None:
    """One loads a value, one waits for it, and one packs another: the child has both, and no load to wait for."""
    code = """
parent = os.getpid()
loading, packing, go_on = threading.Event(), threading.Event(), threading.Event()

class Slow:
    def __init__(self, number):
        self.number = number
    def __eq__(self, other):
        return self.number == other.number
    def __hash__(self):
        return self.number
    def __getstate__(self):
        if self.number == 2 and os.getpid() == parent and packing_now:
            packing.set()
            go_on.wait()
        return {"number": self.number}
    def __setstate__(self, state):
        self.number = state["number"]
        if os.getpid() == parent:
            loading.set()
            go_on.wait()

packing_now = False
store["loaded"] = Slow(1)
assert store.evict("loaded")
store["packed"] = Slow(2)
store["other"] = "another value"
packing_now = True
found = []
threads = [threading.Thread(target=lambda: found.append(store["loaded"])) for _ in range(2)]
threads.append(threading.Thread(target=lambda: store.evict("packed")))
threads[0].start()
loading.wait()
for thread in threads[1:]:
    thread.start()
packing.wait()
until_waits(threads[1])

def work():
    assert store["loaded"].number == 1 and store["packed"].number == 2
    store.check()
    # The frames of threads that are not here refer to the value itself, which so can't go; another one can.
    store["packed"] = Slow(4)
    assert store.evict("packed") and store.evict("loaded")
    assert store["loaded"].number == 1 and store["packed"].number == 4
    store["loaded"] = Slow(3)
    store.reclaim(1 << 30)
    assert store["loaded"].number == 3 and store["other"] == "another value"
    assert store.pop("packed").number == 4
    close()

ended(child(work))
go_on.set()
for thread in threads:
    thread.join()
assert [one.number for one in found] == [1, 1] and store["packed"].number == 2
close()
print("done")
"""
    assert run(SETTING + code).check().stdout.splitlines()[-1] == "done"


def test_forks_while_threads_load_store_prefetch_and_reclaim() -> None:
    code = """
fill()
stop = threading.Event()
failed = []

def use(what):
    turn = 0
    try:
        while not stop.is_set():
            turn += 1
            keys = [("record", i) for i in range(turn % 7, 3000, 7)]
            if what == "get":
                found = store.get_many(keys)
                assert all(found[key] == small[key[1]] for key in keys)
            elif what == "set":
                store.set_many({("text", i): text(i) for i in range(500)})
                store.prefetch(keys)
            else:
                store.reclaim("1M")
                write_back("1M")
                assert same(store["large", turn % 8], large(turn % 8))
    except Exception as error:
        traceback.print_exc()
        failed.append(error)

threads = [threading.Thread(target=use, args=(what,)) for what in ("get", "set", "reclaim")]
for thread in threads:
    thread.start()

def work():
    has_all()
    store["mine"] = "mine"
    store.reclaim(1 << 30)
    write_back("8M")
    has_all()
    assert store["mine"] == "mine"
    store.check()
    z.flush_work()
    z.check()

for _ in range(8):
    ended(child(work))
stop.set()
for thread in threads:
    thread.join()
assert not failed
has_all()
close()
print("done")
"""
    assert run(SETTING + code).check().stdout.splitlines()[-1] == "done"


def test_a_handler_that_forks_while_its_thread_waits_for_a_load() -> None:
    """The load is not to be waited for in the child, where its thread is not."""
    code = """
parent = os.getpid()
loading, go_on = threading.Event(), threading.Event()
children = []

class Slow:
    def __getstate__(self):
        return {"a": 1}
    def __setstate__(self, state):
        if os.getpid() == parent:
            loading.set()
            go_on.wait()

def handler(*_):
    pid = os.fork()
    if pid:
        children.append(pid)
        go_on.set()
    else:
        signal.alarm(60)

store["slow"] = Slow()
assert store.evict("slow")
thread = threading.Thread(target=lambda: store["slow"])
thread.start()
loading.wait()
signal.signal(signal.SIGUSR1, handler)
main = threading.main_thread()

def interrupt():
    until_waits(main)
    signal.pthread_kill(main.ident, signal.SIGUSR1)

threading.Thread(target=interrupt).start()
value = store["slow"]
assert type(value) is Slow
if os.getpid() != parent:
    close()
    os._exit(0)
thread.join()
ended(children[0])
close()
print("done")
"""
    assert run(SETTING + code).check().stdout.splitlines()[-1] == "done"


def test_a_part_that_another_thread_was_bringing_is_not_the_childs() -> None:
    """A thread waits in a key's comparison, before its charge and after it; another shares the memory meanwhile."""
    code = """
parent = os.getpid()

class Key:
    '''Of one hash, so that each is compared; one that has something to do does it then.'''
    def __init__(self, name, act=None):
        self.name, self.act = name, act
    def __hash__(self):
        return 1
    def __eq__(self, other):
        for one in (self, other):
            if one.act is not None and os.getpid() == parent:
                one.act()
        return self.name == other.name

def waits(turn):
    '''What the turn-th comparison does; an event that tells when it is at that, and one for it to go on.'''
    compared, there, go_on = [], threading.Event(), threading.Event()
    def act():
        compared.append(1)
        if len(compared) == turn:
            there.set()
            go_on.wait()
    return act, there, go_on

def is_exact():
    store.check()
    assert int(group.read("memory.current")) == -(-store.resident_bytes // 4096) * 4096

store[Key("there")] = b"already"
for turn in (1, 2, 3):  # before the charge, after it, and when the key is about to be there
    for shared_by in (None, "before", "meanwhile"):
        frame = np.arange(1 << 17)
        act, there, go_on = waits(turn)
        if shared_by == "before":
            store["other"] = frame[:1000]
        thread = threading.Thread(target=store.__setitem__, args=(Key("new", act), frame[1000:]))
        thread.start()
        there.wait()
        if shared_by == "meanwhile":
            store["other"] = frame[:1000]

        def work():
            is_exact()
            store.clear()
            assert store.resident_bytes == int(group.read("memory.current")) == 0
            store["more"] = [frame[5:], frame[:5]]
            is_exact()
            close()

        ended(child(work))
        go_on.set()
        thread.join()
        is_exact()
        store.discard("other")
        store.pop(Key("new"))
        is_exact()

# And whoever forks in the midst of bringing one brings it on both sides.
frame = np.arange(1 << 17)
children = []
def forks():
    pid = os.fork()
    signal.alarm(120)
    children.append(pid)
for turn in (1, 2, 3):
    count = []
    def once():
        count.append(1)
        if len(count) == turn:
            forks()
    store[Key("new", once)] = frame[1000:]
    is_exact()
    assert len(store.pop(Key("new"))) == len(frame) - 1000
    is_exact()
    if not children[-1]:
        os._exit(0)
    ended(children[-1])
close()
print("done")
"""
    assert run(SETTING + code).check().stdout.splitlines()[-1] == "done"
