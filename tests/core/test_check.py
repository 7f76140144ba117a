"""check(): beside threads that wait for page faults with the GIL held, and what it says."""

import pytest
from tests.support.child import run


def test_beside_a_thread_that_faults_while_it_holds_the_gil() -> None:
    """Its fault needs the engine's lock, and check() must not want the GIL under it."""
    code = """
        import sys, threading
        import numpy as np, uzswap
        z = uzswap.Zswap(swap_size="64M")
        g = z.cgroup("/g")
        g.write("memory.max", "256K")
        try:
            x = uzswap.zeros((512, 512), np.int64, cgroup=g)
        except OSError as error:
            print(error)
            raise SystemExit(77)
        for i in range(512):
            x[i] = i
        done = threading.Event()

        def touch():
            i = 0
            while not done.is_set():
                x[i % 512, 0]
                i += 37

        thread = threading.Thread(target=touch)
        thread.start()
        for _ in range(3000):
            try:
                z.check()
            except AssertionError:
                pass  # a batch is on its way: what is right is asked when all is quiet
        done.set()
        thread.join()
        z.flush_work()
        z.check()
        del x
        z.close()
        """
    finished = run(code)
    if finished.returncode == 77:
        pytest.skip(f"no arrays here: {finished.stdout}")
    finished.check()
