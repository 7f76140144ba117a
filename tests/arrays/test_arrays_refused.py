"""Where userfaultfd is refused: one clear error, and everything else works."""

import errno

import pytest
from tests.support.child import run
from tests.support.seccomp import can_refuse

CODE = """
    import sys
    from tests.support.seccomp import refuse_userfaultfd
    refuse_userfaultfd(int(sys.argv[1]))
    import numpy as np
    import uzswap
    with uzswap.Zswap(swap_size="64M") as z:
        group = z.cgroup("/a")
        for make in (
            lambda: uzswap.zeros(10, cgroup=group),
            lambda: uzswap.array([1], cgroup=group),
            lambda: uzswap.managed(group).start(),
        ):
            try:
                make()
            except OSError as error:
                print(error.errno, error.strerror)
        assert not group.populated()
        assert np.arange(1 << 20).sum() > 0
        with uzswap.Store(group) as store:
            store["a"] = b"b" * 100_000
            group.reclaim("64K")
            assert store["a"] == b"b" * 100_000
        assert "high 0" in group.read("memory.events")
        z.check()
    from click.testing import CliRunner
    from uzswap.cli.doctor import doctor
    print(CliRunner().invoke(doctor).output)
"""


@pytest.mark.skipif(
    not can_refuse(), reason="needs the numbers of this machine's system calls: tests/support/seccomp.py"
)
@pytest.mark.parametrize(
    ("number", "why", "remedy"),
    [
        (errno.EPERM, "forbid userfaultfd", "sudo sysctl vm.unprivileged_userfaultfd=1"),
        (errno.ENOSYS, "the kernel has no userfaultfd, or a seccomp filter hides it", "seccomp=unconfined"),
        (errno.ENOMEM, "userfaultfd failed: Cannot allocate memory", "uzswap doctor"),
    ],
)
def test_one_clear_error_and_everything_else_works(number: int, why: str, remedy: str) -> None:
    *lines, doctor = run(CODE, [str(number)]).check().stdout.split("\n", 3)
    assert len(lines) == 3
    for line in lines:
        assert line.startswith(f"{number} no paged arrays here: ")
        assert why in line
        assert remedy in line
        assert "uzswap.Store and Zswap.swap_out() work without it" in line
    assert "userfaultfd" in doctor
    assert "missing" in doctor
    assert "no paged arrays here" in doctor
