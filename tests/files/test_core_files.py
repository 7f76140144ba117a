"""The cgroup.* files (SPEC 7.6)."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from tests.conftest import EngineFactory
from tests.support.front_end import FrontEnd

from uzswap import MemCgroup, Zswap


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/job")


def fails(code: int, match: str = "") -> Any:
    return pytest.raises(OSError, match=rf"\[Errno {code}\].*{match}")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("+io", errno.ENOENT), ("-io", 0), ("+memory", 0), ("-memory", errno.EBUSY), ("-memory +memory", 0),
        ("+memory -memory", errno.EBUSY), ("memory", errno.EINVAL), ("+nonsense", errno.EINVAL), ("+", errno.EINVAL),
        ("*memory", errno.EINVAL), ("+io +nonsense", errno.EINVAL), ("+memory\t-io", errno.EINVAL), (" \n", 0),
        ("  +memory  -cpu ", 0),
    ],
)  # fmt: skip
def test_subtree_control_with_children(g: MemCgroup, text: str, code: int) -> None:
    g.cgroup("child")
    if code:
        with fails(code, "/job/cgroup.subtree_control"):
            g.write("cgroup.subtree_control", text)
    else:
        g.write("cgroup.subtree_control", text)
    assert g.read("cgroup.subtree_control") == "memory\n"


def test_subtree_control_without_children(g: MemCgroup) -> None:
    g.write("cgroup.subtree_control", "-memory")
    assert g.read("cgroup.subtree_control") == ""
    assert g.read("cgroup.controllers") == "memory\n"
    child = g.cgroup("child")
    assert g.read("cgroup.subtree_control") == "memory\n"
    assert child.read("memory.current") == "0\n"


def test_cgroup_stat(z: Zswap) -> None:
    z.cgroup("/a/b")
    z.cgroup("/a/c").remove()
    z.cgroup("/d")
    assert z.root.read("cgroup.stat") == (
        "nr_descendants 3\nnr_dying_descendants 0\nnr_subsys_memory 4\nnr_dying_subsys_memory 0\n"
    )
    assert z.cgroup("/d").read("cgroup.stat").startswith("nr_descendants 0\n")


def test_populated(g: MemCgroup) -> None:
    child = g.cgroup("child")
    front_end = FrontEnd(child)
    assert g.read("cgroup.events") == "populated 1\nfrozen 0\n"
    front_end.close()
    assert g.read("cgroup.events") == "populated 0\nfrozen 0\n"
