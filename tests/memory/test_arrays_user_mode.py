"""User mode only: what an unprivileged user gets where nobody turned vm.unprivileged_userfaultfd on."""

from pathlib import Path

import pytest
from tests.support.child import run_as_nobody

START = """
    import errno, os, socket, sys, tempfile
    import numpy as np
    import uzswap
    z = uzswap.Zswap(swap=tempfile.mkstemp()[1], swap_size="64M")
    group = z.cgroup("/a")
    group.write("memory.max", "2M")
    x = uzswap.array(np.arange(1 << 20), cgroup=group)
    mode = uzswap.info(x).mode
    print(mode, flush=True)
"""


def as_nobody(code: str) -> str:
    """Run `code` as nobody; skip where nobody gets more than user mode."""
    mode, _, rest = run_as_nobody(START + code).check().stdout.partition("\n")
    if mode != "user-mode-only":
        pytest.skip("nobody gets all faults here: sudo sysctl vm.unprivileged_userfaultfd=0")
    return rest


def test_arrays_are_the_same_to_code_in_user_mode() -> None:
    as_nobody("""
    assert (x == np.arange(1 << 20)).all()
    x.sort(kind="stable")
    y = uzswap.array(x[::-1], cgroup=group)
    np.multiply(x, 2, out=y)
    assert (y[::997] == 2 * x[::997]).all()
    assert int(group.read("memory.current")) < 3 << 20
    with uzswap.managed(group, "64K"):
        assert np.sort(np.sin(np.arange(1 << 19))).shape == (1 << 19,)
    del x, y
    z.check()
    z.close()
    """)


def test_system_calls_need_resident_pages() -> None:
    as_nobody("""
    path = tempfile.mkstemp()[1]
    part = x[: 1 << 16]
    uzswap.advise(part, "pageout")
    with open(path, "wb", buffering=0) as file:
        try:
            file.write(part)
        except OSError as error:
            assert error.errno == errno.EFAULT
        else:
            assert os.path.getsize(path) < part.nbytes  # some of it was not there
        file.seek(0)
        file.truncate()
        with uzswap.resident(part):
            assert file.write(part) == part.nbytes
    assert (np.fromfile(path, np.int64) == np.arange(1 << 16)).all()
    uzswap.advise(part, "pageout")
    with open(path, "rb", buffering=0) as file, uzswap.resident(part):
        assert file.readinto(part) == part.nbytes
    a, b = socket.socketpair()
    with a, b, uzswap.resident(part[:1000]):
        a.sendall(part[:1000])
        assert b.recv_into(part[:1000]) > 0
    assert (x == np.arange(1 << 20)).all()
    """)


def test_from_file_and_copies_work_as_ever() -> None:
    as_nobody("""
    path = tempfile.mkstemp()[1]
    np.arange(1 << 20).tofile(path)
    y = uzswap.from_file(path, np.int64, cgroup=group)
    assert (y == np.arange(1 << 20)).all()
    assert bytes(y[5:7]) == np.array([5, 6]).tobytes()
    """)


def test_the_doctor_says_so(tmp_path: Path) -> None:
    said = as_nobody("""
    from click.testing import CliRunner
    from uzswap.cli.doctor import doctor
    print(CliRunner().invoke(doctor).output)
    """)
    assert "user-mode faults only" in said
    assert "uzswap.resident(array)" in " ".join(said.split())
    assert "sudo sysctl vm.unprivileged_userfaultfd=1" in said
