"""The swap file: where it is made, what is taken for one, and what is left of it."""

import errno
import fcntl
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import EngineFactory, FaultyDisks
from tests.support.child import Child, NobodysChild, run, run_as_nobody
from tests.support.states import fill, reclaim

from uzswap import InvalidArgumentError, Zswap
from uzswap.devices import SwapFile, open_swap, place
from uzswap.devices.swap_file import MIN_SIZE

SIZE = 16 << 20


def opened(path: Path | str, nbytes: int = SIZE) -> SwapFile:
    swap = open_swap(path, nbytes)
    assert swap is not None
    return swap


def test_none() -> None:
    assert open_swap(None, SIZE) is None


def test_auto_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    swap = opened("auto")
    assert os.fstat(swap.fd).st_nlink == 0
    assert os.fstat(swap.fd).st_size == SIZE
    assert os.fstat(swap.fd).st_blocks == 0  # nothing is reserved
    assert stat.S_IMODE(os.fstat(swap.fd).st_mode) == 0o600
    assert not os.get_inheritable(swap.fd)
    assert list(tmp_path.iterdir()) == []
    swap.close()
    swap.close()


def test_auto_without_o_tmpfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems that lack O_TMPFILE say EOPNOTSUPP; there the file has a name for a moment."""
    real_open = os.open

    def without(path: str, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
        return real_open(path, flags, *rest, **more)

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(os, "open", without)
    swap = opened("auto")
    assert os.fstat(swap.fd).st_nlink == 0
    assert list(tmp_path.iterdir()) == []
    swap.close()


def test_a_named_file_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "swap"
    swap = opened(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert swap.nbytes == SIZE
    swap.close()
    assert path.stat().st_size == 0


def test_no_data_is_left_in_a_named_file(engine: EngineFactory, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    z = engine(swap=path, swap_size=SIZE)
    g = z.cgroup("/g")
    fill(z, g, 10, 1000, referenced=False)
    reclaim(g, 10_000)
    assert path.stat().st_blocks > 0
    z.close()
    assert path.stat().st_blocks == 0


def test_no_data_is_left_when_the_program_closed_all_descriptors(tmp_path: Path) -> None:
    code = """
        import os, sys, uzswap
        from tests.support.states import fill, reclaim
        z = uzswap.Zswap(sys.argv[1], "8M")
        g = z.cgroup("/g")
        fill(z, g, 10, 1000, referenced=False)
        reclaim(g, 10_000)
        os.closerange(3, 1024)
        z.close()
        """
    path = tmp_path / "mine"
    run(code, args=[str(path)]).check()
    assert path.stat().st_blocks == 0


def test_a_file_left_by_a_killed_engine_is_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "swap"
    code = """
        import sys, uzswap
        z = uzswap.Zswap(sys.argv[1], "8M")
        g = z.cgroup("/g")
        z.swap_out(b"secret" * 100, g)
        g.reclaim(1, source="zswap")
        print("ready")
        input()
        """
    with Child(code, args=[str(path)]) as child:
        assert child.read_line() == "ready"
        child.kill()
    assert path.stat().st_blocks > 0
    swap = opened(path)
    assert swap.nbytes == SIZE
    assert not any(path.read_bytes()[4096:SIZE])  # between the labels
    swap.close()
    assert path.stat().st_size == 0


def test_a_blank_file_keeps_its_size(tmp_path: Path) -> None:
    path = tmp_path / "swap"
    path.touch(0o600)
    os.truncate(path, 8 << 20)
    swap = opened(path)
    assert swap.nbytes == 8 << 20
    swap.close()
    assert path.stat().st_size == 8 << 20
    swap = opened(path, MIN_SIZE)
    assert swap.nbytes == MIN_SIZE
    swap.close()
    assert path.stat().st_size == 8 << 20


@pytest.mark.parametrize("size", [10, 4096, 200_000, 8 << 20])
def test_a_file_with_data_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "thesis"
    path.write_bytes(b"data".ljust(size, b"\0"))
    path.chmod(0o600)
    with pytest.raises(FileExistsError, match="holds data") as refused:
        open_swap(path, SIZE)
    assert refused.value.filename == str(path)
    assert path.read_bytes() == b"data".ljust(size, b"\0")


def test_a_mark_of_a_file_system_is_data(tmp_path: Path) -> None:
    """btrfs: 64 KiB and 64 bytes from the start, after nothing but zeros."""
    path = tmp_path / "image"
    with path.open("wb") as image:
        image.truncate(8 << 20)
        image.seek((64 << 10) + 64)
        image.write(b"_BHRfS_M")
    path.chmod(0o600)
    with pytest.raises(FileExistsError):
        open_swap(path, SIZE)


@pytest.mark.parametrize("offset", [0, 128 << 10, 5 << 20, (8 << 20) - 1])
def test_data_after_zeros_is_data(tmp_path: Path, offset: int) -> None:
    """An array that was saved with a margin of zeros, or a sparse image: blank means all of it."""
    path = tmp_path / "matrix"
    content = bytes(offset) + b"!" + bytes((8 << 20) - offset - 1)
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(FileExistsError, match="holds data: remove the file"):
        open_swap(path, SIZE)
    assert path.read_bytes() == content


def test_data_after_a_hole_is_data(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(1 << 30)
        file.write(b"data")
    path.chmod(0o600)
    with pytest.raises(FileExistsError, match="holds data"):
        open_swap(path, SIZE)
    assert path.stat().st_size == (1 << 30) + 4


def test_zeros_that_were_written_are_blank(tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    path.write_bytes(bytes(8 << 20))
    path.chmod(0o600)
    swap = opened(path)
    assert swap.nbytes == 8 << 20
    swap.close()


def test_somebodys_data_before_our_label_is_data(engine: EngineFactory, tmp_path: Path) -> None:
    path = tmp_path / "swap"
    engine(swap=path, swap_size=SIZE)
    label = path.read_bytes()[SIZE:]
    other = tmp_path / "other"
    other.write_bytes(b"data".ljust(8 << 20, b"\0") + label)
    other.chmod(0o600)
    with pytest.raises(FileExistsError, match="holds data"):
        open_swap(other, SIZE)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_file_that_others_may_access_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "swap"
    path.touch()
    path.chmod(mode)
    with pytest.raises(PermissionError, match="chmod 600"):
        open_swap(path, SIZE)


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "swap"
    path.touch(0o600)
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root: run the tests as root")
    os.chown(path, 65534, 65534)
    with pytest.raises(PermissionError, match="user 65534"):
        open_swap(path, SIZE)


def test_two_engines_cannot_share_a_file(engine: EngineFactory, tmp_path: Path) -> None:
    z = engine(swap=tmp_path / "swap", swap_size=SIZE)
    with pytest.raises(OSError, match="another engine uses") as busy:
        engine(swap=tmp_path / "swap", swap_size=SIZE)
    assert busy.value.errno == errno.EBUSY
    z.close()
    engine(swap=tmp_path / "swap", swap_size=SIZE)


def test_a_file_is_free_as_soon_as_its_engine_is_closed(tmp_path: Path) -> None:
    """The lock goes with the last descriptor, and threads of the engine's have descriptors of their own."""
    path = tmp_path / "swap"
    for _ in range(50):
        z = Zswap(swap=path, swap_size="4M")
        with path.open("rb") as file:
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            z.close()
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_hard_links_are_one_file(engine: EngineFactory, tmp_path: Path) -> None:
    engine(swap=tmp_path / "swap", swap_size=SIZE)
    (tmp_path / "link").hardlink_to(tmp_path / "swap")
    with pytest.raises(OSError, match="another engine uses") as busy:
        engine(swap=tmp_path / "link", swap_size=SIZE)
    assert busy.value.errno == errno.EBUSY


