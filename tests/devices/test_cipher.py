"""Encryption of the swap device: when there is one, where its key is, and what is left of both."""

import contextlib
import os
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import EngineFactory
from tests.support.child import Child, run, run_as_nobody

from uzswap import Zswap

SIZE = "16M"


def is_encrypted(z: Zswap) -> bool:
    info = z.core.device()
    assert info is not None
    return info.encrypted


@pytest.fixture
def without_libcrypto(tmp_path: Path) -> dict[str, str]:
    """The environment of a child that finds files by that name, and no library in them."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for version in ("3", "1.1"):
        (broken / f"libcrypto.so.{version}").write_bytes(b"no library")
    return {"LD_LIBRARY_PATH": str(broken), "TMPDIR": str(tmp_path)}


# When


def test_a_named_file_is_encrypted_unless_told_otherwise(engine: EngineFactory, tmp_path: Path) -> None:
    for encrypt, expected in ((None, True), (True, True), (False, False)):
        z = engine(swap=tmp_path / f"swap-{encrypt}", swap_size=SIZE, encrypt=encrypt)
        assert is_encrypted(z) == expected


def test_a_file_without_a_name_is_encrypted_if_asked_for(engine: EngineFactory) -> None:
    for encrypt, expected in ((None, False), (True, True), (False, False)):
        assert is_encrypted(engine(swap="auto", swap_size=SIZE, encrypt=encrypt)) == expected


def test_without_a_device_there_is_nothing_to_encrypt(engine: EngineFactory) -> None:
    engine(swap=None, encrypt=True)


@pytest.mark.parametrize("encrypt", [1, "yes"])
def test_what_is_no_answer(encrypt: object) -> None:
    with pytest.raises(TypeError, match="encrypt is True, False or None"):
        Zswap(swap_size=SIZE, encrypt=encrypt)  # type: ignore[arg-type]


def test_without_libcrypto(tmp_path: Path, without_libcrypto: dict[str, str]) -> None:
    """What must be encrypted is an error that says what to do, and makes no file; all else goes on."""
    code = """
        import errno, os, sys, uzswap
        named = os.path.join(os.environ["TMPDIR"], "swap")
        for swap, encrypt in ((named, None), (named, True), ("auto", True)):
            try:
                uzswap.Zswap(swap, "16M", encrypt=encrypt)
            except OSError as error:
                assert error.errno == errno.EOPNOTSUPP, error
                assert "libssl3" in error.strerror and "encrypt=False" in error.strerror, error
            else:
                raise AssertionError((swap, encrypt))
        assert not os.path.exists(named)
        for swap, encrypt in ((named, False), ("auto", None), ("auto", False)):
            with uzswap.Zswap(swap, "16M", encrypt=encrypt) as z:
                assert not z.core.device().encrypted
                g = z.cgroup("/g")
                handle = z.swap_out(b"some text " * 400, g)
                g.reclaim("1", source="zswap")
                assert z.where(handle) == "disk"
                assert z.fault_in(handle) == b"some text " * 400
        """
    run(code, env=without_libcrypto).check()


def test_a_key_that_cannot_be_locked(tmp_path: Path) -> None:
    """It could be swapped out: what must be encrypted is refused."""
    code = """
        import errno, resource, uzswap
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        try:
            uzswap.Zswap(swap_size="16M", encrypt=True)
        except PermissionError as error:
            assert error.errno == errno.EPERM and "RLIMIT_MEMLOCK" in error.strerror, error
        else:
            raise AssertionError("nothing was said")
        with uzswap.Zswap(swap_size="16M") as z:
            assert not z.core.device().encrypted
        """
    run_as_nobody(code).check()


def test_a_child_of_an_engine_that_does_not_encrypt_does_not(tmp_path: Path) -> None:
    code = """
        import os, sys, uzswap
        encrypt = sys.argv[1] == "True"
        z = uzswap.Zswap(swap_size="16M", encrypt=encrypt)
        if os.fork() == 0:
            g = z.cgroup("/g")
            handle = z.swap_out(b"some text " * 400, g)
            g.reclaim("1", source="zswap")
            assert z.where(handle) == "disk" and z.core.device().encrypted == encrypt
            os._exit(0)
        assert os.wait()[1] == 0
        z.close()
        """
    for encrypt in ("True", "False"):
        run(code, args=[encrypt], env={"TMPDIR": str(tmp_path)}).check()


# What is left

#: A process that stores something secret, has it all on the device argv[1], says so and waits.
WRITES = """
    import contextlib, os, sys, uzswap
    z = uzswap.Zswap(sys.argv[1], "16M", encrypt=True)
    g = z.cgroup("/g")
    data = [os.urandom(2000) + b"TOP-SECRET-PASSWORD" + bytes(2000) for i in range(500)]
    handles = [z.swap_out(text, g) for text in data]
    for _ in range(2):  # the first may only take the second chance
        with contextlib.suppress(BlockingIOError):
            g.reclaim("8M", source="zswap")
    assert all(z.where(handle) == "disk" for handle in handles)
    print(z.core.device().live_bytes)
    input()
    """


def test_a_killed_process_leaves_noise(tmp_path: Path) -> None:
    path = tmp_path / "swap"
    with Child(WRITES, args=[str(path)]) as child:
        nbytes = int(child.read_line())
        child.kill()
    first_page, content = path.read_bytes()[:4096], path.read_bytes()[4096 : 4096 + nbytes]
    assert first_page.startswith(b"uzswap swap device, contents void\n")
    assert b"SECRET" not in path.read_bytes()
    # No key, no structure: a few flights end with padding.
    assert len(zlib.compress(content)) > 0.99 * len(content)
    with Zswap(path, SIZE) as z:  # taken again
        assert is_encrypted(z)
    assert path.stat().st_size == 0


def test_the_file_without_a_name_is_noise_while_it_is_in_use(tmp_path: Path) -> None:
    with Child(WRITES, args=["auto"], env={"TMPDIR": str(tmp_path)}) as child:
        nbytes = int(child.read_line())
        found = []
        for descriptor in Path(f"/proc/{child.pid}/fd").iterdir():
            if str(tmp_path) in os.readlink(descriptor):
                found.append(descriptor.read_bytes()[:nbytes])
        assert found
        for content in found:
            assert b"SECRET" not in content
            assert len(zlib.compress(content)) > 0.99 * len(content)
        child.kill()


# Forks


def test_a_child_reads_what_its_parent_wrote_and_writes_with_a_key_of_its_own(tmp_path: Path) -> None:
    """Both write the same pages to the same places of their files: of noise one byte in 256 is the same."""
    code = r"""
        import contextlib, os, pathlib, sys
        import numpy as np, uzswap

        def store(seed):
            pages = [bytes([seed]) + page for page in common]
            handles = [z.swap_out(page, g) for page in pages]
            for _ in range(2):
                with contextlib.suppress(BlockingIOError):
                    g.reclaim("8M", source="zswap")
            assert all(z.where(handle) == "disk" for handle in handles)
            return dict(zip(handles, pages))

        def files():
            found = {}
            for path in pathlib.Path("/proc/self/task").glob("*/fd/*"):
                with contextlib.suppress(OSError):
                    if os.readlink(path).startswith(sys.argv[1]):
                        found[path.stat().st_ino] = np.frombuffer(path.read_bytes()[:400_000], np.uint8)
            return found

        z = uzswap.Zswap(swap_size="16M", encrypt=True)
        g = z.cgroup("/g")
        common = [os.urandom(4095) for _ in range(100)]
        known = store(1)
        for generation in range(3):
            child = os.fork()
            if child:
                break
            known |= store(1)
        if generation == 2 and not child:
            contents = list(files().values())
            assert len(contents) == 4, len(contents)  # its own, and those of all above it
            for i, one in enumerate(contents):
                for other in contents[:i]:
                    assert (one == other).mean() < 0.01
        elif child:
            known |= store(1)
            assert os.waitpid(child, 0)[1] == 0
        for handle, page in known.items():
            assert z.fault_in(handle) == page
        z.check()
        os._exit(0)
        """
    run(code, args=[str(tmp_path)], env={"TMPDIR": str(tmp_path)}).check()


# Core dumps

CORE_DUMPED = r"""
    import contextlib, mmap, os, re, resource, sys, uzswap
    pattern = bytes(byte ^ 0xFF for byte in bytes.fromhex(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    os.chdir(sys.argv[2])
    z = uzswap.Zswap(swap_size="64M", max_pool="64M", encrypt=True)
    g = z.cgroup("/g")
    n = 1024
    with mmap.mmap(-1, n * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        for at in range(0, len(pages), 256):
            pages[at : at + 240] = os.urandom(240)
            for i, byte in enumerate(pattern):
                pages[at + i] = byte
        handles = z.swap_out_many(pages, g)
        try:
            x = uzswap.zeros(n * 4096, dtype="uint8", cgroup=g)
        except OSError:
            print("no arrays")
        else:
            x[:] = memoryview(pages)
            uzswap.advise(x[: n * 2048], "pageout")
    with contextlib.suppress(BlockingIOError):
        g.reclaim(n * 2000, source="zswap")
    with mmap.mmap(-1, n * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as out:
        z.fault_in_many(handles[::2].copy(), out)
    # The key: of what is locked, the one mapping that is in no dump.
    smaps = open("/proc/self/smaps").read()
    for part in re.split("(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", smaps)[1:]:
        flags = part.split("VmFlags:")[1].split()
        if "lo" in flags:
            assert "dd" in flags, part
            begin = int(part.partition("-")[0], 16)
            with open("/proc/self/mem", "rb", 0) as memory:
                memory.seek(begin)
                print("key", bytes(byte ^ 0xFF for byte in memory.read(32)).hex(), flush=True)
    os.abort()
    """


def pieces(path: Path) -> Iterator[bytes]:
    """What a sparse file has."""
    fd = os.open(path, os.O_RDONLY)
    at, size = 0, os.fstat(fd).st_size
    with contextlib.suppress(OSError):  # ENXIO: no more
        while at < size:
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, at, os.SEEK_HOLE)
            yield os.pread(fd, end - at, at)
            at = end
    os.close(fd)


def test_a_core_dump_has_neither_key_nor_contents(tmp_path: Path) -> None:
    if Path("/proc/sys/kernel/core_pattern").read_text().strip() != "core":
        pytest.skip("core dumps go elsewhere: sysctl kernel.core_pattern=core")
    pattern = b"PASSWORD-OF-MINE"
    inverted = bytes(byte ^ 0xFF for byte in pattern)
    done = run(CORE_DUMPED, args=[inverted.hex(), str(tmp_path)], env={"TMPDIR": str(tmp_path)})
    assert done.signal == signal.SIGABRT, done.said()
    keys = [
        bytes(byte ^ 0xFF for byte in bytes.fromhex(line[4:])) for line in done.stdout.splitlines() if "key" in line
    ]
    assert len(keys) == 1
    (core,) = tmp_path.glob("core*")
    content = b"".join(pieces(core))
    core.unlink()
    assert len(content) > 1 << 20
    assert content.count(keys[0][:16]) == 0  # the first round key is half of it
    assert content.count(keys[0][16:]) == 0
    assert content.count(pattern) <= 1  # what the child was looking at


def test_closing_wipes_the_key(tmp_path: Path) -> None:
    code = r"""
        import re, uzswap
        def locked():
            smaps = open("/proc/self/smaps").read()
            parts = re.split("(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", smaps)[1:]
            return [part for part in parts if "lo" in part.split("VmFlags:")[1].split()]
        assert locked() == []
        z = uzswap.Zswap(swap_size="16M", encrypt=True)
        assert len(locked()) == 1
        z.close()
        assert locked() == []
        """
    run(code, env={"TMPDIR": str(tmp_path)}).check()
