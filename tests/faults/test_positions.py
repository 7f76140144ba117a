"""Calls that fail, lie or dawdle, one at each position of a history: see positions.py and world.py.

``make test`` tries some positions of a short history, of all kinds; ``make soak`` more of a longer one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support import failing
from tests.support.child import run
from tests.support.soak import longer

if TYPE_CHECKING:
    from tests.conftest import Tally

#: kind:mode:errno -> each how many-th position of it ``make test`` tries
KINDS = {
    "memory": {
        "malloc:fail:ENOMEM": 194,
        "calloc:fail:ENOMEM": 10,
        "realloc:fail:ENOMEM": 6,
        "posix_memalign:fail:ENOMEM": 2,
        "mmap:fail:ENOMEM": 8,
        "munmap:fail:ENOMEM": 8,
        "mprotect:fail:ENOMEM": 6,
        "madvise:fail:ENOMEM": 22,
        "madvise:fail:EAGAIN": 24,
    },
    "threads and descriptors": {
        "pthread_create:fail:EAGAIN": 2,
        "close_range:fail:EMFILE": 4,
        "pipe:fail:EMFILE": 2,
        "userfaultfd:fail:EMFILE": 2,
        "uffd_api:fail:EINVAL": 2,
        "uffd_register:fail:ENOMEM": 2,
    },
    "pages": {
        "uffd_copy:fail:ENOMEM": 24,
        "uffd_copy:fail:EAGAIN": 26,
        "uffd_zeropage:fail:ENOMEM": 22,
        "uffd_zeropage:fail:EAGAIN": 24,
        "uffd_move:fail:EBUSY": 26,
        "uffd_move:fail:ENOMEM": 28,
        "uffd_move:fail:EAGAIN": 30,
    },
    "a device that fails": {
        "pread:fail:EIO": 80,
        "pread:short:": 120,
        "pwrite:fail:EIO": 10,
        "pwrite:fail:ENOSPC": 12,
        "pwrite:short:": 14,
        "io_setup:fail:EAGAIN": 2,
        "io_submit:fail:EAGAIN": 10,
        "io_submit:short:": 12,
        "io_getevents:fail:EINVAL": 10,
        "io_getevents:short:": 12,
        "io_getevents:lost:EIO": 10,
        "io_getevents:late:": 18,
        "sync_file_range:fail:EIO": 12,
        "fallocate:fail:EIO": 16,
        "fallocate:fail:EOPNOTSUPP": 18,
    },
    "a device that lies": {
        "pread:flip:": 100,
        "pread:lost:": 120,
        "pread:torn:": 140,
        "pread:astray:": 160,
        "pwrite:lost:": 14,
        "pwrite:torn:": 16,
        "pwrite:flip:": 14,
        "pwrite:astray:": 16,
        "io_submit:lost:": 12,
        "io_submit:torn:": 12,
        "io_submit:flip:": 12,
        "io_submit:astray:": 12,
        "fallocate:lost:": 18,
    },
    "an encrypted device": {
        "mmap:fail:ENOMEM": 10,
        "pread:fail:EIO": 100,
        "pread:short:": 160,
        "pread:flip:": 120,
        "pread:torn:": 140,
        "pread:astray:": 160,
        "pwrite:fail:EIO": 14,
        "pwrite:lost:": 16,
        "pwrite:flip:": 18,
        "pwrite:astray:": 20,
        "io_submit:fail:EAGAIN": 12,
        "io_submit:short:": 14,
        "io_submit:torn:": 16,
        "io_submit:astray:": 18,
        "io_getevents:fail:EINVAL": 14,
        "io_getevents:lost:EIO": 16,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", longer([1], [2]))
@pytest.mark.parametrize("group", KINDS)
def test_nothing_is_lost_or_wrong_wherever_it_fails(tmp_path: Path, tally: Tally, group: str, seed: int) -> None:
    kinds = [f"{what}:{longer(stride, stride // 2)}" for what, stride in KINDS[group].items()]
    done = run(
        "from tests.faults.positions import main; main()",
        [str(tmp_path), str(seed), str(longer(45, 100)), "encrypted" if "encrypted" in group else "plain", *kinds],
        env=failing.preloaded(),
        timeout=longer(600, 3000),
    ).check()
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(kinds)
    for kind, number in (
        ("fault positions tried", "positions"),
        ("faults injected", "struck"),
        ("bytes compared", "compared"),
    ):
        tally(kind, sum(result[number] for result in results))
    wrong = [text for result in results for text in result["wrong"]]
    assert not wrong, "\n".join(wrong)
