"""ls, cat, write, mkdir, rmdir, tree, stat: on an engine, on a mount, on the kernel's own files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.command import started, uzswap
from tests.serve.conftest import needs_fuse

from uzswap import MemCgroup, Zswap
from uzswap.cli.main import run
from uzswap.files.cgroup import FILES

if TYPE_CHECKING:
    Filled = Callable[[Zswap, str], MemCgroup]

Output = pytest.CaptureFixture[str]


@pytest.fixture(params=["engine", pytest.param("mount", marks=needs_fuse)])
def top(request: pytest.FixtureRequest, z: Zswap, mount_point: Path) -> str:
    """Where the tree begins: nowhere in particular, or at a mount."""
    if request.param == "engine":
        return ""
    z.mount(mount_point)
    return f"{mount_point}/"


def cgroup_of(top: str, path: str) -> str:
    """A cgroup as an argument."""
    return f"{top}cgroup{path}" if top else path


def test_ls_lists_directories_and_files(top: str, z: Zswap, capsys: Output) -> None:
    z.cgroup("/a/b")
    assert run(["ls", top or "/"]) == 0
    assert set(capsys.readouterr().out.split()) == {"cgroup/", "zswap/", "uzswap.stat", "vmstat", "meminfo", "swaps"}
    assert run(["ls", f"{top}cgroup/a"]) == 0
    assert set(capsys.readouterr().out.split()) == {*FILES, "b/"}


def test_ls_shows_modes_and_json(top: str, z: Zswap, capsys: Output) -> None:
    z.cgroup("/a/b")
    assert run(["ls", "-l", f"{top}cgroup/a"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "-r--r--r-- memory.stat" in lines
    assert "--w------- memory.reclaim" in lines
    assert "drwxr-xr-x b/" in lines
    assert run(["ls", "--json", f"{top}cgroup/a"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"name": "b", "type": "directory", "mode": "0755"} in told


def test_cat_shows_files_one_after_the_other(top: str, z: Zswap, capsys: Output) -> None:
    z.cgroup("/a").write("memory.high", "64M")
    assert run(["cat", f"{top}cgroup/a/memory.high", f"{top}zswap/parameters/enabled"]) == 0
    assert capsys.readouterr().out == "67108864\nY\n"


def test_write_is_one_write(top: str, z: Zswap, capsys: Output) -> None:
    z.cgroup("/a")
    assert run(["write", f"{top}cgroup/a/memory.max", "1G"]) == 0
    assert z.cgroup("/a").read("memory.max") == "1073741824\n"
    assert capsys.readouterr().out == ""


def test_write_takes_stdin(z: Zswap) -> None:
    z.cgroup("/a")
    assert uzswap("write", "cgroup/a/memory.max", "-", stdin="2G\n").returncode == 0
    assert z.cgroup("/a").read("memory.max") == "2147483648\n"


def test_cgroups_are_made_and_removed(top: str, z: Zswap) -> None:
    assert run(["mkdir", f"{top}cgroup/a", f"{top}cgroup/a/b"]) == 0
    assert list(z.cgroup("/a").children) == ["b"]
    assert run(["rmdir", f"{top}cgroup/a/b", f"{top}cgroup/a"]) == 0
    assert list(z.root.children) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cat", "{}cgroup/nope/memory.stat"], "ENOENT"),
        (["cat", "{}cgroup/a"], "EISDIR"),
        (["cat", "{}cgroup/a/memory.reclaim"], "EACCES"),
        (["ls", "{}nope"], "ENOENT"),
        (["ls", "{}vmstat/"], "ENOTDIR"),
        (["write", "{}cgroup/a/memory.max", "much"], "EINVAL"),
        (["write", "{}cgroup/a/memory.max", "9" * 5000], "E2BIG"),
        (["write", "{}cgroup/a/memory.stat", "1"], "EACCES"),
        (["write", "{}cgroup/a/memory.reclaim", "1M source=disk"], "EINVAL"),
        (["mkdir", "{}cgroup/a"], "EEXIST"),
        (["mkdir", "{}zswap/a"], "EPERM"),
        (["mkdir", "{}cgroup/no/b"], "ENOENT"),
        (["rmdir", "{}cgroup/a"], "EBUSY"),
        (["rmdir", "{}cgroup/no"], "ENOENT"),
    ],
)
def test_an_error_is_one_line_with_its_errno(
    arguments: list[str], said: str, top: str, z: Zswap, capsys: Output
) -> None:
    z.cgroup("/a/b")
    assert run([argument.replace("{}", top) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("uzswap: ")
    assert err.endswith(f"({said})\n")
    assert err.count("\n") == 1


def test_an_engine_says_what_is_wrong_in_its_own_words(z: Zswap, capsys: Output) -> None:
    z.cgroup("/a")
    assert run(["write", "cgroup/a/memory.max", "much"]) == 1
    assert "'much' is not a limit" in capsys.readouterr().err


def test_a_write_that_did_less_says_so_and_how_much(filled: Filled, z: Zswap, capsys: Output) -> None:
    filled(z, "/a")
    assert run(["write", "cgroup/a/memory.reclaim", "1G source=zswap"]) == 75
    err = capsys.readouterr().err
    written = z.cgroup("/a").stats()["zswpwb_proactive_b"]
    assert written > 0
    assert f"{written} of 1073741824 bytes written (EAGAIN)\n" in err
    assert "cgroup/a/memory.reclaim" in err


def test_tree_shows_what_each_cgroup_uses(filled: Filled, top: str, z: Zswap, capsys: Output) -> None:
    filled(z, "/jobs/a")
    z.cgroup("/jobs/b")
    where = cgroup_of(top, "/")
    assert run(["tree", where]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "MiB zswap" in lines[2]
    assert lines[3].split() == ["└──", "b"]
    assert run(["tree", "--depth", "1", where]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert run(["tree", "--json", where]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [entry["cgroup"].removeprefix(where.rstrip("/")) for entry in told[1:]] == ["/jobs", "/jobs/a", "/jobs/b"]
    assert told[2]["zswap"] == z.cgroup("/jobs/a").stats()["zswap"]


def test_stat_shows_all_that_is_not_0(filled: Filled, top: str, z: Zswap, capsys: Output) -> None:
    a = filled(z, "/a")
    a.write("memory.high", "128M")
    assert run(["stat", cgroup_of(top, "/a")]) == 0
    rows = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["memory.stat zswpout"] == "2048"
    assert "memory.stat pswpin" not in rows
    assert run(["stat", "--all", "--raw", cgroup_of(top, "/a")]) == 0
    rows = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines() if len(line.split()) > 1)
    assert rows["memory.high"] == str(128 << 20)
    assert rows["memory.stat zswapped"] == str(2048 * 4096)
    assert rows["memory.stat pswpin"] == "0"


def test_stat_as_json_has_every_file_that_can_be_read(filled: Filled, top: str, z: Zswap, capsys: Output) -> None:
    a = filled(z, "/a")
    assert run(["stat", "--json", cgroup_of(top, "/a")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == {"cgroup"} | {name for name, row in FILES.items() if row.reader is not None}
    assert told["memory.stat"] == a.stats()
    assert told["memory.max"] == "max"
    assert told["memory.zswap.current"] == a.stats()["zswap"]


@pytest.mark.parametrize("command", ["stat", "tree", "top"])
def test_a_cgroup_that_is_not_there(command: str, top: str, z: Zswap, capsys: Output) -> None:
    assert run([command, cgroup_of(top, "/nope")]) == 1
    assert "there is no such cgroup (ENOENT)" in capsys.readouterr().err


def test_names_that_programs_read_are_never_cut_off(z: Zswap) -> None:
    name = "a" * 200
    z.cgroup(f"/{name}")
    for command in (["tree"], ["top", "--once"]):
        assert name in uzswap(*command, env={"COLUMNS": "40"}).stdout


def test_nobody_reads_the_output(z: Zswap) -> None:
    """As ``uzswap top | head -1``: the command ends, and says nothing."""
    for arguments in (["top", "--json", "--interval", "0.01"], ["top", "--interval", "0.01"]):
        with started(*arguments) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.wait() == 141
            assert process.stderr.read() == ""


def test_the_shell_completes_engines_paths_and_cgroups(z: Zswap) -> None:
    z.cgroup("/jobs/alpha")

    def complete(*words: str) -> list[str]:
        env = {"_UZSWAP_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
        done = uzswap(env=env)
        assert done.stderr == ""
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert complete("uzswap", "cat", "cgroup/jobs/alpha/memory.z") == [
        f"cgroup/jobs/alpha/{name}" for name in FILES if name.startswith("memory.z")
    ]
    assert complete("uzswap", "stat", "/jobs/a") == ["/jobs/alpha"]
    assert len(complete("uzswap", "ls", "--engine", "")) == 1


def test_paths_of_cgroups_are_taken_wherever_paths_of_files_are(z: Zswap, capsys: Output) -> None:
    assert run(["mkdir", "/jobs", "/jobs/x"]) == 0
    assert run(["write", "/jobs/x/memory.max", "8M"]) == 0
    assert z.cgroup("/jobs/x").read("memory.max") == f"{8 << 20}\n"
    assert run(["cat", "/jobs/x/memory.max", "jobs/x/memory.max", "cgroup/jobs/x/memory.max"]) == 0
    assert capsys.readouterr().out == f"{8 << 20}\n" * 3
    assert run(["ls", "/jobs"]) == 0
    assert "x/" in capsys.readouterr().out
    assert run(["cat", "vmstat"]) == 0
    assert run(["rmdir", "/jobs/x"]) == 0
    assert "x" not in z.cgroup("/jobs").children