def test_a_file_stays_locked_when_the_program_closes_all_descriptors(tmp_path: Path) -> None:
    code = """
        import os, sys, uzswap
        z = uzswap.Zswap(sys.argv[1], "8M")
        os.closerange(3, 1024)
        print("closed")
        input()
        """
    with Child(code, args=[str(tmp_path / "swap")]) as child:
        assert child.read_line() == "closed"
        with pytest.raises(OSError, match="another engine uses"):
            open_swap(tmp_path / "swap", SIZE)


def test_a_disk_that_fails_the_first_read_costs_no_descriptor(faulty_swap: FaultyDisks) -> None:
    """The probe for O_DIRECT reads before anything else; what is open then would show as a leak."""
    disk = faulty_swap()
    disk.fail_reads(errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        open_swap(disk.path, SIZE)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").touch(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="link") as loop:
        open_swap(tmp_path / "link", SIZE)
    assert loop.value.errno == errno.ELOOP


@pytest.mark.parametrize(
    ("name", "number"), [("missing/swap", errno.ENOENT), ("", errno.EISDIR), ("fifo", errno.EINVAL)]
)
def test_what_is_no_file(tmp_path: Path, name: str, number: int) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(OSError, match=r"fifo|swap|directory") as refused:
        open_swap(tmp_path / name, SIZE)
    assert refused.value.errno == number
    assert refused.value.filename == str(tmp_path / name)


def test_a_capacity_below_the_least(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"4.0 MiB"):
        open_swap(tmp_path / "swap", MIN_SIZE - 1)
    assert not (tmp_path / "swap").exists()


def test_a_capacity_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="smaller swap_size"):
        open_swap(tmp_path / "swap", 1 << 62)
    with pytest.raises(OSError, match="smaller swap_size"):
        open_swap("auto", 1 << 62)


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    path = Path("/var/tmp") / f"uzswap-test-{os.getpid()}"
    swap = opened(path)
    try:
        done = run_as_nobody("import sys; open(sys.argv[1], 'rb')", args=[str(path)])
        assert "PermissionError" in done.stderr
    finally:
        swap.close()
        path.unlink()


