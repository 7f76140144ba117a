"""Calls that fail, lie or dawdle, one at each position of a history: see positions.py and world.py.

``make test`` tries some positions of a short history, of all kinds; ``make soak`` each of several longer ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support import failing
from tests.support.child import run
from tests.support.soak import SOAK, longer

if TYPE_CHECKING:
    from tests.conftest import Tally

#: kind:mode:errno -> each how many-th position of it ``make test`` tries
KINDS = {
    "memory": {
        "malloc:fail:ENOMEM": 97,
        "calloc:fail:ENOMEM": 5,
        "realloc:fail:ENOMEM": 3,
        "posix_memalign:fail:ENOMEM": 1,
        "mmap:fail:ENOMEM": 4,
        "munmap:fail:ENOMEM": 4,
        "mprotect:fail:ENOMEM": 3,
        "madvise:fail:ENOMEM": 11,
        "madvise:fail:EAGAIN": 12,
    },
    "threads and descriptors": {
        "pthread_create:fail:EAGAIN": 1,
        "close_range:fail:EMFILE": 2,
        "pipe:fail:EMFILE": 1,
        "userfaultfd:fail:EMFILE": 1,
        "uffd_api:fail:EINVAL": 1,
        "uffd_register:fail:ENOMEM": 1,
    },
    "pages": {
        "uffd_copy:fail:ENOMEM": 12,
        "uffd_copy:fail:EAGAIN": 13,
        "uffd_zeropage:fail:ENOMEM": 11,
        "uffd_zeropage:fail:EAGAIN": 12,
        "uffd_move:fail:EBUSY": 13,
        "uffd_move:fail:ENOMEM": 14,
        "uffd_move:fail:EAGAIN": 15,
    },
    "a device that fails": {
        "pread:fail:EIO": 40,
        "pread:short:": 60,
        "pwrite:fail:EIO": 5,
        "pwrite:fail:ENOSPC": 6,
        "pwrite:short:": 7,
        "io_setup:fail:EAGAIN": 1,
        "io_submit:fail:EAGAIN": 5,
        "io_submit:short:": 6,
        "io_getevents:fail:EINVAL": 5,
        "io_getevents:short:": 6,
        "io_getevents:lost:EIO": 5,
        "io_getevents:late:": 9,
        "sync_file_range:fail:EIO": 6,
        "fallocate:fail:EIO": 8,
        "fallocate:fail:EOPNOTSUPP": 9,
    },
    "a device that lies": {
        "pread:flip:": 50,
        "pread:lost:": 60,
        "pread:torn:": 70,
        "pread:astray:": 80,
        "pwrite:lost:": 7,
        "pwrite:torn:": 8,
        "pwrite:flip:": 7,
        "pwrite:astray:": 8,
        "io_submit:lost:": 6,
        "io_submit:torn:": 6,
        "io_submit:flip:": 6,
        "io_submit:astray:": 6,
        "fallocate:lost:": 9,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", longer([1], list(range(2, 8))))
@pytest.mark.parametrize("group", KINDS)
def test_nothing_is_lost_or_wrong_wherever_it_fails(tmp_path: Path, tally: Tally, group: str, seed: int) -> None:
    wrong, tried = [], set()
    for what, stride in KINDS[group].items():
        tried.add((longer(stride, max(1, stride // 7)), what))
    for stride, what in sorted(tried):
        done = run(
            "from tests.faults.positions import main; main()",
            [str(tmp_path), str(seed), str(longer(70, 250)), str(stride), str(seed % stride), what],
            env=failing.preloaded(),
            timeout=longer(600, 7200),
        ).check()
        (told,) = json.loads(done.stdout).values()
        tally("fault positions tried", told["positions"])
        tally("faults injected", told["struck"])
        tally("bytes compared", told["compared"])
        wrong += told["wrong"]
    assert not wrong, "\n".join(wrong)
