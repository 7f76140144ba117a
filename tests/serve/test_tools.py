"""Tools of other people, unmodified, on the mount."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cgroupspy.trees import Tree
from tests.conftest import EngineFactory
from tests.serve.conftest import needs_fuse
from tests.support.states import fill, reclaim

from uzswap import MemCgroup, Store, Zswap
from uzswap.cgroup.surroundings import Reclaimed

pytestmark = needs_fuse

PATIENCE = 240.0


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


@pytest.fixture
def m(z: Zswap, private: Path) -> Iterator[Path]:
    with z.mount(private / "m") as mount:
        yield mount.path


def test_cgroupspy_walks_makes_and_removes(z: Zswap, m: Path) -> None:
    """A cgroup library from PyPI."""
    z.cgroup("/jobs/a")
    tree = Tree(root_path=str(m))
    assert b"/cgroup/jobs/a" in [node.path for node in tree.walk()]
    jobs = tree.get_node_by_path("/cgroup/jobs")
    jobs.create_cgroup("b")
    assert list(z.tree.lookup("/jobs").children) == ["a", "b"]
    jobs.delete_cgroup("a")
    assert list(z.tree.lookup("/jobs").children) == ["b"]


def test_psutil_reads_swap_and_memory(z: Zswap, m: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What most exporters and monitors of the Python world stand on."""
    g = z.cgroup("/g")
    handles = fill(z, g, 600, 4000, referenced=False)
    assert reclaim(g, "1G").wrote == 2_400_000
    z.fault_in_many(handles[:5])
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(m))
    swap = psutil.swap_memory()
    assert (swap.total, swap.sin, swap.sout) == (64 << 20, 5 * 4096, 600 * 4096)
    assert 595 * 4000 < swap.used < 600 * 4096  # a load frees the copy on the device
    assert psutil.virtual_memory().total > 0


def in_a_namespace(script: str, *arguments: str | Path) -> list[str]:
    """The command line of a shell with a mount namespace of its own; skips the test where that cannot be had."""
    for tool in ("unshare", "swapon", "free"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed: apt install util-linux procps")
    command = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a mount namespace needs root: run the tests as root")
    return [*command, "sh", "-c", script, "sh", *map(str, arguments)]


def test_free_and_swapon_as_lxcfs_does_it(z: Zswap, m: Path) -> None:
    """With the engine's files over those of /proc, any tool sees the engine as the machine's swap."""
    script = """
        mount --bind "$1/swaps" /proc/swaps && mount --bind "$1/meminfo" /proc/meminfo
        free --kibi
        swapon --show=TYPE,SIZE --noheadings --bytes
    """
    done = subprocess.run(in_a_namespace(script, m), capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[2].split()[:3] == ["Swap:", str(64 << 10), "0"]
    assert lines[3].split() == ["file", str(64 << 20)]


@contextlib.contextmanager
def cgroup2_directory() -> Iterator[Path]:
    """A fresh directory in a real cgroup2 file system."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            made = Path(where) / f"uzswap-test-{os.getpid()}"
            try:
                made.mkdir()
            except OSError as error:
                pytest.skip(f"{where} cannot have another cgroup ({error}): run the tests as root")
            try:
                yield made
            finally:
                made.rmdir()
            return
    pytest.skip("there is no cgroup2 mount: mount -t cgroup2 none /mnt")


class Told(Store[int, bytes]):
    """Tells when it was asked for memory."""

    def __init__(self, cgroup: MemCgroup) -> None:
        super().__init__(cgroup)
        self.asked = threading.Semaphore(0)

    def reclaim(self, nbytes: int) -> Reclaimed:
        freed = super().reclaim(nbytes)
        self.asked.release()
        return freed


def test_senpai_reclaims(z: Zswap, m: Path, tmp_path: Path) -> None:
    """oomd's Senpai, Meta's proactive reclaimer: it lowers memory.high bit by bit while memory.pressure stays low.

    oomd takes nothing but a cgroup2 file system, so a cgroup of the mount is bound into one, as a child of its root.
    And it looks into /proc/swaps whether anonymous memory can go anywhere: it is shown the engine's.
    """
    if not shutil.which("oomd"):
        pytest.skip("oomd is not installed: apt install oomd")
    senpai = {
        "name": "senpai",
        "args": {"cgroup": "", "limit_min_bytes": "0", "interval": "1", "coeff_probe": "10", "max_probe": "0.2"},
    }
    with cgroup2_directory() as real, Told(z.cgroup("/top/job")) as store:
        senpai["args"]["cgroup"] = f"{real.name}/job"  # type: ignore[index]
        ruleset = {
            "name": "senpai",
            "detectors": [["always", {"name": "continue", "args": {}}]],
            "actions": [senpai],
        }
        (tmp_path / "oomd.json").write_text(json.dumps({"rulesets": [ruleset]}))
        for number in range(2000):
            store[number] = (b"value %d " % number) * 400
        group = z.cgroup("/top/job")
        before = int(group.read("memory.current"))
        script = """
            mount --bind "$1/cgroup/top" "$2" && mount --bind "$1/swaps" /proc/swaps
            cd "$3"
            exec oomd --config oomd.json --interval 1 --cgroup-fs "${2%/*}" --runtime-dir . --kmsg-override kmsg
        """
        with (tmp_path / "log").open("w") as log:
            oomd = subprocess.Popen(in_a_namespace(script, m, real, tmp_path), stdout=log, stderr=log)
            try:
                for _ in range(3):
                    assert store.asked.acquire(timeout=PATIENCE), (tmp_path / "log").read_text()
            finally:
                oomd.terminate()
                oomd.wait()
        assert "Resetting" not in (tmp_path / "log").read_text()
        z.flush_work()
        assert int(group.read("memory.high")) < before
        assert int(group.read("memory.zswap.current")) > 0
        assert int(group.read("memory.current")) < before
        group.write("memory.high", "max")
        assert all(store[number] == (b"value %d " % number) * 400 for number in range(2000))
