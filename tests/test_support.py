"""The tools of the tests, tested: a wrong tool would make every test that uses it worthless."""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from tests.support import child, faulty, leaks, mounts, pages, small_disk
from tests.support.pytests import OPTIONS

SIZE = 4 << 20
LENGTHS = [26, 27, 40, 41, 100, 255, 256, 270, 300, 1000, 1024, 1500, 2000, 2048, 3000, 4000, 4094, 4095]


class TestPages:
    @pytest.mark.parametrize("length", LENGTHS)
    def test_length_is_exact_for_lz4(self, length: int) -> None:
        for seed in range(50):
            page = pages.page_of_length(length, seed)
            assert (len(page), pages.compressed_length(page)) == (4096, length)

    def test_every_length_from_26_to_4095_exists(self) -> None:
        for length in range(26, 4096):
            assert pages.compressed_length(pages.page_of_length(length)) == length

    @pytest.mark.parametrize("length", [40, 300, 1000, 2000, 4000])
    def test_length_is_exact_for_zstd(self, length: int) -> None:
        page = pages.page_of_length(length, codec="zstd")
        assert (len(page), pages.compressed_length(page, "zstd")) == (4096, length)

    @pytest.mark.parametrize("size", [512, 8192, 65536])
    def test_other_page_sizes(self, size: int) -> None:
        page = pages.page_of_length(size // 2, size=size)
        assert (len(page), pages.compressed_length(page)) == (size, size // 2)

    def test_seeds_give_different_pages_and_the_same_seed_the_same(self) -> None:
        many = list(pages.split(pages.pages_of_length(300, 500)))
        assert len(set(many)) == 500
        assert many[7] == pages.page_of_length(300, 7)

    def test_is_never_same_filled(self) -> None:
        for seed in range(200):
            page = pages.page_of_length(26, seed)
            assert page != page[:8] * 512

    def test_4096_is_incompressible(self) -> None:
        assert pages.page_of_length(4096, 3) == pages.random_page(3)
        for seed in range(50):
            assert pages.compressed_length(pages.random_page(seed)) > 4096

    def test_same_filled_pages(self) -> None:
        assert pages.zero_page() == bytes(4096)
        assert pages.compressed_length(pages.filled_page(0xAA)) == 26

    @pytest.mark.parametrize("length", [0, 25, 4097])
    def test_impossible_length_is_refused(self, length: int) -> None:
        with pytest.raises(ValueError, match=f"to {length} bytes"):
            pages.page_of_length(length)

    def test_unknown_codec_is_refused(self) -> None:
        with pytest.raises(ValueError, match="lzo"):
            pages.page_of_length(100, codec="lzo")


@pytest.fixture
def disk() -> Iterator[faulty.FaultySwap]:
    with faulty.FaultySwap(SIZE) as disk:
        yield disk


@pytest.fixture
def fd(disk: faulty.FaultySwap) -> Iterator[int]:
    fd = os.open(disk.path, os.O_RDWR)
    yield fd
    disk.heal()
    os.close(fd)


class TestFaultySwap:
    def test_is_a_file_that_keeps_what_is_written(self, disk: faulty.FaultySwap, fd: int) -> None:
        assert os.fstat(fd).st_size == SIZE
        assert os.pwrite(fd, b"abc" * 5000, 12345) == 15000
        assert os.pread(fd, 15000, 12345) == b"abc" * 5000
        assert disk.stored(12345, 15000) == b"abc" * 5000
        assert (disk.writes, disk.reads) == (1, 1)

    def test_opens_with_o_direct(self, disk: faulty.FaultySwap) -> None:
        fd = os.open(disk.path, os.O_RDWR | os.O_DIRECT)
        with mmap.mmap(-1, 1 << 20) as segment:  # aligned, as O_DIRECT wants it
            segment[:] = os.urandom(1 << 20)
            assert os.pwritev(fd, [segment], 1 << 20) == 1 << 20
            assert disk.stored(1 << 20, 1 << 20) == segment[:]
        assert disk.writes == 1
        os.close(fd)

    @pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
    def test_writes_fail_and_heal(self, disk: faulty.FaultySwap, fd: int, number: int) -> None:
        os.pwrite(fd, b"old", 0)
        disk.fail_writes(number)
        for _ in range(2):
            with pytest.raises(OSError, match=os.strerror(number)) as failure:
                os.pwrite(fd, b"new", 0)
            assert failure.value.errno == number
        assert os.pread(fd, 3, 0) == b"old"
        disk.heal()
        assert os.pwrite(fd, b"new", 0) == 3

    def test_nth_write_fails_once(self, disk: faulty.FaultySwap, fd: int) -> None:
        disk.fail_writes(errno.EIO, after=2, count=1)
        results: list[int | None] = []
        for i in range(5):
            try:
                results.append(os.pwrite(fd, b"x", i))
            except OSError as error:
                results.append(error.errno)
        assert results == [1, 1, errno.EIO, 1, 1]
        assert disk.writes == 5

    def test_reads_fail(self, disk: faulty.FaultySwap, fd: int) -> None:
        os.pwrite(fd, b"abc", 0)
        disk.fail_reads(errno.EIO, after=1)
        assert os.pread(fd, 3, 0) == b"abc"
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.pread(fd, 3, 0)
        disk.heal()
        assert os.pread(fd, 3, 0) == b"abc"

    def test_blocked_write_waits_while_reads_pass(self, disk: faulty.FaultySwap, fd: int) -> None:
        os.pwrite(fd, b"old", 0)
        disk.block_writes()
        done = threading.Event()

        def write() -> None:
            os.pwrite(fd, b"new", 0)
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        assert disk.wait_blocked() == 1
        assert not done.is_set()
        assert os.pread(fd, 3, 0) == b"old"
        disk.release()
        writer.join()
        assert os.pread(fd, 3, 0) == b"new"

    def test_fate_of_a_blocked_write_is_decided_at_its_release(self, disk: faulty.FaultySwap, fd: int) -> None:
        disk.block_writes(after=1)
        assert os.pwrite(fd, b"passes", 0) == 6
        errnos: list[int | None] = []

        def write() -> None:
            try:
                os.pwrite(fd, b"x", 0)
            except OSError as error:
                errnos.append(error.errno)

        writer = threading.Thread(target=write)
        writer.start()
        disk.wait_blocked()
        disk.fail_writes(errno.ENOSPC)
        disk.release()
        writer.join()
        assert errnos == [errno.ENOSPC]

    def test_waiting_for_a_write_that_does_not_come_ends(self, disk: faulty.FaultySwap) -> None:
        disk.block_writes()
        with pytest.raises(TimeoutError, match="0 of 1 requests"):
            disk.wait_blocked(timeout=0)
        disk.heal()
        assert disk.writes == 0

    def test_corrupt_inverts_bytes(self, disk: faulty.FaultySwap, fd: int) -> None:
        os.pwrite(fd, b"abcd", 4096)
        disk.corrupt(4097, 2)
        assert os.pread(fd, 4, 4096) == b"a\x9d\x9cd"
        with pytest.raises(ValueError, match="outside"):
            disk.corrupt(SIZE - 1, 2)

    def test_punches_holes_unless_told_otherwise(self, disk: faulty.FaultySwap, fd: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        keep_size_and_punch_hole = 3  # linux/falloc.h
        os.pwrite(fd, b"x" * 65536, 0)
        assert libc.fallocate(fd, keep_size_and_punch_hole, 0, 32768) == 0
        assert os.pread(fd, 65536, 0) == bytes(32768) + b"x" * 32768
        disk.fail_fallocates(errno.EOPNOTSUPP)
        assert (libc.fallocate(fd, keep_size_and_punch_hole, 0, 65536), ctypes.get_errno()) == (-1, errno.EOPNOTSUPP)

    def test_can_be_locked_truncated_and_synced(self, disk: faulty.FaultySwap, fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, SIZE // 2)
        os.fsync(fd)
        os.fchmod(fd, 0o640)
        assert (os.fstat(fd).st_size, os.fstat(fd).st_mode & 0o777) == (SIZE // 2, 0o640)

    def test_is_gone_after_a_failure_even_when_still_open(self) -> None:
        def fail_with_the_file_open() -> None:
            with disk:
                opened.append(os.open(disk.path, os.O_RDWR))
                disk.block_writes()
                raise ZeroDivisionError

        opened: list[int] = []
        disk = faulty.FaultySwap(SIZE)
        with pytest.raises(ZeroDivisionError):
            fail_with_the_file_open()
        where = os.path.dirname(disk.path)
        assert where not in mounts.mount_points()
        assert not os.path.exists(where)
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            os.pread(opened[0], 1, 0)
        with contextlib.suppress(OSError):  # told the same, but it is closed
            os.close(opened[0])

    def test_is_gone_after_its_server_was_killed(self) -> None:
        with faulty.FaultySwap(SIZE) as disk:
            assert disk._child is not None
            disk._child.kill()
            disk._child.wait()
            with pytest.raises(RuntimeError, match=r"has died|does not answer"):
                disk.heal()
        assert os.path.dirname(disk.path) not in mounts.mount_points()

    def test_is_gone_after_its_user_was_killed_in_a_blocked_write(self, disk: faulty.FaultySwap) -> None:
        """`disk` only makes the test skip where FUSE is missing: the child makes one of its own."""
        code = """
            import os, threading
            from tests.support.faulty import FaultySwap
            with FaultySwap(4096) as disk:
                disk.block_writes()
                fd = os.open(disk.path, os.O_RDWR)
                threading.Thread(target=os.pwrite, args=(fd, b"x", 0), daemon=True).start()
                disk.wait_blocked()
                print(disk._child.pid, os.path.dirname(disk.path), flush=True)
                threading.Event().wait()
        """
        with child.Child(code) as user:
            pid, where = user.read_line().split()
            server = os.pidfd_open(int(pid))
            user.kill()
        with open(server) as ended:
            assert select.select([ended], [], [], 240)[0], "the file system outlived its user"
        assert where not in mounts.mount_points()
        assert not os.path.exists(where)

    def test_skips_with_a_remedy_where_fuse_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(pytest.skip.Exception, match="modprobe fuse"), faulty.FaultySwap(SIZE):
            pass


class TestSmallDisk:
    def test_is_full_after_its_size_and_then_gone(self) -> None:
        with small_disk.small_tmpfs(65536) as where:
            fd = os.open(where / "file", os.O_RDWR | os.O_CREAT)
            assert os.write(fd, bytes(65536)) == 65536
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                os.write(fd, bytes(4096))
            os.close(fd)
        assert not where.exists()

    def test_is_unmounted_while_a_file_is_open(self) -> None:
        with small_disk.small_tmpfs(65536) as where:
            fd = os.open(where / "file", os.O_RDWR | os.O_CREAT)
        assert str(where) not in mounts.mount_points()
        os.close(fd)

    def test_skips_without_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(pytest.skip.Exception, match="as root"), small_disk.small_tmpfs(65536):
            pass


class TestChild:
    def test_run_returns_what_was_said_and_how_it_ended(self) -> None:
        done = child.run("import sys; print(sys.argv[1:]); print('e', file=sys.stderr); sys.exit(3)", ["a", "b"])
        assert (done.returncode, done.signal, done.stdout, done.stderr) == (3, None, "['a', 'b']\n", "e\n")

    def test_same_interpreter_and_modules(self) -> None:
        done = child.run("import sys, tests.support.pages; print(sys.prefix)")
        assert done.check().stdout == f"{sys.prefix}\n"

    def test_signal(self) -> None:
        assert child.run("import os; os.abort()").signal == signal.SIGABRT

    def test_check_fails_with_what_was_said(self) -> None:
        with pytest.raises(pytest.fail.Exception, match=r"exited with 1\n(.*\n)*ZeroDivisionError"):
            child.run("1 / 0").check()

    def test_a_hung_child_is_killed_and_shown(self) -> None:
        with child.Child("import threading; print('got so far'); threading.Event().wait()") as running:
            assert running.read_line() == "got so far"
            with pytest.raises(pytest.fail.Exception, match=r"did not finish within 0 s (.*\n)*got so far"):
                running.wait(timeout=0)

    def test_much_output_does_not_block(self) -> None:
        done = child.run("import sys; sys.stderr.write('e' * 10**6); sys.stdout.write('o' * 10**6)")
        assert (len(done.stdout), len(done.stderr)) == (10**6, 10**6)

    def test_conversation_and_kill(self) -> None:
        with child.Child("print('ready'); print(input()[::-1]); input()") as running:
            assert running.read_line() == "ready"
            running.write_line("abc")
            assert running.read_line() == "cba"
            done = running.kill()
        assert (done.signal, done.stdout) == (signal.SIGKILL, "ready\ncba\n")

    def test_end_instead_of_a_line_fails(self) -> None:
        with child.Child("pass") as running, pytest.raises(pytest.fail.Exception, match="exited with 0 where a line"):
            running.read_line()

    def test_environment_and_directory_are_the_tests(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("UZSWAP_TEST", "a")
        code = "import os; print(os.getcwd(), os.environ['MORE'], os.popen('echo $UZSWAP_TEST$MORE').read(), end='')"
        for fresh in (False, True):
            done = child.run(code, env={"MORE": "b"}, fresh=fresh).check()
            assert done.stdout == f"{tmp_path} b ab\n"

    def test_children_are_main_programs_without_each_others_things(self) -> None:
        """Descriptors, modules, names, and what they change."""
        code = """
            import os, sys
            sys.changed = True
            def main(): pass
            print(sorted(set(map(int, os.listdir("/proc/self/fd")))), main.__module__, sys.argv)
            input()
        """
        before = os.listdir("/proc/self/fd")
        with child.Child(code, ["a"]) as first, child.Child(code) as second:
            assert first.read_line() == "[0, 1, 2, 3] __main__ ['-c', 'a']"
            assert second.read_line() == "[0, 1, 2, 3] __main__ ['-c']"
            assert (
                child.run("import sys; print(hasattr(sys, 'changed'), 'main' in globals())").stdout == "False False\n"
            )
            second.write_line("")
            assert second.wait().check().stderr == ""
            assert first.kill().signal == signal.SIGKILL
        assert os.listdir("/proc/self/fd") == before

    def test_what_is_read_when_a_program_starts_has_one_that_starts(self) -> None:
        code = "import sys; print(sys.flags.dev_mode, 'numpy' in sys.modules)"
        assert child.run(code).stdout == "False True\n"
        assert child.run(code, fresh=True).stdout == "False False\n"
        assert child.run(code, env={"PYTHONDEVMODE": "1"}).stdout == "True False\n"

    def test_nobody_is_nobody(self, tmp_path: Path) -> None:
        (tmp_path / "secret").touch(mode=0o600)
        code = """
            import os, sys, ctypes, numpy, tests.support.pages
            print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups())
            try:
                open(sys.argv[1])
            except PermissionError:
                print("refused")
        """
        done = child.run_as_nobody(code, [str(tmp_path / "secret")]).check()
        assert done.stdout == "65534 65534 65534 []\nrefused\n"

    def test_nobody_skips_without_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(pytest.skip.Exception, match="as root"):
            child.run_as_nobody("pass")

    def test_nobody_skips_where_the_sources_are_private(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        private = tmp_path / "private"
        private.mkdir(mode=0o700)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.syspath_prepend(private)
        child._search_path.cache_clear()
        with pytest.raises(pytest.skip.Exception, match=r"chmod -R o\+rX"):
            child.run_as_nobody("pass")
        child._search_path.cache_clear()


class TestLeaks:
    def test_nothing_new_is_no_leak(self) -> None:
        assert leaks.Snapshot.take().leaked() == []

    def test_finds_a_descriptor(self) -> None:
        before = leaks.Snapshot.take()
        with tempfile.TemporaryFile() as file:
            assert [text.split(":")[0] for text in before.leaked()] == [f"file descriptor {file.fileno()}"]
        assert before.leaked() == []

    def test_finds_a_thread_and_waits_for_one_that_ends(self) -> None:
        before = leaks.Snapshot.take()
        go = threading.Event()
        thread = threading.Thread(target=go.wait, name="lingers")
        thread.start()
        assert [text.partition(": ")[2] for text in before.leaked(settle=0)] == ["lingers"]
        go.set()
        assert before.leaked() == []
        thread.join()

    def test_finds_a_child_process(self) -> None:
        before = leaks.Snapshot.take()
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
            assert any(text.startswith(f"child process {process.pid}: ") for text in before.leaked())
        assert before.leaked() == []

    def test_finds_a_shared_mapping(self) -> None:
        before = leaks.Snapshot.take()
        with mmap.mmap(-1, 4096):
            assert [text.split()[0] for text in before.leaked()] == ["shared"]
        assert before.leaked() == []

    def test_finds_a_mount(self) -> None:
        with small_disk.small_tmpfs(4096) as where:
            assert f"mount {where}: is still mounted" in leaks.Snapshot({kind: {} for kind in leaks.KINDS}).leaked()


class TestTestsOfChange:
    @pytest.mark.parametrize(
        ("changed", "tests"),
        [
            ("src/uzswap/core/paging/page_in.py", "tests/core/paging"),
            ("src/uzswap/core/boundary/memory.py", "tests/core"),
            ("src/uzswap/cli/run.py", "tests/cli"),
            ("src/uzswap/units.py", "tests/test_units.py"),
            ("tests/store/test_weigh.py", "tests/store/test_weigh.py"),
            ("tests/store/values.py", "tests/store"),
            ("tests/support/pages.py", "tests/test_support.py"),
            ("tests/conftest.py", "tests/test_support.py"),
            ("README.md", None),
        ],
    )
    def test_they_are_in_the_folder_of_the_rooms_name(self, changed: str, tests: str | None) -> None:
        script = Path(__file__).parents[1] / "scripts" / "tests_of_change"
        found = runpy.run_path(str(script))["tests_of"](PurePosixPath(changed))
        assert found == (None if tests is None else PurePosixPath(tests))


MISBEHAVING = """
import os, threading
import pytest

def test_well():
    pass

def test_leaks():
    os.pipe()

def test_after_a_leak():
    pass

def test_fails_and_leaks():
    os.pipe()
    raise ZeroDivisionError

def test_thread():
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()

class Bad:
    def __del__(self):
        1 / 0

def test_unraisable():
    Bad()

@pytest.mark.skip("do this")
def test_skipped():
    pass

def test_skips():
    pytest.skip("do this")
"""


class TestConftest:
    """pytest in a child, with this directory's conftest.py, over tests that misbehave."""

    @pytest.fixture(scope="class")
    @staticmethod
    def said(tmp_path_factory: pytest.TempPathFactory) -> str:
        where = tmp_path_factory.mktemp("misbehaving")
        (where / "test_it.py").write_text(MISBEHAVING)
        # Without --confcutdir the directories above are looked at too: /tmp, and what other tests have mounted there.
        options = [*OPTIONS, "-rA"]
        done = child.run(
            "import os, sys, pytest; os.chdir(sys.argv[1]); sys.exit(pytest.main(sys.argv[2:]))",
            [str(where), *options, "--rootdir", ".", "--confcutdir", ".", "test_it.py"],
        )
        return done.stdout

    def test_a_leak_is_an_error_of_its_test_alone(self, said: str) -> None:
        assert "ERROR test_it.py::test_leaks" in said
        assert "left behind:\n  file descriptor" in said
        assert "PASSED test_it.py::test_well\n" in said
        assert "PASSED test_it.py::test_after_a_leak\n" in said
        assert said.count("\nERROR ") == 1

    def test_a_failed_test_is_not_blamed_for_leaks_too(self, said: str) -> None:
        assert "FAILED test_it.py::test_fails_and_leaks - ZeroDivisionError" in said

    def test_an_exception_in_a_thread_fails_the_test(self, said: str) -> None:
        assert "FAILED test_it.py::test_thread" in said

    def test_an_unraisable_exception_fails_the_test(self, said: str) -> None:
        assert "FAILED test_it.py::test_unraisable" in said

    def test_skips_are_listed_by_reason(self, said: str) -> None:
        assert "not tested here" in said
        assert "\ndo this\n  test_it.py::test_skipped\n  test_it.py::test_skips\n" in said
