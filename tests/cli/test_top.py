"""top: printed, as JSON, and live on a terminal with its keys."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from tests.cli.command import Endless, Terminal, started, uzswap
from tests.conftest import EngineFactory
from tests.serve.conftest import needs_fuse

from uzswap import MemCgroup, Zswap
from uzswap.cli.main import run
from uzswap.cli.top import COLUMNS, Looks, _table
from uzswap.client.places import open_cgroup
from uzswap.client.runtime import engines
from uzswap.units import format_size

Filled = Callable[[Zswap, str], MemCgroup]
Output = pytest.CaptureFixture[str]


@pytest.fixture(params=["engine", pytest.param("mount", marks=needs_fuse)])
def place(request: pytest.FixtureRequest, z: Zswap, mount_point: Path) -> str:
    """The root cgroup."""
    if request.param == "engine":
        return "/"
    z.mount(mount_point)
    return f"{mount_point}/cgroup"


def test_once_prints_a_table(filled: Filled, place: str, z: Zswap, capsys: Output) -> None:
    a = filled(z, "/a")
    a.reclaim("1M", source="zswap")
    assert run(["top", "--once", place]) == 0
    heading, root, row = capsys.readouterr().out.splitlines()
    assert heading.split()[0] == "cgroup"
    assert "resident v" in heading
    assert root.startswith(place)
    stats = a.stats()
    for key in ("zswap", "uzswap.disk"):
        assert format_size(stats[key]) in row
    assert f"{stats['zswapped'] / stats['zswap']:.2f}" in row


def test_rates_take_two_looks(filled: Filled, place: str, z: Zswap) -> None:
    a = filled(z, "/a")
    with started("top", "--json", "--iterations", "2", "--interval", "0.5", place) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())["cgroups"]
        a.reclaim("1M", source="zswap")
        second = json.loads(process.stdout.readline())["cgroups"]
        assert process.wait() == 0
    assert [set(row) for row in first] == [{"cgroup", *(column.name for column in COLUMNS)}] * 2
    assert first[1]["written_bytes_per_second"] is None
    assert second[1]["written_bytes_per_second"] > 0
    assert second[1]["refaults_per_second"] == 0
    assert second[1]["disk"] == a.stats()["uzswap.disk"]


@pytest.mark.parametrize(("key", "first"), [("n", "/"), ("z", "/"), ("d", "/")])
def test_sort(key: str, first: str, filled: Filled, z: Zswap, capsys: Output) -> None:
    filled(z, "/b")
    z.cgroup("/c")
    filled(z, "/a").reclaim("1M", source="zswap")
    assert run(["top", "--json", "--once", "--sort", key]) == 0
    rows = [row["cgroup"] for row in json.loads(capsys.readouterr().out)["cgroups"]]
    assert rows == {"n": ["/", "/a", "/b", "/c"], "z": ["/", "/b", "/a", "/c"], "d": ["/", "/a", "/b", "/c"]}[key]


def test_a_cgroup_that_goes_is_left_out(z: Zswap) -> None:
    z.cgroup("/a/b")
    with started("top", "--json", "--interval", "0.01") as process:
        assert process.stdout is not None
        assert len(json.loads(process.stdout.readline())["cgroups"]) == 3
        z.cgroup("/a/b").remove()
        while len(json.loads(process.stdout.readline())["cgroups"]) != 2:
            pass


def test_depth(z: Zswap, capsys: Output) -> None:
    z.cgroup("/a/b/c")
    assert run(["top", "--json", "--once", "--depth", "1"]) == 0
    assert [row["cgroup"] for row in json.loads(capsys.readouterr().out)["cgroups"]] == ["/", "/a"]


@pytest.mark.parametrize("arguments", [["--interval", "0"], ["--sort", "y"], ["--iterations", "0"], ["--depth", "-1"]])
def test_bad_arguments(arguments: list[str], z: Zswap, capsys: Output) -> None:
    assert run(["top", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_terminal_it_prints_until_ctrl_c(z: Zswap) -> None:
    with started("top", "--interval", "0.01") as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline().startswith("cgroup")
            process.stdout.readline()
        process.send_signal(2)
        _, err = process.communicate()
    assert process.returncode == 130
    assert err == "uzswap: interrupted\n"


def test_limits_shares_and_the_process(filled: Filled, z: Zswap, capsys: Output) -> None:
    filled(z, "/a").write("memory.max", "64M")
    assert run(["top", "--once", "--json"]) == 0
    root, a = json.loads(capsys.readouterr().out)["cgroups"]
    current = int(z.cgroup("/a").read("memory.current"))
    assert (a["memory_max"], a["share_of_max"], a["rss"]) == (64 << 20, pytest.approx(100 * current / (64 << 20)), None)
    assert (root["memory_max"], root["share_of_max"]) == (None, None)
    assert root["rss"] > 1 << 20


def test_several_engines_at_once(engine: EngineFactory, capsys: Output) -> None:
    made = [engine(), engine()]
    for z, path in zip(made, ("/first", "/second"), strict=True):
        z.cgroup(path)
        z.serve()
    names = [entry.name for entry in engines()]
    for command in (["top", "--once", "--sort", "n"], ["tree"]):
        assert run(command) == 0
        out = capsys.readouterr().out
        assert f"{names[0]}:/" in out
        assert f"{names[1]}:/" in out
        assert "first" in out
        assert "second" in out
    assert run(["tree", "--json", "/second"]) == 0
    assert [one["cgroup"] for one in json.loads(capsys.readouterr().out)] == [f"{names[1]}:/second"]
    assert run(["top", "--once", "/nobody"]) == 1
    assert "ENOENT" in capsys.readouterr().err


def test_columns_that_have_no_room_are_left_out(filled: Filled, z: Zswap) -> None:
    """What matters least goes first; the name and what is resident stay."""
    filled(z, "/a")
    top = open_cgroup("/", None)
    with top.root:
        rows = Looks([top], None).look()
    shown: list[list[str]] = []
    for width in (200, 70, 45, 20):
        console = Console(width=width, file=io.StringIO())
        columns = [str(column.header).split()[0] for column in _table(rows, "n", console).columns]
        assert columns[:2] == ["cgroup", "resident"]
        shown.append(columns)
    assert len(shown[0]) == len(COLUMNS) + 1
    for wider, narrower in itertools.pairwise(shown):
        assert len(narrower) < len(wider)
        assert [title for title in wider if title in narrower] == narrower
    assert "rss" not in shown[1]
    assert "disk" in shown[2]


# On a terminal


def test_live_view_and_q(filled: Filled, place: str, z: Zswap) -> None:
    filled(z, "/a")
    with Terminal("top", "--interval", "0.2", place) as terminal:
        terminal.expect(r"cgroup +resident v .*/a .* MiB .*r: reclaim")
        z.cgroup("/new")
        terminal.expect("/new")
        terminal.send("q")
        assert terminal.wait() == 0


def test_ctrl_c_quits(z: Zswap) -> None:
    with Terminal("top") as terminal:
        terminal.expect("q: quit")
        terminal.interrupt()
        assert terminal.wait() == 0


def test_keys_sort_and_reverse(filled: Filled, z: Zswap) -> None:
    for name in ("/a", "/b", "/c"):
        filled(z, name)
    z.cgroup("/b").reclaim("2M", source="zswap")
    z.cgroup("/c").reclaim("1M", source="zswap")
    with Terminal("top", "--interval", "60") as terminal:
        terminal.expect("resident v.*q: quit")
        for column in COLUMNS:
            if column.key != "m":
                terminal.send(column.key)
            if column.key == "d":
                terminal.expect(r"disk v.*?\n/ .*?\n/b .*?\n/c .*?\n/a .*?q: quit")
            elif column.key != "m":
                terminal.expect(re.escape(column.title) + " v.*?q: quit")
        terminal.send("z")
        terminal.expect(r"zswap v.*?\n/ .*?\n/a .*?\n/c .*?\n/b .*?q: quit")
        terminal.send("z")
        terminal.expect(r"zswap \^.*?\n/b .*?\n/c .*?\n/a .*?\n/ .*?q: quit")
        terminal.send("n")
        terminal.expect(r"cgroup v.*?\n/ .*?\n/a .*?\n/b .*?\n/c .*?q: quit")
        terminal.send("q")
        assert terminal.wait() == 0


@pytest.mark.parametrize(("down", "up"), [("j", "k"), ("\x1b[B", "\x1b[A")])
def test_reclaim_from_the_cgroup_that_is_chosen(down: str, up: str, filled: Filled, place: str, z: Zswap) -> None:
    a, b = filled(z, "/a"), filled(z, "/b")
    with Terminal("top", "--interval", "60", "--sort", "n", place) as terminal:
        terminal.expect("q: quit")
        terminal.send(down * 5 + up)  # there are three
        terminal.send("r")
        terminal.expect(f"reclaim from {re.escape(place.rstrip('/'))}/a: _")
        terminal.send("100K source=disk\x7f\x7f\x7f\x7fzswap\r")
        terminal.expect("100K source=zswap from .*/a: done in")
        assert a.stats()["zswpwb_proactive_b"] >= 100 << 10
        assert b.stats()["zswpwb_proactive_b"] == 0
        terminal.send("r1G source=zswap\r")
        terminal.expect(r"less .* than asked.*\(EAGAIN\)")
        terminal.send("rnonsense\r")
        terminal.expect(r"\(EINVAL\)")
        terminal.send("q")
        assert terminal.wait() == 0


def test_escape_and_an_empty_line_reclaim_nothing(filled: Filled, z: Zswap) -> None:
    filled(z, "/a")
    with Terminal("top", "--interval", "60") as terminal:
        terminal.expect("q: quit")
        terminal.send("r1G")
        terminal.expect("reclaim from /: 1G_")
        terminal.send("\x1b")
        terminal.expect("n m z d l s c f p w x: sort")
        terminal.send("r1G\x15\r")
        terminal.send("r")
        terminal.expect("reclaim from /: _")
        terminal.send("\x1b")
        terminal.send("q")
        assert terminal.wait() == 0
    assert z.root.last_reclaim is None


def test_the_view_goes_on_while_it_reclaims(filled: Filled, z: Zswap) -> None:
    a = filled(z, "/a")
    z.trace = endless = Endless()
    with Terminal("top", "--interval", "0.1", "--sort", "n") as terminal:
        terminal.expect("q: quit")
        terminal.send("jr1G source=zswap\r")
        assert endless.begun.wait(240)
        z.cgroup("/new")
        terminal.expect("/new.*reclaiming 1G source=zswap from /a")
        # Quitting interrupts it, as going away always does.
        terminal.send("q")
        assert terminal.wait() == 0
        while a.last_reclaim is None:
            pass
    assert a.stats()["zswap"] > 0


def test_more_cgroups_than_lines(z: Zswap) -> None:
    for number in range(50):
        z.cgroup(f"/c{number:02}")
    with Terminal("top", "--interval", "60", "--sort", "n", rows=12) as terminal:
        terminal.expect(r"/c07.*?q: quit")
        assert "/c08" not in terminal.rest
        terminal.send("j" * 30)
        terminal.expect(r"/c29.*?q: quit")
        terminal.send("j" * 30)
        terminal.expect(r"/c49.*?q: quit")
        terminal.send("q")
        assert terminal.wait() == 0


def test_an_engine_that_ends_is_told_on_the_screen_that_was_there_before(z: Zswap) -> None:
    with Terminal("top", "--interval", "0.05") as terminal:
        terminal.expect("q: quit")
        z.close()
        terminal.expect(r"uzswap: [^\n]*\((ECONNREFUSED|ECONNRESET|ENOENT|EBADF)\)\n")
        assert terminal.wait() == 1


def test_help_names_the_keys() -> None:
    shown = uzswap("top", "--help").stdout
    assert "n m z d l s c f p w x" in shown
    assert "source=zswap" in shown
