"""Arrays, forks, and the end of a process."""

import pytest
from tests.support.child import Child, run

START = """
    import gc, os, signal, sys, threading, time
    import numpy as np
    import uzswap
    z = uzswap.Zswap(swap_size="256M")
    group = z.cgroup("/a")
    group.write("memory.max", "4M")
    x = uzswap.array(np.arange(1 << 21), cgroup=group)
    def intact():
        return bool((x == np.arange(1 << 21)).all())
    def wait(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_a_child_uses_its_parents_engine_as_its_own() -> None:
    code = f"""{START}
    with uzswap.managed(group, "64K"):
        y = np.arange(1 << 20)
        pid = os.fork()
        if not pid:
            own = np.arange(1 << 20)          # managed, as in the parent
            assert uzswap.info(own).cgroup == "/a"
            own.resize(1 << 21, refcheck=False)
            assert intact() and (y == np.arange(1 << 20)).all()
            with uzswap.resident(x[:1000]) as part:
                part += 1
            x[:1000] -= 1
            assert uzswap.zeros(3, cgroup=z.cgroup("/b")).sum() == 0
            threads = [threading.Thread(target=np.arange, args=(1 << 20,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            del x, y, own, part
            gc.collect()
            z.check()
            z.close()
            with uzswap.Zswap(swap=None) as mine:
                own = uzswap.ones(100_000, cgroup=mine.cgroup("/a"))
                assert own.sum() == 100_000
                del own
            sys.exit(7)                       # an ordinary exit, with all its finalizers
        assert wait(pid) == 7
    assert intact()
    assert (y == np.arange(1 << 20)).all()
    x[:] = y[0]
    assert "b" not in z.root.children
    del x, y
    z.check()
    z.close()
    """
    run(code).check()


def test_a_child_that_ends_with_arrays_alive_ends() -> None:
    code = f"""{START}
    for end in (lambda: sys.exit(3), lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL)):
        pid = os.fork()
        if not pid:
            assert intact()
            end()
        assert wait(pid) in (3, -signal.SIGKILL)
    assert intact()
    """
    run(code).check()


def test_a_pool_of_forked_workers_gets_pickled_slices() -> None:
    code = f"""{START}
    import multiprocessing, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        sums = pool.map(np.sum, [x[i : i + 1000] for i in range(0, 100_000, 1000)])
    assert sums == [int(x[i : i + 1000].sum()) for i in range(0, 100_000, 1000)]
    assert intact()
    """
    run(code).check()


def test_forks_while_threads_fault() -> None:
    code = f"""{START}
    stop = threading.Event()
    def scan():
        while not stop.is_set():
            assert intact()
    threads = [threading.Thread(target=scan) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        pid = os.fork()
        if not pid:
            os._exit(5)
        assert wait(pid) == 5
    stop.set()
    for thread in threads:
        thread.join()
    assert intact()
    """
    run(code).check()


@pytest.mark.parametrize(
    "end", ["pass", "sys.exit(0)", "os._exit(0)", "z.closed = x", "threading.Thread(target=scan).start()"]
)
@pytest.mark.parametrize("managed", [False, True])
def test_the_end_of_a_process_with_arrays_alive(end: str, managed: bool) -> None:
    code = f"""{START}
    def scan():
        assert x.sum() > 0
    {'switch = uzswap.managed(group, "64K").start(); y = np.arange(1 << 20)' if managed else "y = None"}
    class Late:
        def __del__(self, x=x, y=y):
            assert x[5] == 5
    late = Late()
    {end}
    """
    assert run(code).check().stderr == ""


def test_a_daemon_thread_in_a_fault_does_not_keep_a_process() -> None:
    code = f"""{START}
    def scan():
        while True:
            x.sum()
    threading.Thread(target=scan, daemon=True).start()
    print("ready")
    input()
    """
    with Child(code) as child:
        assert child.read_line() == "ready"
        child.write_line("")
        child.wait().check()
    with Child(code) as child:
        assert child.read_line() == "ready"
        assert child.kill().returncode == -9


def test_signal_handlers_that_fault() -> None:
    code = f"""{START}
    import itertools
    calls, numbers = [], itertools.count()
    def handler(*_):  # one may interrupt another
        at = next(numbers) * 7919 * 512 % len(x)
        calls.append(x[at] == at)
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    for _ in range(20):
        assert intact()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert calls
    assert all(calls)
    """
    run(code).check()


def test_a_child_gets_back_what_it_frees() -> None:
    """Its arrays are its own, as its parent's were: what is freed is free."""
    code = f"""{START}
    import multiprocessing, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    def work(turn):
        for _ in range(8):
            z_ = np.ones(2 << 20)
            assert z_.sum() == 2 << 20
        return resident()

    with uzswap.managed(group, "64K"), multiprocessing.get_context("fork").Pool(1) as pool:
        sizes = pool.map(work, range(4), chunksize=1)
        assert max(sizes) < sizes[0] + (32 << 20), sizes
    assert intact()
    """
    run(code).check()


def test_a_fork_that_waits_for_a_thread_that_waits_for_a_page_goes_on() -> None:
    """A library that waits within fork() for threads of its own, as OpenBLAS does: no hang, no zeros in the child."""
    code = """
    import ctypes, faulthandler, os, threading
    libc = ctypes.CDLL(None)
    done = threading.Event()
    done.set()

    @ctypes.CFUNCTYPE(None)
    def wait():  # registered before uzswap's own: it runs after that
        done.wait()

    assert libc.__register_atfork(wait, None, None, None) == 0
    import numpy as np
    import signal
    import uzswap
    faulthandler.disable()
    z = uzswap.Zswap(swap_size="256M")
    group = z.cgroup("/a")
    group.write("memory.max", "4M")
    x = uzswap.ones(1 << 24, np.uint8, cgroup=group)
    uzswap.advise(x, "pageout")

    begun = threading.Event()
    def reads():  # without the GIL
        begun.set()
        for _ in range(20):
            libc.memchr(ctypes.c_void_p(x.ctypes.data), 7, ctypes.c_size_t(x.nbytes))
        done.set()

    done.clear()
    thread = threading.Thread(target=reads)
    thread.start()
    begun.wait()
    pid = os.fork()
    if not pid:
        try:
            z.cgroup("/b")
        except RuntimeError:
            x[5]
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSEGV
    thread.join()
    assert x.all()
    assert os.waitpid(os.fork() or os._exit(not x.all()), 0)[1] == 0
    """
    assert "cannot have its parent's arrays" in run(code, timeout=60, fresh=True).check().stderr


def test_a_fork_that_is_slow_waits_for_nobody() -> None:
    """On a machine that is busy, or was stopped, however long within fork(): the child has the arrays."""
    code = """
    import ctypes, os, signal, subprocess, threading, time
    libc = ctypes.CDLL(None)
    parent = os.getpid()
    # A second after all was at rest who waits for a page would be let go.  Nothing tells when that time is over but it.
    goes_on = f"import os, time; open(0).read(); time.sleep(1.2); os.kill({parent}, {int(signal.SIGCONT)})"
    helper = subprocess.Popen([os.sys.executable, "-c", goes_on], stdin=subprocess.PIPE)
    is_slow = [False]

    @ctypes.CFUNCTYPE(None)
    def slow():  # registered before uzswap's own: it runs after that
        if is_slow[0]:
            helper.stdin.close()
            libc.kill(parent, signal.SIGSTOP)
            began = time.thread_time()  # while the others see what time it is
            while time.thread_time() < began + 0.3:
                pass

    assert libc.__register_atfork(slow, None, None, None) == 0
    import numpy as np
    import uzswap
    z = uzswap.Zswap(swap_size="256M")
    group = z.cgroup("/a")
    group.write("memory.max", "4M")
    x = uzswap.ones(1 << 24, np.uint8, cgroup=group)
    uzswap.advise(x, "pageout")
    z.flush_work()

    begun = threading.Event()
    def reads():  # without the GIL
        begun.set()
        for _ in range(20):
            libc.memchr(ctypes.c_void_p(x.ctypes.data), 7, ctypes.c_size_t(x.nbytes))

    thread = threading.Thread(target=reads)
    thread.start()
    begun.wait()
    is_slow[0] = True
    pid = os.fork()
    is_slow[0] = False
    if not pid:
        assert x.all()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    thread.join()
    assert helper.wait() == 0
    """
    run(code, timeout=60, fresh=True).check()


def test_a_fork_waits_for_a_name_that_another_thread_uses_for_the_first_time() -> None:
    """A name comes with its module: half imported at the fork, that would be locked for ever in the child."""
    code = """
    import os, pathlib, signal, sys, tempfile, threading, warnings
    import uzswap
    warnings.simplefilter("ignore", DeprecationWarning)
    begun, go = threading.Event(), threading.Event()
    sys.begun, sys.go = begun, go
    with tempfile.TemporaryDirectory() as directory:
        pathlib.Path(directory, "slow.py").write_text("import sys; sys.begun.set(); sys.go.wait(); name = 7")
        sys.path.insert(0, directory)
        uzswap._WHERE["name"] = "slow"
        first = threading.Thread(target=lambda: uzswap.name)
        first.start()
        begun.wait()
        threading.Timer(0.2, go.set).start()  # without the wait the child is forked before this
        pid = os.fork()
        if not pid:
            signal.alarm(20)
            os._exit(uzswap.name)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        first.join()
    """
    run(code).check()
