"""What is particular to the mount: polls, per-descriptor state, other users, faults of its server, forks, signals."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import EngineFactory
from tests.serve.conftest import needs_fuse
from tests.serve.doors import ChildWriting, pending
from tests.support.child import Child, run, run_as_nobody
from tests.support.front_end import FrontEnd
from tests.support.mounts import mount_points, unmount
from tests.support.states import fill, stat

from uzswap import MemCgroup, TraceEvent, Zswap
from uzswap.client.client import Client
from uzswap.client.mounts import FSTYPE, is_stale, mounted_type

pytestmark = needs_fuse

#: seconds; only a test that fails waits so long
PATIENCE = 240_000


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine(walk="v5")


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/g")


@pytest.fixture
def m(z: Zswap, private: Path) -> Iterator[Path]:
    with z.mount(private / "m") as mount:
        yield mount.path


def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags)
    yield fd
    os.close(fd)


def polls(fd: int) -> select.poll:
    waiting = select.poll()
    waiting.register(fd, select.POLLPRI)
    return waiting


# The shell


def test_the_shell(z: Zswap, g: MemCgroup, m: Path) -> None:
    fill(z, g, 3, 1000, referenced=False)
    script = """
        set -e
        mkdir cgroup/a
        echo 64M > cgroup/a/memory.max
        cat cgroup/a/memory.max
        echo "10M source=zswap" | tee cgroup/a/memory.reclaim >/dev/null || true
        echo "1 source=zswap" >> cgroup/g/memory.reclaim
        grep -w zswpwb_proactive_b cgroup/g/memory.stat
        rmdir cgroup/a
        find . -type f | wc -l
        head -c 3 cgroup/g/memory.stat
    """
    done = subprocess.run(["sh", "-c", script], cwd=m, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["67108864", "zswpwb_proactive_b 3000"]
    assert int(lines[2]) == sum(len(files) for _, _, files in os.walk(m))
    assert lines[3] == "ano"
    assert "Resource temporarily unavailable" in done.stderr


def test_reading_in_small_pieces_gives_one_snapshot(z: Zswap, g: MemCgroup, m: Path) -> None:
    path = m / "cgroup/g/memory.stat"
    before = path.read_bytes()
    fd = os.open(path, os.O_RDONLY)
    pieces = [os.read(fd, 100)]
    fill(z, g, 3, 1000)
    while piece := os.read(fd, 7):
        pieces.append(piece)
    assert b"".join(pieces) == before
    assert os.pread(fd, 1 << 16, 0) == path.read_bytes() != before
    os.close(fd)


def test_what_a_directory_cannot_do(m: Path, g: MemCgroup) -> None:
    file = m / "cgroup/g/memory.max"
    for code, operation in (
        (errno.EACCES, lambda: os.open(m / "cgroup/g/new", os.O_CREAT | os.O_WRONLY)),
        (errno.EPERM, file.unlink),
        (errno.EPERM, lambda: file.rename(m / "cgroup/g/x")),
        (errno.EPERM, lambda: (m / "cgroup/g").rename(m / "cgroup/h")),
        (errno.EPERM, lambda: os.link(file, m / "cgroup/g/x")),
        (errno.EPERM, lambda: os.symlink("x", m / "cgroup/g/x")),
        (errno.EPERM, lambda: file.chmod(0o777)),
        (errno.EPERM, lambda: os.chown(file, 1, 1)),
        (errno.EPERM, lambda: os.mkfifo(m / "cgroup/g/x")),
    ):
        with pytest.raises(OSError, match=rf"\[Errno {code}\]"):
            operation()
    assert file.read_text() == "max\n"


# Polls


def test_poll_of_memory_events(g: MemCgroup, m: Path) -> None:
    for fd in opened(m / "cgroup/g/memory.events"):
        assert polls(fd).poll(0) == []
        os.pread(fd, 4096, 0)
        threading.Thread(target=lambda: g.count_event("high")).start()
        assert polls(fd).poll(PATIENCE) == [(fd, select.POLLPRI)]
        assert b"high 1\n" in os.pread(fd, 4096, 0)
        assert polls(fd).poll(0) == []


def test_poll_of_cgroup_events(g: MemCgroup, m: Path) -> None:
    for fd in opened(m / "cgroup/g/cgroup.events"):
        waiting = select.epoll()
        waiting.register(fd, select.EPOLLPRI)
        owner = FrontEnd(g)
        assert waiting.poll(PATIENCE / 1000) == [(fd, select.EPOLLPRI)]
        assert os.pread(fd, 4096, 0) == b"populated 1\nfrozen 0\n"
        assert waiting.poll(0) == []
        owner.close()
        assert waiting.poll(PATIENCE / 1000) == [(fd, select.EPOLLPRI)]
        waiting.close()


def test_poll_of_a_pressure_trigger(z: Zswap, g: MemCgroup, m: Path) -> None:
    for fd in opened(m / "cgroup/g/memory.pressure", os.O_RDWR):
        assert polls(fd).poll(0)[0][1] & select.POLLERR  # as in the kernel: there is no trigger
        os.write(fd, b"some 1000 2000000")
        assert polls(fd).poll(0) == []
        threading.Thread(target=lambda: g.pressure.record(1_500_000_000)).start()
        assert polls(fd).poll(PATIENCE) == [(fd, select.POLLPRI)]


def test_a_poll_ends_when_the_cgroup_goes(g: MemCgroup, m: Path) -> None:
    for fd in opened(m / "cgroup/g/memory.events"):
        threading.Thread(target=(m / "cgroup/g").rmdir).start()
        ((_, events),) = polls(fd).poll(PATIENCE)
        assert events & select.POLLERR


def test_many_polls_and_closes_leave_nothing(g: MemCgroup, m: Path) -> None:
    for _ in range(100):
        for fd in opened(m / "cgroup/g/memory.events"):
            polls(fd).poll(0)


def test_peaks_belong_to_a_descriptor(g: MemCgroup, m: Path) -> None:
    owner = FrontEnd(g, 1 << 20)
    owner.drop(1 << 20)
    path = m / "cgroup/g/memory.peak"
    for first in opened(path, os.O_RDWR):
        for second in opened(path, os.O_RDWR):
            copy = os.dup(first)
            os.write(first, b"x")
            assert os.pread(copy, 64, 0) == b"0\n"
            assert os.pread(second, 64, 0) == b"1048576\n"
            os.close(copy)
    owner.close()


def test_many_long_writes_hold_up_no_other_file(z: Zswap, m: Path) -> None:
    """More at a time than libfuse has threads by default."""
    groups = [z.cgroup(f"/g{i}") for i in range(24)]
    for group in groups:
        fill(z, group, 1, 1000, referenced=False)
    hold, arrived = threading.Event(), threading.Semaphore(0)

    def wait(event: TraceEvent) -> None:
        arrived.release()
        hold.wait()

    z.trace = wait
    writes = [
        threading.Thread(target=(m / f"cgroup/g{i}/memory.reclaim").write_text, args=("1 source=zswap",))
        for i in range(len(groups))
    ]
    for write in writes:
        write.start()
    for _ in writes:
        arrived.acquire()
    assert (m / "cgroup/g0/memory.max").read_text() == "max\n"
    (m / "cgroup/new").mkdir()
    hold.set()
    for write in writes:
        write.join()
    z.trace = None
    assert sum(stat(group, "zswpwb") for group in groups) == len(groups)


# Others


READ = """
    import errno, os, sys
    for operation in (os.listdir, lambda path: os.open(path + "/vmstat", os.O_RDONLY), os.stat):
        try:
            operation(sys.argv[1])
            print("got in")
        except OSError as error:
            print(errno.errorcode[error.errno])
