"""Roots of real engines that go away and come back, and what the doctor says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.agent.trees import KernelTree, Looking
from tests.conftest import EngineFactory
from tests.serve.conftest import needs_fuse, private
from tests.support.states import fill

from uzswap.agent.outlook import outlook
from uzswap.agent.tree import open_tree

__all__ = ["private"]

EAGER = '[agent]\nwatch = ["/g"]\n[default]\ntwostage.age_min = 0\ntwostage.age_max = 0\n'


@pytest.mark.parametrize("how", ["socket", pytest.param("mount", marks=needs_fuse)])
def test_it_goes_on_when_the_root_is_there_again(engine: EngineFactory, private: Path, how: str) -> None:
    z = engine()
    group = z.cgroup("/g")
    handles = fill(z, group, 300, 2000, referenced=False)
    path = private / "tree"

    def serve() -> object:
        return z.serve(path) if how == "socket" else z.mount(path)

    there = serve()
    look = Looking(open_tree(str(path)), EAGER)
    look.run(7)
    there.close()  # type: ignore[attr-defined]
    look.run(60, 3)
    assert [text for text in look.said if "looked for again" in text]
    written = int(group.read("uzswap.disk"))
    more = fill(z, group, 300, 2000, referenced=False)
    there = serve()
    look.run(600, 3)
    assert [text for text in look.said if "there again" in text]
    assert int(group.read("uzswap.disk")) > written
    look.agent.close()
    there.close()  # type: ignore[attr-defined]
    for some in (handles, more):
        z.free_many(some)


def test_an_engine_that_is_another_one_has_other_cgroups(engine: EngineFactory, private: Path) -> None:
    """A program that was started anew serves at the same path: what was known of its cgroups is forgotten."""
    path = private / "s"
    first = engine()
    first.cgroup("/g")
    with first.serve(path):
        look = Looking(open_tree(str(path)), EAGER)
        look.run(7)
    second = engine()
    handles = fill(second, second.cgroup("/g"), 300, 2000, referenced=False)
    with second.serve(path):
        look.run(300, 3)
        assert int(second.cgroup("/g").read("uzswap.disk")) > 0
        look.agent.close()
    second.free_many(handles)


def test_the_doctor_says_what_the_agent_would_have(engine: EngineFactory, private: Path, tmp_path: Path) -> None:
    z = engine()
    z.cgroup("/g")
    with z.serve(private / "s") as server:
        found = outlook(str(server.path))
    assert found[0].there
    assert "zswap to disk" in found[0].detail
    kernel = KernelTree(tmp_path)
    kernel.make("/a")
    (kernel.top / "a/memory.pressure").unlink()
    found = outlook(str(kernel.top))
    assert [one.what for one in found if not one.there and "psi=1" in one.detail] == ["agent: pressure"]
    (nothing,) = outlook(str(tmp_path / "none"))
    assert not nothing.there
