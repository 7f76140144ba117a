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


@pytest.mark.parametrize("touch", ["x[0]", "x.sum()", "x.__setitem__(5, 1)"])
def test_a_child_that_touches_an_array_gets_sigsegv_and_no_zeros(touch: str) -> None:
    code = f"""{START}
    import faulthandler; faulthandler.disable()
    pid = os.fork()
    if not pid:
        print({touch}, flush=True)
        os._exit(0)
    assert wait(pid) == -signal.SIGSEGV
    assert intact()
    """
    assert run(code).check().stdout == ""


def test_a_child_that_does_not_touch_them_is_free_to_do_anything_else() -> None:
    code = f"""{START}
    with uzswap.managed(group, "64K"):
        y = np.arange(1 << 20)
        pid = os.fork()
        if not pid:
            z_ = np.arange(1 << 20)          # malloc's: the handler is the parent's
            assert z_.sum() == (1 << 20) * ((1 << 20) - 1) // 2
            z_.resize(1 << 21, refcheck=False)
            for use in (lambda: uzswap.zeros(3, cgroup=group), lambda: z.cgroup("/b")):
                try:
                    use()
                except RuntimeError as error:
                    assert "belongs to the parent" in str(error), error
                else:
                    os._exit(3)
            try:
                uzswap.info(y)
            except ValueError:
                pass
            with uzswap.Zswap(swap=None) as mine:
                own = uzswap.ones(100_000, cgroup=mine.cgroup("/a"))
                assert own.sum() == 100_000
                with uzswap.managed(mine.root, "4K"):
                    assert uzswap.info(np.arange(10_000)).cgroup == "/"
                del own
            x.shape                           # the header is the child's own
            del x, y                          # freeing gives nothing back: it is the parent's
            gc.collect()
            z.close()
            threads = [threading.Thread(target=np.arange, args=(1 << 20,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            sys.exit(7)                       # an ordinary exit, with all its finalizers
        assert wait(pid) == 7
    assert intact()
    assert (y == np.arange(1 << 20)).all()
    x[:] = y[0]                               # no page was lost to the child
    del x, y
    z.check()
    z.close()
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


def test_a_child_gets_back_what_it_frees_beside_the_addresses_of_its_parents_arrays() -> None:
    """A forked child's malloc is given the addresses where the parent's arrays are, unless they are kept from it."""
    code = f"""{START}
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    with uzswap.managed(group, "64K"):
        y = np.arange(1 << 20)
        pid = os.fork()
        if not pid:
            before = resident()
            for _ in range(8):
                z_ = np.ones(4 << 20)
                del z_
            z_ = np.ones(4 << 20)
            z_.resize(8 << 20, refcheck=False)
            assert z_[0] == 1
            del z_
            os._exit(resident() - before > 32 << 20)
        assert wait(pid) == 0
        assert (y == np.arange(1 << 20)).all()
        del y
    assert intact()
    """
    assert run(code).check().stdout == ""
