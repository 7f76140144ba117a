"""Where the memory is, asked over the socket and by the command."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import EngineFactory
from tests.serve.doors import fails

import uzswap
from uzswap import Store, Zswap
from uzswap.cli.main import run
from uzswap.client.client import Client


@pytest.fixture
def served(engine: EngineFactory, private: Path) -> Iterator[tuple[Zswap, Client]]:
    """An engine with a value that is held, and an array of which a half is compressed."""
    z = engine()
    with Store[str, list[float]](z.cgroup("/jobs/a")) as store:
        store["held"] = held = [1.5] * 1000
        store["free"] = [2.5] * 1000
        store.reclaim("1M")
        x = uzswap.zeros(64 * 512, cgroup=z.cgroup("/arrays"))
        x[:] = np.arange(len(x))
        uzswap.advise(x[: 32 * 512], "pageout")
        with z.serve(private / "s") as server, Client(server.path) as client:
            yield z, client
        del held, x


def test_over_the_socket(served: tuple[Zswap, Client]) -> None:
    z, client = served
    told = client.report()
    mine = uzswap.report(z, columns=256).as_json()
    assert told["arrays"] == mine["arrays"]
    assert told["arrays"][0]["strip"] == "z" * 32 + "R" * 32
    assert [value["key"] for value in told["stores"][0]["stay"]] == ["'held'"]
    assert sum(told["process"].values()) == pytest.approx(told["rss"], rel=0.05)
    below = client.report("/jobs")
    assert (below["cgroup"], len(below["stores"]), below["arrays"]) == ("/jobs", 1, [])
    assert client.report("/jobs/a", "'free'")["values"][0]["where"] == "zswap"
    with fails(errno.ENOENT):
        client.report("/nobody")
    with fails(errno.ENOENT):
        client.report("/jobs/a", "'nobody'")


def test_the_command(served: tuple[Zswap, Client], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why", "/"]) == 0
    text = capsys.readouterr().out
    assert "z" * 32 + "R" * 32 in text
    assert "Python's own" in text
    assert "'held'" in text
    assert run(["why", "/jobs/a", "held"]) == 0
    assert "'held': resident" in (told := capsys.readouterr().out)
    assert "is held by" in told
    assert run(["why", "/jobs/a", "free"]) == 0
    assert "it was among the coldest when room was needed: zswap" in capsys.readouterr().out
    assert run(["why", "--json", "/jobs"]) == 0
    assert json.loads(capsys.readouterr().out)["cgroup"] == "/jobs"
    assert run(["why", "/jobs/a", "nobody"]) == 1
    assert "no store of this cgroup has the key 'nobody' (ENOENT)" in capsys.readouterr().err


def test_the_kernel_does_not_tell(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from uzswap.client.directory import DirectoryRoot

    with fails(errno.EOPNOTSUPP):
        DirectoryRoot().report(str(tmp_path))
