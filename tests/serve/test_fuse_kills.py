"""A process that uses its own mount is killed: it is gone at once, and so is its hold on everything.

Whatever it was doing: a request of its own that nobody answers any more must not keep it, and with it /dev/fuse.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.conftest import EngineFactory
from tests.serve.conftest import needs_fuse
from tests.support.child import run
from tests.support.mounts import mount_points

from uzswap.client.mounts import _attach_by_helper

pytestmark = needs_fuse

KILLS = 6

#: What a process does with its mount ``m`` until it is killed; ``did()`` after each time.
WAYS = {
    "reads": """
        def work():
            while True:
                open(m + "/vmstat").read()
                did()
    """,
    "keeps files open": """
        files = [open(m + "/cgroup/a/" + name) for name in os.listdir(m + "/cgroup/a") if name != "memory.reclaim"]
        def work():
            while True:
                for file in files:
                    os.pread(file.fileno(), 1 << 20, 0)
                did()
    """,
    "is in it": """
        os.chdir(m + "/cgroup")
        def work():
            while True:
                os.listdir(".")
                did()
    """,
    "writes": """
        def work():
            while True:
                with open(m + "/cgroup/a/memory.max", "w") as file:
                    file.write("1G")
                did()
    """,
    "makes cgroups": """
        def work():
            name = m + f"/cgroup/{threading.get_ident()}"
            while True:
                os.mkdir(name)
                os.rmdir(name)
                did()
    """,
    "polls": """
        def work():
            with open(m + "/cgroup/a/memory.events") as file:
                polled = select.poll()
                polled.register(file, select.POLLPRI)
                while True:
                    g.count_event("high")
                    polled.poll()
                    file.seek(0)
                    file.read()
                    did()
    """,
    "serves its own socket": """
        s = z.serve(f"{m}-{os.getpid()}")
        def work():
            with uzswap.client.client.Client(s.path) as client:
                while True:
                    client.read("/vmstat")
                    client.list("/")
                    did()
    """,
    "has a forked child": """
        if os.fork() == 0:
            try:
                while True:
                    open(m + "/vmstat").read()
            except OSError:
                os._exit(0)
        def work():
            while True:
                open(m + "/vmstat").read()
                did()
    """,
    "started a program": """
        program = "while cat $0/vmstat; do :; done"
        subprocess.Popen(["sh", "-c", program, m], pass_fds=[w], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        def work():
            while True:
                open(m + "/vmstat").read()
                did()
    """,
}

#: Forks processes that work so, and kills each of them after so many times.
NURSERY = """
    import ctypes, os, select, signal, subprocess, sys, textwrap, threading, warnings
    import uzswap, uzswap.client.client, uzswap.serve.fuse, uzswap.serve.server
    warnings.simplefilter("ignore", DeprecationWarning)  # of fork
    m, swap, work, *times = sys.argv[1:]
    PATIENCE = 100

    def live(w):
        z = uzswap.Zswap(swap=swap, swap_size="64M")
        g = z.cgroup("/a")
        z.mount(m)
        space = {**globals(), "z": z, "g": g, "w": w, "did": lambda: os.write(w, b".")}
        exec(textwrap.dedent(work), space)
        for _ in range(3):
            threading.Thread(target=space["work"], daemon=True).start()
        signal.pause()

    def ended(r):
        "Everybody who had the pipe is gone; else the mount is cut off by force."
        while select.select([r], [], [], PATIENCE)[0]:
            if not os.read(r, 65536):
                return True
        ctypes.CDLL(None).umount2(m.encode(), 1)
        return False

    for n in map(int, times):
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(r)
                live(w)
            except BaseException as error:
                sys.excepthook(*sys.exc_info())
            os._exit(9)
        os.close(w)
        while n > 0 and (data := os.read(r, n)):
            n -= len(data)
        os.kill(pid, signal.SIGKILL)
        well = ended(r)
        os.waitpid(pid, 0)
        uzswap.client.mounts.take_away(m)
        uzswap.Zswap(swap=swap, swap_size="64M").close()  # nobody has it locked
        print(n, well)
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_killed_process_is_gone(private: Path, tmp_path: Path, way: str) -> None:
    (private / "m").mkdir()
    times = [str(random.Random(way).randint(1, 200)) for _ in range(KILLS)]
    done = run(NURSERY, [str(private / "m"), str(tmp_path / "swap"), WAYS[way], *times]).check()
    assert done.stdout == "0 True\n" * KILLS, done.stderr
    assert not done.stderr


def test_no_descriptor_of_the_program_is_dev_fuse(engine: EngineFactory, private: Path) -> None:
    """So no child, and no thread that hangs, can hold it."""
    with engine().mount(private / "m"):
        fds = [fd for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
        assert not [fd for fd in fds if fd.readlink() == Path("/dev/fuse")]


def test_a_program_may_close_all_its_descriptors(private: Path) -> None:
    """The mount is gone with its socket, and nothing hangs."""
    code = """
        import os, sys, uzswap
        z = uzswap.Zswap(swap=None)
        mount = z.mount(sys.argv[1])
        os.closerange(3, 1 << 16)
        try:
            open(sys.argv[1] + "/vmstat")
        except OSError as error:
            print(error.strerror)
        mount.close()
        z.close()
    """
    done = run(code, [str(private / "m")]).check()
    assert "Transport endpoint is not connected" in done.stdout or "connection abort" in done.stdout, done
    assert str(private / "m") not in mount_points()


def test_closed_while_no_descriptor_is_free(private: Path) -> None:
    code = """
        import contextlib, os, sys, uzswap
        z = uzswap.Zswap(swap=None)
        mount = z.mount(sys.argv[1])
        taken = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        mount.close()
        for fd in taken:
            os.close(fd)
        z.close()
    """
    run(code, [str(private / "m")]).check()
    assert str(private / "m") not in mount_points()


@pytest.mark.parametrize("privileged", [True, False], ids=["by itself", "by fusermount3"])
def test_mounted_with_and_without_the_privilege(private: Path, privileged: bool) -> None:
    code = """
        import ctypes, os, sys, uzswap
        if sys.argv[2] == "False":
            # Effective capabilities alone: fusermount3 has its own.  linux/capability.h
            version3, sys_admin = 0x20080522, 21
            header, data = (ctypes.c_uint32 * 2)(version3, 0), (ctypes.c_uint32 * 6)()
            libc = ctypes.CDLL(None, use_errno=True)
            assert not libc.capget(header, data)
            data[0] &= ~(1 << sys_admin)
            assert not libc.capset(header, data), os.strerror(ctypes.get_errno())
        with uzswap.Zswap(swap=None) as z:
            for _ in range(3):
                with z.mount(sys.argv[1]) as mount:
                    print(os.statvfs(mount.path).f_bsize, open(mount.path / "swaps").readline().split()[0])
                print(os.path.exists(sys.argv[1]))
    """
    done = run(code, [str(private / "m"), str(privileged)]).check()
    assert done.stdout == "4096 Filename\nFalse\n" * 3
    assert not done.stderr


def test_mounted_by_fusermount3_with_a_reason_when_it_refuses(private: Path) -> None:
    with pytest.raises(OSError, match=r"\[Errno 1\] this cannot be mounted: fusermount3: .*No such file") as refused:
        _attach_by_helper(private / "not there", allow_other=False)
    assert refused.value.filename == str(private / "not there")