"""


def test_other_users_stay_out(z: Zswap, private: Path) -> None:
    private.chmod(0o755)
    with z.mount(private / "m") as mount:
        assert run_as_nobody(READ, [str(mount.path)]).check().stdout.split() == ["EACCES"] * 3


def test_allow_other_lets_them_read_only(z: Zswap, private: Path) -> None:
    private.chmod(0o755)
    code = """
        import errno, os, sys
        print(open(sys.argv[1] + "/cgroup/g/memory.max").read().strip())
        for name, flags in (("memory.max", os.O_WRONLY), ("memory.reclaim", os.O_WRONLY), ("memory.peak", os.O_RDWR)):
            try:
                os.open(f"{sys.argv[1]}/cgroup/g/{name}", flags)
                print("got in")
            except OSError as error:
                print(errno.errorcode[error.errno])
        try:
            os.mkdir(sys.argv[1] + "/cgroup/theirs")
        except OSError as error:
            print(errno.errorcode[error.errno])
    """
    z.cgroup("/g")
    with z.mount(private / "m", allow_other=True) as mount:
        done = run_as_nobody(code, [str(mount.path)]).check()
        assert done.stdout.split() == ["max", "EACCES", "EACCES", "EACCES", "EACCES"]


# Life and death


def test_unmount_and_remount_while_the_engine_runs(z: Zswap, g: MemCgroup, private: Path) -> None:
    handles = fill(z, g, 3, 1000)
    for _ in range(5):
        with z.mount(private / "m") as mount:
            assert (mount.path / "cgroup/g/memory.zswap.current").read_text() == "3000\n"
        assert not mount.mounted
        assert not (private / "m").exists()
    with z.mount(private / "m") as one, z.mount(private / "n") as two:
        (one.path / "cgroup/g/memory.max").write_text("1M")
        assert (two.path / "cgroup/g/memory.max").read_text() == "1048576\n"
    assert z.fault_in(int(handles[0]))


def test_unmounted_by_somebody_else(z: Zswap, private: Path) -> None:
    mount = z.mount(private / "m")
    unmount(private / "m", fuse=True)
    mount.close()
    mount.close()
    assert not mount.mounted
    z.mount(private / "m").close()


def test_unmounted_lazily_while_a_file_is_open(z: Zswap, g: MemCgroup, private: Path) -> None:
    mount = z.mount(private / "m")
    fd = os.open(private / "m/cgroup/g/memory.max", os.O_RDWR)
    subprocess.run(["fusermount3", "-u", "-z", private / "m"], check=True)
    os.write(fd, b"1M")
    assert g.read("memory.max") == "1048576\n"
    mount.close()  # does not wait for the file
    os.close(fd)
    mount._thread.join()


def test_files_that_are_open_when_it_is_unmounted(z: Zswap, g: MemCgroup, private: Path) -> None:
    mount = z.mount(private / "m")
    fds = [os.open(private / f"m/cgroup/g/{name}", os.O_RDWR) for name in ("memory.max", "memory.peak")]
    mount.close()
    for fd in fds:
        with pytest.raises(OSError, match=rf"\[Errno {errno.ENOTCONN}\]"):
            os.pread(fd, 64, 0)
        with contextlib.suppress(OSError):  # it is closed all the same
            os.close(fd)


def test_closing_interrupts_a_long_write(z: Zswap, g: MemCgroup, private: Path) -> None:
    fill(z, g, 1000, 2000, referenced=False)
    mount = z.mount(private / "m")
    writing = ChildWriting(str(private / "m/cgroup/g/memory.reclaim"), "1G source=zswap")
    closing = threading.Thread(target=mount.close)

    def close(event: TraceEvent) -> None:
        if not closing.ident:
            closing.start()
            pending()

    z.trace = close
    with writing.child:
        writing.child.write_line("go")
        assert writing.outcome() == errno.EINTR
    closing.join()
    z.trace = None
    assert stat(g, "zswpwb_proactive_b") == 128_000


def test_closing_the_engine_unmounts(engine: EngineFactory, private: Path) -> None:
    z = engine()
    mount = z.mount(private / "m")
    z.close()
    assert str(private / "m") not in mount_points()
    assert not mount.mounted


def test_the_engine_and_the_socket_outlive_the_server_of_the_mount(
    z: Zswap, g: MemCgroup, private: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is aborted under it, as the kernel does it to a server that has died or hangs."""
    handles = fill(z, g, 3, 1000)
    control = tmp_path / "connections"
    control.mkdir()
    if subprocess.run(["mount", "-t", "fusectl", "none", control], capture_output=True, check=False).returncode:
        pytest.skip("aborting a connection needs fusectl: run the tests as root")
    try:
        mount = z.mount(private / "m")
        server = z.serve(private / "s")
        (control / str(os.minor(os.stat(private / "m").st_dev)) / "abort").write_text("1")
        mount._thread.join()
    finally:
        subprocess.run(["umount", control], check=True)
    assert not mount.mounted
    assert "not served any more" in caplog.text
    assert (private / "m").is_dir()
    with Client(server.path) as client:
        assert client.read("/cgroup/g/memory.zswap.current") == "3000\n"
    assert z.fault_in(int(handles[0]))
    z.check()
    with z.mount(private / "m") as again:
        assert (again.path / "cgroup/g/memory.zswap.current").read_text() == "2000\n"
    mount.close()
    server.close()


