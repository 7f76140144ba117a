"""The device: who may write to what, and what a failed call costs.  Whose bytes are taken from it: test_record.py."""

import errno
import os
import threading
from pathlib import Path

import pytest
from tests.conftest import FaultyDisks
from tests.support import seccomp
from tests.support.child import run
from tests.support.data_plane import N, attached, errors, stored, write_back

from uzswap.core.boundary import engine as core

MIB = 1 << 20


# The program's descriptors


CLOSES_EVERYTHING = """
    import contextlib, os, sys, uzswap
    z = uzswap.Zswap(swap_size="64M")
    g = z.cgroup("/g")
    {before}
    os.closerange(3, 1024)
    files = []
    for i in range(8):
        files.append(os.open(os.path.join(sys.argv[1], str(i)), os.O_RDWR | os.O_CREAT, 0o600))
        os.write(files[i], b"IMPORTANT" * 1000)
    data = os.urandom(8 << 20)
    handles = z.swap_out_many(data, g)
    for _ in range(2):
        with contextlib.suppress(BlockingIOError):
            g.reclaim("8M", source="zswap")
    assert all(z.where(int(h)) == "disk" for h in handles[:100])
    assert z.fault_in_many(handles[:1000]).tobytes() == data[: 1000 * 4096]
    z.free_many(handles[1000:])
    {after}
    z.check()
    z.close()
    for i, file in enumerate(files):
        os.lseek(file, 0, os.SEEK_SET)
        assert os.read(file, 1 << 20) == b"IMPORTANT" * 1000, i
        os.close(file)
    """


def test_a_program_that_closes_all_descriptors_keeps_its_files_and_ours(tmp_path: Path) -> None:
    run(CLOSES_EVERYTHING.format(before="", after=""), args=[str(tmp_path)]).check()


def test_the_same_with_arrays(tmp_path: Path) -> None:
    before = "x = uzswap.zeros(1 << 18, cgroup=g); x[:] = 7"
    after = "uzswap.advise(x, 'pageout'); assert (x == 7).all(); del x"
    done = run(CLOSES_EVERYTHING.format(before=before, after=after), args=[str(tmp_path)])
    if "userfaultfd" in done.stderr:
        pytest.skip("userfaultfd is refused here: run where a seccomp filter does not forbid it")
    done.check()


def test_without_a_table_of_our_own_nothing_foreign_is_written_to(tmp_path: Path) -> None:
    """Where close_range is refused: the writes fail, the entries stay in the pool."""
    if not seccomp.can_refuse():
        pytest.skip("the number of close_range is not known for this machine: add it to tests/support/seccomp.py")
    code = """
        import errno, os, sys, uzswap
        from tests.support.seccomp import refuse
        refuse("close_range", errno.ENOSYS)
        z = uzswap.Zswap(swap_size="64M")
        g = z.cgroup("/g")
        data = os.urandom(1 << 20)
        handles = z.swap_out_many(data, g)
        fd = z.swap.fd
        os.close(fd)
        theirs = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
        assert theirs == fd
        for _ in range(2):
            try:
                g.reclaim("1M", source="zswap")
            except OSError as error:
                print(errno.errorcode[error.errno])
        assert z.fault_in_many(handles).tobytes() == data
        z.check()
        z.close()
        assert os.read(theirs, 1) == b""
        os.close(theirs)
        """
    said = run(code, args=[str(tmp_path / "theirs")], env={"TMPDIR": str(tmp_path)}).check().stdout.split()
    assert "EBADF" in said


def test_a_thread_that_cannot_be_made_leaves_nothing_open(tmp_path: Path) -> None:
    if not seccomp.can_refuse():
        pytest.skip("the number of clone3 is not known for this machine: add it to tests/support/seccomp.py")
    code = """
        import errno, os, uzswap.engine.zswap
        from tests.support.seccomp import refuse
        refuse("clone3", errno.EAGAIN)
        before = os.listdir("/proc/self/fd")
        try:
            uzswap.Zswap(swap_size="64M")
        except OSError as error:
            assert error.errno == errno.EAGAIN, error
        else:
            raise AssertionError("a thread was made")
        assert os.listdir("/proc/self/fd") == before
        """
    run(code, env={"TMPDIR": str(tmp_path)}).check()


def test_the_owner_may_close_its_number_at_once(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "swap", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, 8 * MIB)
    engine = core.Engine()
    assert engine.attach_device(fd, 8 * MIB, False) == 0
    os.close(fd)
    handles, data = stored(engine, 1)
    assert write_back(engine).entries == N
    assert errors(engine, handles, data) == []
    assert engine.check() == []
    engine.close()


def test_a_descriptor_that_is_none() -> None:
    engine = core.Engine()
    assert engine.attach_device(1 << 20, 8 * MIB, False) == -errno.EBADF
    assert engine.device() is None
    engine.close()


# Failed calls


def test_one_failed_fallocate_does_not_end_hole_punching(faulty_swap: FaultyDisks) -> None:
    for number in (errno.ENOSPC, errno.EIO):
        disk = faulty_swap()
        with attached(disk.path, disk.size) as engine:
            disk.fail_fallocates(number, count=1)
            for _ in range(2):
                handles, _ = stored(engine, 1, 3072)
                write_back(engine)
                assert engine.free(handles) == (-1, 0)
                engine.settle_device()
            info = engine.device()
            assert info is not None
            assert info.punched_bytes > 0


