"""What the probes of the machine find, and that they leave no trace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from uzswap import doctor
from uzswap.probes import machine
from uzswap.probes.finding import Level


def test_there_is_a_remedy_for_all_that_is_missing() -> None:
    assert [finding for finding in doctor() if finding.level is Level.MISSING and not finding.fix] == []


def test_doctor_leaves_nothing_behind() -> None:
    descriptors, groups = set(os.listdir("/proc/self/fd")), _scratch_groups()
    doctor()
    assert set(os.listdir("/proc/self/fd")) <= descriptors  # what others have left may go meanwhile
    assert _scratch_groups() == groups


def _scratch_groups() -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob("**/uzswap-doctor-*"))


def test_doctor_says_when_there_is_no_place_for_a_swap_file(monkeypatch: pytest.MonkeyPatch) -> None:
    # A capacity that no file system takes.
    finding = machine.swap_file((1 << 63) - 4096)[0]
    assert finding.level is Level.MISSING
    assert finding.required
    assert finding.fix
