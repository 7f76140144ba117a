"""Garbage: 100,000 writes of random bytes, spread over every file, and trees that are too large."""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from tests.conftest import EngineFactory, Tally
from tests.serve.conftest import needs_fuse
from tests.serve.doors import Door, open_door
from tests.support.front_end import FrontEnd
from tests.support.soak import longer
from tests.support.states import fill

from uzswap import Zswap
from uzswap.files.cgroup import FILES
from uzswap.files.engine import ENGINE_FILES
from uzswap.files.file import MAX_WRITE

#: what the kernel's own files say to bad text, to requests that cannot be met, and to the wrong kind of access
ALLOWED = {
    errno.EACCES, errno.EAGAIN, errno.EBUSY, errno.E2BIG, errno.EINVAL, errno.ENOENT, errno.ERANGE,
}  # fmt: skip
WORDS = [
    b"max", b"source=zswap", b"swappiness=", b"min_age=", b"some", b"full", b"+memory", b"-memory", b"+io", b"lz4",
    b"zstd:3", b"fair", b"v5", b"Y", b"N", b"0", b"1", b"-1", b"4096", b"64M", b"0x10", b"18446744073709551616", b"1E",
    b"150000", b"2000000", b" ", b"\n", b"\t", b"\0", b"=", b"\xff", "é".encode(),
]  # fmt: skip


def garbage(source: random.Random) -> bytes:
    """Some of it random bytes, some nearly what a file takes."""
    kind = source.random()
    if kind < 0.4:
        return source.randbytes(source.randrange(33))
    if kind < 0.45:
        return source.randbytes(source.choice((MAX_WRITE - 1, MAX_WRITE, MAX_WRITE + 1, 3 * MAX_WRITE)))
    return source.choice((b"", b" ")).join(source.choices(WORDS, k=source.randrange(1, 6)))


def prepared(z: Zswap) -> tuple[list[str], FrontEnd]:
    """Something to reclaim and to limit, and the path of every file."""
    group = z.cgroup("/a/b")
    fill(z, group, 50, 1000)
    paths = [f"/{path}" for path in ENGINE_FILES]
    paths += [f"/cgroup/a{below}/{name}" for name in FILES for below in ("", "/b")]
    paths += [f"/cgroup/{name}" for name, row in FILES.items() if row.on_root]
    return paths, FrontEnd(group, 1 << 20)


def pour(door: Door, paths: list[str], writes: int, seed: int) -> Counter[int]:
    """Write garbage; how often each errno came, 0 for success."""
    source = random.Random(seed)
    outcomes: Counter[int] = Counter()
    for number in range(writes):
        data = garbage(source)
        path = paths[number % len(paths)]
        try:
            assert door.write(path, data) == len(data)
            outcomes[0] += 1
        except OSError as error:
            assert error.errno in ALLOWED, f"{data!r} to {path}: {error!r}"
            outcomes[error.errno] += 1
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "writes"),
    [
        ("python", longer(30_000, 1_000_000)),
        pytest.param("mount", longer(2000, 50_000), marks=needs_fuse),
        ("socket", longer(2000, 50_000)),
    ],
)
def test_many_thousand_writes(engine: EngineFactory, private: Path, kind: str, writes: int, tally: Tally) -> None:
    z = engine(swap_size="16M")
    paths, owner = prepared(z)
    with open_door(kind, z, private) as door:
        outcomes = pour(door, paths, writes, seed=writes)
        assert sum(outcomes.values()) == writes
        tally("hostile inputs", writes)
        assert {0, errno.EINVAL, errno.EACCES, errno.E2BIG} <= outcomes.keys()
        z.check()
        for path in paths:
            if not path.endswith("memory.reclaim"):
                door.read(path)
    owner.close()
    z.parameters.set("enabled", "Y")
    z.parameters.set("max_pool_percent", "20")
    z.root.write("memory.zswap.writeback", "1")
    data = os.urandom(2000) + bytes(2000)
    assert z.fault_in(z.swap_out(data, z.cgroup("/fresh"))) == data


@pytest.mark.parametrize("kind", ["python", pytest.param("mount", marks=needs_fuse), "socket"])
def test_random_paths(engine: EngineFactory, private: Path, kind: str) -> None:
    z = engine(swap_size="16M")
    z.cgroup("/a")
    source = random.Random(7)
    parts = ["a", "cgroup", "zswap", ".", "", "memory.max", "x" * 255, "x" * 300, "\n", "é", "%2e", "\udcff", "?", "#"]
    allowed = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EACCES, errno.EINVAL}
    with open_door(kind, z, private) as door:
        for _ in range(500):
            path = "/" + "/".join(source.choices(parts, k=source.randrange(1, 12)))
            try:
                door.read(path)
            except OSError as error:
                assert error.errno in allowed, f"{path!r}: {error!r}"
            else:
                assert path.rstrip("/").endswith("memory.max")
    z.check()


@pytest.mark.parametrize("kind", ["python", pytest.param("mount", marks=needs_fuse), "socket"])
def test_very_many_cgroups(engine: EngineFactory, private: Path, kind: str) -> None:
    """In one directory, and below each other until the path is as long as paths may be.

    The bound is the data plane's: 2**20 cgroups, then EAGAIN.  That many take 4 GB and two minutes, so they are not
    made here.
    """
    z = engine()
    for number in range(3000):
        z.tree.mkdir(z.root, f"c{number}")
    deepest = z.cgroup("/deep" + "/x" * 2000)
    fill(z, deepest, 3, 1000, referenced=False)
    with open_door(kind, z, private) as door:
        assert {f"c{number}" for number in range(3000)} <= set(door.names("/cgroup"))
        door.mkdir("/cgroup/one-more")
        assert door.read("/cgroup/cgroup.stat").startswith("nr_descendants 5002\n")
        # A path has less than 4096 bytes; with the mount's own in front of it that is reached earlier.
        depth = 300 if kind == "mount" else 1900  # the kernel asks for each name of a path, from the root on
        assert door.read("/cgroup/deep" + "/x" * depth + "/memory.zswap.current") == "3000\n"
        with pytest.raises(OSError, match=rf"\[Errno {errno.ENAMETOOLONG}\]"):
            door.read("/cgroup/deep" + "/x" * 2000 + "/memory.numa_stat" * 10)
        door.write("/cgroup/memory.reclaim", "1 source=zswap")
        assert "written 1000\n" in door.read("/cgroup/uzswap.last_reclaim")
