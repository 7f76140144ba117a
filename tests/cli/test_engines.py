"""Which engine a command means, and what it says when there is none, or one that is dead."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from tests.cli.command import Endless, started, uzswap
from tests.serve.conftest import needs_fuse
from tests.support.child import Child, run_as_nobody
from tests.support.mounts import mount_points

from uzswap import MemCgroup, Zswap
from uzswap.cli import report
from uzswap.cli.main import cli, run
from uzswap.cli.settings import SETTINGS
from uzswap.client.places import open_engine
from uzswap.client.runtime import engines

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

    Filled = Callable[[Zswap, str], MemCgroup]

Output = pytest.CaptureFixture[str]

#: every command that asks an engine
ASKING = [
    ["ls"],
    ["cat", "vmstat"],
    ["write", "cgroup/a/memory.max", "1G"],
    ["mkdir", "cgroup/a"],
    ["rmdir", "cgroup/a"],
    ["tree"],
    ["stat", "/a"],
    ["reclaim", "/a", "1M"],
    ["top", "--once"],
    ["mount", "m"],
]

SERVED = """
    import sys, uzswap
    z = uzswap.Zswap(swap_size="64M")
    z.cgroup("/a")
    z.serve()
    if sys.argv[1:]:
        z.mount(sys.argv[1])
    print("served", flush=True)
    input()
    z.close()