DIES = """
    import os, sys, signal, uzswap
    z = uzswap.Zswap(swap_size="16M")
    z.mount(sys.argv[1])
    print("mounted")
    input()
"""


def test_the_mount_of_a_killed_process_is_taken_over(z: Zswap, private: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Child(DIES, [str(private / "m")]) as child:
        assert child.read_line() == "mounted"
        assert mounted_type(private / "m") == FSTYPE
        with pytest.raises(OSError, match=r"\[Errno 16\].*fuse.uzswap is mounted here"):
            z.mount(private / "m")
        child.kill()
    assert is_stale(private / "m")
    with caplog.at_level(logging.WARNING), z.mount(private / "m") as mount:
        assert "gone; taking it over" in caplog.text
        assert (mount.path / "vmstat").read_text()
    assert not is_stale(private / "m")


def test_a_process_that_just_ends_leaves_no_mount(private: Path) -> None:
    with Child(DIES, [str(private / "m")]) as child:
        assert child.read_line() == "mounted"
        child.write_line("end")
        child.wait().check()
    assert str(private / "m") not in mount_points()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_still_does_what_it_did(private: Path, number: int) -> None:
    """libfuse would catch it and leave its loop."""
    with Child(DIES, [str(private / "m")]) as child:
        assert child.read_line() == "mounted"
        child.send_signal(number)
        assert child.wait().signal == number
    assert is_stale(private / "m")
    subprocess.run(["fusermount3", "-u", "-z", private / "m"], check=True)


def test_ctrl_c_still_ends_a_read(private: Path) -> None:
    """Handlers are put back as they were, with their flags: Python's do not have system calls go on."""
    code = """
        import os, signal, sys, threading, uzswap
        with uzswap.Zswap(swap_size="16M") as z, z.mount(sys.argv[1]):
            r, w = os.pipe()
            try:
                print("reading")
                os.read(r, 1)
            except KeyboardInterrupt:
                print("interrupted")
    """
    with Child(code, [str(private / "m")]) as child:
        assert child.read_line() == "reading"
        child.send_signal(signal.SIGINT)
        assert child.read_line() == "interrupted"
        child.wait().check()


def test_the_working_directory_stays(z: Zswap, private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    with z.mount(private / "m"):
        assert Path.cwd() == Path("/usr")


def test_a_forked_child_neither_holds_nor_ends_the_mount_and_has_its_own(private: Path) -> None:
    code = """
        import os, sys, uzswap, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        z = uzswap.Zswap(swap_size="16M")
        mount = z.mount(sys.argv[1])
        server = z.serve(sys.argv[2])
        closed = z.mount(sys.argv[1] + "2")
        closed.close()
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            holds = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd != "0"
                     if os.path.exists(f"/proc/self/fd/{fd}")]
            try:
                mount.close()
                server.close()
                with z.mount(sys.argv[1] + "3"):
                    theirs = open(sys.argv[1] + "3/swaps").readline().split()[0]
                z.close()
                os.write(w, theirs.encode() + b"|" + "|".join(holds).encode())
            finally:
                os._exit(0)
        os.close(w)
        os.waitpid(pid, 0)
        print(os.read(r, 65536).decode())
        print(open(sys.argv[1] + "/swaps").readline().split()[0], mount.mounted, os.path.exists(sys.argv[2]))
        z.close()
    """
    done = run(code, [str(private / "m"), str(private / "s")]).check()
    said, after = done.stdout.splitlines()
    assert said.startswith("Filename|")
    assert "/dev/fuse" not in said
    assert after == "Filename True True"


def test_made_and_used_inside_an_event_loop(private: Path) -> None:
    code = """
        import asyncio, sys, uzswap
        from uzswap.client.client import Client
        async def main():
            with uzswap.Zswap(swap_size="16M") as z, z.mount(sys.argv[1]) as mount, z.serve(sys.argv[2]) as server:
                def read():
                    with Client(server.path) as client:
                        return client.read("/swaps") == (mount.path / "swaps").read_text()
                print(await asyncio.to_thread(read))
        asyncio.run(main())
    """
    assert run(code, [str(private / "m"), str(private / "s")]).check().stdout == "True\n"


# Where it cannot be


def test_places_that_cannot_be_mounted_on(z: Zswap, private: Path) -> None:
    (private / "file").touch()
    (private / "full").mkdir()
    (private / "full/x").touch()
    for name, code in (("file", errno.ENOTDIR), ("full", errno.ENOTEMPTY), ("no/where", errno.ENOENT)):
        with pytest.raises(OSError, match=rf"\[Errno {code}\]"):
            z.mount(private / name)
    assert (private / "full/x").exists()
    (private / "empty").mkdir()
    z.mount(private / "empty").close()
    assert (private / "empty").is_dir()  # what was there before stays


def test_mount_types_are_read_without_touching_the_mount(private: Path) -> None:
    assert mounted_type("/proc") == "proc"
    assert mounted_type(private) is None
    assert not is_stale(private)
    assert not is_stale(private / "nothing")


def test_a_directory_tells_at_once_what_was_made_and_removed_by_other_ways(z: Zswap, g: MemCgroup, m: Path) -> None:
    directory = m / "cgroup" / "g"
    for _ in range(20):
        links = directory.stat().st_nlink
        child = z.cgroup("/g/child")
        assert directory.stat().st_nlink == links + 1
        child.remove()
        assert directory.stat().st_nlink == links
        assert not (directory / "child").exists()


def test_the_threads_of_a_mount_leave_no_states(private: Path) -> None:
    code = """
        import ctypes, sys, threading, uzswap
        api = ctypes.pythonapi
        for function in (api.PyInterpreterState_Get, api.PyInterpreterState_ThreadHead, api.PyThreadState_Next):
            function.restype = ctypes.c_void_p

        def nr_states():
            state, n = api.PyInterpreterState_ThreadHead(ctypes.c_void_p(api.PyInterpreterState_Get())), 0
            while state:
                state, n = api.PyThreadState_Next(ctypes.c_void_p(state)), n + 1
            return n

        def read():
            for _ in range(20):
                open(sys.argv[1] + "/vmstat").read()

        with uzswap.Zswap(swap=None) as z:
            before = nr_states()
            for _ in range(3):
                with z.mount(sys.argv[1]):
                    readers = [threading.Thread(target=read) for _ in range(30)]
                    for reader in readers:
                        reader.start()
                    for reader in readers:
                        reader.join()
                    kept = nr_states() - before
                print(kept > 1, nr_states() - before)
    """
    done = run(code, [str(private / "m")]).check()
    assert done.stdout == "True 0\n" * 3
    assert not done.stderr
