"""A cluster of real processes: workers with our memory, reclaim over all of them, its page, its tree; what fails."""

from __future__ import annotations

import pytest

pytest.importorskip("distributed", reason="pip install 'uzswap[dask]'")

import textwrap
from collections.abc import Mapping
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.dask.cluster import in_cluster
from tests.support.small_disk import small_tmpfs

from uzswap.dask.plan import cut


def body(code: str) -> str:
    return textwrap.dedent(code).strip()


AGES = st.dictionaries(st.integers(0, 12), st.integers(0, 1000), max_size=6)


@given(st.integers(0, 5000), st.dictionaries(st.sampled_from("abcde"), AGES, max_size=5))
def test_the_coldest_of_all_go_first(budget: int, workers: Mapping[str, Mapping[int, int]]) -> None:
    shares = cut(budget, workers)
    total = sum(sum(ages.values()) for ages in workers.values())
    assert sum(shares.values()) == min(budget, total)
    assert all(0 < share <= sum(workers[worker].values()) for worker, share in shares.items())
    # What is in the oldest classes goes whole, before anything younger of anybody's.
    whole = {number for ages in workers.values() for number in ages}
    left = budget
    must = dict.fromkeys(workers, 0)
    for number in sorted(whole, reverse=True):
        here = {worker: ages.get(number, 0) for worker, ages in workers.items()}
        if sum(here.values()) > left:
            assert all(must[worker] <= shares.get(worker, 0) <= must[worker] + here[worker] for worker in workers)
            return
        left -= sum(here.values())
        for worker, nbytes in here.items():
            must[worker] += nbytes
    assert {worker: nbytes for worker, nbytes in must.items() if nbytes} == shares


@pytest.mark.slow
def test_a_cluster_as_one_tree() -> None:
    """Stat, reclaim by age over two workers, settings for those that come, the page, and the tree of a client."""
    done = in_cluster(
        body(
            """
            import urllib.request
            with cluster(dashboard_address="127.0.0.1:0", **together) as local, Client(local) as client:
                first, second = sorted(client.scheduler_info()["workers"])
                old = client.map(lambda i: np.arange(1 << 17) * i, range(20), workers=[first], pure=False)
                wait(old)
                one = Cluster(client)
                assert one.reclaim("20M").reclaimed >= 20 << 20
                # so that the others are younger
                client.run(lambda dask_worker: dask_worker.data.zswap.core.advance(300_000_000), workers=[first])
                new = client.map(lambda i: np.arange(1 << 17) * i, range(20), workers=[second], pure=False)
                wait(new)
                one.client.run(lambda dask_worker: [dask_worker.data.evict() for _ in range(20)], workers=[second])
                stat = one.stat()
                assert stat.total["values"] == 40 and not stat.others, stat
                assert stat.workers[first]["zswap"] > 0 < stat.workers[second]["zswap"]
                done = one.reclaim(stat.workers[first]["zswap"] // 2, source="zswap")
                after = one.stat().workers
                assert done.written >= stat.workers[first]["zswap"] // 2 and done.failed == {}
                assert after[first]["disk"] > 0 == after[second]["disk"], after
                try:
                    one.reclaim("10G", source="zswap")
                except BlockingIOError as error:
                    assert error.result.written > 0
                else:
                    raise AssertionError("less was done, and nobody said so")
                assert one.stat().total["zswap"] == 0
                assert first in str([str(cell) for cell in one.top().columns[0].cells])
                values = client.gather(old + new)
                assert all((value == np.arange(1 << 17) * (i % 20)).all() for i, value in enumerate(values))

                one.write("memory.high", "200M")
                local.scale(3)
                client.wait_for_workers(3)
                while len(high := one.read("memory.high")) < 3 or set(high.values()) != {"209715200\\n"}:
                    pass
                base = f"http://127.0.0.1:{local.scheduler.http_server.port}"
                assert "uzswap" in urllib.request.urlopen(base + "/uzswap").read().decode()
                assert 'uzswap' in urllib.request.urlopen(base + "/status").read().decode()

                from uzswap.agent.tree import open_tree
                tree = open_tree("dask://" + local.scheduler_address.partition("://")[2])
                with tree.root:
                    paths = [path for path, _ in tree.find(["/*"])]
                    assert len(paths) == 3 and len({inode for _, inode in tree.find(["/*"])}) == 3
                    from uzswap.dask.root import directory_of
                    group = tree.cgroup("/" + directory_of(first))
                    assert "anon" in group.read("memory.stat") and "some" in group.read("memory.pressure")
                    total = int(tree.root.read("/cgroup/memory.current"))
                    assert total >= sum(one.stat().workers[address]["resident"] for address in (first, second)) - 4096
                    tree.root.write("/cgroup/memory.reclaim", b"1M")
                    for path, number in (("/cgroup/nobody/memory.stat", 2), ("/cgroup/memory.high", 2)):
                        try:
                            tree.root.read(path)
                        except OSError as error:
                            assert error.errno == number, error
                        else:
                            raise AssertionError(path)
                    try:
                        group.write("memory.reclaim", b"1T", within=60)
                    except BlockingIOError as error:
                        assert error.result.reclaimed > 0
                    machine = tree.machine()
                    assert machine.zswap and machine.swap_total
            print("done")
            """
        )
    )
    assert done.stdout.split()[-1] == "done"