def test_somebody_who_is_faster_gets_nothing(tmp_path: Path) -> None:
    """In a directory that all may write to, another user puts links, pipes and files of his own where ours is made."""
    code = """
        import contextlib, os, sys
        print("ready")
        for turn in range(2000):
            for make in (
                lambda: os.symlink(sys.argv[2], sys.argv[1]),
                lambda: os.close(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)),
                lambda: os.mkfifo(sys.argv[1]),
                lambda: os.symlink("missing", sys.argv[1]),
            ):
                with contextlib.suppress(OSError):
                    make()
                with contextlib.suppress(OSError):
                    os.unlink(sys.argv[1])
        """
    victim = tmp_path / "victim"
    victim.touch(0o600)
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="uzswap-test-") as shared:
        os.chmod(shared, 0o1777)
        path = Path(shared, "swap")
        with NobodysChild(code, args=[str(path), str(victim)]) as child:
            assert child.read_line() == "ready"
            for _ in range(200):
                try:
                    swap = opened(path)
                except OSError:
                    continue
                status = os.fstat(swap.fd)
                assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), 0o600)
                assert stat.S_ISREG(status.st_mode)
                swap.close()
                path.unlink()
            child.wait().check()
    assert victim.stat().st_size == 0
    assert not victim.stat().st_blocks


def test_a_disk_is_preferred_to_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK):
        pytest.skip("no /dev/shm to compare with: mount a tmpfs there")
    monkeypatch.setattr(place, "_directories", lambda: iter([str(shm), str(tmp_path)]))
    assert place.choose_directory(SIZE) == str(tmp_path)


def test_no_directory_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_directories", lambda: iter(["/proc", "/missing"]))
    if os.geteuid() == 0:
        monkeypatch.setattr(place, "_directories", lambda: iter(["/missing"]))
    with pytest.raises(FileNotFoundError, match="swap=PATH"):
        open_swap("auto", SIZE)


def test_buffered_where_direct_io_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As tmpfs does before 6.6, of a file that has been made already."""
    real = fcntl.fcntl

    def refuse(fd: int, command: int, argument: int = 0) -> object:
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    swap = opened(tmp_path / "swap")
    assert not swap.direct
    swap.close()
