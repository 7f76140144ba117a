"""Faults served in the faulting thread: what becomes of SIGBUS that is not ours, and of threads that block it.

What holds of arrays in this mode as in every other is in the tests beside this one, which run in it, too (rig.py).
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from tests.support.child import Finished, run, run_as_nobody

START = """
    import ctypes, errno, faulthandler, mmap, os, signal, subprocess, sys, tempfile, threading, time, warnings
    import numpy as np
    import uzswap

    libc = ctypes.CDLL(None, use_errno=True)
    N = 1 << 18  # numbers: 2 MiB, and a budget of a quarter

    def engine():
        return uzswap.Zswap(swap_size="16M", faults="signal")

    def filled(z):
        group = z.cgroup("/job")
        group.write("memory.max", "512K")
        x = uzswap.zeros(N, np.int64, cgroup=group)
        x[:] = np.arange(N)
        return x

    def is_whole(x):
        return bool((x == np.arange(N)).all())

    class Truncated:
        '''A mapping whose file has no such page: an access is SIGBUS.'''

        def __init__(self):
            self.file = tempfile.TemporaryFile()
            self.file.truncate(mmap.PAGESIZE)
            self.map = mmap.mmap(self.file.fileno(), mmap.PAGESIZE)
            self.file.truncate(0)
            self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))

        def mend(self):
            os.ftruncate(self.file.fileno(), mmap.PAGESIZE)

        def touch(self):
            return ctypes.string_at(self.address, 1)

    try:
        engine_works = engine()
        engine_works.arena.open()
    except OSError as refused:
        sys.exit(f"skip: {refused.strerror}")
    engine_works.close()