@pytest.mark.slow
def test_the_agent_takes_a_cluster_for_its_root() -> None:
    done = in_cluster(
        body(
            """
            from uzswap.agent.budget import Budget
            from uzswap.agent.config import Config
            from uzswap.agent.loop import Agent
            from uzswap.agent.records import Records
            from uzswap.agent.requests import InlineRequests
            from uzswap.agent.tree import open_tree
            with cluster(**together) as local, Client(local) as client:
                kept = client.map(lambda i: np.arange(1 << 17) * i, range(40), pure=False)
                wait(kept)
                tree = open_tree("dask://" + local.scheduler_address.partition("://")[2])
                said = []
                config = Config().with_default({"agent.watch": ("/*",), "policy": "idle"})
                records = Records(None, 1000, 1 << 20, said.append)
                budget = Budget(1 << 40, 1 << 40, None, said.append)
                agent = Agent(tree, config, InlineRequests(tree), records, budget, say=said.append)
                agent.round()
                agent.round()
                assert sorted(agent.watched) == [path for path, _ in tree.find(["/*"])], said
                print(len(agent.watched))
                agent.close()
                tree.root.close()
                assert [int(one[-1]) for one in client.gather(kept)] == [i * ((1 << 17) - 1) for i in range(40)]
            """
        ),
    )
    assert done.stdout == "2\n"


@pytest.mark.slow
def test_preloads_are_all_that_is_needed() -> None:
    """``--preload uzswap.dask`` by way of the configuration: workers and the scheduler."""
    done = in_cluster(
        body(
            """
            async def prometheus(dask_worker):
                import asyncio, urllib.request
                url = f"http://127.0.0.1:{dask_worker.http_server.port}/metrics"
                return (await asyncio.to_thread(urllib.request.urlopen, url)).read().decode()

            with cluster(data=None, dashboard_address="127.0.0.1:0") as local, Client(local) as client:
                kinds = client.run(lambda dask_worker: type(dask_worker.data).__name__)
                assert set(kinds.values()) == {"WorkerMemory"}, kinds
                assert client.run_on_scheduler(lambda dask_scheduler: "uzswap" in dask_scheduler.plugins)
                kept = client.map(lambda i: bytes(1 << 20) + bytes([i]), range(8), pure=False)
                wait(kept)
                client.run(lambda dask_worker: [dask_worker.data.evict() for _ in range(8)])
                told = client.run_on_scheduler(lambda dask_scheduler: [one.metrics["uzswap"]
                                                                       for one in dask_scheduler.workers.values()])
                assert all("resident" in one for one in told), told
                assert [value[-1] for value in client.gather(kept)] == list(range(8))
                text = client.run(prometheus)
                assert all('activity="zswap-write"' in one for one in text.values()), text
            print("done")
            """
        ),
        env={
            "DASK_DISTRIBUTED__WORKER__PRELOAD": "['uzswap.dask']",
            "DASK_DISTRIBUTED__SCHEDULER__PRELOAD": "['uzswap.dask']",
        },
    )
    assert done.stdout.split()[-1] == "done"


