"""Writes that end in time, of any thread."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path

import pytest
from tests.agent.test_requests import blocking

from uzswap.client.deadlines import SIGNAL, Deadlines


def test_many_threads_each_have_their_own_deadline(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}" for i in range(8)]
    for path in paths:
        path.touch()
    ended: dict[int, int] = {}

    def write(deadlines: Deadlines, i: int) -> None:
        fd = os.open(paths[i], os.O_WRONLY)
        try:
            deadlines.write(fd, b"1", 0.02 * (i + 1))
        except OSError as error:
            ended[i] = error.errno or 0
        finally:
            os.close(fd)

    with Deadlines() as deadlines, blocking(paths[0]), blocking(paths[1]), blocking(paths[2]):
        threads = [threading.Thread(target=write, args=(deadlines, i)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ended == dict.fromkeys(range(3), errno.EINTR)
    assert [path.read_text() for path in paths[3:]] == ["1"] * 5


def test_the_handler_that_was_there_is_there_again() -> None:
    came: list[int] = []
    before = signal.signal(SIGNAL, lambda number, frame: came.append(number))
    try:
        with Deadlines():
            signal.raise_signal(SIGNAL)
        assert came == []
        signal.raise_signal(SIGNAL)
        assert came == [SIGNAL]
    finally:
        signal.signal(SIGNAL, before)


def test_an_error_of_the_write_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    try:
        with Deadlines() as deadlines, pytest.raises(OSError, match="Bad file") as caught:
            deadlines.write(fd, b"1", 10.0)
    finally:
        os.close(fd)
    assert caught.value.errno == errno.EBADF
