"""A wheel, installed where there is neither a compiler nor a header, works with the libraries that it has inside.

``make wheel-test`` builds the wheel and names it in ``UZSWAP_WHEEL``; without that the tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WHEEL = os.environ.get("UZSWAP_WHEEL", "")

pytestmark = pytest.mark.skipif(not WHEEL, reason="no wheel was built: make wheel-test")

#: What users do first: objects in the pool and on the disk, with every compressor, and an array where there may be one.
PROGRAM = """
import errno, sys
from pathlib import Path
import numpy as np
import uzswap


def lines(day):
    return [f"{day}: line {i}" for i in range(500)]


assert Path(uzswap.__file__).is_relative_to(sys.prefix), uzswap.__file__
z = uzswap.Zswap(swap_size="64M")
for compressor in "lz4", "zstd:9":
    z.parameters.set("compressor", compressor)
    job = z.cgroup(f"/{compressor[:3]}")
    with uzswap.Store(job) as store:
        for day in range(50):
            store[day] = lines(day)
        job.reclaim("200K")
        assert store.where(0) == "zswap", store.where(0)
        assert job.reclaim("2K", source="zswap").written >= 2 << 10
        assert store.where(0) == "disk", store.where(0)
        assert all(store[day] == lines(day) for day in range(50))
try:
    x = uzswap.array(np.arange(1 << 20), cgroup=job)
except OSError as error:
    assert error.errno in (errno.EPERM, errno.ENOSYS), error
else:
    uzswap.advise(x, "pageout")
    assert (x == np.arange(1 << 20)).all()
    del x
z.check()
z.close()
print(np.__version__)
for line in Path("/proc/self/maps").read_text().splitlines():
    path = line.split(maxsplit=5)[5:]
    if path and Path(path[0]).name.startswith(("liblz4", "libzstd", "libxxhash")):
        print(path[0])
"""


class Environment:
    """A new virtual environment; what runs in it finds nothing in PATH but its own programs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        subprocess.run([sys.executable, "-m", "venv", path], check=True, timeout=120)

    def run(self, *command: str) -> str:
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "UZSWAP"))}
        bin_ = self.path / "bin"
        done = subprocess.run(
            [bin_ / command[0], *command[1:]],
            env={**bare, "PATH": str(bin_), "CC": "/nonexistent"},
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{command} exited with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def install(self, *what: str) -> None:
        """Install wheels, and nothing that would have to be built."""
        self.run("python", "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *what)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("wheel") / "venv")
    made.install(str(Path(WHEEL).resolve()))
    return made


def libraries_inside(said: str) -> set[str]:
    """Names of the libraries that the program has mapped, after the version of numpy; all are of the wheel."""
    paths = [Path(line) for line in said.splitlines()[1:]]
    assert {path.parent.name for path in paths} == {"uzswap.libs"}
    return {path.name.split("-")[0] for path in paths}


def test_objects_and_arrays_survive_a_round_trip_through_the_libraries_inside(environment: Environment) -> None:
    said = environment.run("python", "-I", "-c", PROGRAM)
    assert said.startswith("2.")
    assert libraries_inside(said) == {"liblz4", "libzstd", "libxxhash"}


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="numpy 1.26 has no wheel for Python 3.13 and later")
def test_it_works_with_the_oldest_numpy_although_it_was_built_with_a_newer(environment: Environment) -> None:
    old = str(environment.path / "old")
    environment.install("--target", old, "numpy==1.26.*")
    said = environment.run("python", "-I", "-c", f"import sys; sys.path.insert(0, {old!r})\n{PROGRAM}")
    assert said.startswith("1.26.")
    assert libraries_inside(said) == {"liblz4", "libzstd", "libxxhash"}


def test_the_doctor_misses_nothing(environment: Environment) -> None:
    assert "compiled core" in environment.run("uzswap", "doctor")


def test_the_doctor_knows_the_libraries_inside(environment: Environment) -> None:
    said = " ".join(environment.run("uzswap", "doctor").split())
    assert said.count("inside the wheel") == 2


def test_the_licences_of_what_is_inside_come_with_it(environment: Environment) -> None:
    (licence,) = environment.path.rglob("uzswap-*.dist-info/licenses/LICENSE.libraries")
    assert all(name in licence.read_text() for name in ("liblz4", "libzstd", "libxxhash"))