@pytest.mark.slow
def test_a_worker_that_is_killed_while_it_spills_leaves_nothing_and_the_work_goes_on(tmp_path: Path) -> None:
    """kill -9 from within a value's serialization, which is in the middle of making room."""
    done = in_cluster(
        body(
            """
            import os, signal, time
            where, flag = sys.argv[1], sys.argv[1] + "/killed"

            class Deadly:
                \"\"\"Kills the first worker that spills it.\"\"\"
                def __init__(self):
                    self.data = bytes(2 << 20)
                def __sizeof__(self):
                    return 2 << 20
                def __reduce__(self):
                    import os, signal, threading
                    spilling = any("_push" in str(one) for one in names())
                    if spilling and not os.path.exists(flag):
                        open(flag, "w").close()
                        os.kill(os.getpid(), signal.SIGKILL)
                    return Deadly, ()

            def names():
                import sys
                frame, found = sys._getframe(), []
                while frame is not None:
                    found.append(frame.f_code.co_name)
                    frame = frame.f_back
                return found

            def noise(i):
                return np.random.default_rng(i).integers(0, 1 << 60, 1 << 17)

            def total(kept, deadly):
                return int(kept.sum() % 1000003) + len(deadly.data)

            data = (WorkerMemory, {"target": "6 MiB", "headroom": 0, "pool": "2 MiB"})
            with cluster(data=data, local_directory=where) as local, Client(local) as client:
                before = client.run(os.getpid)
                kept = client.map(noise, range(16), pure=False)
                wait(kept)
                assert Cluster(client).stat().total["disk"] > 0
                deadly = [client.submit(Deadly, pure=False) for _ in range(6)]
                wait(deadly)
                more = client.map(noise, range(100, 110), pure=False)
                found = client.gather(client.map(total, kept[:6], deadly, pure=False))
                sums = client.gather(client.map(lambda one: int(one.sum() % 1000003), kept + more, pure=False))
                assert os.path.exists(flag), "nobody was killed"
                assert sums == [int(noise(i).sum() % 1000003) for i in [*range(16), *range(100, 110)]]
                assert found == [int(noise(i).sum() % 1000003) + (2 << 20) for i in range(6)]
                client.wait_for_workers(2)
                now = client.run(os.getpid)
                assert set(now.values()) != set(before.values())
                dead = set(before.values()) - set(now.values())
                left = [name for _, _, files in os.walk(where) for name in files if "uzswap-" in name]
                assert left == [], left
                live = sum(os.stat(f"/proc/{pid}/fd/{fd}").st_blocks for pid in now.values()
                           for fd in os.listdir(f"/proc/{pid}/fd") if "uzswap-" in os.readlink(f"/proc/{pid}/fd/{fd}"))
                print(len(dead), live)
            """
        ),
        str(tmp_path),
    )
    assert int(done.stdout.split()[0]) >= 1
    assert [one for one in tmp_path.rglob("*") if one.is_file() and "uzswap-" in one.name] == []


@pytest.mark.slow
def test_a_disk_that_is_full_is_no_wrong_result(tmp_path: Path) -> None:
    """A real file system that is full: values stay, and the work ends right, or with an error that says why."""
    with small_tmpfs(12 << 20) as where:
        done = in_cluster(
            body(
                """
                def noise(i):
                    return np.random.default_rng(i).integers(0, 1 << 60, 1 << 17)

                import dask
                data = (WorkerMemory, {"target": "8 MiB", "headroom": 0, "pool": "4 MiB", "disk": "1 GiB"})
                with dask.config.set({"uzswap.directory": sys.argv[1]}), cluster(
                    data=data, local_directory=sys.argv[2], n_workers=1) as local, Client(local) as client:
                    kept = client.map(noise, range(40), pure=False)
                    wait(kept)
                    told = Cluster(client).stat()
                    sums = client.gather(client.map(lambda one: int(one.sum() % 1000003), kept, pure=False))
                    assert sums == [int(noise(i).sum() % 1000003) for i in range(40)]
                    logs = str(client.get_worker_logs())
                    print(told.total["resident"], told.total["disk"], "no room for more" in logs)
                """
            ),
            str(where),
            str(tmp_path),
            env={"DASK_UZSWAP__DIRECTORY": str(where)},
        )
    resident, disk, said = done.stdout.split()
    assert int(resident) > 8 << 20
    assert 0 < int(disk) <= 12 << 20
    assert said == "True"


@pytest.mark.slow
def test_the_examples_of_the_page_run_as_they_are() -> None:
    """One after the other, in a cluster as Dask makes it; that less was reclaimed than was asked for is no error."""
    done = in_cluster(
        body(
            """
            import ast, re
            from uzswap import ReclaimError
            names = {}
            for block in re.findall(r"```python\\n(.*?)```", open(sys.argv[1]).read(), re.S):
                for statement in ast.parse(block).body:
                    try:
                        exec(compile(ast.Module([statement], []), sys.argv[1], "exec"), names)
                    except ReclaimError as error:
                        assert error.errno == 11, error
            with names["client"] as client, client.cluster:
                total = client.submit(lambda: np.arange(10).sum()).result()
                assert total == 45 and names["cluster"].read("memory.high"), total
            print("done")
            """
        ),
        str(Path(__file__).parents[2] / "docs" / "dask.md"),
    )
    assert done.stdout.split()[-1] == "done"
