"""Stage one and a half: the agent has what stays in zswap compressed again, where there is ``uzswap.recompress``."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Self

import pytest
from tests.agent.trees import KernelTree, Looking
from tests.conftest import EngineFactory
from tests.reclaim.test_recompress import fill, text
from tests.serve.conftest import private
from tests.support.states import stat

from uzswap import MemCgroup, Zswap
from uzswap.agent.policies.policy import RECOMPRESS, ZSWAP
from uzswap.agent.tree import open_tree
from uzswap.files.engine import engine_file

__all__ = ["private"]

PAGES = 400


class Served:
    """An engine with pages of text in a cgroup, and an agent at its socket."""

    def __init__(self, z: Zswap, where: str, config: str = "") -> None:
        self.z = z
        self.group: MemCgroup = z.cgroup("/a")
        self.handles = fill(z, self.group, PAGES)
        self.look = Looking(open_tree(where), f"[default]\n{config}")

    def run(self, seconds: int) -> None:
        """Let time pass, for both."""
        for _ in range(seconds // 6):
            self.look.agent.round()
            self.look.clock.now += 6
            self.z.core.advance(6_000_000_000)

    def asked(self, stage: int) -> list[tuple[int, int, int]]:
        return [
            (one.asked, one.done, one.errno) for one in self.look.records.recent() if one.stage == stage and one.asked
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.look.agent.close()

    def check(self) -> None:
        assert self.z.fault_in_many(self.handles).tobytes() == text(0, PAGES)


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


def recompressed(z: Zswap) -> int:
    return int(engine_file("zswap/debug/uzswap.recompressed.entries").read(z, z.root))


def test_what_stays_cold_is_smaller_before_it_goes_to_the_device(z: Zswap, private: Path) -> None:
    with z.serve(private / "s") as server, Served(z, str(server.path), "twostage.age_max = 120") as served:
        before = stat(served.group, "zswap")
        served.run(54)
        # Younger than a minute: nothing is taken.
        assert recompressed(z) == 0
        served.run(150)
        assert recompressed(z) == PAGES
        assert sum(done for _, done, _ in served.asked(RECOMPRESS)) == before
        served.run(240)
        # What went to the device had become smaller before.
        written = stat(served.group, "zswpwb_proactive_b")
        assert written > 0
        after = int(engine_file("zswap/debug/uzswap.recompressed.bytes_after").read(z, z.root))
        assert written + stat(served.group, "zswap") == after < 0.9 * before
        # Once a round at most, and not when all has been done; nothing is compressed twice.
        assert len(served.asked(RECOMPRESS)) <= 6
        assert recompressed(z) == PAGES
        asked = len(served.asked(RECOMPRESS))
        served.run(120)
        assert len(served.asked(RECOMPRESS)) == asked
        more = fill(z, served.group, 100)
        served.run(156)
        assert len(served.asked(RECOMPRESS)) > asked
        assert recompressed(z) == PAGES + 100
        z.free_many(more)
        served.check()


def test_it_can_be_turned_off(z: Zswap, private: Path) -> None:
    with z.serve(private / "s") as server, Served(z, str(server.path), "twostage.recompress = false") as served:
        served.run(180)
        assert recompressed(z) == 0
        assert served.asked(RECOMPRESS) == []
        served.check()


def test_a_codec_that_there_is_not_is_said_and_stage_two_goes_on(z: Zswap, private: Path) -> None:
    with (
        z.serve(private / "s") as server,
        Served(z, str(server.path), 'twostage.age_max = 120\ntwostage.recompress_codec = "none"') as served,
    ):
        served.run(300)
        assert {number for _, _, number in served.asked(RECOMPRESS)} <= {errno.ENOENT, errno.EINVAL}
        assert all(done == 0 for _, done, _ in served.asked(RECOMPRESS))
        assert len([line for line in served.look.said if "uzswap.recompress gave" in line]) == 1
        assert served.asked(ZSWAP)
        served.check()


def test_a_kernel_is_not_asked_for_what_it_has_not(tmp_path: Path) -> None:
    kernel = KernelTree(tmp_path)
    kernel.make("/a")
    kernel.stat("/a", zswap=64 << 20, zswapped=192 << 20)
    look = Looking(kernel.tree)
    look.run(120, 3)
    assert look.gates(RECOMPRESS) == []
    assert not (kernel.top / "a/uzswap.recompress").exists()
