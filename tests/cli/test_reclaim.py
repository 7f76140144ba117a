"""reclaim: results, less than asked, Ctrl-C, a terminal; through the socket and through a mount."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.command import Endless, Terminal, started
from tests.serve.conftest import needs_fuse

from uzswap import MemCgroup, Store, Zswap
from uzswap.cli.main import run

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

    Filled = Callable[[Zswap, str], MemCgroup]

Output = pytest.CaptureFixture[str]


@pytest.fixture(params=["engine", pytest.param("mount", marks=needs_fuse)])
def place(request: pytest.FixtureRequest, z: Zswap, mount_point: Path) -> str:
    """What comes before the path of a cgroup."""
    if request.param == "engine":
        return ""
    z.mount(mount_point)
    return f"{mount_point}/cgroup"


def told(capsys: Output) -> dict[str, int]:
    result: dict[str, int] = json.loads(capsys.readouterr().out)
    return result


def test_what_was_written_is_told(filled: Filled, place: str, z: Zswap, capsys: Output) -> None:
    a = filled(z, "/a")
    assert run(["reclaim", f"{place}/a", "100K", "--source", "zswap", "--json"]) == 0
    result = told(capsys)
    assert result["cgroup"] == f"{place}/a"
    assert result["error"] is None
    assert result["asked"] == 100 << 10
    assert result["written"] == a.stats()["zswpwb_proactive_b"] >= 100 << 10
    assert result["entries"] == a.stats()["zswpwb"]


def test_a_table_for_people(filled: Filled, place: str, z: Zswap, capsys: Output) -> None:
    filled(z, "/a")
    assert run(["reclaim", f"{place}/a", "100K", "--source", "zswap"]) == 0
    out, err = capsys.readouterr()
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert rows["asked"] == "100.0 KiB (102400)"
    assert rows["written"].startswith("10")
    assert "seconds" in rows
    assert err == ""


def test_resident_memory_is_reclaimed_without_a_source(place: str, z: Zswap, capsys: Output) -> None:
    with Store[int, bytes](z.cgroup("/a")) as store:
        for key in range(100):
            store[key] = bytes([key]) * 100_000
        assert run(["reclaim", f"{place}/a", "1M", "--json", "--swappiness", "max"]) == 0
        assert told(capsys)["reclaimed"] >= 1 << 20


def test_less_than_asked_is_75_with_what_was_done(filled: Filled, place: str, z: Zswap, capsys: Output) -> None:
    a = filled(z, "/a")
    assert run(["reclaim", f"{place}/a", "1G", "--source", "zswap", "--json"]) == 75
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["error"] == "EAGAIN"
    assert result["written"] == a.stats()["zswpwb_proactive_b"] > 0
    assert a.stats()["zswap"] == 0
    assert err.startswith(f"uzswap: {place}/a")
    assert err.endswith("(EAGAIN)\n")
    assert err.count("\n") == 1


def test_ctrl_c_ends_it_and_shows_what_was_done(filled: Filled, place: str, z: Zswap) -> None:
    a = filled(z, "/a")
    z.trace = endless = Endless()
    with started("reclaim", f"{place}/a", "1G", "--source", "zswap", "--json") as process:
        assert endless.begun.wait(240)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    result = json.loads(out)
    assert process.returncode == 130
    assert result["error"] == "EINTR"
    assert result["asked"] == 1 << 30
    assert result["scanned"] > 0
    assert result["written"] == a.stats()["zswpwb_proactive_b"]
    assert a.stats()["zswap"] > 0
    assert err.endswith("(EINTR)\n")
    assert err.count("\n") == 1


def test_wait_goes_on_when_there_is_more(filled: Filled, place: str, z: Zswap) -> None:
    a = filled(z, "/a")
    nbytes = a.stats()["zswap"]
    with started("reclaim", f"{place}/a", str(nbytes + 100_000), "--source", "zswap", "--wait", "--json") as process:
        while a.last_reclaim is None or a.stats()["zswap"]:
            assert process.poll() is None
        filled(z, "/a")
        out, err = process.communicate(timeout=240)
    result = json.loads(out)
    assert process.returncode == 0
    assert err == ""
    assert result["asked"] == nbytes + 100_000
    assert nbytes + 100_000 <= result["written"] == a.stats()["zswpwb_proactive_b"]


def test_wait_is_ended_by_ctrl_c(filled: Filled, z: Zswap) -> None:
    a = filled(z, "/a")
    with started("reclaim", "/a", "1G", "--source", "zswap", "--wait") as process:
        while a.last_reclaim is None or a.stats()["zswap"]:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert out.startswith("asked ")
    assert "(EINTR)" in err


def test_a_full_disk_is_told_with_what_was_written(filled: Filled, engine: EngineFactory, capsys: Output) -> None:
    z = engine(swap_size="4M", max_pool="64M")
    z.serve()
    a = filled(z, "/a")
    assert run(["reclaim", "/a", "1G", "--source", "zswap", "--json"]) == 1
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["error"] == "ENOSPC"
    assert result["failed.ENOSPC"] > 0
    assert 0 < result["written"] == a.stats()["zswpwb_proactive_b"] < 4 << 20
    assert err.endswith("(ENOSPC)\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["/a", "much"],
        ["/a", "-1"],
        ["/a"],
        ["/a", "1M", "--source", "disk"],
        ["/a", "1M", "--min-age", "5"],
        ["/a", "1M", "--source", "zswap", "--min-age", "-5"],
        ["/a", "1M", "--source", "zswap", "--swappiness", "5"],
        ["/a", "1M", "--swappiness", "201"],
        ["", "1M"],
    ],
)
def test_bad_arguments_ask_nobody(arguments: list[str], z: Zswap, capsys: Output) -> None:
    a = z.cgroup("/a")
    assert run(["reclaim", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert a.last_reclaim is None


def test_writeback_that_is_off_is_said(filled: Filled, place: str, z: Zswap, capsys: Output) -> None:
    filled(z, "/a/b")
    z.cgroup("/a").write("memory.zswap.writeback", "0")
    assert run(["reclaim", f"{place}/a/b", "1M", "--source", "zswap"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "memory.zswap.writeback" in err
    assert err.endswith("(EINVAL)\n")


def test_min_age_arrives(filled: Filled, z: Zswap, capsys: Output) -> None:
    filled(z, "/a")
    assert run(["reclaim", "/a", "1M", "--source", "zswap", "--min-age", "3600", "--json"]) == 75
    assert told(capsys)["written"] == 0


def test_a_terminal_shows_how_far_it_is(filled: Filled, place: str, z: Zswap) -> None:
    filled(z, "/a")
    z.trace = endless = Endless()
    with Terminal("reclaim", f"{place}/a", "100K", "--source", "zswap") as terminal:
        terminal.expect(r"/a .*0/102.4|/a .*0\.0/100\.0 KiB")
        endless.over.set()
        assert terminal.wait() == 0
        assert "asked" in terminal.rest


def test_ctrl_c_on_a_terminal(filled: Filled, place: str, z: Zswap) -> None:
    filled(z, "/a")
    z.trace = endless = Endless()
    with Terminal("reclaim", f"{place}/a", "1G", "--source", "zswap") as terminal:
        assert endless.begun.wait(240)
        terminal.interrupt()
        assert terminal.wait() == 130
        assert "(EINTR)" in terminal.rest
        assert "asked" in terminal.rest
