"""Mount points, as the kernel tells them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from uzswap.mountinfo import mount_points


def test_the_root_and_proc_are_mounted() -> None:
    types = {point.path: point.type for point in mount_points()}
    assert types["/proc"] == "proc"
    assert "/" in types


def test_it_is_what_findmnt_reads() -> None:
    try:
        told = subprocess.run(["findmnt", "-rno", "TARGET,FSTYPE"], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("findmnt is wanted: apt install util-linux")
    assert sorted(point.type for point in mount_points()) == sorted(line.split(" ")[1] for line in told.splitlines())


def test_a_path_with_blanks_is_as_it_is(tmp_path: Path) -> None:
    """In a mount namespace of its own; skips where there can be none."""
    where = tmp_path / "a b\tc\\d\n"
    where.mkdir()
    program = (
        "import sys; from uzswap.mountinfo import mount_points as all; print(any(sys.argv[1] in one for one in all()))"
    )
    script = 'mount -t tmpfs none "$1" && exec "$2" -c "$3" "$1"'
    python = sys.executable
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, "sh", str(where), python, program], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"mounts need CAP_SYS_ADMIN, here or in a user namespace: {done.stderr.strip()}")
    assert done.stdout == "True\n"