def test_a_disk_that_cannot_punch_holes_is_not_asked_again(faulty_swap: FaultyDisks) -> None:
    disk = faulty_swap()
    with attached(disk.path, disk.size) as engine:
        disk.fail_fallocates(errno.EOPNOTSUPP)
        for _ in range(2):
            handles, _ = stored(engine, 1, 3072)
            write_back(engine)
            assert engine.free(handles) == (-1, 0)
            engine.settle_device()
        assert disk.fallocates == 1


def test_a_write_that_hangs_holds_up_neither_loads_nor_frees(faulty_swap: FaultyDisks) -> None:
    """Freeing has blocks given back, which waits for the write in the kernel: somebody else waits there."""
    disk = faulty_swap()
    with attached(disk.path, disk.size) as engine:
        handles, data = stored(engine, 1, 3072)
        write_back(engine)
        disk.block_writes()
        stored(engine, 2)
        flushed: list[core.FlushResult] = []
        writer = threading.Thread(target=lambda: flushed.append(write_back(engine)))
        writer.start()
        try:
            disk.wait_blocked()
            assert errors(engine, handles[:4], data) == []
            assert engine.free(handles[4:]) == (-1, 0)
        finally:
            disk.release()
            writer.join()
        assert flushed[0].entries == N


def test_aio_that_fails_while_writes_are_under_way(tmp_path: Path) -> None:
    """Nobody knows what became of them: they are written again, and AIO is not used any more."""
    if not seccomp.can_refuse():
        pytest.skip("the number of io_getevents is not known for this machine: add it to tests/support/seccomp.py")
    code = """
        import contextlib, errno, os, uzswap
        from tests.support.seccomp import refuse
        z = uzswap.Zswap(swap_size="64M")
        g = z.cgroup("/g")
        data = os.urandom(16 << 20)
        handles = z.swap_out_many(data, g)
        refuse("io_getevents", errno.EPERM)
        for _ in range(2):
            with contextlib.suppress(BlockingIOError):
                g.reclaim("16M", source="zswap")
        assert all(z.where(int(h)) == "disk" for h in handles)
        assert z.fault_in_many(handles).tobytes() == data
        z.check()
        z.close()
        """
    run(code, env={"TMPDIR": str(tmp_path)}).check()


def test_without_memory_to_decompress_it_is_loaded_all_the_same(tmp_path: Path) -> None:
    """The first zstd page that a worker meets needs a context; without address space the spare one has it."""
    code = """
        import resource, uzswap
        z = uzswap.Zswap(swap_size="64M", compressor="zstd")
        g = z.cgroup("/g")
        data = b"some text " * 400
        handle = z.swap_out(data, g)
        with open("/proc/self/statm") as statm:
            now = int(statm.read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (now + 4096, resource.RLIM_INFINITY))
        try:
            assert z.fault_in(handle) == data
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        z.check()
        z.close()
        """
    run(code, env={"TMPDIR": str(tmp_path)}).check()


# Core dumps


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_stored_data_is_in_no_core_dump(tmp_path: Path, codec: str) -> None:
    """No mapping that a dump has (without "dd" among its flags) has a piece of a stored page.

    The program's own copies are in mappings that are gone, and what is looked for is kept inverted.
    """
    code = r"""
        import contextlib, mmap, re, sys, uzswap
        inverted = bytes.fromhex(sys.argv[2])
        z = uzswap.Zswap(swap_size="64M", compressor=sys.argv[1])
        g = z.cgroup("/g")
        n = 256
        with mmap.mmap(-1, n * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
            for at in range(0, len(pages), 64):
                for i, byte in enumerate(inverted):
                    pages[at + i] = byte ^ 0xFF
                pages[at + 12 : at + 20] = b"%08d" % (at * 7919 % 10**8)
            handles = z.swap_out_many(pages, g)
        for _ in range(2):
            with contextlib.suppress(BlockingIOError):
                g.reclaim(n * 200, source="zswap")
        with mmap.mmap(-1, n * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as out:
            z.fault_in_many(handles[::4], out)
        with open("/proc/self/smaps") as smaps:
            parts = re.split("(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", smaps.read())[1:]
        window = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        def read(memory, at, n):
            memory.seek(at)
            return memory.readinto(memoryview(window)[:n])
        in_dump = hidden = 0
        with open("/proc/self/mem", "rb", 0) as memory:
            for part in parts:
                begin, end = (int(x, 16) for x in part.split(" ", 1)[0].split("-"))
                resident = int(re.search(r"Rss: +(\d+)", part)[1])
                if not resident or "VmFlags: rd wr" not in part or end - begin > 1 << 32:
                    continue
                excluded = " dd" in part.split("VmFlags:")[1]
                for at in range(begin, end, len(window)):
                    try:
                        n = read(memory, at, min(end - at, len(window)))
                    except OSError:
                        continue  # a thread ended, and its memory has gone since it was listed
                    found = window.find(bytes(byte ^ 0xFF for byte in inverted), 0, n) >= 0
                    hidden += found and excluded
                    in_dump += found and not excluded
        print(in_dump, hidden)
        z.close()
        """
    needle = bytes(byte ^ 0xFF for byte in b"PASSWORD-OF-")
    done = run(code, args=[codec, needle.hex()], env={"TMPDIR": str(tmp_path)}).check()
    in_dump, hidden = map(int, done.stdout.split())
    assert hidden > 0
    assert in_dump <= 1  # the page of the heap that what is looked for is in, while it is looked for
