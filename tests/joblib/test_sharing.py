"""Arrays that real workers of joblib map instead of having copies."""

from __future__ import annotations

import mmap
import os
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.support.child import run, run_as_nobody
from tests.support.small_disk import small_tmpfs

import uzswap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import EngineFactory

pytest.importorskip("joblib", reason="joblib is not installed: pip install 'uzswap[joblib]'")
from uzswap.joblib.sharing import Files, mapped, owner_of

MIB = 1 << 20


@pytest.fixture
def group(engine: EngineFactory) -> uzswap.MemCgroup:
    z = engine()
    try:
        z.arena.open()
    except OSError as refused:
        pytest.skip(f"{refused.strerror}")
    return z.cgroup("/a")


@pytest.fixture
def files() -> Iterator[Files]:
    files = Files()
    yield files
    files.close()


def shared(files: Files, view: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    owner = owner_of(view)
    assert owner is not None
    return mapped(pickle.loads(pickle.dumps(files.part(view, owner))))


def test_views_of_any_kind_are_found_in_one_file(group: uzswap.MemCgroup, files: Files) -> None:
    x = uzswap.array(np.arange(3 * MIB, dtype="i4").reshape(3, 1024, 1024), cgroup=group)
    y = uzswap.array(np.arange(2 * MIB, dtype="c16").reshape(2, 1024, 1024).transpose(2, 0, 1), cgroup=group)
    views = [x, x[1], x[1:, 5:7, ::3], x[::-1, ::-1], x.T, x[2, 1023], x.view("u1")[..., 1::4], x[:0], y, y[5], y.real]
    for view in views:
        found = shared(files, view)
        assert found.dtype == view.dtype
        assert found.strides == view.strides
        assert (found == view).all()
        assert not found.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            found[...] = 0
        base: Any = found
        while isinstance(base, np.ndarray):
            base = base.base
        assert isinstance(base, mmap.mmap)
        del found, base
    assert len(files) == 2


def test_nothing_is_brought_in_and_nothing_goes(group: uzswap.MemCgroup, files: Files) -> None:
    x = uzswap.array(np.random.default_rng(1).integers(0, 99, 8 * MIB, dtype="u1"), cgroup=group)
    expected = x.copy()
    uzswap.advise(x[2 * MIB :], "pageout")
    before = uzswap.info(x)
    found = shared(files, x)
    after = uzswap.info(x)
    assert before.resident == after.resident < 3 * MIB
    assert before.zswap + before.disk == after.zswap + after.disk > 5 * MIB
    assert after.faults == before.faults
    assert (found == expected).all()


def test_only_what_is_sent_is_written_and_zeros_are_holes(
    group: uzswap.MemCgroup, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "files"
    directory.mkdir()
    monkeypatch.setenv("JOBLIB_TEMP_FOLDER", str(directory))
    x = uzswap.zeros(64 * MIB, "u1", cgroup=group)
    x[:MIB] = x[32 * MIB : 33 * MIB] = 7
    part = shared(files, x[: 10 * MIB])
    assert part.sum() == 7 * MIB
    (file,) = (known.file for _, known in files._files.values())
    status = os.fstat(file.fileno())
    assert status.st_blocks * 512 <= 2 * MIB
    assert status.st_nlink == 0
    assert status.st_mode & 0o777 == 0o600
    assert list(directory.iterdir()) == []
    assert shared(files, x)[32 * MIB + 5] == 7
    assert os.fstat(file.fileno()).st_blocks * 512 <= 3 * MIB


def test_a_file_that_is_gone_is_told_even_when_another_has_its_number(group: uzswap.MemCgroup, files: Files) -> None:
    x = uzswap.ones(MIB, "u1", cgroup=group)
    part = files.part(x, x)
    files.close()
    with pytest.raises(FileNotFoundError, match="the array that was sent is gone"):
        mapped(part)
    y = uzswap.ones(2 * MIB, "u1", cgroup=group)
    other = files.part(y, y)
    assert other.path == part.path
    with pytest.raises(FileNotFoundError, match="the array that was sent is gone"):
        mapped(part)


def test_arrays_of_others_are_nobodys(group: uzswap.MemCgroup) -> None:
    x = uzswap.zeros(MIB, cgroup=group)
    assert owner_of(np.zeros(MIB)) is None
    assert owner_of(x[5:]) is x
    assert owner_of(np.lib.stride_tricks.as_strided(x, (2 * MIB,))) is None
    assert owner_of(np.frombuffer(bytearray(100), "u1")) is None


def test_a_full_disk_is_told(group: uzswap.MemCgroup, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_tmpfs(4 * MIB) as directory:
        monkeypatch.setenv("JOBLIB_TEMP_FOLDER", str(directory))
        x = uzswap.array(np.random.default_rng(1).integers(0, 256, 8 * MIB, dtype="u1"), cgroup=group)
        with pytest.raises(OSError, match=r"can't be shared with workers: No space left.*JOBLIB_TEMP_FOLDER"):
            files.part(x, x)
        files.close()


def test_an_ordinary_user_maps_it_too() -> None:
    """Also where the kernel does not wait for pages, so that no system call may be made on the array."""
    run_as_nobody(
        """
        import os, uzswap
        from uzswap.joblib.sharing import Files, mapped

        z = uzswap.Zswap(swap_size="64M")
        group = z.cgroup("/a")
        group.write("memory.max", "2M")
        x = uzswap.zeros(8 << 20, "u1", cgroup=group)
        for i in range(8):
            x[i << 20 : (i + 1) << 20] = i
        files = Files()
        part = files.part(x, x)
        pid = os.fork()
        if not pid:
            found = mapped(part)
            os._exit(0 if found[-1] == 7 and found.sum() == 28 << 20 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        """
    ).check()


@pytest.mark.slow
def test_workers_map_what_they_are_sent_and_nothing_is_left(tmp_path: Path) -> None:
    """An array of four times its budget, whole and in parts, to workers that are used again."""
    run(
        """
        import os, mmap
        import joblib, numpy as np, uzswap, uzswap.joblib

        z = uzswap.Zswap(swap_size="256M")
        group = z.cgroup("/a")
        group.write("memory.max", "16M")
        x = uzswap.zeros((64, 1 << 17), cgroup=group)  # 64 MiB
        for i, row in enumerate(x):
            row[:] = np.arange(1 << 17) % 100 + i

        def look(part, whole, small, other):
            maps = open("/proc/self/maps").read()
            names = os.listdir(os.environ["JOBLIB_TEMP_FOLDER"])
            how = isinstance(part.base, mmap.mmap), "(deleted)" in maps, part.flags.writeable, names
            return how, part.sum(), whole[3, 7], small.sum(), part[:, :2], other.sum()

        other = np.ones(10)
        with joblib.Parallel(backend="uzswap", n_jobs=2) as parallel:
            for change in (0, 1):
                x[3] += change  # between calls: that is seen
                tasks = (joblib.delayed(look)(x[i : i + 16], x, x[i], other) for i in range(0, 64, 16))
                found = parallel(tasks)
                for i, (how, total, item, small, back, ten) in zip(range(0, 64, 16), found):
                    assert how == (True, True, False, []), how
                    assert total == x[i : i + 16].sum() and item == x[3, 7] and small == x[i].sum() and ten == 10
                    assert back.flags.writeable and (back == x[i : i + 16, :2]).all()
        assert int(group.read("memory.peak")) <= 17 << 20
        later = joblib.Parallel(backend="uzswap", n_jobs=2, return_as="generator")
        assert list(later(joblib.delayed(np.max)(x[i:]) for i in range(20))) == [x.max()] * 20

        def fails(part, i):
            raise KeyError(i)

        # After a call that failed all is as before; joblib's own backend, which has the same workers, too.
        with joblib.parallel_config(backend="uzswap", n_jobs=2):
            try:
                joblib.Parallel()(joblib.delayed(fails)(x, i) for i in range(20))
            except KeyError:
                pass
            assert joblib.Parallel()(joblib.delayed(np.max)(x[i:]) for i in (0, 1)) == [x.max()] * 2
        assert uzswap.joblib.parallel._calls == {}
        y = joblib.Parallel(n_jobs=2)(joblib.delayed(type)(x[:8]) for i in (0, 1))
        assert y == [np.memmap] * 2, y
        for fd in os.listdir("/proc/self/fd"):
            if os.path.lexists(f"/proc/self/fd/{fd}"):  # not that of the listing
                assert not os.readlink(f"/proc/self/fd/{fd}").startswith(os.environ["JOBLIB_TEMP_FOLDER"])
        joblib.externals.loky.get_reusable_executor().shutdown(wait=True, kill_workers=True)
        """,
        env={"JOBLIB_TEMP_FOLDER": str(tmp_path)},
    ).check()
    assert list(tmp_path.iterdir()) == []
