"""What is seen of a cgroup, from its files."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.agent.trees import MIB, KernelTree
from tests.conftest import EngineFactory
from tests.serve.conftest import private
from tests.support.front_end import FrontEnd
from tests.support.states import fill

from uzswap.agent.observe import Reader
from uzswap.agent.policies import POLICIES
from uzswap.agent.policies.policy import Observation
from uzswap.agent.probes import probe
from uzswap.agent.tree import Tree, open_tree
from uzswap.client.directory import DirectoryRoot

__all__ = ["private"]


def seen(tree: Tree, path: str, wants: frozenset[str] = frozenset()) -> Observation:
    machine = tree.machine()
    reader = Reader(tree.cgroup(path).path, probe(tree, tree.cgroup(path), machine), wants)
    return reader.observation(reader.read(tree.root, 0.0), 0.0, machine, 0, False, ())


class Counting(DirectoryRoot):
    """A root that remembers what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[str] = []

    def read(self, path: str) -> str:
        self.files.append(Path(path).name)
        return super().read(path)


def test_memory_current_of_an_engine_is_told_by_its_memory_stat(engine: EngineFactory, private: Path) -> None:
    z = engine()
    group = z.cgroup("/a")
    handles = fill(z, group, 33, 777)
    front_end = FrontEnd(group, 5 * 4096)
    with z.serve(private / "s") as server:
        tree = open_tree(str(server.path))
        found = seen(tree, "/a")
        assert found.current == int(group.read("memory.current"))
        assert found.resident == 5 * 4096
        tree.root.close()
    front_end.close()
    z.free_many(handles)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_read_what_it_wants_and_nothing_else(tmp_path: Path, name: str) -> None:
    """An agent with hundreds of cgroups does little else than read."""
    kernel = KernelTree(tmp_path)
    kernel.make("/a")
    tree = kernel.tree
    root = Counting()
    wants = POLICIES[name].WANTS
    reader = Reader(str(kernel.top / "a"), probe(tree, tree.cgroup("/a"), tree.machine()), wants)
    reader.read(root, 0.0)
    root.files.clear()
    reader.read(root, 6.0)
    wanted = {word.replace("cpu", "cpu.stat") for word in wants if word != "ages"}
    assert set(root.files) == {"memory.stat", "memory.current", "memory.swap.current"} | wanted


def test_without_memory_current_it_is_what_is_resident_and_the_kernel_s(tmp_path: Path) -> None:
    """A kernel's root cgroup has none."""
    kernel = KernelTree(tmp_path)
    (kernel.make("/a") / "memory.current").unlink()
    kernel.stat("/a", anon=400 * MIB, file=100 * MIB, kernel=50 * MIB, zswap=40 * MIB)
    assert seen(kernel.tree, "/a").current == 550 * MIB
