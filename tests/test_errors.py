"""Errors carry an errno, are what except clauses ask for, and travel between processes."""

from __future__ import annotations

import errno
import pickle

import pytest

from uzswap.errors import (
    IntegrityError,
    InvalidArgumentError,
    ReclaimError,
    ReclaimIncomplete,
    ReclaimInterrupted,
    StaleHandleError,
    os_error,
    reclaim_error,
)
from uzswap.result import ReclaimResult

RESULT = ReclaimResult(100, 60, entries=3, failed={"EIO": 1})


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EAGAIN, BlockingIOError), (errno.EINTR, InterruptedError), (errno.ENOENT, FileNotFoundError),
        (errno.EACCES, PermissionError), (errno.EEXIST, FileExistsError), (errno.EBUSY, OSError),
    ],
)  # fmt: skip
def test_os_error_is_the_exact_subclass(number: int, kind: type[OSError]) -> None:
    error = os_error(number, "what is wrong: what helps", "/job/memory.max")
    assert type(error) is kind
    assert (error.errno, error.filename) == (number, "/job/memory.max")
    assert str(error) == f"[Errno {number}] what is wrong: what helps: '/job/memory.max'"
    assert str(os_error(number, "text")) == f"[Errno {number}] text"


@pytest.mark.parametrize(
    ("number", "kind", "builtin"),
    [
        (errno.EAGAIN, ReclaimIncomplete, BlockingIOError),
        (errno.EINTR, ReclaimInterrupted, InterruptedError),
        (errno.ENOSPC, ReclaimError, OSError),
        (errno.EIO, ReclaimError, OSError),
    ],
)
def test_reclaim_errors(number: int, kind: type[ReclaimError], builtin: type[OSError]) -> None:
    error = reclaim_error(number, "less was done", RESULT)
    assert type(error) is kind
    assert isinstance(error, builtin)
    assert (error.errno, error.strerror, error.result) == (number, "less was done", RESULT)


@pytest.mark.parametrize(
    "error",
    [
        IntegrityError("the bytes are damaged", "/job"),
        InvalidArgumentError("nodes=9"),
        StaleHandleError("handle 7 was freed"),
        reclaim_error(errno.EAGAIN, "less was done", RESULT),
        reclaim_error(errno.EIO, "the device failed", RESULT),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickle(error: OSError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (again.errno, str(again), vars(again)) == (error.errno, str(error), vars(error))


def test_kinds() -> None:
    assert IntegrityError("text", "/job").errno == errno.EIO
    assert IntegrityError("text", "/job").cgroup == "/job"
    assert StaleHandleError("text").errno == errno.ESTALE
    assert isinstance(InvalidArgumentError("text"), ValueError)


def test_a_result_as_flat_items() -> None:
    assert dict(RESULT.items()) == {
        "asked": 100,
        "written": 60,
        "entries": 3,
        "scanned": 0,
        "rotated": 0,
        "reclaimed": 0,
        "failed.EIO": 1,
        "seconds": 0.0,
    }
