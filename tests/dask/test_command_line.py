"""The command line on a cluster: ``dask://SCHEDULER`` where an engine's cgroup could be."""

from __future__ import annotations

import textwrap

import pytest

pytest.importorskip("distributed", reason="pip install 'uzswap[dask]'")

from tests.dask.cluster import in_cluster


@pytest.mark.slow
def test_all_commands_take_a_cluster() -> None:
    done = in_cluster(
        textwrap.dedent(
            """
            import json
            from click.testing import CliRunner
            from tests.cli.command import uzswap
            from uzswap.cli.main import run
            from uzswap.dask.root import directory_of

            def said(*words, code=0):
                # In this process: another one takes a second to import distributed.
                with CliRunner().isolation(env={"COLUMNS": "200"}) as (out, err, _):
                    ended = run(words)
                assert ended == code, (words, ended, out.getvalue(), err.getvalue())
                assert code or not err.getvalue(), (words, err.getvalue())
                return out.getvalue().decode()

            with cluster(**together) as local, Client(local) as client:
                kept = client.map(lambda i: np.arange(1 << 17) * i, range(20), pure=False)
                wait(kept)
                one = Cluster(client)
                one.reclaim("8M")
                url = "dask://" + local.scheduler_address.partition("://")[2]
                workers = [directory_of(address) for address in client.scheduler_info()["workers"]]

                # What there is
                tree = json.loads(said("tree", "--json", url))
                assert tree[0]["cgroup"] == url, tree
                assert {row["cgroup"] for row in tree[1:]} == {f"{url}/{name}" for name in workers}, tree
                assert tree[0]["resident"] == sum(row["resident"] for row in tree[1:]) > 0
                assert tree[0]["zswap"] == sum(row["zswap"] for row in tree[1:]) > 0
                alone = uzswap("tree", url)
                assert not alone.returncode and not alone.stderr, alone
                assert url in alone.stdout and all(name in alone.stdout for name in workers), alone
                [worker] = json.loads(said("tree", "--json", f"{url}/{workers[0]}"))
                assert worker["cgroup"] == f"{url}/{workers[0]}"
                [rows] = map(json.loads, said("top", "--once", "--json", url).splitlines())
                assert {row["cgroup"] for row in rows["cgroups"]} == {row["cgroup"] for row in tree}
                assert workers[1] in said("top", "--once", url)

                # Each file
                stat = json.loads(said("stat", "--json", url))
                assert stat["memory.stat"]["anon"] == tree[0]["resident"]
                below = json.loads(said("stat", "--json", "-r", url))
                assert [row["cgroup"] for row in below] == [row["cgroup"] for row in tree]
                assert "memory.zswap.max" in below[1]
                assert "anon" in said("stat", f"{url}/{workers[0]}")

                # Reclaim: of all, of one, more than there is
                before = tree[0]["zswap"]
                done = json.loads(said("reclaim", "--json", url, "100K", "--source", "zswap"))
                assert done["error"] is None and done["written"] >= 100 << 10, done
                assert one.stat().total["disk"] >= 100 << 10
                done = json.loads(said("reclaim", "--json", url, "2M"))
                assert done["reclaimed"] >= 2 << 20, done
                done = json.loads(said("reclaim", "--json", f"{url}/{workers[0]}", "1M"))
                assert done["reclaimed"] >= 1 << 20, done
                done = json.loads(said("reclaim", "--json", url, "1T", "--source", "zswap", code=75))
                assert done["error"] == "EAGAIN" and 0 < done["written"] < 1 << 30, done
                assert one.stat().total["zswap"] == 0
                one.reclaim("4M")
                young = one.stat().total["zswap"]
                done = json.loads(said(
                    "reclaim", "--json", url, "1T", "--source", "zswap", "--min-age", "3600", code=75))
                assert done["written"] == 0 and one.stat().total["zswap"] == young > 0, done

                # One by one
                assert set(said("ls", f"{url}/cgroup").split()) >= {"memory.stat", *(f"{name}/" for name in workers)}
                assert said("cat", f"{url}/{workers[0]}/memory.high") == "max\\n"
                said("write", f"{url}/{workers[0]}/memory.high", "300M")
                assert said("cat", f"{url}/{workers[0]}/memory.high") == "314572800\\n"

                # Ctrl-C, or the time, ends a request of all workers, when it has come already as well
                import contextlib, errno
                from uzswap.client.schemes import open_url
                class Interrupted:
                    @contextlib.contextmanager
                    def call(self, act):
                        act()
                        yield
                for words in ({"within": 0.0}, {"interrupts": Interrupted()}):
                    for path in ("/cgroup/memory.reclaim", f"/cgroup/{workers[0]}/memory.reclaim"):
                        with open_url(url) as root:
                            try:
                                root.write(path, b"1T", **words)
                            except OSError as error:
                                assert error.errno == errno.EINTR, (words, path, error)
                            else:
                                raise AssertionError((words, path))

                # What cannot be
                said("stat", f"{url}/nobody", code=1)
                said("mkdir", f"{url}/new", code=1)
                values = client.gather(kept)
                assert all((value == np.arange(1 << 17) * i).all() for i, value in enumerate(values))
            nobody = uzswap("tree", "dask://127.0.0.1:1", env={"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"})
            assert nobody.returncode and "no scheduler" in nobody.stderr, nobody
            print("done")
            """
        ).strip()
    )
    assert done.stdout.split()[-1] == "done"