"""


@pytest.mark.parametrize("command", ASKING, ids=lambda command: command[0])
def test_no_engine(command: list[str], capsys: Output) -> None:
    assert run(command) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "uzswap: no engine is served: call z.serve() in the program, or start it with uzswap run (ENOENT)\n"


def test_engines_shows_none(capsys: Output) -> None:
    assert run(["engines"]) == 0
    assert run(["engines", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.parametrize(
    "command", [command for command in ASKING if command[0] not in ("top", "tree")], ids=lambda command: command[0]
)
def test_several_engines(command: list[str], engine: EngineFactory, capsys: Output) -> None:
    for z in (engine(), engine()):
        z.serve()
    assert run(command) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("uzswap: there are several engines: choose one with --engine, of ")
    assert err.count("\n") == 1
    for entry in engines():
        assert entry.name in err


def test_one_of_several_is_chosen(engine: EngineFactory, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    made = [engine(), engine()]
    names = []
    for z, cgroup in zip(made, ("/first", "/second"), strict=True):
        z.cgroup(cgroup)
        z.serve()
        names += [entry.name for entry in engines() if entry.name not in names]
    assert run(["ls", "cgroup", "--engine", names[1]]) == 0
    assert "second/" in capsys.readouterr().out
    monkeypatch.setenv("UZSWAP_ENGINE", names[0])
    assert run(["ls", "cgroup"]) == 0
    assert "first/" in capsys.readouterr().out
    assert run(["engines", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == names


def test_an_engine_of_that_name_is_not_there(z: Zswap, capsys: Output) -> None:
    assert run(["ls", "--engine", "17-x"]) == 1
    assert "no engine is called 17-x" in capsys.readouterr().err


def test_a_dead_engine_is_forgotten_and_what_it_left_is_taken_away(
    runtime: Path, mount_point: Path, capsys: Output
) -> None:
    mounted = needs_fuse.args[0] is False
    with Child(SERVED, [str(mount_point)] if mounted else []) as child:
        assert child.read_line() == "served"
        assert run(["engines"]) == 0
        shown = capsys.readouterr().out
        assert str(child.pid) in shown
        assert (str(mount_point) in shown) is mounted
        child.kill()
    assert len(list(runtime.iterdir())) == 2  # the entry and the socket
    assert run(["ls"]) == 1
    assert "no engine is served" in capsys.readouterr().err
    assert list(runtime.iterdir()) == []
    assert str(mount_point) not in mount_points()


def test_an_engine_without_a_socket(z: Zswap, engine: EngineFactory, capsys: Output) -> None:
    alone = engine()
    alone.serve().close()
    name = [entry.name for entry in engines()][-1]
    assert run(["ls", "--engine", name]) == 1
    assert "has no socket" in capsys.readouterr().err


def test_an_engine_that_dies_while_it_is_asked(runtime: Path) -> None:
    busy = """
        import threading, uzswap
        z = uzswap.Zswap(swap_size="64M")
        a = z.cgroup("/a")
        handle = z.swap_out(bytes(range(256)) * 16, a)
        def trace(event):
            print("begun", flush=True)
            threading.Event().wait()
        z.trace = trace
        z.serve()
        print("served", flush=True)
        input()
    """
    with Child(busy) as child:
        assert child.read_line() == "served"
        with started("reclaim", "/a", "1M", "--source", "zswap") as process:
            assert child.read_line() == "begun"
            child.kill()
            out, err = process.communicate()
            assert process.returncode == 1
            assert out == ""
            assert err.startswith("uzswap: ")
            assert err.endswith("(ECONNRESET)\n")
            assert err.count("\n") == 1


@needs_fuse
def test_a_mount_of_a_dead_engine_says_what_to_do(mount_point: Path, capsys: Output) -> None:
    with Child(SERVED, [str(mount_point)]) as child:
        assert child.read_line() == "served"
        child.kill()
    for command in (["ls", str(mount_point)], ["stat", f"{mount_point}/cgroup/a"], ["tree", f"{mount_point}/cgroup"]):
        assert run(command) == 1
        err = capsys.readouterr().err
        assert "the process that served this mount is gone" in err
        assert err.endswith("(ENOTCONN)\n")
    # The next one that mounts there takes it over.
    with Child(SERVED) as child:
        assert child.read_line() == "served"
        assert run(["mount", str(mount_point)]) == 0
        assert run(["ls", f"{mount_point}/cgroup"]) == 0
        assert "a/" in capsys.readouterr().out
        child.write_line("")
        child.wait().check()
    assert str(mount_point) not in mount_points()


@needs_fuse
def test_mount_has_the_engine_mount(
    z: Zswap, mount_point: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(mount_point.parent)
    assert run(["mount", mount_point.name]) == 0
    assert (mount_point / "zswap/parameters/enabled").read_text() == "Y\n"
    assert run(["engines"]) == 0
    assert str(mount_point) in capsys.readouterr().out
    assert run(["mount", str(mount_point)]) == 1
    assert capsys.readouterr().err.endswith("(EBUSY)\n")


@needs_fuse
def test_mount_on_what_is_no_empty_directory(z: Zswap, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for path, code in ((tmp_path / "full", "ENOTEMPTY"), (tmp_path / "no/m", "ENOENT")):
        assert run(["mount", str(path)]) == 1
        err = capsys.readouterr().err
        assert err.endswith(f"({code})\n")
        assert str(path.parent) in err


@needs_fuse
def test_somebody_else_may_do_nothing(z: Zswap, mount_point: Path) -> None:
    z.cgroup("/a")
    z.mount(mount_point)
    code = "import sys; from uzswap.cli.main import run; sys.exit(run(sys.argv[1:]))"
    for command in (["cat", f"{mount_point}/vmstat"], ["reclaim", f"{mount_point}/cgroup/a", "1M"]):
        done = run_as_nobody(code, command)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.endswith("(EACCES)\n")
        assert done.stderr.count("\n") == 1
    # Not even the name of the engine: it is in a directory of the owner's.
    done = run_as_nobody(code, ["ls"], env={"XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"]})
    assert done.returncode == 1
    assert done.stderr.startswith("uzswap: ")
    assert done.stderr.count("\n") == 1


def test_a_runtime_directory_that_others_can_enter_is_refused(runtime: Path, capsys: Output) -> None:
    runtime.mkdir(mode=0o755)
    runtime.chmod(0o755)
    assert run(["ls"]) == 1
    assert capsys.readouterr().err.endswith("(EPERM)\n")
    runtime.chmod(0o700)


def test_ctrl_c_anywhere_is_one_line_and_130(filled: Filled, z: Zswap) -> None:
    filled(z, "/a")
    z.trace = endless = Endless()
    with started("write", "cgroup/a/memory.reclaim", "1G source=zswap") as process:
        assert endless.begun.wait(240)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130
    assert out == ""
    assert "(EINTR)" in err
    assert err.count("\n") == 1


def test_help_of_every_command_says_what_it_does() -> None:
    shown = uzswap("--help").stdout
    for name in ("cat", "engines", "ls", "mkdir", "mount", "reclaim", "rmdir", "run", "stat", "top", "tree", "write"):
        assert f"\n  {name} " in shown


def test_an_engine_is_not_asked_to_mount_on_a_relative_path(z: Zswap) -> None:
    with open_engine(None) as tree, pytest.raises(OSError, match="absolute") as caught:
        tree.mount("m", allow_other=False)
    assert caught.value.errno == errno.EINVAL


def test_the_page_names_every_command_setting_and_exit_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for name in cli.list_commands(click.Context(cli)):
        assert re.search(rf"^\|.*`{name}\b", page, re.MULTILINE), name
    for name in SETTINGS:
        assert f"| `{name}` |" in page
    codes = (report.DONE, report.FAILED, report.BAD_ARGUMENTS, report.AGAIN, report.INTERRUPTED, report.BROKEN_PIPE)
    for code in codes:
        assert f"\n| {code:d} |" in page
