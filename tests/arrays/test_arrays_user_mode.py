"""User mode only: what an unprivileged user gets where nobody turned vm.unprivileged_userfaultfd on."""

import signal
from pathlib import Path

import pytest
from tests.support.child import run_as_nobody
from tests.support.seccomp import can_refuse

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
    if mode != "trapped":
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


def test_vectors_need_resident_pages_where_nothing_is_preloaded() -> None:
    as_nobody("""
    path = tempfile.mkstemp()[1]
    part = x[: 1 << 16]
    uzswap.advise(part, "pageout")
    with open(path, "r+b", buffering=0) as file:
        try:
            os.writev(file.fileno(), [part])
        except OSError as error:
            assert error.errno == errno.EFAULT
        else:
            assert os.path.getsize(path) < part.nbytes  # some of it was not there
        file.truncate(0)
        with uzswap.resident(part):
            assert os.pwritev(file.fileno(), [part], 0) == part.nbytes
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
    assert "system calls into arrays are trapped" in " ".join(said.split())
    assert "sudo sysctl vm.unprivileged_userfaultfd=1" in said


def test_sigsys_of_others_is_what_it_was() -> None:
    """It comes to the handler that was there; nobody can put another in its place, as with SIGKILL."""
    run_as_nobody("""
    import errno, os, signal, tempfile
    import numpy as np
    import uzswap
    came = []
    assert signal.signal(signal.SIGSYS, lambda number, frame: came.append(number)) is signal.SIG_DFL
    with uzswap.Zswap(swap_size="16M") as z:
        x = uzswap.ones(1 << 20, cgroup=z.root)
        if uzswap.info(x).mode == "trapped":
            for action in (signal.SIG_DFL, signal.SIG_IGN, print):
                try:
                    signal.signal(signal.SIGSYS, action)
                except OSError as error:
                    assert error.errno == errno.EINVAL
                else:
                    raise AssertionError("another handler")
        signal.raise_signal(signal.SIGSYS)
        assert came == [signal.SIGSYS]
        child = os.posix_spawn("/bin/true", ["true"], {}, setsigdef=signal.valid_signals())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        uzswap.advise(x, "pageout")
        with tempfile.TemporaryFile(buffering=0) as file:
            assert file.write(x.data) == x.nbytes
        del x
    """).check()


def test_sigsys_of_others_is_the_end_where_it_was() -> None:
    done = run_as_nobody("""
    import signal
    import uzswap
    z = uzswap.Zswap(swap_size="16M")
    x = uzswap.ones(1 << 20, cgroup=z.root)
    signal.raise_signal(signal.SIGSYS)
    """)
    assert done.signal == signal.SIGSYS


def test_without_filters_nothing_is_managed() -> None:
    """Arrays that were asked for work as far as they can; code that knows nothing of them is not given any."""
    if not can_refuse():
        pytest.skip("the system call numbers of this machine are not known to the test")
    done = run_as_nobody("""
    import errno, tempfile
    import numpy as np
    import uzswap
    from tests.support.seccomp import refuse
    refuse("seccomp", errno.EPERM)
    with uzswap.Zswap(swap_size="16M") as z:
        x = uzswap.ones(1 << 20, cgroup=z.root)
        print(uzswap.info(x).mode)
        uzswap.advise(x, "pageout")
        with tempfile.TemporaryFile(buffering=0) as file:
            if uzswap.info(x).mode == "user-mode-only":
                try:
                    file.write(x.data)
                except OSError as error:
                    assert error.errno == errno.EFAULT
                else:
                    assert file.tell() < x.nbytes
                file.seek(0)
            with uzswap.resident(x):
                assert file.write(x.data) == x.nbytes
        try:
            uzswap.managed(z.root).start()
        except OSError as error:
            assert error.errno == errno.EOPNOTSUPP
            assert "seccomp: Operation not permitted" in error.strerror
        else:
            raise AssertionError("managed")
        del x
    """)
    if done.stdout == "full\n":
        pytest.skip("nobody gets all faults here: sudo sysctl vm.unprivileged_userfaultfd=0")
    done.check()
