"""Cases of SPEC 8 that several test modules run: in Python, through the mount, through the socket.

Each is a list for ``pytest.mark.parametrize``; the ids are SPEC's.
"""

import errno

import pytest

from .states import OK

EAGAIN, EINVAL, ERANGE = errno.EAGAIN, errno.EINVAL, errno.ERANGE
FRESH, UNREFERENCED = True, False

#: (text,): what memory.reclaim refuses with EINVAL
A_EINVAL = [
    pytest.param("\n", id="A2"),
    pytest.param("-1 source=zswap", id="A7"),
    pytest.param("1 source=zswap swappiness=10", id="A8"),
    pytest.param("1 swappiness=10 source=zswap", id="A8-reversed"),
    pytest.param("1 source=", id="A9"),
    pytest.param("1 source=zswapzswapzswapz", id="A11"),
    pytest.param("1 source=zswap\tx", id="A13"),
    pytest.param("source=zswap 1", id="A14"),
    pytest.param("0 swappiness=201", id="A16"),
    pytest.param("08", id="A19"),
    pytest.param(b"\xff\xfe", id="no-text"),
]
#: (text,): what it accepts, and does nothing for
A_ACCEPTED = [
    pytest.param("K source=zswap", id="A3"),
    pytest.param("0 source=zswap", id="A4"),
    pytest.param("010", id="A19"),
    pytest.param("010 swappiness=60", id="A19-key"),  # less than a page
    pytest.param(b"0 source=zswap\0 nonsense", id="NUL"),
]

#: (state as fill() takes it, budget, (errno, bytes written), entries left)
E_AMOUNTS = [
    pytest.param(None, 1, (EAGAIN, 0), 0, id="E1"),
    pytest.param((FRESH, 1, 2000), 1, (OK, 2000), 0, id="E2"),
    pytest.param((FRESH, 1, 2000), "1M", (EAGAIN, 2000), 0, id="E3"),
    pytest.param((UNREFERENCED, 1, 300), 1, (OK, 300), 0, id="E4"),
    pytest.param((UNREFERENCED, 1, 300), 300, (OK, 300), 0, id="E4-exact"),
    pytest.param((UNREFERENCED, 1, 300), 301, (EAGAIN, 300), 0, id="E5"),
    pytest.param((UNREFERENCED, 100, 2000), 1, (OK, 128_000), 36, id="E6"),
    pytest.param((UNREFERENCED, 100, 2000), 128_000, (OK, 128_000), 36, id="E7"),
    pytest.param((UNREFERENCED, 10, 100), 1, (OK, 1000), 0, id="E9"),
    pytest.param((FRESH, 10, 1000), 5000, (OK, 10_000), 0, id="E11"),
    pytest.param((FRESH, 1023, 2000), "1G", (EAGAIN, 2_046_000), 0, id="E12"),
    pytest.param((UNREFERENCED, 64, 4096), 1, (OK, 262_144), 0, id="E24"),
]

#: (text, as it is read back): what a file with a size takes
H_LIMITS = [
    pytest.param("\n", "0\n", id="H1"),
    pytest.param("max", "max\n", id="H2"),
    pytest.param("4097", "4096\n", id="H3"),
    (" 8K\n", "8192\n"),
    ("0x1000", "4096\n"),
    ("010000", "4096\n"),
    ("4095", "0\n"),
    ("K", "0\n"),
    ("16E", "0\n"),
    ("5E", "max\n"),
    (b"64M\0garbage", "67108864\n"),
]
#: (text,): what it refuses with EINVAL
H_LIMITS_EINVAL = [pytest.param("-1", id="H4"), pytest.param("1 K", id="H5"), "MAX", "1.5G", "08", "\xa01"]

#: (text, as it is read back or an errno): what a file with 0 or 1 takes
H6_FLAGS = [
    pytest.param("2", EINVAL, id="H6-2"),
    pytest.param("-1", EINVAL, id="H6--1"),
    pytest.param("x", EINVAL, id="H6-x"),
    pytest.param("0x1", "1\n", id="H6-0x1"),
    (" 0 \n", "0\n"),
    ("+1", "1\n"),
    ("\n", EINVAL),
    ("99999999999", ERANGE),
    ("Y", EINVAL),
]

#: of H11
ROOT_HAS = frozenset(
    {
        "memory.reclaim", "memory.stat", "memory.numa_stat", "memory.zswap.writeback", "memory.pressure",
        "cgroup.controllers", "cgroup.subtree_control", "cgroup.stat",
        "uzswap.last_reclaim", "uzswap.recompress", "uzswap.same_filled", "uzswap.disk", "uzswap.clean_copies",
    }
)  # fmt: skip