"""

#: nothing has been opened yet
EARLY = START.partition("    try:\n")[0]


def check(done: Finished) -> Finished:
    if "skip: " in done.stderr:
        pytest.skip(done.stderr.partition("skip: ")[2].strip())
    return done


@pytest.fixture(params=[run, run_as_nobody], ids=["root", "nobody"])
def as_user(request: pytest.FixtureRequest) -> Callable[[str], Finished]:
    """Runs a program as whoever runs the tests, or as an ordinary user."""
    return lambda code: check(request.param(code))


def test_arrays_and_system_calls_work(as_user: Callable[[str], Finished]) -> None:
    as_user(
        START
        + """
    z = engine()
    x = filled(z)
    assert uzswap.info(x).mode == "trapped" and z.arena.memory.info().by_signal
    with tempfile.TemporaryFile(buffering=0) as file:
        assert file.write(x.data) == x.nbytes
        x[:] = 0
        file.seek(0)
        assert file.readinto(x.data) == x.nbytes
    child = os.fork()
    if not child:
        os._exit(0 if is_whole(x) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_whole(x)
    del x
    z.check()
    z.close()
    """
    ).check()


def test_a_handler_that_was_there_gets_what_is_not_ours() -> None:
    """It may mend its faults, and touch arrays."""
    check(
        run(
            EARLY
            + """
    faulthandler.disable()
    came = []

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def mend(number):
        came.append(int(x[::512].sum()))
        broken.mend()

    assert libc.signal(signal.SIGBUS, mend) == 0
    try:
        z = engine()
        x = filled(z)
    except OSError as refused:
        sys.exit(f"skip: {refused.strerror}")
    for times in range(1, 4):
        broken = Truncated()
        assert broken.touch() == b"\\0"
        assert came == [sum(range(0, N, 512))] * times
        assert is_whole(x)
    """
        )
    ).check()


def test_faulthandler_that_was_there_says_once_where_it_was() -> None:
    done = check(
        run(
            START
            + """
    assert faulthandler.is_enabled()
    z = engine()
    x = filled(z)
    assert is_whole(x)
    broken = Truncated()

    def here():
        broken.touch()

    here()
    """
        )
    )
    assert done.signal is signal.SIGBUS
    assert done.stderr.count("Fatal Python error: Bus error") == 1
    assert "in here" in done.stderr


def test_a_fault_that_its_handler_does_not_mend_ends() -> None:
    """faulthandler, turned off since, returns and has mended nothing; so does a handler of Python's."""
    done = check(
        run(
            START
            + """
    faulthandler.disable()
    Truncated().touch()
    """
        )
    )
    assert done.signal is signal.SIGBUS
    assert "Fatal Python error" not in done.stderr


@pytest.mark.parametrize("how", ["os.kill(os.getpid(), signal.SIGBUS)", "libc.raise_(signal.SIGBUS)", "x[0] = lost()"])
def test_without_another_handler_it_is_the_end(how: str) -> None:
    done = check(
        run(
            EARLY
            + """
    faulthandler.disable()
    libc.raise_ = libc["raise"]
    try:
        z = engine()
        x = filled(z)
    except OSError as refused:
        sys.exit(f"skip: {refused.strerror}")

    def lost():
        '''Behind the array, where nobody's page is.'''
        return ctypes.string_at(x.ctypes.data + x.nbytes, 1)

    print("alive", flush=True)
    """
            + how
        )
    )
    assert done.signal is signal.SIGBUS
    assert done.stdout == "alive\n"


def test_one_that_is_ignored_stays_so_when_it_is_sent() -> None:
    check(
        run(
            EARLY
            + """
    faulthandler.disable()
    libc.signal(signal.SIGBUS, ctypes.c_void_p(1))
    try:
        z = engine()
        x = filled(z)
    except OSError as refused:
        sys.exit(f"skip: {refused.strerror}")
    os.kill(os.getpid(), signal.SIGBUS)
    assert is_whole(x)
    """
        )
    ).check()


def test_a_later_handler_is_refused_where_nothing_is_preloaded() -> None:
    check(
        run(
            START
            + """
    z = engine()
    x = filled(z)
    for action in (signal.SIG_DFL, signal.SIG_IGN, print):
        try:
            signal.signal(signal.SIGBUS, action)
        except OSError as error:
            assert error.errno == errno.EINVAL
        else:
            raise AssertionError("another handler")
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert is_whole(x)
    # Other programs are not concerned, however they are started.
    code = "import faulthandler, os, signal; faulthandler.enable(); signal.signal(signal.SIGBUS, signal.SIG_DFL);"
    code += "os.kill(os.getpid(), signal.SIGBUS)"
    for options in ({}, {"close_fds": False}, {"preexec_fn": int}):
        assert subprocess.run([sys.executable, "-c", code], **options).returncode == -signal.SIGBUS
    """
        )
    ).check()


def test_a_handler_that_passes_libc_by_is_put_behind_ours() -> None:
    done = check(
        run(
            START
            + """
    z = engine()
    x = filled(z)
    # (number, 4 arguments): the system call itself
    code = bytes.fromhex("4889f8 4889f7 4889d6 4889ca 4d89c2 0f05 c3")
    at = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    at.write(code)
    place = ctypes.addressof(ctypes.c_char.from_buffer(at))
    call = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * 5)(place)
    now, ignored = (ctypes.c_ulong * 4)(), (ctypes.c_ulong * 4)(1)
    SYS_rt_sigaction = 13
    assert call(SYS_rt_sigaction, signal.SIGBUS, ctypes.addressof(ignored), 0, 8) == 0
    now[0] = 1
    while now[0] == 1:
        os.sched_yield()
        assert call(SYS_rt_sigaction, signal.SIGBUS, 0, ctypes.addressof(now), 8) == 0
    assert is_whole(x)
    os.kill(os.getpid(), signal.SIGBUS)  # theirs ignores it
    """
        )
    ).check()
    assert "somebody has put a handler of SIGBUS in the place of ours" in done.stderr


def test_a_thread_that_blocks_it_gets_no_such_engine() -> None:
    check(
        run(
            START
            + """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGBUS})
    z = engine()
    try:
        z.arena.open()
    except OSError as error:
        assert error.errno == errno.EBUSY and "SIG_UNBLOCK" in error.strerror
    else:
        raise AssertionError("this thread would be killed")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGBUS})
    assert is_whole(filled(z))
    """
        )
    ).check()


def test_threads_that_block_it_are_told_of() -> None:
    """When memory is opened; and later when there are faults, once each."""
    done = check(
        run(
            START
            + """
    def block():
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        began.release()
        end.wait()

    end, began = threading.Event(), threading.Semaphore(0)
    first = threading.Thread(target=block)
    first.start()
    began.acquire()
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    z = engine()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x = filled(z)
    assert [w.category for w in caught] == [RuntimeWarning] and str(first.native_id) in str(caught[0].message)
    stop = threading.Event()

    def fault():
        while not stop.is_set():
            x[:: 512].sum()
            stop.wait(0.1)

    faulting = threading.Thread(target=fault)
    faulting.start()
    line = os.read(reader, 1000)
    stop.set()
    faulting.join()
    assert f"thread {first.native_id} blocks SIGBUS".encode() in line, line
    end.set()
    first.join()
    """
        )
    )
    done.check()


def test_a_small_stack_is_enough() -> None:
    check(
        run(
            START
            + """
    z = engine()
    x = filled(z)
    threading.stack_size(64 << 10)
    found = []

    def access():
        for i in range(0, N, 509):
            x[i] += 1
        found.append(int(x[::509].sum()))

    threads = [threading.Thread(target=access) for _ in range(2)]
    threads[0].start()
    threads[0].join()
    threads[1].start()
    threads[1].join()
    assert found == [sum(i + times for i in range(0, N, 509)) for times in (1, 2)]
    """
        )
    ).check()


def test_what_it_is_not_for_says_so() -> None:
    check(
        run(
            EARLY
            + """
    try:
        uzswap.Zswap(swap=None, faults="signals")
    except ValueError as error:
        assert "signals" in str(error)
    else:
        raise AssertionError("no such way")
    """
        )
    ).check()


RUN = """
    import faulthandler, os, signal, sys
    import numpy as np
    import uzswap
    z = uzswap.default_engine()
    assert z.faults == "signal"
    x = np.arange(1 << 18)
    assert z.arena.memory.info().by_signal
    faulthandler.enable()
    assert signal.signal(signal.SIGBUS, signal.SIG_IGN) is signal.SIG_DFL
    os.kill(os.getpid(), signal.SIGBUS)
    faulthandler.disable()
    faulthandler.enable()
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    assert signal.SIGBUS not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    for _ in range(2):
        uzswap.advise(x, "pageout")
        assert (x == np.arange(1 << 18)).all()
    import ctypes
    def here():
        ctypes.string_at(x.ctypes.data + x.nbytes + 4096, 1)
    here()
"""


def test_run_puts_later_handlers_behind_ours() -> None:
    """And nobody can block it there."""
    import textwrap

    done = run(
        """
        import os, sys
        os.environ |= {"UZSWAP_FAULTS": "signal", "UZSWAP_SOCKET": "no", "UZSWAP_MOUNT": "no"}
        os.environ.pop("UZSWAP_SOAK", None)
        os.environ["UZSWAP_SWAP_SIZE"] = "64M"
        program = ["run", "--", sys.executable, "-c", sys.argv[1]]
        code = "from uzswap.cli.main import main; main()"
        os.execv(sys.executable, [sys.executable, "-c", code, *program])
        """,
        [textwrap.dedent(RUN)],
    )
    if "arrays cannot be managed here" in done.stderr:
        pytest.skip(done.stderr)
    assert done.signal is signal.SIGBUS, done.said()
    assert done.stderr.count("Fatal Python error: Bus error") == 1
    assert "in here" in done.stderr
