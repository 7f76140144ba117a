"""Libraries that fork, or do not, over arrays and stores: code unchanged, under `managed` as `uzswap run` has it."""

from __future__ import annotations

import importlib.util
import textwrap
from pathlib import Path

import pytest
from tests.support.child import run

START = """
    import gc, sys, warnings
    import numpy as np
    import uzswap
    warnings.simplefilter("ignore", DeprecationWarning)  # of fork in a process with threads

    def total(i):
        return int(x[i :: 4].sum())

    def managed_total(rows):
        return float(np.ones(1 << 18).sum() + rows.sum())

    if __name__ == "__main__":
        z = uzswap.Zswap(swap_size="256M")
        group = z.cgroup("/a")
        group.write("memory.max", "8M")
        switch = uzswap.managed(group, "64K").start()
        x = np.arange(1 << 22)
"""

END = """
        assert (x == np.arange(1 << 22)).all()
        switch.stop()
        print("well")
        sys.stdout.flush()
"""


def _require(module: str, package: str) -> None:
    """Not imported here: that may start threads."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"pip install {package}")


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_scikit_learn_with_two_jobs(backend: str) -> None:
    _require("sklearn", "scikit-learn")
    run(
        START
        + f"""
        import joblib
        from sklearn.ensemble import RandomForestClassifier
        rng = np.random.default_rng(0)
        features = rng.normal(size=(20_000, 20))
        labels = features[:, 0] + features[:, 1] > 0
        with joblib.parallel_backend({backend!r}, n_jobs=2):
            forest = RandomForestClassifier(4, max_depth=6, n_jobs=2, random_state=0).fit(features, labels)
            found = forest.predict(features)
            if {backend!r} == "multiprocessing":
                sums = joblib.Parallel()(joblib.delayed(total)(i) for i in range(4))
                assert sum(sums) == (1 << 22) * ((1 << 22) - 1) // 2
        alone = RandomForestClassifier(4, max_depth=6, n_jobs=1, random_state=0).fit(features, labels)
        assert (alone.predict(features) == found).all()
        del features, labels, forest, alone, found
        """
        + END,
        timeout=200,
    ).check()


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_concurrent_futures(method: str, tmp_path: Path) -> None:
    """Forked workers find the array in their memory; others are sent it."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            START
            + f"""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        context = multiprocessing.get_context({method!r})
        with ProcessPoolExecutor(2, context) as pool:
            if {method!r} == "fork":
                assert sum(pool.map(total, range(4), timeout=150)) == (1 << 22) * ((1 << 22) - 1) // 2
            sums = list(pool.map(managed_total, np.split(x[: 1 << 20], 4), timeout=150))
        assert sums == [float(part.sum() + (1 << 18)) for part in np.split(x[: 1 << 20], 4)]
        """
            + END
        )
    )
    run(
        "import subprocess, sys; sys.exit(subprocess.run([sys.executable, sys.argv[1]]).returncode)", [str(program)]
    ).check()


APPLICATION = """
import os
import numpy as np
import uzswap

z = uzswap.Zswap(swap_size="64M")
group = z.cgroup("/app")
group.write("memory.max", "1M")
store = uzswap.Store(group)
for i in range(200):
    store[i] = [f"value {i}"] * 1000
x = uzswap.array(np.arange(1 << 19), cgroup=group)


def application(environ, start_response):
    i = int(environ["PATH_INFO"].strip("/"))
    store[i] = store[i]
    x[i] += 0
    body = f"{os.getpid()} {store[i][999]} {int(x[::1000].sum())}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def test_gunicorn_preloads_a_store(tmp_path: Path) -> None:
    """Workers are forked from a master that has loaded the application, and answer by themselves."""
    _require("gunicorn", "gunicorn")
    (tmp_path / "app.py").write_text(APPLICATION)
    run(
        """
        import http.client, os, signal, socket, subprocess, sys
        directory = sys.argv[1]
        path = directory + "/socket"
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"unix:{path}",
             "app:application", "--max-requests", "20", "--log-level", "warning"],
            cwd=directory,
        )
        expected = sum(range(0, 1 << 19, 1000))
        pids = set()

        class Connection(http.client.HTTPConnection):
            def connect(self):
                self.sock = socket.socket(socket.AF_UNIX)
                self.sock.settimeout(60)
                self.sock.connect(path)

        try:
            while not os.path.exists(path):
                assert server.poll() is None
                os.sched_yield()
            for i in range(100):
                connection = Connection("localhost")
                connection.request("GET", f"/{i}")
                pid, *said = connection.getresponse().read().decode().split()
                connection.close()
                assert said == ["value", str(i), str(expected)], said
                pids.add(pid)
            assert len(pids) > 2, pids
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
        """,
        args=[str(tmp_path)],
        timeout=150,
    ).check()
