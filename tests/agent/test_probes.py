"""What a tree can do is found out by trying; what it cannot is said once, with the remedy."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.agent.trees import KernelTree, Looking
from tests.conftest import EngineFactory
from tests.serve.conftest import needs_fuse, private

from uzswap.agent.probes import Abilities, probe
from uzswap.agent.tree import Machine, open_tree
from uzswap.client.deadlines import Deadlines
from uzswap.client.root import Interrupts

__all__ = ["private"]


@pytest.fixture
def kernel(tmp_path: Path) -> KernelTree:
    return KernelTree(tmp_path)


def probed(kernel: KernelTree, path: str = "/a") -> Abilities:
    return probe(kernel.tree, kernel.tree.cgroup(path), kernel.tree.machine())


def takes(monkeypatch: pytest.MonkeyPatch, *accepted: str, number: int = errno.EINVAL) -> list[bytes]:
    """Have memory.reclaim take these texts alone; returns all that were written."""
    written: list[bytes] = []

    def write(
        root: object, path: str, data: bytes, *, within: float | None = None, interrupts: Interrupts | None = None
    ) -> None:
        written.append(data)
        if data.decode() not in accepted:
            raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr("uzswap.client.directory.DirectoryRoot.write", write)
    return written


def test_a_kernel_with_the_series(kernel: KernelTree, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.make("/a")
    written = takes(monkeypatch, "0 source=zswap")
    can = probed(kernel)
    assert (can.reclaim, can.source_zswap, can.min_age, can.memory_pressure, can.cpu) == (True, True, False, True, True)
    # Never a blank line, which old kernels take for all there is; never any bytes.
    assert all(data.startswith(b"0 ") for data in written)


def test_a_kernel_without_it_says_so_and_has_a_stage_one(kernel: KernelTree, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.make("/a")
    text = (kernel.top / "a/memory.stat").read_text()
    (kernel.top / "a/memory.stat").write_text(text.replace("zswpwb_proactive_b 0\n", ""))
    takes(monkeypatch)
    can = probed(kernel)
    assert (can.reclaim, can.source_zswap) == (True, False)
    assert "knows no source=zswap" in can.missing["source"]


def test_writeback_off_is_told_from_a_key_that_is_not_known(
    kernel: KernelTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where writeback is off the series gives EINVAL too: it proves nothing."""
    kernel.make("/a", memory_zswap="")
    (kernel.top / "a/memory.zswap.writeback").write_text("0\n")
    takes(monkeypatch)
    can = probed(kernel)
    assert can.source_zswap
    assert "memory.zswap.writeback is 0" in can.missing["source"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EOPNOTSUPP, "CONFIG_ZSWAP"), (errno.EACCES, "may not be written"), (errno.EBUSY, "EBUSY")],
)
def test_other_answers(kernel: KernelTree, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    kernel.make("/a")
    takes(monkeypatch, number=number)
    can = probed(kernel)
    assert not can.source_zswap
    assert words in can.missing["source"]


def test_what_is_missing_is_said_once_and_the_rest_goes_on(kernel: KernelTree) -> None:
    for name in ("/a", "/b", "/c"):
        directory = kernel.make(name)
        for file in ("memory.pressure", "io.pressure", "cpu.stat"):
            (directory / file).unlink()
    kernel.machine(swap=0, free=0)
    (kernel.zswap / "enabled").write_text("N\n")
    look = Looking(kernel.tree, '[cgroup."/b"]\npolicy = "idle"\n[cgroup."/c"]\npolicy = "idle"\n')
    look.run(30)
    assert look.agent.watched == ["/a", "/b", "/c"]
    for words in ("psi=1", "cpu.stat", "there is no swap", "zswap is off"):
        assert len([text for text in look.said if words in text]) == 1


def test_no_memory_reclaim_and_no_memory_controller(kernel: KernelTree) -> None:
    (kernel.make("/old") / "memory.reclaim").unlink()
    bare = kernel.make("/bare")
    for file in bare.iterdir():
        if file.name.startswith("memory."):
            file.unlink()
    look = Looking(kernel.tree)
    look.run(30)
    assert look.agent.watched == []
    assert [text for text in look.said if "5.19" in text]
    assert [text for text in look.said if "cgroup.subtree_control" in text]


def test_swap_that_is_configured_and_unused_is_said(kernel: KernelTree) -> None:
    kernel.make("/a")
    kernel.machine(swap=100, free=100)
    assert "unused" in probed(kernel).missing


@pytest.mark.parametrize("how", ["socket", pytest.param("mount", marks=needs_fuse)])
def test_an_engine_has_all_of_it(engine: EngineFactory, private: Path, how: str) -> None:
    z = engine()
    z.cgroup("/a")
    with (
        Deadlines() as deadlines,
        ExitStack() as closing,
        z.serve(private / "s") if how == "socket" else z.mount(private / "m") as server,
    ):
        tree = open_tree(str(server.path), deadlines)
        closing.enter_context(tree.root)
        machine = tree.machine()
        can = probe(tree, tree.cgroup("/a"), machine)
        assert (can.engine, can.reclaim, can.source_zswap, can.min_age, can.memory_pressure) == (True,) * 5
        assert machine.swap_total == 64 << 20
        assert machine.pool_max
        assert machine.zswap is True
        found = dict(tree.find(["/**"]))
        assert found["/a"] == tree.cgroup("/a").inode()
        if how == "mount":
            assert open_tree(f"{server.path}/cgroup").engine


def test_an_engine_without_a_device_has_no_stage_two_to_speak_of(engine: EngineFactory, private: Path) -> None:
    z = engine(swap=None)
    z.cgroup("/a")
    with z.serve(private / "s") as server:
        tree = open_tree(str(server.path))
        with tree.root:
            missing = probe(tree, tree.cgroup("/a"), tree.machine()).missing
        assert "no swap file" in missing["swap"]


def test_what_is_no_tree(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no cgroup tree"):
        open_tree(str(tmp_path / "none"))
    with pytest.raises(OSError, match="no cgroups here") as caught:
        open_tree(str(tmp_path))
    assert caught.value.errno == errno.EINVAL
    (tmp_path / "tasks").touch()
    with pytest.raises(OSError, match="version 1") as caught:
        open_tree(str(tmp_path))
    assert caught.value.errno == errno.EOPNOTSUPP


def test_a_socket_that_nobody_answers_at(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
    with pytest.raises(ConnectionRefusedError):
        open_tree(str(path)).find(["/*"])


def test_a_machine_that_says_nothing(kernel: KernelTree) -> None:
    for file in (kernel.proc / "meminfo", kernel.zswap / "enabled", kernel.zswap / "max_pool_percent"):
        file.unlink()
    assert kernel.tree.machine() == Machine()
