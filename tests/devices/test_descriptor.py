"""A number in the program's table: used and closed only while it is ours."""

import os
from pathlib import Path

import pytest

from uzswap.devices.descriptor import Descriptor


def opened(path: Path) -> Descriptor:
    return Descriptor(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    file = opened(tmp_path / "ours")
    number = file.fileno()
    assert file.is_ours()
    file.close()
    file.close()
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        file.fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_a_number_that_the_program_uses_for_its_own_is_left_alone(tmp_path: Path) -> None:
    file = opened(tmp_path / "ours")
    os.close(file.fileno())
    theirs = os.open(tmp_path / "theirs", os.O_RDWR | os.O_CREAT, 0o600)
    assert theirs == file.fileno()
    assert not file.is_ours()
    file.close()
    os.close(theirs)  # still theirs to close


def test_a_number_that_the_program_closed(tmp_path: Path) -> None:
    file = opened(tmp_path / "ours")
    os.close(file.fileno())
    assert not file.is_ours()
    file.close()


def test_a_forgotten_one_is_closed_with_a_warning(tmp_path: Path) -> None:
    file = opened(tmp_path / "ours")
    number = file.fileno()
    with pytest.warns(ResourceWarning, match="unclosed swap file"):
        file.__del__()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
