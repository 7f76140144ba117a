"""The kernel's own cgroups: what works on them, and what an errno means there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.command import uzswap
from tests.support.mounts import mount_points

from uzswap import Zswap
from uzswap.cli.main import run
from uzswap.client.kernel import explain
from uzswap.client.mounts import mounted_type

Output = pytest.CaptureFixture[str]


def mounted(kind: str) -> Path | None:
    return next((Path(path) for path in mount_points() if mounted_type(path) == kind), None)


@pytest.fixture
def unified() -> Path:
    path = mounted("cgroup2")
    if path is None:
        pytest.skip("no cgroup2 is mounted: mount -t cgroup2 none /mnt")
    return path


@pytest.fixture
def group(unified: Path) -> Iterator[Path]:
    """A new cgroup of the kernel's, with the memory controller."""
    path = unified / f"uzswap-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError:
        pytest.skip(f"a cgroup can be made in {unified} by root: run the tests as root, or systemd-run -p Delegate=yes")
    try:
        if not (path / "memory.reclaim").exists():
            pytest.skip(f"cgroups need memory.reclaim: echo +memory > {unified}/cgroup.subtree_control, Linux 5.19")
        yield path
    finally:
        path.rmdir()


def test_files_of_the_kernel_are_shown(unified: Path, capsys: Output) -> None:
    assert run(["ls", str(unified)]) == 0
    assert "cgroup.controllers" in capsys.readouterr().out.split()
    assert run(["cat", str(unified / "cgroup.controllers")]) == 0
    assert capsys.readouterr().out == (unified / "cgroup.controllers").read_text()


def test_files_of_proc_and_sys_are_shown(capsys: Output) -> None:
    assert run(["cat", "/proc/sys/kernel/ostype"]) == 0
    assert capsys.readouterr().out == "Linux\n"
    assert run(["cat", "/sys/module/zswap/parameters/no_such"]) == 1
    assert "(ENOENT)" in capsys.readouterr().err


def test_stat_tree_top_and_reclaim(group: Path, capsys: Output) -> None:
    for command in (["stat"], ["stat", "--json"], ["tree"], ["tree", "--json"], ["top", "--once"]):
        assert run([*command, str(group)]) == 0
        assert capsys.readouterr().err == ""
    assert run(["reclaim", str(group), "1M"]) == 75  # nobody is in it
    out, err = capsys.readouterr()
    assert "reclaimed" in out
    assert err == f"uzswap: {group}/memory.reclaim: less was reclaimed than asked for (EAGAIN)\n"


def test_a_kernel_without_source_is_said_to_be_one(group: Path, capsys: Output) -> None:
    if "zswpwb_proactive_b" in (group / "memory.stat").read_text():
        pytest.skip("this kernel has source=zswap")
    assert run(["reclaim", str(group), "1M", "--source", "zswap"]) == 1
    assert "it takes the proactive writeback series (EINVAL)" in capsys.readouterr().err


def test_a_cgroup_that_is_not_there(unified: Path, capsys: Output) -> None:
    for command in (["stat"], ["tree"], ["top", "--once"]):
        assert run([*command, str(unified / "no-such-cgroup")]) == 1
        assert capsys.readouterr().err == f"uzswap: {unified}/no-such-cgroup: there is no such cgroup (ENOENT)\n"


def test_a_hierarchy_without_the_memory_controller(unified: Path, capsys: Output) -> None:
    if "memory" in (unified / "cgroup.controllers").read_text():
        pytest.skip("the unified hierarchy has the memory controller here, as it should")
    assert run(["reclaim", str(unified), "1M"]) == 1
    assert "has no memory controller" in capsys.readouterr().err


def test_version_1_is_refused(capsys: Output) -> None:
    path = mounted("cgroup")
    if path is None:
        pytest.skip("no cgroup of version 1 is mounted, as it should be")
    for command in (["stat", str(path)], ["reclaim", str(path), "1M"]):
        assert run(command) == 1
        assert "cgroups of version 1 have no memory.reclaim" in capsys.readouterr().err


def test_an_engine_that_is_named_is_meant_whatever_the_path(z: Zswap, capsys: Output) -> None:
    from uzswap.client.runtime import engines

    z.cgroup("/sys/fs/cgroup")
    (entry,) = engines()
    assert run(["ls", "--engine", entry.name, "/cgroup/sys/fs"]) == 0
    assert capsys.readouterr().out.split()[-1] == "cgroup/"
    assert run(["stat", "--engine", entry.name, "/sys/fs/cgroup"]) == 0
    assert "memory.zswap.max" in capsys.readouterr().out


def test_a_path_relative_to_where_one_is(unified: Path) -> None:
    before = os.getcwd()
    os.chdir(unified)
    try:
        assert uzswap("cat", "cgroup.controllers").stdout == (unified / "cgroup.controllers").read_text()
    finally:
        os.chdir(before)


# The words, on plain directories with the files that they look at


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for directory in (inner, inner.parent):
        (directory / "cgroup.controllers").write_text("cpu memory\n")
        (directory / "cgroup.subtree_control").write_text("\n")
        (directory / "memory.zswap.writeback").write_text("1\n")
        (directory / "memory.stat").write_text("anon 0\nzswpwb_proactive_b 0\n")
    return inner


def explained(path: Path, number: int, data: bytes = b"") -> str:
    with pytest.raises(OSError, match=r".") as caught, explain(str(path), data):
        raise OSError(number, os.strerror(number))
    assert caught.value.errno == number
    assert caught.value.filename == str(path)
    return caught.value.strerror or ""


def test_words(plain: Path) -> None:
    reclaim = plain / "memory.reclaim"
    assert explained(reclaim, errno.EINVAL, b"1M source=zswap") == "this file does not take that"
    (plain.parent / "memory.zswap.writeback").write_text("0\n")
    assert f"{plain.parent}/memory.zswap.writeback is 0" in explained(reclaim, errno.EINVAL, b"1M source=zswap")
    (plain.parent / "memory.zswap.writeback").write_text("1\n")
    (plain / "memory.stat").write_text("anon 0\n")
    assert "proactive writeback series" in explained(reclaim, errno.EINVAL, b"1M source=zswap")
    assert explained(reclaim, errno.EINVAL, b"x") == "this file does not take that"
    assert "fewer files" in explained(reclaim, errno.ENOENT)
    (plain / "cgroup.controllers").write_text("cpu\n")
    assert f"echo +memory > {plain.parent}/cgroup.subtree_control" in explained(reclaim, errno.ENOENT)
    assert explained(plain / "x", errno.ENOENT) == "No such file or directory"
    assert explained(plain / "x", errno.ENODEV) == "the cgroup was removed"
