"""The notation helpers and the engine fixture, on real engines."""

import errno
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import EngineFactory, FaultyDisks
from tests.support import pages, states
from tests.support.child import run
from tests.support.pytests import OPTIONS
from tests.support.states import OK, fill, left, lru_lengths, reclaim


def test_fill_fresh(engine: EngineFactory) -> None:
    z = engine()
    g = z.cgroup("/a")
    handles = fill(z, g, 20, 300)
    assert lru_lengths(z, g) == [20]
    assert states.lengths(z, handles) == [300] * 20
    infos = [z.core.info(int(handle)) for handle in handles]
    assert all(info is not None and info.referenced for info in infos)
    assert z.fault_in(handles[7]) == pages.page_of_length(300, 7)


def test_fill_unreferenced_keeps_order_and_what_was_there(engine: EngineFactory) -> None:
    z = engine(walk="fair")
    g = z.cgroup("/a")
    oldest = fill(z, g, 2, 1000, referenced=False)
    fresh = fill(z, g, 3, 300)
    with states.stat_delta(g) as delta:
        newest = fill(z, g, 4, [40, 100, 4096, 2000], referenced=False)
    assert delta["zswpwb"] == 0
    assert delta["zswap"] == 40 + 100 + 4096 + 2000
    referenced = []
    for handle in np.concatenate([oldest, fresh, newest]):
        info = z.core.info(int(handle))
        assert info is not None
        referenced.append(info.referenced)
    assert referenced == [False] * 2 + [True] * 3 + [False] * 4
    assert reclaim(g, 2000) == (OK, 2000)
    assert states.places(z, oldest) == ["disk", "disk"]
    assert reclaim(g, 40) == (OK, 40)  # past the fresh ones, which are only unmarked
    assert states.places(z, newest) == ["disk", "zswap", "zswap", "zswap"]


def test_fill_on_a_node(engine: EngineFactory) -> None:
    z = engine(nodes=2)
    g = z.cgroup("/a")
    fill(z, g, 3, 300, node=1)
    fill(z, g, 2, 300, node=0, referenced=False)
    assert lru_lengths(z, g) == [2, 3]
    assert left(z, g) == 5


def test_fill_with_zstd(engine: EngineFactory) -> None:
    z = engine(compressor="zstd")
    g = z.cgroup("/a")
    assert states.lengths(z, fill(z, g, 3, 500, referenced=False)) == [500] * 3


def test_fill_fails_where_the_engine_refuses(engine: EngineFactory) -> None:
    z = engine()
    g = z.cgroup("/a")
    g.write("memory.zswap.max", "0")
    with pytest.raises(AssertionError, match="not of"):
        fill(z, g, 1, 300)


def test_E6_outcome_of_reclaim(engine: EngineFactory) -> None:
    z = engine(walk="v5")
    g = z.cgroup("/a")
    fill(z, g, 100, 2000, referenced=False)
    with states.stat_delta(g) as delta, states.debug_delta(z) as debug:
        assert reclaim(g, 1) == (OK, 128_000)
    assert left(z, g) == 36
    assert (delta["zswpwb_proactive_b"], delta["zswpwb"], delta["zswpin"]) == (128_000, 64, 0)
    assert (debug["written_back_pages"], debug["reject_reclaim_fail"]) == (64, 0)
    assert states.debug(z, "written_back_pages") == 64
    assert states.stat(g, "zswap") == 36 * 2000


def test_faulty_disk_is_healed_before_its_engine_ends(engine: EngineFactory, faulty_swap: FaultyDisks) -> None:
    disk = faulty_swap()
    z = engine(swap=disk.path, swap_size=disk.size)
    g = z.cgroup("/a")
    handles = fill(z, g, 5, 2000, referenced=False)
    before = disk.writes
    disk.fail_writes(errno.EIO)
    assert reclaim(g, 10_000) == (errno.EIO, 0)
    assert states.places(z, handles) == ["zswap"] * 5
    assert disk.writes > before


def test_outcome_of_a_failed_reclaim(engine: EngineFactory) -> None:
    g = engine().cgroup("/a")
    assert reclaim(g, 1) == (errno.EAGAIN, 0)
    assert reclaim(g, "x") == (errno.EINVAL, 0)


@pytest.mark.slow
def test_engines_have_swap_files_of_their_own_and_are_closed_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        """
made = []

def test_it(engine, tmp_path):
    made.extend([engine(), engine(nodes=2), engine()])
    made[2].close()
    assert sorted(path.name for path in tmp_path.glob("swap*")) in ([], ["swap0", "swap1"], ["swap0", "swap1", "swap2"])

def test_after_it():
    assert [z.core.closed for z in made] == [True] * 3
    made.clear()
"""
    )
    arguments = [*OPTIONS]
    # Without --confcutdir the directories above are looked at too: /tmp, and what other tests have mounted there.
    arguments += ["--rootdir", ".", "--confcutdir", ".", "test_it.py"]
    code = "import os, sys, pytest; os.chdir(sys.argv[1]); sys.exit(pytest.main(sys.argv[2:]))"
    assert "2 passed" in run(code, [str(tmp_path), *arguments]).check().stdout
