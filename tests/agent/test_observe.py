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
        self.names: list[str] = []  # type: ignore[assignment]

    def read(self, path: str) -> str:
        self.names.append(Path(path).name)  # type: ignore[attr-defined]
        return super().read(path)


def test_memory_current_of_an_engine_is_told_by_its_memory_stat(engine: EngineFactory, private: Path) -> None:
    z = engine()
    group = z.cgroup("/a")
    handles = fill(z, group, 33, 777)
    with FrontEnd(z, group) as front_end, z.serve(private / "s") as server:
        front_end.charge(5 * 4096)
        tree = open_tree(str(server.path))
        found = seen(tree, "/a")
        assert found.current == int(group.read("memory.current"))
        assert found.resident == 5 * 4096
        tree.root.close()
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
    root.names.clear()  # type: ignore[attr-defined]
    reader.read(root, 6.0)
    files = {"cpu": "cpu.stat", "ages": None}
    wanted = {files.get(word, word) for word in wants} - {None}
    assert set(root.names) == {"memory.stat", "memory.current", "memory.swap.current"} | wanted  # type: ignore[arg-type]


def test_without_memory_current_it_is_what_is_resident_and_the_kernel_s(tmp_path: Path) -> None:
    """A kernel's root cgroup has none."""
    kernel = KernelTree(tmp_path)
    (kernel.make("/a") / "memory.current").unlink()
    kernel.stat("/a", anon=400 * MIB, file=100 * MIB, kernel=50 * MIB, zswap=40 * MIB)
    assert seen(kernel.tree, "/a").current == 550 * MIB
